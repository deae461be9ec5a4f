"""The page: pictures in, a method at work, the two predictions compared, curves, and what one takes home."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from allweather.data.weather import CONDITIONS
from allweather.errors import AllWeatherError
from allweather.methods import METHODS, Method
from allweather.serve import fields
from allweather.serve.access import told
from allweather.serve.choosing import choose_method
from allweather.serve.compare import compare
from allweather.serve.curves import curves
from allweather.serve.legend import legend
from allweather.serve.networks import Network, catalogue
from allweather.serve.pictures import from_folder, from_scenes, from_uploads
from allweather.serve.serving import Serving
from allweather.serve.style import CSS, SCRIPT, theme
from allweather.serve.uploads_folder import uploads_folder
from allweather.serve.visitor import Visitor, restart

HEAD = "Adapts a segmentation network to the weather in your picture, without labels, and shows what changes."
USUAL_PASSES = 12  # of one picture alone
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
NO_CHECKPOINT = "the one it came with"


class Page:
    """The page's components and what happens on each event; visitors' state is in `visitor.Visitors` alone."""

    def __init__(self, serving: Serving) -> None:
        self.networks, self.visitors, self.pool = serving.networks, serving.visitors, serving.pool
        self.limits, self.metrics, self.method = serving.limits, serving.metrics, serving.method

    def build(self) -> gr.Blocks:
        """All of it, ready to be mounted."""
        with gr.Blocks(
            title="allweather", analytics_enabled=False, delete_cache=(60, max(60, int(self.limits.idle)))
        ) as blocks:
            gr.Markdown(f"# allweather\n{HEAD}")
            with gr.Row():
                with gr.Column(scale=1, min_width=320):
                    self._inputs()
                    self._choices()
                with gr.Column(scale=2, min_width=320):
                    self._results()
            self._events(blocks)
        return blocks

    # What there is

    def _inputs(self) -> None:
        gr.Markdown("## 1. Pictures")
        with gr.Tab("Files"):
            self.files = gr.File(
                label="A picture, several, or a clip", file_count="multiple", file_types=["image", "video"], height=150,
                elem_id="files",
            )  # fmt: skip
            self.folder = gr.UploadButton("A whole folder", file_count="directory", size="sm", elem_id="folder")
        with gr.Tab("Scene"):
            self.weather = gr.Dropdown(list(CONDITIONS), value="fog", label="Weather", elem_id="weather")
            self.strength = gr.Slider(0, 1.5, 1, step=0.05, label="Strength of the weather", elem_id="strength")
            self.seed = gr.Number(600_000, label="Number of the scene", precision=0, minimum=0, maximum=10**9)
            self.count = gr.Slider(1, 30, 1, step=1, label="Scenes in a row")
            self.make = gr.Button("Make the scene", elem_id="scene")
        if self.networks.allowed is not None:
            with gr.Tab("Server"):
                self.below = gr.Dropdown(
                    self.networks.folders(), label="Folder on the server", allow_custom_value=True, elem_id="below"
                )
                self.open = gr.Button("Open the folder")

    def _choices(self) -> None:
        gr.Markdown("## 2. Network and method")
        self.network = gr.Dropdown(list(self.networks.offers), value=self.networks.default, label="Network")
        if self.networks.allowed is not None:
            with gr.Accordion("A checkpoint of the server", open=False):
                self.architecture = gr.Dropdown(catalogue(), value=None, label="Network of the catalogue")
                self.checkpoint = gr.Dropdown(
                    self._checkpoints(), value=NO_CHECKPOINT, label="Checkpoint", allow_custom_value=True,
                    elem_id="checkpoint",
                )  # fmt: skip
        self.chosen = gr.Dropdown(list(METHODS), value=self.method, label="Method", elem_id="method")
        self.about = gr.Markdown(_about(self.method))
        self.preset = gr.Radio(fields.presets(self.method), value="recommended", label="Preset")
        self.passes = gr.Slider(
            1, self.limits.passes, min(USUAL_PASSES, self.limits.passes), step=1, label="Passes over the pictures",
            info="Methods that go on along a stream learn at each pass.", elem_id="passes",
        )  # fmt: skip
        with gr.Accordion("Fields of the method", open=False, elem_id="fields"):
            shown = fields.rows(self.method, "recommended", self.networks.get().model)
            self.texts = [self._text(shown[index] if index < len(shown) else None) for index in range(fields.MOST)]

    def _text(self, row: fields.Row | None) -> gr.Textbox:
        if row is None:
            return gr.Textbox(visible=False)
        return gr.Textbox(row.value, label=row.name, info=row.help, max_length=200)

    def _results(self) -> None:
        gr.Markdown("## 3. Adapt")
        with gr.Row():
            self.start = gr.Button("Start", variant="primary", elem_id="start", size="md", min_width=60)
            self.pause = gr.Button("Pause", elem_id="pause", size="md", min_width=60, interactive=False)
            self.cancel = gr.Button("Cancel", elem_id="cancel", size="md", min_width=60, interactive=False)
            self.reset = gr.Button("Reset", elem_id="reset", size="md", min_width=60)
        self.notice = gr.HTML("", elem_id="notice")
        self.status = gr.HTML(_status(None), elem_id="status")
        self.compared = gr.HTML(compare(None), elem_id="compare")
        self.take = gr.HTML("", elem_id="take")
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                self.drawn = gr.HTML(curves((), ()), elem_id="curves")
            with gr.Column(scale=2, min_width=260):
                self.classes = gr.HTML("", elem_id="legend")

    # What happens

    def _events(self, blocks: gr.Blocks) -> None:
        shown = [
            self.notice,
            self.status,
            self.compared,
            self.take,
            self.drawn,
            self.classes,
            self.start,
            self.pause,
            self.cancel,
        ]
        network = self._network_inputs()
        held = [*shown, self.passes, self.files]
        shown_work = PRIVATE | {"show_progress": "minimal", "show_progress_on": self.status}
        for event, component in ((self.files.upload, self.files), (self.folder.upload, self.folder)):
            event(  # as they came: the library makes an empty file for each, and drops their names
                self._upload, [component, *network], held, preprocess=False, concurrency_limit=4, **shown_work
            )
        scene = [self.weather, self.strength, self.seed, self.count]
        self.make.click(self._scene, [*scene, *network], held, concurrency_limit=4, **shown_work)
        self.strength.release(self._scene, [*scene, *network], held, concurrency_limit=4, **shown_work)
        if self.networks.allowed is not None:
            self.open.click(self._open, [self.below, *network], held, concurrency_limit=4, **shown_work)
            blocks.load(self._there, None, [self.below, self.checkpoint], queue=False, **PRIVATE)
        self.chosen.change(
            self._method, [self.chosen, *network], [self.about, self.preset, *self.texts], queue=False, **PRIVATE
        )
        self.preset.change(self._preset, [self.chosen, self.preset, *network], self.texts, queue=False, **PRIVATE)
        self.start.click(
            self._start, [self.chosen, self.preset, self.passes, *network, *self.texts], shown,
            concurrency_limit=self.limits.visitors, **PRIVATE,
        )  # fmt: skip
        self.pause.click(self._pause, None, [self.status, self.pause], queue=False, **PRIVATE)
        self.cancel.click(self._cancel, None, None, queue=False, **PRIVATE)
        self.reset.click(self._reset, None, shown, queue=False, **PRIVATE)
        blocks.unload(self._leave)

    def _network_inputs(self) -> list[gr.components.Component]:
        if self.networks.allowed is None:
            return [self.network]
        return [self.network, self.architecture, self.checkpoint]

    def _chosen_network(self, name: str, architecture: str = "", checkpoint: str = NO_CHECKPOINT) -> Network:
        if architecture and (checkpoint or NO_CHECKPOINT) != NO_CHECKPOINT:
            return self.networks.open(architecture, str(checkpoint))  # whatever JSON a browser sent
        return self.networks.get(name)

    def _checkpoints(self) -> list[str]:
        return [NO_CHECKPOINT, *self.networks.checkpoints()]

    def _there(self) -> list[Any]:
        """What the allowed folder holds now."""
        return [gr.update(choices=self.networks.folders()), gr.update(choices=self._checkpoints())]

    @property
    def _named(self) -> int:
        """How many inputs say which network."""
        return 1 if self.networks.allowed is None else 3

    def _upload(self, request: gr.Request, files: Any, *network: Any) -> list[Any]:
        """Reads what was uploaded, and removes it; whatever JSON a browser sent comes here unchecked."""
        read = partial(from_uploads, _named(files), uploads_folder(), self.limits)
        return self._hold(read, tuple(each if isinstance(each, str) else "" for each in network), request)

    def _scene(
        self, request: gr.Request, weather: str, strength: float, seed: float, count: float, *network: str
    ) -> list[Any]:
        read = partial(from_scenes, weather, strength, int(seed or 0), int(count or 1))
        return self._hold(read, network, request)

    def _open(self, request: gr.Request, folder: str, *network: str) -> list[Any]:
        read = partial(from_folder, self.networks.allowed, str(folder or "."), self.limits)
        return self._hold(read, network, request)

    def _hold(self, read: Callable[..., Any], network: tuple[str, ...], request: gr.Request) -> list[Any]:
        visitor: Visitor | None = None
        try:
            visitor = self.visitors.of(str(request.session_hash))
            pictures, left_out = read(size=self._chosen_network(*network).size)
            visitor.hold(pictures)
        except AllWeatherError as error:
            self.metrics.refused.labels(getattr(error, "reason", "other")).inc()
            return [*self._view(visitor, self._told(error)), gr.skip(), None]
        passes = min(USUAL_PASSES if len(pictures) == 1 else 1, self.limits.passes)
        return [*self._view(visitor, " ".join(left_out)), gr.update(value=passes), None]

    def _method(self, name: str, *network: str) -> list[Any]:
        preset = gr.update(choices=fields.presets(name), value="recommended")
        return [_about(name), preset, *self._texts(name, "recommended", network)]

    def _preset(self, name: str, preset: str, *network: str) -> list[Any]:
        return self._texts(name, preset if preset in fields.presets(name) else "recommended", network)

    def _texts(self, name: str, preset: str, network: tuple[str, ...]) -> list[Any]:
        try:
            shown = fields.rows(name, preset, self._chosen_network(*network).model)
        except AllWeatherError as error:
            raise gr.Error(self._told(error), print_exception=False) from error
        made = [gr.update(visible=True, value=row.value, label=row.name, info=row.help) for row in shown]
        return [*made, *[gr.update(visible=False, value="")] * (fields.MOST - len(made))]

    async def _start(
        self, request: gr.Request, name: str, preset: str, passes: float, *rest: str
    ) -> AsyncIterator[list[Any]]:
        """Adapts, and shows what happens while it does."""
        visitor: Visitor | None = None

        def choose() -> tuple[Network, Method]:
            network, texts = self._chosen_network(*rest[: self._named]), rest[self._named :]
            settings = fields.changed(fields.rows(name, preset, network.model), texts)
            return network, choose_method(name, preset, settings, network.model, self.limits, self.networks.allowed)

        try:
            visitor = self.visitors.of(str(request.session_hash))
            last, passes = -1, min(max(1, int(passes)), self.limits.passes)
            async with aclosing(visitor.start(self.pool, passes, choose)) as signs:
                async for _ in signs:
                    version = visitor.version
                    yield await self._seen(visitor, "" if last < 0 else None, version != last)
                    last = version
        except AllWeatherError as error:
            yield self._view(visitor, self._told(error))
            return
        yield await self._seen(visitor)

    def _told(self, error: AllWeatherError) -> str:
        return told(error, self.networks.allowed)

    def _pause(self, request: gr.Request) -> list[Any]:
        visitor = self.visitors.of(str(request.session_hash))
        visitor.pause(visitor.stage == "running")
        return [_status(visitor), gr.update(value="Go on" if visitor.stage == "paused" else "Pause")]

    def _cancel(self, request: gr.Request) -> None:
        self.visitors.of(str(request.session_hash)).cancel()

    async def _reset(self, request: gr.Request) -> list[Any]:
        visitor = self.visitors.of(str(request.session_hash))
        await restart(visitor)
        return await self._seen(visitor, "")

    def _leave(self, request: gr.Request) -> None:
        self.visitors.leave(str(request.session_hash))

    async def _seen(self, visitor: Visitor, notice: str | None = None, picture: bool = True) -> list[Any]:
        """As `_view`; shares of a large picture's classes take a while to count."""
        return await asyncio.to_thread(self._view, visitor, notice, picture)

    def _view(self, visitor: Visitor | None, notice: str | None = None, picture: bool = True) -> list[Any]:
        """What every part of the page shows of a visitor.

        Args:
            notice: what went wrong or was left out, empty for nothing; None lets stand what was said last.
        """
        said = gr.skip() if notice is None else _notice(notice)
        if visitor is None:
            return [said, *[gr.skip()] * 8]
        work = visitor.at_work
        pause = gr.update(interactive=work, value="Go on" if visitor.stage == "paused" else "Pause")
        return [
            said,
            _status(visitor),
            compare(visitor) if picture else gr.skip(),
            _take(visitor),
            curves(visitor.points, visitor.decided),
            legend(visitor.shown) if picture else gr.skip(),
            gr.update(interactive=not work),
            pause,
            gr.update(interactive=work),
        ]


def _named(files: Any) -> list[tuple[str, Path]]:
    """Uploaded files, each with the name that it has where it comes from."""
    found = [each for each in (files if isinstance(files, list) else [files]) if isinstance(each, dict)]
    paths = [(each.get("orig_name"), Path(str(each.get("path")))) for each in found]
    return [(name if isinstance(name, str) and name else path.name, path) for name, path in paths]


def _notice(text: str) -> str:
    """HTML: what went wrong, or was left out."""
    return f'<div class="aw-status aw-bad" role="alert">{escape(text)}</div>' if text else ""


def _status(visitor: Visitor | None) -> str:
    """HTML: where the run stands."""
    said = "Choose a picture, a clip or a scene, then press Start." if visitor is None else _stage(visitor)
    bar = ""
    if visitor is not None and visitor.total:
        bar = f'<progress aria-label="Pictures done" max="{visitor.total}" value="{visitor.done}"></progress>'
    return f'<div class="aw-status" role="status" aria-live="polite">{escape(said)}{bar}</div>'


def _stage(visitor: Visitor) -> str:
    stage, pictures = visitor.stage, visitor.pictures  # both once: one who leaves takes them away
    if stage == "empty" or not pictures:
        return "Choose a picture, a clip or a scene, then press Start."
    if stage == "ready":
        width, height = pictures[0].pixels.shape[1::-1]
        return f"{len(pictures)} picture{'s' if len(pictures) > 1 else ''} at {width}×{height}. Press Start."
    word = {"running": "Adapting", "paused": "Paused", "done": "Done", "cancelled": "Cancelled"}[stage]
    last = f"; the guard: {decided[-1][1]}" if (decided := visitor.decided) else ""
    return f"{word}: {visitor.done} of {visitor.total}{last}."


def _take(visitor: Visitor) -> str:
    """HTML: links to what may be taken home."""
    if visitor.shown is None or visitor.at_work or (session := visitor.session) is None:
        return ""
    found = [("labels.png", "Labels"), ("overlay.png", "Overlay"), ("session.safetensors", "Session")]
    if len(visitor.kept) > 1:
        found.insert(1, ("labels.zip", "All labels"))
    if not session.method.episodic:  # the others are the source network again
        found.insert(-1, ("adapted.safetensors", "Adapted weights"))
    links = [f'<a href="take/{visitor.key}/{name}" download="{name}">{word}</a>' for name, word in found]
    return f'<div class="aw-take" role="group" aria-label="Download">{"".join(links)}</div>'


def _about(method: str) -> str:
    """Markdown: what a method is, and its source."""
    kind = METHODS[method]
    line = (kind.__doc__ or "").strip().splitlines()[0]
    return f"{line}\n\n*{kind.source}*" if kind.source else line


def mount_page(app: FastAPI, serving: Serving) -> None:
    """Puts the page at the application's root."""

    async def mount() -> None:
        blocks = Page(serving).build()
        blocks.queue(max_size=4 * serving.limits.visitors, api_open=False)
        gr.mount_gradio_app(
            app, blocks, path="/", footer_links=[], run_history=False, max_file_size=serving.limits.upload_bytes,
            theme=theme(), css=CSS, js=SCRIPT, ssr_mode=False, show_error=True, enable_monitoring=False,
            mcp_server=False,
        )  # fmt: skip

    with ThreadPoolExecutor(1) as thread:  # without a running loop the library makes some, and closes none
        thread.submit(asyncio.run, mount()).result()

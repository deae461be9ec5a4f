"""`allweather adapt`: a network, a method and images; writes labels, colors, overlays and a record."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from allweather import methods
from allweather.app.adapting import adapt_along
from allweather.app.console import (
    DONE,
    INTERRUPTED,
    SOME_FAILED,
    narration,
    tell_done,
    tell_interrupted,
)
from allweather.app.flags import (
    Channels,
    Classes,
    Device,
    GuardLimits,
    MethodName,
    ModelArguments,
    ModelName,
    Preset,
    RandomWeights,
    RayAddress,
    Seed,
    Settings,
    Sha256,
    Threads,
    Weights,
    Workers,
)  # fmt: skip
from allweather.app.kept_session import check_place, go_on_from
from allweather.app.makings import Makings
from allweather.app.opening import frame_size, open_inputs, open_network, readable, scaled, tell_scale
from allweather.app.options import network_options, parse_guard, parse_scale, parse_settings
from allweather.app.output import FILM, FOR_IMAGES, FOR_VIDEOS, Output, check_results, parse_kinds
from allweather.app.reel import open_reel
from allweather.app.spread import Spread
from allweather.data import Stream
from allweather.errors import SettingsError
from allweather.methods.settings import path_fields, paths_in
from allweather.methods.views import Views
from allweather.models import Segmenter
from allweather.plugins import code_digest
from allweather.runs.decisions import decisions_of, spell
from allweather.runs.evaluate import Protocol
from allweather.runs.plan import MethodSpec, ModelSpec, StreamSpec
from allweather.runs.record import provenance
from allweather.scale.work import SAVE_EVERY
from allweather.session import AdaptWhen, Precision, Session, Shift, advise_scale
from allweather.session.shift import Reference
from allweather.writing import check_case

EXAMPLE = "allweather adapt frames/ --model demo:streetnet --method mall-domain --out adapted/"


def adapt(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="The folder where everything goes.")],
    inputs: Annotated[
        list[Path] | None, typer.Argument(metavar="INPUT…", help="Folders of images, image files, or one video.")
    ] = None,
    weights: Weights = None,
    sha256: Sha256 = None,
    random_weights: RandomWeights = False,
    model_arg: ModelArguments = None,
    classes: Classes = None,
    mean: Channels = None,
    std: Channels = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:SPLIT]",
            help="INPUT is this dataset's root (`allweather list datasets`), or that of yours: mydata.py:MyDataset.",
        ),
    ] = None,
    method: MethodName = "mall-domain",
    preset: Preset = "recommended",
    setting: Settings = None,
    guard: GuardLimits = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Resample every image to this before the network; 'native' keeps each. Default: native, or what the "
            "network's authors take (`list models --json`).",
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="FACTOR|auto",
            help="Enlarge --size by this; auto: by 1.5 where the network is surer of the first frames then.",
        ),
    ] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(help="online: predict each frame as it comes; transductive: adapt first, then predict."),
    ] = "online",
    batch: Annotated[int, typer.Option(min=1, help="Frames per adaptation.")] = 1,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Annotated[Precision, typer.Option(help="float32 or bf16.")] = "float32",
    compile: Annotated[bool, typer.Option("--compile", help="Run the network through torch.compile.")] = False,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="channels_last memory format.")] = False,
    adapt_when: Annotated[
        AdaptWhen,
        typer.Option(help="always; or shift: images that look like the source domain are predicted without adapting."),
    ] = "always",
    shift_threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Distance from the source domain, 0..1, above which shift adapts.")
    ] = Shift().threshold,
    shift_reference: Annotated[
        Reference, typer.Option(help="What shift compares with: source, the network's; start, the first five batches.")
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Keep what an earlier run wrote; do the rest.")] = False,
    write: Annotated[
        str | None,
        typer.Option(
            metavar="KIND,…",
            help="What to write: labels, color, overlay, confidence (16-bit grey PNG, 0..65535 = 0..1), video. "
            "Default: labels,color,overlay; of a video alone: video.",
        ),
    ] = None,
    panels: Annotated[
        str | None,
        typer.Option(metavar="PANEL,…", help="What the film shows side by side. Default: input,source,adapted."),
    ] = None,
    film_rate: Annotated[
        float | None,
        typer.Option(metavar="FPS", help="Frames per second of the film. Default: the video's times; of images, 10."),
    ] = None,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Write confidence too, beside what --write says.")
    ] = False,
    save_session: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the adapted state goes in the end, not after Ctrl-C; --from-session reads it.",
        ),
    ] = None,
    from_session: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Go on from the state that --save-session wrote.")
    ] = None,
    workers: Workers = None,
    ray: RayAddress = None,
    streams_by: Annotated[
        str | None,
        typer.Option(
            metavar="folder|PATTERN|FILE.csv",
            help="Each INPUT is a stream; or a pattern over names, its group the stream; or a list stream,path.",
        ),
    ] = None,
    save_every: Annotated[
        int, typer.Option(min=1, metavar="K", help="Of many streams, each one's session is saved every K frames.")
    ] = SAVE_EVERY,
    threads: Threads = 1,
) -> None:
    """Adapt a network to images or a video without labels, and write its predictions.

    Writes OUT/labels/NAME.png (trainIds, at the image's own size), OUT/color/NAME.png and OUT/overlay/NAME.jpg; of a
    video OUT/overlay.mp4; and OUT/record.json, OUT/record.jsonl. An image that cannot be read, or whose prediction is
    not finite, is named and skipped; the exit status is then 1.

    With --workers, --ray or --streams-by every INPUT is a stream with a session of its own, and outputs are named
    STREAM/NAME. Under torchrun one network learns from the streams of all ranks.
    """
    network = network_options(model_arg, classes, mean, std)
    check_place(save_session, out, (weights, from_session, *(inputs or [])))
    chosen = partial(methods.make, method, preset, parse_settings(setting or []))
    named = chosen()  # a misspelt method must not wait for a checkpoint
    read = [path for field in path_fields(type(named)) for path in paths_in(getattr(named, field))]
    check_results(out, [*map(Path, read), *([] if dataset else inputs or [])])
    spread = Spread.asked(workers, ray, streams_by, save_every, threads)
    asked, wanted = frame_size(size, model), parse_scale(scale)
    if scale is not None and wanted != "auto":
        asked = scaled(asked, wanted)
    if spread is None:
        stream = open_inputs(inputs or [], dataset, asked)
    else:
        stream = spread.open(inputs or [], dataset, asked, film=panels or film_rate)
    check_case(out, stream.names)
    kinds = parse_kinds(write, FOR_VIDEOS if stream.video else FOR_IMAGES, confidence)
    if (panels or film_rate) and spread is None and "video" not in kinds:
        raise SettingsError("--panels and --film-rate are of a film: add video to --write, or leave them out.")
    limits = parse_guard(guard or [])
    here = device if spread is None else spread.device(device)
    loaded = open_network(model, weights, here, network, sha256=sha256, random_weights=random_weights, seed=seed)
    options: dict[str, Any] = {"seed": seed, "precision": precision, "compile": compile, "channels_last": channels_last}
    shift = Shift(threshold=shift_threshold, reference=shift_reference)
    when: dict[str, Any] = options | {"adapt_when": adapt_when, "shift": shift, "guard": limits}
    if wanted == "auto":
        stream, asked = _at_best_scale(loaded, stream, asked, inputs or [], dataset, alone=spread is None)
    session = Session(loaded, chosen(model=loaded), **when)
    head = provenance(session, stream, protocol, batch) | {"size": asked}
    head |= _own_code(model, method, session.method.views, dataset, network)
    if spread is not None:
        head |= spread.head() | go_on_from(session, from_session)
        makings = Makings(loaded, session, when, device, protocol, batch, from_session)
        raise typer.Exit(spread.run(makings, out, head, resume, kinds, save_session))
    reel = open_reel(out / FILM, panels, film_rate, stream, session.method.name) if "video" in kinds else None
    head |= _film_read(stream) | go_on_from(session, from_session) | ({"film": reel.settings} if reel else {})
    with Output.open(out, head, stream.names, resume, kinds, reel) as folder:
        skip = frozenset(folder.images)
        if skip:
            narration.print(f"resuming: {len(skip)} of {len(stream)} images are done")
        try:
            source = Session(loaded, "source", **options) if reel is not None and "source" in reel.panels else None
            adapt_along(session, stream, protocol, batch, skip, folder, source)
        except KeyboardInterrupt:
            tell_interrupted(len(folder.images))
            raise typer.Exit(INTERRUPTED) from None
        folder.finish(stream.damage)
    if save_session is not None:
        session.save(save_session)
    _tell(folder, stream)
    raise typer.Exit(SOME_FAILED if folder.failures or stream.damage else DONE)


def _at_best_scale(
    model: Segmenter, stream: Stream, size: tuple[int, int] | None, inputs: list[Path], dataset: str | None, alone: bool
) -> tuple[Stream, tuple[int, int] | None]:
    """The stream at the size that the network is surer of, and that size."""
    if not alone:
        raise SettingsError("--scale auto: expected a single stream; of many, give the factor.")
    scaled(size, 1.0)  # a size there must be, before frames are read
    advice = advise_scale(model, readable(stream))
    tell_scale(advice)
    if advice.scale == 1:
        return stream, size
    larger = scaled(size, advice.scale)
    return open_inputs(inputs, dataset, larger), larger


def _own_code(model: str, method: str, views: Views, dataset: str | None, network: Mapping[str, Any]) -> dict[str, Any]:
    """What the record says of code of the user's own: its digests, and the network's arguments; or nothing."""
    named = {"model": ModelSpec(model), "method": MethodSpec(method), "dataset": StreamSpec(dataset or "", root=".")}
    told = {part: spec.digest() for part, spec in named.items()} | {view: code_digest(str(view)) for view in views}
    code = {str(part): digest for part, digest in told.items() if digest}
    arguments = {"arguments": network["arguments"]} if "arguments" in network else {}
    return ({"code": code} if code else {}) | arguments


def _film_read(stream: Stream) -> dict[str, Any]:
    """What the record says of a video; nothing of images."""
    if stream.video is None:
        return {}
    path = stream.video.path
    return {"video": {"file": path.name, "bytes": path.stat().st_size, "rate": float(stream.video.rate)}}


def _tell(folder: Output, stream: Stream) -> None:
    plainly = sum(entry.get("stop") == "no shift" for entry in folder.images.values())
    spared = f"{plainly} predicted without adapting" if plainly else ""
    decided = spell(decisions_of({"images": folder.images}))
    images = f"{len(folder.images)} of {len(stream)} images"
    tell_done(images, folder.folder, (spared, decided), stream.damage, folder.failures)

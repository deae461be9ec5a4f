"""`allweather export`: the adapted network of a saved session, as a file to deploy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor

from allweather.app.console import narration, plain
from allweather.app.flags import (
    Channels,
    Classes,
    ModelArguments,
    Sha256,
)  # fmt: skip
from allweather.app.opening import frame_size, open_inputs, open_network
from allweather.app.options import network_options, parse_settings, parse_size
from allweather.data import Stream
from allweather.errors import SettingsError
from allweather.export import Statistics
from allweather.export.write import GRAPHS, check
from allweather.models.catalogue import files_of
from allweather.models.placing import can_compute
from allweather.session.saved import open_saved, saved_device
from allweather.writing import check_apart

EXAMPLE = "allweather export night.session --model demo:streetnet --statistics stream --out net.onnx"


def export(
    session: Annotated[
        Path, typer.Argument(metavar="SESSION", help="What `adapt --save-session` or Session.save wrote.")
    ],
    model: Annotated[
        str, typer.Option(help="The network that was adapted, as SCHEME:NAME, or your own: mynets.py:build.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="NAME.safetensors, a state dict; .pt2 or .onnx, a graph; .delta.safetensors, what moved alone."
        ),
    ],
    weights: Annotated[Path | None, typer.Option(help="The network's checkpoint before adaptation.")] = None,
    sha256: Sha256 = None,
    statistics: Annotated[
        Statistics | None,
        typer.Option(
            help="BatchNorm: image mixes in each picture's own statistics, as the session does; stream folds their "
            "average over the stream into ordinary layers. Default: stream for .safetensors, image for the others."
        ),
    ] = None,
    frames: Annotated[
        list[Path] | None,
        typer.Option(help="For stream: average over these pictures, a folder or a video, instead of the session's."),
    ] = None,
    frames_size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Resample --frames to this: the size that the deployment sees; 'native' keeps each. Default: --size, "
            "or what the network's authors evaluate at, else native.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT", help="Fix a graph, .pt2 or .onnx, to this size; without it any size goes."
        ),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX opset, 18 to 23. Default: 18.")] = None,
    method: Annotated[str | None, typer.Option(help="The file of a method of your own: mymethod.py:MyMethod.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="A field of the method that names code of your own, such as views; the session says all others.",
        ),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="The adapted network had no checkpoint but random weights (--seed)."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of those random weights.")] = 0,
    model_arg: ModelArguments = None,
    classes: Classes = None,
    mean: Channels = None,
    std: Channels = None,
) -> None:
    """Write an adapted network for deployment. An export no longer adapts.

    Graphs take RGB in 0..1, 1×3×H×W, and give logits at that size; they are run and compared with the network first,
    .onnx in ONNX Runtime. A state dict goes into your own network, with your own preprocessing.
    """
    fixed = parse_size(size)
    _check_frames(frames, frames_size, statistics)
    if frames and fixed and not out.name.endswith(GRAPHS):
        raise SettingsError(f"--size: only a graph (.pt2, .onnx) has one. That of --frames is --frames-size {size}.")
    kind = check(out, fixed, opset)
    check_apart(out, (session, weights, *(frames or []), *files_of(model)))
    settings = parse_settings(setting or [])
    seen = frame_size(frames_size or size, model, "--frames-size") if frames else None
    device = saved_device(session)
    if not can_compute(device):
        narration.print(f"{plain(session)} was adapted on {plain(device)}, which is not here: exported from the CPU")
        device = "cpu"
    network = open_network(
        model, weights, device, network_options(model_arg, classes, mean, std),
        sha256=sha256, random_weights=random_weights, seed=seed,
    )  # fmt: skip
    opened = open_saved(session, network, method, settings, anywhere=True)
    pictures = _told(open_inputs(frames, None, seen)) if frames else None
    if kind in GRAPHS:
        narration.print(f"tracing {plain(model)}, then comparing: minutes for a deep network, fewer with --size")
    chosen: Statistics | None = statistics or ("stream" if frames else None)
    opened.export(out, statistics=chosen, frames=pictures, size=fixed, opset=opset)
    checked = ", checked" if kind in GRAPHS else ""
    narration.print(f"[bold]{plain(out)}[/]: {plain(opened.method.name)} on {plain(opened.model.name)}{checked}")


def _check_frames(frames: list[Path] | None, size: str | None, statistics: Statistics | None) -> None:
    if frames and statistics == "image":
        raise SettingsError("--frames: only --statistics stream averages over pictures. Leave one of them out.")
    if size is not None and not frames:
        raise SettingsError("--frames-size: expected --frames, the pictures that it is the size of. Leave it out.")


def _told(stream: Stream) -> Iterator[Tensor]:
    """The images of the stream; at its end it is told at which sizes they were."""
    sizes: dict[str, int] = {}
    for frame in stream:
        shown = f"{frame.image.shape[2]}×{frame.image.shape[1]}"
        sizes[shown] = sizes.get(shown, 0) + 1
        yield frame.image
    found = ", ".join(f"{number} at {size}" for size, number in list(sizes.items())[:4])
    more = ", …" if len(sizes) > 4 else ""
    narration.print(f"statistics of {len(stream)} frames: {found}{more} (--frames-size)")

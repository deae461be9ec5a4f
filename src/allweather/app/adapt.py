"""`allweather adapt`: a network, a method and images; writes labels, colors, overlays and a record."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from allweather import methods
from allweather.app.console import DONE, INTERRUPTED, SOME_FAILED, narration, plain, progress, rate, warn
from allweather.app.options import network_options, parse_settings, parse_size
from allweather.app.output import Output
from allweather.data import load_stream
from allweather.data.folder import open_files
from allweather.data.stream import Stream
from allweather.errors import CheckpointError, RandomWeightsWarning, SettingsError
from allweather.models import load_model
from allweather.models.catalogue import published_size
from allweather.plugins import digest, own_file
from allweather.runs.decisions import decisions_of, spell
from allweather.runs.evaluate import Protocol, run
from allweather.runs.record import provenance
from allweather.session import AdaptWhen, Precision, Session, Shift
from allweather.session.shift import Reference


def register(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command(epilog="Example: allweather adapt frames/ --model demo:streetnet --method mall-domain --out adapted/")(
        adapt
    )


def adapt(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT…", help="Folders of images, or image files.")],
    model: Annotated[
        str,
        typer.Option(help="The network, as SCHEME:NAME (see `allweather list models`), or your own: mynets.py:build."),
    ],
    out: Annotated[Path, typer.Option(help="Where labels, colors, overlays and the record go.")],
    weights: Annotated[Path | None, typer.Option(help="Its checkpoint.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Refuse a checkpoint of any other digest.")] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Run a network without a checkpoint all the same, to try things.")
    ] = False,
    model_arg: Annotated[
        list[str] | None,
        typer.Option("--model-arg", metavar="NAME=VALUE", help="An argument of your own network; repeatable."),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Class set of a library's or your own network.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="Your own network's, of pixels in 0..1.")] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="Your own network's, of pixels in 0..1.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:SPLIT]",
            help="INPUT is this dataset's root (see `allweather list datasets`), or your own's: mydata.py:MyDataset.",
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="See `allweather list methods`; or your own: mymethod.py:MyMethod.")
    ] = "mall-domain",
    preset: Annotated[str, typer.Option(help="recommended, or paper for the settings as published.")] = "recommended",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of the method; repeatable."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Resample every image to this before the network; 'native' keeps each. Default: as its authors do.",
        ),
    ] = None,
    protocol: Annotated[
        Protocol,
        typer.Option(help="online: predict each frame as it comes; transductive: adapt first, then predict."),
    ] = "online",
    batch: Annotated[int, typer.Option(min=1, help="Frames per adaptation.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the session's random stream.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    precision: Annotated[Precision, typer.Option(help="float32 or bf16.")] = "float32",
    compile: Annotated[bool, typer.Option("--compile", help="Run the network through torch.compile.")] = False,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="channels_last memory format.")] = False,
    adapt_when: Annotated[
        AdaptWhen,
        typer.Option(help="always; or shift: the source network predicts what looks like its own domain, at once."),
    ] = "always",
    shift_threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Distance from that domain above which shift adapts.")
    ] = Shift().threshold,
    shift_reference: Annotated[
        Reference, typer.Option(help="What shift compares with: source, the network's; start, the first five batches.")
    ] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Keep what an earlier run wrote; do the rest.")] = False,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also write OUT/confidence/NAME.png, 16-bit grey (0..65535 = 0..1).")
    ] = False,
) -> None:
    """Adapt a network to images without labels, and write its predictions.

    Writes OUT/labels/NAME.png (trainIds, at the image's own size), OUT/color/NAME.png, OUT/overlay/NAME.jpg and
    OUT/record.json. An image that cannot be read is named and skipped; the exit status is then 1.
    """
    network = network_options(model_arg, classes, mean, std)
    stream = _open_stream(inputs, dataset, _frame_size(size, model))
    session = open_session(
        model, weights, method, preset, parse_settings(setting or []), device, network,
        sha256=sha256, random_weights=random_weights, seed=seed, precision=precision, compile=compile,
        channels_last=channels_last, adapt_when=adapt_when,
        shift=Shift(threshold=shift_threshold, reference=shift_reference),
    )  # fmt: skip
    head = provenance(session, stream, protocol, batch) | _own_code(model, method, dataset, network)
    folder = Output.open(out, head, resume, confidence)
    skip = frozenset(folder.images)
    if skip:
        narration.print(f"resuming: {len(skip)} of {len(stream)} images are done")
    try:
        with progress() as bar:
            task = bar.add_task(method, total=len(stream) - len(skip), rate="")
            for outcome in run(session, stream, protocol, batch, skip):
                folder.write(outcome, session.model.classes)
                bar.advance(task)
                bar.update(task, rate=rate(bar.tasks[0].speed))
    except KeyboardInterrupt:
        narration.print(f"interrupted: {len(folder.images)} images are complete; add --resume for the rest.")
        raise typer.Exit(INTERRUPTED) from None
    folder.finish()
    _tell(folder, stream)
    raise typer.Exit(SOME_FAILED if folder.failures else DONE)


def open_session(
    model: str,
    weights: Path | None,
    method: str,
    preset: str,
    settings: dict[str, str],
    device: str = "cpu",
    network: Mapping[str, Any] | None = None,
    *,
    sha256: str | None = None,
    random_weights: bool = False,
    seed: int = 0,
    **options: Any,
) -> Session:
    """The session that the options describe; warnings of loading become narration.

    Args:
        network: more of `load_model`'s arguments.
        random_weights: takes a network without weights; it has those of `seed`.

    Raises:
        AllWeatherError: for anything unknown or unreadable among them.
    """
    methods.make(method, preset, settings)  # a misspelt method must not wait for a checkpoint
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if random_weights:
            torch.manual_seed(seed)
        loaded = load_model(model, weights, sha256=sha256, **(network or {}))
    _check_weights(model, any(issubclass(each.category, RandomWeightsWarning) for each in caught), random_weights)
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            warn(str(warning.message))
    try:
        torch.zeros(1, device=device).item()  # fails where nothing can be computed, such as meta
        loaded.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"--device {device}: {str(error).splitlines()[0]}") from error
    return Session(loaded, methods.make(method, preset, settings, model=loaded), seed=seed, **options)


def _check_weights(model: str, random: bool, allowed: bool) -> None:
    if random and not allowed:
        raise CheckpointError(
            f"{model} comes without weights, and none were given. Name its checkpoint: --weights FILE. To try things "
            "with random ones, add --random-weights."
        )
    if allowed and not random:
        raise SettingsError(f"--random-weights: {model} has weights here. Leave the option out.")


def _open_stream(inputs: list[Path], dataset: str | None, size: tuple[int, int] | None) -> Stream:
    if dataset is None:
        return open_files(inputs, size)
    if len(inputs) != 1:
        raise SettingsError(f"--dataset {dataset}: expected one INPUT, the dataset's root, got {len(inputs)}.")
    return load_stream(dataset, inputs[0], size)


def _own_code(model: str, method: str, dataset: str | None, network: Mapping[str, Any]) -> dict[str, Any]:
    """What the record says of code of the user's own: the files' digests, and the network's arguments; or nothing."""
    code = {Path(own_file(name) or "").name: digest(name) for name in (model, method, dataset or "") if own_file(name)}
    arguments = {"arguments": network["arguments"]} if "arguments" in network else {}
    return ({"code": code} if code else {}) | arguments


def _frame_size(asked: str | None, model: str) -> tuple[int, int] | None:
    """The size asked for, or the one at which the network's authors evaluate it; None keeps each frame's own."""
    if asked is not None:
        return None if asked == "native" else parse_size(asked)
    size = published_size(model)
    if size:
        narration.print(f"frames are resampled to {size[0]}×{size[1]}, as the authors of {plain(model)} do (--size)")
    return size


def _tell(folder: Output, stream: Stream) -> None:
    decided = spell(decisions_of({"images": folder.images}))
    guard = f", {decided}" if decided else ""
    plainly = sum(entry.get("stop") == "no shift" for entry in folder.images.values())
    spared = f", {plainly} predicted without adapting" if plainly else ""
    narration.print(f"{len(folder.images)} of {len(stream)} images in [bold]{plain(folder.folder)}[/]{spared}{guard}")
    if folder.failures:
        warn(f"{len(folder.failures)} images could not be read: {', '.join(list(folder.failures)[:5])}")

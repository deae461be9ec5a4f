"""What benchmarks.gpu measures: each function is one step and returns what its record holds."""

import gc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from allweather import Affinity, AllWeatherError, Frame, Guard, Live, Segmenter, Session, load_model, methods
from allweather.data.scenes import scene_stream
from allweather.errors import RandomWeightsWarning
from allweather.live.sources import Shot, Source
from allweather.methods import METHODS
from allweather.methods.mall import MallDomain
from allweather.ncut.lowrank import Factors
from benchmarks.gpu_device import Meter

CLASSES = 19
SPEED = ("source", "norm", "tent", "mall-sample", "mall-domain")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "tent": ("tent", {}),
    "mall-sample affine": ("mall-sample", {"parameters": "norm-affine"}),
    "mall-sample all": ("mall-sample", {"parameters": "all"}),
    "mall-domain affine": ("mall-domain", {"parameters": "norm-affine"}),
    "mall-domain all": ("mall-domain", {"parameters": "all"}),
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How large everything is: (width, height) of frames, batches, and numbers of repetitions."""

    size: tuple[int, int] = (1024, 512)
    small: tuple[int, int] = (256, 128)
    batch: int = 12
    frames: int = 30
    repeats: int = 5
    warm: int = 3
    operator: tuple[tuple[int, int, int], ...] = ((1, 256, 512), (12, 256, 512), (1, 512, 1024), (1, 1024, 2048))
    bandwidth: int = 1 << 28
    mobilenet: str = "deeplabv3plus:mobilenet-os16"
    resnet: str = "deeplabv3plus:resnet101-os16"
    others: tuple[str, ...] = (
        "robustnet:ibn-r50-os16",
        "robustnet:sw-r50-os16",
        "robustnet:isw-r50-os16",
        "robustnet:isw-r101-os8",
    )


TINY = Scale(
    size=(64, 32),
    small=(48, 32),
    batch=2,
    frames=2,
    repeats=1,
    warm=1,
    operator=((1, 32, 64), (2, 32, 64)),
    bandwidth=1 << 16,
    mobilenet="demo:streetnet",
    resnet="demo:streetnet",
    others=("demo:streetnet",),
)


def labels(scale: Scale, meter: Meter) -> Row:
    """The share of labels that the device and the CPU have in common along a few frames, for every method."""
    frames = _frames(scale.small, 2)
    rows: dict[str, Row] = {}
    with torch.backends.cudnn.flags(allow_tf32=False):  # the CPU has no such rounding
        for name in METHODS:
            try:
                late = meter.late
                rows[name] = {"skipped": "out of time"} if late else _same_labels(name, frames, meter)
            except AllWeatherError as error:
                rows[name] = {"skipped": str(error)}
    return {"model": "demo:streetnet", "size": scale.small, "frames": len(frames), "rows": rows}


def _same_labels(name: str, frames: list[Tensor], meter: Meter) -> Row:
    found, states = [], []
    for device in (torch.device("cpu"), meter.device):
        model = load_model("demo:streetnet").to(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # eata without source images is meant
            session = Session(model, methods.make(name, model=model))
        found.append([session(frame.to(device)).labels.cpu() for frame in frames])
        states.append(torch.cat([value.detach().cpu().flatten() for value in session.model.parameters()]))
    same = [float((a == b).double().mean()) for a, b in zip(*found, strict=True)]
    return {"same_labels": min(same), "largest_parameter_difference": float((states[0] - states[1]).abs().max())}


def operator(scale: Scale, meter: Meter) -> Row:
    """Time of affinity, loss with gradient and filter, the bytes that must move, and how near the bandwidth that is."""
    bandwidth = meter.bandwidth(scale.bandwidth)
    rows = []
    for batch, height, width in scale.operator:
        where = {"batch": batch, "height": height, "width": width}
        rows.append({**where, "skipped": "out of time"} if meter.late else where | _operator(where, meter, bandwidth))
    return {"classes": CLASSES, "bandwidth_gb_per_s": round(bandwidth / 1e9, 1), "rows": rows}


def _operator(where: dict[str, int], meter: Meter, bandwidth: float) -> Row:
    batch, height, width = where.values()
    frames = _frames((width, height), min(batch, 2))
    images = torch.stack([frames[i % len(frames)] for i in range(batch)]).to(meter.device)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(batch, CLASSES, 16, 32, generator=generator).to(meter.device)
    scores = functional.interpolate(logits, (height, width), mode="bilinear").softmax(1).requires_grad_()
    sigma_xy = 50 * height / 256

    def make() -> Affinity:
        return Affinity.from_image(images, sigma_xy=sigma_xy)

    affinity = make()
    assert isinstance(affinity.form, Factors)
    plain = scores.detach()
    meter.reset_peak()
    step = meter.milliseconds(lambda: torch.autograd.grad(affinity.normalized_cut(scores), scores), 3, 20)
    least = least_bytes(scores, affinity.form)
    return {
        "rank": affinity.rank,
        "products": str(affinity.form.appearance.dtype).removeprefix("torch."),
        "make_ms": meter.milliseconds(make, 1, 10),
        "step_ms": step,
        "filter_ms": meter.milliseconds(lambda: affinity.apply(plain), 1, 10),
        "least_mib": round(least / 2**20, 1),
        "bound_ms": round(1e3 * least / bandwidth, 4),
        "share_of_bandwidth": round(least / (step / 1e3) / bandwidth, 4),
        "synchronisations_of_a_step": meter.synchronisations(
            lambda: torch.autograd.grad(affinity.normalized_cut(scores), scores)
        ),
        "peak_mib": meter.peak_mib(),
        **_against_cpu(affinity, images, plain, sigma_xy, meter),
    }


def _against_cpu(affinity: Affinity, images: Tensor, scores: Tensor, sigma_xy: float, meter: Meter) -> Row:
    """The relative difference to the same filtering on the CPU, of the first image in float32."""
    if not meter.cuda:
        return {}
    on_cpu = Affinity.from_image(images[:1].cpu(), sigma_xy=sigma_xy, precision="float32").apply(scores[:1].cpu())
    there = affinity.apply(scores)[:1].cpu()
    return {"difference_to_cpu": float((there - on_cpu).norm() / on_cpu.norm())}


def least_bytes(scores: Tensor, factors: Factors) -> int:
    """What loss and gradient must read and write: scores, ψ and δ twice, for splat and slice, and the gradient once."""
    return 3 * scores.nbytes + 2 * factors.appearance.nbytes + 2 * factors.delta.nbytes


def iteration(name: str, scale: Scale, meter: Meter) -> Row:
    """Milliseconds per iteration of TENT and MALL at the largest batch, of the paper's 12 downwards, that fits."""
    batch = scale.batch
    while True:
        try:
            return {"model": name, "size": scale.size, "batch": batch, **_iteration(name, batch, scale, meter)}
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
            _free(meter)


def _iteration(name: str, batch: int, scale: Scale, meter: Meter) -> Row:
    model = network(name, meter)
    frames = _frames(scale.size, 2)
    images = torch.stack([frames[i % 2] for i in range(batch)]).to(meter.device)
    times: dict[str, list[float]] = {case: [] for case in (*CASES, "ncut")}
    peaks: dict[str, float | None] = {}
    sessions = {case: _updates_only(model, *settings) for case, settings in CASES.items()}
    cut = _normalized_cut(model, images)
    for turn in range(scale.repeats + 1):
        if turn > 1 and meter.late:
            break
        for case, session in sessions.items():
            meter.reset_peak()
            seconds = meter.seconds(lambda session=session: session.adapt(images))
            peaks[case] = meter.peak_mib()
            if turn:  # the first one warms up
                times[case].append(seconds)
        seconds = meter.seconds(cut)
        if turn:
            times["ncut"].append(seconds)
    ms = {case: round(1e3 * sorted(values)[len(values) // 2], 2) for case, values in times.items()}
    return {
        "ms_per_iteration": ms,
        "over_tent": {case: round(ms[case] / ms["tent"], 3) for case in CASES if case != "tent"},
        "ncut_share": round(ms["ncut"] / ms["mall-domain affine"], 4),
        "peak_mib": peaks,
        "rounds": len(times["tent"]),
    }


def _updates_only(model: Segmenter, name: str, fields: dict[str, Any]) -> Session:
    return Session(model, methods.make(name, settings={**fields, "iterations": 1}), guard=Guard(enabled=False))


def _normalized_cut(model: Segmenter, images: Tensor) -> Callable[[], None]:
    """What the normalized cut adds to an iteration: the smaller image, the affinity, the loss and its gradient."""
    method = MallDomain()
    with torch.no_grad():
        small = functional.interpolate(model(images).float(), scale_factor=method.scale, mode="bilinear")
    scores = small.softmax(1).requires_grad_()

    def run() -> None:
        method.affinity(images, scores.detach()).normalized_cut(scores).backward()

    return run


def speed(option: str, scale: Scale, meter: Meter) -> Row:
    """Frames per second, batch 1, of every method under one option, with peak memory and host synchronisations."""
    if option == "graphs":
        return {"model": scale.mobilenet, "size": scale.size, "rows": {"source": _graphs(scale, meter)}}
    rows: dict[str, Row] = {}
    for name, (method, preset) in speed_cases(option).items():
        rows[name] = {"skipped": "out of time"} if meter.late else _attempt(name, method, preset, option, scale, meter)
        _free(meter)
    return {"model": scale.mobilenet, "size": scale.size, "rows": rows}


def speed_cases(option: str) -> dict[str, tuple[str, str]]:
    """Label → method and preset; `fast` of each method that has it; `live` where nothing is compiled."""
    names = ("source", "tent", "mall-domain") if option == "compile" else SPEED  # compiling takes a minute each
    cases = {name: (name, "recommended") for name in names}
    cases |= {f"{name} fast": (name, "fast") for name in METHODS if "fast" in METHODS[name].presets}
    return cases if option == "compile" else {**cases, "live": ("mall-domain", "recommended")}


def _attempt(name: str, method: str, preset: str, option: str, scale: Scale, meter: Meter) -> Row:
    try:
        session = _session(method, preset, option, scale, meter)
        return _live(session, scale, meter) if name == "live" else _rate(session, scale, meter)
    except (torch.OutOfMemoryError, AllWeatherError) as error:
        return {"skipped": f"{type(error).__name__}: {error}"}


def _session(method: str, preset: str, option: str, scale: Scale, meter: Meter) -> Session:
    model = network(scale.mobilenet, meter)
    made = methods.make(method, preset, model=model)
    return Session(model, made, precision="bf16" if option == "bf16" else "float32", compile=option == "compile")


def _rate(session: Session, scale: Scale, meter: Meter) -> Row:
    frames = _cycle([frame.to(meter.device) for frame in _frames(scale.size, 3)])

    def one() -> None:
        session(next(frames)).labels[0, 0].item()  # waits for the prediction

    started = perf_counter()
    one()
    first = perf_counter() - started
    meter.reset_peak()
    times = meter.times(one, scale.warm, scale.frames)
    return {
        "frames_per_second": round(len(times) / sum(times), 2),
        "slowest_ms": round(1e3 * max(times), 2),
        "first_frame_s": round(first, 2),
        "frames": len(times),
        "peak_mib": meter.peak_mib(),
        "synchronisations": meter.synchronisations(one),
    }


class Ready(Source):
    """Frames in memory, each there as soon as the one before is predicted."""

    label = "procedural fog"

    def __init__(self, frames: list[Tensor], total: int) -> None:
        self._frames, self.total = frames, total

    def connect(self) -> Iterator[Shot]:
        height, width = self._frames[0].shape[1:]
        for index in range(self.total or 0):
            image = self._frames[index % len(self._frames)]
            yield Shot(0.0, lambda index=index, image=image: Frame(str(index), image, (width, height)))


def _live(session: Session, scale: Scale, meter: Meter) -> Row:
    """Predictions per second while the network learns beside them."""
    frames = _frames(scale.size, 3)
    session(frames[0].to(meter.device))
    session.reset()
    meter.reset_peak()
    shown: list[tuple[float, int]] = []
    for frame in Live(Ready(frames, scale.warm + scale.frames), session, every_frame=True):
        frame.result.labels[0, 0].item()
        shown.append((perf_counter(), frame.state))
    timed = shown[scale.warm - 1 :]
    return {
        "frames_per_second": round((len(timed) - 1) / (timed[-1][0] - timed[0][0]), 2),
        "frames": len(timed) - 1,
        "states_handed_over": shown[-1][1],
        "peak_mib": meter.peak_mib(),
    }


def _graphs(scale: Scale, meter: Meter) -> Row:
    """The source network's forward pass replayed as one CUDA graph: what launching its kernels costs."""
    if not meter.cuda:
        return {"skipped": "CUDA graphs need a GPU"}
    model = network(scale.mobilenet, meter)
    image = torch.stack(_frames(scale.size, 1)).to(meter.device)
    beside = torch.cuda.Stream()
    with torch.no_grad():
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                model(image)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = model(image)
    times = meter.times(lambda: (graph.replay(), logits.argmax(1)[0, 0, 0].item()), scale.warm, scale.frames)
    return {"frames_per_second": round(len(times) / sum(times), 2), "frames": len(times), "peak_mib": meter.peak_mib()}


def network(name: str, meter: Meter) -> Segmenter:
    """A network on the device; its weights are random and always the same, unless some come with it."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", RandomWeightsWarning)
        torch.manual_seed(0)
        return load_model(name).to(meter.device).eval()


def _frames(size: tuple[int, int], count: int) -> list[Tensor]:
    return [frame.image for frame in scene_stream("fog", range(count), size)]


def _cycle(frames: list[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from frames


def _free(meter: Meter) -> None:
    gc.collect()
    if meter.cuda:
        torch.cuda.empty_cache()

"""Runs public code of the rival methods, as it stands in its checkouts, on the networks and frames of the check.

Nothing of theirs is copied here: their files are imported from the checkouts. What they import and the run does not
need (mmcv, wandb, …) is stood in for; where they expect a classifier, the network is wrapped: every pixel a sample.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from allweather import Segmenter
from benchmarks.fidelity_cases import Case, Step, source_folder, strong_view, views
from benchmarks.fidelity_checkout import checkout, function_in, mmcv, mmseg, stand_in

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


class Pixels(nn.Module):
    """A segmenter as a classifier of the pixels of one image: (H·W)×3 to (H·W)×C."""

    def __init__(self, segmenter: nn.Module, size: tuple[int, ...]) -> None:
        super().__init__()
        self.segmenter, self.size = segmenter, size

    def forward(self, pixels: Tensor) -> Tensor:
        return self.segmenter(pixels.T.reshape(1, 3, *self.size))[0].flatten(1).T


def tent(root: Path, segmenter: Segmenter, images: Tensor, case: Case) -> list[Step]:
    module, model, optimizer = tent_of(root, Pixels(segmenter, images.shape[2:]))
    settings = {"steps": case.settings.get("iterations", 1), "episodic": case.settings.get("episodic", False)}
    return _classify(module.Tent(model, optimizer, **settings), segmenter, images, forgets=settings["episodic"])


def tent_of(root: Path, network: nn.Module) -> tuple[ModuleType, nn.Module, torch.optim.Optimizer]:
    """The checkout's module, the network as it prepares it, and the optimizer of what it moves there."""
    with checkout(root):
        module = importlib.import_module("tent")
    model = module.configure_model(network)
    optimizer = torch.optim.Adam(module.collect_params(model)[0], lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0)
    return module, model, optimizer


def norm(root: Path, segmenter: Segmenter, images: Tensor, case: Case) -> list[Step]:
    with checkout(root):
        module = importlib.import_module("norm")
    return _classify(module.Norm(Pixels(segmenter, images.shape[2:]), no_stats=True), segmenter, images, forgets=True)


def prior(root: Path, segmenter: Segmenter, images: Tensor, case: Case) -> list[Step]:
    with checkout(root), redirect_stdout(StringIO()):
        module = importlib.import_module("robusta.batchnorm.bn")
        model = module.adapt_bayesian(Pixels(segmenter, images.shape[2:]), prior=16 / 17)
    return _classify(model, segmenter, images, forgets=True)


def eta(root: Path, segmenter: Segmenter, images: Tensor, case: Case) -> list[Step]:
    with checkout(root):
        module = importlib.import_module("eata")
    model = module.configure_model(Pixels(segmenter, images.shape[2:]))
    parameters, _ = module.collect_params(model)
    fishers = _fishers(model, parameters) if case.method == "eata" else None
    optimizer = torch.optim.SGD(parameters, 0.00025, momentum=0.9)
    margin = 0.4 * math.log(len(segmenter.classes))
    adapted = module.EATA(model, optimizer, fishers, 2000.0, e_margin=margin, d_margin=0.05)
    return _classify(adapted, segmenter, images)


def _fishers(model: nn.Module, parameters: list[nn.Parameter]) -> dict[str, list[Tensor]]:
    """The diagonal Fisher matrix by their main program's definition, one image a batch."""
    with source_folder() as (_, images):
        squares = []
        for image in images:
            logits = model(image.flatten(1).T)
            loss = functional.cross_entropy(logits, logits.argmax(1))
            squares.append([gradient.square() for gradient in torch.autograd.grad(loss, parameters)])
    means = [torch.stack(found).mean(0) for found in zip(*squares, strict=True)]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: [mean, p.detach().clone()] for p, mean in zip(parameters, means, strict=True)}


def sar(root: Path, segmenter: Segmenter, images: Tensor, case: Case) -> list[Step]:
    with checkout(root):
        module, sam = importlib.import_module("sar"), importlib.import_module("sam")
    model = module.configure_model(Pixels(segmenter, images.shape[2:]))
    optimizer = sam.SAM(module.collect_params(model)[0], torch.optim.SGD, lr=0.00025, momentum=0.9)
    margin = 0.4 * math.log(len(segmenter.classes))
    with redirect_stdout(StringIO()):
        return _classify(module.SAR(model, optimizer, margin_e0=margin), segmenter, images)


def _classify(adapted: nn.Module, segmenter: Segmenter, images: Tensor, forgets: bool = False) -> list[Step]:
    """Frames one after the other through what takes images and gives the logits of pixels."""
    steps, size = [], images.shape[2:]
    for image in images:
        logits = adapted(image.flatten(1).T).detach()
        probabilities = logits.softmax(1).T.reshape(-1, *size)
        steps.append(_step(probabilities, {} if forgets else _moving(segmenter)))
    return steps


def _step(probabilities: Tensor, parameters: dict[str, np.ndarray]) -> Step:
    return Step(probabilities.argmax(0).numpy(), probabilities.numpy(), parameters)


def _moving(segmenter: Segmenter) -> dict[str, np.ndarray]:
    return _values(segmenter.network, lambda parameter: parameter.requires_grad)


def _values(module: nn.Module, wanted: Callable[[nn.Parameter], bool] = lambda parameter: True) -> dict[str, Any]:
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters() if wanted(p)}


def diga(root: Path, segmenter: Segmenter, images: Tensor, case: Case) -> list[Step]:
    """Their pixels' features are here the logits; in place of the truth they get their own confident labels."""

    class Net(nn.Module):
        def __init__(self, **unused: Any) -> None:
            super().__init__()
            self.segmenter = segmenter

        def forward(self, images: Tensor, feat: bool = False) -> Any:
            logits = self.segmenter(images)
            return (logits, logits) if feat else logits

    class Facts(dict[str, Any]):
        __getattr__ = dict.__getitem__

    names = list(segmenter.classes.names)
    facts = Facts(num_classes=len(names), image_size=None, test_list=[], class_names=names)
    text = (root / "configs" / "model" / "diga.yaml").read_text().partition("cfg:")[2]
    settings = Facts(
        {key.strip(): float(value) for key, _, value in (row.partition(":") for row in text.split("\n") if row.strip())}
    )

    class Lightning(nn.Module):
        device = torch.device("cpu")

        def save_hyperparameters(self, **unused: Any) -> None:
            self.hparams = SimpleNamespace(dataset_info=facts, cfg=settings)

    lightning = stand_in("pytorch_lightning", LightningModule=Lightning)
    metrics = stand_in("torchmetrics", MaxMetric=object, JaccardIndex=object, Metric=object)
    accuracy = stand_in("torchmetrics.classification.accuracy", Accuracy=object)
    others = [stand_in(name) for name in ("torchmetrics.classification", "wandb")]
    curses = stand_in("curses", doupdate=None, halfdelay=None)
    with checkout(root, lightning, metrics, accuracy, *others, curses):
        module = importlib.import_module("src.models.ttda_module")
        adapted = module.DIGA(Net, facts, settings).eval()
    steps = []
    with torch.no_grad():
        for image in images:
            _, logits = adapted.net(image[None], feat=True)
            labels = adapted.high_confident_proto_label(logits, settings["confidence_threshold"])
            steps.append(_step(adapted.forward_and_adapt((image[None], labels))[0][0], {}))
    return steps


def cotta(root: Path, segmenter: Segmenter, images: Tensor, case: Case) -> list[Step]:
    """The loop for ACDC around their EncoderDecoder, whose backbone is here the whole network."""
    with checkout(root, *mmcv(), *mmseg(root)):
        loop = importlib.import_module("mmseg.apis.test")
        decoder = importlib.import_module("mmseg.models.segmentors.encoder_decoder").EncoderDecoder
        entropy = importlib.import_module("mmseg.models.losses.cross_entropy_loss").cross_entropy

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.segmenter = segmenter

        def forward(self, images: Tensor, *unused: Any) -> Tensor:
            return self.segmenter(images)

    class Head(nn.Module):
        def forward_test(self, logits: Tensor, *unused: Any) -> Tensor:
            return logits

        def forward_train(self, logits: Tensor, metas: Any, truth: Tensor, settings: Any) -> dict[str, Tensor]:
            return {"loss_seg": entropy(logits, truth.squeeze(1), ignore_index=255)}

    class Whole(decoder):  # type: ignore[misc,valid-type]  # a class that is known only at run time
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.backbone, self.decode_head = Backbone(), Head()
            self.align_corners, self.num_classes = False, len(segmenter.classes)
            self.test_cfg = SimpleNamespace(mode="slide", crop_size=(10**6, 10**6), stride=(10**6, 10**6))
            self.train_cfg = None

        def show_result(self, *unused: Any, **named: Any) -> None:
            """Draws nothing."""

    model = Parallel(Whole())
    anchor, anchored, averaged = deepcopy(model.state_dict()), deepcopy(model), deepcopy(model)
    students, teachers = [], []

    class Loader:
        dataset = _Sized(len(images))

        def __iter__(self) -> Iterator[dict[str, Any]]:
            for image in images:
                yield _multi_scale(image)
                students.append(_values(model.module.backbone.segmenter.network))
                teachers.append(_values(averaged.module.backbone.segmenter.network))

    torch.manual_seed(0)
    with patch.object(Tensor, "cuda", lambda tensor: tensor):
        loop.args = SimpleNamespace(ema_rate=0.999)
        labels = loop.single_gpu_cotta(model, Loader(), anchor=anchor, ema_model=averaged, anchor_model=anchored)
    return [Step(found, None, *moved) for found, *moved in zip(labels, students, teachers, strict=True)]


class _Sized:
    PALETTE = None

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


class Parallel(nn.Module):
    """What mmcv's MMDataParallel is on one device: unpacks the containers of meta data."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *, img_metas: Any, **data: Any) -> Any:
        unpacked = [one.data[0] if isinstance(one, SimpleNamespace) else one for one in img_metas]
        return self.module(img_metas=unpacked, **data)


def _multi_scale(image: Tensor) -> dict[str, Any]:
    """Seven sizes, each with its mirror image, by the bilinear resizing of OpenCV that mmcv calls."""
    import cv2

    height, width = image.shape[1:]
    pixels, found, metas = image.movedim(0, 2).numpy(), [], []
    for scale in SCALES:
        size = (int(width * scale + 0.5), int(height * scale + 0.5))
        view = torch.from_numpy(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)).movedim(2, 0)[None]
        for flipped in (False, True):
            found.append(view.flip(3).contiguous() if flipped else view.contiguous())
            shape = (*view.shape[2:], 3)
            meta = {"ori_shape": (height, width, 3), "img_shape": shape, "pad_shape": shape, "flip": flipped}
            meta |= {"flip_direction": "horizontal", "img_norm_cfg": {}, "ori_filename": ""}
            metas.append(SimpleNamespace(data=[[meta]]))
    return {"img": found, "img_metas": metas}


def rotta(root: Path, segmenter: Segmenter, images: Tensor, case: Case) -> list[Step]:
    """Their memory, layers and update; an image's class and doubt are the product's, the strong view is darker."""

    class Columns(nn.Module):
        """B×3×H×W to (H·W)×C×B, so that the weights of images meet the last axis."""

        def __init__(self) -> None:
            super().__init__()
            self.segmenter = segmenter

        def forward(self, images: Tensor) -> Tensor:
            return self.segmenter(images).flatten(2).permute(2, 1, 0)

    packages = [stand_in(f"core{name}", path=root / "core" / name[1:]) for name in ("", ".adapter", ".utils")]
    capacity, every = case.settings["capacity"], case.settings["every"]
    own = SimpleNamespace(
        MEMORY_SIZE=capacity, LAMBDA_T=1.0, LAMBDA_U=1.0, NU=0.001, UPDATE_FREQUENCY=every, ALPHA=0.05
    )
    settings = SimpleNamespace(
        ADAPTER=SimpleNamespace(RoTTA=own),
        CORRUPTION=SimpleNamespace(NUM_CLASS=len(segmenter.classes)),
        OPTIM=SimpleNamespace(STEPS=1),
        INPUT=SimpleNamespace(SIZE=(32, 32)),
    )
    with checkout(root, *packages):
        module = importlib.import_module("core.adapter.rotta")

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if rate := case.settings.get("lr"):
            return torch.optim.SGD(parameters, lr=rate, momentum=0.9)
        return torch.optim.Adam(parameters, lr=1e-3, betas=(0.9, 0.999))

    with patch.object(module, "get_tta_transforms", lambda settings: strong_view):
        adapted = module.RoTTA(settings, Columns(), optimizer)
    usual, steps = torch.zeros(len(segmenter.classes)), []
    for index, image in enumerate(images, start=1):
        adapted.model_ema.eval()
        with torch.no_grad():
            logits = adapted.model_ema(image[None])[..., 0]
        probabilities = logits.softmax(1)
        share = probabilities.mean(0)
        usual.lerp_(share, 1 / index)
        doubt = -(probabilities * probabilities.log()).sum(1).mean()
        adapted.mem.add_instance((image, int((share / (usual + 0.01)).argmax()), float(doubt)))
        if index % every == 0:
            with patch.object(Tensor, "cuda", lambda tensor: tensor):
                adapted.update_model(adapted.model, adapted.optimizer)
        step = _step(probabilities.T.reshape(-1, *image.shape[1:]), _moving(adapted.model.segmenter))
        teacher = _values(adapted.model_ema.segmenter.network)
        step.teacher = {name: teacher[name] for name in step.parameters}
        steps.append(step)
    return steps


def memo(root: Path, segmenter: Segmenter, images: Tensor, case: Case) -> list[Step]:
    """Their step and batch normalisation; the views are the product's kind, every other one mirrored."""

    class Rows(nn.Module):
        """V×3×H×W views to V×(H·W)×C on the image's own grid, or 1×3×H×W to 1×C×H×W."""

        def forward(self, images: Tensor) -> Tensor:
            logits = segmenter(images)
            if len(images) == 1:
                return logits
            back = torch.cat([one.flip(3) if index % 2 == 0 else one for index, one in enumerate(logits.split(1))])
            return back.flatten(2).movedim(1, 2)

    count, start, steps = case.settings["augmentations"], deepcopy(segmenter.state_dict()), []
    third = stand_in("utils.third_party", aug=None, indices_in_1k=None, imagenet_r_mask=None)
    package = stand_in("utils", path=root / "imagenet-exps" / "utils")
    with checkout(root, package, third):
        helpers, training = (
            importlib.import_module("utils.adapt_helpers"),
            importlib.import_module("utils.train_helpers"),
        )
    marginal = function_in(root / "imagenet-exps" / "test_calls" / "test_adapt.py", "marginal_entropy")
    model = Rows()
    optimizer = torch.optim.SGD(segmenter.parameters(), lr=0.00025, weight_decay=0.0)
    layer = nn.BatchNorm2d
    with (
        patch.object(layer, "forward", training._modified_bn_forward),
        patch.object(layer, "prior", 16 / 17, create=True),
        patch.object(Tensor, "cuda", lambda tensor: tensor),
    ):
        for image in images:
            segmenter.load_state_dict(start)
            supply = iter(views(image[None], count))
            indices = iter(range(count))
            helpers.tr_transforms = lambda _, supply=supply, indices=indices: _mirrored(next(supply), next(indices))
            helpers.te_transforms = lambda picture: picture
            criterion = lambda outputs: (marginal(outputs)[0].mean(), None)  # noqa: E731  # one line that says it all
            helpers.adapt_single(model, image, optimizer, criterion, "", 1, count, 16)
            layer.prior = 16 / 17
            with torch.no_grad():
                steps.append(_step(model(image[None])[0].softmax(0), {}))
    return steps


def _mirrored(view: Tensor, index: int) -> Tensor:
    return view.flip(2) if index % 2 == 0 else view

"""RefineNet in its first, MatConvNet form, as MGCDA and GCMA trained it for the night.

Written from Lin et al., RefineNet, CVPR 2017, and Sakaridis et al., Map-Guided Curriculum Domain Adaptation, PAMI 2020.
It differs from the PyTorch forms: strides on the first convolution of a block, convolutions before poolings in a chain,
bicubic enlarging, and batch norms whose moments are constants of the whole training set.
"""

import re
from collections.abc import Mapping
from functools import partial

from torch import Tensor

from allweather.errors import CheckpointError
from allweather.models.entry import Entry
from allweather.models.matlab import CLASSIFIER
from allweather.models.nets.blocks.refinenet import RefineNet
from allweather.models.nets.blocks.resnet import BLOCKS, ResNet
from allweather.models.segmenter import Preprocessing

CLASSES = 19
EPS = 1e-5  # of the norms; MatConvNet stores the root of variance + EPS


def translate(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MatConvNet's parameters under the network's keys; each `moments` N×2 becomes a running mean and variance.

    Raises:
        AllWeatherError: for a name that this network has no place for.
    """
    translated: dict[str, Tensor] = {}
    for name, value in found.items():
        stem, _, kind = name.rpartition("_")
        layer = _layer(stem)
        if layer is None or kind not in ("filter", "bias", "mult", "moments"):
            raise CheckpointError(f"'{name}' is no parameter of RefineNet on ResNet-101 in MatConvNet's form.")
        if kind == "moments":
            mean, deviation = value[:, 0], value[:, 1]
            translated[f"{layer}.running_mean"] = mean.clone()
            translated[f"{layer}.running_var"] = (deviation.square() - EPS).clamp_min(0)
        else:
            translated[f"{layer}.{'bias' if kind == 'bias' else 'weight'}"] = value
    return _without_stem_bias(translated)


def _without_stem_bias(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Caffe's first convolution may have a bias; the norm's mean takes it over."""
    bias = tensors.pop("conv1.bias", None)
    if bias is not None:
        tensors["bn1.running_mean"] = tensors["bn1.running_mean"] - bias
    return tensors


def _layer(name: str) -> str | None:
    """The network's layer of a MatConvNet layer name."""
    return _decoder_layer(name) or _backbone_layer(name)


def _decoder_layer(name: str) -> str | None:
    if name == CLASSIFIER:
        return "clf_conv"
    patterns = (
        (r"p_ims\w+_outl(\d)_dimred", "p_ims1d2_outl{0}_dimred"),
        (r"adapt_input_path(\d)_b2_joint_varout_dimred", "adapt_stage{0}_b2_joint_varout_dimred"),
        (r"adapt_input_path(\d)_b(\d)_(conv|conv_relu_varout_dimred)", "adapt_stage{0}_b.0.{1}_{2}"),
        (r"mflow_conv_g(\d)_b3_joint_varout_dimred", "mflow_conv_g{0}_b3_joint_varout_dimred"),
        (r"mflow_conv_g(\d)_b(\d)_(conv|conv_relu_varout_dimred)", "mflow_conv_g{0}_b.0.{1}_{2}"),
        (r"mflow_conv_g(\d)_\w+_pb(\d)", "mflow_conv_g{0}_pool.0.{1}_outvar_dimred"),
    )
    for pattern, layer in patterns:
        if match := re.fullmatch(pattern, name):
            return layer.format(*match.groups())
    return None


def _backbone_layer(name: str) -> str | None:
    if name in ("conv1", "bn_conv1"):
        return "conv1" if name == "conv1" else "bn1"
    match = re.fullmatch(r"(res|bn)([2-5])([a-z])(\d*)_branch(1|2a|2b|2c)", name)
    if not match:
        return None
    kind, stage, letter, number, branch = match.groups()
    index = int(number) if number else "abcdef".index(letter)
    if index >= BLOCKS[101][int(stage) - 2]:
        return None
    block = f"layer{int(stage) - 1}.{index}"
    if branch == "1":
        return f"{block}.downsample.{'0' if kind == 'res' else '1'}"
    return f"{block}.{'conv' if kind == 'res' else 'bn'}{'abc'.index(branch[1]) + 1}"


def build() -> RefineNet:
    """The network, randomly initialised."""
    return RefineNet(CLASSES, ResNet(101, stride_on_first=True), matconvnet=True)


_entry = partial(
    Entry,
    family="RefineNet",
    build=build,
    licence="CC BY-NC 4.0",
    translate=translate,
    preprocessing=Preprocessing(mean=(128.0,) * 3, std=(1.0,) * 3, value_range=255.0, input_scale=0.8),
)
ENTRIES = (
    _entry(
        name="mgcda:refinenet",
        source="Sakaridis et al., Map-Guided Curriculum Domain Adaptation, PAMI 2020; github.com/sakaridis/MGCDA",
        file="refinenet_res101_cityscapes_DarkCityscapes_DarkZurichTwilight_CycleGANfc_DarkZurichNight_CycleGANfc_"
        "DarkZurich_day_labels_original_w_1_twilight_labels_adaptedPrevGeoRefDyn_w_1_epoch_10.mat, "
        "refinenet_res101_cityscapes_original.mat",
        publisher="github.com/sakaridis/MGCDA, links in its README (MATLAB files; GCMA's too)",
    ),
)

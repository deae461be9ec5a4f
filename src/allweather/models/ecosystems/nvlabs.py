"""SegFormer's own checkpoints (github.com/NVlabs/SegFormer), in transformers' network by renaming their tensors."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from allweather.classes import CITYSCAPES, ClassSet
from allweather.errors import CheckpointError, RandomWeightsWarning, optional, unknown
from allweather.models.checkpoints import load_weights
from allweather.models.ecosystems.sizes import Sizes
from allweather.models.ecosystems.transformers import Logits, renamed
from allweather.models.segmenter import Preprocessing, Segmenter, Window

SIZES: dict[str, dict[str, Any]] = {
    "b0": {"depths": [2, 2, 2, 2], "hidden_sizes": [32, 64, 160, 256], "decoder_hidden_size": 256},
    "b1": {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 256},
    "b2": {"depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768},
    "b3": {"depths": [3, 4, 18, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768},
    "b4": {"depths": [3, 8, 27, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768},
    "b5": {"depths": [3, 6, 40, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768},
}
RENAMED = (  # NVlabs' names, and those of the files on the Hugging Face hub
    (r"backbone\.patch_embed(\d)\.proj", "segformer.encoder.patch_embeddings.{0}.proj"),
    (r"backbone\.patch_embed(\d)\.norm", "segformer.encoder.patch_embeddings.{0}.layer_norm"),
    (r"backbone\.norm(\d)", "segformer.encoder.layer_norm.{0}"),
    (r"backbone\.block(\d)\.(\d+)\.norm([12])", "segformer.encoder.block.{0}.{1}.layer_norm_{2}"),
    (r"backbone\.block(\d)\.(\d+)\.attn\.q", "segformer.encoder.block.{0}.{1}.attention.self.query"),
    (r"backbone\.block(\d)\.(\d+)\.attn\.sr", "segformer.encoder.block.{0}.{1}.attention.self.sr"),
    (r"backbone\.block(\d)\.(\d+)\.attn\.norm", "segformer.encoder.block.{0}.{1}.attention.self.layer_norm"),
    (r"backbone\.block(\d)\.(\d+)\.attn\.proj", "segformer.encoder.block.{0}.{1}.attention.output.dense"),
    (r"backbone\.block(\d)\.(\d+)\.mlp\.fc([12])", "segformer.encoder.block.{0}.{1}.mlp.dense{2}"),
    (r"backbone\.block(\d)\.(\d+)\.mlp\.dwconv\.dwconv", "segformer.encoder.block.{0}.{1}.mlp.dwconv.dwconv"),
    (r"decode_head\.linear_c(\d)\.proj", "decode_head.linear_c.{0}.proj"),
    (r"decode_head\.linear_fuse\.conv", "decode_head.linear_fuse"),
    (r"decode_head\.linear_fuse\.bn", "decode_head.batch_norm"),
    (r"decode_head\.linear_pred", "decode_head.classifier"),
)
JOINT = r"backbone\.block(\d)\.(\d+)\.attn\.kv"  # keys and values in one layer
UNUSED = "decode_head.conv_seg."


def load(name: str, weights: Path | None, classes: ClassSet | None) -> Segmenter:
    """`segformer-b0` … `segformer-b5` with an official checkpoint.

    Raises:
        AllWeatherError: when transformers is missing, or for another name or a checkpoint that does not fit.
    """
    size = name.removeprefix("segformer-")
    if size not in SIZES:
        raise unknown("network of NVlabs", name, [f"segformer-{known}" for known in SIZES])
    library = optional("transformers", "transformers")
    classes = classes or CITYSCAPES
    label = f"nvlabs:{name}"
    network = library.SegformerForSemanticSegmentation(library.SegformerConfig(num_labels=len(classes), **SIZES[size]))
    provenance = None
    if weights is None:
        warnings.warn(RandomWeightsWarning(label), stacklevel=3)
    else:
        provenance = load_weights(
            network, weights, name=label, translate=lambda found: renamed(network, weights, hub_names(found))
        )
    return Segmenter(
        Logits(network, sizes=Sizes(label)),
        classes=classes,
        preprocessing=Preprocessing(),
        name=label,
        provenance=provenance,
        window=Window(1024, 768),
    ).eval()


def hub_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """NVlabs' tensors under the names of the hub's files; the joint layer of keys and values is cut in two.

    Raises:
        AllWeatherError: for a name that SegFormer does not have.
    """
    named: dict[str, Tensor] = {}
    for key, value in tensors.items():
        layer, _, kind = key.rpartition(".")
        if key.startswith(UNUSED):
            continue
        if match := re.fullmatch(JOINT, layer):
            block = f"segformer.encoder.block.{int(match[1]) - 1}.{match[2]}.attention.self"
            named[f"{block}.key.{kind}"], named[f"{block}.value.{kind}"] = value.chunk(2)
            continue
        named[f"{_hub_name(layer, key)}.{kind}"] = value
    return named


def _hub_name(layer: str, key: str) -> str:
    for pattern, name in RENAMED:
        if match := re.fullmatch(pattern, layer):
            groups = match.groups()
            return name.format(int(groups[0]) - 1, *groups[1:]) if groups else name
    raise CheckpointError(f"'{key}' is no tensor of SegFormer as NVlabs names them.")

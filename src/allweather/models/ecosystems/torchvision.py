"""Segmentation networks of torchvision, with a checkpoint of the user's."""

import warnings
from pathlib import Path

from allweather.classes import CITYSCAPES, ClassSet
from allweather.errors import RandomWeightsWarning, check_known, optional
from allweather.models.checkpoints import load_weights
from allweather.models.segmenter import Segmenter


def load(name: str, weights: Path | None, classes: ClassSet | None) -> Segmenter:
    """The torchvision segmentation network `name` for `classes` (Cityscapes unless given).

    Raises:
        AllWeatherError: when torchvision is missing, has no such network, or the checkpoint does not fit.
    """
    library = optional("torchvision", "torchvision")
    names = library.models.list_models(module=library.models.segmentation)
    check_known("torchvision segmentation network", name, names)
    classes = classes or CITYSCAPES
    network = library.models.get_model(name, weights=None, weights_backbone=None, num_classes=len(classes))
    model = Segmenter(network, classes=classes, name=f"torchvision:{name}").eval()
    if weights is None:
        warnings.warn(RandomWeightsWarning(f"torchvision:{name}"), stacklevel=3)
        return model
    model.provenance = load_weights(network, weights, name=model.name, drop=("aux_classifier.*",))
    return model

"""What the catalogue knows about one network: how to build it, feed it, and where its weights come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from allweather.classes import CITYSCAPES, ClassSet
from allweather.models.segmenter import AdaptationFacts, Preprocessing, Segmenter, Window


@dataclass(frozen=True)
class Entry:
    """One network of the catalogue.

    Attributes:
        name: `scheme:name`, as on the command line.
        family: name of the architecture in the literature.
        build: makes the network, randomly initialised.
        source: paper and official repository.
        licence: of the public weights.
        preprocessing: what the official checkpoint expects of its input.
        classes: the class set, in the order of the logits.
        extra_logits: number of trailing logits that are no class.
        file: file name of the official checkpoint; `publisher` is where it is offered.
        size: (width, height) of the authors' evaluation; None: the size of the frames.
        window: how the authors cut larger images.
        nesting: key of the state dict within the checkpoint; None where the checkpoint is the state dict.
        drop: fnmatch patterns of checkpoint keys that only training needs.
        translate: renames or reshapes the publisher's tensors to the network's keys.
        fixture: key of the reference outputs that a test compares with, if there are any.
        packaged: weights that this package ships.
        enhancer: entry of a network whose output is added to this one's input. Its checkpoint lies beside this one's,
            with `_light` at the end of the name.
        segments: False for a part of other networks that predicts no classes.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    source: str
    licence: str
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: ClassSet = CITYSCAPES
    extra_logits: int = 0
    file: str | None = None
    publisher: str | None = None
    size: tuple[int, int] | None = None
    window: Window | None = None
    nesting: str | None = None
    drop: tuple[str, ...] = ()
    translate: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    fixture: str | None = None
    packaged: Path | None = None
    enhancer: str | None = None
    segments: bool = True
    facts: AdaptationFacts = field(default_factory=AdaptationFacts)

    def segmenter(self) -> Segmenter:
        """The network, randomly initialised and in evaluation mode, as a Segmenter."""
        return Segmenter(
            self.build(),
            classes=self.classes,
            preprocessing=self.preprocessing,
            extra_logits=self.extra_logits,
            name=self.name,
            facts=self.facts,
            window=self.window,
        ).eval()


def mmseg_entry(paper: str, file: str, **fields: Any) -> Entry:
    """An entry of the mmsegmentation model zoo; `file` is the checkpoint's name there, without suffix."""
    return Entry(
        source=f"{paper}; github.com/open-mmlab/mmsegmentation",
        licence="Apache-2.0",
        file=f"{file}.pth",
        publisher="mmsegmentation model zoo",
        nesting="state_dict",
        **fields,
    )

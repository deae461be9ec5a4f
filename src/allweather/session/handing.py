"""The way out of a session: the adapted network as a plain module, as a file, or on the hub."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from allweather.errors import SettingsError, check_known
from allweather.export.deployment import Deployment, copies
from allweather.export.ordinary import Averages, Statistics, ordinary, own_keys
from allweather.methods.method import Batch, Method, State
from allweather.methods.normalization import moving_statistics
from allweather.methods.parameters import with_parameters
from allweather.models.catalogue import files_of
from allweather.models.checkpoints import check_digest
from allweather.models.segmenter import Segmenter, own_network
from allweather.pictures.convert import Picture
from allweather.plugins import told_of
from allweather.session.adapted import AdaptedNetwork
from allweather.session.averages import StreamAverages
from allweather.session.looks import SURE
from allweather.session.steps import unfit
from allweather.session.storage import holds_session
from allweather.session.streaming import check_frames, picture_of
from allweather.writing import check_apart


class HandsBack(ABC):
    """What a session can hand back; the network is copied, and the session goes on as if nothing had been asked."""

    model: Segmenter
    method: Method
    state: State
    _adapted: AdaptedNetwork
    _averages: StreamAverages

    def network(self, statistics: Statistics | None = None, frames: Iterable[object] | None = None) -> nn.Module:
        """The adapted network: a copy, of your own class, that takes and returns what your network does.

        It is in evaluation mode, on the CPU, in float32, with gradients on. Its state dict has your network's keys.

        Args:
            statistics: of BatchNorm. `image`: a hook of this package mixes in each image's own statistics, as the
                session does; what torch.compile made before is made anew. `stream`: the mixture with the stream's
                average is written into the ordinary buffers, and nothing of this package is left. No difference for
                networks and methods that mix nothing. None is `stream` where frames are given, else `image`.
            frames: for `stream`: pictures to average over, instead of those that the session has adapted to; of every
                kind that `stream` takes, a `load_stream(…)` too. Those that a session would not learn from, such as
                NaN, are left out.

        Raises:
            SettingsError: for a method that predicts with more than its network, for `stream` without a stream, and for
                `image` with frames.
            InputError: for a frame that is no picture, or `frames` that cannot be iterated over.
            NetworkError: for `image`, where a BatchNorm layer sees one picture as a batch or changes its input first.
        """
        return own_network(self._deployment(statistics, frames).model)

    def export(
        self,
        path: Path | str,
        *,
        statistics: Statistics | None = None,
        frames: Iterable[object] | None = None,
        size: tuple[int, int] | None = None,
        opset: int | None = None,
    ) -> None:
        """Writes the adapted network to a file; the suffix chooses the format. The file appears whole, or not at all.

        - `.safetensors`: a state dict for the network's own class, `load_state_dict(load_file(path))`.
        - `.pt2`, `.onnx`: a graph with the preprocessing inside. Input `image`, 1×3×H×W, RGB in [0, 1]; output
          `logits`, 1×C×H×W. `.onnx` needs the extra `onnx`.
        - `.delta.safetensors`: only the tensors that moved, for `allweather.apply_delta`.

        The metadata says what made the file, as JSON under `allweather`. An exported network no longer adapts, and
        mirrored or other views of the method are not in it.

        Args:
            path: the file; missing folders are made.
            statistics, frames: see `network`. None is `stream` for `.safetensors` and where frames are given, else
                `image`.
            size: (width, height) in pixels that a graph is fixed to; None leaves both open.
            opset: of ONNX, 18 to 23; None is 18.

        Raises:
            SettingsError: for another suffix, for a setting that the format does not have, for a size that is none, for
                a file that is a saved session or the network's own checkpoint, and as `network`.
            NetworkError: for a network that cannot become a graph (the message names the line or operation), or whose
                graph predicts differently.
            MissingLibraryError: for `.onnx` without the extra `onnx`.
            AllWeatherError: when the file cannot be written.
        """
        from allweather.export.write import check, write  # torch.export takes long to import

        path = Path(path)
        kind = check(path, size, opset)
        self._check_replaced(path)
        if statistics is None and kind == ".safetensors":
            statistics = "stream"
        write(self._deployment(statistics, frames, size), path, size, opset)

    def push_to_hub(
        self,
        repository: str,
        *,
        licence: str | None = None,
        figures: Mapping[str, float] | None = None,
        base_model: str | None = None,
        statistics: Statistics | None = None,
        frames: Iterable[object] | None = None,
        private: bool = True,
    ) -> str:
        """Uploads the tensors that moved, with a model card, to the Hugging Face hub; see `allweather.from_hub`.

        Args:
            repository: OWNER/NAME; made where it does not exist.
            licence: of the base network's weights; None takes the catalogue's.
            figures: for the card: measured figures, such as {"mIoU % at dusk": 57.4}.
            base_model: the base network's own repository on the hub.
            statistics, frames: see `network`.
            private: whether a new repository is private.

        Returns:
            The address of the commit.

        Raises:
            SettingsError: for a base network whose licence is not known, and as `network`.
            MissingLibraryError: when huggingface_hub is not installed.
            AllWeatherError: when the hub refuses, or cannot be reached.
        """
        from allweather.export.hub import push

        deployment = self._deployment(statistics, frames)
        return push(
            deployment, repository, licence=licence, figures=figures or {}, base_model=base_model, private=private
        )

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All settings, ready for JSON."""

    @abstractmethod
    def _alone(self) -> AbstractContextManager[None]:
        """One thread at a time."""

    @abstractmethod
    def _batch(self, pictures: Picture) -> tuple[Batch, bool]:
        """The pictures where the network lies."""

    def _deployment(
        self, statistics: Statistics | None, frames: Iterable[object] | None, size: tuple[int, int] | None = None
    ) -> Deployment:
        if statistics is None:
            statistics = "image" if frames is None else "stream"
        check_known("statistics", statistics, get_args(Statistics))
        if frames is not None and statistics == "image":
            raise SettingsError("frames: only statistics='stream' averages over pictures. Leave one of them out.")
        if frames is not None:
            check_frames(frames, "frames")
        with self._alone():
            self._check_method()
            values = self._deployed()
            averages = self._stream(frames) if statistics == "stream" else {}
            model = ordinary(self.model, values, statistics, averages, size)
            self._adapted.own_buffers.drop_added(model)
            base = own_keys(model, self._adapted.source_state())
            return Deployment(model, copies(base), self._about(statistics))

    def _check_replaced(self, path: Path) -> None:
        """Refuses to write over what an export is made from."""
        if holds_session(path):
            raise SettingsError(f"{path} is a saved session, which an export would replace. Name another file.")
        check_apart(path, files_of(self.model.name))
        whence = self.model.provenance
        if whence and path.name == whence.file and path.is_file() and check_digest(path) == whence.sha256:
            raise SettingsError(f"{path} is the checkpoint of {self.model.name}. Name another file to write.")

    def _deployed(self) -> Mapping[str, torch.Tensor]:
        with told_of(self.method, f"{self.method.name}: deployed"):
            return self.method.deployed(self.state)

    def _check_method(self) -> None:
        if self.method.episodic and self.state.parameters:
            name = self.method.name
            raise SettingsError(
                f"{name} returns to the source network after each batch: nothing that it learns is left to export. "
                f"Adapt with episodic=false, or with mall-domain, or export norm, whose statistics are all it has."
            )

    def _stream(self, frames: Iterable[object] | None) -> Averages:
        """Averages of the frames, or of what the session has adapted to."""
        averages = self._averages
        if not averages.layers:
            return {}
        if frames is not None:
            averages = self._look_at(frames)
            if not averages.count:
                raise SettingsError(
                    f"{self.method.name}, frames: expected at least one picture to take the statistics from that is "
                    "finite and not constant, got none."
                )
        if not averages.count:
            raise SettingsError(
                f"{self.method.name}: no statistics of a stream were gathered in this session. Pass pictures to take "
                "them from (frames=…, --frames FOLDER), or choose statistics='image'."
            )
        return dict(averages.values())

    @torch.no_grad()
    def _look_at(self, frames: Iterable[object]) -> StreamAverages:
        """What the layers see of the frames as the network stands; nothing moves."""
        averages, before = StreamAverages(self.model.network), self._adapted.snapshot()
        values = self._deployed()
        try:
            for frame in frames:
                batch, _ = self._batch(picture_of(frame))
                if unfit(batch.images, learns=bool(self.state.tensors())):
                    continue
                with moving_statistics(self.model):
                    with_parameters(self.model, values, batch.images)
                averages.take()
        finally:
            averages.discard()
            self._adapted.restore_own_buffers(before)
        return averages

    def _about(self, statistics: Statistics) -> dict[str, Any]:
        mixes = bool(self._averages.layers)
        views = ["the picture alone; the session looks at other views"] if len(self.method.looks) > 1 else []
        views += ["classes are not scaled; the session scales them"] if self.state.output.keys() - {SURE} else []
        return {
            "network": self.model.name,
            "classes": list(self.model.classes.names),
            "settings": self.settings(),
            "statistics": statistics if mixes else "the network's own",
            "views": views,
            "expects": _expects(self.model),
            "record": {"updates": self._adapted.updates, "batches averaged": self._averages.count},
            "versions": {"allweather": version("allweather"), "torch": torch.__version__},
        }


def _expects(model: Segmenter) -> dict[str, Any]:
    """What the own network expects of its input, which a state dict alone does not say."""
    facts = model.preprocessing
    return {
        "channels": "BGR" if facts.bgr else "RGB",
        "range": [0, facts.value_range],
        "mean": list(facts.mean),
        "std": list(facts.std),
        "size_multiple": facts.size_multiple,
    }

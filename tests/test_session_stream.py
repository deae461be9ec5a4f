"""Frames of one's own through a session: every kind, one at a time, in batches, left early, errors in the middle."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import SIZE, tiny

import allweather as aw
from allweather.data import VideoFrame

BYTES = [np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8) for i in range(5)]
UNIT = torch.from_numpy(np.stack(BYTES)).permute(0, 3, 1, 2).float() / 255
KINDS: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda folder: BYTES,
    "floats": lambda folder: [picture.astype(np.float32) / np.float32(255) for picture in BYTES],
    "PIL": lambda folder: [Image.fromarray(picture) for picture in BYTES],
    "paths": lambda folder: sorted(folder.glob("*.png")),
    "names": lambda folder: [str(path) for path in sorted(folder.glob("*.png"))],
    "tensors": lambda folder: list(UNIT),
    "one tensor": lambda folder: UNIT,
    "one array": lambda folder: np.stack(BYTES),
    "video frames": lambda folder: [VideoFrame(index, index / 10, picture) for index, picture in enumerate(BYTES)],
    "holders": lambda folder: [SimpleNamespace(image=picture) for picture in BYTES],
    "a folder": lambda folder: aw.load_stream("folder", folder),
    "a generator": lambda folder: (picture for picture in BYTES),
}


def session() -> aw.Session:
    return aw.Session(tiny(), aw.methods.Tent(lr=0.05), guard=False)


def one_by_one(pictures: list[Any]) -> list[torch.Tensor]:
    """Logits of calls of a new session."""
    fresh = session()
    return [fresh(picture).logits for picture in pictures]


def same(results: list[aw.Result], logits: list[torch.Tensor]) -> bool:
    return all(torch.equal(result.logits, each) for result, each in zip(results, logits, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_what_calls_one_by_one_give(kind: str, tmp_path: Path):
    for index, picture in enumerate(BYTES):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    assert same(list(session().stream(KINDS[kind](tmp_path))), one_by_one(BYTES))


def test_a_frame_is_taken_when_its_result_is_asked_for():
    taken: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for index, picture in enumerate(BYTES):
            taken.append(index)
            yield picture

    results = session().stream(camera())
    assert taken == []
    for count in range(1, 4):
        next(results)
        assert taken == list(range(count))


def test_batches_are_adapted_to_together_and_told_apart():
    fresh = session()
    pairs = [fresh(BYTES[:2]), fresh(BYTES[2:4]), fresh(BYTES[4:])]
    seen: list[Any] = []
    results = list(session().stream(BYTES, batch=2, on_frame=lambda frame, result: seen.append((frame, result))))
    assert same(results, [logits for pair in pairs for logits in pair.logits])
    assert [result.losses for result in results[:2]] == [pairs[0].losses] * 2
    assert all(frame is picture for (frame, _), picture in zip(seen, BYTES, strict=True))
    assert all(told is given for (_, told), given in zip(seen, results, strict=True))
    assert results[0].logits.untyped_storage().nbytes() == results[0].logits.nbytes  # kept or pickled without the rest
    assert results[3].images is not None and torch.equal(results[3].images, UNIT[3])
    assert results[3].overlay().shape == (*SIZE, 3)


def test_another_size_begins_another_batch():
    wide = [np.repeat(picture, 2, axis=1) for picture in BYTES[:3]]
    results = list(session().stream([*BYTES[:3], *wide], batch=2))
    fresh = session()
    assert [result.logits.shape[2] for result in results] == [SIZE[1]] * 3 + [2 * SIZE[1]] * 3
    groups = [BYTES[:2], BYTES[2:3], wide[:2], wide[2:]]
    assert same(results, [logits for group in groups for logits in fresh(group).logits])


def test_leaving_early_leaves_a_session_that_goes_on():
    left = session()
    for _ in left.stream(BYTES):
        break
    assert same(list(left.stream(BYTES[1:])), one_by_one(BYTES)[1:])


@pytest.mark.parametrize("where", ["the frames", "the callback", "a picture"])
def test_an_error_in_the_middle_leaves_a_session_that_goes_on(where: str):
    def camera() -> Iterator[Any]:
        yield BYTES[0]
        if where == "the frames":
            raise ConnectionError("unplugged")
        yield np.zeros((4, 4), np.uint8) if where == "a picture" else BYTES[1]

    def on_frame(frame: Any, result: aw.Result):
        if where == "the callback" and frame is BYTES[1]:
            raise ConnectionError("unplugged")

    broken = session()
    results = broken.stream(camera(), on_frame=on_frame)
    next(results)
    with pytest.raises((ConnectionError, aw.InputError), match=r"unplugged|three equal channels"):
        next(results)
    done = 2 if where == "the callback" else 1  # the callback comes after the frame was adapted to
    assert same(list(broken.stream(BYTES[done:])), one_by_one(BYTES)[done:])


def test_frames_read_before_an_error_are_given_first():
    results = session().stream((BYTES[0] if index else 1 / index for index in (1, 0)), batch=4)
    assert next(results).logits.ndim == 3
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_unreadable_frames_are_skipped_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for index, picture in enumerate(BYTES):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    (tmp_path / "1.png").write_text("no picture")
    good = one_by_one([*BYTES[:1], *BYTES[2:]])
    paths = sorted(tmp_path.glob("*.png"))
    for source in (paths, aw.load_stream("folder", tmp_path)):
        with pytest.raises(aw.InputError, match=r"1\.png"):
            list(session().stream(source))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "allweather"):
            assert same(list(session().stream(source, skip_unreadable=True)), good)
        assert [record.name.split(".")[0] for record in caplog.records] == ["allweather"] and "1.png" in caplog.text
    told: list[Any] = []
    results = session().stream(paths, skip_unreadable=lambda frame, error: told.append((frame, str(error))))
    assert same(list(results), good)
    assert [frame for frame, _ in told] == [paths[1]] and "1.png" in told[0][1]


def test_a_generator_that_fails_is_never_skipped():
    def broken() -> Iterator[np.ndarray]:
        yield BYTES[0]
        raise aw.InputError("no more of these")

    results = session().stream(broken(), skip_unreadable=True)
    next(results)
    with pytest.raises(aw.InputError, match="no more of these"):
        next(results)


MISTAKES: dict[str, tuple[Any, dict[str, Any], type[aw.AllWeatherError], str]] = {
    "a name": ("clip.mp4", {}, aw.InputError, r"load_stream\(\"video\", path\); got 'clip.mp4'"),
    "one picture": (UNIT[0], {}, aw.InputError, r"four dimensions; got shape \(3, 24, 32\).*session\(picture\)"),
    "a PIL image": (Image.fromarray(BYTES[0]), {}, aw.InputError, "got a Image"),
    "nothing": (None, {}, aw.InputError, "got a NoneType"),
    "no batch": (BYTES, {"batch": 0}, aw.SettingsError, "at least 1, got 0"),
    "half a batch": (BYTES, {"batch": 1.5}, aw.SettingsError, "a whole number"),
    "a path": (Path("clip.mp4"), {}, aw.InputError, "got a PosixPath"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_before_the_first_frame(mistake: str):
    value, settings, kind, message = MISTAKES[mistake]
    with pytest.raises(kind, match=message):
        session().stream(value, **settings)
    if value is not None and not settings:
        for ask in (session().network, partial(aw.advise_scale, tiny())):
            with pytest.raises(kind, match=message.replace(r"session\(picture\)", "[[]picture")):
                ask(**{"pictures" if isinstance(ask, partial) else "frames": value})

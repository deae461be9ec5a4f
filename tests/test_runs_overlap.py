"""Reading ahead and writing behind: the order stays, errors come out, and nothing that was begun is lost."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from allweather import Frame, ImageError
from allweather.data.stream import Stream
from allweather.runs import overlap
from allweather.runs.overlap import Ahead, Behind

NAMES = [str(index) for index in range(20)]


def slowly(item: int) -> int:
    """Later items are done before earlier ones."""
    time.sleep(0.004 * (item % 3 == 0))
    return 10 * item


def fill(count: int, work: Callable[[int], int] = slowly, keep: Callable[[int], None] | None = None) -> list[int]:
    kept: list[int] = []
    with Behind(work, keep or kept.append, 4) as behind:
        for item in range(count):
            behind.put(item, 1)
    return kept


def test_results_are_kept_in_the_order_of_the_items():
    assert fill(40) == [10 * item for item in range(40)]


@pytest.mark.parametrize(("size", "most"), [(1, 8), (overlap.AT_HAND // 2, 2), (10 * overlap.AT_HAND, 1)])
def test_few_items_are_at_work_at_once(size: int, most: int):
    begun, kept, ahead = [], [], []
    with Behind(lambda item: begun.append(item), lambda _: (time.sleep(0.003), kept.append(0)), 4) as behind:
        for item in range(24):
            behind.put(item, size)
            ahead.append(item + 1 - len(kept))
    assert max(ahead) == most


@pytest.mark.parametrize("place", ["work", "keep"])
def test_an_error_comes_out_and_ends_all_after_it(place: str):
    kept: list[int] = []

    def fail(item: int) -> int:
        if item == 5 and place == "work":
            raise OSError("full")
        return item

    def keep(result: int):
        if result == 5:
            raise OSError("full")
        kept.append(result)

    with pytest.raises(OSError, match="full"):
        fill(100, fail, keep)
    assert kept == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="full"):
        fill(6, fail, keep)  # the last one fails: leaving says so


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ValueError])
def test_what_was_handed_over_is_kept_whatever_ends_the_work(fault: type[BaseException]):
    kept: list[int] = []

    def stop():
        with Behind(slowly, kept.append, 2) as behind:
            for item in range(7):
                behind.put(item, 1)
            raise fault

    with pytest.raises(fault):
        stop()
    assert kept == [0, 10, 20, 30, 40, 50, 60]


def test_torch_has_its_threads_again_afterwards():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        fill(4)
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert seen == [3]


def stream(reads: list[str], pixels: int = 4, bad: str = "") -> Stream:
    def read(name: str) -> Frame:
        reads.append(name)
        if name == bad:
            raise ImageError(f"{name}: broken")
        return Frame(
            name, torch.full((3, 1, pixels), float(name)), (pixels, 1), None, np.zeros((1, pixels, 3), np.uint8)
        )

    return Stream(NAMES, read)


def test_frames_are_read_once_and_in_order_while_others_are_at_work():
    reads: list[str] = []
    with Ahead(stream(reads), 1) as ahead:
        for passed in (1, 2):  # transductive methods pass over the stream again
            for name in NAMES:
                assert ahead.read(name).image[0, 0, 0] == float(name)
            assert reads == NAMES * passed
        ahead.read("0")
        ahead.read("1")
        end = time.monotonic() + 60
        while len(reads) < 50 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)  # and no more than those
        assert reads[40:] == [str(index) for index in range(10)]  # 0, 1 and eight after it


def test_large_frames_are_not_piled_up(monkeypatch: pytest.MonkeyPatch):
    reads: list[str] = []
    monkeypatch.setattr(overlap, "AT_HAND", 59)  # a frame of four pixels has 60 bytes
    with Ahead(stream(reads), 2) as ahead:
        ahead.read("0")
        ahead.read("1")
        ahead.read("2")
        time.sleep(0.05)
    assert reads == ["0", "1", "2"]


def test_a_frame_that_cannot_be_read_raises_where_it_stands():
    with Ahead(stream([], bad="2"), 2) as ahead:
        assert [ahead.read(name).name for name in "01"] == ["0", "1"]
        with pytest.raises(ImageError, match="2: broken"):
            ahead.read("2")
        assert ahead.read("3").name == "3"

"""One question for a whole tensor: whether all its numbers are finite."""

import pytest
import torch

from allweather.finite import all_finite, or_none


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 11, 23])
def test_one_number_is_enough(dtype: torch.dtype, bad: float, place: int):
    values = torch.full((2, 3, 4), torch.finfo(dtype).max, dtype=dtype)  # whose sum is not finite
    assert all_finite(values)
    values.view(-1)[place] = bad
    assert not all_finite(values)


def test_none_at_all_are_finite():
    assert all_finite(torch.empty(0, 3))


def test_what_json_cannot_hold_is_none():
    assert or_none(iter([1.5, float("nan"), float("inf"), 0])) == [1.5, None, None, 0]

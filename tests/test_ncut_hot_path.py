"""What the normalized cut promises on the hot path: the formula, bounded memory, rare classes in half precision."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import seeded
from torch import Tensor

from allweather import Affinity
from allweather.errors import NcutAccuracyWarning
from allweather.ncut.landmarks import choose_columns

SOURCE = Path(__file__).parents[1] / "src"
PEAK = """
import torch
from pathlib import Path
from allweather.ncut import Affinity

def status(key):
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(key))
    return 1024 * int(line.split()[1])

def step(affinity, height, width):
    scores = torch.rand(2, 19, height, width, dtype=torch.{kind}).requires_grad_()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    affinity.normalized_cut(scores).backward()
    return (status("VmHWM") - before) / (scores.numel() * scores.element_size())

def affinity(height, width):
    return Affinity.from_image(torch.rand(2, 3, height, width), sigma_xy=50, rank=64)

torch.set_num_threads(1)
step(affinity(64, 64), 64, 64)
print(step(affinity(384, 768), 384, 768))
"""


def case() -> tuple[Tensor, Tensor, Affinity]:
    generator = seeded()
    picture = torch.rand(1, 3, 9, 11, generator=generator, dtype=torch.float64)
    logits = torch.randn(1, 4, 9, 11, generator=generator, dtype=torch.float64)
    logits[:, 0, :, :6] += 3
    scores = logits.softmax(1)
    dense = Affinity.from_image(picture, sigma_rgb=60, sigma_xy=3, implementation="dense")
    return scores, dense.form[0], Affinity.from_image(picture, sigma_rgb=60, sigma_xy=3, rank=99)


def right(scores: Tensor, matrix: Tensor) -> Tensor:
    s = scores.flatten(2)[0]
    return (((1 - s) @ matrix) * s).sum(1) / (s @ matrix.sum(0))


def test_the_classes_are_not_pooled_into_one_ratio():
    scores, matrix, affinity = case()
    s = scores.flatten(2)[0]
    pooled = (((1 - s) @ matrix) * s).sum() / (s @ matrix.sum(0)).sum()
    loss = affinity.normalized_cut(scores)
    torch.testing.assert_close(loss, right(scores, matrix).sum(), rtol=0.01, atol=0)
    assert abs(float(loss - 4 * pooled)) > 0.01 < abs(float(loss - pooled))


def test_the_association_enters_the_gradient_as_a_scalar():
    scores, matrix, affinity = case()
    variable = scores.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(affinity.normalized_cut(variable), variable)
    s, degree = scores.flatten(2)[0], matrix.sum(0)
    filtered, mass = s @ matrix, s @ degree
    wrong = s * filtered * degree / mass[:, None] ** 2 - 2 * filtered / mass[:, None]
    exact = (s * filtered).sum(1)[:, None] * degree / mass[:, None] ** 2 - 2 * filtered / mass[:, None]
    found = gradient.flatten(2)[0]
    assert float((found - exact).norm() / exact.norm()) < 0.02
    assert float((found - wrong).norm() / exact.norm()) > 0.5


def test_the_loss_depends_on_the_scores():
    """A numerator equal to the denominator would give the same number for every segmentation."""
    scores, _, affinity = case()
    uniform = torch.full_like(scores, 1 / 4)
    one = torch.zeros_like(scores)
    one[:, 0] = 1
    torch.testing.assert_close(affinity.normalized_cut(uniform), torch.tensor(3.0).double(), rtol=0.01, atol=0)
    assert abs(float(affinity.normalized_cut(one))) < 0.02
    assert 1 < float(affinity.normalized_cut(scores)) < 3


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_rare_class_has_a_finite_gradient_in_half_precision(kind: torch.dtype):
    picture = torch.rand(1, 3, 128, 128, generator=seeded())
    scores = torch.full((1, 3, 128, 128), 0.5, dtype=kind)
    scores[:, 1], scores[:, 1, 3, 5] = 0, 0.01
    affinity = Affinity.from_image(picture, sigma_xy=9, rank=32)
    half, full = scores.clone().requires_grad_(), scores.float().requires_grad_()
    for variable in (half, full):
        affinity.normalized_cut(variable).backward()
    assert half.grad.isfinite().all()
    assert float((half.grad.float() - full.grad).norm() / full.grad.norm()) < 0.005


def test_scores_that_are_not_finite_give_a_loss_that_is_not():
    scores, _, affinity = case()
    scores[0, 1, 2, 3] = float("nan")
    assert affinity.normalized_cut(scores).isnan()


def test_the_gradient_keeps_the_memory_format():
    _, _, affinity = case()
    last = torch.rand(1, 4, 9, 11).contiguous(memory_format=torch.channels_last).requires_grad_()
    affinity.normalized_cut(last).backward()
    assert last.grad.is_contiguous(memory_format=torch.channels_last)


def test_the_rank_stops_at_its_bounds():
    flat = Affinity.from_image(torch.full((1, 3, 40, 40), 0.5), sigma_xy=9)
    with pytest.warns(NcutAccuracyWarning, match="raise max_rank"):
        noise = Affinity.from_image(torch.rand(1, 3, 40, 40, generator=seeded()), sigma_xy=9)
    assert (flat.rank, noise.rank) == (16, 256)


def test_columns_that_are_only_rounding_are_not_kept():
    generator = seeded()
    colors, which = torch.rand(3, 20, generator=generator), torch.randint(20, (40, 60), generator=generator)
    picture, scores = colors[:, which][None], torch.rand(1, 5, 40, 60, generator=generator)
    dense, fast = (
        Affinity.from_image(picture, sigma_xy=9, implementation=kind, rank=64) for kind in ("dense", "lowrank")
    )
    assert fast.rank == 32, "20 directions fill two blocks of 16, whatever the number of landmarks"
    exact = dense.apply(scores)
    assert float((fast.apply(scores) - exact).norm() / exact.norm()) < 0.005


@pytest.mark.parametrize("error", [0.1, 0.03, 0.01])
def test_columns_leave_what_is_stated_and_a_block_fewer_would_not(error: float):
    generator = seeded()
    points = torch.randn(1, 3000, 3, generator=generator) * torch.tensor([4.0, 2.0, 1.0])
    everywhere = torch.ones(1, 3000, dtype=torch.bool)
    columns = choose_columns(points, everywhere, 60, 400, error, torch.float32)
    exact = (-torch.cdist(points.double(), points.double()).square() / 2).exp()[0]

    def left(rank: int) -> float:
        near = (-torch.cdist(points.double(), columns.landmarks.double()).square() / 2).exp()[0]
        factor = near @ columns.root[0, :, :rank].double()
        return float((exact - factor @ factor.T).norm() / exact.norm())

    rank = columns.root.shape[2]
    assert rank % 16 == 0
    assert left(rank) < 2 * columns.error
    assert left(rank - 16) > error


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_the_peak_memory_is_at_most_three_times_the_scores(kind: str):
    done = subprocess.run(
        [sys.executable, "-c", PEAK.format(kind=kind)],
        capture_output=True,
        text=True,
        check=True,
        # freed blocks go back to the system at once, so that the peak is of live memory
        env={"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    assert float(done.stdout) < 3

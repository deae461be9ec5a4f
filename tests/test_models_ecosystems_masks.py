"""Mask networks as networks of logits: masks enlarged before the sigmoid, equal to the library's post-processing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ecosystem_networks import save_network, tiny_network
from tiny import seeded
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from allweather import load_model
from allweather.models.ecosystems import masks
from allweather.models.ecosystems.masks import MaskLogits, Split, combine

GENERATOR = seeded()
ODD = (101, 151)
CLASSES = (3 * torch.randn(2, 7, 6, generator=GENERATOR)).softmax(2)[..., :-1]
MASKS = 8 * torch.randn(2, 7, 26, 38, generator=GENERATOR)


class Queries(nn.Module):
    """What a mask model gives: two queries, three classes and no-object."""

    def forward(self, pixel_values: Tensor, task_inputs: Tensor | None = None) -> Any:
        batch = len(pixel_values)
        logits = torch.tensor([[[[4.0, -4.0]], [[-4.0, 4.0]]]]).expand(batch, -1, -1, -1)
        classes = torch.tensor([[[5.0, 0, 0, 0], [0, 0, 5.0, 0]]]).expand(batch, -1, -1)
        told = None if task_inputs is None else tuple(task_inputs.shape)
        return type("Output", (), {"class_queries_logits": classes, "masks_queries_logits": logits, "told": told})


def test_masks_and_classes_combine_into_scores_per_pixel():
    logits = MaskLogits(Queries())(torch.zeros(1, 3, 1, 4))
    weight = torch.tensor([5.0, 0, 0, 0]).softmax(0)
    for column, mask in enumerate((4.0, 2.0, -2.0, -4.0)):  # the masks' 4 and -4, enlarged to four columns
        first, second = torch.tensor(mask).sigmoid(), torch.tensor(-mask).sigmoid()
        expected = torch.stack([weight[n] * first + weight[2 - n] * second for n in range(3)])
        assert_close(logits[0, :, 0, column].exp(), expected)


@pytest.mark.parametrize("size", [ODD, (26, 38), (27, 200), (13, 19)])
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_stripes_make_no_difference(size: tuple[int, int], rows: int, monkeypatch: pytest.MonkeyPatch):
    def gradients() -> tuple[Tensor, Tensor, Tensor]:
        classes, logits = CLASSES.clone().requires_grad_(), MASKS.clone().requires_grad_()
        scores = combine(classes, logits, size)
        scores.log().square().mean().backward()
        assert classes.grad is not None
        assert logits.grad is not None
        return scores.detach(), classes.grad, logits.grad

    whole = gradients()
    enlarged = functional.interpolate(MASKS, size, mode="bilinear").sigmoid()
    assert_close(whole[0], torch.einsum("bqc,bqhw->bchw", CLASSES, enlarged))
    monkeypatch.setattr(masks, "STRIPE", rows * 2 * 7 * size[1])
    for striped, expected in zip(gradients(), whole, strict=True):
        assert_close(striped, expected, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        assert_close(combine(CLASSES, MASKS, size), whole[0])


def test_stripes_hold_less(monkeypatch: pytest.MonkeyPatch):
    """What the gradient keeps is not the enlarged masks, Q×H×W."""
    kept: list[int] = []

    def most_kept(stripe: int) -> int:
        kept.clear()
        monkeypatch.setattr(masks, "STRIPE", stripe)
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: (kept.append(tensor.numel()), tensor)[1], lambda tensor: tensor
        )
        with hooks:
            combine(CLASSES, MASKS.clone().requires_grad_(), ODD)
        return max(kept)

    assert most_kept(2**24) >= 2 * 7 * 101 * 151
    assert most_kept(2 * 7 * 151 * 4) <= MASKS.numel()


def noisy(network: nn.Module) -> list[Any]:
    """Masks and classes become noise, so that labels change from pixel to pixel; gives the outputs as they are made."""
    made: list[Any] = []

    def replace(_: nn.Module, __: Any, output: Any):
        generator = seeded(len(made))
        for key, scale in (("masks_queries_logits", 8), ("class_queries_logits", 4)):
            setattr(output, key, scale * torch.randn(getattr(output, key).shape, generator=generator))
        made.append(output)

    network.register_forward_hook(replace)
    return made


@pytest.mark.parametrize("kind", ["mask2former", "maskformer", "oneformer"])
@pytest.mark.parametrize("size", [ODD, (64, 96), (75, 90)])
def test_labels_equal_the_librarys_for_masks_at_the_images_size(kind: str, size: tuple[int, int], tmp_path: Path):
    """MaskFormer's post-processing in the library has no size of its own, so it shows the formula alone."""
    library = pytest.importorskip("transformers")
    pytest.importorskip("scipy")
    model = load_model(f"transformers:{save_network(tiny_network(library, kind), tmp_path)}")
    made = noisy(model.network.network)
    with torch.no_grad():
        found = model(torch.rand(2, 3, *size)).argmax(1)
    made[0].masks_queries_logits = functional.interpolate(made[0].masks_queries_logits, size, mode="bilinear")
    processor = library.MaskFormerImageProcessor()
    expected = torch.stack(processor.post_process_semantic_segmentation(made[0], target_sizes=[size] * 2))
    assert (found == expected).float().mean() > 0.9995  # the logarithm rounds ties
    assert len(found.unique()) > 4


def test_mask2former_equals_the_library_where_it_enlarges_to_the_same_size(tmp_path: Path):
    """The library enlarges masks to 384×384 whatever the image; scores are equal where that is the image's size."""
    library = pytest.importorskip("transformers")
    pytest.importorskip("scipy")
    model = load_model(f"transformers:{save_network(tiny_network(library, 'mask2former'), tmp_path)}")
    made = noisy(model.network.network)
    with torch.no_grad():
        scores = model(torch.rand(1, 3, 384, 384)).exp()
    processor = library.Mask2FormerImageProcessor()
    expected = processor.post_process_semantic_segmentation(made[0], [(384, 384)], return_segmentation_scores=True)[0]
    assert_close(scores[0], expected.segmentation_scores)
    assert (scores[0].argmax(0) == expected.segmentation).float().mean() > 0.9995


@pytest.mark.parametrize("kind", ["eomt", "eomt_dinov3"])
@pytest.mark.parametrize("size", [(64, 64), (64, 200), (150, 64), ODD, (90, 40), (64, 128)])
def test_eomt_equals_the_library(kind: str, size: tuple[int, int], tmp_path: Path):
    library = pytest.importorskip("transformers")
    network = tiny_network(library, kind)
    settings = {"size": {"shortest_edge": 64, "longest_edge": None}, "do_split_image": True}
    folder = save_network(network, tmp_path, settings)
    model = load_model(f"transformers:{folder}")
    image = torch.rand(1, 3, *size, generator=seeded(2))
    processor = library.AutoImageProcessor.from_pretrained(folder)
    given = processor(images=[image[0]], do_rescale=False, return_tensors="pt")
    with torch.no_grad():
        output = network(pixel_values=given["pixel_values"])
        scores = model(image).exp()
    output.patch_offsets = [tuple(int(value) for value in offset) for offset in given["patch_offsets"]]
    expected = processor.post_process_semantic_segmentation(output, [size], return_segmentation_scores=True)[0]
    assert_close(scores[0], expected.segmentation_scores, rtol=1e-4, atol=1e-5)
    assert (scores[0].argmax(0) == expected.segmentation).float().mean() > 0.999


@pytest.mark.parametrize(
    ("length", "starts"), [(64, [0]), (65, [0, 1]), (128, [0, 64]), (150, [0, 43, 86]), (256, [0, 64, 128, 192])]
)
def test_squares_cover_the_longer_side(length: int, starts: list[int]):
    assert Split(64).starts(length) == starts
    assert starts[-1] + 64 == length


def test_eomt_takes_gradients_and_batches(tmp_path: Path):
    library = pytest.importorskip("transformers")
    model = load_model(f"transformers:{save_network(tiny_network(library, 'eomt'), tmp_path)}")
    images = torch.rand(2, 3, 70, 150, generator=seeded(2))
    logits = model(images)
    assert_close(logits[1:], model(images[1:]))
    logits.softmax(1)[:, 0].mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())

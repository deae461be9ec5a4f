"""Networks that other libraries build: mask models, NVlabs' SegFormer, smp, mmseg; and windows over large images."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from allweather import Segmenter, Session, load_model, methods
from allweather.errors import AllWeatherError
from allweather.models.ecosystems.nvlabs import SIZES, hub_names
from allweather.models.ecosystems.transformers import MaskLogits
from allweather.models.segmenter import Window
from allweather.session import Guard

IMAGE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


class Queries(nn.Module):
    """What a mask model gives: two queries, three classes and no-object."""

    def forward(self, pixel_values: Tensor, task_inputs: Tensor | None = None) -> Any:
        batch = len(pixel_values)
        masks = torch.tensor([[[[4.0, -4.0]], [[-4.0, 4.0]]]]).expand(batch, -1, -1, -1)
        classes = torch.tensor([[[5.0, 0, 0, 0], [0, 0, 5.0, 0]]]).expand(batch, -1, -1)
        told = None if task_inputs is None else tuple(task_inputs.shape)
        return type("Output", (), {"class_queries_logits": classes, "masks_queries_logits": masks, "told": told})


def test_masks_and_classes_combine_into_scores_per_pixel() -> None:
    logits = MaskLogits(Queries())(IMAGE)
    assert logits.shape == (1, 3, 1, 2)
    assert logits.argmax(1).tolist() == [[[0, 2]]]
    weight = torch.tensor([5.0, 0, 0, 0]).softmax(0)
    open_, shut = torch.tensor(4.0).sigmoid(), torch.tensor(-4.0).sigmoid()
    torch.testing.assert_close(logits[0, 0, 0, 0].exp(), weight[0] * open_ + weight[1] * shut)


@pytest.mark.parametrize("kind", ["mask2former", "oneformer"])
def test_mask_models_load_from_a_folder(kind: str, tmp_path: Path) -> None:
    library = pytest.importorskip("transformers")
    pytest.importorskip("scipy")
    save_mask_model(library, kind, tmp_path)
    model = load_model(f"transformers:{tmp_path}")
    with torch.no_grad():
        logits = model(IMAGE)
    assert logits.shape == (1, 19, 64, 96)
    assert logits.isfinite().all()
    logits = model(IMAGE)
    logits.softmax(1)[:, 0].mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def save_mask_model(library: Any, kind: str, folder: Path) -> None:
    torch.manual_seed(0)
    backbone = library.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    if kind == "mask2former":
        config = library.Mask2FormerConfig(
            backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, num_queries=5,
            encoder_layers=1, decoder_layers=2, num_attention_heads=2, encoder_feedforward_dim=32, dim_feedforward=32,
            num_labels=19,
        )  # fmt: skip
        library.Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
        return
    config = library.OneFormerConfig(
        backbone_config=backbone, conv_dim=32, mask_dim=32, hidden_dim=32, num_queries=5, encoder_layers=1,
        decoder_layers=2, num_attention_heads=2, encoder_feedforward_dim=32, dim_feedforward=32, num_labels=19,
        text_encoder_width=32, text_encoder_num_layers=1, text_encoder_vocab_size=300, text_encoder_n_ctx=4,
    )  # fmt: skip
    library.OneFormerForUniversalSegmentation(config).save_pretrained(folder)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": "<|startoftext|>"}
    settings |= {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_weights_go_into_a_folders_configuration(tmp_path: Path) -> None:
    library = pytest.importorskip("transformers")
    config = library.SegformerConfig(num_labels=19, **SIZES["b0"])
    network = library.SegformerForSemanticSegmentation(config).eval()
    config.save_pretrained(tmp_path)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "mine.pth")
    model = load_model(f"transformers:{tmp_path}", tmp_path / "mine.pth")
    assert model.provenance
    assert model.provenance.nesting == "state_dict"
    for key, value in model.network.network.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, network.state_dict()[key])


def test_nvlabs_checkpoint_in_transformers_network(tmp_path: Path) -> None:
    """A network of transformers, its tensors under NVlabs' names, gives the same numbers when it comes back."""
    library = pytest.importorskip("transformers")
    torch.manual_seed(0)
    network = library.SegformerForSemanticSegmentation(library.SegformerConfig(num_labels=19, **SIZES["b0"])).eval()
    state = nvlabs_names(network)
    state["decode_head.conv_seg.weight"] = torch.zeros(19, 128, 1, 1)
    torch.save({"meta": {"CLASSES": ("road",)}, "state_dict": state}, tmp_path / "segformer.b0.pth")
    model = load_model("nvlabs:segformer-b0", tmp_path / "segformer.b0.pth")
    with torch.no_grad():
        expected = network(pixel_values=IMAGE).logits
        assert torch.equal(model.network(IMAGE), expected)
    del state["backbone.block1.0.attn.kv.weight"]
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "less.safetensors")
    with pytest.raises(AllWeatherError, match="not a checkpoint of segformer-b0"):
        load_model("nvlabs:segformer-b0", tmp_path / "less.safetensors")
    with pytest.raises(AllWeatherError, match=r"head\.weight"):
        hub_names({"head.weight": torch.zeros(1)})


def nvlabs_names(network: Any) -> dict[str, Tensor]:
    """A network's tensors by NVlabs' names, written down by block rather than by the patterns under test."""
    pairs: dict[str, nn.Module] = {}
    state: dict[str, Tensor] = {}
    for number, stage in enumerate(network.segformer.stages, 1):
        pairs[f"backbone.patch_embed{number}.proj"] = stage.patch_embeddings.proj
        pairs[f"backbone.patch_embed{number}.norm"] = stage.patch_embeddings.layer_norm
        pairs[f"backbone.norm{number}"] = stage.layer_norm
        for index, block in enumerate(stage.blocks):
            at, attention = f"backbone.block{number}.{index}", block.attention
            pairs |= {
                f"{at}.norm1": block.layernorm_before, f"{at}.norm2": block.layernorm_after,
                f"{at}.attn.q": attention.q_proj, f"{at}.attn.proj": attention.o_proj,
                f"{at}.mlp.fc1": block.mlp.fc1, f"{at}.mlp.fc2": block.mlp.fc2,
                f"{at}.mlp.dwconv.dwconv": block.mlp.dwconv.dwconv,
            }  # fmt: skip
            if hasattr(attention, "sequence_reduction"):
                pairs[f"{at}.attn.sr"] = attention.sequence_reduction.sequence_reduction
                pairs[f"{at}.attn.norm"] = attention.sequence_reduction.layer_norm
            for kind in ("weight", "bias"):
                joint = [getattr(attention.k_proj, kind), getattr(attention.v_proj, kind)]
                state[f"{at}.attn.kv.{kind}"] = torch.cat([part.detach() for part in joint])
    head = network.decode_head
    for number, projection in enumerate(head.linear_projections, 1):
        pairs[f"decode_head.linear_c{number}.proj"] = getattr(projection, "proj", projection)
    pairs |= {
        "decode_head.linear_fuse.conv": head.linear_fuse, "decode_head.linear_fuse.bn": head.batch_norm,
        "decode_head.linear_pred": head.classifier,
    }  # fmt: skip
    for name, module in pairs.items():
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    return state


def test_smp_networks_and_folders(tmp_path: Path) -> None:
    library = pytest.importorskip("segmentation_models_pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model("smp:fpn/resnet18")
    assert model(IMAGE).shape == (1, 19, 64, 96)
    torch.save(model.network.state_dict(), tmp_path / "fpn.pth")
    again = load_model("smp:fpn/resnet18", tmp_path / "fpn.pth")
    library.create_model("fpn", "resnet18", encoder_weights=None, classes=19).save_pretrained(tmp_path / "folder")
    saved = load_file(tmp_path / "folder" / "model.safetensors")
    folder = load_model(f"smp:{tmp_path / 'folder'}").network.state_dict()
    assert all(torch.equal(folder[key], value) for key, value in saved.items())
    with torch.no_grad():
        assert torch.equal(again.eval()(IMAGE), model.eval()(IMAGE))
    for name in ("fpn", "fpn/nothing", "nothing/resnet18"):
        with pytest.raises(AllWeatherError, match=r"smp:|segmentation-models-pytorch"):
            load_model(f"smp:{name}")


def test_an_encoder_of_timm_is_fed_as_timm_says(tmp_path: Path) -> None:
    library = pytest.importorskip("segmentation_models_pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model("smp:fpn/tu-tf_efficientnet_lite0")
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    saved = library.create_model("fpn", "tu-tf_efficientnet_lite0", encoder_weights=None, classes=19)
    saved.save_pretrained(tmp_path)
    assert load_model(f"smp:{tmp_path}").preprocessing == model.preprocessing


@pytest.mark.parametrize(
    "config", ["fcn_hr18_4xb2-40k_cityscapes-512x1024", "segformer_mit-b0_8xb1-160k_cityscapes-1024x1024"]
)
def test_mmseg_configs(config: str, tmp_path: Path) -> None:
    pytest.importorskip("mmseg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(f"mmseg:{config}")
    with torch.no_grad():
        before = model(IMAGE)
    assert before.shape == (1, 19, 64, 96)
    torch.save({"state_dict": model.network.network.state_dict(), "meta": {}}, tmp_path / "a.pth")  # type: ignore[union-attr]
    again = load_model(f"mmseg:{config}", tmp_path / "a.pth")
    assert (again.window == Window(1024, 768)) == ("segformer" in config)
    with torch.no_grad():
        assert torch.equal(again(IMAGE), before)


def small_network(kind: str, folder: Path) -> Segmenter:
    """A network that a library builds, with random weights."""
    if kind in ("torchvision", "smp"):
        pytest.importorskip("torchvision" if kind == "torchvision" else "segmentation_models_pytorch")
        name = "lraspp_mobilenet_v3_large" if kind == "torchvision" else "fpn/resnet18"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load_model(f"{kind}:{name}")
    library = pytest.importorskip("transformers")
    if kind == "segformer":
        config = library.SegformerConfig(
            num_labels=19, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=16,
            num_attention_heads=[1, 1, 2, 2],
        )  # fmt: skip
        library.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    else:
        pytest.importorskip("scipy")
        save_mask_model(library, kind, folder)
    return load_model(f"transformers:{folder}")


@pytest.mark.parametrize("kind", ["torchvision", "smp", "segformer", "mask2former", "oneformer"])
def test_networks_of_libraries_adapt_and_reset(kind: str, tmp_path: Path) -> None:
    model = small_network(kind, tmp_path)
    source = {key: value.clone() for key, value in model.state_dict().items()}
    for chosen in ("tent", "mall-domain"):
        method = methods.make(chosen, settings={"episodic": False, "iterations": 1}, model=model)
        session = Session(model, method, guard=Guard(enabled=False))
        result = session(IMAGE[0])
        assert result.iterations == 1, result.decision
        assert result.logits.isfinite().all()
        now = session.model.state_dict()
        assert any(not torch.equal(value, source[key]) for key, value in now.items())
        session.reset()
        assert all(torch.equal(value, source[key]) for key, value in session.model.state_dict().items())
    assert all(torch.equal(value, source[key]) for key, value in model.state_dict().items())


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, extra in (("smp:unet/resnet18", "smp"), ("mmseg:x", "mmseg"), ("nvlabs:segformer-b0", "transformers")):
        with monkeypatch.context() as without:
            for module in ("segmentation_models_pytorch", "mmseg", "mmcv", "transformers"):
                without.setitem(__import__("sys").modules, module, None)
            with pytest.raises(AllWeatherError, match=rf"allweather\[{extra}\]"):
                load_model(name)


class Position(nn.Module):
    """Logits that tell the mean of what the network sees, so that each window gives another number."""

    def forward(self, x: Tensor) -> Tensor:
        level = x.mean((1, 2, 3), keepdim=True).expand(-1, 1, *x.shape[2:])
        return torch.cat([level, x[:, :1]], 1)


def test_windows_slide_and_overlap_is_averaged() -> None:
    from allweather.classes import ClassSet

    classes = ClassSet("two", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    image = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(1))
    sliding = Segmenter(Position(), classes=classes, window=Window(32, 24))
    whole = Segmenter(Position(), classes=classes)
    total, count = torch.zeros(2, 2, 50, 70), torch.zeros(50, 70)
    for top in (0, 18):
        for left in (0, 24, 38):
            part = whole(image[..., top : top + 32, left : left + 32])
            total[..., top : top + 32, left : left + 32] += part
            count[top : top + 32, left : left + 32] += 1
    torch.testing.assert_close(sliding(image), total / count)
    small = functional.interpolate(image, (32, 32))
    assert torch.equal(sliding(small), whole(small))
    flat = sliding(image[..., :20, :])
    assert flat.shape == (2, 2, 20, 70)

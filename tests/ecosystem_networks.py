"""Small networks that libraries build, and a cache of their hub that needs no network."""

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import equal_in
from torch import Tensor, nn

from allweather import CITYSCAPES, Segmenter, Session, methods

ALPHABETICAL = tuple(sorted(CITYSCAPES.names))
COMMIT = "0" * 40


def labels(names: tuple[str, ...]) -> dict[str, Any]:
    """A transformers configuration's fields that name its classes."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def hub(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """The hub is offline, its cache is `root`; calling the result lays a folder out there as a repository."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def publish(repository: str, folder: Path, commit: str = COMMIT):
        place = root / f"models--{repository.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs/main").write_text(commit)
        shutil.copytree(folder, place / "snapshots" / commit)

    return publish


@contextmanager
def nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub is there to be asked, and no machine is looked up; the hub is asked again afterwards."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    asked: list[Any] = []

    def look_up(*arguments: Any, **_: Any):
        asked.append(arguments[:2])
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield
    assert not asked
    assert constants.HF_HUB_OFFLINE is False


def tiny_config(library: Any, kind: str, **fields: Any) -> Any:
    """The smallest configuration of one architecture of transformers, for Cityscapes' classes unless named."""
    fields = {**labels(CITYSCAPES.names), **fields}
    vit: dict[str, Any] = {
        "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 16,
        "image_size": 64,
    }  # fmt: skip
    stages = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32]}
    outputs = [f"stage{number}" for number in range(1, 5)]
    swin = library.SwinConfig(
        image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4, out_features=outputs
    )
    masks = {"backbone_config": swin, "mask_feature_size": 32, "num_queries": 5} if kind.endswith("former") else {}
    if kind == "segformer":
        heads = {"decoder_hidden_size": 16, "num_attention_heads": [1, 1, 2, 2]}
        return library.SegformerConfig(**stages, **heads, **fields)
    if kind == "upernet":
        backbone = library.ConvNextConfig(**stages, out_features=outputs)
        return library.UperNetConfig(backbone_config=backbone, hidden_size=16, use_auxiliary_head=False, **fields)
    if kind == "mobilevit":
        sizes = {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 32]}
        return library.MobileViTConfig(**sizes, num_attention_heads=2, image_size=64, **fields)
    if kind in ("beit", "data2vec-vision"):
        config, first = (library.BeitConfig, 1) if kind == "beit" else (library.Data2VecVisionConfig, 0)
        vit |= {"use_relative_position_bias": True, "auxiliary_channels": 8, "vocab_size": 9}
        return config(**vit, out_indices=list(range(first, first + 4)), **fields)
    if kind == "sapiens2":
        widths = {"upsample_out_channels": [16, 16], "conv_out_channels": [8]}
        kernels = {"upsample_kernel_sizes": [4, 4], "conv_kernel_sizes": [1]}
        heads = {"num_first_full_attention_layers": 1, "num_key_value_attention_heads": 1}
        return library.Sapiens2Config(**vit, **heads, head_config={**widths, **kernels}, **fields)
    if kind == "dpt":
        return library.DPTConfig(
            **vit, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8,
            is_hybrid=False, use_auxiliary_head=False, **fields,
        )  # fmt: skip
    if kind in ("eomt", "eomt_dinov3", "videomt"):
        made = {"eomt": library.EomtConfig, "eomt_dinov3": library.EomtDinov3Config, "videomt": library.VideomtConfig}
        return made[kind](**vit, num_queries=5, num_blocks=1, mlp_ratio=1, **fields)
    if kind == "mask2former":
        return library.Mask2FormerConfig(
            **masks, feature_size=32, hidden_dim=32, encoder_layers=1, decoder_layers=2, num_attention_heads=2,
            encoder_feedforward_dim=32, dim_feedforward=32, **fields,
        )  # fmt: skip
    if kind == "maskformer":
        decoder = library.DetrConfig(
            d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=5,
        )  # fmt: skip
        return library.MaskFormerConfig(**masks, fpn_feature_size=32, decoder_config=decoder, **fields)
    assert kind == "oneformer"
    return library.OneFormerConfig(
        **{**masks, "mask_feature_size": 32}, conv_dim=32, mask_dim=32, hidden_dim=32, encoder_layers=1,
        decoder_layers=2, num_attention_heads=2, encoder_feedforward_dim=32, dim_feedforward=32, text_encoder_width=32,
        text_encoder_num_layers=1, text_encoder_vocab_size=300, text_encoder_n_ctx=4, **fields,
    )  # fmt: skip


def tiny_network(library: Any, kind: str, **fields: Any) -> Any:
    """A network of transformers with random weights, in evaluation mode."""
    torch.manual_seed(0)
    config = tiny_config(library, kind, **fields)
    semantic = type(config) in library.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
    auto = library.AutoModelForSemanticSegmentation if semantic else library.AutoModelForUniversalSegmentation
    return auto.from_config(config).eval()


def save_network(network: Any, folder: Path, processor: dict[str, Any] | None = None) -> Path:
    """The folder as `save_pretrained` writes it, with a processor's settings ({} for the architecture's own)."""
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor or {}))
    if network.config.model_type == "oneformer":
        _save_tokenizer(folder)
    return folder


def _save_tokenizer(folder: Path):
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": "<|startoftext|>"}
    settings |= {"eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def assert_adapts_and_resets(model: Segmenter, image: Tensor):
    source = deepcopy(model.state_dict())
    for chosen in ("tent", "mall-domain"):
        method = methods.make(chosen, settings={"episodic": False, "iterations": 1}, model=model)
        session = Session(model, method, guard=False)
        result = session(image)
        assert result.iterations == 1, result.decision
        assert result.logits.isfinite().all()
        assert not equal_in(session.model.state_dict(), source)
        session.reset()
        assert equal_in(session.model.state_dict(), source)
    assert equal_in(model.state_dict(), source)


def nvlabs_names(network: Any) -> dict[str, Tensor]:
    """A SegFormer's tensors by NVlabs' names, written down by block rather than by the patterns under test."""
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

"""`import allweather` is quick, silent, without heavy libraries, and offers a fixed set of names."""

import subprocess
import sys

import pytest

import allweather

HEAVY = (
    "transformers", "torchvision", "matplotlib", "scipy", "h5py", "typer", "rich", "timm", "av", "cv2",
    "huggingface_hub", "onnx", "onnxruntime", "ray", "pandas", "pyarrow", "gradio", "fastapi", "torch._dynamo",
)  # fmt: skip
PUBLIC = {
    "CAMVID11", "CITYSCAPES", "Affinity", "AllWeatherError", "CheckpointError", "ClassSet", "Frame", "Guard",
    "ImageError", "InputError", "Live", "MissingLibraryError", "NetworkError", "Result", "Segmenter", "Session",
    "SettingsError", "__version__", "advise_scale", "apply_delta", "from_hub", "keep_freed_memory", "list_models",
    "load_model", "load_stream", "methods", "normalized_cut", "read_image",
}  # fmt: skip


def loaded_after(statement: str) -> tuple[set[str], str]:
    """Heavy libraries in a fresh interpreter after `statement`, and all that it printed."""
    code = f"import sys\n{statement}\nprint('|'.join(m for m in {HEAVY!r} if m in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *noise, last = done.stderr.splitlines() or [""]
    return set(filter(None, last.split("|"))), done.stdout + "".join(noise)


EVERYTHING = "import allweather; [getattr(allweather, name) for name in allweather.__all__]"


def test_import_loads_nothing_heavy_and_says_nothing():
    """Nor does a warning reach the terminal without a handler of one's own."""
    warning = "import logging; logging.getLogger('allweather.plugins').warning('heard')"
    heavy, printed = loaded_after(f"{EVERYTHING}; {warning}")
    assert not heavy
    assert printed == ""


def test_the_test_above_can_fail():
    heavy, _ = loaded_after(f"{EVERYTHING}; import typer")
    assert heavy


ADAPT = """
import torch, allweather
for name, optimizer in (("mall-domain", "adam"), ("tent", "sgd")):
    method = allweather.methods.make(name, "recommended", {"optimizer": optimizer})
    session = allweather.Session(allweather.load_model("demo:streetnet"), method)
    assert session(torch.rand(3, 64, 96)).iterations == 1
    session.reset()
"""


def test_a_first_step_loads_no_compiler():
    """`torch.optim` and `torch.library.custom_op` would import torch's, which takes seconds."""
    assert not loaded_after(ADAPT)[0]


def test_the_library_logs_and_prints_nothing(caplog: pytest.LogCaptureFixture):
    """Under the standard name; what it would print, the first test of this file would hear."""
    with caplog.at_level("INFO", "allweather"):
        allweather.load_model("demo:streetnet")
    assert [(each.name, each.getMessage()[:14]) for each in caplog.records] == [
        ("allweather.models.checkpoints", "demo:streetnet")
    ]


def test_a_name_that_is_not_there_is_no_name():
    with pytest.raises(AttributeError, match="no attribute 'Sesion'"):
        allweather.Sesion  # noqa: B018
    assert set(allweather.__all__) <= set(dir(allweather))


def test_a_noisy_import_would_be_heard():
    assert loaded_after("print('hello')")[1] == "hello\n"


def test_import_adds_little_to_torchs_own_time():
    code = (
        f"import time; z = time.process_time(); import torch, PIL.Image, safetensors.torch, numpy; "
        f"a = time.process_time(); {EVERYTHING}; print((time.process_time() - a) / (a - z))"
    )
    shares = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(2)
    ]
    assert min(shares) < 0.6  # of the processor's time that torch itself takes, however slow the machine


def test_the_public_names_are_frozen():
    assert set(allweather.__all__) == PUBLIC
    assert all(hasattr(allweather, name) for name in PUBLIC)

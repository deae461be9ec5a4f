"""Imports public code from its checkouts as it stands: stand-ins for what it imports and a run does not need."""

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor


def stand_in(name: str, path: Path | None = None, **values: Any) -> ModuleType:
    """A module of that name that holds `values`; with `path`, a package whose files are found there."""
    module = ModuleType(name)
    module.__dict__.update(values)
    if path is not None:
        module.__path__ = [str(path)]
    return module


@contextmanager
def checkout(root: Path, *modules: ModuleType) -> Iterator[None]:
    """Imports come from the checkout and from the stand-ins; afterwards nothing of them stays importable."""
    given = {module.__name__: module for module in modules}
    before = {name: sys.modules[name] for name in given if name in sys.modules}
    sys.path.insert(0, str(root))
    sys.modules.update(given)
    try:
        yield
    finally:
        sys.path.remove(str(root))
        theirs = [name for name, module in sys.modules.items() if str(root) in str(getattr(module, "__file__", ""))]
        for name in {*theirs, *given}:
            del sys.modules[name]
        sys.modules.update(before)


def function_in(path: Path, name: str) -> Callable[..., Any]:
    """A function of a script that cannot be imported, compiled as it stands."""
    found = next(
        node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef) and node.name == name
    )
    world: dict[str, Any] = {"np": np, "torch": torch}
    exec(compile(ast.Module([found], []), str(path), "exec"), world)
    function: Callable[..., Any] = world[name]
    return function


def mmcv() -> list[ModuleType]:
    class Registry:
        def __init__(self, name: str) -> None:
            self.name = name

        def register_module(self, *unused: Any, **named: Any) -> Callable[[Any], Any]:
            return lambda found: found

    def half(**unused: Any) -> Callable[[Any], Any]:
        return lambda found: found

    def pictures(images: Tensor, **unused: Any) -> list[np.ndarray]:
        return [np.zeros((*images.shape[2:], 3)) for _ in images]

    progress = type("Progress", (), {"__init__": lambda self, length: None, "update": lambda self: None})
    return [
        stand_in("mmcv", ProgressBar=progress, imresize=lambda picture, size: picture),
        stand_in("mmcv.image", tensor2imgs=pictures),
        stand_in("mmcv.runner", get_dist_info=None, build_optimizer=None, build_runner=None, auto_fp16=half),
        stand_in("mmcv.utils", Registry=Registry, build_from_cfg=None),
        stand_in("IPython", embed=None),
        stand_in("kornia"),
    ]


def mmseg(root: Path) -> list[ModuleType]:
    """mmseg's packages without what their own __init__ would import."""
    names = ("mmseg", "mmseg.apis", "mmseg.models", "mmseg.models.segmentors", "mmseg.models.losses", "mmseg.ops")
    found = [stand_in(name, path=root / Path(*name.split("."))) for name in names]
    resize = _imported(root / "mmseg" / "ops" / "wrappers.py", "resize")
    prefix = _imported(root / "mmseg" / "core" / "utils" / "misc.py", "add_prefix")
    found[-1].resize = resize  # type: ignore[attr-defined]  # a stand-in takes any
    empty = [stand_in(f"mmseg.models.backbones{name}") for name in ("", ".prompt", ".lora")]
    return [*found, stand_in("mmseg.core", add_prefix=prefix), *empty]


def _imported(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"public_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be imported; expected the file of a checkout.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)

"""`allweather doctor`: what a bug report needs, and whether this machine can run the product."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated, Any

import torch
import typer

from allweather import methods, ncut
from allweather.app.console import data, print_json, table
from allweather.models.catalogue import ECOSYSTEMS, all_entries

EXAMPLE = "allweather doctor --json"


def doctor(json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False) -> None:
    """Show versions, devices and extras, and check that the operator works here."""
    facts = examine()
    if json:
        print_json(facts)
        return
    rows = [(name, _line(value)) for name, value in facts.items()]
    data.print(table("allweather doctor", ("what", "found"), rows, numbers_from=2))


def examine() -> dict[str, Any]:
    """Facts about this installation, ready for JSON."""
    return {
        "allweather": version("allweather"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "extras": {name: _installed(name) for name in optional_libraries()},
        "networks": len(all_entries()) + len(ECOSYSTEMS),
        "methods": sorted(methods.METHODS),
        "assets": "named" if os.environ.get("ALLWEATHER_ASSETS") else "ALLWEATHER_ASSETS is not set",
        "operator": _operator(),
    }


def optional_libraries() -> list[str]:
    """The libraries of every extra of this package but the developers'."""
    wanted = [line for line in requires("allweather") or () if "extra ==" in line and "extra == 'dev'" not in line]
    names = [re.match(r"[\w.-]+", line) for line in wanted]
    return sorted({name[0] for name in names if name})


def _operator() -> str:
    """Relative difference of the low-rank and the dense normalized cut on a small random image."""
    generator = torch.Generator().manual_seed(0)
    image, scores = (torch.rand(1, 3, 24, 32, generator=generator) for _ in range(2))
    dense, fast = (
        ncut.normalized_cut(scores, image, sigma_rgb=40, sigma_xy=10, implementation=which)
        for which in ("dense", "lowrank")
    )
    return f"low-rank within {abs(float(fast / dense) - 1):.1e} of the definition"


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {found}" for name, found in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)

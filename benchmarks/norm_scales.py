"""How large the gains and biases of real networks' norm layers are, which steps of one length would not see.

    ALLWEATHER_ASSETS=DIR python -m benchmarks.norm_scales --json benchmarks/records/norm-scales.json.gz

Of each network of plans/carry-over.toml, with its weights: the root mean square of each tensor that MALL moves, and of
those the lowest, the median and the highest.
"""

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor

from allweather import load_model
from allweather.methods.parameters import select_parameters
from allweather.runs.places import resolve
from allweather.runs.plan import read_plan
from allweather.runs.record import versions
from benchmarks.committed import ROOT, benchmark_record, command, hand_out, markdown_table

RECORD = "norm-scales.json.gz"


def main() -> None:
    parser = command(__doc__)
    options = parser.parse_args()
    networks = {run.model.name: run.model for run in read_plan(ROOT / "plans" / "carry-over.toml").runs}
    found = {name: measure(resolve(spec.weights), name) for name, spec in networks.items()}
    hand_out({"benchmark": "norm-scales", "networks": found, "versions": versions()}, options.json)


def measure(weights: Path, name: str) -> dict[str, list[float]]:
    """Lowest, median and highest root mean square of the norm layers' weights, and of their biases."""
    moved = select_parameters(load_model(name, weights), "norm-affine", "mall-domain")
    kinds = {kind: [value for key, value in moved.items() if key.endswith(kind)] for kind in ("weight", "bias")}
    return {kind: _spread(values) for kind, values in kinds.items()}


def _spread(values: Iterable[Tensor]) -> list[float]:
    found = [float(value.detach().square().mean().sqrt()) for value in values]
    return [round(value, 3) for value in (min(found), median(found), max(found))]


def table() -> str:
    """One row per network."""
    record: dict[str, Any] | None = benchmark_record(RECORD)
    if record is None:
        return "not measured"
    rows = [[name, *(_spelt(found[kind]) for kind in ("weight", "bias"))] for name, found in record["networks"].items()]
    return markdown_table(["network", "gains: median (lowest to highest)", "biases"], rows)


def _spelt(spread: list[float]) -> str:
    low, middle, high = spread
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()

"""Rewrites the generated tables of README.md and docs/, and the pages of whole plans, from the records that are kept:
python -m benchmarks.tables

A table, or a text that several pages share, stands between `<!-- table: NAME -->` and `<!-- end -->`; NAME is a key of
TABLES.
"""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from allweather import methods
from allweather.methods import METHODS, Method
from allweather.methods.gradient import GradientMethod
from allweather.report.collect import group_records
from allweather.report.refusals import MARK as GUARDED
from allweather.report.refusals import REMARK, in_words, measures_guard
from allweather.runs.summary import image_count
from benchmarks import (
    carry_over,
    fidelity,
    fleet,
    gates_table,
    gpu_tables,
    guard_table,
    long_stream,
    norm_scales,
    pareto,
    passes,
    scale,
    views,
)
from benchmarks.committed import RECORDS, ROOT, benchmark_record, load, markdown_table, plain, plan_records
from benchmarks.plan_tables import PLAN_TABLES
from benchmarks.script_tables import demo, export, hostile, layernorm, live, serve

PAGES = (
    "README.md",
    "docs/results.md",
    "docs/results/carry-over.md",
    "docs/lab-notes.md",
    "docs/performance.md",
    "docs/methods.md",
    "docs/scale.md",
    "docs/how-to/export.md",
)
MARK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIRST = "tent"  # whose defaults the other methods with a gradient are told beside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    check = parser.parse_args().check
    stale = [name for name in PAGES if rewrite(ROOT / name, check)]
    if check and stale:
        raise SystemExit(f"out of date: {', '.join(stale)}; run python -m benchmarks.tables")


def rewrite(page: Path, check: bool = False) -> bool:
    """Fills the page's tables; whether that changes it."""
    before = page.read_text()
    after = MARK.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}", before)
    if not check:
        page.write_text(after)
    return before != after


def ncut() -> str:
    """The normalized cut and its rivals, one row per size and rival."""
    found = benchmark_record("performance/ncut.json.gz")
    if found is None:
        return "not measured"
    heads = ["pixels", "threads", "", "make it, ms", "filter alone, ms", "loss and gradient, ms", "gradient error"]
    rows = [_ncut_cells(row, found["versions"]["machine"]) for row in found["rows"] if "skipped" not in row]
    skipped = dict.fromkeys(f"{row['rival']} ({row['skipped']})" for row in found["rows"] if "skipped" in row)
    exponents = ", ".join(f"{name} {value:.2f}" for name, value in found["slopes"].items())
    said = (
        f"Exponent of time in pixels: {exponents}. Calls of over 3 s were timed once. {found['versions']['machine']}. "
        f"Left out: {', '.join(skipped) or 'none'}."
    )
    return "\n\n".join([markdown_table([*heads, "peak over the scores, making / step"], rows), *_paired(found), said])


def _ncut_cells(row: dict[str, Any], machine: str) -> list[str]:
    where = [f"{row['height']}×{row['width']}", str(row.get("threads", machine.split()[-2])), row["rival"]]
    times = ["–" if row.get(key) is None else f"{row[key]:.1f}" for key in ("build_ms", "filter_ms", "step_ms")]
    peaks = [row.get(key) for key in ("build_peak_over_scores", "step_peak_over_scores")]
    shown = "–" if None in peaks else " / ".join(f"{peak:.1f}×" for peak in peaks)
    return [*where, *times, f"{row['gradient_error']:.2%}", shown]


def _paired(found: dict[str, Any]) -> list[str]:
    """Against the lattice, in turns in one process."""
    heads = ["pixels", "threads", "ours: make it + step, ms", "lattice", "step: times faster", "with the making"]
    rows = [
        [
            f"{row['height']}×{row['width']}",
            str(row["threads"]),
            *(f"{row[name + '_build_ms']:.1f} + {row[name + '_step_ms']:.1f}" for name in ("lowrank", "lattice")),
            f"{row['step_ratio']:.1f}",
            f"{row['total_ratio']:.1f}",
        ]
        for row in found.get("paired", [])
    ]
    return [markdown_table(heads, rows)] if rows else ["Against the lattice in turns: not measured."]


def iteration() -> str:
    """Milliseconds per iteration of every recorded network."""
    heads = ["network, size, batch", "TENT", "MALL-sample", "MALL-domain", "MALL-domain, all parameters"]
    heads += ["MALL/TENT affine", "MALL/TENT all", "NCut's share"]
    rows = []
    for path in sorted((RECORDS / "iteration").glob("*.json.gz")):
        loaded: Any = load(path)
        for row in loaded if isinstance(loaded, list) else [loaded]:
            times = row["ms_per_iteration"]
            cells = [times[case] for case in ("tent", "mall-sample affine", "mall-domain affine", "mall-domain all")]
            ratios = [row["ratio_mall_affine_over_tent"], row["ratio_mall_all_over_tent"]]
            name = f"{row['model']}{'' if row['weights'] else ' (random)'}, {row['size']}, {row['batch']}"
            shares = [f"{ratio:.2f}" for ratio in ratios]
            times = [f"{value:.0f}" for value in cells]
            rows.append([name, *times, *shares, f"{row['ncut_share_of_iteration']:.1%}"])
    return markdown_table(heads, rows)


def stream() -> str:
    """What a frame costs along a video, as a ratio to the source's, one column per network; a table a record."""
    found = [load(path) for path in sorted((RECORDS / "performance").glob("stream*.json.gz"))]
    return "\n\n".join(map(_stream, found)) or "not measured"


def _stream(found: Mapping[str, Any]) -> str:
    networks = found["networks"]
    said = "ms, × source, worst ms"
    heads = [f"{name}{'' if network['weights'] else ' (random)'}: {said}" for name, network in networks.items()]
    cases = next(iter(networks.values()))["rows"]
    rows = [
        [
            case,
            *(
                f"{row['mean_ms']:.0f}, {row['ratio']:.2f}, {row['worst_ms']:.0f}"
                for row in (each["rows"][case] for each in networks.values())
            ),
        ]
        for case in cases
    ]
    about = f"{found['size']}, {found['frames']} frames of {found['of']}, {found['versions']['machine']}."
    return "\n\n".join([markdown_table(["method", *heads], rows), about])


def options() -> str:
    """What each speed option changes."""
    found = benchmark_record("performance/options.json.gz")
    if found is None:
        return "not measured"
    heads = ["option", "ms per frame", "time ratio", "mIoU %", "labels that stay"]
    rows = [
        [name, f"{row['ms_per_frame']:.0f}", f"{row['ratio']:.2f}", f"{row['mIoU']:.2f}", f"{row['same_labels']:.3%}"]
        for name, row in found["rows"].items()
    ]
    about = f"{found['model']}, {found['method']}, {found['frames']} dusk frames at {found['size']}"
    about += f", {found['versions']['machine']}."
    return f"{markdown_table(heads, rows)}\n\n{about}"


def adapt_io() -> str:
    """`adapt` end to end against its parts."""
    found = benchmark_record("performance/adapt-io.json.gz")
    if found is None:
        return "not measured"
    heads = ["network", "input and output", "one after another", "adapt"]
    rows = []
    for name, row in found["rows"].items():
        times = [f"{row['ms_per_frame'][head.replace(' ', '_')]:.0f}" for head in heads]
        rows.append([name, *times, f"{row['over_larger']:.2f}×", str(row["peak_mib"])])
    measured = markdown_table(["method", *heads, "over the larger part", "peak above its start, MiB"], rows)
    about = (
        f"Milliseconds per frame: {found['frames']} frames of {found['stored']}, {found['model']} at {found['size']}"
    )
    peak = "The peak is what came beyond what the process held when the row began; rows follow each other in it."
    return f"{measured}\n\n{about}, {found['versions']['machine']} each for network and files. {peak}"


def all_methods() -> str:
    """One section per method: what its class says, source, defaults and measured figures."""
    return "\n\n".join(_method(name, method) for name, method in METHODS.items())


def _method(name: str, method: type[Method]) -> str:
    about = " ".join(line.strip() for line in (method.__doc__ or "").strip().splitlines())
    defaults = _defaults(name, method)
    presets = [
        f"`{preset}`: " + ", ".join(f"{key} {plain(value)}" for key, value in chosen.items())
        for preset, chosen in method.presets.items()
        if chosen
    ]
    lines = [f"## {name}", about, f"Source: {method.source}.", f"Defaults: {defaults or 'none'}."]
    lines += [f"Preset {preset}." for preset in presets]
    if method.reconstruction:
        lines.append(f"Preset `paper` is a reconstruction: {method.reconstruction}.")
    if method.without_batchnorm:
        lines.append(
            "Networks without BatchNorm: "
            + ", ".join(f"{key} {plain(value)}" for key, value in method.without_batchnorm.items())
            + "."
        )
    return "\n\n".join([*lines, _measured(name)])


def _defaults(name: str, method: type[Method]) -> str:
    """Those of a method; of one with a gradient what differs from the first of these."""
    fields, first = (
        {key: plain(entry["default"]) for key, entry in methods.describe_fields(each).items()}
        for each in (method, METHODS[FIRST])
    )
    if name == FIRST or not issubclass(method, GradientMethod):
        return ", ".join(f"{key} {value}" for key, value in fields.items())
    own = [f"{key} {value}" for key, value in fields.items() if first.get(key) != value]
    absent = [key for key in first if key not in fields]
    return f"as `{FIRST}`" + (f" without {', '.join(absent)}" if absent else "") + f", but {', '.join(own)}"


def _measured(name: str) -> str:
    groups = group_records(plan_records("camvid-rivals") + plan_records("camvid"))
    shown = [group for group in groups if group.model == "espnetv2:2.0" and not group.fields]
    source = {group.stream: group.mean("mIoU") for group in shown if group.is_source}
    said = []
    for group in sorted(
        (group for group in shown if group.method == name), key=lambda group: group.stream, reverse=True
    ):
        change = f"{group.mean('mIoU') - source[group.stream]:+.2f} to the source"
        mark = f" {GUARDED}" if measures_guard(group.decisions) else ""
        frames = image_count(group.records[0])
        decided = in_words(group.decisions)
        found = ", ".join(filter(None, (change, decided and f"of {frames} frames {decided}")))
        older = "".join(f", {text}" for text in group.older)
        said.append(f"{group.stream}, preset `{group.preset}`{older}: {group.mean('mIoU'):.2f} mIoU{mark} ({found})")
    if not said:
        return "Measured: not yet."
    remark = f" {REMARK}" if any(GUARDED in text for text in said) else ""
    return f"Measured: {'; '.join(said)}.{remark}"


TABLES: dict[str, Callable[[], str]] = {
    **PLAN_TABLES,
    **carry_over.TABLES,
    "views": views.listed,
    "scales": views.scales,
    "methods": all_methods,
    "fidelity": fidelity.table,
    "guard": guard_table.guard,
    "hostile": hostile,
    "demo": demo,
    "export": export,
    "ncut": ncut,
    **gates_table.TABLES,
    **gpu_tables.TABLES,
    "iteration": iteration,
    "layernorm": layernorm,
    "stream": stream,
    "live": live,
    "long-stream": long_stream.table,
    "norm-scales": norm_scales.table,
    "pareto": pareto.listed,
    "serve": serve,
    "passes": passes.table,
    "options": options,
    "adapt-io": adapt_io,
    "scale": scale.table,
    "fleet": fleet.table,
}


if __name__ == "__main__":
    main()

"""The tables of benchmarks.gpu; "not measured" where a step has no record."""

from collections.abc import Callable
from typing import Any

from benchmarks.committed import RECORDS, load, markdown_table

Row = dict[str, Any]
NOT_MEASURED = "not measured"
PAPER = {  # Reddy et al., ECCV 2022, supplement, Tables 2 and 3: ms per iteration, batch 12 of 1024×512
    "deeplabv3plus:mobilenet-os16": {"tent": 748, "mall-sample": 1312, "mall-domain": 1180},
    "deeplabv3plus:resnet101-os16": {"tent": 937, "mall-sample": 1564, "mall-domain": 1219},
    "robustnet:ibn-r50-os16": {"mall-sample": 1371, "mall-domain": 1228},
    "robustnet:sw-r50-os16": {"mall-sample": 1147, "mall-domain": 990},
    "robustnet:isw-r50-os16": {"mall-sample": 1013, "mall-domain": 872},
    "robustnet:isw-r101-os8": {"mall-sample": 1802, "mall-domain": 1642},
}
OPTIONS = ("float32", "bf16", "compile", "graphs")


def labels() -> str:
    """The same labels on both devices, by method."""
    found = _record("labels")
    if found is None:
        return NOT_MEASURED
    rows = [
        [name, row["skipped"], "–"]
        if "skipped" in row
        else [name, f"{row['same_labels']:.3%}", f"{row['largest_parameter_difference']:.1e}"]
        for name, row in found["rows"].items()
    ]
    heads = ["method", "labels in common", "largest difference of a parameter"]
    said = f"{found['model']}, {found['frames']} frames of {_size(found)}."
    return f"{markdown_table(heads, rows)}\n\n{said} {_about(found)}"


def operator() -> str:
    """The normalized cut against what memory allows."""
    found = _record("operator")
    if found is None:
        return NOT_MEASURED
    heads = [
        "images",
        "rank",
        "make it, ms",
        "loss and gradient, ms",
        "bound, ms",
        "share of the bandwidth",
        "least MiB",
    ]
    rows = [_operator_cells(row) for row in found["rows"]]
    said = f"The bound is the least that must be read and written, at {found['bandwidth_gb_per_s']:.0f} GB/s of a copy."
    return f"{markdown_table(heads, rows)}\n\n{said} {_about(found)}"


def _operator_cells(row: Row) -> list[str]:
    images = f"{row['batch']} of {row['height']}×{row['width']}"
    if "skipped" in row:
        return [images, row["skipped"], *["–"] * 5]
    times = [f"{row[key]:.2f}" for key in ("make_ms", "step_ms", "bound_ms")]
    return [images, str(row["rank"]), *times, f"{row['share_of_bandwidth']:.0%}", f"{row['least_mib']:.0f}"]


def iteration() -> str:
    """Milliseconds and ratios per iteration, the paper's beside ours."""
    found = {row["model"]: row for row in map(load, sorted((RECORDS / "gpu").glob("iteration-*.json")))}
    found = {name: row for name, row in found.items() if "failed" not in row}
    heads = [
        "network, batch",
        "TENT",
        "MALL-sample",
        "MALL-domain",
        "MALL-domain, affine",
        "over TENT",
        "paper: over TENT",
    ]
    heads += ["paper: ms", "NCut's share", "peak, MiB"]
    rows = [_iteration_cells(name, found.get(name), paper) for name, paper in PAPER.items()]
    about = _about(next(iter(found.values()))) if found else ""
    said = "Milliseconds per iteration, all parameters unless said; TENT, MALL-sample and MALL-domain in that order."
    return f"{markdown_table(heads, rows)}\n\n{said} {about}".rstrip()


def _iteration_cells(name: str, row: Row | None, paper: dict[str, int]) -> list[str]:
    theirs = " / ".join(str(paper.get(case, "–")) for case in ("tent", "mall-sample", "mall-domain"))
    ratios = [f"{paper[case] / paper['tent']:.2f}" for case in ("mall-sample", "mall-domain") if "tent" in paper]
    published = [" / ".join(ratios) or "–", theirs]
    if row is None:
        return [f"{name}, 12", NOT_MEASURED, *["–"] * 4, *published, "–", "–"]
    ms, over = row["ms_per_iteration"], row["over_tent"]
    times = [ms[case] for case in ("tent", "mall-sample all", "mall-domain all", "mall-domain affine")]
    ratio = f"{over['mall-sample all']:.2f} / {over['mall-domain all']:.2f}"
    peak = row["peak_mib"]["mall-domain all"]
    last = [f"{row['ncut_share']:.1%}", "–" if peak is None else f"{peak:.0f}"]
    return [f"{name}, {row['batch']}", *(f"{value:.0f}" for value in times), ratio, *published, *last]


def speed() -> str:
    """Frames per second of every method and option, peak memory and synchronisations."""
    found = {option: record for option in OPTIONS if (record := _record(f"speed-{option}"))}
    if not found:
        return NOT_MEASURED
    names = dict.fromkeys(name for record in found.values() for name in record["rows"])
    heads = ["method", *OPTIONS, "peak, MiB", "synchronisations per frame"]
    rows = [[name, *(_rate(found.get(option), name) for option in OPTIONS), *_costs(found, name)] for name in names]
    some = next(iter(found.values()))
    said = f"Frames per second, {some['model']}, batch 1 of {_size(some)}; memory and synchronisations in float32."
    return f"{markdown_table(heads, rows)}\n\n{said} {_about(some)}"


def _rate(record: Row | None, name: str) -> str:
    if record is None or name not in record["rows"]:
        return NOT_MEASURED if record is None else "–"
    row = record["rows"][name]
    return row["skipped"] if "skipped" in row else f"{row['frames_per_second']:.1f}"


def _costs(found: dict[str, Row], name: str) -> list[str]:
    row = found.get("float32", {}).get("rows", {}).get(name, {})
    return ["–" if row.get(key) is None else f"{row[key]:.0f}" for key in ("peak_mib", "synchronisations")]


def _record(step: str) -> Row | None:
    path = RECORDS / "gpu" / f"{step}.json"
    record = load(path) if path.exists() else None
    return None if record is None or "failed" in record else record


def _size(record: Row) -> str:
    return "×".join(map(str, record["size"]))


def _about(record: Row) -> str:
    return f"{record['device']}, torch {record['versions']['torch']}."


TABLES: dict[str, Callable[[], str]] = {
    "gpu-labels": labels,
    "gpu-operator": operator,
    "gpu-iteration": iteration,
    "gpu-speed": speed,
}

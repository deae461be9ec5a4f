"""Rewrites the generated tables of README.md and docs/ from the records: python -m benchmarks.tables

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; NAME is a key of TABLES.
"""

import argparse
import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from allweather import methods
from allweather.bench.report.collect import Group, against, group
from allweather.methods import METHODS, Method
from benchmarks import fidelity

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
RESULTS = ROOT / "docs" / "results"
PAGES = ("README.md", "docs/results.md", "docs/performance.md", "docs/methods.md")
MARK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


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


def camvid() -> str:
    """Rows of plans/camvid.toml for the larger network, dusk and day side by side; means over orders."""
    return _beside("camvid", "espnetv2:2.0")


def camvid_smaller() -> str:
    """The same for the smaller network."""
    return _beside("camvid", "espnetv2:1.0")


def widths() -> str:
    """Rows of plans/camvid-widths.toml, dusk and day of the narrow network before those of the wide one."""
    groups = group(_records("camvid-widths"))
    columns: dict[str, list[Group]] = {}
    for width, split in product(("0.5", "1.5"), ("dusk", "day")):
        wanted = f"espnetv2:{width}", f"camvid-{split}"
        columns[f"{width}, {split}"] = [one for one in groups if (one.model, one.stream) == wanted]
    return _grid(columns)


def clear() -> str:
    """Rows of plans/clear-camvid.toml and plans/clear-scenes.toml: every default on a clear day."""
    return _grid({"CamVid's day": group(_records("clear-camvid")), "clear scenes": group(_records("clear-scenes"))})


def _grid(columns: dict[str, list[Group]]) -> str:
    """mIoU in % and its change to the source: two columns for each of `columns`, a row for each method."""
    found = {head: {one.label: one.mean("mIoU") for one in groups} for head, groups in columns.items()}
    labels = list(dict.fromkeys(label for rows in found.values() for label in rows))
    if not labels:
        return "not measured"
    lines = ["| method | " + " | ".join(f"{head} | vs source" for head in found) + " |"]
    lines.append("|---" * (2 * len(found) + 1) + "|")
    for label in labels:
        cells = [cell for rows in found.values() for cell in _pair(rows.get(label), rows.get("source"))]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _beside(plan: str, model: str) -> str:
    rows = _plan_rows(plan, model)
    if ("source", "recommended") not in rows:
        return "not measured"
    lines = ["| method (preset) | dusk mIoU % | vs source | day mIoU % | vs source | refused updates, dusk |"]
    lines.append("|---" * 6 + "|")
    for (name, preset), splits in sorted(rows.items(), key=lambda row: (row[0][1] == "paper", _order(row[0][0]))):
        cells = [name if preset == "recommended" else f"{name} ({preset})"]
        for split in ("camvid-dusk", "camvid-day"):
            cells += _pair(_mean(splits.get(split, [])), _mean(rows["source", "recommended"].get(split, [])))
        refused = [len(record["rolled_back"]) for record in splits.get("camvid-dusk", [])]
        lines.append("| " + " | ".join([*cells, " / ".join(map(str, refused))]) + " |")
    return "\n".join(lines)


def ablation() -> str:
    """Rows of plans/camvid-ablation.toml: what was changed, mIoU at dusk, change to the defaults of MALL-domain."""
    records = _records("camvid-ablation")
    rows = {(r["run"]["method"]["name"], str(r["run"]["method"]["fields"])): r["figures"]["mIoU"] for r in records}
    whole, source = rows.get(("mall-domain", "{}")), rows.get(("source", "{}"))
    if whole is None or source is None:
        return "not measured"
    lines = ["| method | changed | mIoU % | vs source | vs mall-domain |", "|---" * 5 + "|"]
    for record in sorted(records, key=lambda found: -found["figures"]["mIoU"]):
        method, found = record["run"]["method"], record["figures"]["mIoU"]
        changed = ", ".join(f"{key} {_plain(value)}" for key, value in method["fields"].items()) or "–"
        lines.append(f"| {method['name']} | {changed} | {found:.2f} | {found - source:+.2f} | {found - whole:+.2f} |")
    return "\n".join(lines)


def rivals() -> str:
    """Every method on dusk at its defaults, with its mirror image where it takes one, and MALL's lead on the better."""
    groups = group(_records("camvid") + _records("camvid-rivals"))
    shown = [one for one in groups if (one.stream, one.model) == ("camvid-dusk", "espnetv2:2.0")]
    plain = {one.method: one for one in shown if one.preset == "recommended" and not one.fields}
    mirrored = {one.method: one for one in shown if one.fields == (("mirror", True),)}
    if not {"source", "mall-sample", "mall-domain", "cotta"} <= set(plain):
        return "not measured"
    lines = ["| method | mIoU % | vs source | with the mirror image | lead of mall-sample | lead of mall-domain | "]
    lines[0] += "ms per frame | refused updates |"
    lines.append("|---" * 8 + "|")
    for name, one in sorted(plain.items(), key=lambda row: -row[1].mean("mIoU")):
        value, twice = one.mean("mIoU"), mirrored.get(name)
        better = twice if twice is not None and twice.mean("mIoU") > value else one
        leads = [
            "–" if name.startswith("mall") else _lead(plain[mine], better) for mine in ("mall-sample", "mall-domain")
        ]
        each = mean(record["seconds"] / record["figures"]["images"] for record in one.records)
        refused = mean(len(record["rolled_back"]) for record in one.records)
        cells = [name, *_pair(value, plain["source"].mean("mIoU"))]
        cells += ["–" if twice is None else f"{twice.mean('mIoU'):.2f}", *leads, f"{1000 * each:.0f}", f"{refused:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _lead(mine: Group, rival: Group) -> str:
    """The paired difference in points with its interval over images."""
    found = against(mine, rival)
    if found is None:
        return "–"
    return f"{100 * found.value:+.2f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def tuning() -> str:
    """Rows of plans/camvid-tuning.toml: every method's default and its other settings, the best first."""
    rows: dict[str, dict[str, float]] = {}
    for one in group(_records("camvid-tuning")):
        changed = ", ".join(f"{key} {_plain(value)}" for key, value in one.fields)
        rows.setdefault(one.method, {})[changed] = one.mean("mIoU")
    if not rows:
        return "not measured"
    lines = ["| method | default | the others |", "|---|---|---|"]
    for name, found in sorted(rows.items(), key=lambda row: -max(row[1].values())):
        default = f"{found.pop(''):.2f}" if "" in found else "–"
        others = [f"{changed}: {value:.2f}" for changed, value in sorted(found.items(), key=lambda item: -item[1])]
        lines.append(f"| {name} | {default} | {' · '.join(others) or '–'} |")
    return "\n".join(lines)


def hostile() -> str:
    """With the guard, and in brackets without it, against the source on the same frames; one table per setting."""
    return "\n\n".join(_hostile(_load(path)) for path in sorted((RECORDS / "hostile").glob("*.json"))) or "not measured"


def _hostile(found: dict[str, Any]) -> str:
    columns = list(dict.fromkeys(row["method"] for row in found["rows"]))
    lines = ["| case | source | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for case in dict.fromkeys(row["case"] for row in found["rows"]):
        inside = {row["method"]: row for row in found["rows"] if row["case"] == case}
        source = next(iter(inside.values()))["source"]
        cells = [
            f"{inside[name]['guarded']['mIoU'] - source:+.1f} ({inside[name]['unguarded']['mIoU'] - source:+.1f})"
            if name in inside
            else "not run"
            for name in columns
        ]
        lines.append(f"| {case} | {source:.1f} | " + " | ".join(cells) + " |")
    worst, bare = (min(row[key]["mIoU"] - row["source"] for row in found["rows"]) for key in ("guarded", "unguarded"))
    said = f"{found['setting']}. Lowest of all: {worst:+.1f} with the guard, {bare:+.1f} without it."
    return "\n".join([*lines, "", said])


def weather_rounds() -> str:
    """Ten rounds of procedural weather."""
    return _rounds("weather-rounds")


def camvid_rounds() -> str:
    """Ten rounds of CamVid's day and dusk."""
    return _rounds("camvid-rounds")


def _rounds(plan: str) -> str:
    """Mean mIoU over a round's pieces, rounds 1, 2, 5 and the last, and the share of frames that were adapted to."""
    records = _records(plan)
    if not records:
        return "not measured"
    numbers = list(dict.fromkeys(part.partition("/")[0] for part in records[0]["parts"]))
    shown = [number for number in numbers if int(number) in (1, 2, 5, len(numbers))]
    heads = [f"round {int(number)}" for number in shown]
    lines = ["| method | " + " | ".join(heads) + " | last − first | updates per frame | ms per frame |"]
    lines.append("|---" * (len(heads) + 4) + "|")
    for one in group(records):
        (record,) = one.records
        means = {
            number: mean(part["mIoU"] for name, part in record["parts"].items() if name.startswith(f"{number}/"))
            for number in numbers
        }
        updates = mean(image.get("iterations", 0) for image in record["images"])
        each = 1000 * record["seconds"] / record["figures"]["images"]
        cells = [f"{means[number]:.2f}" for number in shown]
        cells += [f"{means[numbers[-1]] - means[numbers[0]]:+.2f}", f"{updates:.2f}", f"{each:.0f}"]
        lines.append(f"| {one.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plan_rows(plan: str, model: str) -> dict[tuple[str, str], dict[str, list[dict[str, Any]]]]:
    """Records of a plan by method and preset, then by stream; methods with changed fields are left out."""
    rows: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for record in _records(plan):
        run = record["run"]
        if run["model"]["name"] == model and not run["method"]["fields"]:
            method = (run["method"]["name"], run["method"]["preset"])
            rows.setdefault(method, {}).setdefault(run["stream"]["name"], []).append(record)
    return rows


def _mean(records: list[dict[str, Any]]) -> float | None:
    return mean(record["figures"]["mIoU"] for record in records) if records else None


def streetnet() -> str:
    """mIoU of the shipped network in procedural weather, from its training record and the demo's."""
    figures = _load(RECORDS / "demo.json")["mIoU"]
    columns = list(next(iter(figures.values())))
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{row[c]:.1f}" for c in columns) + " |" for name, row in figures.items()]
    return "\n".join(lines)


def ncut() -> str:
    """The normalized cut and its rivals, one row per size and rival."""
    found = _record("performance/ncut.json")
    if found is None:
        return "not measured"
    lines = [
        "| pixels | | make it, ms | loss and gradient, ms | gradient error | peak over the scores, making / step |",
        "|---" * 6 + "|",
    ]
    for row in found["rows"]:
        size = f"{row['height']}×{row['width']}"
        if "skipped" in row:
            lines.append(f"| {size} | {row['rival']} | {row['skipped']} | | | |")
            continue
        peaks = " / ".join(f"{row[key]:.1f}×" for key in ("build_peak_over_scores", "step_peak_over_scores"))
        lines.append(
            f"| {size} | {row['rival']} | {row['build_ms']:.1f} | {row['step_ms']:.1f} | {row['gradient_error']:.2%} | "
            f"{peaks} |"
        )
    exponents = ", ".join(f"{name} {value:.2f}" for name, value in found["slopes"].items())
    return "\n".join([*lines, "", f"Exponent of time in pixels: {exponents}. {found['versions']['machine']}."])


def iteration() -> str:
    """Milliseconds per iteration of every recorded network."""
    lines = [
        "| network, size, batch | TENT | MALL-sample | MALL-domain | MALL-domain, all parameters | "
        "MALL/TENT affine | MALL/TENT all | NCut's share |",
        "|---" * 8 + "|",
    ]
    for path in sorted((RECORDS / "iteration").glob("*.json")):
        loaded = json.loads(path.read_text())
        for row in loaded if isinstance(loaded, list) else [loaded]:
            times = row["ms_per_iteration"]
            cells = [times[case] for case in ("tent", "mall-sample affine", "mall-domain affine", "mall-domain all")]
            ratios = [row["ratio_mall_affine_over_tent"], row["ratio_mall_all_over_tent"]]
            lines.append(
                f"| {row['model']}{'' if row['weights'] else ' (random)'}, {row['size']}, {row['batch']} | "
                + " | ".join(f"{value:.0f}" for value in cells)
                + f" | {ratios[0]:.2f} | {ratios[1]:.2f} | {row['ncut_share_of_iteration']:.1%} |"
            )
    return "\n".join(lines)


def stream() -> str:
    """Frames per second along a video."""
    found = _record("performance/stream.json")
    if found is None:
        return "not measured"
    lines = ["| method | frames per second | median ms | slowest ms |", "|---|---|---|---|"]
    for name, row in found["rows"].items():
        lines.append(f"| {name} | {row['frames_per_second']:.2f} | {row['median_ms']:.0f} | {row['worst_ms']:.0f} |")
    about = f"{found['model']} at {found['size']}, {found['frames']} frames of {found['of']}"
    about += f", {found['versions']['machine']}."
    return "\n".join([*lines, "", about])


def options() -> str:
    """What each speed option changes."""
    found = _record("performance/options.json")
    if found is None:
        return "not measured"
    lines = ["| option | ms per frame | time ratio | mIoU % | labels that stay |", "|---|---|---|---|---|"]
    for name, row in found["rows"].items():
        figures = f"{row['ms_per_frame']:.0f} | {row['ratio']:.2f} | {row['mIoU']:.2f} | {row['same_labels']:.3%}"
        lines.append(f"| {name} | {figures} |")
    about = f"{found['model']}, {found['method']}, {found['frames']} dusk frames at {found['size']}"
    about += f", {found['versions']['machine']}."
    return "\n".join([*lines, "", about])


def all_methods() -> str:
    """One section per method: what its class says, source, defaults and measured figures."""
    return "\n\n".join(_method(name, method) for name, method in METHODS.items())


def _method(name: str, method: type[Method]) -> str:
    about = " ".join(line.strip() for line in (method.__doc__ or "").strip().splitlines())
    fields = methods.describe_fields(method)
    defaults = ", ".join(f"{key} {_plain(entry['default'])}" for key, entry in fields.items())
    presets = [
        f"`{preset}`: " + ", ".join(f"{key} {_plain(value)}" for key, value in chosen.items())
        for preset, chosen in method.presets.items()
        if chosen
    ]
    lines = [f"## {name}", about, f"Source: {method.source}.", f"Defaults: {defaults or 'none'}."]
    lines += [f"Preset {preset}." for preset in presets]
    if method.without_batchnorm:
        lines.append(
            "Networks without BatchNorm: "
            + ", ".join(f"{key} {_plain(value)}" for key, value in method.without_batchnorm.items())
            + "."
        )
    return "\n\n".join([*lines, _measured(name)])


def layernorm() -> str:
    """A network with LayerNorm alone, dusk and day."""
    found = _record("layernorm.json")
    if found is None:
        return "not measured"
    source = found["rows"]["source"]
    lines = ["| setting | dusk mIoU % | vs source | day mIoU % | vs source |", "|---|---|---|---|---|"]
    for name, row in found["rows"].items():
        cells = [cell for split in ("dusk", "day") for cell in _pair(row[split]["mIoU"], source[split]["mIoU"])]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _measured(name: str) -> str:
    rows, said = _plan_rows("camvid-rivals", "espnetv2:2.0") | _plan_rows("camvid", "espnetv2:2.0"), []
    for split in ("camvid-dusk", "camvid-day"):
        for preset in ("recommended", "paper"):
            found = _mean(rows.get((name, preset), {}).get(split, []))
            source = _mean(rows.get(("source", "recommended"), {}).get(split, []))
            if found is not None and source is not None:
                said.append(f"{split}, preset `{preset}`: {found:.2f} mIoU ({found - source:+.2f} to the source)")
    return f"Measured: {'; '.join(said)}." if said else "Measured: not yet."


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "(" + ", ".join(_plain(item) for item in value) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


TABLES: dict[str, Callable[[], str]] = {
    "methods": all_methods,
    "fidelity": fidelity.table,
    "camvid": camvid,
    "camvid-smaller": camvid_smaller,
    "widths": widths,
    "clear": clear,
    "ablation": ablation,
    "rivals": rivals,
    "tuning": tuning,
    "hostile": hostile,
    "weather-rounds": weather_rounds,
    "camvid-rounds": camvid_rounds,
    "demo": streetnet,
    "ncut": ncut,
    "iteration": iteration,
    "layernorm": layernorm,
    "stream": stream,
    "options": options,
}


def _record(name: str) -> dict[str, Any] | None:
    path = RECORDS / name
    return _load(path) if path.exists() else None


def _records(plan: str) -> list[dict[str, Any]]:
    return [_load(path) for path in sorted((RESULTS / plan).glob("*.json"))]


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def _pair(value: float | None, source: float | None) -> tuple[str, str]:
    """A figure and its change to the source."""
    if value is None or source is None:
        return "–", "–"
    return f"{value:.2f}", f"{value - source:+.2f}"


def _order(row: str) -> int:
    return list(METHODS).index(row) if row in METHODS else len(METHODS)


if __name__ == "__main__":
    main()

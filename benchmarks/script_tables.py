"""The tables of scripts that measure along streams of their own: hostile settings, LayerNorm, the demo."""

from collections.abc import Mapping
from typing import Any

from allweather.report.refusals import COLUMN, MARK, REMARK, cell, measures_guard
from allweather.runs.decisions import Counts
from allweather.session import Decision
from allweather.session.guard import KINDS
from benchmarks.committed import RECORDS, benchmark_record, load, markdown_table, pair
from benchmarks.plan_tables import table

Row = Mapping[str, Any]
TOGETHER = COLUMN.replace("resting / skipped", "resting or skipped")  # before version 0.2 they were counted as one


def hostile() -> str:
    """With the guard, and in brackets without it, against the source on the same frames; two tables per setting."""
    found = [load(path) for path in sorted((RECORDS / "hostile").glob("*.json.gz"))]
    return "\n\n".join(map(hostile_tables, found)) or "not measured"


def hostile_tables(found: Row) -> str:
    """What one setting's record says: mIoU against the source, then what became of the updates."""
    return f"{_change(found)}\n\n{_decided(found)}"


def _change(found: Row) -> str:
    columns = _methods(found)
    rows = []
    for case, inside in _cases(found).items():
        source = next(iter(inside.values()))["source"]
        cells = [_changes(inside[name], source) if name in inside else "not run" for name in columns]
        rows.append([case, f"{source:.1f}", *cells])
    worst, bare = (min(row[key]["mIoU"] - row["source"] for row in found["rows"]) for key in ("guarded", "unguarded"))
    said = f"{found['setting']}. Lowest of all: {worst:+.1f} with the guard, {bare:+.1f} without it."
    marked = any(MARK in cell for row in rows for cell in row)
    return f"{markdown_table(['case', 'source', *columns], rows)}\n\n{said}{f' {REMARK}' if marked else ''}"


def _changes(row: Row, source: float) -> str:
    mark = MARK if measures_guard([_counts(row["guarded"]["decisions"])]) else ""
    return f"{row['guarded']['mIoU'] - source:+.1f}{mark} ({row['unguarded']['mIoU'] - source:+.1f})"


def _decided(found: Row) -> str:
    """What became of the updates with the guard on, all frames of a case counted, unscored ones too."""
    columns = _methods(found)
    apart = all("resting" in row["guarded"]["decisions"] for row in found["rows"])
    rows = []
    for case, inside in _cases(found).items():
        cells = [
            _kinds(inside[name]["guarded"]["decisions"], apart) if name in inside else "not run" for name in columns
        ]
        rows.append([case, *cells])
    said = f"With the guard: {COLUMN if apart else TOGETHER}, of all frames of a case."
    return f"{markdown_table(['case', *columns], rows)}\n\n{said}"


def _kinds(recorded: Mapping[str, int], apart: bool) -> str:
    counts = _counts(recorded)
    if apart:
        return cell([counts]) or "–"
    return " / ".join(str(counts[kind]) for kind in KINDS if kind not in ("accepted", "resting"))


def _counts(recorded: Mapping[str, int]) -> Counts:
    """Numbers by kind; in records of version 0.1 `skipped` holds the resting frames too."""
    found = {Decision.read(name).kind: number for name, number in recorded.items()}
    return {kind: found.get(kind, 0) for kind in KINDS}


def _methods(found: Row) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in found["rows"]))


def _cases(found: Row) -> dict[str, dict[str, Row]]:
    """Case → method → row."""
    made: dict[str, dict[str, Row]] = {}
    for row in found["rows"]:
        made.setdefault(row["case"], {})[row["method"]] = row
    return made


def layernorm() -> str:
    """A network with LayerNorm alone, dusk and day."""
    found = benchmark_record("layernorm.json.gz")
    if found is None:
        return "not measured"
    source = found["rows"]["source"]
    rows = [[name, *(text for split in ("dusk", "day") for text in _split(row[split], source[split]))]
            for name, row in found["rows"].items()]  # fmt: skip
    heads = ["setting"] + [f"{split}: mIoU % | vs source | {COLUMN}" for split in ("dusk", "day")]
    old = any("refused" in row[split] for row in found["rows"].values() for split in ("dusk", "day"))
    return table(heads, rows) + (" –: not counted when these were measured." if old else "")


def _split(row: Row, source: Row) -> list[str]:
    if "decisions" not in row:  # version 0.1 counted what was rolled back alone
        return [*pair(row["mIoU"], source["mIoU"]), f"– / {row['refused']} / – / – / –"]
    counts = _counts(row["decisions"])
    mark = f" {MARK}" if measures_guard([counts]) else ""
    return [*pair(row["mIoU"], source["mIoU"], mark), cell([counts]) or "–"]


def export() -> str:
    """Labels of exported files beside the session's, and mIoU under folded statistics."""
    found = benchmark_record("export.json.gz")
    if found is None:
        return "not measured"
    forms = (".safetensors", ".pt2", ".onnx")
    heads = ["network", *(f"{form}: labels as the session, %" for form in forms)]
    rows = [[name, *(f"{row['agreement'][form]:.2f}" for form in forms)] for name, row in found["networks"].items()]
    size = "×".join(map(str, found["size"]))
    about = f"`image`, {found['method']}, frames at dusk at {size}; random weights where no mIoU is given below."
    columns = ("source", "session", "stream", "stream, frames given")
    costs = [
        [f"{name}, {split}", *(f"{scores[column]:.2f}" for column in columns)]
        for name, row in found["networks"].items()
        for split, scores in row.get("mIoU", {}).items()
    ]
    said = (
        f"mIoU in % of every {found['every']}th frame, after adapting to the same ones; `session` is `session.predict`."
    )
    measured = markdown_table(["network, frames", *columns], costs)
    return f"{markdown_table(heads, rows)}\n\n{about}\n\n{measured}\n\n{said} {found['versions']['machine']}."


def demo() -> str:
    """mIoU of the shipped network in procedural weather, by the demo."""
    found = load(RECORDS / "demo.json.gz")
    figures, decisions = found["mIoU"], found.get("decisions", {})
    columns = list(next(iter(figures.values())))
    rows = []
    for name, row in figures.items():
        runs = [_counts(decisions[name])] if name in decisions else []
        label = f"{name} {MARK}" if measures_guard(runs) else name
        rows.append([label, *(f"{row[column]:.1f}" for column in columns), cell(runs) or "not counted"])
    return table(["method", *columns, COLUMN], rows)


def live() -> str:
    """What live keeps of plain prediction's rate and of MALL-domain's gain."""
    found = benchmark_record("performance/live.json.gz")
    if found is None:
        return "not measured"
    heads = [
        "live",
        "frames/s: plain",
        "live",
        "kept",
        "kept by CPU time",
        "p95 ms: plain",
        "live",
        "ratio",
        "mIoU %",
        "gain kept",
    ]
    gain = found["mall-domain"]["mIoU"] - found["source"]["mIoU"]
    rows = [[name, *_live_cells(row)] for name, row in found["rows"].items()]
    whole = (
        f"source {found['source']['mIoU']:.2f} ({found['source']['ms']:.0f} ms a frame), mall-domain frame by frame "
    )
    whole += f"{found['mall-domain']['mIoU']:.2f}: a gain of {gain:.2f}"
    about = f"{found['model']} at {found['size']}, {found['frames']} dusk frames, one thread predicts and one learns; "
    about += f"{whole}. {found['versions']['machine']}; load before: {found['load_before']:.1f}."
    return f"{markdown_table(heads, rows)}\n\n{about}"


def _live_cells(row: Row) -> list[str]:
    rates = [row[key] for key in ("plain_per_second", "live_per_second", "rate_kept", "rate_kept_by_cpu_time")]
    late = f"{row['plain_p95_ms']:.0f}", f"{row['live_p95_ms']:.0f}", f"{row['latency_ratio']:.2f}"
    return [*(f"{rate:.2f}" for rate in rates), *late, f"{row['mIoU']:.2f}", f"{row['gain_kept']:.0%}"]


def serve() -> str:
    """What came back under load: statuses, times, memory."""
    found = benchmark_record("performance/serve.json.gz")
    if found is None:
        return "not measured"
    late, memory = found["latency_ms"], found["memory_mib"]
    refused = sum(number for status, number in found["statuses"].items() if status not in ("200", "429"))
    rows = [
        ["requests", f"{found['requests']}, {found['of_streams']} of {found['sessions_saved']} streams"],
        ["predicted / hostile and refused", f"{found['statuses']['200']} / {refused}"],
        ["wrong / lost", f"{found['wrong']} / {found['lost']}"],
        ["answered 429, and sent again", str(found["statuses"].get("429", 0))],
        ["requests per second", f"{found['per_second']:.1f}"],
        ["ms of a prediction: median / 95 % / 99 %", f"{late['median']} / {late['p95']} / {late['p99']}"],
        ["memory, MiB: after a tenth / half / all / highest",
         " / ".join(str(memory[key]) for key in ("after_a_tenth", "middle", "last", "highest"))],
        ["uploads left on the disk / exit status", f"{found['files_left']} / {found['exit_status']}"],
    ]  # fmt: skip
    size = "×".join(map(str, found["size"]))
    about = f"{found['network']}, {size}, {found['clients']} clients, {found['waiting']} requests taken at once"
    machine = found["versions"]["machine"].replace("1 threads", "1 thread")
    return f"{markdown_table(['', ''], rows)}\n\n{about}. {machine}."

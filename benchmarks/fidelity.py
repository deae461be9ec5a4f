"""The product's methods, preset `paper`, beside public code of their authors.

    python -m benchmarks.fidelity public --public FOLDER   runs public code, writes tests/data/fidelity.json.gz
    python -m benchmarks.fidelity compare                  runs the product, writes benchmarks/records/fidelity.json.gz

FOLDER holds checkouts named as in `fidelity_sources.BY_METHOD`, with their commits in FOLDER/commits.json. Cases on
ESPNetv2 need ALLWEATHER_ASSETS; without it `public` keeps what the fixture holds of them and `compare` leaves them out.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from allweather.runs.record import versions
from benchmarks.committed import keep, load, markdown_table
from benchmarks.fidelity_cases import (
    CASES,
    FIXTURE,
    REAL,
    Case,
    Distance,
    distances,
    flat,
    material,
    pack,
    read_fixture,
    run,
    write_fixture,
)

RECORD = Path(__file__).parent / "records" / "fidelity.json.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("public", "compare"))
    parser.add_argument("--public", type=Path, help="folder of checkouts")
    parser.add_argument("--only", nargs="*", help="names of cases; the others stay as they are")
    parser.add_argument("--dry", action="store_true", help="show, write nothing")
    arguments = parser.parse_args()
    wanted = [case for case in CASES if not arguments.only or case.name in arguments.only]
    wanted = [case for case in wanted if "ALLWEATHER_ASSETS" in os.environ or not case.name.endswith(REAL)]
    if arguments.what == "public":
        if arguments.public is None:
            parser.error("public needs --public FOLDER, the checkouts")
        write_public(arguments.public, wanted, arguments.dry)
    else:
        write_comparison(wanted, arguments.dry)


def write_public(folder: Path, cases: list[Case], dry: bool) -> None:
    """Runs public code and keeps its numbers."""
    from benchmarks.fidelity_sources import public_of

    commits = json.loads((folder / "commits.json").read_text())
    found: dict[str, Any] = read_fixture() if FIXTURE.exists() else {}
    for case in cases:
        public, real = public_of(case), case.name.endswith(REAL)
        segmenter, images = material(case)
        start = {name: p.detach().numpy().copy() for name, p in segmenter.network.named_parameters()}
        steps = public.drive(folder / public.checkout, segmenter, images, case)
        found[case.name] = {
            "public": f"{public.repository}@{commits[public.checkout][:12]}: {public.runs}",
            "adapted": public.adapted,
            "start": flat({name: start[name] for name in steps[0].parameters}, real),
            "steps": [pack(case, step) for step in steps],
        }
        print(case.name, [_about(step) for step in found[case.name]["steps"]])
    if not dry:
        write_fixture({case.name: found[case.name] for case in CASES if case.name in found})


def _about(step: dict[str, Any]) -> str:
    return f"{len(step['labels'])} {len(step['probabilities'])} {len(step['parameters'])} {len(step['teacher'])}"


def write_comparison(cases: list[Case], dry: bool) -> None:
    """Runs the product and keeps its distance from public code."""
    fixture = read_fixture()
    rows = {}
    for case in cases:
        steps = distances(case, fixture[case.name], run(case))
        about = {key: fixture[case.name][key] for key in ("public", "adapted")}
        rows[case.name] = {**about, "deviation": case.deviation, "steps": [vars(step) for step in steps]}
        print(f"{case.name:24}", *(_spell(step) for step in steps), sep="\n    ")
    if not dry:
        old = load(RECORD)["rows"] if RECORD.exists() else {}
        kept = {case.name: (old | rows)[case.name] for case in CASES if case.name in old | rows}
        keep({"versions": versions(), "rows": kept}, RECORD)


def table() -> str:
    """The recorded distances, the largest over the steps of each case."""
    if not RECORD.exists():
        return "not measured"
    heads = (
        "case",
        "public code",
        "steps",
        "probabilities",
        "labels equal",
        "parameters (way moved)",
        "known to differ",
    )
    shown = []
    rows = load(RECORD)["rows"]
    for name, row in rows.items():
        steps = row["steps"]
        moved = max(step["moved"] for step in steps)
        parameters = _largest(steps, "parameters")
        cells = [name, row["public"], str(len(steps)), _largest(steps, "probabilities")]
        cells += [f"{min(step['same_labels'] for step in steps):.2%}"]
        cells += [parameters if parameters == "–" else f"{parameters} ({moved:.0e})", row["deviation"] or "–"]
        shown.append(cells)
    fitted: dict[str, list[str]] = {}
    for row in rows.values():
        repository = row["public"].partition("@")[0]
        fitted.setdefault(row["adapted"], [])
        fitted[row["adapted"]] += [] if repository in fitted[row["adapted"]] else [repository]
    said = [f"- {', '.join(names)}: {adapted}" for adapted, names in fitted.items()]
    about = "What was done to run them, their files unchanged:"
    return "\n".join([markdown_table(heads, shown), "", about, "", *said])


def _largest(steps: list[dict[str, Any]], key: str) -> str:
    found = [step[key] for step in steps if step[key] is not None]
    return f"{max(found):.0e}" if found and max(found) else "0" if found else "–"


def _spell(step: Distance) -> str:
    values = (step.probabilities, step.parameters, step.teacher, step.moved)
    return f"{step.same_labels:8.3%} " + " ".join("   –    " if value is None else f"{value:.2e}" for value in values)


if __name__ == "__main__":
    main()

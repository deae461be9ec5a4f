"""The record of what carries over: what a cell holds, and what its tables make of the cells."""

from typing import Any

import pytest

from benchmarks import carry_over


def run(method: str, hits: list[int], preset: str = "recommended", model: str = "a", **fields: Any) -> dict[str, Any]:
    """Two classes on frames of 100 pixels, 50 of each; of the first `hits` are found, the rest taken for the second."""
    images = [
        {"intersection": [hit, 50], "union": [50, 100 - hit], "only_predicted": [], "decision": decision}
        for hit, decision in zip(hits, ("shrunk", "accepted"), strict=True)
    ]
    total = sum(hits)
    pooled = [total / (50 * len(hits)), 50 * len(hits) / (100 * len(hits) - total)]
    return {
        "run": {
            "model": {"name": model}, "stream": {"name": "night"},
            "method": {"name": method, "preset": preset, "fields": fields},
        },
        "figures": {"mIoU": 50 * sum(pooled), "mIoU_truth": 50 * sum(pooled), "IoU": {"sky": 100 * pooled[0]}},
        "confusion": [[total, 50 * len(hits) - total, 0], [0, 50 * len(hits), 0]],
        "images": images,
        "decisions": {"accepted": len(hits), "shrunk": 0},
        "versions": {},
    }  # fmt: skip


@pytest.fixture
def found() -> list[dict[str, Any]]:
    views = carry_over.VIEWS
    records = []
    for model in ("a", "espnetv2:1.0"):
        records += [
            run("source", [30, 40], model=model), run("infomax", [20, 45], model=model, views=views),
            run("mall-sample", [35, 45], model=model), run("mall-domain", [40, 50], model=model),
            run("mall-domain", [40, 48], model=model, ncut_weight=0), run("mall-domain", [30, 50], "fast", model),
        ]  # fmt: skip
    return list(carry_over.cells(records))


def test_a_cell_holds_gains_leads_and_harm(found: list[dict[str, Any]]):
    cell = found[0]
    assert list(cell["methods"]) == [
        "source", "infomax", "mall-sample", "mall-domain", "mall-domain ncut_weight=0", "mall-domain fast",
    ]  # fmt: skip
    pooled, frames, error = cell["methods"]["infomax"]["over_source"]
    source = [(30 / 50 + 50 / 70) / 2, (40 / 50 + 50 / 60) / 2]
    infomax = [(20 / 50 + 50 / 80) / 2, (45 / 50 + 50 / 55) / 2]
    differences = [100 * (b - a) for a, b in zip(source, infomax, strict=True)]
    assert frames == pytest.approx(sum(differences) / 2, abs=0.01)
    assert error == pytest.approx(abs(differences[0] - differences[1]) / 2, abs=0.01)
    assert pooled == pytest.approx(100 * ((65 / 100 + 100 / 135) / 2 - (70 / 100 + 100 / 130) / 2), abs=0.01)
    assert cell["methods"]["infomax"]["worst_frame"] == -10.0 and cell["methods"]["infomax"]["frames_harmed"] == 1
    assert cell["methods"]["infomax"]["harm_seen"] == 1 and cell["methods"]["mall-domain"]["harm_seen"] == 0
    assert cell["leads"]["mall-domain"]["mall-domain ncut_weight=0"][0] > 0


def test_tables_tell_confirming_networks_apart(found: list[dict[str, Any]]):
    found[1]["methods"]["infomax"]["over_source"][0] = -9.0  # on a network that chose
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in carry_over.summary(found).splitlines()}
    own = found[0]["methods"]["infomax"]["over_source"][0]
    assert rows["infomax"][1] == "6.2"  # passes: three, of which one backward, and the larger view
    assert rows["infomax"][2:5] == [f"{(own - 9) / 2:+.2f}", f"{own:+.2f}", f"-9.00 to {own:+.2f}"]
    assert rows["infomax"][7:] == ["2 of 4", "2 |"]
    assert "espnetv2:1.0 (chose)" in carry_over.by_network(found) and "| a |" in carry_over.by_network(found)
    leads = carry_over.leads(found)
    assert "mall-domain over mall-domain ncut_weight=0" in leads and "mall-sample over mall-domain" not in leads
    assert len(carry_over.every_cell(found).splitlines()) == 2 + len(found)
    for cell, lead in zip(found, ([-0.5, -1.0, 0.1], [-0.5, -1.0, 0.4]), strict=True):  # −1.0 + 2 · 0.4 is over −0.3
        cell["leads"]["mall-sample"]["infomax"] = lead
        del cell["each_frame"]  # as in records that were made before it was kept
    assert "| mall-sample over infomax | -0.50 | -1.00 ± 0.21 | -0.50 | 2 of 2 (1) |" in carry_over.leads(found)


def test_networks_that_see_the_same_frames_are_averaged_before_the_error_is_taken(found: list[dict[str, Any]]):
    for cell, (first, second) in zip(found, ((1.0, 5.0), (3.0, -1.0)), strict=True):
        cell["each_frame"] |= {"mall-domain": [first, second], "infomax": [0.0, 0.0]}
    rows = [line for line in carry_over.leads(found).splitlines() if line.startswith("| mall-domain over infomax ")]
    assert "± 0.00 |" in rows[0]  # 2 and 2 in the mean of both networks, though each one's frames differ by 4
    found[1]["stream"] = "another"  # frames of their own: 4/√2/√2 = 2 each, half of it in the mean of two cells
    rows = [line for line in carry_over.leads(found).splitlines() if line.startswith("| mall-domain over infomax ")]
    assert f"± {2 / 2**0.5:.2f} |" in rows[0]


def test_tables_of_networks_that_all_confirm_do_not_say_it_twice(found: list[dict[str, Any]]):
    assert "confirming" in carry_over.summary(found) and "confirming" in carry_over.leads(found)
    for table in (carry_over.summary, carry_over.leads):
        head, _, *rows = table(found[:1]).splitlines()
        assert "confirming" not in head and all(row.count(" | ") == head.count(" | ") for row in rows)


def test_parts_are_ordered_by_what_the_whole_gives_over_the_rest():
    records = [
        run("source", [30, 40]), run("mall-domain", [40, 50]), run("mall-domain", [45, 50], anchor=0),
        run("mall-domain", [35, 40], views=["plain"]), run("mall-domain", [38, 50], ncut_weight=0),
    ]  # fmt: skip
    found = list(carry_over.cells(records))
    rows = [line.strip("| ").split(" | ") for line in carry_over.parts(found).splitlines()[2:]]
    assert [row[0] for row in rows] == ["views=plain", "ncut_weight=0", "anchor=0", "– (all parts)"]
    assert [row[-1] for row in rows] == ["2.25", "0", "0", "–"]
    whole, without = (found[0]["methods"][label]["mIoU"] for label in ("mall-domain", "mall-domain anchor=0"))
    assert float(rows[2][2]) == pytest.approx(whole - without, abs=0.011) and float(rows[2][2]) < 0

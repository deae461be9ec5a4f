"""The scripts that time: what they show, and that nothing is timed while the operator's tests fail."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tiny import frames, tiny

from benchmarks import iteration, ncut, operator_tests, stream, tables
from benchmarks.stream import CASES, measure


def test_every_case_is_timed_beside_the_source():
    rows = measure(tiny(), list(frames(6)))
    assert list(rows) == list(CASES)
    assert rows["source"]["ratio"] == 1.0
    assert all(0 < row["median_ms"] <= row["worst_ms"] and row["ratio"] > 0 for row in rows.values())


def test_the_table_shows_the_worst_frame():
    row = {"mean_ms": 758.2, "ratio": 6.57, "median_ms": 751.0, "worst_ms": 1044.5}
    found = {"networks": {"net": {"weights": "w", "rows": {"mall-domain": row}}}, "size": "8x8", "frames": 2, "of": "x",
             "versions": {"machine": "one"}}  # fmt: skip
    assert "worst ms |" in tables._stream(found) and "| mall-domain | 758, 6.57, 1044 |" in tables._stream(found)


@pytest.mark.parametrize("script", [iteration, ncut, stream], ids=lambda script: script.__name__)
def test_nothing_is_timed_while_a_test_of_the_operator_fails(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    asked: list[list[str]] = []

    def fail(command: list[str], **options: Any) -> SimpleNamespace:
        asked.append(command)
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(sys, "argv", [script.__name__])
    monkeypatch.setattr(operator_tests.subprocess, "run", fail)
    with pytest.raises(SystemExit, match="nothing is timed until they pass"):
        script.main()
    (command,) = asked
    assert set(operator_tests.OPERATOR) <= set(command)
    assert all((tables.ROOT / file).exists() for file in operator_tests.OPERATOR)


def test_one_networks_weights_are_not_given_to_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["iteration", "--all", "--weights", "tiny.pth"])
    with pytest.raises(SystemExit):
        iteration.main()
    assert "--weights are of one network" in capsys.readouterr().err

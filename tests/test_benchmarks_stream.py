"""The script that times methods along a video: every case sees every frame, beside the source."""

from tiny import frames, tiny

from benchmarks.stream import CASES, measure


def test_every_case_is_timed_beside_the_source() -> None:
    rows = measure(tiny("batchnorm"), list(frames(6)))
    assert list(rows) == list(CASES)
    assert rows["source"]["ratio"] == 1.0
    assert all(0 < row["median_ms"] <= row["worst_ms"] and row["ratio"] > 0 for row in rows.values())

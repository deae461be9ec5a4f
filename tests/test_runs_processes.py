"""`allweather bench` as people run it: two processes on one folder, one of them interrupted, then once more."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PLAN = """
[run]
seeds = [0, 1, 2]
[[models]]
name = "demo:streetnet"
size = "64x48"
[[streams]]
name = "scenes:fog"
every = 6
[[methods]]
name = "mall-domain"
fields = { iterations = 15, stop_patience = 1000 }
[[methods]]
name = "norm"
seeds = [0]
"""


def bench(plan: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "allweather", "bench", str(plan), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]):
    while not list(folder.glob(pattern)) and process.poll() is None:
        time.sleep(0.02)


def test_processes_share_a_plan_and_an_interrupted_one_leaves_the_rest_to_the_others(tmp_path: Path):
    plan, out = tmp_path / "plan.toml", tmp_path / "runs"
    plan.write_text(PLAN)
    first = bench(plan, out)
    wait_for(out, ".*.lock", first)  # it has begun a run, so that an interruption meets it at work
    second = bench(plan, out)
    wait_for(out, "*.json", first)
    first.send_signal(signal.SIGINT)
    said = [process.communicate(timeout=300)[1] for process in (first, second)]
    assert first.returncode in (0, 130) and second.returncode == 0, said
    assert first.returncode == 0 or "the same command does the rest" in said[0]
    assert not list(out.glob(".*.partial"))
    third = bench(plan, out)
    told = third.communicate(timeout=300)[1]
    assert third.returncode == 0 and "0 run elsewhere, 0 failed" in told
    records = [json.loads(path.read_text()) for path in out.glob("*.json")]
    assert sorted((record["run"]["method"]["name"], record["run"]["seed"]) for record in records) == [
        ("mall-domain", 0), ("mall-domain", 1), ("mall-domain", 2), ("norm", 0),
    ]  # fmt: skip
    done = [int(text.split(" runs done")[0].split()[-1]) for text in (*said, told) if " runs done" in text]
    written = len(records) - sum(done)  # an interrupted process does not say how many it finished
    assert written >= 0 if first.returncode else written == 0

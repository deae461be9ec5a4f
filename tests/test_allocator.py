"""Freed memory that stays with the process: fewer page faults, and nothing done behind the back of an environment."""

import os
import platform
import subprocess
import sys

import pytest

from allweather.allocator import _VARIABLES, give_back_freed_memory, keep_freed_memory

PROGRAM = """
import resource, sys, torch
from allweather import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "kept" else None)
def blocks():
    first = torch.ones(12_000_000)  # over 32 MiB: smaller blocks glibc learns to keep by itself
    second = torch.ones(10_000_000)
for _ in range(10):
    blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    blocks()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def ran(how: str, program: str = PROGRAM, **environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if name not in (*_VARIABLES.values(), "GLIBC_TUNABLES")}
    command = [sys.executable, "-c", program, how]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True).stdout.split()


@GLIBC
def test_freed_blocks_are_used_again_without_page_faults():
    without, kept = ran("without"), ran("kept")
    assert without[0] == "None" and kept[0] == "True"
    assert int(without[1]) > 10_000 > 1000 > int(kept[1])


@GLIBC
@pytest.mark.parametrize("name", [*_VARIABLES.values(), "GLIBC_TUNABLES"])
def test_what_the_environment_says_stays(name: str):
    said = "glibc.malloc.mmap_threshold=65536" if name == "GLIBC_TUNABLES" else "65536"
    assert ran("kept", **{name: said})[0] == "False"


@GLIBC
def test_processes_of_the_command_keep_theirs_too():
    program = "import os; from allweather import keep_freed_memory; keep_freed_memory(); print(*os.environ)"
    assert set(_VARIABLES.values()) <= set(ran("kept", program))


@GLIBC
def test_what_a_thread_has_freed_goes_back_to_the_system():
    program = """
import threading
from allweather.allocator import give_back_freed_memory, keep_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def work():
    blocks = [b"x" * 100_000 for _ in range(1000)]
    kept.extend(blocks[::50])  # what lies before a block in use is not given back otherwise
keep_freed_memory()
kept = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
before = resident()
print(give_back_freed_memory(), before - resident())
"""
    given_back, count = ran("", program)
    assert given_back == "True" and int(count) > 50_000_000


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch):
    for name in (*_VARIABLES.values(), "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False and give_back_freed_memory() is False
    assert not any(name in os.environ for name in _VARIABLES.values())

"""The command line from the first key: version, help, completion and interruption, none of which waits for torch."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from command_line import ENVIRONMENT, allweather, hear_interrupts

import allweather as aw
from allweather.app.verbs import VERBS


def test_the_version_is_the_packages() -> None:
    assert allweather("--version").stdout == f"allweather {version('allweather')}\n" == f"allweather {aw.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_of_each_verb_what_the_verb_says(verb: str) -> None:
    """The list of verbs is written down so that help need not import them; it tells of the same ones."""
    assert verb in allweather("--help").stdout
    told = re.sub(r"[\s│]+", " ", allweather(verb, "--help").stdout)
    assert VERBS[verb][1].rstrip(".").split(":")[0].split(" (")[0].split(",")[0] in told


def wait_until_it_has_worked(process: subprocess.Popen[str], seconds: float) -> None:
    """Seconds of the processor, not of the clock: on a busy machine Python itself may not have begun after 0.15 s."""
    path, ticks = Path(f"/proc/{process.pid}/stat"), seconds * os.sysconf("SC_CLK_TCK")
    while process.poll() is None and sum(map(int, path.read_text().rpartition(")")[2].split()[11:13])) < ticks:
        time.sleep(0.005)


def until_python_runs_the_package() -> float:
    """Seconds of the processor until the package's first line; 0.1 on a fast machine, 0.2 on a slow one."""
    code = "import allweather.app.cli, time; print(time.process_time())"
    command = [sys.executable, "-c", code]
    return float(subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("seconds", [0.05, 0.4, 0.9])
def test_ctrl_c_while_it_starts_is_quiet(seconds: float) -> None:
    seconds += until_python_runs_the_package()
    command = [sys.executable, "-m", "allweather", "list", "models"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=hear_interrupts)
    wait_until_it_has_worked(process, seconds)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    assert process.returncode in (130, -signal.SIGINT)  # a shell calls both 130


@pytest.mark.parametrize(("typed", "offered"), [("ad", "adapt"), ("adapt --prot", "--protocol")])
def test_the_shell_completes_verbs_and_options(typed: str, offered: str) -> None:
    asked = {"_ALLWEATHER_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": f"allweather {typed}"}
    code = "import sys; sys.argv = ['allweather']; from allweather.app.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT | asked, check=False
    )
    assert offered in done.stdout


@pytest.mark.parametrize("asked", ["--version", "--help", "adatp"])
def test_what_needs_no_verb_loads_no_torch(asked: str) -> None:
    code = f"""
import sys
from allweather.app.cli import main
sys.argv = ["allweather", {asked!r}]
try:
    main()
except SystemExit:
    sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

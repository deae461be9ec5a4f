"""The command line from the first key: version, help, completion and interruption, none of which waits for torch."""

import re
import signal
import subprocess
import sys
from importlib.metadata import version

import pytest
from command_line import ENVIRONMENT, allweather, hear_interrupts

import allweather as aw
from allweather.app.verbs import VERBS


def test_the_version_is_the_packages():
    assert allweather("--version").stdout == f"allweather {version('allweather')}\n" == f"allweather {aw.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_of_each_verb_what_the_verb_says(verb: str):
    """The list of verbs is written down so that help need not import them; it tells of the same ones."""
    assert verb in allweather("--help").stdout
    told = re.sub(r"[\s│]+", " ", allweather(verb, "--help").stdout)
    assert VERBS[verb][1].rstrip(".").split(":")[0].split(" (")[0].split(",")[0] in told


@pytest.mark.parametrize("module", ["allweather.allocator", "typer", "numpy", "torch", "allweather.data"])
def test_ctrl_c_while_it_starts_is_quiet(module: str):
    """The interruption comes just after a module is imported: moments a busy or a slow machine cannot move."""
    command = [sys.executable, "-X", "importtime", "-m", "allweather", "list", "models"]
    none, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(
        command, stdout=none, stderr=pipe, text=True, env=ENVIRONMENT, preexec_fn=hear_interrupts
    ) as process:
        assert any(line.rpartition("|")[2].strip() == module for line in process.stderr)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert "Traceback" not in rest
    assert rest.endswith("interrupted\n")
    assert process.returncode == 130


@pytest.mark.parametrize(("typed", "offered"), [("ad", "adapt"), ("adapt --prot", "--protocol")])
def test_the_shell_completes_verbs_and_options(typed: str, offered: str):
    asked = {"_ALLWEATHER_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": f"allweather {typed}"}
    code = "import sys; sys.argv = ['allweather']; from allweather.app.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT | asked, check=False
    )
    assert offered in done.stdout


@pytest.mark.parametrize("asked", ["--version", "--help", "adatp"])
def test_what_needs_no_verb_loads_no_torch(asked: str):
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

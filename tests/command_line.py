"""The command line, run in this process or in one of its own, and what came of it."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from allweather.app.cli import main

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
MODEL = ("--model", "demo:streetnet")


@dataclass
class Done:
    """A finished command: its status and what it said, white space evened out on stderr."""

    returncode: int
    stdout: str
    stderr: str

    def ok(self) -> "Done":
        """Itself, where it succeeded."""
        assert self.returncode == 0, self.stderr
        return self

    def said(self, status: int = 0) -> str:
        """What it said on stderr, where it ended with this status."""
        assert self.returncode == status, self.stderr
        return self.stderr


def allweather(*arguments: object) -> Done:
    """Runs the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    kept, sys.argv = sys.argv, ["allweather", *map(str, arguments)]
    status: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as leaving:
        status = leaving.code
    finally:
        sys.argv = kept
    return Done(int(status or 0), out.getvalue(), re.sub(r"\s+", " ", err.getvalue()))


def in_a_process(*arguments: object, **options: Any) -> Done:
    """Runs the command as a user does, where signals and limits matter."""
    command = [sys.executable, "-m", "allweather", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, **options)
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, re.sub(r"\s+", " ", done.stderr))


def hear_interrupts():
    """Background jobs of a shell are born deaf to them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)

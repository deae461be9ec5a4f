"""Nothing that uses the normalized cut is timed while a test of its operator fails."""

import subprocess
import sys

OPERATOR = ("tests/test_ncut.py", "tests/test_ncut_hot_path.py")


def need_sound_operator(*more: str) -> None:
    """Runs the operator's tests, and the files `more`; ends the process where one fails."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", *OPERATOR, *more]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        sys.exit(f"Tests of {', '.join((*OPERATOR, *more))} fail; nothing is timed until they pass.")

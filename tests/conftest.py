"""What every test runs under: one thread a process, and the fixtures that several files share."""

import os
import sys
from collections.abc import Iterator

# Before torch and the tests' own processes are started: two workers on two cores must not fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture
def own_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports of an outsider's is forgotten after it."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        if not name.startswith(("allweather", "torch", "PIL", "numpy")):
            del sys.modules[name]
    sys.path[:] = path

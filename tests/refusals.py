"""The error that a test expects of what the package refuses."""

from typing import Any

import pytest

from allweather import AllWeatherError


def refusal(message: str, kind: type[Exception] = AllWeatherError) -> Any:
    """What is done within raises an error of the package that says `message`, a regular expression."""
    return pytest.raises(kind, match=message)

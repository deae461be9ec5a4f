"""The error that a test expects of what the package refuses."""

from typing import Any

import pytest

from allweather import AllWeatherError


def refusal(message: str) -> Any:
    """What is done within raises the package's error, which says `message`, a regular expression."""
    return pytest.raises(AllWeatherError, match=message)

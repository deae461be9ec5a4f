"""Reading the command line's own little languages: sizes and FIELD=VALUE settings."""

from allweather.bench.plan import pixels
from allweather.errors import SettingsError


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(width, height) from WIDTHxHEIGHT.

    Raises:
        AllWeatherError: for anything else, or a side that no network could take.
    """
    size = pixels(text)
    if size and not all(16 <= side <= 16384 for side in size):
        raise SettingsError(f"size: expected WIDTHxHEIGHT with sides of 16 to 16384 pixels, got '{text}'.")
    return size


def parse_settings(pairs: list[str]) -> dict[str, str]:
    """The method's settings from FIELD=VALUE texts.

    Raises:
        AllWeatherError: for a text without '=' or a field given twice.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        field, separator, value = pair.partition("=")
        if not separator or not field:
            raise SettingsError(f"--set: expected FIELD=VALUE, got '{pair}'.")
        if field in settings:
            raise SettingsError(f"--set: {field} is given twice.")
        settings[field] = value
    return settings

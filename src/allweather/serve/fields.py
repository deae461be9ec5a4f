"""A method's fields as rows for a form: name, help, and the value that preset and network give it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from allweather import methods
from allweather.methods import METHODS
from allweather.methods.option import spell
from allweather.methods.views import OR_OWN
from allweather.models.segmenter import Segmenter


@dataclass(frozen=True)
class Row:
    """One field.

    Attributes:
        help: what it does, what it may be, and what it needs to act.
        value: as the command line writes it.
    """

    name: str
    help: str
    value: str


MOST = max(len(methods.describe_fields(method)) for method in METHODS.values())


def rows(method: str, preset: str, model: Segmenter | None) -> list[Row]:
    """The fields of a method with the values that a preset gives them on a network.

    Raises:
        SettingsError: for a preset that the method does not have.
    """
    made = methods.make(method, preset, model=model)
    return [
        Row(name, _help(about), spell(getattr(made, name)))
        for name, about in methods.describe_fields(METHODS[method]).items()
    ]


def presets(method: str) -> list[str]:
    """The presets of a method, the recommended one first."""
    return ["recommended", *(name for name in METHODS[method].presets if name != "recommended")]


def changed(shown: Sequence[Row], texts: Sequence[str]) -> Mapping[str, str]:
    """What the visitor has changed, by field."""
    pairs = zip(shown, texts, strict=False)
    return {row.name: text.strip() for row, text in pairs if text is not None and text.strip() != row.value}


def _help(about: Mapping[str, object]) -> str:
    needs = f"; needs {about['needs']}" if "needs" in about else ""
    return f"{str(about['help']).removesuffix(OR_OWN)} ({about['type']}{needs})"  # visitors name no code

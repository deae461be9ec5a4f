"""The table of adaptation methods; a new one is a file beside these and a line in it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from allweather.errors import SettingsError, check_known
from allweather.methods.augco import Augco
from allweather.methods.cotta import Cotta
from allweather.methods.crf import Crf
from allweather.methods.diga import Diga
from allweather.methods.eata import Eata
from allweather.methods.eta import Eta
from allweather.methods.infomax import InfoMax
from allweather.methods.mall import MallDomain, MallSample
from allweather.methods.memo import Memo
from allweather.methods.method import Batch, Method, Objective, Refined, State
from allweather.methods.norm import Norm
from allweather.methods.normalization import has_statistics
from allweather.methods.own import ADAPTATIONS, find_method
from allweather.methods.pseudo_label import PseudoLabel
from allweather.methods.rotta import Rotta
from allweather.methods.sar import Sar
from allweather.methods.self_adaptive import SelfAdaptive
from allweather.methods.settings import describe_fields, parse_settings, settings_of
from allweather.methods.source import Source
from allweather.methods.tent import Tent
from allweather.models.segmenter import Segmenter
from allweather.plugins import guarded

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Source,
        Norm,
        Tent,
        InfoMax,
        PseudoLabel,
        Eta,
        Eata,
        Sar,
        Memo,
        Augco,
        SelfAdaptive,
        Cotta,
        Rotta,
        Diga,
        Crf,
        MallSample,
        MallDomain,
    )
}


def make(
    name: str,
    preset: str = "recommended",
    settings: Mapping[str, Any] | None = None,
    model: Segmenter | None = None,
) -> Method:
    """The method `name` with the fields of a preset, then of `settings` (text is parsed by the field's type).

    A method of your own is `mymethod.py:MyMethod`, `package.module:MyMethod` or the name an installed package gives it.

    With `model`, every preset but `paper` includes what is known to suit that network.

    Raises:
        SettingsError: for an unknown method, preset or field, a value its type does not allow, or settings that are no
            mapping.
    """
    if not isinstance(settings, Mapping | None):
        raise SettingsError(f"settings: expected a mapping such as {{'lr': 0.001}}, got {settings!r:.60}.")
    method = find_method(name, METHODS)
    presets = {"recommended": {}, **method.presets}
    check_known(f"preset of {name}", preset, presets)
    chosen: dict[str, Any] = {}
    if preset != "paper" and model is not None:
        chosen |= {} if has_statistics(model) else method.without_batchnorm
        chosen |= model.facts.recommended.get(method.name, {})
    given = dict(settings or {})
    values = parse_settings(method, chosen | dict(presets[preset]) | given)
    if len(values.get("views", ())) == 1 and "surest" not in given:
        values.pop("surest", None)  # a preset's, which chooses among its own views
    build = partial(method, **values)
    return build() if name in METHODS else guarded(name, ADAPTATIONS, build)


__all__ = [
    "METHODS", "Batch", "MallDomain", "MallSample", "Method", "Norm", "Objective", "Refined", "Source", "State", "Tent",
    "describe_fields", "make", "settings_of",
]  # fmt: skip

"""Strategies and models with their options, as plain values that a file or a database can hold.

A strategy is its name, or a table of its ``name`` and the options that differ from its defaults;
likewise a region and a prior. A search is a table without a name; options that it leaves out are
as in `Search()`, whatever the strategy's default search.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType
from typing import Any

from gpbo.candidates import Search
from gpbo.checks import misfit
from gpbo.errors import InvalidOption
from gpbo.evidence import Model
from gpbo.hyperparameters import NAMES, HyperparameterPrior
from gpbo.priors import Fixed, Gamma, HalfCauchy, Horseshoe, LogNormal, Normal, Saas, Uniform
from gpbo.strategies import STRATEGIES, NestedBoxes, Strategy, TrustRegion

#: Regions of Thompson sampling by their name in a table.
_REGIONS: Mapping[str, type] = {
    "cube": NoneType,
    "boxes": NestedBoxes,
    "trust-region": TrustRegion,
}
#: Priors by their name in a table.
_PRIORS: Mapping[str, type] = {
    "normal": Normal,
    "log-normal": LogNormal,
    "gamma": Gamma,
    "half-cauchy": HalfCauchy,
    "horseshoe": Horseshoe,
    "uniform": Uniform,
    "fixed": Fixed,
    "saas": Saas,
}
#: Infinity in JSON, which has no such number.
_INFINITE = "inf"


class _OfTheUsersOwn(Exception):
    """Something that only the user's code can make."""


def write_strategy(strategy: Strategy) -> str | dict[str, Any] | None:
    """The strategy as plain values; None if it, or its region, is of the user's own class."""
    try:
        return _write_named(strategy, STRATEGIES)
    except _OfTheUsersOwn:
        return None


def read_strategy(given: object) -> Strategy:
    """The strategy that `write_strategy`, or a person, wrote in this form.

    Raises:
        InvalidOption: neither a name nor a table, or an option is unknown or not allowed.
    """
    strategy: Strategy = _read_named("strategy", given, STRATEGIES)
    return strategy


def write_model(model: Model) -> dict[str, Any] | None:
    """The model as plain values; None if a prior is not from `gpbo.priors`."""
    try:
        return {"nu": _write("nu", model.nu), "prior": _write("prior", model.prior)}
    except _OfTheUsersOwn:
        return None


def read_model(given: object) -> Model:
    """The model that `write_model`, or a person, wrote in this form.

    Raises:
        InvalidOption: not a table, or an option is unknown or not allowed.
    """
    model: Model = _made("model", Model, given)
    return model


def _write_named(value: object, kinds: Mapping[str, type]) -> str | dict[str, Any]:
    for name, kind in kinds.items():
        if type(value) is kind:
            options = _write_options(value, kind)
            return {"name": name, **options} if options else name
    raise _OfTheUsersOwn


def _write_options(value: object, kind: type) -> dict[str, Any]:
    """The options that differ from the defaults."""
    if type(value) is not kind:
        raise _OfTheUsersOwn
    given = {name: (getattr(value, name), usual) for name, usual in _defaults(kind).items()}
    return {name: _write(name, own) for name, (own, usual) in given.items() if own != usual}


def _write(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value
    if name == "search":
        return _write_options(value, Search)
    if name == "region":
        return _write_named(value, _REGIONS)
    if name == "prior":
        return _write_options(value, HyperparameterPrior)
    if name in NAMES:
        return _write_named(value, _PRIORS)
    if isinstance(value, list | tuple):
        return [_write(name, each) for each in value]
    number = value.item() if hasattr(value, "item") else value  # from torch or numpy
    if not isinstance(number, int | float):
        raise _OfTheUsersOwn
    return _INFINITE if number == math.inf else number


def _read_named(what: str, given: object, kinds: Mapping[str, type]) -> Any:
    table = {"name": given} if isinstance(given, str) else given
    name = table.get("name") if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping) or not isinstance(name, str) or name not in kinds:
        raise InvalidOption(
            f"{what}={given!r}: expected one of {', '.join(map(repr, kinds))}, "
            "or a table with its name and its options"
        )
    options = {option: value for option, value in table.items() if option != "name"}
    return _made(f"{what} {name!r}", kinds[name], options)


def _made(what: str, kind: type, given: object) -> Any:
    """An object of this class, with these options."""
    if not isinstance(given, Mapping):
        raise InvalidOption(f"{what}={given!r}: expected a table of its options")
    wrong = misfit(kind, given)
    if wrong is not None:
        raise InvalidOption(f"{what}: {wrong}")
    try:
        return kind(**{option: _read(option, value) for option, value in given.items()})
    except InvalidOption as error:
        raise InvalidOption(f"{what}: {error}") from error


def _read(name: str, value: Any) -> Any:
    if name == "search":
        return _made(name, Search, value)
    if name == "region":
        return _read_named(name, value, _REGIONS)
    if name == "prior":
        return value if isinstance(value, str) else _made(name, HyperparameterPrior, value)
    if name in NAMES:
        return _read_named(name, value, _PRIORS)
    if isinstance(value, list):
        return tuple(_read(name, each) for each in value)
    return math.inf if value == _INFINITE else value


def _defaults(kind: type) -> dict[str, Any]:
    """The options of a class with their defaults, MISSING for those that must be given."""
    return {
        option.name: option.default
        if option.default_factory is MISSING
        else option.default_factory()
        for option in (fields(kind) if is_dataclass(kind) else ())
    }

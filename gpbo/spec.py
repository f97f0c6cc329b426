"""A search space to and from plain values that a file or a database can hold; and a check that a
stored job has the same options.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any

from gpbo.checks import misfit
from gpbo.errors import GpboError, InvalidOption, SpaceError
from gpbo.record import Record
from gpbo.space import Categorical, Integer, Ordinal, Parameter, Real, Space

#: The classes of parameters by their type in a specification.
TYPES: dict[str, type[Real | Integer | Categorical | Ordinal]] = {
    "real": Real,
    "integer": Integer,
    "categorical": Categorical,
    "ordinal": Ordinal,
}
_NAMES = {parameter: name for name, parameter in TYPES.items()}


def write_space(space: Space) -> dict[str, dict[str, Any]]:
    """Each parameter's type and fields by its name, as plain values.

    Raises:
        SpaceError: a listed value is not text, a number, True, False or None, or a parameter is
            of a class of your own.
    """
    return {parameter.name: _write(parameter) for parameter in space.parameters}


def read_space(spec: Mapping[str, object]) -> Space:
    """The space that `write_space`, or a person, wrote in this form.

    Raises:
        SpaceError: a parameter is not a table, or has an unknown type, a field that its type does
            not have, or values that are not allowed.
    """
    return Space(_read(name, given) for name, given in spec.items())


def _write(parameter: Parameter) -> dict[str, Any]:
    if not isinstance(parameter, Real | Integer | Categorical | Ordinal) or (
        type(parameter) not in _NAMES
    ):
        raise SpaceError(
            f"{parameter!r} cannot be stored: expected a parameter of type {', '.join(TYPES)}"
        )
    given = {field.name: getattr(parameter, field.name) for field in fields(parameter)}
    del given["name"]
    for field, value in given.items():
        if isinstance(value, tuple):
            for listed in value:
                plain = isinstance(listed, str | int | float | bool | None)
                if not plain or isinstance(listed, Enum):  # an enum would come back as its value
                    raise SpaceError(
                        f"{parameter.name}: {field} has {listed!r}, which cannot be stored: "
                        "expected strings, numbers, True, False or None"
                    )
            given[field] = list(value)
    return {"type": _NAMES[type(parameter)], **given}


def _read(name: str, given: object) -> Parameter:
    if not isinstance(given, Mapping):
        raise SpaceError(f"{name}={given!r}: expected a table with its type and its fields")
    named = given.get("type")
    if not isinstance(named, str) or named not in TYPES:
        raise SpaceError(f"{name}: type={named!r}: expected one of {', '.join(TYPES)}")
    kind = TYPES[named]
    values = {field: value for field, value in given.items() if field != "type"}
    wrong = misfit(kind, values, "name")
    if wrong is not None:
        raise SpaceError(f"{name}: {wrong}")
    return kind(name, **values)


def check_same(
    given: Mapping[str, Any], record: Record, wrong: type[GpboError] = InvalidOption
) -> None:
    """Check that a stored job has this space, direction, seed, initial design, inference and
    constraints.

    Raises:
        InvalidOption: it differs in one of them (``wrong`` sets another class of error).
    """
    names = "space", "direction", "seed", "initial", "inference", "constraints"
    own = {option: given[option] for option in names}
    stored = {option: record.spec.get(option, []) for option in names}
    check_equal(own, stored, f"the stored job {record.name!r}", "another name", wrong)


def check_equal(
    given: Mapping[str, Any],
    stored: Mapping[str, Any],
    whose: str,
    instead: str,
    wrong: type[GpboError] = InvalidOption,
) -> None:
    """Check that the stored options are the given ones, all plain values.

    Args:
        given: The given options.
        stored: The stored options.
        whose: What has the stored options, for the message.
        instead: What may be given instead of it, for the message.
        wrong: The class of the error.

    Raises:
        InvalidOption: an option differs (``wrong`` sets another class of error).
    """
    for option, own in given.items():
        other = stored.get(option)
        if _written_as(own) != _written_as(other):
            if isinstance(own, dict) and isinstance(other, dict):
                own, other = _differences(own, other)
            raise wrong(
                f"{option}={own!r}: {whose} has {other!r}; "
                f"give the same value to continue it, or {instead} to begin anew"
            )


def _written_as(value: object) -> str:
    """Text that distinguishes True from 1, and one order of parameters from another."""
    return json.dumps(value)


def _differences(own: dict[str, Any], stored: dict[str, Any]) -> tuple[Any, Any]:
    """The entries in which two tables differ; if there are none, the orders of their names."""
    names = [
        name for name in own | stored if _written_as(own.get(name)) != _written_as(stored.get(name))
    ]
    if not names:
        return list(own), list(stored)
    return {name: own.get(name) for name in names}, {name: stored.get(name) for name in names}

"""A search space as plain values that a file or a database can hold, and back."""

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any

from gpbo.checks import misfit
from gpbo.errors import SpaceError
from gpbo.space import Categorical, Integer, Ordinal, Parameter, Real, Space

#: The kinds of parameters by the name that a specification gives them.
TYPES: dict[str, type[Real | Integer | Categorical | Ordinal]] = {
    "real": Real,
    "integer": Integer,
    "categorical": Categorical,
    "ordinal": Ordinal,
}
_NAMES = {parameter: name for name, parameter in TYPES.items()}


def write_space(space: Space) -> dict[str, dict[str, Any]]:
    """Each parameter's type and fields by its name, of plain values only.

    Raises:
        SpaceError: a listed value is not text, a number, True, False or None, or a parameter is
            of a type of your own.
    """
    return {parameter.name: _write(parameter) for parameter in space.parameters}


def read_space(spec: Mapping[str, object]) -> Space:
    """The space that `write_space` wrote, or a person in the same form.

    Raises:
        SpaceError: a parameter is no table, has no known type, a field that its type does not
            have, or values that its type refuses.
    """
    return Space(_read(name, given) for name, given in spec.items())


def _write(parameter: Parameter) -> dict[str, Any]:
    if not isinstance(parameter, Real | Integer | Categorical | Ordinal) or (
        type(parameter) not in _NAMES
    ):
        raise SpaceError(f"{parameter!r}: expected one of {', '.join(TYPES)} to write it down")
    given = {field.name: getattr(parameter, field.name) for field in fields(parameter)}
    del given["name"]
    for field, value in given.items():
        if isinstance(value, tuple):
            for listed in value:
                plain = isinstance(listed, str | int | float | bool | None)
                if not plain or isinstance(listed, Enum):  # which would come back as its value
                    raise SpaceError(
                        f"{parameter.name}: {field} has {listed!r}: expected text, numbers, True, "
                        "False or None to write it down"
                    )
            given[field] = list(value)
    return {"type": _NAMES[type(parameter)], **given}


def _read(name: str, given: object) -> Parameter:
    if not isinstance(given, Mapping):
        raise SpaceError(f"{name}={given!r}: expected a table of its type and its fields")
    named = given.get("type")
    if not isinstance(named, str) or named not in TYPES:
        raise SpaceError(f"{name}: type={named!r}: expected one of {', '.join(TYPES)}")
    kind = TYPES[named]
    values = {field: value for field, value in given.items() if field != "type"}
    wrong = misfit(kind, values, "name")
    if wrong is not None:
        raise SpaceError(f"{name}: {wrong}")
    return kind(name, **values)

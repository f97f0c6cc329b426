"""A search space as plain values that a file or a database can hold, and back."""

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any

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


def read_space(spec: Mapping[str, Mapping[str, Any]]) -> Space:
    """The space that `write_space` wrote, or a person in the same form.

    Raises:
        SpaceError: a parameter has no known type, a field that its type does not have, or values
            that its type refuses.
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


def _read(name: str, given: Mapping[str, Any]) -> Parameter:
    named = given.get("type")
    if not isinstance(named, str) or named not in TYPES:
        raise SpaceError(f"{name}: type={named!r}: expected one of {', '.join(TYPES)}")
    kind = TYPES[named]
    allowed = [field.name for field in fields(kind) if field.name != "name"]
    values = {field: value for field, value in given.items() if field != "type"}
    for field in values:
        if field not in allowed:
            raise SpaceError(f"{name}: unknown {field!r}: expected {', '.join(allowed)}")
    try:
        return kind(name, **values)
    except TypeError as error:
        missing = [field for field in allowed if field not in values and field != "scale"]
        raise SpaceError(f"{name}: missing {', '.join(missing)}") from error

"""Constraints: limits of quantities that are measured with the value."""

import math
import re
import reprlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, SupportsFloat

from gpbo.checks import as_mapping, as_number, legible
from gpbo.errors import InvalidOption, InvalidResult

_FORM = re.compile(r"\s*(?P<name>\S(?:.*\S)?)\s*(?P<sense><=|>=)\s*(?P<limit>\S+)\s*")
#: Keys with another meaning in a line of a command's output.
_RESERVED = ("value", "step")

#: What an objective returns: a value, or with constraints a pair of it and the measured quantities.
Returned = SupportsFloat | tuple[SupportsFloat, Mapping[str, Any]]


@dataclass(frozen=True)
class Constraint:
    """An upper or lower limit of a quantity that is measured with every value."""

    name: str
    sense: Literal["<=", ">="]
    limit: float

    def __str__(self) -> str:
        short = f"{self.limit:g}"
        return f"{self.name} {self.sense} {short if float(short) == self.limit else self.limit}"

    def is_met_by(self, measured: float) -> bool:
        """Whether the quantity is within the limit or equal to it."""
        return measured <= self.limit if self.sense == "<=" else measured >= self.limit

    def excess(self, measured: float) -> float:
        """How far the quantity exceeds the limit, finite; 0 or less if the constraint is met."""
        beyond = measured - self.limit if self.sense == "<=" else self.limit - measured
        return max(-sys.float_info.max, min(sys.float_info.max, beyond))


def read_constraints(texts: Sequence[str]) -> tuple[Constraint, ...]:
    """Constraints from texts such as ``"memory <= 16"``.

    Raises:
        InvalidOption: not a list of such texts, or the same one twice.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise InvalidOption(f"constraints={texts!r}: expected a list such as ['memory <= 16']")
    constraints = tuple(map(_read, texts))
    for place, one in enumerate(constraints):
        if one in constraints[:place]:
            raise InvalidOption(f"constraints: {str(one)!r} is given twice: expected it once")
    return constraints


def quantities(constraints: Iterable[Constraint]) -> tuple[str, ...]:
    """The names of the quantities that these constraints limit; one may have several limits."""
    return tuple(dict.fromkeys(constraint.name for constraint in constraints))


def _read(text: object) -> Constraint:
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is not None:
        name, limit = found["name"], _number(found["limit"])
        if name in _RESERVED:
            raise InvalidOption(
                f"constraints: {text!r}: expected a name other than {' and '.join(_RESERVED)}"
            )
        if limit is not None and not re.search("[<>]", name):
            return Constraint(name, "<=" if found["sense"] == "<=" else ">=", limit)
    raise InvalidOption(
        f"constraints: {text!r}: expected a name, <= or >=, and a finite number, such as "
        "'memory <= 16'"
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Told:
    """What was told about a trial.

    Attributes:
        value: The value; None for a failure.
        measured: The quantities of the constraints; empty for a failure.
        reason: Why there is no value.
    """

    value: float | None
    measured: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None


def result_told(
    where: str, constraints: Sequence[Constraint], value: object, measured: object = None
) -> Told:
    """A value with the measured quantities; a failure if one of the numbers is not finite.

    Raises:
        InvalidResult: the value is not one real number, or ``measured`` does not map exactly the
            names of the constraints to real numbers (it may be None if the value is not finite).
    """
    number = as_number(f"{where}value", value)
    alone = measured is None and not math.isfinite(number)
    numbers = {} if alone else _measurements(where, constraints, measured)
    for name, each in [("the value", number), *numbers.items()]:
        if not math.isfinite(each):
            return Told(None, reason=legible(f"{name} is {each}"))
    return Told(number, numbers)


def returned(result: object, constraints: Sequence[Constraint]) -> tuple[Any, ...]:
    """What an objective returned: the value and, with constraints, the measured quantities.

    Quantities that no constraint limits are left out.

    Raises:
        InvalidResult: there are constraints, and ``result`` is not a pair.
    """
    if not constraints:
        return (result,)
    if isinstance(result, tuple | list) and len(result) == 2:
        value, measured = result[0], as_mapping(result[1])
        if isinstance(measured, Mapping):
            limited = quantities(constraints)
            measured = {name: measured[name] for name in limited if name in measured}
        return value, measured
    names = ", ".join(f"{name!r}: ..." for name in quantities(constraints))
    raise InvalidResult(
        f"the objective returned {reprlib.repr(result)}: expected a pair (value, {{{names}}}), "
        "since there are constraints"
    )


def _measurements(
    where: str, constraints: Sequence[Constraint], measured: object
) -> dict[str, float]:
    names = quantities(constraints)
    wanted = "nothing, since there are no constraints"
    if names:
        wanted = f"{', '.join(map(repr, names))}, which the constraints limit"
    given = {} if measured is None else as_mapping(measured)
    if not isinstance(given, Mapping):
        raise InvalidResult(
            f"{where}measured={reprlib.repr(given)}: expected a mapping with {wanted}"
        )
    missing = [name for name in names if name not in given]
    unknown = [name for name in given if name not in names]
    if missing or unknown:
        which = f"lacks {missing[0]!r}" if missing else f"has {reprlib.repr(unknown[0])}"
        raise InvalidResult(f"{where}measured {which}: expected {wanted}")
    return {name: as_number(f"{where}{name}", given[name]) for name in names}


def violated(constraints: Iterable[Constraint], measured: Mapping[str, float]) -> tuple[str, ...]:
    """The constraints that these quantities violate, as texts."""
    return tuple(str(one) for one in constraints if not one.is_met_by(measured[one.name]))

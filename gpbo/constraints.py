"""What a result has to keep to besides being good: limits of quantities that come with it."""

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
#: What a line of a command's output calls the rest of a result.
_RESERVED = ("value", "step")

#: What an objective returns: a value, and with constraints what was measured with it.
Returned = SupportsFloat | tuple[SupportsFloat, Mapping[str, Any]]


@dataclass(frozen=True)
class Constraint:
    """That a quantity, measured with every value, is at most, or at least, so much."""

    name: str
    sense: Literal["<=", ">="]
    limit: float

    def __str__(self) -> str:
        short = f"{self.limit:g}"
        return f"{self.name} {self.sense} {short if float(short) == self.limit else self.limit}"

    def is_met_by(self, measured: float) -> bool:
        """Whether the quantity is within the limit, or on it."""
        return measured <= self.limit if self.sense == "<=" else measured >= self.limit

    def excess(self, measured: float) -> float:
        """How far the quantity is beyond the limit, finite; 0 or less where it is met."""
        beyond = measured - self.limit if self.sense == "<=" else self.limit - measured
        return max(-sys.float_info.max, min(sys.float_info.max, beyond))


def read_constraints(texts: Sequence[str]) -> tuple[Constraint, ...]:
    """Constraints from texts such as ``"memory <= 16"``.

    Raises:
        InvalidOption: no list of such texts, or the same one twice.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise InvalidOption(f"constraints={texts!r}: expected a list such as ['memory <= 16']")
    constraints = tuple(map(_read, texts))
    for place, one in enumerate(constraints):
        if one in constraints[:place]:
            raise InvalidOption(f"constraints: {str(one)!r} comes twice: expected it once")
    return constraints


def quantities(constraints: Iterable[Constraint]) -> tuple[str, ...]:
    """What is to be measured for these constraints; one quantity may have several limits."""
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
        f"constraints: {text!r}: expected a name, <= or >=, and a finite number: 'memory <= 16'"
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Told:
    """What was told of a trial.

    Attributes:
        value: The value; None if there is none.
        measured: The quantities of the constraints, with the value; none without it.
        reason: Why there is no value.
    """

    value: float | None
    measured: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None


def result_told(
    where: str, constraints: Sequence[Constraint], value: object, measured: object = None
) -> Told:
    """A value with what was measured; if one of the numbers is not finite, a failure.

    Raises:
        InvalidResult: the value is not one real number, or ``measured`` is no mapping from the
            names of the constraints, and no others, to real numbers. Where there is no finite
            value, it may be left out.
    """
    number = as_number(f"{where}value", value)
    alone = measured is None and not math.isfinite(number)
    numbers = {} if alone else _measurements(where, constraints, measured)
    for name, each in [("the value", number), *numbers.items()]:
        if not math.isfinite(each):
            return Told(None, reason=legible(f"{name} is {each}"))
    return Told(number, numbers)


def returned(result: object, constraints: Sequence[Constraint]) -> tuple[Any, ...]:
    """The value, and with constraints what was measured with it, of what an objective returned.

    It may have measured more than the constraints limit, which is left out.

    Raises:
        InvalidResult: there are constraints, and it is no pair.
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
    expected = f"expected {', '.join(map(repr, names)) or 'nothing'}, of the constraints"
    given = {} if measured is None else as_mapping(measured)
    if not isinstance(given, Mapping):
        raise InvalidResult(
            f"{where}measured={reprlib.repr(given)}: expected a mapping; {expected}"
        )
    missing = [name for name in names if name not in given]
    unknown = [name for name in given if name not in names]
    if missing or unknown:
        which = f"lacks {missing[0]!r}" if missing else f"has {reprlib.repr(unknown[0])}"
        raise InvalidResult(f"{where}measured {which}: {expected}")
    return {name: as_number(f"{where}{name}", given[name]) for name in names}


def violated(constraints: Iterable[Constraint], measured: Mapping[str, float]) -> tuple[str, ...]:
    """The constraints that these quantities do not meet, as texts."""
    return tuple(str(one) for one in constraints if not one.is_met_by(measured[one.name]))

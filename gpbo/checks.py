"""Checks of a user's numbers, tensors and paths, with errors that name them."""

import math
import numbers
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args

import numpy as np

from gpbo.errors import GpboError, InvalidData, InvalidOption, InvalidResult

_Entry = TypeVar("_Entry")
_Checked = TypeVar("_Checked")


def whole_number(name: str, value: object, *, least: int) -> int:
    """An option that counts something.

    Raises:
        InvalidOption: not a whole number (a bool is none) of at least ``least``.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    raise InvalidOption(f"{name}={value!r}: expected a whole number, {least} or more")


def as_mapping(value: object) -> object:
    """The value, as a dict if it has keys but is not a mapping, such as a row of a pandas table."""
    has_keys = not isinstance(value, Mapping) and callable(getattr(value, "keys", None))
    return dict(value) if has_keys else value  # type: ignore[call-overload]


def is_bool(value: object) -> bool:
    """Whether the value is True or False, numpy's too."""
    return isinstance(value, bool | np.bool_)


def finite(value: object) -> float | None:
    """The value as a float; None if it is not a finite real number (a bool is none)."""
    if is_bool(value) or not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int or a fraction beyond the largest double
        return None
    return number if math.isfinite(number) else None


def real_number(name: str, value: object, *, least: float = -math.inf) -> float:
    """An option that measures something.

    Raises:
        InvalidOption: not a finite number (a bool is none) of at least ``least``.
    """
    number = finite(value)
    if number is not None and number >= least:
        return number
    bound = "" if least == -math.inf else f", {least:g} or more"
    raise InvalidOption(f"{name}={value!r}: expected a finite number{bound}")


def positive_number(name: str, value: object) -> float:
    """An option that measures something, which may be infinite.

    Raises:
        InvalidOption: not a real number (a bool is none) above 0.
    """
    number = math.inf if isinstance(value, float) and value == math.inf else finite(value)
    if number is not None and number > 0:
        return number
    raise InvalidOption(f"{name}={value!r}: expected a positive number")


def settle(instance: object, name: str, check: Callable[..., object], **bounds: Any) -> None:
    """Replace an option of a frozen dataclass by what its check returns.

    Raises:
        InvalidOption: as the check does.
    """
    object.__setattr__(instance, name, check(name, getattr(instance, name), **bounds))


def is_among(value: object, allowed: Sequence[object]) -> bool:
    """Whether it is one of these; an array never is, as it has no single answer to ``==``."""
    try:
        return value in allowed
    except (ValueError, RuntimeError):  # of numpy, of torch
        return False


def one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Check that the option is one of those allowed.

    Raises:
        InvalidOption: it is not.
    """
    if not is_among(value, allowed):
        two = " or ".join(map(repr, allowed))
        expected = two if len(allowed) == 2 else f"one of {tuple(allowed)}"
        raise InvalidOption(f"{name}={value!r}: expected {expected}")


def instance_of(name: str, value: object, kind: type | UnionType) -> None:
    """Check that the option is an instance of a class, or None where ``kind`` allows it.

    Raises:
        InvalidOption: it is not.
    """
    if not isinstance(value, kind):
        kinds = [each.__name__ for each in get_args(kind) or (kind,) if each is not NoneType]
        raise InvalidOption(f"{name}={value!r}: expected an instance of {' or '.join(kinds)}")


def misfit(kind: type, given: Mapping[str, object], *hidden: str) -> str | None:
    """Why a table does not give the fields of a dataclass; None if it does.

    Args:
        hidden: Fields that no table may give.
    """
    own = fields(kind) if is_dataclass(kind) else ()
    known = {field.name: field for field in own if field.name not in hidden}
    for name in given:
        if name not in known:
            expected = f"expected one of {', '.join(known)}" if known else "it has no options"
            return f"unknown {name!r}: {expected}"
    missing = [
        name
        for name, field in known.items()
        if name not in given and field.default is MISSING and field.default_factory is MISSING
    ]
    return f"missing {', '.join(missing)}" if missing else None


def each_of(
    name: str, entries: Iterable[_Entry], check: Callable[[_Entry], _Checked]
) -> list[_Checked]:
    """The entries of a list, checked; the error names the refused one if there are several.

    Raises:
        GpboError: as the check does.
    """
    entries = list(entries)
    checked: list[_Checked] = []
    for place, entry in enumerate(entries):
        try:
            checked.append(check(entry))
        except GpboError as error:
            if len(entries) == 1:
                raise
            raise type(error)(f"{name}[{place}]: {error}") from error
    return checked


def truth_value(name: str, value: object) -> bool:
    """An option that is on or off.

    Raises:
        InvalidOption: neither True nor False.
    """
    if isinstance(value, bool):
        return value
    raise InvalidOption(f"{name}={value!r}: expected True or False")


def as_number(name: str, value: object) -> float:
    """A told value as a float, which may be NaN or infinite.

    Raises:
        InvalidResult: not one real number (a bool, a string, None, several numbers, ...).
    """
    number = _single(name, value)
    if is_bool(number) or not isinstance(number, numbers.Real):
        raise InvalidResult(
            # Shortened, and safe for an object whose own repr fails.
            f"{name}={reprlib.repr(value)} has type {type(value).__name__}: "
            "expected one real number"
        )
    try:
        return float(number)
    except OverflowError as error:
        raise InvalidResult(
            f"{name} is too large for a double: expected an absolute value of at most 1.8e308"
        ) from error


def _single(name: str, value: Any) -> object:
    """The element of an array or a tensor that has only one; anything else as it is."""
    try:
        if isinstance(value, np.generic) or not (
            hasattr(value, "shape") and hasattr(value, "item")
        ):
            return value
        if math.prod(value.shape) == 1 and not np.ma.is_masked(value):
            return value.item()
    except Exception:  # noqa: BLE001  a class of the user's, or a lazy array that fails to compute
        return value
    raise InvalidResult(f"{name} has shape {tuple(value.shape)}: expected one real number")


def legible(text: str) -> str:
    """The text as any file can hold it: lone surrogates, as in some file names, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def check_tensor(name: str, value: object) -> None:
    """Check that it is a tensor of real numbers.

    Raises:
        InvalidData: it is none, or one of complex numbers.
    """
    import torch  # here, so that checks of numbers do not import it

    if not isinstance(value, torch.Tensor):
        raise InvalidData(f"{name} has type {type(value).__name__}: expected a tensor")
    if value.dtype.is_complex:
        raise InvalidData(f"{name} has dtype {value.dtype}: expected real numbers")


def path_to_write(name: str, path: str | Path) -> Path:
    """The path of a file that is to be written.

    Raises:
        InvalidOption: it is not a path, its folder does not exist, it is a folder itself, it may
            not be written, or the system refuses access to it.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidOption(f"{name}={path!r}: expected a path")
    target = Path(path)
    expected = f"{name}={str(path)!r}: expected the path of a file in an existing folder"
    try:
        fits = target.parent.is_dir() and not target.is_dir() and "\0" not in target.name
        place = target if target.exists() else target.parent
    except (OSError, ValueError) as error:  # a name that is too long, a folder not to be entered
        raise InvalidOption(f"{expected}: {error}") from error
    if not fits:
        raise InvalidOption(expected)
    if not os.access(place, os.W_OK):
        raise InvalidOption(f"{name}={str(path)!r}: expected a path that can be written to")
    return target

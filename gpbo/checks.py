"""Numbers, tensors and paths of a user: as what they stand for, or an error that names them."""

import math
import numbers
import os
from pathlib import Path

import numpy as np

from gpbo.errors import InvalidData, InvalidOption, InvalidResult


def whole_number(name: str, value: object, *, least: int) -> int:
    """An option that counts something.

    Raises:
        InvalidOption: not a whole number (a bool is none) of at least ``least``.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    raise InvalidOption(f"{name}={value!r}: expected a whole number, {least} or more")


def finite(value: object) -> float | None:
    """The value as a float; None if it is not a finite real number (a bool is none)."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
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
    shape = getattr(value, "shape", None)
    number = value
    if shape is not None and not isinstance(value, np.generic):
        if math.prod(shape) != 1 or np.ma.is_masked(value):
            raise InvalidResult(f"{name} has shape {tuple(shape)}: expected one real number")
        number = value.item()  # type: ignore[attr-defined]  # arrays and tensors have it
    if isinstance(number, bool | np.bool_) or not isinstance(number, numbers.Real):
        raise InvalidResult(
            f"{name}={value!r} has type {type(value).__name__}: expected one real number"
        )
    try:
        return float(number)
    except OverflowError as error:
        raise InvalidResult(f"{name} is too large for a double: expected a real number") from error


def check_tensor(name: str, value: object) -> None:
    """Nothing, where it is a tensor.

    Raises:
        InvalidData: it is none, or one of complex numbers.
    """
    import torch  # here, for those who check numbers alone

    if not isinstance(value, torch.Tensor):
        raise InvalidData(f"{name} has type {type(value).__name__}: expected a tensor")
    if value.dtype.is_complex:
        raise InvalidData(f"{name} has dtype {value.dtype}: expected real numbers")


def path_to_write(name: str, path: str | Path) -> Path:
    """The path of a file that is to be written.

    Raises:
        InvalidOption: it is no path, in no folder that exists, a folder itself, or nothing may be
            written there.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidOption(f"{name}={path!r}: expected a path")
    target = Path(path)
    if not target.parent.is_dir() or target.is_dir():
        raise InvalidOption(
            f"{name}={str(path)!r}: expected a path of a file, in a folder that exists"
        )
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InvalidOption(f"{name}={str(path)!r}: expected a place where a file may be written")
    return target

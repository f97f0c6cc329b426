"""What jaxtyping has the types of arguments and results checked with."""

from collections.abc import Callable
from typing import Any

from beartype import beartype

_CHECKED: dict[tuple[str, str, str], Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype's check, made once: a nested function is defined with every call of the outer one.

    Args:
        function: One without a body, which jaxtyping makes of another: for what is checked before
            a call, where any result will do, and for what is checked after it, where the arguments
            have been.
    """
    types = function.__annotations__
    if types.get("return", Any) is not Any:
        types = function.__annotations__ = dict.fromkeys(types, Any) | {"return": types["return"]}
    named = function.__module__, function.__qualname__, str(types)
    if named not in _CHECKED:
        _CHECKED[named] = beartype(function)
    return _CHECKED[named]

"""Types and shapes of arguments and results are checked, of some of the calls.

A check takes longer than most of what it checks, and what holds for the first calls of a function
in a test and for one of sixty-one after them says as much as thousands of them would.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from types import CodeType
from typing import Any, TypeVar

import jaxtyping
from beartype import beartype
from jaxtyping import install_import_hook, jaxtyped

FIRST = 32
EVERY = 61  # a prime: of callers that take turns none is always left out

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_CALLS: dict[CodeType, list[int]] = {}
_CHECKED: dict[tuple[str, str, str], Callable[..., Any]] = {}


def check_types(modules: list[str]) -> None:
    """Of what these define, at their import."""
    jaxtyping.jaxtyped = sparingly  # type: ignore[assignment]  # what the hook decorates with
    install_import_hook(modules, f"{checked.__module__}.{checked.__name__}")


def start_anew() -> None:
    """The next call of every function is its first."""
    for calls in _CALLS.values():
        calls[0] = 0


def sparingly(*, typechecker: Callable[..., Any]) -> Callable[[_Decorated], _Decorated]:
    """As ``jaxtyped``, which is what some calls go through, and all that make a dataclass."""

    def decorate(function: _Decorated) -> _Decorated:
        if inspect.isclass(function):
            return jaxtyped(function, typechecker=typechecker)  # type: ignore[return-value]
        # One count for all definitions of a nested function.
        calls = _CALLS.setdefault(function.__code__, [0])
        with_checks: list[Callable[..., Any]] = []

        @wraps(function)
        def either(*args: object, **keywords: object) -> object:
            calls[0] += 1
            if calls[0] > FIRST and calls[0] % EVERY:
                return function(*args, **keywords)
            if not with_checks:  # made only now: most definitions of nested ones are never checked
                with_checks.append(jaxtyped(function, typechecker=typechecker))
            return with_checks[0](*args, **keywords)

        return either  # type: ignore[return-value]

    return decorate


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

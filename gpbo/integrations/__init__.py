"""Other people's tools: each module needs its own package, and nothing else imports it."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Imports of what comes with an extra of gpbo, which the error names where it is missing.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        told = f"{error}; expected pip install 'gpbo[{extra}]'"
        raise ModuleNotFoundError(told, name=error.name) from error

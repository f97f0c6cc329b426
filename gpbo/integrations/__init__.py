"""Integrations with other tools: each module needs its own package, and nothing else imports it."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """For imports of packages that come with an extra of gpbo: if one is missing, name the extra.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        told = f"{error}; install it with: pip install 'gpbo[{extra}]'"
        raise ModuleNotFoundError(told, name=error.name) from error

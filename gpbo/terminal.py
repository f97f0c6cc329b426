"""Where a program tells how it goes: on the standard error stream, whatever became of that."""

import io
import sys
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console

#: Of a stream that is not there, that is closed, or that nobody reads or has no room any more.
_UNWRITABLE = (AttributeError, ValueError, OSError)


def is_terminal(stream: Any) -> bool:
    """Whether what is written to a standard stream, which may not be there, is seen on one."""
    with suppress(*_UNWRITABLE):
        return bool(stream.isatty())
    return False


def console() -> Console:
    """Shows text on the standard error stream; what cannot be written there is lost, no more.

    In a notebook too, where rich would make an output of its own of each line, or with FORCE_COLOR,
    as kernels set it, take the stream for a terminal.
    """
    errors = _Errors()
    forced = None if errors.isatty() else False
    return Console(file=cast(IO[str], errors), force_jupyter=False, force_terminal=forced)


class _Errors(io.TextIOBase):
    """The standard error stream of the moment, to which to write never fails."""

    @property
    def _stream(self) -> Any:
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # below what rich puts there

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return is_terminal(self._stream)

    def write(self, text: str) -> int:
        """Write all of it, or nothing."""
        with suppress(*_UNWRITABLE):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what waits to be written, if it can be."""
        with suppress(*_UNWRITABLE):
            self._stream.flush()

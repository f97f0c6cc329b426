"""A file of arrays and plain data: a zip of NumPy arrays, with a header in JSON."""

import json
import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np

from gpbo.checks import path_to_write
from gpbo.errors import InvalidData

#: Version of the file format; a file of a later one is refused.
_FORMAT = 1


def write(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write named values, arrays or plain data; the file appears when it is complete, or never.

    Raises:
        InvalidOption: the path cannot be written to, e.g. its folder does not exist.
    """
    target = path_to_write("path", path)
    arrays: dict[str, Any] = {
        name: one for name, one in values.items() if isinstance(one, np.ndarray)
    }
    header = {name: one for name, one in values.items() if name not in arrays}
    arrays["header"] = np.array(json.dumps({**header, "format": _FORMAT}))
    with appearing(target) as file:
        np.savez_compressed(file, **arrays)


@contextmanager
def appearing(target: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which appears at the target when it is complete, or never.

    Processes that write to the same target do not collide before that. A target that exists and is
    not a regular file is written to directly.
    """
    if target.exists() and not target.is_file():  # a device or a pipe, which stays one
        with target.open("wb") as file:
            yield file
        return
    target = target.resolve()  # a link stays one: what it leads to is replaced
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            yield file
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text, in UTF-8; the file appears when it is complete, or never."""
    with appearing(target) as file:
        file.write(text.encode())


def read(path: str | Path, names: Collection[str], *, writer: str) -> dict[str, Any]:
    """The values that `write` wrote; tuples come back as lists.

    Args:
        names: Values that must be there.
        writer: What writes such files, for the error.

    Raises:
        InvalidData: there is no such file, `write` did not write it, or a later version of gpbo
            did.
    """
    another = f"expected a file that {writer} wrote"
    try:
        with np.load(path, allow_pickle=False) as file:
            values: dict[str, Any] = dict(file)
            values |= json.loads(str(values.pop("header")))
            is_later = values.pop("format") > _FORMAT
    except FileNotFoundError as error:
        raise InvalidData(f"{path}: there is no such file: {another}") from error
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise InvalidData(f"{path}: {another}") from error
    if is_later:
        raise InvalidData(
            f"{path}: written by a newer gpbo: expected format {_FORMAT} or earlier; upgrade gpbo "
            "to read it"
        )
    if not values.keys() >= {*names}:
        raise InvalidData(f"{path}: {another}")
    return values

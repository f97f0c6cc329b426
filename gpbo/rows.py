"""Select and replace rows in records of tensors whose first axis is the runs."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

_Record = TypeVar("_Record", bound=Any)


def bucket(chosen: Bool[Tensor, " r"]) -> tuple[Int[Tensor, " b"], int]:
    """The numbers of the chosen rows, at least one; and how many they are.

    On a GPU graphs are captured for every number of rows: there the last one is repeated up to the
    next power of two, or up to ``r``.
    """
    rows = torch.nonzero(chosen)[:, 0]
    count = len(rows)
    room = min(room_for(count, rows.device), len(chosen))
    return torch.cat([rows, rows[-1:].expand(room - count)]), count


def room_for(count: int, device: torch.device) -> int:
    """How many rows are computed where ``count`` are needed."""
    return count if device.type == "cpu" else 1 << (count - 1).bit_length()


def selected(whole: _Record, runs: Int[Tensor, " j"] | slice) -> _Record:
    """The record with these rows of every tensor; with a slice nothing is copied."""
    rows: dict[str, Any] = {}
    for field in fields(whole):
        value = getattr(whole, field.name)
        if isinstance(value, Tensor):
            rows[field.name] = value[runs]
        elif is_dataclass(value):
            rows[field.name] = selected(value, runs)
    changed: _Record = replace(whole, **rows)
    return changed


def put(whole: _Record, runs: Int[Tensor, " j"], part: _Record) -> _Record:
    """``whole`` with the rows ``runs`` of every tensor replaced by those of ``part``."""
    changes: dict[str, Any] = {}
    for field in fields(whole):
        old, new = getattr(whole, field.name), getattr(part, field.name)
        if isinstance(old, Tensor):
            changes[field.name] = old.index_copy(0, runs, new)
        elif is_dataclass(old):
            changes[field.name] = put(old, runs, new)
    changed: _Record = replace(whole, **changes)
    return changed

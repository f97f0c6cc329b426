"""How much of a batch is computed at once: as much as fits a budget, less when memory runs out."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from gpbo.graphs import release
from gpbo.parallel import each

logger = logging.getLogger("gpbo")

#: Computes the given runs and points: tensors with an axis of each, the runs first.
Part = Callable[[slice, slice], tuple[Tensor, ...]]

#: What one temporary tensor may take. On a CPU, what stays in the cache: log EI of 576 points at 16
#: draws of 50 observations took 11 ms in parts of 3/4 MiB and 25 ms in parts of 2 MiB, and at 64
#: runs of 100 observations 2 s in parts and 22 s in one; a log density of 320 chains and 160
#: observations 0.4 s in parts and 0.7 s in one. On a GPU, one part in so many of its memory: there
#: are about a dozen such tensors at a time.
_CPU_BYTES = 3 * 2**18
_GPU_SHARE = 64

#: The budget of later calls is not lowered below this: small calls are not the cause.
_LEAST_BYTES = 2**20
#: The budgets of devices that have run out of memory.
_lowered: dict[torch.device, int] = {}


def budget(device: torch.device) -> int:
    """Bytes that one temporary tensor may take on this device."""
    if device in _lowered:
        return _lowered[device]
    if device.type == "cpu":
        return _CPU_BYTES
    return torch.cuda.get_device_properties(device).total_memory // _GPU_SHARE


def in_parts(
    part: Part, runs: int, points: int, bytes_each: int, device: torch.device, *, axis: int = 1
) -> tuple[Tensor, ...]:
    """What ``part`` returns for all runs and points, computed in parts that fit the budget.

    Parts are whole runs as long as one fits, so that the points that are computed together do not
    depend on the number of runs. If the device runs out of memory all the same, unused memory is
    freed; if it does so again, its budget is halved for the rest of the process. The result stays
    the same up to rounding.

    Args:
        bytes_each: What the largest temporary tensor takes per run and point.
        axis: The axis of the points.

    Raises:
        torch.OutOfMemoryError: there is no room even for one point of one run.
    """
    most, released = budget(device), False
    while True:
        columns = _even(max(1, most // max(1, bytes_each)), points)
        rows = _even(max(1, most // max(1, bytes_each * points)), runs)
        try:
            return _assembled(part, runs, points, rows, columns, axis)
        except torch.OutOfMemoryError:
            if _is_capturing(device) or (released and rows * columns <= 1):
                raise
        # Outside of the handler, whose traceback keeps the tensors of the failed attempt alive.
        if released:
            most = rows * columns * bytes_each // 2
            _lowered[device] = max(most, _LEAST_BYTES)
            logger.warning(
                "out of memory on %s: from now on, temporary tensors take at most %d bytes at once",
                device,
                _lowered[device],
            )
        released = True
        release(device)


def _even(most: int, count: int) -> int:
    """The size of a part, if ``count`` is divided evenly into parts of at most ``most``."""
    return -(-count // max(1, -(-count // most)))


def _is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured: running out of memory ends the capture."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _assembled(
    part: Part, runs: int, points: int, rows: int, columns: int, axis: int
) -> tuple[Tensor, ...]:
    if rows >= runs and columns >= points:
        return part(slice(None), slice(None))
    places = [
        (slice(row, row + rows), slice(column, column + columns))
        for row in range(0, runs, rows)
        for column in range(0, points, columns)
    ]
    pieces = each(part, places)
    width = -(-points // columns)
    strips = [
        [torch.cat(strip, axis) for strip in zip(*pieces[first : first + width], strict=True)]
        for first in range(0, len(pieces), width)
    ]
    return tuple(torch.cat(strip) for strip in zip(*strips, strict=True))

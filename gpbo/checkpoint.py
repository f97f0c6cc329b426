"""The state of a long computation in a file, from which it continues after Ctrl-C or a crash."""

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from gpbo import archive
from gpbo.checks import path_to_write
from gpbo.errors import InvalidData
from gpbo.evidence import Model
from gpbo.options import write_model, write_strategy
from gpbo.problems import Problem
from gpbo.spec import check_equal
from gpbo.strategies import Strategy

#: Seconds between two writes: what a killed process loses, in addition to its current step.
_EVERY_S = 5.0

_T = TypeVar("_T")


class Checkpoint(Generic[_T]):
    """Keeps the latest state of a computation in a file; without a path, nowhere.

    Attributes:
        state: The latest state; at first the one in the file if it exists, else ``first``.
        options: What the states depend on.

    Args:
        path: The file's path; the file stays when the computation is done.
        options: Plain values that the states depend on.
        free: Options that may differ: if the file exists, its values are used.
        first: The state that the computation begins with.
        kinds: The dataclasses that states consist of, in addition to tensors and plain values.
        device: Where the tensors of a state are.

    Raises:
        InvalidOption: the path cannot be written, or the file has other options.
        InvalidData: the file is not a checkpoint, or one of another version of gpbo.
    """

    def __init__(
        self,
        path: str | Path | None,
        options: Mapping[str, Any],
        *,
        free: Collection[str] = (),
        first: _T,
        kinds: Sequence[type],
        device: torch.device,
    ) -> None:
        self.state: _T = first
        self._path = None if path is None else path_to_write("checkpoint", path)
        self.options: dict[str, Any] = dict(options)
        self._classes: list[Any] = [*kinds, frozenset]
        self._layout = {kind.__qualname__: [one.name for one in fields(kind)] for kind in kinds}
        if self._path is not None and self._path.exists():
            self.state, self.options = self._read(self._path, device, free)
        self._written, self._written_at = self.state, time.monotonic()

    def advance(self, state: _T) -> None:
        """Replace the state; it is written if some seconds have passed since the last write."""
        self.state = state
        if time.monotonic() - self._written_at > _EVERY_S:
            self._write()

    def close(self) -> None:
        """Write the latest state, however recent the last write was."""
        self._write()

    def _write(self) -> None:
        if self._path is not None and self._written is not self.state:
            whole = {"layout": self._layout, "options": self.options, "state": self.state}
            with archive.appearing(self._path) as file:
                torch.save(whole, file)
            self._written = self.state
        self._written_at = time.monotonic()

    def _read(
        self, path: Path, device: torch.device, free: Collection[str]
    ) -> tuple[_T, dict[str, Any]]:
        try:
            with torch.serialization.safe_globals(self._classes):  # no code in it is run
                whole = torch.load(path, map_location=device, weights_only=True)
            layout, options, state = (whole[part] for part in ("layout", "options", "state"))
        except Exception as error:  # whatever torch raises for a file that is not ours
            raise InvalidData(
                f"checkpoint={str(path)!r}: expected a file that an earlier call wrote, or a path "
                "where there is no file yet"
            ) from error
        if layout != self._layout:
            raise InvalidData(
                f"checkpoint={str(path)!r}: written by another version of gpbo: expected a path "
                "where there is no file yet"
            )
        own = {**self.options, **{name: options[name] for name in free}}
        check_equal(own, options, f"the checkpoint {str(path)!r}", "another file")
        kept: _T = state
        return kept, own


def identified(
    problem: Problem, strategy: Strategy, model: Model, **others: object
) -> dict[str, Any]:
    """What trials depend on, as plain values by option. A function, and a strategy or a model of
    the user's own, is identified only by its name, if it has one.
    """
    shift = None if problem.shift is None else problem.shift.numpy(force=True)
    return {
        "problem": problem.name,
        **others,
        "strategy": write_strategy(strategy) or strategy.name,
        "model": write_model(model),
        "bounds": problem.bounds.tolist(),
        "noise": problem.noise,
        "constraints": len(problem.constraints),
        "shift": shift if shift is None else hashlib.sha256(shift.tobytes()).hexdigest()[:8],
    }

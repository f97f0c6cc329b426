"""A tuning job in TensorBoard; needs ``pip install 'gpbo[tensorboard]'``."""

from pathlib import Path
from typing import Any

from gpbo.callbacks import Callback
from gpbo.checks import instance_of
from gpbo.errors import InvalidOption
from gpbo.integrations import needs_extra
from gpbo.optimizer import Optimizer
from gpbo.result import Result
from gpbo.trial import Trial

with needs_extra("tensorboard"):
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Callback):
    """Writes a run per trial, with its parameters and its values by step, and the best so far.

    Args:
        folder: The folder for ``tensorboard --logdir``.

    Raises:
        InvalidOption: ``folder`` is a file, or not a path.
    """

    def __init__(self, folder: str | Path) -> None:
        instance_of("folder", folder, str | Path)
        self._folder = Path(folder)
        if self._folder.is_file():
            raise InvalidOption(f"folder={str(folder)!r}: expected a folder, not a file")
        self._writers: dict[int, SummaryWriter] = {}

    def started(self, optimizer: Optimizer) -> None:
        """Begin the curve of the best value."""
        self._optimizer = optimizer
        self._best = SummaryWriter(self._folder)

    def reported(self, trial: Trial, step: int, value: float) -> None:
        """Write a point of the trial's curve."""
        self._writer(trial).add_scalar("reported", value, step)

    def ended(self, trial: Trial) -> None:
        """Write the trial's parameters with its value, if it has one."""
        writer = self._writer(trial)
        metrics = {} if trial.value is None else {"value": trial.value, **trial.measured}
        writer.add_hparams({k: _plain(v) for k, v in trial.params.items()}, metrics, run_name=".")
        if trial.reason is not None:
            writer.add_text("reason", trial.reason)
        writer.close()
        del self._writers[trial.id]
        best = self._optimizer.best
        if best is not None:
            self._best.add_scalar("best", best.value, len(self._optimizer.history.ended))

    def finished(self, result: Result) -> None:
        """Write everything to disk."""
        for writer in (*self._writers.values(), self._best):
            writer.close()

    def _writer(self, trial: Trial) -> SummaryWriter:
        if trial.id not in self._writers:
            folder = self._folder / f"trial-{trial.id:05}"
            self._writers[trial.id] = SummaryWriter(folder)
        return self._writers[trial.id]


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)

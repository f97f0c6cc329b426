"""The result of an optimization: the best trial, all trials, where the time went."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpbo.checks import whole_number
from gpbo.completion import STOPPED, Stopped
from gpbo.errors import InvalidOption
from gpbo.fitting import FitReport
from gpbo.optimizer import Optimizer
from gpbo.posterior import Recommendation
from gpbo.text import (
    ALL,
    beside_failed,
    literally,
    new_table,
    none_is_best,
    outcome,
    parameter_cells,
    parameter_headings,
    short,
)
from gpbo.trial import (
    Direction,
    Trial,
    best_of,
    incumbents,
    measured_names,
    records,
    without_value,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

#: Numbers in reasons of failures: reasons that differ only in numbers count as the same.
_NUMBER = re.compile(r"(0|\.{3})x[0-9a-fA-F]+|[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True, repr=False)
class Result:
    """The trials of one optimization, in the order in which they ended.

    Attributes:
        trials: The completed and failed trials.
        stopped: ``"budget"``: all trials were done; ``"exhausted"``: the space has no
            configuration left; ``"interrupted"``: by Ctrl-C, a signal to terminate or `gpbo stop`;
            ``"broken"``: trials could not be run, for a reason that was logged; and the reasons of
            a `gpbo.completion.Completion`: ``"runtime"``, ``"target"``, ``"failures"`` or
            ``"no improvement"``.
        objective_s: Seconds spent in the objective; with several workers, spent waiting for them.
            In a `gpbo.Tuner` the sum over the trials.
        engine_s: Seconds spent choosing trials; in a `gpbo.Tuner` mostly while other trials run.
        optimizer: Can be asked for more trials, and has the model: `Optimizer.fit`.
    """

    trials: tuple[Trial, ...]
    stopped: Stopped
    objective_s: float
    engine_s: float
    optimizer: Optimizer

    # IPython (Jedi) completes nothing on an object with a property that is a `Literal`.
    @cached_property
    def direction(self) -> Direction:
        """``"minimize"`` or ``"maximize"``."""
        return self.optimizer.direction

    @property
    def best(self) -> Trial | None:
        """The completed trial with the best value among those that meet the constraints, the first
        in a tie; None if there is none.
        """
        return best_of(self.trials, self.direction)

    def recommend(
        self, *, refit: bool = True, fixed: Mapping[str, Any] | None = None
    ) -> Recommendation:
        """The tried configuration that the model expects to be the best: `Optimizer.recommend`.

        Raises:
            InvalidData: no trial has a value, or none with these values meets the constraints.
            InvalidParams: ``fixed`` has a name or a value that the space does not have.
        """
        return self.optimizer.recommend(refit=refit, fixed=fixed)

    @property
    def interrupted(self) -> bool:
        """Whether it was interrupted: by Ctrl-C, a signal to terminate or `gpbo stop`."""
        return self.stopped == "interrupted"

    @property
    def incumbents(self) -> tuple[Trial | None, ...]:
        """The best trial so far after each trial; None before one meets the constraints."""
        return tuple(incumbents(self.trials, self.direction))

    @property
    def fit_report(self) -> FitReport | None:
        """The report of the last fit that a proposal came from; None if there was none."""
        return self.optimizer.fit_report

    def records(self) -> list[dict[str, Any]]:
        """All trials as plain values, one dict each, as `pandas.DataFrame` takes them.

        The columns are those of `Optimizer.records`.
        """
        return records(self.trials)

    def table(self, last: int | None = None) -> "Table":
        """All trials, or the ``last`` ones, as a table that `rich` prints: the best in bold, those
        without a value or with a violated constraint dim.

        Raises:
            InvalidOption: ``last`` is not a whole number, 0 or more.
        """
        if last is not None:
            whole_number("last", last, least=0)
        names, best = self.optimizer.space.names, self.best
        measured = measured_names(self.trials)
        headings = ["trial", "value", *measured, *parameter_headings(names), "origin", "s"]
        table = new_table(*headings)
        for column, heading in zip(table.columns, headings, strict=True):
            column.justify = "left" if heading in ("origin", ALL) else "right"
        first = 0 if last is None else max(0, len(self.trials) - last)
        for trial in self.trials[first:]:
            value = str(trial.status) if trial.value is None else short(trial.value)
            seconds = "" if trial.duration_s is None else f"{trial.duration_s:.1f}"
            quantities = [short(trial.measured.get(name, "")) for name in measured]
            cells = parameter_cells(names, trial.params)
            is_best = best is not None and trial.id == best.id
            style = "bold" if is_best else None if trial.feasible else "dim"
            row = str(trial.id), value, *quantities, *cells, trial.origin, seconds
            table.add_row(*literally(*row), style=style)
        return table

    def plot(self, path: str | Path | None = None) -> "Figure":
        """The convergence plot, also written to the path if given; its suffix sets the format.

        Raises:
            InvalidOption: the folder of the path does not exist, or the suffix is unknown.
        """
        from gpbo import plots

        return plots.convergence(self, path)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        own = [trial for trial in self.trials if not trial.added]
        added = len(self.trials) - len(own)
        failed, _ = without_value(own)
        counts = f"{len(failed)} failed{beside_failed(own)}"
        beside = f" and {added} added result{'s' * (added > 1)}" * bool(added)
        lines = [f"{len(own)} trials ({counts}){beside}, {STOPPED.get(self.stopped, self.stopped)}"]
        if failed:
            alike: dict[str, list[Trial]] = {}
            for trial in failed:
                reason = _NUMBER.sub("#", outcome(trial, sys.maxsize))
                alike.setdefault(reason, []).append(trial)
            commonest = max(alike.values(), key=len)
            first, count = commonest[0], len(commonest)
            others = f", and {len(failed) - count} for other reasons" * (count < len(failed))
            lines.append(outcome(first, 200) + f" ({count} times)" * (count > 1) + others)
        best = self.best
        if best is None:
            lines.append(none_is_best(self.trials))
        else:
            lines.append(f"best value {best.value:.10g} at trial {best.id}:")
            lines += [f"    {name} = {value!r}" for name, value in best.params.items()]
            lines += [f"with {name} = {short(each)}" for name, each in best.measured.items()]
        lines.append(f"time: {self.objective_s:.1f} s objective, {self.engine_s:.1f} s gpbo")
        if self.fit_report is not None:
            lines.append(f"last fit: {self.fit_report.summary()}")
        return "\n".join(lines)


def optimizer_of(source: Result | Optimizer) -> Optimizer:
    """The optimizer of a result, or the optimizer itself.

    Raises:
        InvalidOption: ``source`` is neither.
    """
    optimizer = source.optimizer if isinstance(source, Result) else source
    if isinstance(optimizer, Optimizer):
        return optimizer
    raise InvalidOption(
        f"source has type {type(source).__name__}: expected a gpbo.Result or gpbo.Optimizer"
    )

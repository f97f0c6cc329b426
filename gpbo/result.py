"""What came of an optimization: the best trial, all trials, where the time went."""

import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpbo.checks import legible, whole_number
from gpbo.errors import InvalidOption
from gpbo.fitting import FitReport
from gpbo.optimizer import Optimizer
from gpbo.posterior import Recommendation
from gpbo.trial import STOPPED_EARLY, Direction, Trial, TrialStatus, best_of, incumbents, records

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table
    from rich.text import Text

#: Why a loop or a job ended.
Stopped = Literal[
    "budget",
    "exhausted",
    "interrupted",
    "broken",
    "runtime",
    "target",
    "failures",
    "no improvement",
]

#: The same in words.
STOPPED: Mapping[str, str] = {
    "budget": "the budget was used",
    "exhausted": "nothing was left to try",
    "interrupted": "interrupted",
    "broken": "the executor broke",
    "runtime": "the time was used",
    "target": "the target was reached",
    "failures": "one trial after another failed",
    "no improvement": "no improvement any more",
}

#: A table has a column for each parameter if there are so many at most, and the terminal has room
#: for them, each so wide at least, beside so many characters of other columns; otherwise one, of
#: this heading, for all of them.
_MOST_COLUMNS, _ALL = 8, "configuration"
_NARROWEST, _BESIDE = 9, 30
#: In reasons of failures; two that differ in numbers alone are one.
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True, repr=False)
class Result:
    """The trials of one optimization, in the order in which they ended.

    Attributes:
        trials: Completed and failed ones.
        direction: ``"minimize"`` or ``"maximize"``.
        stopped: ``"budget"``: all trials were done; ``"exhausted"``: the space has no
            configuration left; ``"interrupted"``: by Ctrl-C, and what was done is here;
            ``"broken"``: the executor takes no more trials; and the reasons of a
            `gpbo.completion.Completion`: ``"runtime"``, ``"target"``, ``"failures"`` or
            ``"no improvement"``.
        objective_s: Seconds spent in the objective; with several workers, spent waiting for them.
            In a `gpbo.Tuner` the sum over the trials.
        engine_s: Seconds spent choosing what to try; in a `gpbo.Tuner` mostly while trials run.
        optimizer: Can be asked for more, and has the model: `Optimizer.fit`.
    """

    trials: tuple[Trial, ...]
    direction: Direction
    stopped: Stopped
    objective_s: float
    engine_s: float
    optimizer: Optimizer

    @property
    def best(self) -> Trial | None:
        """The completed trial with the best value of those that meet the constraints, the first of
        several; None if there is none.
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
        """Whether it was stopped: by Ctrl-C, a signal to terminate or `gpbo stop`."""
        return self.stopped == "interrupted"

    @property
    def incumbents(self) -> tuple[Trial | None, ...]:
        """The best trial so far after each of the trials; None before the first success."""
        return tuple(incumbents(self.trials, self.direction))

    @property
    def fit_report(self) -> FitReport | None:
        """The report of the last fit that a proposal came from; None if there was none."""
        return self.optimizer.fit_report

    def records(self) -> list[dict[str, Any]]:
        """All trials as plain values, a dict for each, as `pandas.DataFrame` takes them.

        The columns are those of `Optimizer.records`.
        """
        return records(self.trials)

    def table(self, last: int | None = None) -> "Table":
        """All trials, or the ``last`` ones, as a table that `rich` prints: the best in bold, those
        without a value, or that violate a constraint, dim.

        Raises:
            InvalidOption: ``last`` is no whole number, 0 or more.
        """
        if last is not None:
            whole_number("last", last, least=0)
        names = self.optimizer.space.names
        measured = measured_names(self.trials)
        headings = ["trial", "value", *measured, *parameter_headings(names), "origin", "s"]
        table = new_table(*headings)
        for column, heading in zip(table.columns, headings, strict=True):
            column.justify = "left" if heading in ("origin", _ALL) else "right"
        first = 0 if last is None else max(0, len(self.trials) - last)
        for trial in self.trials[first:]:
            value = str(trial.status) if trial.value is None else short(trial.value)
            seconds = "" if trial.duration_s is None else f"{trial.duration_s:.1f}"
            quantities = [short(trial.measured.get(name, "")) for name in measured]
            cells = parameter_cells(names, trial.params)
            best = self.best is not None and trial.id == self.best.id
            style = "bold" if best else None if trial.feasible else "dim"
            row = str(trial.id), value, *quantities, *cells, trial.origin, seconds
            table.add_row(*literally(*row), style=style)
        return table

    def plot(self, path: str | Path | None = None) -> "Figure":
        """The convergence plot, written if there is a path, whose ending decides the format.

        Raises:
            InvalidOption: the path is in no folder that exists, or has another ending.
        """
        from gpbo import plots

        return plots.convergence(self, path)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        own = [trial for trial in self.trials if trial.origin != "added"]
        added = len(self.trials) - len(own)
        failed, stopped = without_value(own)
        broken = sum(bool(trial.violated) for trial in own)
        counts = f"{len(failed)} failed" + f", {len(stopped)} {STOPPED_EARLY}" * bool(stopped)
        counts += f", {broken} beyond a constraint" * bool(broken)
        beside = f" beside {added} added result{'s' * (added > 1)}" * bool(added)
        lines = [f"{len(own)} trials ({counts}){beside}, {STOPPED.get(self.stopped, self.stopped)}"]
        if failed:
            alike: dict[str, list[Trial]] = {}
            for trial in failed:
                reason = _NUMBER.sub("#", outcome(trial, sys.maxsize))
                alike.setdefault(reason, []).append(trial)
            first, *more = max(alike.values(), key=len)
            count = 1 + len(more)
            others = f", and {len(failed) - count} for other reasons" * (count < len(failed))
            lines.append(outcome(first, 200) + f" ({count} times)" * (count > 1) + others)
        if self.best is None:
            lines.append(none_is_best(self.trials))
        else:
            lines.append(f"best value {self.best.value:.10g} at trial {self.best.id}:")
            lines += [f"    {name} = {value!r}" for name, value in self.best.params.items()]
            lines += [f"with {name} = {short(each)}" for name, each in self.best.measured.items()]
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


def without_value(trials: Iterable[Trial]) -> tuple[list[Trial], list[Trial]]:
    """The trials that failed by themselves, and those that their job stopped early."""
    ended = [trial for trial in trials if trial.status is TrialStatus.FAILED]
    stopped = [trial for trial in ended if trial.stopped_early]
    return [trial for trial in ended if not trial.stopped_early], stopped


def none_is_best(trials: Iterable[Trial]) -> str:
    """Why there is no best trial."""
    valued = any(trial.value is not None for trial in trials)
    return "no trial meets the constraints" if valued else "no trial has a value"


def measured_names(trials: Iterable[Trial]) -> list[str]:
    """What was measured with the values."""
    return list(dict.fromkeys(name for trial in trials for name in trial.measured))


def new_table(*headings: str) -> "Table":
    """An empty table with these headings."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in literally(*headings):
        table.add_column(heading, overflow="fold")  # a number must not lose its exponent
    return table


def parameter_headings(names: Sequence[str]) -> list[str]:
    """Of a column for each parameter, or of one for all of them if they are many or wide."""
    return [*names] if _have_columns(names) else [_ALL]


def parameter_cells(names: Sequence[str], params: Mapping[str, Any]) -> list[str]:
    """A configuration in the columns of `parameter_headings`."""
    if _have_columns(names):
        return [short(params[name]) for name in names]
    return [short_params(params)]


def _have_columns(names: Sequence[str]) -> bool:
    width = sum(max(len(name), _NARROWEST) + 1 for name in names)
    room = shutil.get_terminal_size().columns - _BESIDE
    return len(names) <= _MOST_COLUMNS and width <= room


def literally(*cells: str) -> "list[Text]":
    """Text as it is: brackets in a name, a choice or a reason are no markup."""
    from rich.text import Text

    return list(map(Text, cells))


def short(value: object) -> str:
    """A value for people: floats with four digits, and of names of files what can be printed."""
    return f"{value:.4g}" if isinstance(value, float) else legible(str(value))


def short_params(params: Mapping[str, Any]) -> str:
    """A configuration on one line."""
    return "  ".join(f"{name}={short(value)}" for name, value in params.items())


def outcome(trial: Trial, most: int = 40) -> str:
    """A trial's value, and what it violates, or the first line of why it has none, in so many
    characters at most.
    """
    if trial.value is not None:
        beyond = f", violates {', '.join(trial.violated)}" if trial.violated else ""
        return cut(f"{short(trial.value)}{beyond}", most)
    if trial.reason is None:
        return str(trial.status)
    reason = trial.reason.removeprefix(f"trial {trial.id}: ")
    line = cut(reason.splitlines()[0] if reason else "", most)
    return line if trial.stopped_early else f"failed: {line}"


def cut(text: str, most: int) -> str:
    """A text in so many characters at most."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def cut_within(text: str, most: int) -> str:
    """The same with its two ends, since those of a list may differ at the end alone."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def design_end(trials: Sequence[Trial]) -> int:
    """How many trials, from the first, were done when the initial design was."""
    return max((i for i, t in enumerate(trials, 1) if t.origin == "design"), default=0)

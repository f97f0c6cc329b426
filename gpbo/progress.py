"""Progress of a running optimization: a live panel on a terminal, elsewhere a line per trial; for
a job, whose panel needs its storage, a line per trial everywhere.
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gpbo.callbacks import Callback
from gpbo.state import State
from gpbo.terminal import console as standard_error
from gpbo.terminal import is_terminal
from gpbo.text import outcome, short, short_params
from gpbo.trial import Trial

if TYPE_CHECKING:
    from gpbo.optimizer import Optimizer

#: Without a terminal, a long run prints about this many lines, plus one for each improvement.
_LINES = 100
#: Many runs together print about this many lines.
_BATCH_LINES = 20


def panel(state: State) -> RenderableType:
    """The state as a panel for a terminal."""
    bar = Table.grid(padding=(0, 2))
    failed = f", {state.failed} failed" if state.failed else ""
    bar.add_row(
        ProgressBar(total=state.budget, completed=state.done, width=40),
        Text(f"{state.done}/{state.budget} trials{failed}, {state.left} left"),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    if state.best is None:
        facts.add_row("best", "none yet")
    else:
        where = f"  trial {state.best.id}, {state.best.origin}"
        facts.add_row("best", Text.assemble((short(state.best.value), "bold"), (where, "dim")))
        facts.add_row("", Text(short_params(state.best.params)))
    facts.add_row("now", Text(_activity(state)))
    facts.add_row("time", Text(_times(state)))
    return Panel(Group(bar, facts), title=Text(state.title), title_align="left", expand=False)


class Lines(Callback):
    """Prints a line on the standard error stream for each trial that ended."""

    def __init__(self) -> None:
        self._console = standard_error()

    def started(self, optimizer: "Optimizer") -> None:
        """Keep the optimizer, for its best trial."""
        self._optimizer = optimizer

    def ended(self, trial: Trial) -> None:
        """Print the trial: its outcome, the best value so far and its configuration."""
        best, mark = _best(self._optimizer.best, trial)
        text = f"trial {trial.id}: {outcome(trial, 200)}  best {best}{mark}  "
        text += short_params(trial.params)
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def line(state: State, trial: Trial) -> str:
    """A trial that ended and the state after it, as one line of text."""
    width = len(str(state.budget))
    best, mark = _best(state.best, trial)
    params = f"  {short_params(trial.params)}" if mark else ""
    return (
        f"{state.done:>{width}}/{state.budget}  {outcome(trial)}  best {best}  "
        f"[{_times(state)}]{mark}{params}"
    )


@contextmanager
def shown(
    snapshot: Callable[[], State], console: Console | None = None
) -> Iterator[Callable[[Trial], None]]:
    """Inside, show an optimization; call the yielded function with each trial that ended.

    Args:
        snapshot: Returns the current state; called from another thread to update the time.
        console: Where to show it; by default the standard error stream.
    """
    console = standard_error() if console is None else console
    if console.is_terminal:
        with Live(
            get_renderable=lambda: panel(snapshot()),
            console=console,
            # Output that goes to a file must not appear on the terminal.
            redirect_stdout=is_terminal(sys.stdout),
        ):
            yield lambda trial: None
        return

    def print_line(trial: Trial) -> None:
        state = snapshot()
        improved = state.best is not None and state.best.id == trial.id
        if improved or state.done % max(1, state.budget // _LINES) == 0:
            console.print(line(state, trial), markup=False, highlight=False, soft_wrap=True)

    yield print_line


@contextmanager
def counted(
    title: str, total: int, console: Console | None = None, *, unit: str = "trials"
) -> Iterator[Callable[[int, float], None]]:
    """Inside, show many runs together; call the yielded function with the count and the regret.

    Args:
        title: What is run.
        total: The final count: trials of all runs together, or another unit.
        console: Where to show it; by default the standard error stream.
        unit: What is counted.
    """
    console = standard_error() if console is None else console
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}, median regret {{task.fields[regret]}}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=is_terminal(sys.stdout),
    ) as progress:
        task = progress.add_task(title, total=total, regret="none yet")
        lines = 0

        def show(done: int, regret: float) -> None:
            nonlocal lines
            told = "none yet" if math.isinf(regret) else short(regret)
            progress.update(task, completed=done, regret=told)
            if not console.is_terminal and done * _BATCH_LINES // total > lines:
                lines = done * _BATCH_LINES // total
                spent = progress.tasks[0].elapsed or 0.0
                text = f"{title}: {done}/{total} {unit}, median regret {told}  [{spent:.0f} s]"
                console.print(text, markup=False, highlight=False, soft_wrap=True)

        yield show


def _activity(state: State) -> str:
    if state.left == 0:
        return "done"
    if not state.running:
        return f"choosing what to try, {state.current_s:.1f} s"
    last = state.running[-1]
    if len(state.running) == 1:
        return f"evaluating trial {last.id} ({last.origin}), {state.current_s:.1f} s"
    return f"evaluating {len(state.running)} trials, the latest is {last.id} ({last.origin})"


def _best(best: Trial | None, trial: Trial) -> tuple[str, str]:
    """The best value so far, and a mark if this trial has it."""
    if best is None:
        return "none", ""
    return short(best.value), " *" if best.id == trial.id else ""


def _times(state: State) -> str:
    minutes, seconds = divmod(int(state.elapsed_s), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours}:{minutes:02}:{seconds:02} elapsed, "
        f"objective {state.objective_s:.1f} s, gpbo {state.engine_s:.1f} s"
    )

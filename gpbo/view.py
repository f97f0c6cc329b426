"""A stored job, for people as a panel of tables, for programs as plain values."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gpbo.completion import STOPPED
from gpbo.record import Attempt, Record
from gpbo.text import (
    beside_failed,
    literally,
    new_table,
    none_is_best,
    outcome,
    parameter_cells,
    parameter_headings,
    short,
    short_params,
)
from gpbo.trial import Trial, TrialStatus, best_of, without_value

if TYPE_CHECKING:
    from rich.console import RenderableType

#: How many trials a panel shows, the latest ones.
_SHOWN = 12


def plain(record: Record) -> dict[str, Any]:
    """Everything but the engine's state, as values for JSON: NaN and infinities are text."""
    everything = {
        "name": record.name,
        "created_at": record.created_at,
        "ended": record.ended,
        "spec": record.spec,
        "best": None if (best := _best(record)) is None else best.id,
        "trials": [asdict(trial) for trial in record.trials],
        "finished": list(record.finished),
        "queue": list(record.queue),
        "attempts": [asdict(attempt) for attempt in record.attempts],
        "metrics": [asdict(metric) for metric in record.metrics],
        "fits": [asdict(fit) for fit in record.fits],
    }
    return {name: _finite(value) for name, value in everything.items()}


def _finite(value: Any) -> Any:
    """The value with text in place of NaN and infinities, at any depth."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_finite, value))
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def panel(record: Record, budget: int | None = None, now: float | None = None) -> "RenderableType":
    """The state of the job, what its workers do, and its latest trials, the last one first, since
    a terminal may have room for the first lines only.
    """
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    now = time.time() if now is None else now
    return Panel(
        Group(Text(summary(record, budget)), *_workers(record, now), _trials(record)),
        title=Text(f"gpbo {record.spec['direction']} {record.name}"),
        title_align="left",
        expand=False,
    )


def summary(record: Record, budget: int | None = None) -> str:
    """Two lines: counts and why the job ended, then the best trial.

    If the budget is known, added results are not counted.
    """
    finished = [trial for trial in _finished(record) if not budget or not trial.added]
    failed, _ = without_value(finished)
    ended = record.ended
    state = "has not ended" if ended is None else f"ended: {STOPPED.get(ended, ended)}"
    missing = f"{len(failed)} of them failed{beside_failed(finished)}"
    of_budget = f" of {budget}" if budget else ""
    pending = {trial.id for trial in record.trials if trial.status is TrialStatus.PENDING}
    waiting = len(pending - {attempt.trial for attempt in _running(record)})
    missing += f", {waiting} pending" * bool(waiting)
    counts = f"{len(finished)}{of_budget} trials ended, {missing}; the job {state}"
    best = _best(record)
    if best is None:
        return f"{counts}\n{none_is_best(record.trials)}"
    measured = f"  with {short_params(best.measured)}" if best.measured else ""
    found = f"best {short(best.value)} at trial {best.id}: {short_params(best.params)}{measured}"
    return f"{counts}\n{found}"


def _best(record: Record) -> Trial | None:
    return best_of(_finished(record), record.spec["direction"])


def _finished(record: Record) -> list[Trial]:
    by_id = {trial.id: trial for trial in record.trials}
    return [by_id[number] for number in record.finished]


def _workers(record: Record, now: float) -> "list[RenderableType]":
    """A table of what the workers do, if any is busy."""
    table = new_table("worker", "trial", "attempt", "s", "step", "reported")
    last = {(m.trial, m.attempt): m for m in record.metrics}
    running = sorted(_running(record), key=lambda attempt: attempt.worker)
    for attempt in running:
        metric = last.get((attempt.trial, attempt.number))
        table.add_row(
            str(attempt.worker),
            str(attempt.trial),
            str(attempt.number),
            f"{now - attempt.started_at:.0f}",
            "" if metric is None else str(metric.step),
            "" if metric is None else short(metric.value),
        )
    return [table] if running else []


def _running(record: Record) -> list[Attempt]:
    if record.ended is not None:
        return []
    return [attempt for attempt in record.attempts if attempt.ended_at is None]


def _trials(record: Record) -> "RenderableType":
    names = list(record.spec["space"])
    table = new_table("trial", "result", *parameter_headings(names), "origin")
    best = _best(record)
    for trial in _finished(record)[: -_SHOWN - 1 : -1]:
        style = "bold" if trial is best else None if trial.feasible else "dim"
        cells = parameter_cells(names, trial.params)
        row = str(trial.id), outcome(trial), *cells, trial.origin
        table.add_row(*literally(*row), style=style)
    return table

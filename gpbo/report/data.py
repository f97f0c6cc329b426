"""What each plot of a report shows: plain values from a stored job, in the user's units."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from gpbo import slices
from gpbo.choices import Listed
from gpbo.errors import InvalidOption
from gpbo.fitting import Model
from gpbo.importance import Importance, importance_data
from gpbo.optimizer import Optimizer
from gpbo.options import write_model
from gpbo.parameters import Parameter
from gpbo.record import Attempt, Record
from gpbo.report.axes import Axis, axis, position, value_axis
from gpbo.strategies import RandomSearch
from gpbo.text import outcome, short
from gpbo.trial import (
    STOPPED_EARLY,
    Trial,
    TrialStatus,
    best_of,
    best_shown,
    design_end,
    incumbents,
    is_of_early_stop,
    measured_names,
    without_value,
)


def restored(record: Record) -> Optimizer:
    """The optimizer of a stored job, to look at, with the model of its last fit if there is one.

    There is none if the model has a prior of the user's own, which is not stored.
    """
    if record.spec["model"] is None:
        plain = {**record.spec, "model": write_model(Model())}
        record = replace(record, engine=None, spec=plain)
    try:
        return Optimizer.of_record(record, device="cpu")
    except InvalidOption:  # a strategy of the user's own, which is not needed here
        return Optimizer.of_record(record, RandomSearch(), device="cpu")


@dataclass(frozen=True)
class Progress:
    """Trials in the order in which they ended.

    Attributes:
        trials: Their ids.
        values: Their values; None for failed ones.
        best: The best value so far; None before there is one.
        feasible: Whether each has a value and meets the constraints.
        design: The number of trials up to the last one of the initial design.
        about: A description of each.
    """

    trials: tuple[int, ...]
    values: tuple[float | None, ...]
    best: tuple[float | None, ...]
    feasible: tuple[bool, ...]
    design: int
    about: tuple[str, ...]


def progress_data(optimizer: Optimizer) -> Progress:
    """The values, and the best value so far, over the trials."""
    finished = optimizer.finished
    best = incumbents(finished, optimizer.direction)
    return Progress(
        trials=tuple(trial.id for trial in finished),
        values=tuple(trial.value for trial in finished),
        best=tuple(None if trial is None else trial.value for trial in best),
        feasible=tuple(trial.feasible for trial in finished),
        design=design_end(finished),
        about=tuple(map(about, finished)),
    )


def about(trial: Trial) -> str:
    """A trial in a few lines."""
    return "\n".join(
        [f"trial {trial.id} ({trial.origin}): {outcome(trial)}"]
        + [f"{name} = {short(value)}" for name, value in trial.params.items()]
        + [f"with {name} = {short(value)}" for name, value in trial.measured.items()]
    )


@dataclass(frozen=True)
class Coordinates:
    """Trials that meet the constraints, each a line through the axes of the parameters and the
    value.

    Attributes:
        axes: The axes of the parameters, then that of the value.
        positions: Per axis, where each trial crosses it; values beyond the axis lie at its end.
    """

    axes: tuple[Axis, ...]
    positions: tuple[tuple[float, ...], ...]


def coordinates_data(
    optimizer: Optimizer, parameters: Sequence[Parameter] | None = None
) -> Coordinates:
    """The trials that meet the constraints in parallel coordinates: these parameters, or all."""
    parameters = optimizer.space.parameters if parameters is None else parameters
    trials = [trial for trial in optimizer.completed if trial.feasible]
    values = [trial.value for trial in trials if trial.value is not None]
    best = best_of(trials, optimizer.direction)
    last, is_log = value_axis(values, [] if best is None or best.value is None else [best.value])
    least = 10.0**last.low if is_log else last.low
    shown = [max(value, least) for value in values]
    placed = [min(math.log10(value) if is_log else value, last.high) for value in shown]
    return Coordinates(
        axes=(*map(axis, parameters), last),
        positions=(
            *(tuple(_place(p, trial) for trial in trials) for p in parameters),
            tuple(placed),
        ),
    )


@dataclass(frozen=True)
class Slice:
    """The trials over one parameter, and the surrogate through the best of them.

    Attributes:
        axis: The parameter's axis.
        listed: Whether its values are listed, so that nothing lies between them.
        observed: Positions and values of the completed trials.
        about: A description of each of them.
        closeness: For each of them, from 1 for the best down to 0 for the farthest from it.
        feasible: Whether each of them meets the constraints.
        failed: Positions of the trials that failed or were stopped early.
        best: Which of the completed trials is the best; None if there are none.
        curve: The surrogate, at positions on this axis; None without a model.
    """

    axis: Axis
    listed: bool
    observed: tuple[tuple[float, float], ...]
    about: tuple[str, ...]
    closeness: tuple[float, ...]
    feasible: tuple[bool, ...]
    failed: tuple[float, ...]
    best: int | None
    curve: slices.Slice | None


def slices_of(
    optimizer: Optimizer, parameters: Sequence[Parameter] | None = None
) -> tuple[Slice, ...]:
    """A slice along these parameters, or all, by the last fit conditioned on all results."""
    completed = optimizer.completed
    failed, stopped = without_value(optimizer.finished)
    best = best_shown(completed, optimizer.direction)
    near = () if best is None else slices.nearness(optimizer.space, completed, best)
    curves, told = _curves(optimizer), tuple(map(about, completed))
    return tuple(
        Slice(
            axis=axis(parameter),
            listed=isinstance(parameter, Listed),
            observed=tuple((_place(parameter, t), float(t.value or 0.0)) for t in completed),
            about=told,
            closeness=near,
            feasible=tuple(trial.feasible for trial in completed),
            failed=tuple(_place(parameter, trial) for trial in [*failed, *stopped]),
            best=None if best is None else completed.index(best),
            curve=curves.get(parameter.name),
        )
        for parameter in (optimizer.space.parameters if parameters is None else parameters)
    )


def _curves(optimizer: Optimizer) -> dict[str, slices.Slice]:
    if optimizer.fit_report is None:
        return {}
    curves = {}
    parts = slices.slices_data(optimizer, refit=False)
    for parameter, part in zip(optimizer.space.parameters, parts, strict=True):
        places = part.positions  # numbers in the list for listed values
        if not isinstance(parameter, Listed):
            places = tuple(position(parameter, value) for value in places)
        curves[part.name] = replace(part, positions=places)
    return curves


def importance_of(optimizer: Optimizer) -> tuple[Importance, ...]:
    """The parameters' shares of relevance by the last fit; none without a model."""
    return () if optimizer.fit_report is None else importance_data(optimizer, refit=False)


@dataclass(frozen=True)
class Bar:
    """An attempt on the timeline, in seconds since the job was created.

    Attributes:
        worker: The worker that ran it.
        start, end: When; a running attempt ends now.
        outcome: ``"completed"``, ``"failed"``, ``"stopped early"``, ``"interrupted"`` (with the
            job), ``"running"`` or ``"late"``.
        about: A description.
    """

    worker: int
    start: float
    end: float
    outcome: str
    about: str


def timeline_data(record: Record, now: float) -> tuple[Bar, ...]:
    """What the workers did when; ``now`` in seconds since the epoch."""
    attempts = record.attempts if record.ended is None else record.ended_attempts()
    return tuple(
        Bar(
            worker=attempt.worker,
            start=attempt.started_at - record.created_at,
            end=(now if attempt.ended_at is None else attempt.ended_at) - record.created_at,
            outcome=_outcome(attempt),
            about=_about_attempt(attempt),
        )
        for attempt in attempts
    )


def utilisation(bars: Sequence[Bar]) -> float | None:
    """The share of the workers' time that trials took.

    The time counts from the first start to the last end, without that between an interruption of
    the job and the next start.
    """
    if not bars:
        return None
    workers = 1 + max(bar.worker for bar in bars)
    by_start = sorted(bars, key=lambda bar: bar.start)
    latest = list(accumulate(by_start, lambda *two: max(two, key=_last)))
    span = latest[-1].end - by_start[0].start
    span -= sum(
        after.start - before.end
        for before, after in zip(latest, by_start[1:], strict=False)
        if before.outcome == "interrupted" and after.start > before.end
    )
    return sum(bar.end - bar.start for bar in bars) / (workers * span) if span > 0 else None


def _last(bar: Bar) -> tuple[float, bool]:
    """A key that is greatest for the bar that ended last; in a tie, for an interrupted one."""
    return bar.end, bar.outcome == "interrupted"


def _outcome(attempt: Attempt) -> str:
    if attempt.late:
        return "late"
    if attempt.ended_at is None:
        return "running"
    if attempt.value is not None:
        return "completed"
    if attempt.interrupted:
        return "interrupted"
    return STOPPED_EARLY if is_of_early_stop(attempt.reason) else "failed"


def _about_attempt(attempt: Attempt) -> str:
    what = _outcome(attempt) if attempt.value is None else short(attempt.value)
    reason = (attempt.reason or "").split("\n")[0]
    return f"trial {attempt.trial}, attempt {attempt.number}: {what}" + f"\n{reason}" * bool(reason)


@dataclass(frozen=True)
class LearningCurve:
    """The values that an attempt reported, by step."""

    trial: int
    steps: tuple[int, ...]
    values: tuple[float, ...]
    completed: bool


def learning_data(record: Record) -> tuple[LearningCurve, ...]:
    """The intermediate values of each trial's last attempt that reported any."""
    reported: dict[int, dict[int, list[tuple[int, float]]]] = defaultdict(dict)
    for metric in record.metrics:
        told = reported[metric.trial].setdefault(metric.attempt, [])
        told.append((metric.step, metric.value))
    completed = {t.id for t in record.trials if t.status is TrialStatus.COMPLETED}
    curves = []
    for trial, attempts in reported.items():
        steps, values = zip(*attempts[max(attempts)], strict=True)
        curves.append(LearningCurve(trial, steps, values, trial in completed))
    return tuple(curves)


@dataclass(frozen=True)
class Diagnostics:
    """How the fits went, one after another; None for what a point estimate does not have.

    Attributes:
        sizes: How many results each fit used.
        columns: The numbers of `gpbo.FitReport`, by name, one value per fit.
    """

    sizes: tuple[int, ...]
    columns: dict[str, tuple[Any, ...]]


def diagnostics_data(record: Record) -> Diagnostics:
    """The reports of all fits that were recorded."""
    reports = [fit.report for fit in record.fits]
    names = list(reports[0]) if reports else []
    return Diagnostics(
        tuple(fit.size for fit in record.fits),
        {name: tuple(report.get(name) for report in reports) for name in names},
    )


@dataclass(frozen=True)
class TrialRow:
    """A trial as a row of a table: the text of its cells, and numbers to sort by if it has any."""

    trial: int
    status: str
    value: float | None
    outcome: str
    reason: str | None
    params: tuple[Any, ...]
    measured: tuple[float | str, ...]
    origin: str
    seconds: float | None
    attempts: int
    best: bool


def table_data(record: Record, optimizer: Optimizer) -> tuple[TrialRow, ...]:
    """All trials, by id."""
    best, measured = optimizer.best, measured_names(optimizer.trials)
    tried = defaultdict(list)
    for attempt in record.attempts:
        tried[attempt.trial].append(attempt)
    return tuple(
        TrialRow(
            trial=trial.id,
            status=str(trial.status),
            value=trial.value,
            outcome=outcome(trial),
            reason=trial.reason,
            params=tuple(trial.params[name] for name in optimizer.space.names),
            measured=tuple(trial.measured.get(name, "") for name in measured),
            origin=trial.origin,
            seconds=_seconds(trial, tried[trial.id]),
            attempts=len(tried[trial.id]),
            best=best is not None and trial.id == best.id,
        )
        for trial in optimizer.trials
    )


def _seconds(trial: Trial, attempts: Sequence[Attempt]) -> float | None:
    """How long its last attempt took; if no attempts were recorded, the time from ask to end."""
    if not attempts:
        return trial.duration_s
    last = attempts[-1]
    return None if last.ended_at is None else last.ended_at - last.started_at


def _place(parameter: Parameter, trial: Trial) -> float:
    return position(parameter, trial.params[parameter.name])

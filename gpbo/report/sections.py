"""The sections of a job's page: each has a heading, an explanation, and plots or a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from gpbo.importance import Importance
from gpbo.optimizer import Optimizer
from gpbo.parameters import Parameter
from gpbo.record import Record
from gpbo.report import data, figures
from gpbo.text import short
from gpbo.trial import measured_names

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_NO_TRIAL = "No trial has ended yet."
#: The most parameters that can each have a readable axis; of more, the most important are shown.
_MOST_PARAMETERS = 15
#: The numbers of a fit that the page lists, and their names; a point estimate has three of them.
_FIT = {
    "inference": "inference of the hyperparameters",
    "status": "outcome",
    "rhat": "R-hat of the worst hyperparameter",
    "ess_bulk": "effective sample size, bulk",
    "ess_tail": "effective sample size, tails",
    "divergences": "divergences",
    "depth_saturation": "transitions cut off at the maximum tree depth",
    "leapfrog_steps": "leapfrog steps per chain",
    "transitions": "transitions kept per chain",
    "warm": "continued from the previous fit",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class Section:
    """A section of the page: a heading, an explanation, and plots or tables."""

    key: str
    title: str
    words: str
    body: str


def sections_of(record: Record, optimizer: Optimizer, now: float) -> Iterator[Section]:
    """All sections; ``now`` in seconds since the epoch."""
    shares = data.importance_of(optimizer)
    shown, of_many = _shown(optimizer, shares)
    yield _convergence(optimizer)
    if curves := data.learning_data(record):
        plot = _plot(figures.learning(curves, optimizer.direction), "curves")
        words = "What the trials reported while they ran."
        yield Section("learning", "Intermediate values", words, plot)
    yield _coordinates(optimizer, shown, of_many)
    yield _slices(record, optimizer, shown, of_many)
    yield _importance(record, optimizer, shares)
    yield _timeline(record, now)
    yield _diagnostics(record, optimizer)
    names = [*measured_names(optimizer.trials), *optimizer.space.names]
    table = _table(data.table_data(record, optimizer), names)
    yield Section("trials", "Trials", "Click on a heading to sort.", table)


def _convergence(optimizer: Optimizer) -> Section:
    progress = data.progress_data(optimizer)
    return Section(
        "convergence",
        "Convergence",
        "The best value so far, over the trials in the order in which they ended. Crosses are "
        "trials without a value, rings trials that violate a constraint. Point at a trial to see "
        "its configuration.",
        _plot(figures.progress(progress, optimizer.direction), "progress")
        if progress.trials
        else _nothing(_NO_TRIAL),
    )


def _coordinates(optimizer: Optimizer, shown: Sequence[Parameter], of_many: str) -> Section:
    completed = optimizer.completed
    feasible = [trial for trial in completed if trial.feasible]
    if feasible:
        coordinates = data.coordinates_data(optimizer, shown)
        body = _plot(figures.coordinates(coordinates, optimizer.direction), "coordinates")
    else:
        body = _nothing("No trial meets the constraints." if completed else "No trial has a value.")
    left_out = ""
    if len(feasible) < len(completed):
        left_out = " Trials that violate a constraint are left out."
    return Section(
        "trials-in-parallel",
        "Parallel coordinates",
        "Each line is a completed trial. Drag along an axis to select trials, or drag an axis by "
        "its name to move it. Values far from most others lie at the end of their "
        f"axis.{left_out}{of_many}",
        body,
    )


def _slices(
    record: Record, optimizer: Optimizer, shown: Sequence[Parameter], of_many: str
) -> Section:
    about = _why_no_model(record, optimizer)
    if optimizer.fit_report is not None:
        about = (
            "The line is the median of the surrogate along one parameter through the best trial; "
            "the band holds about 95 % of its distribution, over the draws of the hyperparameters."
            + _fitted(optimizer)
        )
    return Section(
        "slices",
        "Parameters",
        f"The trials over each parameter: the nearer to the best one, the darker. {about}{of_many}",
        _plot(figures.slices(data.slices_of(optimizer, shown)), "surrogate")
        if optimizer.finished
        else _nothing(_NO_TRIAL),
    )


def _importance(record: Record, optimizer: Optimizer, shares: Sequence[Importance]) -> Section:
    words = (
        "How much of the variation that the model sees lies along each parameter: the length of "
        "its range in lengthscales, as a share of the sum over all parameters."
    )
    if not shares:
        body = _nothing(_why_no_model(record, optimizer))
        return Section("importance", "Importance", words, body)
    draws = optimizer.fit(refit=False).surrogate.draws
    spread = "A point estimate of the hyperparameters has no uncertainty to show."
    if draws > 1:
        spread = (
            f"The bar is the median of {draws} draws of the hyperparameters; the line spans 90 % "
            "of them."
        )
    words = f"{words}{_fitted(optimizer)} {spread}"
    return Section("importance", "Importance", words, _plot(figures.importance(shares), "shares"))


def _timeline(record: Record, now: float) -> Section:
    bars = data.timeline_data(record, now)
    busy = data.utilisation(bars)
    return Section(
        "timeline",
        "Workers",
        "Which worker ran which trial, and when."
        + ("" if busy is None else f" Trials took {busy:.1%} of the workers' time."),
        _plot(figures.timeline(bars), "workers")
        if bars
        else _nothing("No attempts were recorded: the trials were not run by a tuning job."),
    )


def _diagnostics(record: Record, optimizer: Optimizer) -> Section:
    return Section(
        "diagnostics",
        "How the fits went",
        "How well each fit sampled the posterior of the hyperparameters. A first fit whose R-hat "
        "is above the dotted line samples longer.",
        _plot(figures.diagnostics(data.diagnostics_data(record)), "fits") + _last_fit(record)
        if record.fits
        else _nothing(_why_no_model(record, optimizer)),
    )


def _fitted(optimizer: Optimizer) -> str:
    size = optimizer.fitted_size
    return f" The model's hyperparameters are those of the last fit, to {size} results."


def _shown(optimizer: Optimizer, shares: Sequence[Importance]) -> tuple[Sequence[Parameter], str]:
    """The parameters that fit into plots of all parameters, and a sentence about the others."""
    every = optimizer.space.parameters
    if len(every) <= _MOST_PARAMETERS:
        return every, ""
    names = [share.name for share in shares] or optimizer.space.names
    shown = {*names[:_MOST_PARAMETERS]}
    which = f"{_MOST_PARAMETERS} most important" if shares else f"first {_MOST_PARAMETERS}"
    words = f" Only the {which} of {len(every)} parameters are shown."
    return [parameter for parameter in every if parameter.name in shown], words


def _why_no_model(record: Record, optimizer: Optimizer) -> str:
    if record.spec["strategy"] is not None and not optimizer.strategy.uses_model:
        return f"The strategy {optimizer.strategy.name!r} has no model."
    if record.engine is not None and record.spec["model"] is None:
        return "The model has a user-defined prior, which is not stored."
    return "No model has been fitted yet."


def _nothing(words: str) -> str:
    return f'<p class="nothing">{escape(words)}</p>'


def _plot(figure: "Figure", key: str) -> str:
    text: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"plot-{key}",
        config={"responsive": True, "displaylogo": False},
    )
    return text


def _last_fit(record: Record) -> str:
    last = record.fits[-1]
    names = _FIT if last.report["inference"] != "map" else ("inference", "status", "seconds")
    facts = {
        _FIT[name]: _fit_value(name, last.report[name])
        for name in names
        if last.report.get(name) is not None
    }
    rows = "".join(
        f"<tr><th>{escape(words)}</th><td>{escape(value)}</td></tr>"
        for words, value in facts.items()
    )
    caption = f"The last fit, to {last.size} results"
    return f'<table class="facts"><caption>{caption}</caption>{rows}</table>'


def _fit_value(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.1%}" if name == "depth_saturation" else short(value)


def _table(rows: Sequence[data.TrialRow], names: Sequence[str]) -> str:
    headings = ["trial", "result", *names, "origin", "seconds", "attempts"]
    head = "".join(f'<th scope="col"><button>{escape(name)}</button></th>' for name in headings)
    body = "".join(map(_row, rows))
    return (
        f'<div class="wide"><table id="table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(row: data.TrialRow) -> str:
    cells = [
        (row.trial, row.trial),
        (row.outcome, row.value),
        *((short(value), value) for value in (*row.measured, *row.params)),
        (row.origin, row.origin),
        ("" if row.seconds is None else f"{row.seconds:.1f}", row.seconds),
        (row.attempts, row.attempts),
    ]
    shown = "".join(f"<td{_sort_key(key)}>{escape(str(text))}</td>" for text, key in cells)
    reason = "" if row.reason is None else f' title="{escape(row.reason)}"'
    return f'<tr class="{escape(row.status)}{" best" if row.best else ""}"{reason}>{shown}</tr>'


def _sort_key(key: object) -> str:
    """An attribute with a number to sort by, in full precision; text sorts as it is."""
    if isinstance(key, bool) or not isinstance(key, int | float):
        return ""
    return f' data-key="{key!r}"'

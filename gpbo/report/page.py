"""A stored job as one HTML page that holds all it needs: no network, nothing beside it."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from gpbo.checks import legible, path_to_write
from gpbo.importance import Importance
from gpbo.optimizer import Optimizer
from gpbo.parameters import Parameter
from gpbo.posterior import Recommendation
from gpbo.record import Record
from gpbo.report import data
from gpbo.result import short, short_params
from gpbo.view import summary

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

#: So many parameters have an axis of their own that can be read; of more, those that matter most.
_MOST_PARAMETERS = 15
#: The numbers of a fit that the page lists, in words; those of a point estimate are three.
_FIT = {
    "inference": "hyperparameters by",
    "status": "outcome",
    "rhat": "R-hat, the worst hyperparameter's",
    "ess_bulk": "effective sample size, bulk",
    "ess_tail": "effective sample size, tails",
    "divergences": "divergences",
    "depth_saturation": "share cut off at maximal tree depth",
    "leapfrog_steps": "leapfrog steps of a chain",
    "transitions": "transitions kept of a chain",
    "warm": "went on from the fit before",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, what to know, and plots or tables."""

    key: str
    title: str
    words: str
    body: str


def write(record: Record, path: str | Path, *, now: float | None = None) -> None:
    """Write the report of a stored job, finished or not.

    Args:
        path: Of the HTML file.
        now: When trials that run end in the timeline, in seconds since the epoch; by default now.

    Raises:
        InvalidOption: the path is in no folder that exists.
    """
    target = path_to_write("html", path)
    text = html(record, time.time() if now is None else now)
    target.write_text(legible(text), encoding="utf-8")


def html(record: Record, now: float) -> str:
    """The page as text; ``now`` in seconds since the epoch."""
    from plotly.offline import get_plotlyjs

    optimizer = data.restored(record)
    sections = list(_sections(record, optimizer, now))
    links = "".join(f'<a href="#{part.key}">{escape(part.title)}</a>' for part in sections)
    parts = "".join(
        f'<section id="{part.key}"><h2>{escape(part.title)}</h2>'
        f"<p>{escape(part.words)}</p>{part.body}</section>"
        for part in sections
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>gpbo: {escape(record.name)}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>"
        f"<header><h1>{escape(record.name)}</h1>{_head(record, optimizer)}"
        f"<nav>{links}</nav></header><main>{parts}</main>"
        f"<footer>gpbo, {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(now))}</footer>"
        f"<script>{_SORTING}</script></body></html>"
    )


def _recommendation(best: Recommendation) -> str:
    first, more = best.trials[0], len(best.trials) - 1
    which = f"trial {first}" + (f" and {more} more of the same" if more else "")
    median, low, high = map(short, (best.median, best.low, best.high))
    return (
        f"recommended by the model: {which}, expected {median} without noise "
        f"({low} to {high}): {short_params(best.params)}"
    )


def _head(record: Record, optimizer: Optimizer) -> str:
    """What a person wants to know first."""
    counts, best = summary(record).split("\n", 1)
    lines = [
        best,
        counts,
        f"{_strategy(record)}, to be {optimizer.direction}d, seed {optimizer.seed}, "
        f"{len(optimizer.space.parameters)} parameters",
    ]
    if optimizer.fit_report is not None:
        lines.insert(1, _recommendation(optimizer.recommend(refit=False)))
    return "".join(
        f'<p class="{"best" if i == 0 else "facts"}">{escape(line)}</p>'
        for i, line in enumerate(lines)
    )


def _sections(record: Record, optimizer: Optimizer, now: float) -> Iterator[Section]:
    from gpbo.report import figures

    direction = optimizer.direction
    progress = data.progress_data(optimizer)
    yield Section(
        "convergence",
        "Convergence",
        "The best value so far, over the trials in the order in which they ended; crosses are "
        "trials that failed. Point at a trial to see its configuration.",
        _plot(figures.progress(progress, direction), "progress")
        if progress.trials
        else _nothing("No trial has ended yet."),
    )
    curves = data.learning_data(record)
    if curves:
        yield Section(
            "learning",
            "Intermediate values",
            "What the trials reported while they ran.",
            _plot(figures.learning(curves, direction), "curves"),
        )
    shares = data.importance_of(optimizer)
    shown, of_many = _shown(optimizer, shares)
    yield Section(
        "trials-in-parallel",
        "Parallel coordinates",
        "A line is a completed trial; drag along an axis to select, and an axis by its name. "
        f"Values far from most lie at the end of their axis.{of_many}",
        _plot(
            figures.coordinates(data.coordinates_data(optimizer, shown), direction), "coordinates"
        )
        if optimizer.completed
        else _nothing("No trial has a value."),
    )
    has_model = optimizer.fit_report is not None
    fitted = f" Its hyperparameters are of the last fit, to {optimizer.fitted_size} results."
    yield Section(
        "slices",
        "Parameters",
        "The trials over each parameter, the darker the nearer to the best one. "
        + (
            "The line is the median of the surrogate, the band holds about 95 % of it over the "
            "draws of the hyperparameters; both go through the best trial, along one parameter."
            + fitted
            if has_model
            else _why_no_model(record, optimizer)
        )
        + of_many,
        _plot(figures.slices(data.slices_of(optimizer, shown)), "surrogate")
        if progress.trials
        else _nothing("No trial has ended yet."),
    )
    draws = optimizer.fit(refit=False).surrogate.draws if shares else 0
    yield Section(
        "importance",
        "Importance",
        "How much of the variation that the model sees lies along each parameter: its range in "
        "lengthscales, as a share of all parameters'."
        + (fitted if shares else "")
        + " "
        + (
            f"The bar is the median of {draws} draws of the hyperparameters, the line holds 90 % "
            "of them."
            if draws > 1
            else "A point estimate of the hyperparameters has no uncertainty to show."
            if shares
            else ""
        ),
        _plot(figures.importance(shares), "shares")
        if shares
        else _nothing(_why_no_model(record, optimizer)),
    )
    bars = data.timeline_data(record, now)
    busy = data.utilisation(bars)
    yield Section(
        "timeline",
        "Workers",
        "Which trial ran where and when."
        + ("" if busy is None else f" Trials took {busy:.1%} of the workers' time."),
        _plot(figures.timeline(bars), "workers")
        if bars
        else _nothing("No attempt was written down: the trials were not run by a tuning job."),
    )
    diagnostics = data.diagnostics_data(record)
    yield Section(
        "diagnostics",
        "How the fits went",
        "The hyperparameters' posterior, fit after fit; the dotted line is the R-hat above which "
        "a first fit samples on.",
        _plot(figures.diagnostics(diagnostics), "fits") + _last_fit(record)
        if record.fits
        else _nothing(_why_no_model(record, optimizer)),
    )
    yield Section(
        "trials",
        "Trials",
        "Click on a heading to sort.",
        _table(data.table_data(record, optimizer), optimizer.space.names),
    )


def _shown(optimizer: Optimizer, shares: Sequence[Importance]) -> tuple[Sequence[Parameter], str]:
    """The parameters that plots of all of them have room for, and what to say of the others."""
    every = optimizer.space.parameters
    if len(every) <= _MOST_PARAMETERS:
        return every, ""
    names = [share.name for share in shares] or optimizer.space.names
    shown = {*names[:_MOST_PARAMETERS]}
    which = "that matter most" if shares else "that come first"
    words = f" Of {len(every)} parameters, the {_MOST_PARAMETERS} {which}."
    return [parameter for parameter in every if parameter.name in shown], words


def _strategy(record: Record) -> str:
    """The stored strategy and what it has that is not its default."""
    stored = record.spec["strategy"]
    if stored is None:
        return "a strategy of the user's own"
    if isinstance(stored, str):
        return stored
    options = (f"{name} = {json.dumps(value)}" for name, value in stored.items() if name != "name")
    return f"{stored['name']} with {', '.join(options)}"


def _why_no_model(record: Record, optimizer: Optimizer) -> str:
    if record.spec["strategy"] is not None and not optimizer.strategy.uses_model:
        return f"The strategy {optimizer.strategy.name!r} has no model."
    if record.engine is not None and record.spec["model"] is None:
        return "The model has a prior of the user's own, which is not stored."
    return "No model was fitted yet."


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
    names = _FIT if last.report["rhat"] is not None else ("inference", "status", "seconds")
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
        *((short(value), value) for value in row.params),
        (row.origin, row.origin),
        ("" if row.seconds is None else f"{row.seconds:.1f}", row.seconds),
        (row.attempts, row.attempts),
    ]
    shown = "".join(f"<td{_sort_key(key)}>{escape(str(text))}</td>" for text, key in cells)
    reason = "" if row.reason is None else f' title="{escape(row.reason)}"'
    return f'<tr class="{escape(row.status)}{" best" if row.best else ""}"{reason}>{shown}</tr>'


def _sort_key(key: object) -> str:
    """A number to sort by, in full; text sorts by itself."""
    if isinstance(key, bool) or not isinstance(key, int | float):
        return ""
    return f' data-key="{key!r}"'


_STYLE = """
:root { color-scheme: light; --ink: #1e2228; --dim: #5d6570; --line: #dfe3e8; --mark: #0072b2; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #f5f6f8; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 28px; }
h1 { margin: 0; font-size: 26px; }
h2 { margin: 0 0 4px; font-size: 18px; }
p { margin: 0 0 8px; max-width: 85ch; }
section > p, .facts, footer { color: var(--dim); }
.best { font-weight: 600; }
p.best { font-size: 17px; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 14px 0; }
a { color: var(--mark); text-decoration: none; }
a:hover { text-decoration: underline; }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px; margin: 0 0 18px;
  padding: 18px 20px; overflow: hidden; }
.nothing { color: var(--ink); font-style: italic; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 4px; }
td, th { padding: 4px 12px 4px 0; text-align: left; font-weight: inherit; white-space: nowrap; }
.wide { overflow: auto; max-height: 560px; }
#table th { position: sticky; top: 0; background: #fff; border-bottom: 1px solid var(--line); }
#table td { border-bottom: 1px solid #f0f2f4; }
#table button { all: unset; cursor: pointer; font-weight: 600; }
#table button:hover { color: var(--mark); }
#table th[aria-sort=ascending] button::after { content: " ▲"; }
#table th[aria-sort=descending] button::after { content: " ▼"; }
#table button:focus-visible { outline: 2px solid var(--mark); }
tr.failed, tr.pending { color: var(--dim); }
tr.best td { background: #eaf4fa; }
footer { padding-bottom: 28px; }
"""

_SORTING = """
document.querySelectorAll("#table th").forEach((heading, column) => {
  heading.querySelector("button").addEventListener("click", () => {
    const body = document.querySelector("#table tbody");
    const down = heading.getAttribute("aria-sort") === "ascending";
    const key = row => {
      const cell = row.cells[column];
      return cell.dataset.key === undefined ? cell.textContent : Number(cell.dataset.key);
    };
    const rank = value => typeof value === "number" ? 0 : 1;
    const order = (a, b) => rank(a) - rank(b) ||
      (down ? -1 : 1) * (typeof a === "number" ? a - b : a.localeCompare(b));
    const rows = [...body.rows].sort((one, other) => order(key(one), key(other)));
    document.querySelectorAll("#table th").forEach(th => th.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  });
});
"""

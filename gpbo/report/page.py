"""A stored job as one self-contained HTML page, which needs no network and no other files."""

import json
import time
from html import escape
from pathlib import Path

from plotly.offline import get_plotlyjs

from gpbo.checks import legible, path_to_write
from gpbo.optimizer import Optimizer
from gpbo.posterior import Recommendation
from gpbo.record import Record
from gpbo.report import data
from gpbo.report.sections import sections_of
from gpbo.text import short, short_params
from gpbo.view import summary


def write(record: Record, path: str | Path, *, now: float | None = None) -> None:
    """Write the report of a stored job, finished or not.

    Args:
        path: The path of the HTML file.
        now: The end of running trials in the timeline, in seconds since the epoch; by default now.

    Raises:
        InvalidOption: the folder of the path does not exist.
    """
    target = path_to_write("html", path)
    text = html(record, time.time() if now is None else now)
    target.write_text(legible(text), encoding="utf-8")


def html(record: Record, now: float) -> str:
    """The page as text; ``now`` in seconds since the epoch."""
    optimizer = data.restored(record)
    sections = list(sections_of(record, optimizer, now))
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
    which = f"trial {first}" + (f" (and {more} more with the same configuration)" if more else "")
    median, low, high = map(short, (best.median, best.low, best.high))
    return (
        f"recommended by the model: {which}, expected value {median} without noise "
        f"({low} to {high}): {short_params(best.params)}"
    )


def _head(record: Record, optimizer: Optimizer) -> str:
    """The top of the page: what a reader wants to know first."""
    counts, best = summary(record).split("\n", 1)
    lines = [
        best,
        counts,
        f"{_strategy(record)}, values are {optimizer.direction}d, seed {optimizer.seed}, "
        f"{len(optimizer.space.parameters)} parameters",
    ]
    if optimizer.constraints:
        lines.append(f"constraints: {', '.join(map(str, optimizer.constraints))}")
    if optimizer.fit_report is not None and optimizer.best is not None:
        lines.insert(1, _recommendation(optimizer.recommend(refit=False)))
    return "".join(
        f'<p class="{"best" if i == 0 else "facts"}">{escape(line)}</p>'
        for i, line in enumerate(lines)
    )


def _strategy(record: Record) -> str:
    """The stored strategy and the options in which it differs from its defaults."""
    stored = record.spec["strategy"]
    if stored is None:
        return "a user-defined strategy"
    if isinstance(stored, str):
        return f"strategy {stored}"
    options = (f"{name} = {json.dumps(value)}" for name, value in stored.items() if name != "name")
    return f"strategy {stored['name']} with {', '.join(options)}"


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

"""The plots of a report: each takes rows that `analysis.regrets` made, and returns a figure."""

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gpbo import replications

from . import analysis
from .peers import PEERS
from .suites import SEQUENTIAL

#: How many plots of problems are side by side.
_COLUMNS = 4
_TAB = matplotlib.colormaps["tab20"]
#: Searches without a model are grey in every plot, and nothing else is.
_GREYS = {"random": "0.55", "sobol": "0.75"}
_COLOURS = [_TAB(place) for place in (*range(0, 20, 2), *range(1, 20, 2)) if place not in (14, 15)]
#: gpbo's own methods look the same in every figure.
_OWN = dict(zip((name for name in SEQUENTIAL if name not in _GREYS), _COLOURS, strict=False))
#: Regret is drawn down to this share of the regret that the design leaves.
_LEAST = 1e-12
#: With more methods than this, bands would hide each other's lines and set the limits of the axes.
_MOST_BANDS = 8
#: Methods whose workers wait for each other.
_SYNC = re.compile(r"-sync\d|^syn")
#: Places on the axis, and the regret of every run there, a row per run.
_Curves = tuple[np.ndarray, np.ndarray]


def style(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of methods: gpbo's solid, synchronous dashed, peers dashed and dotted."""
    found: dict[str, dict[str, Any]] = {}
    left = itertools.cycle(c for c in _COLOURS if c not in [_OWN.get(name) for name in methods])
    for method in methods:
        if method in _GREYS:
            continue
        own = method not in PEERS
        found[method] = {
            "color": _OWN.get(method) or next(left),
            "ls": "-." if not own else "--" if _SYNC.search(method) else "-",
            "lw": 1.8 if own else 1.2,
        }
    return found | {
        name: {"color": grey, "ls": ":", "lw": 1.8}
        for name, grey in _GREYS.items()
        if name in methods
    }


def against_evaluations(rows: pd.DataFrame, measure: str = "simple") -> Figure:
    """Regret after every evaluation, from the end of the design on: the median of the runs and, for
    few methods, the quartiles.
    """
    rows = rows[rows["evaluation"] >= rows["design"]]

    def curves(own: pd.DataFrame) -> _Curves:
        table = own.pivot(index="seed", columns="evaluation", values=measure)
        return table.columns.to_numpy(), table.to_numpy()

    return _grid(rows, curves, "evaluations", f"{measure} regret")


def against_seconds(rows: pd.DataFrame, clock: str = "overhead_s") -> Figure:
    """The same at every time, problem by problem.

    Args:
        clock: ``"overhead_s"``: in the method; ``"wall_s"``: in it and in the objective.
    """
    what = "seconds in the method" if clock == "overhead_s" else "seconds in method and objective"

    def curves(own: pd.DataFrame) -> _Curves | None:
        spent = own[clock].max()
        if not spent > 0:
            return None
        times = np.geomspace(max(1e-3, spent / 1e4), spent, 120)
        return times, analysis.at_time(own, times, clock).to_numpy()

    figure = _grid(rows, curves, what, "simple regret")
    for axes in figure.axes:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    return figure


def against_clock(rows: pd.DataFrame) -> Figure:
    """The same at every time of the simulated clock, problem by problem."""

    def curves(own: pd.DataFrame) -> _Curves | None:
        end = own.groupby("seed")["clock"].max().min()
        if np.isnan(end):
            return None
        times = np.linspace(0, end, 120)
        return times, analysis.at_time(own, times, "clock").to_numpy()

    time = "simulated time, in evaluations of mean length"
    return _grid(rows, curves, time, "simple regret")


def _floor(own: pd.DataFrame) -> float:
    """Regret below this share of what the design leaves is drawn as this, on a log axis."""
    scale = own["scale"].max()
    return float(_LEAST * scale) if scale > 0 else _LEAST


def _lines(
    axes: Axes, x: np.ndarray, runs: np.ndarray, look: dict[str, Any], floor: float, banded: bool
) -> None:
    """The median of the runs, a row each, and perhaps a band between their quartiles."""
    low, median, high = replications.quartiles(runs)
    shown = np.isfinite(median)
    axes.plot(x[shown], median[shown].clip(floor), drawstyle="steps-post", **look)
    if banded:
        axes.fill_between(
            x[shown],
            low[shown].clip(floor),
            high[shown].clip(floor),
            step="post",
            alpha=0.10,
            color=look["color"],
            lw=0,
        )
    if shown.any():
        axes.set_yscale("log")


def _grid(
    rows: pd.DataFrame,
    curves: Callable[[pd.DataFrame], _Curves | None],
    x: str,
    y: str,
) -> Figure:
    """A plot for each problem, and the legend above them.

    Args:
        curves: What to draw for the runs of a method on a problem; None for nothing.
    """
    problems, methods = rows["problem"].unique(), rows["method"].unique()
    banded = len(methods) <= _MOST_BANDS
    columns = min(_COLUMNS, len(problems))
    lines = -(-len(problems) // columns)
    width = 3.4 * columns
    side_by_side = _legend_columns(methods, width)
    legend_lines = -(-len(methods) // side_by_side)
    figure = Figure(figsize=(width, 2.7 * lines + 0.25 * legend_lines + 0.3))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flat
    looks = style(list(methods))
    for problem, axes in zip(problems, panels, strict=False):
        for method, own in rows[rows["problem"] == problem].groupby("method", sort=False):
            if (curve := curves(own)) is not None:
                _lines(axes, *curve, {**looks[method], "label": method}, _floor(own), banded)
        axes.set_title(problem, fontsize="medium")
        axes.grid(alpha=0.25, lw=0.6)
    for axes in list(panels):
        axes.set_axis_off()
    drawn = figure.get_axes()
    handles: dict[str, Artist] = {}
    for axes in drawn:
        found, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    figure.supxlabel(x, fontsize="medium")
    figure.supylabel(f"{y}, median{' and quartiles' * banded}", fontsize="medium")
    _legend(figure, handles.values(), list(handles), side_by_side)
    return figure


def _legend_columns(methods: Sequence[str], width: float) -> int:
    """How many names fit side by side in this many inches, each with its line."""
    return max(1, int(width / (0.6 + 0.08 * max(map(len, methods), default=0))))


def _legend(figure: Figure, handles: Iterable[Artist], labels: Sequence[str], columns: int) -> None:
    figure.legend(
        list(handles), labels, loc="outside upper center", ncols=columns, fontsize="small"
    )


def critical_difference(table: pd.DataFrame) -> Figure:
    """Average ranks on a line; bars join methods that Nemenyi's test does not tell apart."""
    from scikit_posthocs import critical_difference_diagram

    figure = Figure(figsize=(9, 0.9 + 0.24 * table.shape[1]), layout="constrained")
    axes = figure.subplots()
    critical_difference_diagram(
        table.mean(),
        analysis.nemenyi(table),
        alpha=1 - analysis.CONFIDENCE,
        ax=axes,
    )
    axes.set_title(
        "average rank; a bar joins methods that do not differ significantly", fontsize="medium"
    )
    return figure


def data_profile(rows: pd.DataFrame, shares: Sequence[float]) -> Figure:
    """The share of runs that reached a target, against evaluations per parameter."""
    per_problem = rows.groupby("problem")[["budget", "dim"]].first()
    most = (per_problem["budget"] / (per_problem["dim"] + 1)).max()
    steps = np.linspace(0, most, 200)
    figure = Figure(figsize=(3.6 * len(shares), 3.6), layout="constrained")
    looks = style(list(rows["method"].unique()))
    for axes, share in zip(figure.subplots(1, len(shares), squeeze=False)[0], shares, strict=True):
        profile = analysis.data_profile(rows, share, steps)
        for method in looks:
            axes.plot(steps, profile[method], label=method, drawstyle="steps-post", **looks[method])
        axes.set(ylim=(-0.02, 1.02), title=f"to {share:g} of the design's regret")
        axes.grid(alpha=0.25, lw=0.6)
    figure.supxlabel("evaluations / (d + 1)", fontsize="medium")
    figure.supylabel("share of runs", fontsize="medium")
    handles, labels = figure.get_axes()[0].get_legend_handles_labels()
    _legend(figure, handles, labels, _legend_columns(labels, figure.get_figwidth()))
    return figure


def overhead(table: pd.DataFrame) -> Figure:
    """Seconds of one proposal in fit, acquisition and the rest, averaged over the problems."""
    means = table.groupby("method")[["fit", "acquisition", "other", "ask"]].mean()
    means = means.sort_values("ask", ascending=False)
    figure = Figure(figsize=(8, 1.1 + 0.3 * len(means)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(means))
    parts = means[["fit", "acquisition", "other"]]
    unknown = means["ask"].where(parts.isna().any(axis=1), 0.0).to_numpy()
    for part in parts:
        width = parts[part].where(parts.notna().all(axis=1), 0.0).clip(lower=0.0).to_numpy()
        axes.barh(means.index, width, left=left, label=part)
        left += width
    if unknown.any():
        axes.barh(means.index, unknown, color="0.7", label="not split")
    for place, seconds in enumerate(means["ask"]):
        axes.annotate(
            f" {seconds:.2g} s",
            (seconds, place),
            va="center",
            fontsize="small",
            annotation_clip=False,
        )
    axes.set(xlabel="seconds of one proposal")
    axes.margins(x=0.12)
    handles, labels = axes.get_legend_handles_labels()
    _legend(figure, handles, labels, len(labels))
    return figure

"""Plots; their data come from other functions (`gpbo.slices` and `gpbo.importance` for two).

    convergence   the running best of one or several results over the trials
    slices        the surrogate along each parameter, through the best trial
    importance    how much each parameter matters to the surrogate
    regret        the simple regret of many runs of a benchmark problem

Figures are drawn without a display and without global state; the suffix of the path sets the
format (``.png``, ``.svg``, ``.pdf``, ...).
"""

import io
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure as _Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator, NullFormatter, PercentFormatter

from gpbo.checks import legible, path_to_write
from gpbo.errors import InvalidOption
from gpbo.importance import Importance, importance_data
from gpbo.optimizer import Optimizer
from gpbo.posterior import BAND
from gpbo.replications import RegretCurve, Replications
from gpbo.result import Result, optimizer_of
from gpbo.slices import Slice, name_of_best, slices_data
from gpbo.text import cut, cut_within
from gpbo.ticks import MOST_LABELS, drawable, log_ticks, reverse_log_ticks, value_limits
from gpbo.trial import Trial, design_end, incumbents, without_value

__all__ = [
    "Convergence",
    "Importance",
    "Slice",
    "check_path",
    "convergence",
    "convergence_data",
    "importance",
    "importance_data",
    "regret",
    "slices",
    "slices_data",
]

#: The most parameters whose importance is drawn.
_MOST_BARS = 30
#: Okabe and Ito's colours, which colour-blind people can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: The most characters of the label of one of many listed values, and of all labels side by side.
_LONGEST_LABEL, _MOST_CHARACTERS = 12, 30
#: The most digits of a whole number that matplotlib writes out, and the most steps of its axis.
_MOST_DIGITS, _MOST_INTERVALS = 7, 9
#: Between these the ticks of a log axis are not written as powers of ten.
_SMALLEST_PLAIN, _LARGEST_PLAIN = 1e-3, 1e4
#: Decades up to which matplotlib labels ticks that are not powers of ten: always.
_ALL = (math.inf, math.inf)
#: The legend of rings.
_VIOLATE = "violate a constraint"
#: Regrets are drawn on a log axis; those below this share of the largest are drawn there.
_LEAST_REGRET = 1e-12
#: The largest argument of `numpy.exp` without overflow, about.
_LARGEST_LOG = 700.0


class Figure(_Figure):
    """A figure that a notebook shows, with or without ``%matplotlib inline``."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png")
        return image.getvalue()


@dataclass(frozen=True)
class Convergence:
    """One curve of a convergence plot.

    Attributes:
        label: The name of the curve.
        values: The value of each trial, in the order in which they ended; NaN without one.
        best: The best value so far after each trial; NaN before one meets the constraints.
        feasible: Whether each trial has a value and meets the constraints.
        design: The number of trials up to the last one of the initial design.
    """

    label: str
    values: tuple[float, ...]
    best: tuple[float, ...]
    feasible: tuple[bool, ...]
    design: int


def convergence_data(sources: Mapping[str, Result | Optimizer]) -> tuple[Convergence, ...]:
    """The curves of a convergence plot: one for each labelled result or optimizer."""
    curves = []
    for label, source in sources.items():
        trials = _finished(source)
        best = incumbents(trials, source.direction)
        values = tuple(map(_value, trials))
        feasible = tuple(trial.feasible for trial in trials)
        running = tuple(map(_value, best))
        curves.append(Convergence(label, values, running, feasible, design_end(trials)))
    return tuple(curves)


def _finished(source: Result | Optimizer) -> Sequence[Trial]:
    return source.trials if isinstance(source, Result) else source.finished


def _value(trial: Trial | None) -> float:
    return math.nan if trial is None or trial.value is None else trial.value


def convergence(
    results: Result | Optimizer | Mapping[str, Result | Optimizer], path: str | Path | None = None
) -> Figure:
    """The running best of each result over its trials; the initial design is shaded.

    Dots are the trials, rings those that violate a constraint, crosses at the bottom those without
    a value. The value axis shows the best so far from the end of the design on, and the better half
    of the trials; rings beyond its better end lie at its edge.

    Args:
        results: One result or optimizer, or several by their labels in the plot.
        path: Where to write it, if anywhere.

    Raises:
        InvalidOption: no results, something else, or some minimised and some maximised; or the
            folder of the path does not exist, or the suffix is unknown.
    """
    if isinstance(results, Result | Optimizer):
        results = {optimizer_of(results).strategy.name: results}
    _check_labelled("results", results, Result, Optimizer)
    directions = sorted({result.direction for result in results.values()})
    if len(directions) != 1:
        raise InvalidOption(f"results have directions {directions}: expected all to have the same")
    figure, curves = Figure(figsize=(7.0, 4.2), layout="constrained"), convergence_data(results)
    _paint_convergence(figure.subplots(), curves, is_down=directions == ["minimize"])
    trials = [trial for result in results.values() for trial in _finished(result)]
    shown = {_VIOLATE: _mark("o", mfc="none")} if any(trial.violated for trial in trials) else {}
    if crossed := [trial for trial in trials if trial.value is None]:
        failed, _ = without_value(crossed)
        shown["failed" if len(failed) == len(crossed) else "no value"] = _mark("x")
    if shown:
        _explain(figure, shown, columns=2)
    return _written(figure, path)


def slices(source: Result | Optimizer, path: str | Path | None = None) -> Figure:
    """The surrogate's median and 95 % band along each parameter, through the best trial.

    Trials differ from a slice in their other parameters: the closer to the best trial, the darker;
    rings violate a constraint. If all trials do, the slices go through the one with the best value.

    Args:
        source: A result, or an optimizer with results; its model is fitted if needed.
        path: Where to write it, if anywhere.

    Raises:
        InvalidOption: ``source`` is neither a result nor an optimizer, or ``path`` as in
            `convergence`.
        InvalidData: no trial has a value yet.
    """
    if path is not None:
        check_path("path", path)  # before a fit that may take long
    data = slices_data(source)
    rows = -(-len(data) // 3)
    columns = -(-len(data) // rows)
    figure = Figure(figsize=(0.6 + 3.1 * columns, 0.5 + 2.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, part in zip(grid.flat, data, strict=False):
        _paint_slice(axes, part)
    for axes in grid.flat[len(data) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel("value")
    bands = [value for part in data for value in (*part.low, *part.high)]
    medians = [value for part in data for value in part.median]
    values = [value for _, value in data[0].observed]
    shown = [*values, *np.quantile(bands, [0.05, 0.95])]
    _set_value_axis(grid[0, 0], shown, keep=[data[0].best[1], min(medians), max(medians)])
    _legend(figure, columns, data[0].feasible)
    return _written(figure, path)


def importance(source: Result | Optimizer, path: str | Path | None = None) -> Figure:
    """Each parameter's share of the relevance: its range in lengthscales, over the sum for all.

    Bars are the medians over the draws of the hyperparameters, lines the 90 % intervals. Of more
    than thirty parameters, the thirty most important ones are drawn.

    Args:
        source: A result, or an optimizer with results; its model is fitted if needed.
        path: Where to write it, if anywhere.

    Raises:
        InvalidOption: ``source`` is neither a result nor an optimizer, or ``path`` as in
            `convergence`.
        InvalidData: no trial has a value yet.
    """
    if path is not None:
        check_path("path", path)  # before a fit that may take long
    shares = importance_data(source)
    shown = shares[:_MOST_BARS]
    figure = Figure(figsize=(6.0, 0.9 + 0.28 * max(3, len(shown))), layout="constrained")
    axes = figure.subplots()
    median, low, high = (
        np.array([getattr(one, name) for one in shown]) for name in ("median", "low", "high")
    )
    labels = [_plain(cut(one.name, _MOST_CHARACTERS)) for one in shown]
    axes.barh(range(len(shown)), median, color=_COLOURS[0], height=0.6)
    axes.errorbar(
        median, range(len(shown)), xerr=(median - low, high - median), fmt="none", color="0.2"
    )
    axes.set_yticks(range(len(shown)), labels)
    axes.set_ylim(max(3, len(shown)) - 0.5, -0.5)  # the first at the top
    axes.set_xlim(left=0.0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    more = f" ({len(shown)} of {len(shares)} parameters)" if len(shown) < len(shares) else ""
    axes.set_xlabel(f"share of relevance{more}")
    _clean(axes)
    return _written(figure, path)


def regret(
    runs: Replications | Mapping[str, Replications], path: str | Path | None = None
) -> Figure:
    """Simple regret over the trials: median and quartiles, mean and its 95 % interval.

    Args:
        runs: One set of runs, or several by their labels in the plot.
        path: Where to write it, if anywhere.

    Raises:
        InvalidOption: no runs, something else, runs of different problems, or of a problem whose
            optimum is not known; ``path`` as in `convergence`.
    """
    if isinstance(runs, Replications):
        runs = {runs.strategy: runs}
    _check_labelled("runs", runs, Replications)
    problem, *others = sorted({one.problem for one in runs.values()})
    if others:
        raise InvalidOption(f"runs are of problems {[problem, *others]}: expected a single problem")
    dims = sorted({one.points.shape[2] for one in runs.values()})
    if len(dims) > 1:
        raise InvalidOption(
            f"runs of {problem!r} are in {dims} dimensions: expected all in the same number"
        )
    if any(math.isnan(one.optimum) for one in runs.values()):
        raise InvalidOption(
            f"runs are of {problem!r}, whose optimum is not known: regret needs a known optimum"
        )
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    panels = list(figure.subplots(1, 2, sharex=True, sharey=True))
    _paint_regret(panels, {label: one.curve() for label, one in runs.items()})
    panels[0].set_ylabel(f"simple regret on {problem}")
    return _written(figure, path)


def _paint_convergence(axes: Axes, curves: Sequence[Convergence], *, is_down: bool) -> None:
    design = max((curve.design for curve in curves), default=0)
    if design:
        axes.axvspan(0.5, design + 0.5, color="0.93", linewidth=0, zorder=0)
        axes.annotate(
            "initial design",
            (0.5 + design / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            color="0.45",
            fontsize="small",
        )
    values = [value for curve in curves for value in curve.values if math.isfinite(value)]
    # If the worst trials set the limits, the best values could not be told apart.
    running = [best for curve in curves for best in curve.best[max(design - 1, 0) :]]
    found = [*filter(math.isfinite, running)]
    _set_value_axis(axes, [float(np.median(values))] if found else values, keep=found)
    lines: list[Line2D] = []
    for number, curve in enumerate(curves):
        colour, best = _COLOURS[number % len(_COLOURS)], drawable(curve.best)
        _paint_trials(axes, curve, colour, 0.02 + 0.03 * number, is_down=is_down)
        trials = range(1, len(best) + 1)
        look = _line_look(int(np.isfinite(best).sum()), colour, curve.label)
        lines += axes.step(trials, best, where="post", **look)
    longest = max([1, *(len(curve.values) for curve in curves)])
    axes.set_xlim(0.5, longest + 0.5)
    axes.xaxis.set_major_locator(_whole_numbers())
    axes.set_xlabel("trials")
    axes.set_ylabel("value, and the best so far")
    axes.yaxis.set_offset_position("right")  # on the left it may overlap the label of the design
    if len(curves) > 1:
        _name(axes, lines)
    _clean(axes)


def _paint_trials(
    axes: Axes, curve: Convergence, colour: str, foot: float, *, is_down: bool
) -> None:
    """Dots, rings and crosses; ``foot`` is the distance from the edge of marks outside the axis."""
    trials, placed = np.arange(1, len(curve.values) + 1), drawable(curve.values)
    beyond, at_edge = ~np.array(curve.feasible, dtype=bool), axes.get_xaxis_transform()
    look: dict[str, Any] = {"color": colour, "alpha": 0.4, "markersize": 3.5}
    axes.plot(trials, np.where(beyond, math.nan, placed), "o", mew=0, **look)
    rings = beyond & np.isfinite(placed)
    if rings.any():
        axes.plot(trials[rings], placed[rings], "o", mfc="none", **look)
        low, high = axes.get_ylim()
        off = trials[rings & (placed < low if is_down else placed > high)]
        edge = np.full(len(off), foot if is_down else 1 - foot)
        axes.plot(off, edge, "o", mfc="none", transform=at_edge, **look)
    failed = trials[np.isnan(placed)]
    feet = np.full(len(failed), foot)
    axes.plot(failed, feet, "x", color=colour, markersize=4, transform=at_edge)


def _paint_regret(panels: Sequence[Axes], curves: Mapping[str, RegretCurve]) -> None:
    # The interval of a mean may be wide: only the lines and quartiles set the limits.
    shown = [
        part
        for curve in curves.values()
        for part in (curve.low, curve.median, curve.high, curve.mean)
    ]
    seen = np.concatenate(shown)
    seen = seen[np.isfinite(seen)]
    least = _LEAST_REGRET * (seen.max(initial=0.0) or 1.0)
    seen = np.maximum(seen, least)
    beyond = 10 * seen.max(initial=least)
    for number, (label, curve) in enumerate(curves.items()):
        # By the delta method for the logarithm, as the axis is logarithmic: never below 0.
        error = np.nan_to_num(curve.error) / np.maximum(curve.mean, least)
        factor = np.exp(np.minimum(BAND * error, _LARGEST_LOG))
        parts = (
            (curve.median, curve.low, curve.high),
            (curve.mean, curve.mean / factor, curve.mean * factor),
        )
        colour = _COLOURS[number % len(_COLOURS)]
        for axes, (middle, *band) in zip(panels, parts, strict=True):
            finite = np.isfinite(middle)
            trial, line = curve.trial[finite], np.maximum(middle[finite], least)
            low, high = (np.clip(edge[finite], least, beyond) for edge in band)
            axes.plot(trial, line, **_line_look(len(line), colour, label))
            axes.fill_between(trial, low, high, color=colour, alpha=0.2, linewidth=0)
    for axes, title in zip(panels, ("median, quartiles", "mean, 95 % interval"), strict=True):
        if len(seen):
            axes.set_yscale("log")
            # Short numbers, since they are the only ticks if no others lie between.
            limits = [float(f"{end:.2g}") for end in (seen.min() / 1.5, seen.max() * 1.5)]
            axes.set_ylim(*limits)
            _set_log_ticks(axes.yaxis, *limits)
        axes.xaxis.set_major_locator(_whole_numbers())
        axes.set_xlabel("trials")
        axes.set_title(title, fontsize="medium")
        _clean(axes)
    _name(panels[0], panels[0].lines)


def _paint_slice(axes: Axes, part: Slice) -> None:
    positions, median = drawable(part.positions), drawable(part.median)
    low, high = drawable(part.low), drawable(part.high)
    colour = _COLOURS[0]
    if part.axis == "listed":
        axes.bar(positions, high - low, 0.5, bottom=low, color=colour, alpha=0.2, linewidth=0)
        axes.hlines(median, positions - 0.25, positions + 0.25, color=colour, linewidth=2)
        every = math.ceil(len(part.labels) / MOST_LABELS)
        longest = max(_LONGEST_LABEL, _MOST_CHARACTERS // len(part.labels))
        labels = [_plain(cut_within(label, longest)) for label in part.labels]
        shown = labels[::every]
        crowded = max(map(len, shown)) * len(shown) > _MOST_CHARACTERS
        axes.set_xticks(positions[::every], shown)
        axes.tick_params(axis="x", labelrotation=90 if crowded else 0)
        axes.set_xlim(-0.6, len(positions) - 0.4)
    else:
        axes.fill_between(positions, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(positions, median, color=colour, linewidth=2)
        _set_position_axis(axes, part, positions)
    where, values = drawable(part.observed).T
    # The nearer a trial is to the best one, the darker; even the farthest stays visible.
    shades = [(0.0, 0.0, 0.0, 0.12 + 0.6 * close**2) for close in part.closeness]
    faces = [shade if met else "none" for shade, met in zip(shades, part.feasible, strict=True)]
    edges = [0.0 if met else 1.0 for met in part.feasible]
    axes.scatter(where, values, s=12, c=faces, edgecolors=shades, linewidths=edges, zorder=3)
    axes.plot(
        *drawable(part.best), "*", color=_COLOURS[1], markersize=11, mec="white", mew=0.6, zorder=4
    )
    axes.set_xlabel(_plain(cut(part.name, _MOST_CHARACTERS)))
    _clean(axes)


def _line_look(points: int, colour: str, label: str) -> dict[str, Any]:
    """How to draw a line; a line of one point is a dot."""
    marker = "o" if points == 1 else ""
    return {"marker": marker, "color": colour, "linewidth": 2, "label": _plain(label)}


def _name(axes: Axes, lines: Sequence[Line2D]) -> None:
    """A legend of all lines, even those with labels that begin with "_", which matplotlib hides."""
    axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False)


def _whole_numbers() -> MaxNLocator:
    """Ticks at whole numbers; if there is only one, no fractions beside it."""
    return MaxNLocator("auto", integer=True, min_n_ticks=1)


def _plain(text: str) -> str:
    """A user's text as it is: dollar signs do not start a formula."""
    return legible(text).replace("$", r"\$")


def _legend(figure: Figure, columns: int, feasible: Sequence[bool]) -> None:
    blue, orange = _COLOURS[:2]
    shown: dict[str, Line2D | Patch] = {
        "median": Line2D([], [], color=blue),
        "95 % band": Patch(color=blue, alpha=0.2, linewidth=0),
        "trials, darker near the best": _mark("o", mew=0),
        name_of_best(feasible): _mark("*", color=orange, markersize=10, mec="white"),
    }
    if not all(feasible):
        shown[_VIOLATE] = _mark("o", mfc="none")
    room = 4 if columns > 1 else 2
    _explain(figure, shown, columns=room if any(feasible) else room - 1)  # for the longer label


def _mark(marker: str, **look: Any) -> Line2D:
    return Line2D([], [], marker=marker, ls="", **{"color": "0.35", "markersize": 4, **look})


def _explain(figure: Figure, shown: Mapping[str, Line2D | Patch], *, columns: int) -> None:
    """A legend of the marks, above the axes."""
    figure.legend(
        [*shown.values()],
        [*shown],
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        fontsize="small",
    )


def _set_position_axis(axes: Axes, part: Slice, positions: Float[np.ndarray, " q"]) -> None:
    low, high = float(positions[0]), float(positions[-1])
    if part.axis == "log":
        axes.set_xscale("log")
        _set_log_ticks(axes.xaxis, low, high)
    elif part.axis == "reverse_log":
        axes.set_xscale("function", functions=(_reverse_log, lambda u: -np.expm1(-u)))
        ticks = reverse_log_ticks(low, high)
        axes.set_xticks(ticks, [f"{tick:.15g}" for tick in ticks])
    margin = 0.02
    if part.axis == "linear":
        width = (high - low) or abs(low) or 1.0
        axes.set_xlim(low - margin * width, high + margin * width)
        if part.whole:
            # The size of the axis is not known yet: decide by the length of its labels.
            digits = min(_MOST_DIGITS, max(len(str(int(end))) for end in (low, high)))
            most = min(_MOST_INTERVALS, _MOST_CHARACTERS // (digits + 1))
            axes.xaxis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))
        labels = axes.xaxis.get_major_formatter().format_ticks(axes.get_xticks().tolist())
        if len("".join(labels)) > _MOST_CHARACTERS:
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=part.whole, min_n_ticks=1))
    else:
        axes.margins(x=margin)


def _set_log_ticks(axis: Axis, low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    plain = [f"{tick:.6g}" for tick in ticks]
    fit = len(" ".join(plain)) <= _MOST_CHARACTERS
    if fit and low >= _SMALLEST_PLAIN and high <= _LARGEST_PLAIN:
        axis.set_ticks(ticks, plain)
    else:
        axis.set_ticks(ticks)
        axis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=_ALL))
    axis.set_minor_formatter(NullFormatter())


def _reverse_log(values: np.ndarray) -> np.ndarray:
    """The scale on which a reverse-log `Real` is even; matplotlib also asks beyond its range."""
    return -np.log1p(-np.minimum(values, 1 - 1e-16))


def _set_value_axis(axes: Axes, values: Sequence[float], keep: Sequence[float]) -> None:
    if not values:
        return
    low, high, is_log = value_limits(values, keep)
    if is_log:
        axes.set_yscale("log")
    axes.set_ylim(low, high)


def _check_labelled(name: str, given: object, *kinds: type) -> None:
    if not isinstance(given, Mapping) or any(
        not (isinstance(label, str) and isinstance(one, kinds)) for label, one in given.items()
    ):
        expected = " or ".join(f"gpbo.{kind.__name__}" for kind in kinds)
        raise InvalidOption(
            f"{name}={reprlib.repr(given)}: expected a {expected}, or a mapping from "
            "labels (strings) to several of them"
        )
    if not given:
        raise InvalidOption(f"{name}={given!r}: expected at least one")


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)


def check_path(name: str, path: str | Path) -> Path:
    """The path of a plot to be written.

    Raises:
        InvalidOption: its folder does not exist, or its suffix is not that of a format.
    """
    target = path_to_write(name, path)
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if target.suffix.removeprefix(".").lower() not in formats:
        endings = ", ".join(f".{ending}" for ending in formats)
        raise InvalidOption(
            f"{name}={str(path)!r}: expected a file name that ends in one of {endings}"
        )
    return target


def _written(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        figure.savefig(check_path("path", path), dpi=150)
    return figure

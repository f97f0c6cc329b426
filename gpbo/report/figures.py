"""The report's plots: data in, a plotly figure out."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from gpbo.fitting import RHAT_LIMIT
from gpbo.importance import Importance
from gpbo.report.axes import Axis, value_axis
from gpbo.report.data import (
    Bar,
    Coordinates,
    Diagnostics,
    LearningCurve,
    Progress,
    Slice,
)
from gpbo.slices import name_of_best
from gpbo.ticks import LARGEST_DRAWN

#: Okabe and Ito's colours, which colour-blind people can tell apart.
_BLUE, _ORANGE, _GREEN, _PINK, _SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
_GREY, _PALE, _BAND = "#8a8f98", "#c9ccd1", "rgba(0, 114, 178, 0.18)"
_OUTCOMES = {
    "completed": _GREEN,
    "failed": _ORANGE,
    "stopped early": _PINK,
    "interrupted": _PALE,
    "late": _GREY,
    "running": _SKY,
}
#: Height of a plot, and of a bar or a row of small plots, in pixels.
_HEIGHT, _BAR, _ROW = 380, 34, 290
#: Small plots per row.
_COLUMNS = 3


def progress(data: Progress, direction: str) -> go.Figure:
    """The running best over the trials, in the order in which they ended."""
    figure = _figure(_HEIGHT)
    places = [float(place) for place in range(1, len(data.trials) + 1)]
    if data.design:
        figure.add_vrect(
            0.5,
            data.design + 0.5,
            fillcolor="#eef0f3",
            line_width=0,
            layer="below",
            annotation_text="initial design",
            annotation_position="top left",
            annotation_font_color=_GREY,
        )
    _dots(figure, places, data.values, data.about, data.feasible)
    figure.add_scatter(
        x=places,
        y=data.best,
        mode="lines",
        line={"shape": "hv", "color": _BLUE, "width": 2.5},
        name="best so far",
        hoverinfo="skip",
    )
    values = [value for value in data.values if value is not None]
    settled = [best for best in data.best[max(data.design - 1, 0) :] if best is not None]
    foot = _set_value_axis(figure, values, settled)
    failed = [i for i, value in enumerate(data.values) if value is None]
    _crosses(figure, [places[i] for i in failed], foot, [data.about[i] for i in failed])
    figure.update_yaxes(title=f"value, {direction}d")
    figure.update_xaxes(title="trials in the order in which they ended", range=_counted(places))
    return figure


def learning(curves: Sequence[LearningCurve], direction: str) -> go.Figure:
    """Reported values over the steps; those of trials that did not complete in pink."""
    figure = _figure(_HEIGHT)
    for name, colour, completed in (("completed", _BLUE, True), ("did not complete", _PINK, False)):
        if shown := [one for one in curves if one.completed is completed]:
            _curves(figure, shown, name, colour)
    values = [value for curve in curves for value in curve.values]
    ends = [one.values[-1] for one in curves if one.completed and math.isfinite(one.values[-1])]
    best = [min(ends) if direction == "minimize" else max(ends)] if ends else []
    _set_value_axis(figure, [value for value in values if math.isfinite(value)], best)
    figure.update_yaxes(title="reported value")
    figure.update_xaxes(title="step")
    return figure


def _curves(figure: go.Figure, curves: Sequence[LearningCurve], name: str, colour: str) -> None:
    """One line with gaps: thousands of lines are slow to write and to draw."""
    points: list[tuple[int | None, float | None, int, int]] = [(None, None, 0, 0)]
    for curve in curves:
        # A line through one or two points is hardly visible.
        size = 6 if len(curve.steps) < 3 else 0
        points += [
            (step, value, curve.trial, size)
            for step, value in zip(curve.steps, curve.values, strict=True)
        ]
        points.append((None, None, curve.trial, 0))
    steps, values, trials, sizes = zip(*points, strict=True)
    figure.add_scatter(
        x=steps,
        y=values,
        customdata=trials,
        mode="lines+markers",
        line={"color": colour, "width": 1.3},
        marker={"size": sizes},
        opacity=0.7,
        name=name,
        showlegend=True,  # even for a single trace
        hovertemplate="trial %{customdata}, step %{x}: %{y}<extra></extra>",
    )


def coordinates(data: Coordinates, direction: str) -> go.Figure:
    """Trials as lines through their parameters, coloured by their value."""
    last = data.axes[-1]
    bar = {"title": last.name, "thickness": 14}
    if last.ticks:
        bar["tickvals"], bar["ticktext"] = zip(*last.ticks, strict=True)
    figure = _figure(_HEIGHT)
    figure.add_parcoords(
        dimensions=list(map(_dimension, data.axes, data.positions)),
        line={
            "color": data.positions[-1],
            "colorscale": "Viridis",
            "reversescale": direction == "maximize",  # so that the best are the darkest
            "cmin": last.low,
            "cmax": last.high,
            "showscale": True,
            "colorbar": bar,
        },
        labelfont={"size": 13},
        tickfont={"size": 11},
    )
    figure.update_layout(margin={"l": 70, "r": 30, "t": 60, "b": 30})
    return figure


def slices(parts: Sequence[Slice]) -> go.Figure:
    """The trials over each parameter, with the surrogate's median and band through the best."""
    columns = min(_COLUMNS, len(parts))
    rows = -(-len(parts) // columns)
    figure = make_subplots(
        rows, columns, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.3 / rows
    )
    _lay_out(figure, _ROW * rows + 60)
    values = [value for _, value in parts[0].observed]
    curves = [part.curve for part in parts if part.curve is not None]
    medians = [median for curve in curves for median in curve.median]
    edges = [edge for curve in curves for edge in (*curve.low, *curve.high)]
    bulk = [float(edge) for edge in np.quantile(edges, [0.05, 0.95])] if edges else []
    foot = _set_value_axis(figure, [*values, *bulk], medians)
    for number, part in enumerate(parts):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        _slice(figure, part, foot, place, legend=number == 0)
    figure.update_yaxes(title="value", col=1)
    return figure


def _slice(
    figure: go.Figure, part: Slice, foot: float, place: dict[str, int], *, legend: bool
) -> None:
    if part.curve is not None:
        _surrogate(figure, part, place, legend)
    where = [position for position, _ in part.observed]
    values = [value for _, value in part.observed]
    shades = [f"rgba(30, 34, 40, {0.15 + 0.6 * close**2:.2f})" for close in part.closeness]
    _dots(figure, where, values, part.about, part.feasible, place, colours=shades, legend=legend)
    _crosses(figure, part.failed, foot, [], place, legend=legend)
    if part.best is not None:
        figure.add_scatter(
            x=[where[part.best]],
            y=[values[part.best]],
            mode="markers",
            marker={
                "symbol": "star",
                "size": 13,
                "color": _ORANGE,
                "line": {"width": 1, "color": "white"},
            },
            name=name_of_best(part.feasible),
            legendgroup="best",
            showlegend=legend,
            hovertext=_hover(part.about[part.best]),
            hoverinfo="text",
            **place,
        )
    figure.update_xaxes(title=part.axis.name, **_position_axis(part.axis), **place)


def _surrogate(figure: go.Figure, part: Slice, place: dict[str, int], legend: bool) -> None:
    curve = part.curve
    assert curve is not None
    median: dict[str, Any] = {
        "x": curve.positions,
        "y": curve.median,
        "name": "median and 95 % band of the surrogate",
        "legendgroup": "surrogate",
        "showlegend": legend,
        "hoverinfo": "y",
        **place,
    }
    if part.listed:
        above = [high - middle for high, middle in zip(curve.high, curve.median, strict=True)]
        below = [middle - low for middle, low in zip(curve.median, curve.low, strict=True)]
        figure.add_scatter(
            mode="markers",
            marker={"symbol": "line-ew", "size": 22, "line": {"width": 3, "color": _BLUE}},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": above,
                "arrayminus": below,
                "color": _BAND,
                "thickness": 16,
                "width": 0,
            },
            **median,
        )
        return
    figure.add_scatter(
        x=[*curve.positions, *reversed(curve.positions)],
        y=[*curve.high, *reversed(curve.low)],
        mode="lines",
        fill="toself",
        fillcolor=_BAND,
        line={"width": 0},
        legendgroup="surrogate",
        showlegend=False,
        hoverinfo="skip",
        **place,
    )
    figure.add_scatter(mode="lines", line={"color": _BLUE, "width": 2}, **median)


def importance(data: Sequence[Importance]) -> go.Figure:
    """Shares of relevance: the median over the draws, with a 90 % interval."""
    figure = _figure(90 + _BAR * len(data))
    figure.add_bar(
        x=[one.median for one in data],
        y=[one.name for one in data],
        orientation="h",
        marker_color=_BLUE,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [one.high - one.median for one in data],
            "arrayminus": [one.median - one.low for one in data],
            "color": "#1e2228",
            "thickness": 1.5,
        },
        customdata=[(one.low, one.high) for one in data],
        hovertemplate="%{y}: %{x:.0%}, 90 % interval %{customdata[0]:.0%} to "
        "%{customdata[1]:.0%}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(title="share of relevance", tickformat=".0%", rangemode="tozero")
    return figure


def timeline(bars: Sequence[Bar]) -> go.Figure:
    """What each worker did when."""
    workers = 1 + max(bar.worker for bar in bars)
    figure = _figure(110 + _BAR * workers)
    for outcome, colour in _OUTCOMES.items():
        shown = [bar for bar in bars if bar.outcome == outcome]
        if shown:
            figure.add_bar(
                base=[bar.start for bar in shown],
                x=[bar.end - bar.start for bar in shown],
                y=[f"worker {bar.worker}" for bar in shown],
                orientation="h",
                marker={"color": colour, "line": {"width": 1, "color": "white"}},
                name=outcome,
                hovertext=[_hover(bar.about) for bar in shown],
                hovertemplate="%{hovertext}<br>%{x:.3g} s, started at %{base:.3g} s<extra></extra>",
            )
    names = [f"worker {number}" for number in range(workers)]
    figure.update_layout(barmode="overlay", bargap=0.25)
    figure.update_yaxes(
        categoryorder="array", categoryarray=names, autorange="reversed", automargin=True
    )
    figure.update_xaxes(title="seconds since the job was created")
    return figure


def diagnostics(data: Diagnostics) -> go.Figure:
    """R-hat, effective sample sizes, divergences and seconds of every fit."""
    panels: dict[str, dict[str, str]] = {
        "R-hat": {"rhat": _BLUE},
        "effective sample size": {"ess_bulk": _BLUE, "ess_tail": _GREEN},
        "divergences": {"divergences": _ORANGE},
        "seconds": {"seconds": _GREY},
    }
    sampled = any(number is not None for number in data.columns["rhat"])
    used = panels if sampled else {"seconds": panels["seconds"]}
    figure = make_subplots(1, len(used), subplot_titles=list(used), horizontal_spacing=0.06)
    _lay_out(figure, _ROW + 30)
    names = {"ess_bulk": "bulk", "ess_tail": "tails"}
    for number, columns in enumerate(used.values(), 1):
        for name, colour in columns.items():
            figure.add_scatter(
                x=data.sizes,
                y=data.columns[name],
                mode="lines+markers",
                line={"color": colour, "width": 1.5},
                marker={"size": 5},
                name=names.get(name, name),
                showlegend=name in names,
                row=1,
                col=number,
            )
        figure.update_yaxes(rangemode="normal" if "rhat" in columns else "tozero", col=number)
    if sampled:
        figure.add_hline(RHAT_LIMIT, line={"dash": "dot", "color": _GREY}, row=1, col=1)
    figure.update_xaxes(
        title="number of results", range=_counted([float(size) for size in data.sizes])
    )
    figure.update_layout(legend={"x": 0.5, "xanchor": "center", "y": -0.28, "yanchor": "top"})
    return figure


def _figure(height: int) -> go.Figure:
    return _lay_out(go.Figure(), height)


def _lay_out(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#1e2228"},
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
    )
    return figure


def _hover(text: str) -> str:
    """The text escaped for plotly, which reads hover texts as HTML."""
    return escape(text).replace("\n", "<br>")


def _dots(
    figure: go.Figure,
    x: Sequence[float],
    y: Sequence[float | None],
    about: Sequence[str],
    feasible: Sequence[bool],
    place: dict[str, int] | None = None,
    *,
    colours: Sequence[str] | None = None,
    legend: bool = True,
) -> None:
    """Trials that have a value: dots, and rings where they violate a constraint."""
    kinds = ((True, "trials", "circle"), (False, "violate a constraint", "circle-open"))
    for kind, name, symbol in kinds:
        shown = [i for i, met in enumerate(feasible) if met is kind and y[i] is not None]
        if not shown:
            continue
        figure.add_scatter(
            x=[x[i] for i in shown],
            y=[y[i] for i in shown],
            mode="markers",
            marker={
                "size": 7,
                "color": [colours[i] for i in shown] if colours else "rgba(30, 34, 40, 0.45)",
                "symbol": symbol,
            },
            name=name,
            legendgroup=name,
            showlegend=legend,
            hovertext=[_hover(about[i]) for i in shown],
            hoverinfo="text",
            **(place or {}),
        )


def _crosses(
    figure: go.Figure,
    x: Sequence[float],
    foot: float,
    about: Sequence[str],
    place: dict[str, int] | None = None,
    *,
    legend: bool = True,
) -> None:
    """Trials without a value, failed or stopped early: crosses at the foot of the plot."""
    if not x:
        return
    figure.add_scatter(
        x=x,
        y=[foot] * len(x),
        mode="markers",
        marker={"symbol": "x-thin", "size": 8, "line": {"width": 1.8, "color": _ORANGE}},
        name="no value",
        legendgroup="no value",
        showlegend=legend,
        hovertext=[_hover(text) for text in about] or None,
        hoverinfo="text" if about else "skip",
        **(place or {}),
    )


def _set_value_axis(figure: go.Figure, values: Sequence[float], keep: Sequence[float]) -> float:
    """Set the limits of the value axes; returns the value at the foot of the plots."""
    one, is_log = value_axis(values, keep)
    figure.update_yaxes(
        range=[one.low, one.high],
        type="log" if is_log else "linear",
        showticklabels=None if values else False,
    )
    foot = one.low + 0.03 * (one.high - one.low)
    return 10.0**foot if is_log else foot


def _position_axis(one: Axis) -> dict[str, Any]:
    margin = 0.03 * (one.high - one.low)
    shown: dict[str, Any] = {"range": [one.low - margin, one.high + margin]}
    if one.ticks:
        shown["tickvals"], shown["ticktext"] = zip(*one.ticks, strict=True)
    return shown


def _dimension(one: Axis, positions: Sequence[float]) -> dict[str, Any]:
    dimension: dict[str, Any] = {
        "label": one.name,
        "values": positions,
        "range": [one.low, one.high],
    }
    ticks = one.ticks or _plain_ticks(one)
    dimension["tickvals"], dimension["ticktext"] = zip(*ticks, strict=True)
    return dimension


def _plain_ticks(one: Axis) -> list[tuple[float, str]]:
    """Ticks at round numbers; without them, an axis shows its limits with all their digits.

    Near the limits of a double, where a locator overflows or finds no ticks, the axis limits serve.
    """
    ends = (one.low, one.high)
    found: list[float] = []
    if max(map(abs, ends)) < LARGEST_DRAWN:
        found = [float(tick) for tick in MaxNLocator(6).tick_values(*ends)]
    ticks = [tick for tick in found if one.low <= tick <= one.high] or ends
    return [(tick, f"{tick:.12g}") for tick in ticks]


def _counted(places: Sequence[float]) -> list[float]:
    """The range of an axis of whole numbers, with room at its ends."""
    first, last = (min(places), max(places)) if places else (1.0, 1.0)
    room = max(0.5, 0.02 * (last - first))
    return [first - room, last + room]

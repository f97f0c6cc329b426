"""Plots are functions that return data, and thin painters of it."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gpbo import plots, problems
from gpbo.backend import DTYPE
from gpbo.errors import InvalidData, InvalidOption
from gpbo.lockstep import replicate
from gpbo.loop import minimize
from gpbo.optimizer import Optimizer
from gpbo.result import Result
from gpbo.space import Categorical, Integer, Ordinal, Real, Space
from gpbo.strategies import ExpectedImprovement
from gpbo.surrogate import Surrogate
from tests.monte_carlo import unchecked_shapes

SPACE = Space(
    Real("rate", 1e-5, 1, "log"),
    Real("momentum", 0.5, 0.9999, "reverse_log"),
    Integer("depth", 1, 5),
    Ordinal("width", (16, 32, 64)),
    Categorical("kind", ("relu", "tanh")),
    Real("shift", -1, 1),
    Integer("leaves", 1, 500, "log"),
)


def loss(params: dict[str, Any]) -> float:
    if params["depth"] == 5:
        raise RuntimeError("too deep")
    return (math.log10(params["rate"]) + 2) ** 2 + params["depth"] + 20 * params["shift"] ** 2


def optimized(
    direction: Any = "minimize",
    objective: Any = loss,
    budget: int = 14,
    inference: Any = "map",
) -> Result:
    return minimize(
        objective,
        SPACE,
        budget=budget,
        strategy="sobol",
        direction=direction,
        inference=inference,
        progress=False,
    )


@pytest.fixture(scope="module")
def result() -> Result:
    return optimized()


def test_a_convergence_curve_is_the_running_best_of_the_trials(result: Result) -> None:
    (curve,) = plots.convergence_data({"Sobol": result})
    values = [math.nan if trial.value is None else trial.value for trial in result.trials]
    assert 0 < np.isnan(values).sum() < 14
    np.testing.assert_equal(curve.values, values)
    np.testing.assert_equal(curve.best, np.fmin.accumulate(values))
    assert (curve.label, curve.design) == ("Sobol", 0)


def test_a_convergence_curve_knows_when_the_initial_design_was_done() -> None:
    result = minimize(
        lambda params: params["x"],
        Space(Real("x", 0, 1)),
        budget=5,
        initial=3,
        inference="map",
        progress=False,
    )
    (curve,) = plots.convergence_data({"EI": result})
    assert curve.design == 3
    assert [text.get_text() for text in plots.convergence({"EI": result}).axes[0].texts] == [
        "initial design"
    ]


def test_failures_before_the_first_success_leave_the_curve_open() -> None:
    values = iter([None, None, 2.0])
    (curve,) = plots.convergence_data({"": optimized(objective=lambda _: next(values), budget=3)})
    np.testing.assert_equal(curve.best, [math.nan, math.nan, 2.0])


def test_a_slice_holds_the_surrogate_along_the_parameter_in_user_units(result: Result) -> None:
    slices = {part.name: part for part in plots.slices_data(result)}
    assert list(slices) == list(SPACE.names)
    assert [part.axis for part in slices.values()] == [
        "log",
        "reverse_log",
        "linear",
        "listed",
        "listed",
        "linear",
        "log",
    ]
    rate = slices["rate"]
    assert (rate.positions[0], rate.positions[-1]) == (1e-5, 1.0)
    np.testing.assert_allclose(np.diff(np.log(rate.positions)), math.log(1e5) / 100, rtol=1e-9)
    assert slices["depth"].positions == (1, 2, 3, 4, 5)
    assert slices["width"].labels == ("16", "32", "64")
    assert slices["width"].positions == (0, 1, 2)
    assert slices["kind"].labels == ("relu", "tanh")
    best = result.best
    assert best is not None
    assert rate.best == (best.params["rate"], best.value)
    assert slices["kind"].best[0] == ("relu", "tanh").index(best.params["kind"])
    for part in slices.values():
        assert len(part.observed) == len(part.closeness) == len(result.optimizer.completed)
        assert (np.array(part.low) <= part.median).all()
        assert (np.array(part.high) >= part.median).all()
        points = SPACE.encode([trial.params for trial in result.optimizer.completed])
        far = (points - SPACE.encode([best.params])).norm(dim=-1)
        assert np.argsort(part.closeness).tolist() == far.argsort(descending=True).tolist()
        assert (max(part.closeness), min(part.closeness)) == (1.0, 0.0)


@pytest.mark.parametrize("inference", ["map", "hmc"])
def test_a_slice_is_what_the_model_predicts_of_its_configurations(inference: Any) -> None:
    result = optimized(budget=9, inference=inference)
    best, posterior = result.best, result.optimizer.posterior()
    assert best is not None
    for parameter, part in zip(SPACE.parameters, plots.slices_data(result), strict=True):
        values = parameter.grid(101)
        expected = posterior.predict([{**best.params, parameter.name: value} for value in values])
        assert len(part.positions) == len(values)
        for name in ("median", "low", "high"):
            np.testing.assert_array_equal(getattr(part, name), getattr(expected, name))


def test_the_slices_meet_at_the_best_trial_where_the_surrogate_knows_the_value() -> None:
    """Of a smooth, noiseless objective the mean there is the best value, to the noise inferred."""
    result = optimized(objective=lambda params: 100 + 7 * params["shift"] ** 2, budget=20)
    best = result.best
    assert best is not None
    slices = {part.name: part for part in plots.slices_data(result)}
    depth = slices["depth"]
    here = depth.median[int(depth.positions.index(best.params["depth"]))]
    width = slices["width"]
    there = width.median[int(width.best[0])]
    assert here == pytest.approx(there, abs=1e-9)
    assert here == pytest.approx(best.value, abs=0.5)


def test_the_band_holds_the_disagreement_of_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two draws far from the data, one unit above and below: the band is that wide and no less."""
    space = Space(Real("x", 0, 1))
    optimizer = Optimizer(space, inference="map")
    for x, value in ((0.0, 3.0), (0.02, 7.0)):
        optimizer.add({"x": x}, value)
    data, ones = optimizer.observations(), torch.ones(1, 2, dtype=torch.float64)
    draws = Surrogate.condition(
        data.x,
        data.y,
        data.mask,
        lengthscale=1e-3 * ones.unsqueeze(-1),
        outputscale=1e-6 * ones,
        noise_variance=1e-6 * ones,
        mean=torch.tensor([[1.0, -1.0]], dtype=torch.float64),
    )
    fitted = optimizer.plan_fit()()
    fitted = replace(fitted, fit=replace(fitted.fit, surrogate=draws))
    monkeypatch.setattr(optimizer, "plan_fit", lambda: lambda: fitted)
    (part,) = plots.slices_data(optimizer)
    # Values 3 and 7 have mean 5 and deviation 2.
    assert part.median[-1] == pytest.approx(5.0)
    assert part.high[-1] == pytest.approx(5.0 + 1.96 * 2.0, abs=1e-3)
    assert part.low[-1] == pytest.approx(5.0 - 1.96 * 2.0, abs=1e-3)


def test_a_slice_is_painted_with_its_trials_and_the_best_one_is_a_star(result: Result) -> None:
    part, axes = plots.slices_data(result)[0], plots.slices(result).axes[0]
    curve, star = axes.lines
    np.testing.assert_array_equal(curve.get_xydata(), np.transpose([part.positions, part.median]))
    np.testing.assert_array_equal(star.get_xydata(), [part.best])
    band, dots = axes.collections
    assert isinstance(dots, PathCollection)
    np.testing.assert_array_equal(dots.get_offsets(), part.observed)
    shades = np.asarray(dots.get_facecolor())[:, 3]
    assert shades.argsort().tolist() == np.argsort(part.closeness).tolist()
    (outline,) = band.get_paths()
    assert outline.get_extents().ymin == pytest.approx(min(part.low))
    assert outline.get_extents().ymax == pytest.approx(max(part.high))


def test_what_no_trial_is_has_no_place_in_the_legend(result: Result) -> None:
    shown = ["median", "95 % band", "trials, darker near the best", "best trial"]
    assert _legend(plots.slices(result)) == [shown]


def test_a_convergence_plot_has_every_trial_and_a_cross_where_one_failed(result: Result) -> None:
    (curve,), (axes,) = plots.convergence_data({"": result}), plots.convergence(result).axes
    dots, crosses, best = axes.lines
    np.testing.assert_array_equal(dots.get_xydata(), [*enumerate(curve.values, start=1)])
    failed = [number for number, trial in enumerate(result.trials, 1) if trial.value is None]
    np.testing.assert_array_equal(crosses.get_xdata(), failed)
    assert crosses.get_marker() == "x"
    np.testing.assert_array_equal(best.get_ydata(), curve.best)


def test_a_maximised_result_is_drawn_with_its_own_sign() -> None:
    down, up = optimized(), optimized("maximize", lambda params: -loss(params))
    for low, high in zip(plots.slices_data(down), plots.slices_data(up), strict=True):
        np.testing.assert_allclose(low.median, np.negative(high.median), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(low.low, np.negative(high.high), rtol=1e-6, atol=1e-6)


def test_slices_are_of_hyperparameters_given_all_results_unless_those_before_will_do() -> None:
    optimizer = Optimizer(SPACE, inference="map", initial=4)
    for _ in range(6):
        trial = optimizer.ask(refit=False)
        optimizer.tell(trial, float(trial.params["shift"]))
    before = plots.slices_data(optimizer, refit=False)
    anew = plots.slices_data(optimizer)
    assert before[0].median != anew[0].median
    assert anew == plots.slices_data(optimizer, refit=True)


def test_a_surrogate_without_results_is_refused() -> None:
    with pytest.raises(InvalidData, match="no trial has a value"):
        plots.slices_data(Optimizer(SPACE))


def test_results_of_two_directions_are_not_compared() -> None:
    results = {
        "down": optimized(budget=2),
        "up": optimized("maximize", budget=2),
    }
    with pytest.raises(InvalidOption, match=r"\['maximize', 'minimize'\]"):
        plots.convergence(results)
    with pytest.raises(InvalidOption, match=r"results=\{\}: expected at least one"):
        plots.convergence({})


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_figures_are_written_in_the_format_of_their_ending(
    result: Result, tmp_path: Path, ending: str
) -> None:
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    convergence, slices = tmp_path / f"convergence.{ending}", tmp_path / f"slices.{ending}"
    plots.convergence({"EI": result}, convergence)
    plots.slices(result, slices)
    assert convergence.read_bytes().startswith(start)
    assert slices.read_bytes().startswith(start)


def test_a_notebook_shows_a_figure_though_pyplot_did_not_make_it(result: Result) -> None:
    for figure in (result.plot(), plots.slices(result), plots.importance(result)):
        assert vars(type(figure))["_repr_png_"](figure).startswith(b"\x89PNG")
        assert repr(figure).startswith("<Figure size ")


def test_the_axes_are_those_of_the_parameters(result: Result) -> None:
    figure = plots.slices(result)
    axes = figure.axes
    assert [part.get_xlabel() for part in axes] == list(SPACE.names)
    scales = ["log", "function", "linear", "linear", "linear", "linear", "log"]
    assert [part.get_xscale() for part in axes] == scales
    assert [label.get_text() for label in axes[4].get_xticklabels()] == ["relu", "tanh"]


def _power(factor: str, power: int) -> str:
    """What a tick of a log axis says in mathematics."""
    text = (factor + "\\times" if factor else "") + f"10^{{{power}}}"
    return f"$\\mathdefault{{{text}}}$"


@pytest.mark.parametrize(
    ("parameter", "labels"),
    [
        (Integer("n", 0, 1), ["0", "1"]),
        (Integer("n", 3, 4), ["3", "4"]),
        (Integer("n", -2, 2), ["−2", "−1", "0", "1", "2"]),
        (Integer("n", 7, 7), ["7"]),
        (Integer("n", 1, 8, "log"), ["1", "2", "5"]),
        (Integer("n", 3, 4, "log"), ["3", "4"]),
        (Integer("n", 1, 500, "log"), ["1", "10", "100"]),
        (Integer("n", 7, 7, "log"), ["7"]),
        (Real("x", 0.02, 0.05, "log"), ["0.02", "0.05"]),
        (Real("x", 2e-5, 5e-5, "log"), [_power("2", -5), _power("5", -5)]),
        (Real("x", 1e-5, 1e-1, "log"), [_power("", power) for power in range(-5, 0)]),
        (Real("x", 0.1, 0.1001), ["0.00000", "0.00004", "0.00008"]),
        (Real("x", 0.5, 0.9999, "reverse_log"), ["0.5", "0.9", "0.99", "0.999", "0.9999"]),
        (Real("x", 0.89, 0.999, "reverse_log"), ["0.89", "0.99", "0.999"]),
        (Real("x", 0.89, 0.95, "reverse_log"), ["0.89", "0.95"]),
    ],
)
def test_the_ticks_of_a_slice_are_few_and_those_of_integers_whole_numbers(
    parameter: Real | Integer, labels: list[str]
) -> None:
    optimizer = Optimizer(Space(parameter, Integer("other", 0, 9)), inference="map")
    for other in (2, 7):
        optimizer.add({parameter.name: parameter.low, "other": other}, float(other))
    figure = plots.slices(optimizer)
    figure.canvas.draw()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    assert [label.get_text() for tick, label in ticks if low <= tick <= high] == labels
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


def test_a_single_trial_is_a_point_over_its_number() -> None:
    alone = optimized(objective=lambda _: 3.0, budget=1)
    runs = replicate("branin", strategy="random", runs=3, budget=1, progress=False)
    for axes in (*plots.convergence(alone).axes, *plots.regret(runs).axes):
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1.0]
        assert axes.lines[-1].get_marker() == "o"


def test_a_last_trial_that_is_the_only_one_with_a_value_is_seen() -> None:
    values = iter([math.nan, math.nan, math.nan, 3.0])
    late = optimized(objective=lambda _: next(values), budget=4)
    (axes,) = plots.convergence(late).axes
    (line,) = [line for line in axes.lines if line.get_label() == late.optimizer.strategy.name]
    assert line.get_marker() == "o"


def test_the_numbers_along_a_wide_axis_do_not_touch() -> None:
    optimizer = Optimizer(Space(Real("x", 1e-3, 1e4, scale="log")), inference="map")
    for value in (0.1, 10.0):
        optimizer.add({"x": value}, value)
    figure = plots.slices(optimizer)
    figure.canvas.draw()
    boxes = [tick.get_window_extent() for tick in figure.axes[0].get_xticklabels()]
    assert len(boxes) > 3
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0


def test_one_result_needs_no_legend_and_several_have_one(result: Result) -> None:
    assert plots.convergence({"EI": result}).axes[0].get_legend() is None
    legend = plots.convergence({"EI": result, "again": result}).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["EI", "again"]


def test_an_outlier_does_not_flatten_the_plot_and_a_wide_range_is_logarithmic() -> None:
    values = iter([5.0, 4.0, 1e9, 3.0, *[2.0] * 36, 1.0])
    spoiled = optimized(objective=lambda _: next(values), budget=41)
    low, high = plots.convergence({"": spoiled}).axes[0].get_ylim()
    assert low <= 1.0
    assert 5.0 <= high < 10.0
    values = iter([1e5, 1e3, 10.0, 0.1, 1e-2])
    wide = optimized(objective=lambda _: next(values), budget=5)
    assert plots.convergence({"": wide}).axes[0].get_yscale() == "log"


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
def test_the_worse_half_of_the_trials_does_not_set_the_limits(direction: str, sign: float) -> None:
    values = iter([3.0, *[9.0] * 5, *[2.0] * 6, 1.0])
    result = optimized(direction, lambda _: sign * next(values), budget=13)
    low, high = sorted(sign * limit for limit in plots.convergence({"": result}).axes[0].get_ylim())
    assert low <= 1.0
    assert 3.0 <= high < 4.0


def test_what_was_found_during_the_design_of_one_search_does_not_set_the_limits() -> None:
    values = iter([9.0, 8.0, 3.0, *[2.0] * 3, 1.0])
    found = optimized(objective=lambda _: next(values), budget=7)
    designed = replace(found, trials=tuple(replace(t, origin="design") for t in found.trials[:3]))
    low, high = plots.convergence({"EI": designed, "Sobol": found}).axes[0].get_ylim()
    assert low <= 1.0
    assert 3.0 <= high < 4.0


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
def test_a_ring_that_is_better_than_the_best_lies_at_the_edge(direction: Any, sign: float) -> None:
    space, limit = Space(Real("x", 0, 1)), ["size <= 1"]
    optimizer = Optimizer(space, "sobol", direction=direction, constraints=limit)
    for x, value, size in ((0.1, -50.0, 2.0), (0.2, 3.0, 1.0), (0.3, 1.0, 1.0)):
        optimizer.add({"x": x}, sign * value, {"size": size})
    for x, value in ((0.4, 2.0), (0.5, 90.0)):
        optimizer.add({"x": x}, sign * value, {"size": 2.0})
    figure = plots.convergence(optimizer)
    (axes,) = figure.axes
    seen: dict[int, float] = {}
    for line in axes.lines:
        if line.get_markerfacecolor() == "none":
            places = line.get_transform().transform(line.get_xydata())
            heights = axes.transAxes.inverted().transform(places)[:, 1]
            trials = np.asarray(line.get_xdata(), dtype=int).tolist()
            seen |= {t: h for t, h in zip(trials, heights, strict=True) if 0 < h < 1}
    assert {*seen} == {1, 4}
    assert (seen[1] if direction == "minimize" else 1 - seen[1]) < 0.05
    assert 0.2 < seen[4] < 0.8
    assert _legend(figure) == [["violate a constraint"]]
    optimizer.fail(optimizer.ask())
    assert _legend(plots.convergence(optimizer)) == [["violate a constraint", "failed"]]


def test_while_no_trial_meets_the_constraints_the_plot_has_room_for_most_of_them() -> None:
    optimizer = Optimizer(Space(Real("x", 0, 1)), "sobol", constraints=["size <= 1"])
    for value in range(1, 40):
        optimizer.add({"x": value / 40}, float(value), {"size": 2.0})
    low, high = plots.convergence(optimizer).axes[0].get_ylim()
    assert low < 3.0
    assert high > 37.0


def test_the_star_of_slices_that_no_trial_may_be_is_not_called_the_best_trial() -> None:
    optimizer = Optimizer(
        Space(Real("x", 0, 1)), "sobol", constraints=["size <= 1"], inference="map"
    )
    optimizer.add({"x": 0.2}, 1.0, {"size": 2.0})
    optimizer.add({"x": 0.4}, 2.0, {"size": 2.0})
    figure = plots.slices(optimizer)
    ((*_, star, ring),) = _legend(figure)
    assert (star, ring) == ("best value (violates a constraint)", "violate a constraint")
    box, page = figure.legends[0].get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    optimizer.add({"x": 0.6}, 3.0, {"size": 1.0})
    ((*_, star, ring),) = _legend(plots.slices(optimizer))
    assert (star, ring) == ("best trial", "violate a constraint")


def test_labels_that_begin_with_an_underscore_are_in_the_legend(result: Result) -> None:
    runs = replicate("branin", strategy="random", runs=3, budget=2, progress=False)
    for figure in (
        plots.convergence({"_old": result, "new": result}),
        plots.regret({"_old": runs, "new": runs}),
    ):
        legend = figure.axes[0].get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["_old", "new"]
        colours = [line.get_color() for line in legend.get_lines()]
        assert colours == ["#0072B2", "#D55E00"]


@pytest.mark.parametrize("largest", [10**4, 10**5 - 1, 10**6, 10**9])
def test_the_ticks_of_large_integers_lie_apart(largest: int) -> None:
    space = Space(Integer("n", -5, largest), Real("a", 0, 1), Real("b", 0, 1))
    optimizer = Optimizer(space, inference="map")
    for n in (0, 7):
        optimizer.add({"n": n, "a": 0.5, "b": 0.5}, float(n))
    _check_apart(plots.slices(optimizer))


@pytest.mark.parametrize("nines", [3, 4, 5, 6, 8, 10, 12, 15])
def test_the_ticks_of_many_nines_lie_apart(nines: int) -> None:
    space = Space(Real("m", 0, 1 - 10.0**-nines, "reverse_log"), Real("a", 0, 1), Real("b", 0, 1))
    optimizer = Optimizer(space, inference="map")
    for m in (0.2, 0.7):
        optimizer.add({"m": m, "a": 0.5, "b": 0.5}, m)
    _check_apart(plots.slices(optimizer))


def _check_apart(figure: Figure) -> None:
    """The labels of the first of several slices do not touch each other."""
    FigureCanvasAgg(figure).draw()  # which lays it out
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    boxes = [label.get_window_extent() for tick, label in ticks if low <= tick <= high]
    assert len(boxes) >= 3
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0


def test_crosses_are_explained_and_dots_need_no_legend(result: Result) -> None:
    assert _legend(plots.convergence(result)) == [["failed"]]
    assert _legend(plots.convergence(optimized(objective=lambda _: 3.0, budget=2))) == []


@pytest.mark.parametrize("reason", ["stopped early at step 3", "withdrawn"])
def test_crosses_of_trials_that_did_not_fail_by_themselves_are_not_called_so(reason: str) -> None:
    optimizer = Optimizer(Space(Real("x", 0, 1)), "random")
    optimizer.fail(optimizer.ask(), reason)
    assert _legend(plots.convergence(optimizer)) == [["no value"]]
    failing = optimized(objective=lambda _: math.nan, budget=2)
    assert _legend(plots.convergence({"a": optimizer, "b": failing})) == [["no value"]]


def _legend(figure: Figure) -> list[list[str]]:
    return [[text.get_text() for text in one.get_texts()] for one in figure.legends]


@pytest.mark.parametrize(("parameters", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 2))])
def test_slices_fill_their_rows(parameters: int, shape: tuple[int, int]) -> None:
    space = Space(*(Real(f"x{number}", 0, 1) for number in range(parameters)))
    result = minimize(
        lambda params: sum(params.values()),
        space,
        budget=2,
        strategy="sobol",
        inference="map",
        progress=False,
    )
    grid = plots.slices(result).axes[0].get_gridspec()
    assert grid is not None
    assert (grid.nrows, grid.ncols) == shape


@pytest.mark.parametrize("returned", [None, 3.0, -1e300, 1.7e308, -1.7e308])
def test_results_with_nothing_to_see_are_drawn_without_a_warning(returned: Any) -> None:
    result = optimized(objective=lambda _: returned, budget=3)
    plots.convergence({"": result}).canvas.draw()


@pytest.mark.parametrize("least", [1.0, 1e-320])
def test_ticks_of_a_log_axis_do_not_go_beyond_a_double(least: float) -> None:
    values = iter([least, 2.0, 3.0, 1e290])
    plots.convergence(optimized("maximize", lambda _: next(values), budget=4)).canvas.draw()
    space = Space(Real("x", 1e-300, 1e300, "log"))
    result = minimize(
        lambda params: params["x"] ** 0.01, space, budget=3, strategy="sobol", inference="map",
        progress=False,
    )  # fmt: skip
    plots.slices(result).canvas.draw()


def test_slices_reach_to_the_ends_of_a_double() -> None:
    space = Space(Real("x", 1e308, 1.7e308), Real("y", -8e307, 8e307), Real("z", 5e-324, 1e-322))
    values = iter([1.7e308, -1.7e308, 0.0])
    result = minimize(
        lambda _: next(values), space, budget=3, strategy="sobol", inference="map", progress=False
    )
    figure = plots.slices(result)
    figure.canvas.draw()
    for axes in figure.axes:
        assert np.isfinite([*axes.get_xlim(), *axes.get_ylim()]).all()
    for part in plots.slices_data(result):
        assert np.isfinite([part.low, part.median, part.high]).all()


def test_small_shares_have_ticks_that_can_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [plots.Importance(f"p{i}", 0.017, 0.018, 0.019) for i in range(53)]
    monkeypatch.setattr(plots, "importance_data", lambda source: shares)
    (axes,) = plots.importance(Optimizer(Space(Real("p0", 0, 1)))).axes
    ticks = axes.get_xticks().tolist()
    assert len(set(axes.xaxis.get_major_formatter().format_ticks(ticks))) == len(ticks)


@pytest.mark.filterwarnings("error")
def test_a_long_name_leaves_room_for_its_slice(tmp_path: Path) -> None:
    space = Space(Real(60 * "line\n", 0, 1), Real("short", 0, 1))
    found = minimize(
        lambda params: params["short"], space, budget=3, inference="map", progress=False
    )
    figure = plots.slices(found, tmp_path / "slices.png")
    assert all(axes.get_window_extent().width > 100 for axes in figure.axes)


def test_one_result_or_set_of_runs_needs_no_label(result: Result) -> None:
    (axes,) = plots.convergence(result).axes
    assert axes.get_legend() is None
    runs = replicate("branin", strategy="random", runs=2, budget=1, progress=False)
    median = plots.regret(runs).axes[0]
    assert median.get_legend_handles_labels()[1] == ["random"]
    assert median.lines[0].get_marker() == "o"  # of one trial there is no line


def test_an_optimizer_that_was_asked_and_told_converges_in_a_plot_too(result: Result) -> None:
    (expected,) = plots.convergence_data({"a": result})
    assert plots.convergence_data({"a": result.optimizer}) == (expected,)
    labels = ["one", "other"]
    (axes,) = plots.convergence({"one": result, "other": result.optimizer}).axes
    assert axes.get_legend_handles_labels()[1] == labels
    (axes,) = plots.convergence(result.optimizer).axes
    assert axes.get_legend_handles_labels()[1] == [result.optimizer.strategy.name]


def test_the_interval_of_a_mean_regret_stays_above_nothing_and_around_the_mean() -> None:
    """Of two runs it is wider than the mean: on a logarithmic axis that is no gap down to 0."""
    runs = replicate("branin", strategy="random", runs=2, budget=9, seed=3, progress=False)
    curve = runs.curve()
    assert (1.96 * curve.error > curve.mean).any()
    axes = plots.regret(runs).axes[1]
    (band,) = axes.collections
    corners = np.asarray(band.get_paths()[0].vertices)
    for trial, mean in zip(curve.trial, curve.mean, strict=True):
        edge = corners[corners[:, 0] == trial, 1]
        assert 0 < edge.min() < mean < edge.max()
        assert edge.min() * edge.max() == pytest.approx(mean**2, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1.0])
@pytest.mark.filterwarnings("error")
def test_however_small_values_are_their_regret_is_drawn(scale: float) -> None:
    """None is drawn as a trillionth of the largest, and so is less than none."""
    branin = problems.get("branin")
    small = replace(branin, function=lambda x: scale * branin.function(x), optimum=scale)
    runs = replicate(small, strategy="random", runs=3, budget=9, seed=3, progress=False)
    curve = runs.curve()
    line = plots.regret(runs).axes[0].lines[0].get_ydata()
    assert np.asarray(line) == pytest.approx(curve.median)
    assert curve.median.min() > 0
    plots.regret(replace(runs, optimum=1e3 * scale))


def test_names_and_choices_are_no_formulas(tmp_path: Path) -> None:
    space = Space(Real("price_$_per_$", 0, 1), Categorical("path", ("$HOME/$USER", "\udce9")))
    found = minimize(lambda p: 0.5, space, budget=3, strategy="random", progress=False)
    optimizer = Optimizer(space, inference="map")
    for trial in found.trials:
        optimizer.add(trial.params, trial.value)
    figure = plots.slices(optimizer, tmp_path / "slices.png")
    assert figure.axes[0].get_xlabel() == r"price_\$_per_\$"
    ticks = [tick.get_text() for tick in figure.axes[1].get_xticklabels()]
    assert ticks == [r"\$HOME/\$USER", r"\udce9"]


def test_where_choices_are_few_they_are_written_out() -> None:
    choices = ("squared_error", "absolute_error")
    space = Space(Categorical("loss", choices), Real("a", 0, 1), Real("b", 0, 1))
    optimizer = Optimizer(space, inference="map")
    for number, loss in enumerate(choices):
        optimizer.add({"loss": loss, "a": 0.5, "b": 0.5}, number)
    figure = plots.slices(optimizer)
    FigureCanvasAgg(figure).draw()  # which lays it out
    first, second = figure.axes[0].get_xticklabels()
    assert (first.get_text(), second.get_text()) == choices
    assert first.get_window_extent().x1 < second.get_window_extent().x0


def test_many_or_long_choices_do_not_overprint(tmp_path: Path) -> None:
    choices = ("one of very many words", *map(str, range(29)))
    optimizer = Optimizer(Space(Categorical("kind", choices)), inference="map")
    for number in range(3):
        optimizer.add({"kind": str(number)}, float(number))
    figure = plots.slices(optimizer, tmp_path / "slices.png")
    labels = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert labels == ["one of…words", *map(str, range(3, 29, 4))]
    (legend,) = figure.legends
    box, page = legend.get_window_extent(), figure.bbox
    assert page.x0 <= box.x0
    assert box.x1 <= page.x1


@pytest.mark.parametrize(("parameters", "shown"), [(1, 1), (7, 7), (41, 30)])
def test_importance_is_painted_with_its_interval_the_largest_on_top(
    parameters: int, shown: int
) -> None:
    names = [f"$x_{i}$" for i in range(parameters)]
    optimizer = Optimizer(Space(Real(name, 0, 1) for name in names), "sobol")
    for trial in optimizer.ask(11):
        optimizer.tell(trial, math.sin(6 * trial.params[names[-1]]))
    data = plots.importance_data(optimizer)
    medians = [one.median for one in data]
    assert medians == sorted(medians, reverse=True)
    assert {one.name for one in data} == {*names}
    assert data[0].name == names[-1] or parameters > 11
    axes = plots.importance(optimizer).axes[0]
    widths = [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]
    assert widths == [one.median for one in data[:shown]]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        one.name.replace("$", r"\$") for one in data[:shown]
    ]
    (lines,) = axes.collections
    assert isinstance(lines, LineCollection)
    ends = [[float(x) for x, _ in segment] for segment in lines.get_segments()]
    assert ends == [pytest.approx([one.low, one.high]) for one in data[:shown]]
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert ("of 41 parameters" in axes.get_xlabel()) == (shown < parameters)


def test_where_no_parameter_can_vary_none_matters() -> None:
    optimizer = Optimizer(Space(Integer("only", 3, 3)), ExpectedImprovement(repeats=True))
    for value in (1.0, 2.0):
        optimizer.add({"only": 3}, value)
    (found,) = plots.importance_data(optimizer)
    assert (found.low, found.median, found.high) == (0.0, 0.0, 0.0)


def test_draws_that_failed_have_no_part_in_an_importance(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = Optimizer(Space(Real("a", 0, 1), Real("b", 0, 1)), inference="map", initial=3)
    for number in range(7):
        params = {"a": number / 7, "b": number * 3 % 7 / 7}
        optimizer.add(params, math.sin(6 * params["a"]))
    made = optimizer.fit()
    known, ones = made.surrogate, torch.ones(1, 5, dtype=DTYPE)
    scales = torch.linspace(0.1, 0.5, 5, dtype=DTYPE)[None, :, None] ** torch.tensor([1.0, -1.0])

    def found(usable: list[int]) -> tuple[Any, ...]:
        counts = torch.isin(torch.arange(5), torch.tensor(usable, dtype=torch.long))
        noise = 0.1 * ones.masked_fill(~counts, torch.nan)
        surrogate = Surrogate.condition(
            known.x, known.y[:, 0], known.mask, scales, ones, noise, 0 * ones
        )
        monkeypatch.setattr(optimizer, "fit", lambda **_: replace(made, surrogate=surrogate))
        return plots.importance_data(optimizer)

    by_hand = scales[0, [1, 4]].reciprocal()
    shares = (by_hand / by_hand.sum(-1, keepdim=True)).quantile(0.5, 0)
    assert [one.median for one in found([1, 4])] == pytest.approx(shares.tolist())
    assert found([]) == ()


def test_importance_needs_results_and_a_place_to_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no trial has a value"):
        plots.importance(Optimizer(SPACE))
    with unchecked_shapes(), pytest.raises(InvalidOption, match="source has type str"):
        plots.importance("result")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="path="):
        plots.importance(Optimizer(SPACE), tmp_path / "none" / "importance.png")


def test_a_convergence_plot_without_a_trial_has_an_axis_all_the_same() -> None:
    figure = plots.convergence(Optimizer(SPACE))  # a warning of matplotlib's fails the tests
    assert figure.axes[0].get_xlim() == (0.5, 1.5)

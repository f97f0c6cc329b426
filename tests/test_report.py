"""The report: the data of every plot, and the page in a browser."""

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import HalfNormal

from gpbo.candidates import Search
from gpbo.errors import InvalidOption
from gpbo.evidence import Model
from gpbo.hyperparameters import PRIORS
from gpbo.optimizer import Optimizer
from gpbo.record import Attempt, Metric, Record
from gpbo.report import data, figures
from gpbo.report.axes import axis, position, value_axis
from gpbo.report.page import html, write
from gpbo.report.sections import _last_fit, _shown
from gpbo.space import Categorical, Integer, Ordinal, Real, Space
from gpbo.storage import SqliteStorage
from gpbo.strategies import ExpectedImprovement
from gpbo.trial import Trial
from gpbo.view import plain
from tests import browser

SEARCH = Search(32, 8, 2, 8)
ONLY = Categorical("only", ("one",))
SPACE = Space(
    Real("rate", 1e-4, 1.0, "log"),
    Real("momentum", 0.5, 0.999, "reverse_log"),
    Integer("depth", 1, 5),
    Ordinal("width", (16, 32, 64)),
    Categorical("kind", ("relu", "</script><b>")),
)


def loss(params: Any) -> float:
    if params["depth"] == 5:
        return math.nan
    return (math.log10(params["rate"]) + 2) ** 2 + params["depth"] / 10


def job(folder: Path, trials: int = 4, **options: Any) -> Optimizer:
    """A stored job of which so many trials have ended and two have not."""
    options = {"strategy": "ei", "inference": "map", "initial": 4, "seed": 3, **options}
    space = options.pop("space", SPACE)
    objective = options.pop("objective", loss)
    optimizer = Optimizer(space, storage=folder / "runs.db", name="job", **options)
    for number in range(trials):
        trial = optimizer.ask()
        optimizer.tell(trial, objective(trial.params))
        assert optimizer.journal is not None
        started = optimizer.journal.read().created_at + number
        told = optimizer.trials[-1]
        optimizer.journal.write(
            attempts=[Attempt(trial.id, 1, number % 2, started, started + 1, told.value)],
            metrics=[Metric(trial.id, 1, step, 1.5 / (step + 1)) for step in range(3)],
        )
    optimizer.ask(2)
    return optimizer


def read(folder: Path) -> Record:
    return SqliteStorage(folder / "runs.db").read("job")


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Optimizer, Record]:
    """A job with nine trials that ended, and what is stored of it; only to be looked at."""
    folder = tmp_path_factory.mktemp("nine")
    return job(folder, 9), read(folder)


# --- axes


def test_positions_and_ticks_are_those_of_the_scale() -> None:
    rate, momentum, depth, width, _ = SPACE.parameters
    assert position(rate, 0.01) == pytest.approx(-2)
    assert position(momentum, 0.99) == pytest.approx(2)
    assert [position(depth, 3), position(width, 64)] == [3, 2]
    assert axis(rate).ticks == (
        (-4, "0.0001"),
        (-3, "0.001"),
        (-2, "0.01"),
        (-1, "0.1"),
        (0, "1"),
    )
    places, labels = zip(*axis(momentum).ticks, strict=True)
    assert labels == ("0.5", "0.9", "0.99", "0.999")
    np.testing.assert_allclose(places, [math.log10(2), 1, 2, 3])
    assert axis(depth).ticks == tuple((n, f"{n}") for n in range(1, int(axis(depth).high) + 1))
    assert axis(width).ticks == ((0, "16"), (1, "32"), (2, "64"))
    assert (axis(width).low, axis(width).high) == (-0.5, 2.5)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (2.0, 30.0, ["2", "5", "10", "20"]),
        (2.5, 4.0, ["2.5", "4"]),
        (1e-300, 1e300, None),
    ],
)
def test_a_log_axis_has_a_few_ticks_whatever_its_range(
    low: float, high: float, labels: list[str] | None
) -> None:
    found = [label for _, label in axis(Real("x", low, high, "log")).ticks]
    assert found == labels or (labels is None and 2 <= len(found) <= 8)


def test_long_lists_and_labels_stay_readable() -> None:
    ticks = axis(Categorical("word", [f"{number}" + "x" * 40 for number in range(300)])).ticks
    assert len(ticks) <= 25
    assert all(len(label) <= 24 for _, label in ticks)
    alike = axis(Categorical("word", ["x" * 40 + end for end in "ab"])).ticks
    assert [label[-1] for _, label in alike] == ["a", "b"]


def test_an_integer_with_one_value_has_an_axis_with_two_ends() -> None:
    one = axis(Integer("n", 3, 3))
    assert one.low < 3 < one.high
    assert one.ticks == ((3, "3"),)


def test_an_axis_whose_ends_lie_at_the_same_place_has_ticks() -> None:
    one = axis(Real("x", 0, 1e-20, "reverse_log"))
    assert one.low < one.high
    assert [label for _, label in one.ticks] == ["0", "1e-20"]


@pytest.mark.parametrize(("low", "high", "step"), [(0, 1, 1), (-3, 3, 1), (1, 1000, 200)])
def test_an_integer_has_ticks_at_whole_numbers(low: int, high: int, step: int) -> None:
    ticks = [tick for tick, _ in axis(Integer("n", low, high)).ticks]
    assert ticks == [tick for tick in range(low - low % step, high + 1, step) if tick >= low]
    assert axis(Real("x", low, high)).ticks == ()


def test_results_over_many_magnitudes_are_logarithmic() -> None:
    one, is_log = value_axis([1e-4, 1e-2, 1.0, 100.0])
    assert is_log
    assert 10**one.low < 1.5e-3
    assert ("1" in [label for _, label in one.ticks]) is True
    assert value_axis([])[0].name == "value"


# --- what the plots show


def test_the_best_so_far_never_gets_worse_and_passes_over_failures(tmp_path: Path) -> None:
    optimizer = job(tmp_path, 9, direction="maximize", strategy="pi", initial=20)
    progress = data.progress_data(data.restored(read(tmp_path)))
    values = [math.nan if trial.value is None else trial.value for trial in optimizer.finished]
    assert any(math.isnan(value) for value in values)
    best = [math.nan if value is None else value for value in progress.best]
    np.testing.assert_equal(best, np.fmax.accumulate(values))
    assert progress.trials == tuple(range(9))
    assert progress.design == 9
    assert progress.about[0].startswith("trial 0 (design): ")


def test_coordinates_hold_every_completed_trial_and_clip_outliers() -> None:
    optimizer = Optimizer(Space(Real("rate", 1e-4, 1, "log"), Categorical("kind", ("a", "b"))))
    for number in range(40):
        params = {"rate": 10.0 ** -(number % 4), "kind": "ab"[number % 2]}
        optimizer.add(params, -1.0 if number == 7 else 1e9 if number == 3 else 5.0 + number % 3)
    found = data.coordinates_data(optimizer)
    assert [one.name for one in found.axes] == ["rate", "kind", "value"]
    assert found.positions[0][:4] == pytest.approx((0, -1, -2, -3))
    assert found.positions[1][:2] == (0.0, 1.0)
    assert found.positions[2][:2] == (5.0, 6.0)
    assert found.positions[2][3] == found.axes[2].high < 100
    assert found.positions[2][7] == -1.0  # the best is always on the axis


@pytest.mark.parametrize(("base", "is_log"), [(1.0, False), (10.0, True)])
def test_what_lies_below_an_axis_of_coordinates_is_at_its_end(base: float, is_log: bool) -> None:
    optimizer = Optimizer(Space(Real("x", 0, 1)), direction="maximize")
    for number in range(40):
        optimizer.add({"x": number / 40}, -1e9 if number == 3 else base ** (number % 5))
    found = data.coordinates_data(optimizer)
    assert found.positions[1][3] == pytest.approx(found.axes[1].low)
    assert found.axes[1].low > -100
    assert found.positions[1][4] == pytest.approx(4.0 if is_log else 1.0)


def test_coordinates_leave_out_what_violates_a_constraint_and_say_so(tmp_path: Path) -> None:
    space = Space(Real("x", 0, 1))
    optimizer = Optimizer(
        space, storage=tmp_path / "runs.db", name="job", strategy="sobol", constraints=["c <= 0"]
    )
    words = "Trials that violate a constraint are left out."

    def body() -> str:
        page = html(read(tmp_path), 0.0)
        return page[page.index("<body>") :]

    optimizer.add({"x": 0.1}, -1e6, measured={"c": 1.0})
    assert 'id="plot-coordinates"' not in body()
    assert "No trial meets the constraints." in body()
    for x in (0.2, 0.4):
        optimizer.add({"x": x}, x, measured={"c": -1.0})
    found = data.coordinates_data(optimizer)
    assert found.positions == ((0.2, 0.4), (0.2, 0.4))
    assert found.axes[-1].low > 0  # nor does the axis make room for it
    assert 'id="plot-coordinates"' in body()
    assert words in body()


def test_slices_have_no_cross_where_a_trial_was_withdrawn() -> None:
    optimizer = Optimizer(Space(Real("x", 0, 1)), "random")
    failed, withdrawn, stopped = optimizer.ask(3)
    optimizer.fail(failed)
    optimizer.withdraw(withdrawn)
    optimizer.fail(stopped, "stopped early at step 2")
    (part,) = data.slices_of(optimizer)
    assert sorted(part.failed) == sorted([failed.params["x"], stopped.params["x"]])


def test_slices_hold_trials_failures_and_the_surrogate_of_the_last_fit(
    nine: tuple[Optimizer, Record],
) -> None:
    optimizer, record = nine
    stored = data.restored(record)
    parts = data.slices_of(stored)
    assert [part.axis.name for part in parts] == list(SPACE.names)
    rate = parts[0]
    assert len(rate.observed) == len(optimizer.completed) == len(rate.closeness)
    assert len(rate.failed) == len(optimizer.finished) - len(optimizer.completed) > 0
    assert rate.best is not None
    assert optimizer.best is not None
    assert rate.observed[rate.best][1] == optimizer.best.value
    assert rate.curve is not None
    assert rate.curve.positions[0] == pytest.approx(-4)
    # The curve is the posterior of the stored draws on all results, none of them fitted anew.
    surrogate = stored.fit(refit=False).surrogate
    points = SPACE.encode([{**optimizer.best.params, "rate": 1e-4}]).unsqueeze(0)
    observations = stored.observations()
    mean = observations.units.back(surrogate.moments(points)[0].mean(1))
    assert rate.curve.median[0] == pytest.approx(float(mean))
    assert stored.fit(refit=False).report is stored.fit_report
    kind = parts[4]
    assert kind.listed
    assert kind.curve is not None
    assert kind.curve.positions == (0, 1)


def test_importance_is_the_shares_of_the_draws_lengthscales(tmp_path: Path) -> None:
    """Worked out by hand: a real parameter has 1/l, one with two choices sqrt(1/l1^2 + 1/l2^2)."""
    space = Space(Real("x", 0, 1), Categorical("kind", ("a", "b")))
    optimizer = job(tmp_path, 6, space=space, objective=lambda p: p["x"], inference="nuts")
    found = {one.name: one for one in data.importance_of(optimizer)}
    inverse = 1 / optimizer.fit(refit=False).surrogate.lengthscale[0]
    of_x, of_kind = inverse[:, 0], inverse[:, 1:].square().sum(-1).sqrt()
    shares = (of_x / (of_x + of_kind)).numpy()
    expected = np.quantile(shares, (0.05, 0.5, 0.95))
    np.testing.assert_allclose(
        [found["x"].low, found["x"].median, found["x"].high], expected, rtol=1e-9
    )
    assert found["x"].low < found["x"].high
    assert next(iter(found)) == ("x" if expected[1] > 0.5 else "kind")
    assert found["kind"].median == pytest.approx(1 - expected[1])


def test_importance_counts_the_values_that_a_parameter_can_have(tmp_path: Path) -> None:
    """Two integers lie half the cube apart, in the middles of their cells; one value lies nowhere.

    A choice of one is a corner of the cube that no trial leaves.
    """
    space = Space(Real("x", 0, 1), Integer("one", 3, 3), Integer("two", 1, 2), ONLY)
    optimizer = job(tmp_path, 6, space=space, objective=lambda p: p["x"] + p["two"])
    found = {one.name: one.median for one in data.importance_of(optimizer)}
    inverse = 1 / optimizer.fit(refit=False).surrogate.lengthscale[0, 0]
    assert found["one"] == found["only"] == 0
    assert found["two"] / found["x"] == pytest.approx(float(0.5 * inverse[2] / inverse[0]))


def test_a_parameter_that_does_nothing_has_the_least_importance(tmp_path: Path) -> None:
    space = Space(Real("idle", 0, 1), Real("x", 0, 1))
    optimizer = job(tmp_path, 12, space=space, objective=lambda p: math.sin(6 * p["x"]), initial=12)
    assert [one.name for one in data.importance_of(optimizer)] == ["x", "idle"]


def test_the_timeline_knows_what_became_of_each_attempt(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "runs.db")
    journal = store.create("job", {"space": {}})
    made = journal.read().created_at
    journal.write(
        attempts=[
            Attempt(0, 1, 0, made, made + 4, value=0.5),
            Attempt(1, 1, 1, made + 1, made + 2, reason="it broke\n  at line 3"),
            Attempt(1, 2, 1, made + 2, made + 3, reason="stopped early at step 2: worse"),
            Attempt(2, 1, 0, made + 4, made + 9, value=2.0, late=True),
            Attempt(3, 1, 1, made + 5, made + 6, reason="the job ended"),
            Attempt(3, 2, 1, made + 6),
        ]
    )
    bars = data.timeline_data(journal.read(), made + 7)
    assert [(bar.worker, bar.outcome) for bar in bars] == [
        (0, "completed"),
        (1, "failed"),
        (1, "stopped early"),
        (0, "late"),
        (1, "interrupted"),
        (1, "running"),
    ]
    assert [round(bar.end, 3) for bar in bars] == [4, 2, 3, 9, 6, 7]
    assert bars[1].about == "trial 1, attempt 1: failed\nit broke"
    assert data.utilisation(bars) == pytest.approx((4 + 1 + 1 + 5 + 2) / 18)
    assert data.utilisation(()) is None


def test_in_the_timeline_what_ran_when_a_driver_was_killed_ended_with_it(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "runs.db")
    journal = store.create("job", {"space": {}})
    made = journal.read().created_at
    journal.write(
        trials=[
            Trial(0, {}, asked_at=made).completed(0.5, made + 4),
            Trial(1, {}, asked_at=made).failed("it broke", made + 3),
            Trial(2, {}, asked_at=made + 5),
        ],
        attempts=[
            Attempt(0, 1, 0, made, made + 4, value=0.5),
            Attempt(1, 1, 1, made + 1),
            Attempt(2, 1, 0, made + 4),
        ],
    )
    record = journal.read()
    assert [bar.outcome for bar in data.timeline_data(record, made + 99)[1:]] == ["running"] * 2
    bars = data.timeline_data(replace(record, ended="no process drives it"), made + 99)
    assert [bar.outcome for bar in bars] == ["completed", "failed", "interrupted"]
    assert [round(bar.end, 3) for bar in bars] == [4, 3, 5]


@pytest.mark.parametrize("day", [86400.0, 10.0])
def test_nobody_works_between_an_interruption_and_the_next_start(day: float) -> None:
    bars = [
        data.Bar(0, 0.0, 4.0, "completed", ""),
        data.Bar(0, 5.0, 10.0, "interrupted", ""),
        data.Bar(1, 1.0, 10.0, "completed", ""),  # just as the job was killed
        data.Bar(1, 2.0, 3.0, "interrupted", ""),  # not run, but the other one went on
        data.Bar(0, day, day + 5, "completed", ""),
        data.Bar(1, day + 1, day + 7, "completed", ""),
        data.Bar(0, day + 8, day + 10, "interrupted", ""),
    ]
    for told in (bars, bars[::-1]):
        assert data.utilisation(told) == pytest.approx((4 + 5 + 9 + 1 + 5 + 6 + 2) / 40)


def test_intermediate_values_are_those_of_the_last_attempt(tmp_path: Path) -> None:
    values = iter([0.5, math.nan])
    optimizer = job(tmp_path, 2, strategy="sobol", objective=lambda params: next(values))
    assert optimizer.journal is not None
    optimizer.journal.write(metrics=[Metric(1, 2, 0, 9.0), Metric(1, 2, 4, math.nan)])
    first, second = data.learning_data(read(tmp_path))
    assert (first.trial, first.steps, first.values) == (0, (0, 1, 2), (1.5, 0.75, 0.5))
    assert second.steps == (0, 4)
    assert (first.completed, second.completed) == (True, False)


def test_the_curves_of_many_trials_are_two_lines_with_gaps() -> None:
    curves = [
        data.LearningCurve(trial, (0, 1, 2), (3.0, math.inf, 1.0 + trial), trial % 3 > 0)
        for trial in range(7)
    ]
    single = data.LearningCurve(7, (0,), (2.0,), True)
    completed, others = figures.learning([*curves, single], "minimize").data
    assert (completed.name, others.name) == ("completed", "did not complete")
    assert others.x == (None, 0, 1, 2, None, 0, 1, 2, None, 0, 1, 2, None)
    assert others.y[1:4] == (3.0, math.inf, 1.0)
    assert others.customdata[1:9] == (0, 0, 0, 0, 3, 3, 3, 3)
    # A line of one point would not be seen without a marker.
    assert [size for size in completed.marker.size if size] == [completed.marker.size[-2]]
    assert completed.customdata[-2] == 7
    # What no trial did has no place in the legend.
    assert [one.name for one in figures.learning([single], "minimize").data] == ["completed"]
    (alone,) = figures.learning(curves[:1], "minimize").data
    assert (alone.name, alone.showlegend) == ("did not complete", True)
    assert len(figures.learning([], "minimize").data) == 0


@pytest.mark.parametrize("strategy", ["ei", "sobol"])
def test_of_many_parameters_those_that_matter_are_shown(strategy: str, tmp_path: Path) -> None:
    space = Space(Real(f"x{i}", 0, 1) for i in range(23))
    optimizer = job(
        tmp_path, 9, strategy=strategy, space=space, objective=lambda p: math.sin(9 * p["x20"])
    )
    text = html(read(tmp_path), 0.0)
    shares = data.importance_of(optimizer)
    shown, _ = _shown(optimizer, shares)
    names = [parameter.name for parameter in shown]
    if strategy == "ei":
        assert {*names} == {share.name for share in shares[:15]}
        assert "Only the 15 most important of 23 parameters are shown." in text
    else:
        assert names == [f"x{i}" for i in range(15)]
        assert "Only the first 15 of 23 parameters are shown." in text
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert len(data.coordinates_data(optimizer, shown).axes) == 16
    assert len(data.slices_of(optimizer, shown)) == 15
    few = Optimizer(SPACE)
    assert _shown(few, ()) == (few.space.parameters, "")


@pytest.mark.parametrize(("direction", "best"), [("minimize", 0.01), ("maximize", 97.0)])
def test_the_best_curve_ends_within_the_axis(direction: str, best: float) -> None:
    others = [data.LearningCurve(trial, (0, 1), (50.0, 51.0), True) for trial in range(60)]
    one = data.LearningCurve(60, (0, 1), (50.0, best), True)
    low, high = figures.learning([*others, one], direction).layout.yaxis.range
    assert low < best < high


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_best_lines_are_the_darkest(direction: str, tmp_path: Path) -> None:
    optimizer = job(tmp_path, 6, strategy="sobol", direction=direction)
    line = figures.coordinates(data.coordinates_data(optimizer), direction).data[0].line
    assert line.colorscale[0][1] == "#440154"  # the darkest is that of low values
    assert line.reversescale == (direction == "maximize")


def test_diagnostics_are_the_reports_of_all_fits(tmp_path: Path) -> None:
    optimizer = job(tmp_path, 6, space=Space(Real("x", 0, 1)), inference="nuts", objective=_square)
    found = data.diagnostics_data(read(tmp_path))
    assert found.sizes == (4, 5, 6)
    assert optimizer.fit_report is not None
    last = float(optimizer.fit_report.rhat)
    assert found.columns["rhat"][0] is not None
    assert found.columns["rhat"][-1] == (None if math.isnan(last) else last)
    assert found.columns["status"][-1] == optimizer.fit_report.status[0]
    assert found.columns["warm"] == (False, True, True)


def _square(params: Any) -> float:
    return float(params["x"] ** 2)


def test_the_table_has_every_trial_and_marks_the_best(nine: tuple[Optimizer, Record]) -> None:
    optimizer, record = nine
    rows = data.table_data(record, data.restored(record))
    assert [row.trial for row in rows] == list(range(11))
    assert [row.status for row in rows][-2:] == ["pending", "pending"]
    assert optimizer.best is not None
    assert [row.trial for row in rows if row.best] == [optimizer.best.id]
    assert [round(row.seconds or 0.0, 6) for row in rows][:9] == [1.0] * 9
    assert rows[0].params == tuple(optimizer.trials[0].params[name] for name in SPACE.names)


def test_the_table_counts_the_attempts_and_has_the_seconds_of_the_last(tmp_path: Path) -> None:
    optimizer = job(tmp_path, 3, strategy="sobol")
    assert optimizer.journal is not None
    optimizer.journal.write(
        attempts=[Attempt(1, 2, 0, 100.0, 107.0, value=0.5), Attempt(2, 2, 0, 100.0)]
    )
    rows = data.table_data(read(tmp_path), optimizer)
    assert [row.attempts for row in rows] == [1, 2, 2, 0, 0]
    assert [row.seconds for row in rows] == [pytest.approx(1.0), 7.0, None, None, None]


# --- jobs of every kind


def nothing(params: Any) -> float:
    return math.nan


@dataclass(frozen=True)
class Own(ExpectedImprovement):
    """A strategy of a user's own."""


JOBS: dict[str, dict[str, Any]] = {
    "nothing yet": {"trials": 0},
    "failures only": {"objective": nothing, "trials": 3},
    "one result": {"trials": 1},
    "one parameter": {"space": Space(Real("x", 0, 1)), "objective": _square},
    "a point estimate": {},
    "a random search": {"strategy": "random"},
    "categorical only": {
        "space": Space(Categorical("kind", ("a", "b", "c")), Categorical("on", (True, None))),
        "objective": lambda params: float(params["kind"] == "b"),
        "trials": 4,
    },
    "the same value always": {"objective": lambda params: 2.0},
    "huge values": {"objective": lambda params: 1e300 * params["rate"]},
    "the largest values": {"objective": lambda params: 1.7e308 - 1e290 * params["rate"]},
    "parameters at the ends of a double": {
        "space": Space(
            Real("x", 1e308, 1.7e308), Real("y", -8e307, 8e307), Real("z", 5e-324, 1e-322)
        ),
        "objective": lambda params: params["y"] / 1e308,
    },
    "a strategy of options": {"strategy": ExpectedImprovement(SEARCH)},
    "a strategy of the user": {"strategy": Own(SEARCH)},
    "priors one by one": {"model": Model(prior=PRIORS["botorch"]())},
    "a prior of the user": {
        "model": Model(prior=replace(PRIORS["botorch"](), noise_variance=HalfNormal(0.1)))
    },
    "chains": {"space": Space(Real("x", 0, 1)), "objective": _square, "inference": "nuts"},
    "many parameters": {
        "space": Space(*(Real(f"x{i}", 0, 1) for i in range(23))),
        "objective": lambda params: sum(params.values()),
        "strategy": "sobol",
    },
}
NO_MODEL = {"nothing yet", "failures only", "one result", "a random search", "many parameters"}


@pytest.mark.parametrize("kind", JOBS)
def test_a_job_of_any_kind_has_a_report(kind: str, tmp_path: Path) -> None:
    job(tmp_path, **JOBS[kind])
    record = read(tmp_path)
    page = html(record, record.created_at + 10)
    plots = set(re.findall(r'id="plot-(\w+)"', page))
    has_model = kind not in NO_MODEL and kind != "a prior of the user"
    assert ("shares" in plots) == has_model
    assert ("progress" in plots) == (kind != "nothing yet")
    assert ("coordinates" in plots) == (kind not in ("nothing yet", "failures only"))
    assert ("is not stored" in page) == (kind == "a prior of the user")
    assert ("ei with search = {" in page) == (kind == "a strategy of options")
    assert ("a user-defined strategy" in page) == (kind == "a strategy of the user")
    body = page[page.index("<body>") :]
    assert "violate a constraint are left out" not in body
    assert not re.search(r">(nan|inf)<", body)
    assert body.count("<b>") == 0


@pytest.mark.parametrize("kind", ["nothing yet", "one result", "a random search"])
def test_without_a_model_nothing_is_recommended(kind: str, tmp_path: Path) -> None:
    job(tmp_path, **JOBS[kind])
    assert "recommended by the model" not in html(read(tmp_path), 0.0)


def test_the_page_tells_what_the_model_recommends(tmp_path: Path) -> None:
    space = Space(Categorical("kind", ("<a>", "<b>")))
    strategy = ExpectedImprovement(SEARCH, repeats=True)
    optimizer = job(
        tmp_path, 9, space=space, strategy=strategy,
        objective=lambda params: float(params["kind"] == "<a>"),
    )  # fmt: skip
    best = optimizer.recommend(refit=False)
    assert best.params == {"kind": "<b>"}
    page = html(read(tmp_path), 0.0)
    first, more = best.trials[0], len(best.trials) - 1
    which = f"trial {first} (and {more} more with the same configuration)"
    assert f"{which}, expected value {best.median:.4g} without" in page
    assert f"({best.low:.4g} to {best.high:.4g}): kind=&lt;b&gt;</p>" in page


def test_a_file_of_older_times_has_a_report_without_the_history_of_fits(
    nine: tuple[Optimizer, Record],
) -> None:
    page = html(replace(nine[1], fits=()), 0.0)
    assert "plot-surrogate" in page
    assert "plot-fits" not in page


def test_a_page_is_written_only_where_there_is_a_folder(tmp_path: Path) -> None:
    job(tmp_path, 0)
    for place in (tmp_path / "none" / "report.html", tmp_path):
        with pytest.raises(InvalidOption, match="html="):
            write(read(tmp_path), place)


def test_what_a_trial_said_is_no_markup(tmp_path: Path) -> None:
    optimizer = job(tmp_path, 3)
    optimizer.fail(optimizer.ask(), "expected <class 'float'>")
    page = html(read(tmp_path), 0.0)
    assert "&lt;class" in page
    assert "<class" not in page


def test_a_choice_that_is_a_name_of_a_file_and_no_text_is_written_all_the_same(
    tmp_path: Path,
) -> None:
    space = Space(Categorical("data", [os.fsdecode(b"caf\xe9"), "tea"]), Real("x", 0, 1))
    job(tmp_path, 4, space=space, objective=lambda params: params["x"])
    write(read(tmp_path), tmp_path / "report.html")
    assert r"caf\udce9" in (tmp_path / "report.html").read_text(encoding="utf-8")


# --- in a browser


def shown(chrome: Any, script: str) -> Any:
    return chrome.execute_script(f"return {script}")


def column(chrome: Any, number: int) -> list[str]:
    rows = "[...document.querySelectorAll('#table tbody tr')]"
    cells: list[str] = shown(chrome, f"{rows}.map(row => row.cells[{number}].textContent)")
    return cells


def waited(chrome: Any, condition: Callable[[Any], Any]) -> Any:
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(chrome, 20).until(condition)


def test_in_a_browser_the_page_draws_sorts_and_tells_without_a_network(
    nine: tuple[Optimizer, Record], tmp_path: Path
) -> None:
    optimizer, record = nine
    write(record, tmp_path / "report.html")
    with browser.page(tmp_path / "report.html") as chrome:
        assert chrome.title == "gpbo: job"
        drawn = "document.querySelectorAll('.js-plotly-plot .main-svg').length"
        assert waited(chrome, lambda c: shown(c, drawn)) > 10
        titles = [e.text for e in chrome.find_elements("css selector", "section h2")]
        assert titles == [
            "Convergence",
            "Intermediate values",
            "Parallel coordinates",
            "Parameters",
            "Importance",
            "Workers",
            "How the fits went",
            "Trials",
        ]
        # Sorting by the results: numbers in order, the best first, those without a value last.
        chrome.find_element("css selector", "#table th:nth-child(2) button").click()
        best = optimizer.best
        assert best is not None
        assert column(chrome, 0)[0] == str(best.id)
        values = [float(text) for text in column(chrome, 1) if re.fullmatch(r"[\d.e+-]+", text)]
        assert values == sorted(values)
        assert len(values) == len(optimizer.completed)
        chrome.find_element("css selector", "#table th:nth-child(2) button").click()
        again = [float(text) for text in column(chrome, 1) if re.fullmatch(r"[\d.e+-]+", text)]
        assert again == values[::-1]
        # Text of the user is text.
        assert "</script><b>" in column(chrome, 6)
        # A click on the legend hides the trials; two clicks are another thing, so it waits.
        legend = "document.querySelector('#plot-progress .legendtoggle')"
        shown(chrome, f"{legend}.dispatchEvent(new MouseEvent('mousedown', {{bubbles: true}}))")
        shown(chrome, f"{legend}.dispatchEvent(new MouseEvent('mouseup', {{bubbles: true}}))")
        hidden = "document.querySelector('#plot-progress').data[0].visible"
        assert waited(chrome, lambda c: shown(c, hidden) == "legendonly")
        first = shown(chrome, "document.querySelector('#plot-progress').data[1].y[0]")
        assert first == optimizer.trials[0].value
        assert browser.complaints(chrome) == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in browser.requests(chrome))


def test_in_a_browser_a_job_without_results_says_so(tmp_path: Path) -> None:
    job(tmp_path, 0)
    write(read(tmp_path), tmp_path / "report.html")
    with browser.page(tmp_path / "report.html") as chrome:
        said = [e.text for e in chrome.find_elements("css selector", ".nothing")]
        assert "No trial has ended yet." in said
        assert column(chrome, 1) == ["pending", "pending"]
        assert browser.complaints(chrome) == []


def test_the_json_of_a_job_has_its_fits(nine: tuple[Optimizer, Record]) -> None:
    record = replace(nine[1], queue=({"x": 0.25},))
    told = json.loads(json.dumps(plain(record), allow_nan=False))
    assert (told["queue"], told["finished"]) == ([{"x": 0.25}], list(record.finished))
    assert [fit["size"] for fit in told["fits"]]
    assert told["fits"][0]["report"]["inference"] == "map"


def test_a_fit_with_too_few_draws_for_an_rhat_is_told_with_what_else_is_known(
    nine: tuple[Optimizer, Record],
) -> None:
    (last,) = nine[1].fits[-1:]
    known = {"inference": "hmc", "status": "ok", "divergences": 3.0, "transitions": 4, "warm": True}
    unknown = {"rhat": None, "ess_bulk": None, "ess_tail": None}
    fit = replace(last, report={**last.report, **known, **unknown})
    told = _last_fit(replace(nine[1], fits=(fit,)))
    assert "<th>divergences</th><td>3" in told
    assert "R-hat" not in told


def test_fits_are_plain_values(nine: tuple[Optimizer, Record]) -> None:
    optimizer, record = nine
    (last,) = [fit for fit in record.fits if fit.size == optimizer.fitted_size]
    assert last.report["rhat"] is None
    assert not any(isinstance(value, torch.Tensor) for value in last.report.values())

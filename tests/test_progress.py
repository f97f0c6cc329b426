"""The live display: what it shows of a state, on a terminal and elsewhere."""

import io
import math
import time
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console, RenderableType

from gpbo.loop import minimize
from gpbo.optimizer import Optimizer
from gpbo.progress import Lines, counted, line, panel, shown
from gpbo.space import Real, Space
from gpbo.state import State
from gpbo.trial import Trial

BEST = Trial(7, {"rate": 1 / 3, "kind": "[b]a"}, origin="model:ei").completed(0.125, None)
STATE = State(
    title="gpbo minimize ei",
    budget=40,
    done=12,
    failed=1,
    best=BEST,
    running=(Trial(12, {"rate": 0.5}, origin="model:ei"),),
    objective_s=3661.5,
    engine_s=2.25,
    current_s=0.75,
)


def text(renderable: RenderableType) -> str:
    console = Console(width=90, file=io.StringIO())
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_the_panel_has_the_incumbent_the_times_and_what_is_left() -> None:
    shows = text(panel(STATE))
    for part in (
        "gpbo minimize ei",
        "12/40 trials, 1 failed, 28 left",
        "0.125  trial 7, model:ei",
        "rate=0.3333  kind=[b]a",
        "evaluating trial 12 (model:ei), 0.8 s",
        "1:01:03 elapsed, objective 3661.5 s, gpbo 2.2 s",
    ):
        assert part in shows


def test_the_panel_before_the_first_result_and_after_the_last() -> None:
    start = text(panel(replace(STATE, done=0, failed=0, best=None, running=())))
    assert "none yet" in start
    assert "0/40 trials, 40 left" in start
    assert "choosing what to try, 0.8 s" in start
    several = replace(STATE, running=(*STATE.running, Trial(15, {"rate": 0.2}, origin="model:ts")))
    assert "evaluating 2 trials, the latest is 15 (model:ts)" in text(panel(several))
    assert "done" in text(panel(replace(STATE, done=40, running=())))


def test_a_line_marks_an_improvement_and_its_configuration() -> None:
    improved = line(STATE, BEST)
    assert improved.startswith("12/40  0.125  best 0.125  [1:01:03 elapsed")
    assert improved.endswith(" *  rate=0.3333  kind=[b]a")
    failed = line(replace(STATE, done=9), Trial(8, {"rate": 0.5}).failed("ValueError: no", None))
    assert failed.startswith(" 9/40  failed: ValueError: no  best 0.125  [")
    assert failed.endswith("]")


def test_a_line_of_a_job_has_the_best_value_so_far(capfd: pytest.CaptureFixture[str]) -> None:
    optimizer = Optimizer(Space(Real("rate", 0, 1)), "sobol", direction="maximize")
    lines = Lines()
    lines.started(optimizer)
    first, second, third = ({"rate": rate} for rate in (0.125, 0.5, 0.25))
    lines.ended(optimizer.add(first, math.nan))
    lines.ended(optimizer.add(second, 7.0))
    lines.ended(optimizer.add(third, 5.0))
    assert capfd.readouterr().err.splitlines() == [
        "trial 0: failed: the value is nan  best none  rate=0.125",
        "trial 1: 7  best 7 *  rate=0.5",
        "trial 2: 5  best 7  rate=0.25",
    ]


def lines_of(budget: int, values: list[float], first: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=False, width=60)
    states = iter(
        replace(STATE, budget=budget, done=done, best=BEST) for done in range(1, len(values) + 1)
    )
    with shown(lambda: next(states), console) as show:
        for number, value in enumerate(values, start=first):
            show(Trial(number, {"rate": 0.1}).completed(value, None))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_elsewhere_each_trial_is_a_line_and_a_long_run_thins_them_out() -> None:
    assert len(lines_of(40, [1.0] * 7)) == 7
    assert len(lines_of(1000, [1.0] * 35)) == 3


def test_an_improvement_is_a_line_in_a_long_run_too() -> None:
    (improved,) = lines_of(1000, [1.0, 1.0, 1.0], first=BEST.id - 1)
    assert improved.startswith("   2/1000  1  best 0.125")


def test_on_a_terminal_the_panel_stays_when_the_run_ends() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=90)
    with shown(lambda: STATE, console) as show:
        show(BEST)
    assert isinstance(console.file, io.StringIO)
    assert "28 left" in console.file.getvalue()


def test_minimize_shows_its_progress_on_the_standard_error_stream(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def objective(params: dict[str, Any]) -> float:
        return params["x"]

    minimize(objective, Space(Real("x", 0, 1)), budget=3, strategy="sobol")
    out, err = capfd.readouterr()
    assert out == ""
    assert [row.split()[0] for row in err.splitlines()] == ["1/3", "2/3", "3/3"]


def test_the_display_moves_while_the_objective_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is read by another thread, at any moment, while the loop changes it."""
    from gpbo import progress

    console = Console(file=io.StringIO(), force_terminal=True, width=90)
    monkeypatch.setattr(progress, "standard_error", lambda: console)

    def slow(params: dict[str, Any]) -> float:
        time.sleep(0.6)
        return params["x"]

    minimize(slow, Space(Real("x", 0, 1)), budget=2, strategy="random")
    assert isinstance(console.file, io.StringIO)
    frames = console.file.getvalue()
    assert "evaluating trial 0" in frames
    assert "evaluating trial 1" in frames
    assert "2/2 trials, 0 left" in frames


def counted_to(total: int, *, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with counted("ei on [b]branin", total, console) as show:
        show(0, float("inf"))
        for done in range(1, total + 1):
            show(done, 1 / done)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_many_runs_together_print_about_twenty_lines_elsewhere() -> None:
    lines = counted_to(1000, terminal=False).splitlines()
    assert 19 <= len(lines) <= 21
    assert lines[0].startswith("ei on [b]branin: 50/1000 trials, median regret 0.02  [")
    assert lines[-1].startswith("ei on [b]branin: 1000/1000 trials, median regret 0.001")
    assert len(counted_to(3, terminal=False).splitlines()) == 3


def test_many_runs_together_have_a_bar_on_a_terminal() -> None:
    shown = counted_to(7, terminal=True)
    assert "7/7" in shown
    assert "trials, median regret 0.1429" in shown

"""Tuning jobs with constraints: what trials measure, files, storages, pages and pictures."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpbo import plots, view
from gpbo.errors import InvalidData, InvalidJob
from gpbo.job import Job, check_job, read_job
from gpbo.loop import minimize
from gpbo.optimizer import Optimizer
from gpbo.record import Attempt, Record
from gpbo.report import figures
from gpbo.report.data import progress_data, slices_of, table_data
from gpbo.report.page import write
from gpbo.slices import slices_data
from gpbo.space import Real, Space
from gpbo.storage import SqliteStorage
from gpbo.transfer import warm_start
from gpbo.trial import Trial, TrialStatus
from gpbo.tuner import Execution, Tuner
from gpbo.worker import Command
from tests import objectives

LINE = Space(Real("x", 0.0, 1.0))
DEEP = ["depth >= 0.5"]
X = {"type": "real", "low": 0, "high": 1}
TABLE: dict[str, Any] = {
    "name": "deep",
    "objective": "tests.objectives:bowl_and_depth",
    "budget": 4,
    "strategy": "sobol",
    "space": {"x": X},
    "constraints": ["depth >= 0.5"],
}


def stored(folder: Path, name: str = "deep", **options: Any) -> Optimizer:
    options = {"strategy": "sobol", "constraints": DEEP, **options}
    return Optimizer(LINE, storage=folder / "runs.db", name=name, **options)


def read(folder: Path, name: str = "deep") -> Record:
    return SqliteStorage(folder / "runs.db").read(name)


# --- trials


@pytest.mark.parametrize("objective", ["tests.objectives:bowl_and_depth", "command"])
def test_trials_tell_what_they_measure(objective: str, tmp_path: Path) -> None:
    target: Any = objective
    if objective == "command":
        script = tmp_path / "train.py"
        script.write_text(
            "import json, sys\n"
            "x = float(sys.argv[1])\n"
            'print("depth is measured"), print(json.dumps({"depth": 7.0, "other": 1}))\n'
            'print(json.dumps({"value": (x - 0.3) ** 2}))\n'
            'print(json.dumps({"step": 1, "depth": x}))\n'
        )
        target = Command(f"{sys.executable} {script} {{x}}")
    optimizer = stored(tmp_path)
    result = Tuner(optimizer, target, budget=5, execution=Execution(workers=2)).run()
    assert len(result.trials) == 5
    for trial in result.trials:
        assert trial.value == pytest.approx(objectives.bowl(dict(trial.params)))
        assert trial.measured == {"depth": trial.params["x"]}
        assert trial.violated == (() if trial.params["x"] >= 0.5 else ("depth >= 0.5",))
    assert result.best is not None
    assert result.best.params["x"] == min(x for t in result.trials if (x := t.params["x"]) >= 0.5)
    record = read(tmp_path)
    assert {t.id: (t.measured, t.violated) for t in record.trials} == {
        t.id: (t.measured, t.violated) for t in result.trials
    }
    assert {a.trial: a.measured for a in record.attempts} == {
        t.id: t.measured for t in result.trials
    }


@pytest.mark.parametrize("escaped", [True, False])
def test_a_quantity_of_any_name_is_read_from_what_a_command_prints(
    escaped: bool, tmp_path: Path
) -> None:
    line = json.dumps({"mémoire": 3.0}, ensure_ascii=escaped) + '\n{"value": 1}\n'
    (tmp_path / "told").write_text(line, encoding="utf-8")
    target = Command(f"cat {tmp_path / 'told'}")
    optimizer = stored(tmp_path, constraints=["mémoire <= 16"])
    (trial,) = Tuner(optimizer, target, budget=1).run().trials
    assert trial.measured == {"mémoire": 3.0}


@pytest.mark.parametrize("line", ["", '{"depth": "deep"}', '{"depth": true}', "depth: 0.7"])
def test_a_command_that_does_not_tell_what_it_measured_has_failed(
    line: str, tmp_path: Path
) -> None:
    script = tmp_path / "train.py"
    script.write_text(f"print({line!r}), print('{{\"value\": 0.25}}')\n")
    command = Command(f"{sys.executable} {script} {{x}}")
    optimizer = Optimizer(LINE, "sobol", constraints=DEEP)
    (trial,) = Tuner(optimizer, command, budget=1).run().trials
    assert trial.status is TrialStatus.FAILED
    assert trial.reason is not None
    assert "depth" in trial.reason
    assert "expected" in trial.reason


def test_without_constraints_a_command_may_print_anything_more(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text('print(\'{"value": 0.25, "depth": 3}\')\n')
    command = Command(f"{sys.executable} {script} {{x}}")
    (trial,) = Tuner(Optimizer(LINE, "sobol"), command, budget=1).run().trials
    assert (trial.value, trial.measured) == (0.25, {})


def test_a_function_that_returns_a_value_alone_has_failed() -> None:
    optimizer = Optimizer(LINE, "sobol", constraints=DEEP)
    (trial,) = Tuner(optimizer, objectives.bowl, budget=1).run().trials
    assert trial.reason is not None
    assert "expected a pair (value, {'depth': ...})" in trial.reason


def test_what_an_attempt_measured_is_told_though_its_driver_died_before(tmp_path: Path) -> None:
    optimizer = stored(tmp_path)
    told = optimizer.ask()
    assert optimizer.journal is not None
    attempt = Attempt(told.id, 1, 0, 1.0, 2.0, value=0.25, measured={"depth": 0.125})
    optimizer.journal.write(attempts=[attempt])
    optimizer.close()
    resumed = Optimizer.resume(tmp_path / "runs.db", "deep")
    (trial,) = Tuner(resumed, objectives.bowl_and_depth, budget=1).run().trials
    assert (trial.value, trial.measured, trial.feasible) == (0.25, {"depth": 0.125}, False)
    assert read(tmp_path).attempts == (attempt,)


# --- files


def test_a_job_file_says_what_results_keep_to(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        'name = "deep"\nobjective = "deep:loss"\nbudget = 4\nstrategy = "sobol"\n'
        'constraints = ["depth >= 0.5"]\n[space]\nx = { type = "real", low = 0.0, high = 1.0 }\n'
    )
    (tmp_path / "deep.py").write_text("def loss(p):\n    return p['x'], {'depth': p['x']}\n")
    job = read_job(tmp_path / "job.toml")
    result = job.tuner(tmp_path, resume=False).run()
    assert any(trial.violated for trial in result.trials)
    result.optimizer.close()
    assert job.tuner(tmp_path, resume=True).optimizer.best == result.best


def test_a_job_is_resumed_with_its_own_constraints_only(tmp_path: Path) -> None:
    check_job(TABLE).tuner(tmp_path, resume=False).optimizer.close()
    for constraints in ([], ["depth >= 0.6"]):
        with pytest.raises(InvalidJob, match="constraints"):
            check_job({**TABLE, "constraints": constraints}).tuner(tmp_path, resume=True)
    same = check_job({**TABLE, "constraints": ["depth>=.5"]})
    same.tuner(tmp_path, resume=True).optimizer.close()


@pytest.mark.parametrize("wrong", ["depth >= 0.5", ["depth"], [0.5], ["depth >= x"]])
def test_a_mistake_in_a_constraint_is_named_with_its_key(wrong: Any) -> None:
    with pytest.raises(InvalidJob, match="constraints"):
        check_job({**TABLE, "constraints": wrong})


def test_a_job_from_before_there_were_constraints_is_gone_on_with(tmp_path: Path) -> None:
    optimizer = stored(tmp_path, constraints=())
    optimizer.tell(optimizer.ask(), 1.0)
    assert optimizer.journal is not None
    spec = read(tmp_path).spec
    del spec["constraints"]
    optimizer.journal.write(spec=spec)
    optimizer.close()
    with Optimizer.resume(tmp_path / "runs.db", "deep") as resumed:
        assert resumed.constraints == ()
        assert resumed.best is not None
    with stored(tmp_path, constraints=(), exist_ok=True) as again:
        assert len(again.trials) == 1


def test_a_job_learns_from_one_that_measured_the_same(tmp_path: Path) -> None:
    parent = stored(tmp_path)
    for x in (0.2, 0.6):
        parent.add({"x": x}, *objectives.bowl_and_depth({"x": x}))
    optimizer = Optimizer(LINE, constraints=["depth <= 0.3"])
    assert warm_start(optimizer, [(read(tmp_path), "same")]) == 2
    assert [trial.feasible for trial in optimizer.trials] == [True, False]
    unconstrained = Optimizer(LINE)
    assert warm_start(unconstrained, [(read(tmp_path), "same")]) == 2
    with pytest.raises(InvalidData, match="'memory'"):
        warm_start(Optimizer(LINE, constraints=["memory <= 1"]), [(read(tmp_path), "same")])
    asked_first = Optimizer(LINE, constraints=["memory <= 1"])
    assert warm_start(asked_first, [(read(tmp_path), "transfer")]) == 1
    assert asked_first.ask().params == {"x": 0.6}


@pytest.mark.parametrize("more", [False, True])
def test_of_a_job_that_never_met_its_constraints_the_best_value_is_asked_first(
    more: bool, tmp_path: Path
) -> None:
    parent = stored(tmp_path)
    for x, value in ((0.2, 0.5), (0.6, 0.25), (0.8, 0.75)):
        parent.add({"x": x}, value, {"depth": 0.0})
    table = {**TABLE, "name": "child", "constraints": [], "storage": "runs.db"}
    table["warm_start"] = [{"job": "deep", "kind": "transfer"}]
    job = check_job(table)
    with job.tuner(tmp_path, resume=False).optimizer as child:
        assert (child.queue, child.trials) == ([{"x": 0.6}], [])
        assert child.journal is not None
        child.journal.write(queue=[], trials=[Trial(0, {"x": 0.1}, origin="sobol")])
    if more:
        parent.add({"x": 0.3}, 1.0, {"depth": 0.0})
    # As it was stored when nothing was taken of such a job.
    with job.tuner(tmp_path, resume=True).optimizer as child:
        assert (child.queue, len(child.trials)) == ([], 1)


# --- what people see


@pytest.fixture(params=["some", "none"])
def constrained(request: pytest.FixtureRequest, tmp_path: Path) -> Optimizer:
    limit = "depth >= 0.5" if request.param == "some" else "depth >= 2"
    optimizer = stored(tmp_path, constraints=[limit], strategy="ei", inference="map", initial=3)
    for _ in range(5):
        trial = optimizer.ask()
        optimizer.tell(trial, *objectives.bowl_and_depth(dict(trial.params)))
    optimizer.fail(optimizer.ask(), "out of memory")
    return optimizer


def test_pages_and_panels_tell_who_violates_what(constrained: Optimizer, tmp_path: Path) -> None:
    record = read(tmp_path)
    best = constrained.best
    summary = view.summary(record)
    assert ("no trial meets the constraints" in summary) == (best is None)
    if best is not None:
        assert summary.endswith(f"x={best.params['x']:.4g}  with depth={best.params['x']:.4g}")
    told = json.loads(json.dumps(view.plain(record), allow_nan=False))
    assert told["best"] == (None if best is None else best.id)
    assert [trial["measured"] for trial in told["trials"][:5]] == [
        {"depth": trial.params["x"]} for trial in constrained.completed
    ]
    progress = progress_data(constrained)
    assert progress.feasible == tuple(trial.feasible for trial in constrained.finished)
    rows = table_data(record, constrained)
    assert [row.measured for row in rows] == [
        (trial.measured.get("depth", ""),) for trial in constrained.trials
    ]
    write(record, tmp_path / "job.html")
    page = (tmp_path / "job.html").read_text(encoding="utf-8")
    assert "violates depth" in page
    assert f"constraints: {constrained.constraints[0]}".replace(">", "&gt;") in page
    assert "circle-open" in page
    shown = slices_of(constrained)[0].best
    assert shown is not None
    valued = constrained.completed if best is None else [best]
    assert constrained.completed[shown].value == min(t.value or 0.0 for t in valued)


def test_a_page_has_dots_and_rings_each_with_a_place_in_the_legend(constrained: Optimizer) -> None:
    kinds = {("trials", "circle"): True, ("violate a constraint", "circle-open"): False}
    trials = {
        kind: [trial for trial in constrained.completed if trial.feasible is met]
        for kind, met in kinds.items()
    }
    for figure in (
        figures.progress(progress_data(constrained), constrained.direction),
        figures.slices(slices_of(constrained)),
    ):
        drawn = {(t.name, t.marker.symbol): t for t in figure.data if t.hovertext and t.showlegend}
        assert {*drawn} & {*kinds} == {kind for kind in kinds if trials[kind]}
        for kind in {*drawn} & {*kinds}:
            assert list(drawn[kind].y) == [trial.value for trial in trials[kind]]
            for trial, text in zip(trials[kind], drawn[kind].hovertext, strict=True):
                assert text.startswith(f"trial {trial.id} (")
    (star,) = (t for t in figures.slices(slices_of(constrained)).data if t.marker.symbol == "star")
    unmet = "best value (violates a constraint)"
    assert star.name == ("best trial" if constrained.best else unmet)


def test_pictures_are_drawn_whether_or_not_a_trial_meets_the_constraints(
    constrained: Optimizer, tmp_path: Path
) -> None:
    axes = plots.convergence(constrained, tmp_path / "convergence.png").axes[0]
    dots, rings = (np.asarray(line.get_ydata(), dtype=float) for line in axes.lines[:2])
    assert np.isfinite(dots).sum() == sum(trial.feasible for trial in constrained.finished)
    violated = [trial.value for trial in constrained.finished if trial.violated]
    assert rings.tolist() == violated
    plots.slices(constrained, tmp_path / "slices.png")
    (part,) = slices_data(constrained)
    assert part.best[0] in [trial.params["x"] for trial in constrained.completed]


def test_slices_draw_rings_where_a_trial_violates_a_constraint(constrained: Optimizer) -> None:
    violated = [not trial.feasible for trial in constrained.completed]
    assert any(violated)
    (part,) = slices_data(constrained)
    assert part.feasible == tuple(not each for each in violated)
    figure = plots.slices(constrained)
    dots = figure.axes[0].collections[-1]
    assert [face[3] == 0 for face in np.asarray(dots.get_facecolor())] == violated
    assert [width > 0 for width in np.asarray(dots.get_linewidth())] == violated
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "violate a constraint"


def test_the_display_of_a_loop_names_the_best_that_meets_the_constraints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = minimize(
        objectives.bowl_and_depth, LINE, budget=6, strategy="random", constraints=DEEP
    )
    lines = capsys.readouterr().err
    assert result.best is not None
    assert f"best {result.best.value:.4g}" in lines
    assert "violates depth >= 0.5" in lines


def test_the_keys_of_a_job_are_told_where_they_belong() -> None:
    with pytest.raises(InvalidJob, match="constraints is a key of the job itself"):
        check_job({**TABLE, "space": {"x": {**X, "constraints": []}}})
    assert "constraints" in Job.model_fields

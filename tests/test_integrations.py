"""Other people's tools, for real where they are installed."""

import sys
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from gpbo import cli
from gpbo.errors import InvalidOption
from gpbo.optimizer import Optimizer
from gpbo.space import Categorical, Real, Space
from gpbo.tuner import Execution, Tuner
from tests import objectives
from tests.monte_carlo import unchecked_shapes
from tests.test_tuner import tuned

SPACE = Space(Real("x", 0, 1), Categorical("kind", ("a", None)))


def objective(params: dict[str, Any], trial: Any) -> float:
    for step in range(3):
        trial.report(step, 1.5 / (step + 1))
    if trial.id == 1:
        raise ValueError("no convergence")
    return float(params["x"])


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_what_the_job_wrote(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from gpbo.integrations.tensorboard import TensorBoard

    result = tuned(
        Optimizer(SPACE, "sobol"), objective, budget=3, callbacks=[TensorBoard(tmp_path)]
    ).run()

    def read(folder: Path) -> Any:
        events = EventAccumulator(str(folder))
        events.Reload()
        return events

    best = read(tmp_path).Scalars("best")
    values = [trial.value for trial in result.trials]
    assert values[1] is None
    assert [event.step for event in best] == [1, 2, 3]
    assert best[-1].value == pytest.approx(min(v for v in values if v is not None))
    first = read(tmp_path / "trial-00000")
    assert [(e.step, e.value) for e in first.Scalars("reported")] == [(0, 1.5), (1, 0.75), (2, 0.5)]
    assert first.Scalars("value")[0].value == pytest.approx(values[0])
    assert "_hparams_/session_start_info" in first.PluginTagToContent("hparams")
    failed = read(tmp_path / "trial-00001")
    assert "value" not in failed.Tags()["scalars"]
    assert "no convergence" in str(failed.Tensors("reason/text_summary")[0])


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_a_run_for_the_job_and_one_for_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    from gpbo.integrations.mlflow import MLflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    result = tuned(
        Optimizer(SPACE, "sobol", seed=5),
        objective,
        budget=3,
        callbacks=[MLflow(uri, "tuning", "svm")],
    ).run()
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tuning")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"svm", "trial 0", "trial 1", "trial 2"}
    job, first, failed = runs["svm"], runs["trial 0"], runs["trial 1"]
    assert (job.data.params["strategy"], job.data.params["seed"]) == ("sobol", "5")
    assert (job.info.status, job.data.tags["stopped"]) == ("FINISHED", "budget")
    assert first.data.tags["mlflow.parentRunId"] == job.info.run_id
    assert first.data.metrics["value"] == result.trials[0].value
    assert first.data.params == {k: str(v) for k, v in result.trials[0].params.items()}
    curve = client.get_metric_history(first.info.run_id, "reported")
    assert [(m.step, m.value) for m in curve] == [(0, 1.5), (1, 0.75), (2, 0.5)]
    assert failed.info.status == "FAILED"
    assert "no convergence" in failed.data.tags["reason"]
    assert result.best is not None
    assert job.data.metrics["best"] == result.best.value


def import_anew(monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    """Have the integration of a tool imported in this test, and forgotten after it."""
    name = f"gpbo.integrations.{tool}"
    monkeypatch.setitem(sys.modules, name, None)
    del sys.modules[name]


def stand_in_for_mlflow(monkeypatch: pytest.MonkeyPatch, client: Any) -> None:
    tags = SimpleNamespace(MLFLOW_PARENT_RUN_ID="parent", MLFLOW_RUN_NAME="name")
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=client))
    monkeypatch.setitem(sys.modules, "mlflow.utils", SimpleNamespace(mlflow_tags=tags))
    monkeypatch.setitem(sys.modules, "mlflow.utils.mlflow_tags", tags)
    import_anew(monkeypatch, "mlflow")


@pytest.mark.parametrize("refused", ["x", "memory", None])
def test_mlflow_s_runs_of_trials_end_though_it_refuses_a_name(
    refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without MLflow itself: of a parameter, or of a quantity; it allows no parentheses."""
    runs: dict[str, str] = {}
    logged: list[str] = []

    class Client:
        def __init__(self, tracking_uri: str | None) -> None: ...
        def get_experiment_by_name(self, name: str) -> Any:
            return SimpleNamespace(experiment_id="0")

        def create_run(self, experiment: str, tags: dict[str, str]) -> Any:
            runs[run := str(len(runs))] = "RUNNING"
            return SimpleNamespace(info=SimpleNamespace(run_id=run))

        def log_param(self, run: str, name: str, value: Any) -> None:
            if name == refused or "(" in name:
                raise ValueError(f"invalid name {name!r}")

        def log_metric(self, run: str, name: str, value: float, step: int = 0) -> None:
            logged.append(name)
            self.log_param(run, name, value)

        def set_tag(self, run: str, name: str, value: str) -> None: ...
        def set_terminated(self, run: str, status: str) -> None:
            runs[run] = status

    stand_in_for_mlflow(monkeypatch, Client)
    quantity = "memory" if refused else "memory (GB)"
    space = SPACE if refused else Space(Real("x", 0, 1), Real("lr (log)", 0, 1))
    optimizer = Optimizer(space, "sobol", constraints=[f"{quantity} <= 1"])
    callbacks = [import_module("gpbo.integrations.mlflow").MLflow()]

    def measured(params: dict[str, Any]) -> Any:
        return params["x"], {quantity: 1.0}

    result = tuned(optimizer, measured, budget=2, callbacks=callbacks).run()
    assert [*runs.values()] == ["FINISHED"] * 3
    assert logged.count("best") == 2
    assert logged.count("memory _GB_") == (0 if refused else 2)
    callbacks[0].finished(replace(result, trials=(), stopped="interrupted"))
    assert [*runs.values()] == ["KILLED"] * 3
    callbacks[0].started(optimizer)  # which is another run of the same trials
    with suppress(ValueError):
        callbacks[0].ended(result.trials[0])
    assert [*runs.values()] == ["KILLED"] * 3 + ["RUNNING", "FINISHED"]


def test_a_place_that_mlflow_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(tracking_uri: str) -> Any:
        raise RuntimeError("unsupported URI")  # MLflow's own error is one of no builtin kind

    stand_in_for_mlflow(monkeypatch, refusing)
    message = "uri='bad://x', experiment='gpbo': expected a tracking URI .*: unsupported URI"
    with pytest.raises(InvalidOption, match=message):
        cli._integrations(None, "bad://x")


@pytest.mark.filterwarnings("ignore")
def test_ray_runs_the_trials_and_a_worker_that_dies_is_a_failed_one(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from gpbo.integrations.ray import RayExecutor

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with RayExecutor(num_cpus=1) as executor:
            result = Tuner(
                Optimizer(Space(Real("x", 0, 1)), "sobol"),
                objectives.kills_its_worker_once,
                budget=5,
                execution=Execution(workers=2, retries=1),
                executor=executor,
                folder=tmp_path,
            ).run()
    finally:
        ray.shutdown()
    assert (tmp_path / "killed").exists()
    assert [trial.value == trial.params["x"] for trial in result.trials] == [True] * 5


def test_ray_is_waited_for_while_tasks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray itself: a task ends, and is forgotten by another thread, at any look at them."""
    waited: list[tuple[list[str], int]] = []
    ray = SimpleNamespace(
        is_initialized=lambda: True,
        wait=lambda tasks, num_returns: waited.append((tasks, num_returns)),
    )
    name = "gpbo.integrations.ray"
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, name, None)  # what is imported here is forgotten afterwards
    del sys.modules[name]

    class Ending(dict[str, str]):
        def values(self) -> Any:
            found = [*super().values()]
            self.popitem()
            return found

    executor = import_module(name).RayExecutor()
    executor._tasks = Ending(first="one", second="two", third="three")
    executor.shutdown()
    assert waited == [(["one", "two", "three"], 3)]


def test_ray_runs_no_task_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray itself; to try a trial again is up to the job."""
    given: dict[str, Any] = {}

    class Remote:
        def options(self, **options: Any) -> "Remote":
            given.update(options)
            return self

        def remote(self, *args: Any) -> Any:
            return SimpleNamespace(future=Future)

    ray = SimpleNamespace(is_initialized=lambda: True, remote=lambda fn: Remote())
    monkeypatch.setitem(sys.modules, "ray", ray)
    import_anew(monkeypatch, "ray")
    import_module("gpbo.integrations.ray").RayExecutor(num_cpus=3).submit(abs, -1)
    assert given == {"max_retries": 0, "num_cpus": 3}


@pytest.mark.parametrize(
    ("tool", "needed"),
    [("mlflow", "mlflow"), ("ray", "ray"), ("tensorboard", "torch.utils.tensorboard")],
)
def test_a_tool_that_is_not_installed_is_named(
    tool: str, needed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"gpbo.integrations.{tool}", raising=False)
    monkeypatch.setitem(sys.modules, needed, None)
    needs_extra = rf"install it with: pip install 'gpbo\[{tool}\]'"
    with pytest.raises(ModuleNotFoundError, match=needs_extra):
        import_module(f"gpbo.integrations.{tool}")
    if tool != "ray":
        with pytest.raises(InvalidOption, match=f"--{tool}: .*; {needs_extra}"):
            cli._integrations(tmp_path if tool == "tensorboard" else None, tool)


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_folder_is_refused_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from gpbo.integrations.tensorboard import TensorBoard

    (tmp_path / "runs").touch()
    with pytest.raises(InvalidOption, match="runs': expected a folder, not a file"):
        TensorBoard(tmp_path / "runs")
    wrong: Any = 3
    with unchecked_shapes(), pytest.raises(InvalidOption, match="folder=3: expected an instance"):
        TensorBoard(wrong)


@pytest.mark.filterwarnings("ignore")
def test_a_job_file_s_job_is_written_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (tmp_path / "train.py").write_text("def loss(params):\n    return params['x']\n")
    (tmp_path / "job.toml").write_text(
        'name = "job"\nobjective = "train:loss"\nbudget = 2\nstrategy = "sobol"\n'
        'space.x = { type = "real", low = 0, high = 1 }\n'
    )
    runs = tmp_path / "runs"
    called = CliRunner().invoke(
        cli.app, ["tune", str(tmp_path / "job.toml"), "--tensorboard", str(runs)]
    )
    assert called.exit_code == 0, called.output
    assert {path.name for path in runs.iterdir() if path.is_dir()} == {"trial-00000", "trial-00001"}

"""A tuning job in MLflow; needs ``pip install 'gpbo[mlflow]'``."""

import re
from typing import Any

from gpbo.callbacks import Callback
from gpbo.errors import InvalidOption
from gpbo.integrations import needs_extra
from gpbo.optimizer import Optimizer
from gpbo.result import Result
from gpbo.trial import Trial

with needs_extra("mlflow"):
    from mlflow import MlflowClient
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME


def _allowed(name: str) -> str:
    """The name with ``_`` for characters that MLflow does not allow."""
    return re.sub(r"[^/\w.\- ]", "_", name)


class MLflow(Callback):
    """Logs the job as a run, and every trial as a run within it: parameters, metrics, status.

    In names, ``_`` replaces characters that MLflow does not allow, such as parentheses. A job that
    is resumed logs another run, with the trials that ran since then.

    Args:
        uri: Where MLflow keeps its runs; by default as MLflow is configured.
        experiment: The experiment's name; it is created if needed.
        name: The run's name; by default that of the stored job.

    Raises:
        InvalidOption: MLflow cannot keep runs there, or does not know such a place.
    """

    def __init__(
        self, uri: str | None = None, experiment: str = "gpbo", name: str | None = None
    ) -> None:
        try:
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = (
                self._client.create_experiment(experiment) if found is None else found.experiment_id
            )
        except Exception as error:  # MLflow's own, its storage's, the network's
            raise InvalidOption(
                f"uri={uri!r}, experiment={experiment!r}: expected a tracking URI "
                f"and an experiment that MLflow can use: {error}"
            ) from error
        self._name = name

    def started(self, optimizer: Optimizer) -> None:
        """Begin the job's run."""
        stored = None if optimizer.journal is None else optimizer.journal.name
        self._optimizer = optimizer
        self._runs: dict[int, str] = {}
        self._job = self._begin({MLFLOW_RUN_NAME: self._name or stored or "gpbo"})
        for key in ("direction", "seed", "inference"):
            self._client.log_param(self._job, key, getattr(optimizer, key))
        self._client.log_param(self._job, "strategy", optimizer.strategy.name)

    def reported(self, trial: Trial, step: int, value: float) -> None:
        """Log a point of the trial's curve."""
        self._client.log_metric(self._run(trial), "reported", value, step=step)

    def ended(self, trial: Trial) -> None:
        """Log the best value so far, and the trial's value or why it has none."""
        best = self._optimizer.best
        try:
            if best is not None and best.value is not None:
                done = len(self._optimizer.history.ended)
                self._client.log_metric(self._job, "best", best.value, step=done)
            run = self._run(trial)
            if trial.value is not None:
                for name, number in {"value": trial.value, **trial.measured}.items():
                    self._client.log_metric(run, _allowed(name), number)
            if trial.reason is not None:
                self._client.set_tag(run, "reason", trial.reason)
        finally:  # even if MLflow refuses some of it
            status = "FAILED" if trial.value is None else "FINISHED"
            self._client.set_terminated(self._run(trial), status)

    def finished(self, result: Result) -> None:
        """End the job's run, and the runs of trials that did not end."""
        ended = {trial.id for trial in result.trials}
        for number, run in self._runs.items():
            if number not in ended:
                self._client.set_terminated(run, "KILLED")
        self._client.set_tag(self._job, "stopped", result.stopped)
        self._client.set_terminated(self._job, "KILLED" if result.interrupted else "FINISHED")

    def _run(self, trial: Trial) -> str:
        if trial.id not in self._runs:
            run = self._begin(
                {MLFLOW_PARENT_RUN_ID: self._job, MLFLOW_RUN_NAME: f"trial {trial.id}"}
            )
            self._runs[trial.id] = run  # first, so that it is ended even if the rest fails
            for name, value in trial.params.items():
                self._client.log_param(run, _allowed(name), value)
        return self._runs[trial.id]

    def _begin(self, tags: dict[str, Any]) -> str:
        run_id: str = self._client.create_run(self._experiment, tags=tags).info.run_id
        return run_id

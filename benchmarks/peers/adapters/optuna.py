"""Optuna (Akiba et al. 2019): its GP sampler and its tree-structured Parzen estimator."""

from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from .base import Adapter, Task
from .space import Parameter, Point


class _Study(Adapter):
    """A study in memory whose distributions are known from the start."""

    sampler_class: type[Any]

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # Otherwise the sampler would draw the rest of its own ten points after the design.
        startup = {"n_startup_trials": task.initial} if task.initial else {}
        sampler: BaseSampler = self.sampler_class(seed=task.seed, **startup)
        self._study = optuna.create_study(sampler=sampler)
        self._distributions = {p.name: _distribution(p) for p in task.space}
        self._running: list[Trial] = []

    def add(self, point: Point, value: float | None) -> None:
        """As a trial of the study."""
        trial = create_trial(
            state=TrialState.FAIL if value is None else TrialState.COMPLETE,
            params={p.name: p.typed(point[p.name]) for p in self.task.space},
            distributions=self._distributions,
            value=value,
        )
        self._constrain(trial)
        self._study.add_trial(trial)

    def ask(self) -> Point:
        """The study's next trial."""
        trial = self._study.ask(fixed_distributions=self._distributions)
        self._running.append(trial)
        params: Point = trial.params
        return params

    def tell(self, value: float | None) -> None:
        """A failed evaluation is a failed trial."""
        trial = self._running.pop(0)
        self._constrain(trial)
        if value is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, value)

    def _constrain(self, trial: Trial | FrozenTrial) -> None:
        for i, excess in enumerate(self.excess):
            trial.set_constraint(f"excess{i}", excess)


class GaussianProcess(_Study):
    """Matern-5/2, its hyperparameters at the mode, log EI."""

    sampler_class = GPSampler


class Parzen(_Study):
    """TPE, what a study has by default."""

    sampler_class = TPESampler


def _distribution(parameter: Parameter) -> Any:
    """There is no ordinal one: the number in the list is an integer."""
    if parameter.kind == "real":
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    if parameter.kind == "categorical":
        return CategoricalDistribution(parameter.values())
    return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)

"""scikit-optimize: the Gaussian process of its ``gp_minimize``, acquisitions by ``gp_hedge``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from skopt import Optimizer
from skopt.space import Categorical, Integer, Real
from skopt.utils import cook_estimator, normalize_dimensions

from .base import Forgetful, Results, Task
from .space import Parameter, Point


class GaussianProcess(Forgetful):
    """``gp_minimize``, taken apart into ask and tell."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        random = check_random_state(task.seed)
        dimensions = normalize_dimensions([_dimension(p) for p in task.space])
        estimator = cook_estimator(
            "GP",
            space=dimensions,
            random_state=random.randint(0, np.iinfo(np.int32).max),
            noise="gaussian",
        )
        self._optimizer = Optimizer(
            dimensions,
            estimator,
            n_initial_points=task.initial or 10,
            random_state=random,
            acq_func="gp_hedge",
            acq_optimizer="auto",
            acq_optimizer_kwargs={"n_points": 10_000, "n_restarts_optimizer": 5, "n_jobs": 1},
        )
        self._results = Results()
        self._told = 0

    def add(self, point: Point, value: float | None) -> None:
        """Kept for the next ask, which tells all at once: every tell fits a model."""
        self._results.append(point, value)

    def _proposed(self, count: int) -> Sequence[Point]:
        """Each from a model that was told the least value so far at the earlier ones.

        The model is fitted as the results are told.
        """
        points = [
            [p.typed(point[p.name]) for p in self.task.space]
            for point in self._results.points[self._told :]
        ]
        if points:
            self._optimizer.tell(points, self._results.values[self._told :])
            self._told = len(self._results)
        # A batch of one is chosen differently from a single point.
        ask = self._optimizer.ask
        asked = ask(n_points=count) if count > 1 else [ask()]
        names = [p.name for p in self.task.space]
        return [dict(zip(names, values, strict=True)) for values in asked]


def _dimension(parameter: Parameter) -> Any:
    """There is no ordinal one: the number in the list is an integer."""
    prior = "log-uniform" if parameter.log else "uniform"
    if parameter.kind == "real":
        return Real(parameter.low, parameter.high, prior=prior)
    if parameter.kind == "categorical":
        return Categorical(parameter.values())
    return Integer(int(parameter.low), int(parameter.high), prior=prior)

"""HEBO (Cowen-Rivers et al. 2022): warped Gaussian process, a Pareto front of acquisitions."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from hebo.design_space.design_space import DesignSpace
from hebo.optimizers.hebo import HEBO

from .base import Forgetful, Results, Task
from .space import Parameter, Point


class Hebo(Forgetful):
    """``HEBO`` with its default model and acquisition.

    Its seed reaches its Sobol points only, so the global generators are seeded too. Even so two
    runs of one seed may differ.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        random.seed(task.seed)
        np.random.seed(task.seed)  # noqa: NPY002  the generator that HEBO draws from
        torch.manual_seed(task.seed)
        space = DesignSpace().parse([_definition(p) for p in task.space])
        self._optimizer = HEBO(space, rand_sample=task.initial or None, scramble_seed=task.seed)
        self._results = Results()
        self._told = 0

    def add(self, point: Point, value: float | None) -> None:
        """Observed at the next ask."""
        self._results.append(point, value)

    def _proposed(self, count: int) -> Sequence[Point]:
        """Suggestions from one front of its acquisition functions."""
        new = self._results.points[self._told :]
        if new:
            values = np.array(self._results.values[self._told :])
            self._optimizer.observe(pd.DataFrame([self._typed(p) for p in new]), values[:, None])
            self._told = len(self._results)
        rows = self._optimizer.suggest(n_suggestions=count).to_dict("records")
        return [{p.name: float(row[p.name]) for p in self.task.space} for row in rows]

    def _typed(self, point: Point) -> dict[str, Any]:
        return {p.name: p.typed(point[p.name]) for p in self.task.space}


def _definition(parameter: Parameter) -> dict[str, Any]:
    """There is no ordinal one: the number in the list is an integer."""
    if parameter.kind == "categorical":
        return {"name": parameter.name, "type": "cat", "categories": parameter.values()}
    if parameter.kind == "real":
        kind = "pow" if parameter.log else "num"
    else:
        kind = "pow_int" if parameter.log else "int"
    definition = {"name": parameter.name, "type": kind, "lb": parameter.low, "ub": parameter.high}
    return definition | ({"base": 10} if parameter.log else {})

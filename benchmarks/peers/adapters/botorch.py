"""BoTorch (Balandat et al. 2020), a toolkit: the loops are those of its documentation.

Reals are coordinates of the unit cube, other ordered parameters the middles of equal cells in it;
categoricals are columns of their own, for BoTorch's mixed models and its mixed search.
"""

import time
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from botorch import fit_gpytorch_mll
from botorch.acquisition import (
    LogExpectedImprovement,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
)
from botorch.acquisition.analytic import (
    LogConstrainedExpectedImprovement,
    LogProbabilityOfFeasibility,
)
from botorch.exceptions import BotorchWarning
from botorch.fit import fit_fully_bayesian_model_nuts
from botorch.models import MixedSingleTaskGP, ModelListGP, SingleTaskGP
from botorch.models.fully_bayesian import (
    FullyBayesianSingleTaskGP,
    SaasFullyBayesianSingleTaskGP,
)
from botorch.models.transforms import Standardize
from botorch.models.transforms.input import NumericToCategoricalEncoding
from botorch.optim import optimize_acqf
from botorch.optim.optimize_mixed import optimize_acqf_mixed_alternating
from gpytorch.mlls import ExactMarginalLogLikelihood, SumMarginalLogLikelihood
from torch import Tensor
from torch.nn.functional import one_hot

from .base import Forgetful, Results, Task
from .space import Parameter, Point

warnings.filterwarnings("ignore", category=BotorchWarning)


class _BayesianOptimization(Forgetful):
    """Fit, maximise the acquisition, evaluate; a failed evaluation has the worst value so far."""

    raw_samples: int

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        torch.manual_seed(task.seed)
        self._results = Results()
        self._excesses: list[Sequence[float]] = []
        self._categorical = [i for i, p in enumerate(task.space) if p.kind == "categorical"]
        self._ordered = [i for i, p in enumerate(task.space) if p.kind in ("integer", "ordinal")]
        self._model: Any = None
        self._fitted = 0

    @abstractmethod
    def _fit(self, x: Tensor, y: Tensor) -> Any:
        """A model of ``y[n,1]``, which is to be maximised, at ``x[n,d]``."""

    @abstractmethod
    def _acquisition(self, model: Any, best: Tensor, count: int) -> Any:
        """What to maximise over the next ``count`` points."""

    @abstractmethod
    def _mean(self, posterior: Any) -> Tensor:
        """The mean of the model's posterior."""

    def add(self, point: Point, value: float | None) -> None:
        """For the next fit."""
        self._results.append(point, value)
        # A failed evaluation counts as one that meets none of the constraints.
        self._excesses.append(self.excess or [1.0] * self.task.constraints)

    def _proposed(self, count: int) -> Sequence[Point]:
        """One after another, each with the earlier ones pending, as `optimize_acqf` offers.

        Random points as long as there is no result.
        """
        if not len(self._results):
            return [
                {p.name: p.from_unit(float(torch.rand(()))) for p in self.task.space}
                for _ in range(count)
            ]
        began = time.perf_counter()
        model = self._current_model()
        fitted = time.perf_counter()
        candidates = self._maximise(self._acquisition(model, self._y().max(), count), count)
        points = [
            {p.name: _value(p, float(c)) for p, c in zip(self.task.space, row, strict=True)}
            for row in candidates
        ]
        self.fit_s, self.acquisition_s = fitted - began, time.perf_counter() - fitted
        return points

    def recommend(self) -> Point | None:
        """The evaluated point whose posterior mean is best; with constraints none."""
        if self.task.constraints:
            return None
        model = self._current_model()
        with torch.no_grad():
            mean = self._mean(model.posterior(self._x()))
        return self._results.points[int(mean.argmax())]

    def _current_model(self) -> Any:
        """Fitted to all results; not again if there are no new ones."""
        if self._fitted != len(self._results):
            self._model = self._fit(self._x(), self._y())
            self._fitted = len(self._results)
        return self._model

    def _x(self) -> Tensor:
        rows = [
            [_column(p, point[p.name]) for p in self.task.space] for point in self._results.points
        ]
        return torch.tensor(rows, dtype=torch.double)

    def _excess(self) -> Tensor:
        return torch.tensor(self._excesses, dtype=torch.double)

    def _y(self) -> Tensor:
        return -torch.tensor(self._results.values, dtype=torch.double)[:, None]

    def _maximise(self, acquisition: Any, count: int) -> Tensor:
        space = self.task.space
        high = [float(p.size - 1) if p.kind == "categorical" else 1.0 for p in space]
        bounds = torch.stack([torch.zeros(len(space)), torch.tensor(high)]).double()
        options = {"q": count, "num_restarts": 10, "raw_samples": self.raw_samples}
        if not self._categorical and not self._ordered:
            candidate, _ = optimize_acqf(acquisition, bounds, sequential=count > 1, **options)
            return candidate
        columns = {
            i: [_column(p, value) for value in p.values()]
            for i, p in enumerate(space)
            if p.kind != "real"
        }
        # The ends of the range must be values: the middles of the cells leave half a cell at either
        # end.
        for i in self._ordered:
            bounds[0, i], bounds[1, i] = columns[i][0], columns[i][-1]
        candidate, _ = optimize_acqf_mixed_alternating(
            acquisition,
            bounds,
            discrete_dims={i: columns[i] for i in self._ordered},
            cat_dims={i: columns[i] for i in self._categorical},
            **options,
        )
        return candidate


class LogEi(_BayesianOptimization):
    """``SingleTaskGP`` at its hyperparameters' mode, and log expected improvement.

    For several points at a time, its Monte Carlo form. With constraints, a model of each, and log
    constrained expected improvement; while no result meets them, the log probability that a point
    does.
    """

    raw_samples = 512

    def _fit(self, x: Tensor, y: Tensor) -> Any:
        if not self.task.constraints:
            model = self._of_one(x, y)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            return model
        columns = torch.cat([y, self._excess()], 1).split(1, 1)
        models: Any = ModelListGP(*(self._of_one(x, column) for column in columns))
        fit_gpytorch_mll(SumMarginalLogLikelihood(models.likelihood, models))
        return models

    def _of_one(self, x: Tensor, y: Tensor) -> Any:
        if self._categorical:
            return MixedSingleTaskGP(x, y, self._categorical, outcome_transform=Standardize(1))
        return SingleTaskGP(x, y, outcome_transform=Standardize(1))

    def _acquisition(self, model: Any, best: Tensor, count: int) -> Any:
        if not self.task.constraints:
            kind = LogExpectedImprovement if count == 1 else qLogExpectedImprovement
            return kind(model, best_f=best)
        limits: dict[int, tuple[float | None, float | None]]
        limits = dict.fromkeys(range(1, 1 + self.task.constraints), (None, 0.0))
        met = (self._excess() <= 0).all(1)
        if not bool(met.any()):
            return LogProbabilityOfFeasibility(model, limits)
        return LogConstrainedExpectedImprovement(model, self._y()[met].max(), 0, limits)

    def _mean(self, posterior: Any) -> Tensor:
        return posterior.mean[:, 0]


class LogNei(LogEi):
    """The same model, and log noisy expected improvement over the points that were evaluated."""

    def _acquisition(self, model: Any, best: Tensor, count: int) -> Any:
        return qLogNoisyExpectedImprovement(model, X_baseline=self._x())


class Matern(_BayesianOptimization):
    """Fully Bayesian with dimension-scaled priors: NUTS, 16 draws of 256, log EI over them."""

    raw_samples = 1024
    model_class: type[Any] = FullyBayesianSingleTaskGP

    def _fit(self, x: Tensor, y: Tensor) -> Any:
        model = self.model_class(
            x, y, outcome_transform=Standardize(1), input_transform=self._one_hot(x.shape[1])
        )
        fit_fully_bayesian_model_nuts(model, disable_progbar=True, seed=self.task.seed)
        return model

    def _acquisition(self, model: Any, best: Tensor, count: int) -> Any:
        return qLogExpectedImprovement(model, best_f=best)

    def _mean(self, posterior: Any) -> Tensor:
        return posterior.mixture_mean[:, 0]

    def _one_hot(self, dim: int) -> Any:
        """BoTorch has no fully Bayesian model with a kernel of categoricals."""
        if not self._categorical:
            return None
        sizes = {i: self.task.space[i].size for i in self._categorical}
        encoders = {i: partial(_encoded, size=size) for i, size in sizes.items()}
        return NumericToCategoricalEncoding(dim, sizes, encoders)


class Saas(Matern):
    """The same with the sparse axis-aligned prior (Eriksson and Jankowiak 2021)."""

    model_class = SaasFullyBayesianSingleTaskGP


def _encoded(x: Tensor, size: int) -> Tensor:
    return one_hot(x.round().long(), num_classes=size).to(x)


def _column(parameter: Parameter, value: float) -> float:
    return float(value) if parameter.kind == "categorical" else parameter.to_unit(value)


def _value(parameter: Parameter, column: float) -> float:
    return float(round(column)) if parameter.kind == "categorical" else parameter.from_unit(column)

"""Thompson sampling in a trust region, written after the paper of TuRBO-1 (Eriksson et al. 2019).

The box is around the best point since the last start, its sides in the proportions of the
lengthscales. It doubles after three improvements in a row, halves after ``max(4, d)`` failures, and
when it is below 2^-7 all starts again from new points. (The paper has ``d`` failures for one point
at a time; with fewer than four a box of few dimensions would shrink before it is searched, so the
least is that of BoTorch's tutorial.) For real spaces: integers and listed values are rounded,
categoricals in a column each.
"""

import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from botorch import fit_gpytorch_mll
from botorch.exceptions import BotorchWarning
from botorch.generation import MaxPosteriorSampling
from botorch.models import SingleTaskGP
from botorch.models.transforms import Standardize
from gpytorch.constraints import Interval
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor
from torch.quasirandom import SobolEngine

from .base import Adapter, Results, Task
from .space import Parameter, Point

warnings.filterwarnings("ignore", category=BotorchWarning)

_FIRST_LENGTH, _LEAST_LENGTH, _GREATEST_LENGTH = 0.8, 0.5**7, 1.6
_SUCCESSES = 3
#: An improvement is more than this share of the best value.
_IMPROVEMENT = 1e-3
_CANDIDATES = 5000
#: On average, this many coordinates of a candidate differ from the best point's.
_PERTURBED = 20
# From the paper's supplement, for inputs in the unit cube and standardised values.
_LENGTHSCALE, _OUTPUTSCALE, _NOISE = (0.005, 2.0), (0.05, 20.0), (5e-4, 0.1)


@dataclass(frozen=True)
class Box:
    """The length of the box, and its successes and failures since it last changed."""

    dim: int
    length: float = _FIRST_LENGTH
    successes: int = 0
    failures: int = 0

    def after(self, improved: bool) -> "Box":
        """The box after one more evaluation in it."""
        if improved:
            if self.successes + 1 < _SUCCESSES:
                return replace(self, successes=self.successes + 1, failures=0)
            return Box(self.dim, min(2 * self.length, _GREATEST_LENGTH))
        if self.failures + 1 < max(4, self.dim):
            return replace(self, successes=0, failures=self.failures + 1)
        return Box(self.dim, self.length / 2)

    @property
    def is_spent(self) -> bool:
        """Whether the search must start again."""
        return self.length < _LEAST_LENGTH


class TrustRegion(Adapter):
    """One trust region, one point at a time."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        torch.manual_seed(task.seed)
        self._dim = sum(map(_columns, task.space))
        self._sobol = SobolEngine(self._dim, scramble=True, seed=task.seed)
        self._results = Results()
        self._box = Box(self._dim)
        self._first = 0
        self._design = task.initial or 2 * self._dim

    def add(self, point: Point, value: float | None) -> None:
        """One of the points that a search starts from."""
        self._results.append(point, value)

    def ask(self) -> Point:
        """A Sobol point while a search starts, then the minimum of a function drawn in the box."""
        if len(self._results) - self._first < self._design:
            x = self._sobol.draw(1, dtype=torch.double)[0]
        else:
            began = time.perf_counter()
            model = self._fitted()
            fitted = time.perf_counter()
            x = self._drawn(model)
            self.fit_s, self.acquisition_s = fitted - began, time.perf_counter() - fitted
        self._asked = self._decode(x)
        return self._asked

    def tell(self, value: float | None) -> None:
        """Update the box; a failed evaluation counts as a failure, with the worst value so far."""
        before = self._values()
        self._results.append(self._asked, value)
        if len(before) < self._design:
            return
        best = min(before)
        self._box = self._box.after(value is not None and value < best - _IMPROVEMENT * abs(best))
        if self._box.is_spent:
            self._first = len(self._results)
            self._design = 2 * self._dim
            self._box = Box(self._dim)

    def _values(self) -> list[float]:
        """The results since the last start."""
        return self._results.values[self._first :]

    def _x(self) -> Tensor:
        rows = [self._encode(point) for point in self._results.points[self._first :]]
        return torch.tensor(rows, dtype=torch.double)

    def _fitted(self) -> Any:
        x, y = self._x(), -torch.tensor(self._values(), dtype=torch.double)[:, None]
        matern = MaternKernel(
            nu=2.5, ard_num_dims=self._dim, lengthscale_constraint=Interval(*_LENGTHSCALE)
        )
        model = SingleTaskGP(
            x,
            y,
            likelihood=GaussianLikelihood(noise_constraint=Interval(*_NOISE)),
            covar_module=ScaleKernel(matern, outputscale_constraint=Interval(*_OUTPUTSCALE)),
            outcome_transform=Standardize(1),
        )
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        return model

    def _drawn(self, model: Any) -> Tensor:
        centre = self._x()[int(torch.tensor(self._values()).argmin())]
        scale = model.covar_module.base_kernel.lengthscale.detach()[0]
        sides = self._box.length * scale / scale.log().mean().exp()
        low, high = (centre - sides / 2).clamp(0, 1), (centre + sides / 2).clamp(0, 1)
        candidates = min(100 * self._dim, _CANDIDATES)
        inside = low + (high - low) * self._sobol.draw(candidates, dtype=torch.double)
        moved = torch.rand(candidates, self._dim) < min(1.0, _PERTURBED / self._dim)
        # Every candidate differs from the centre somewhere.
        still = ~moved.any(1)
        moved[still, torch.randint(self._dim, (int(still.sum()),))] = True
        with torch.no_grad():
            return MaxPosteriorSampling(model)(torch.where(moved, inside, centre), 1)[0]

    def _encode(self, point: Point) -> list[float]:
        row: list[float] = []
        for p in self.task.space:
            if p.kind == "categorical":
                row += [float(value == point[p.name]) for value in p.values()]
            else:
                row.append(p.to_unit(point[p.name]))
        return row

    def _decode(self, x: Tensor) -> Point:
        blocks = torch.split(x, [_columns(p) for p in self.task.space])
        return {
            p.name: int(block.argmax()) if p.kind == "categorical" else p.from_unit(float(block))
            for p, block in zip(self.task.space, blocks, strict=True)
        }


def _columns(parameter: Parameter) -> int:
    return parameter.size if parameter.kind == "categorical" else 1

"""The surrogate along each parameter, through the best trial, in the user's units."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from gpbo.choices import Listed
from gpbo.optimizer import Optimizer
from gpbo.parameters import Integer, Parameter, Real
from gpbo.posterior import Posterior
from gpbo.result import Result, optimizer_of
from gpbo.space import Space
from gpbo.trial import Trial, best_shown

#: Points of a curve along a real parameter, and the most along an integer one.
_POINTS = 101


@dataclass(frozen=True)
class Slice:
    """The surrogate along one parameter, the others as in the best trial.

    Positions are the parameter's values; for listed values, their numbers in the list.

    Attributes:
        name: The parameter.
        axis: The scale of the positions.
        whole: Whether they are whole numbers.
        labels: The listed values; empty for numbers.
        positions: Where the surrogate was evaluated.
        median, low, high: What the surrogate predicts there: see `gpbo.posterior.Prediction`.
        best: Position and value of the best trial.
        observed: Positions and values of the completed trials.
        closeness: For each completed trial, from 1 for the best down to 0 for the farthest from it
            in the cube.
        feasible: Whether each completed trial meets the constraints.
    """

    name: str
    axis: Literal["linear", "log", "reverse_log", "listed"]
    whole: bool
    labels: tuple[str, ...]
    positions: tuple[float, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    best: tuple[float, float]
    observed: tuple[tuple[float, float], ...]
    closeness: tuple[float, ...]
    feasible: tuple[bool, ...]


def slices_data(source: Result | Optimizer, *, refit: bool = True) -> tuple[Slice, ...]:
    """The surrogate along each parameter, through the best trial; if none meets the constraints,
    through the one with the best value.

    Args:
        refit: As in `Optimizer.fit`.

    Raises:
        InvalidOption: ``source`` is neither a result nor an optimizer.
        InvalidData: no trial has a value yet.
    """
    optimizer = optimizer_of(source)
    posterior = optimizer.posterior(refit=refit)
    completed = posterior.completed
    best = best_shown(completed, optimizer.direction)
    assert best is not None, "there is no posterior without results"
    closeness = nearness(optimizer.space, completed, best)
    space = optimizer.space
    centre = space.encode([best.params]).to(optimizer.device).unsqueeze(0)
    return tuple(
        _slice(parameter, posterior, centre, columns, best, completed, closeness)
        for parameter, columns in zip(space.parameters, space.slices, strict=True)
    )


def name_of_best(feasible: Sequence[bool]) -> str:
    """The label of the trial that `gpbo.trial.best_shown` returns."""
    return "best trial" if any(feasible) else "best value (violates a constraint)"


def _slice(
    parameter: Parameter,
    posterior: Posterior,
    centre: Float[Tensor, "1 one d"],
    columns: slice,
    best: Trial,
    trials: Sequence[Trial],
    closeness: tuple[float, ...],
) -> Slice:
    name = parameter.name
    values = parameter.grid(_POINTS)
    x = centre.repeat(1, len(values), 1)
    x[..., columns] = parameter.to_cube(values).to(x.device)
    expected = posterior.at(x)
    listed = isinstance(parameter, Listed)

    def place(trial: Trial) -> tuple[float, float]:
        value = trial.params[name]
        return float(parameter.key(value) if listed else value), float(trial.value or 0.0)

    return Slice(
        name=name,
        axis=parameter.scale if isinstance(parameter, Real | Integer) else "listed",
        whole=isinstance(parameter, Integer),
        labels=tuple(map(str, values)) if listed else (),
        positions=tuple(float(i if listed else value) for i, value in enumerate(values)),
        median=_finite(expected.median),
        low=_finite(expected.low),
        high=_finite(expected.high),
        best=place(best),
        observed=tuple(map(place, trials)),
        closeness=closeness,
        feasible=tuple(trial.feasible for trial in trials),
    )


def _finite(values: np.ndarray) -> tuple[float, ...]:
    """The values, with infinities replaced by the largest double."""
    return tuple(np.nan_to_num(values).tolist())


def nearness(space: Space, trials: Sequence[Trial], best: Trial) -> tuple[float, ...]:
    """1 at the best trial, falling to 0 at the trial that is farthest from it in the cube."""
    points = space.encode([trial.params for trial in trials])
    distance = (points - space.encode([best.params])).square().sum(-1).sqrt()
    farthest = distance.max().clamp(min=1e-12)
    return tuple((1 - distance / farthest).tolist())

"""The surrogate along each parameter, through the best trial, in the user's units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from gpbo.choices import Categorical, Ordinal
from gpbo.errors import InvalidData, InvalidOption
from gpbo.optimizer import Optimizer
from gpbo.parameters import Integer, Parameter, Real
from gpbo.result import Result
from gpbo.space import Space
from gpbo.trial import Trial, best_of, sign_of

#: Points of a curve along a real parameter, and the most along an integer one.
_POINTS = 101
#: Standard deviations of a normal distribution that hold 95 % of it.
BAND = 1.959963984540054


@dataclass(frozen=True)
class Slice:
    """The surrogate along one parameter, the others as in the best trial.

    Positions are the parameter's values, or for listed ones their number in the list.

    Attributes:
        name: The parameter.
        axis: How to lay out the positions.
        whole: Whether they are whole numbers.
        labels: The listed values; empty for numbers.
        positions: Where the surrogate was evaluated.
        median: Its median there, in the user's units: that of the normal distribution on the
            model's scale that has the mean and the variance over the hyperparameter draws.
        low, high: A 95 % band of the function, likewise; observation noise is not included.
        best: Where the best trial is, and its value.
        observed: Where the completed trials are, and their values.
        closeness: Of each completed trial, from 1 for the best down to 0 for the farthest from it
            in the cube.
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


def slices_data(source: Result | Optimizer, *, refit: bool = True) -> tuple[Slice, ...]:
    """The surrogate along each parameter, through the best trial.

    Args:
        refit: As in `Optimizer.fit`.

    Raises:
        InvalidOption: ``source`` is neither a result nor an optimizer.
        InvalidData: no trial has a value yet.
    """
    optimizer = source.optimizer if isinstance(source, Result) else source
    if not isinstance(optimizer, Optimizer):
        raise InvalidOption(
            f"source has type {type(source).__name__}: expected a gpbo.Result or gpbo.Optimizer"
        )
    posterior = _Posterior(optimizer, refit)
    best = best_of(optimizer.completed, optimizer.direction)
    if best is None:
        raise InvalidData("no trial has a value yet: expected one or more to plot")
    closeness = nearness(optimizer.space, optimizer.completed, best)
    return tuple(
        _slice(parameter, posterior, best, optimizer.completed, closeness)
        for parameter in optimizer.space.parameters
    )


class _Posterior:
    """The surrogate of an optimizer in the user's units."""

    def __init__(self, optimizer: Optimizer, refit: bool) -> None:
        self._surrogate = optimizer.fit(refit=refit).surrogate
        self._data = optimizer.observations()
        self._space = optimizer.space
        self._sign = sign_of(optimizer.direction)

    def at(self, rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The median, the lower and the upper end of the band, ``[q]`` each.

        A bent scale maps quantiles to quantiles, and means to no means.
        """
        points = self._space.encode(rows).to(self._data.x.device).unsqueeze(0)
        mean, variance = self._surrogate.moments(points)
        spread = variance.mean(1) + mean.var(1, correction=0)
        width = self._sign * BAND * spread.sqrt()
        median, low, high = (
            self._sign * self._data.units.back(mean.mean(1) + shift)[0].cpu().numpy()
            for shift in (torch.zeros_like(width), -width, width)
        )
        return median, low, high


def _slice(
    parameter: Parameter,
    posterior: _Posterior,
    best: Trial,
    trials: Sequence[Trial],
    closeness: tuple[float, ...],
) -> Slice:
    name = parameter.name
    values = parameter.grid(_POINTS)
    median, low, high = posterior.at([{**best.params, name: value} for value in values])
    listed = isinstance(parameter, Categorical | Ordinal)

    def place(trial: Trial) -> tuple[float, float]:
        value = trial.params[name]
        return float(parameter.key(value) if listed else value), float(trial.value or 0.0)

    return Slice(
        name=name,
        axis=parameter.scale if isinstance(parameter, Real | Integer) else "listed",
        whole=isinstance(parameter, Integer),
        labels=tuple(map(str, values)) if listed else (),
        positions=tuple(float(i if listed else value) for i, value in enumerate(values)),
        median=tuple(median.tolist()),
        low=_finite(low),
        high=_finite(high),
        best=place(best),
        observed=tuple(map(place, trials)),
        closeness=closeness,
    )


def _finite(values: np.ndarray) -> tuple[float, ...]:
    """The values, those beyond the largest double as that."""
    return tuple(np.nan_to_num(values).tolist())


def nearness(space: Space, trials: Sequence[Trial], best: Trial) -> tuple[float, ...]:
    """1 at the best trial, falling to 0 at the trial that is farthest from it in the cube."""
    points = space.encode([trial.params for trial in trials])
    distance = (points - space.encode([best.params])).square().sum(-1).sqrt()
    farthest = distance.max().clamp(min=1e-12)
    return tuple((1 - distance / farthest).tolist())

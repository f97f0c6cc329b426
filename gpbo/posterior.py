"""What the model believes about configurations, in the user's units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from gpbo.space import Space
from gpbo.surrogate import Surrogate
from gpbo.trial import Direction, Trial, sign_of
from gpbo.units import Units

#: Standard deviations of a normal distribution that hold 95 % of it.
BAND = 1.959963984540054


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the function is expected to be at ``n`` configurations, without the noise of results.

    Attributes:
        median: What it is as likely above as below.
        low, high: The ends of a 95 % band.
    """

    median: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Recommendation:
    """The tried configuration that is expected to be the best.

    The best of many noisy results is mostly a lucky one; the model knows the others too.

    Attributes:
        params: The configuration.
        trials: The numbers of its completed trials.
        median, low, high: What its value is expected to be; see `Prediction`.
    """

    params: Mapping[str, Any]
    trials: tuple[int, ...]
    median: float
    low: float
    high: float


@dataclass(frozen=True, eq=False, repr=False)
class Posterior:
    """A model of the results of one optimization: ask `gpbo.Optimizer.posterior` for it.

    Attributes:
        surrogate: The model, of one run.
        units: From values that are minimised to the surrogate's.
        completed: The trials that it knows, in its order.
    """

    surrogate: Surrogate
    units: Units
    space: Space
    direction: Direction
    completed: Sequence[Trial]

    def predict(self, configurations: Sequence[Mapping[str, Any]]) -> Prediction:
        """What is expected of these configurations.

        On the model's scale the function has a mean and a variance over the hyperparameter draws;
        median and band are those of the normal distribution that has them, taken back to the user's
        units. Where these are bent (`gpbo.units`), quantiles stay quantiles, and a mean no mean.

        Raises:
            InvalidParams: no list of configurations of the space.
        """
        points = self.space.encode(configurations).to(self.surrogate.x.device).unsqueeze(0)
        mean, variance = self.surrogate.moments(points)
        spread = variance.mean(1) + mean.var(1, correction=0)
        sign = sign_of(self.direction)
        width = sign * BAND * spread.sqrt()
        median, low, high = (
            sign * self.units.back(mean.mean(1) + shift)[0].cpu().numpy()
            for shift in (torch.zeros_like(width), -width, width)
        )
        return Prediction(median, low, high)

    def recommend(self) -> Recommendation:
        """The tried configuration of the least posterior mean, averaged over the draws."""
        params = self.completed[int(self.surrogate.recommended)].params
        key = self.space.key(params)
        trials = [trial.id for trial in self.completed if self.space.key(trial.params) == key]
        expected = self.predict([params])
        median, low, high = map(float, (*expected.median, *expected.low, *expected.high))
        return Recommendation(dict(params), tuple(trials), median, low, high)

"""What the model believes about configurations, in the user's units."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.backend import Streams
from gpbo.checks import whole_number
from gpbo.errors import InvalidData
from gpbo.feasibility import Limits
from gpbo.fixed import lie_within, with_fixed
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
        median: The function is as likely above as below it.
        low, high: The ends of a 95 % band.
    """

    median: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Recommendation:
    """The tried configuration that is expected to be the best.

    The best of many noisy results is mostly a lucky one; the model takes the others into account.

    Attributes:
        params: The configuration.
        trials: The numbers of its completed trials.
        median, low, high: The prediction of its value; see `Prediction`.
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
        units: From minimised values to the surrogate's scale, and back.
        space: The space of the configurations.
        direction: Whether the told values are minimised or maximised.
        completed: The trials that the surrogate knows, in its order.
        limits: The models of the quantities that constraints limit; None if there are none.
    """

    surrogate: Surrogate
    units: Units
    space: Space
    direction: Direction
    completed: Sequence[Trial]
    limits: Limits | None = None

    def predict(self, configurations: Sequence[Mapping[str, Any]]) -> Prediction:
        """The model's prediction for these configurations.

        On the model's scale the function has a mean and a variance over the hyperparameter draws;
        median and band are those of the normal distribution that has them, transformed back to the
        user's units. If the transform is not linear (`gpbo.units`), quantiles stay quantiles, but a
        mean is no longer the mean.

        Raises:
            InvalidParams: no list of configurations of the space.
        """
        return self.at(self._points(configurations))

    def at(self, x: Float[Tensor, "1 n d"]) -> Prediction:
        """The prediction for points in the unit cube."""
        mean, variance = self.surrogate.moments(x)
        over_draws = self.surrogate.over_draws
        centre = over_draws(mean)
        spread = over_draws(variance + (mean - centre.unsqueeze(1)).square())
        width = sign_of(self.direction) * BAND * spread.sqrt()
        median, low, high = (
            self._back(centre + shift) for shift in (torch.zeros_like(width), -width, width)
        )
        return Prediction(median, low, high)

    def chance(self, configurations: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, " n"]:
        """The probability that these configurations meet the constraints; 1 if there are none.

        Raises:
            InvalidParams: no list of configurations of the space.
        """
        x = self._points(configurations)
        if self.limits is None:
            return np.ones(x.shape[1])
        return self.limits.log_chance()(x)[0].exp().cpu().numpy()

    def sample(
        self, configurations: Sequence[Mapping[str, Any]], count: int, *, seed: int = 0
    ) -> Float[np.ndarray, "q n"]:
        """The values of ``count`` functions drawn from the posterior at these ``n`` configurations.

        A row is one function at all of them, without the noise of results, so that rows tell what
        bands of single configurations do not: ``(rows.argmin(1) == 0).mean()`` is the probability
        that the first one has the least value. The hyperparameter draws take turns. Time grows with
        the third power of ``n``, memory with the second.

        Raises:
            InvalidParams: no list of configurations of the space.
            InvalidOption: ``count`` or ``seed`` is not a whole number, or too small.
        """
        count, seed = whole_number("count", count, least=1), whole_number("seed", seed, least=0)
        mean, covariance = self.surrogate.joint(self._points(configurations))
        counted = self.surrogate.counted[0]
        mean, covariance = mean[:, counted], covariance[:, counted]
        # The matrix may be singular, as it is if a configuration is repeated. Its root is the
        # symmetric one: eigenvectors of nearly equal eigenvalues turn with a rounding.
        values, vectors = torch.linalg.eigh(covariance[0])
        root = vectors * values.clamp(min=0.0).sqrt().unsqueeze(-2) @ vectors.mT
        turns = math.ceil(count / mean.shape[1])
        streams = Streams.named(seed, "posterior", device=mean.device)
        normals = streams.normal(turns, *mean.shape[1:])
        rows = mean.unsqueeze(1) + (normals.unsqueeze(-2) @ root).squeeze(-2)
        return self._back(rows.flatten(1, 2)[:, :count])

    def _points(self, configurations: Sequence[Mapping[str, Any]]) -> Float[Tensor, "1 n d"]:
        return self.space.encode(configurations).to(self.surrogate.x.device).unsqueeze(0)

    def _back(self, values: Float[Tensor, "1 *any"]) -> Float[np.ndarray, "*any"]:
        """Values on the surrogate's scale in the user's units."""
        return sign_of(self.direction) * self.units.back(values)[0].cpu().numpy()

    def recommend(self, *, fixed: Mapping[str, Any] | None = None) -> Recommendation:
        """The tried configuration of least posterior mean, averaged over the draws, among those
        with a result that meets the constraints.

        Args:
            fixed: Values that it must have, by name of the parameter.

        Raises:
            InvalidParams: ``fixed`` has a name or a value that the space does not have.
            InvalidData: there is no such configuration.
        """
        surrogate = self.surrogate
        if fixed is not None:
            here = lie_within(with_fixed(self.space, fixed), surrogate.x)
            surrogate = replace(surrogate, eligible=surrogate.eligible & here)
        if not bool(surrogate.eligible.any()):
            whose = "no trial" if fixed is None else f"fixed={fixed!r}: no trial with these values"
            lacking = "has a value" if self.limits is None else "meets the constraints"
            raise InvalidData(f"{whose} {lacking} yet: expected at least one")
        params = self.completed[int(surrogate.recommended)].params
        key = self.space.key(params)
        trials = [trial.id for trial in self.completed if self.space.key(trial.params) == key]
        expected = self.predict([params])
        median, low, high = map(float, (*expected.median, *expected.low, *expected.high))
        return Recommendation(dict(params), tuple(trials), median, low, high)

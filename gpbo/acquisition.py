"""What a point is worth: log expected improvement and log probability of improvement.

Both are averages over the hyperparameter draws, of the improvements and not of their logarithms:
``log mean_s exp(log EI_s(x))``. The engine minimises, so an improvement is a value below the
incumbent; a utility is maximised. Pending points are left to the surrogate (`Surrogate.fantasize`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_SQRT_HALF_PI = math.sqrt(0.5 * math.pi)
_SQRT_HALF = math.sqrt(0.5)

# Beyond these, h(u) is u, or its asymptotic series, to better than 1e-10 (relative).
_FAR_ABOVE = 10.0
_FAR_BELOW = -300.0


@runtime_checkable
class Moments(Protocol):
    """What an acquisition function needs of a surrogate; see `gpbo.surrogate.Surrogate`."""

    def moments(
        self, candidates: Float[Tensor, "r q d"]
    ) -> tuple[Float[Tensor, "r s q"], Float[Tensor, "r #s q"]]:
        """Mean and variance, differentiable by autograd."""
        ...

    def moments_and_gradients(
        self, candidates: Float[Tensor, "r q d"]
    ) -> tuple[
        Float[Tensor, "r s q"],
        Float[Tensor, "r #s q"],
        Float[Tensor, "r s q d"],
        Float[Tensor, "r #s q d"],
    ]:
        """Mean, variance, and the gradients of both."""
        ...


@dataclass(frozen=True)
class Differentiated:
    """A function of points as a utility, with its gradient by autograd.

    A point that is NaN, where an ascent has ended, has the value NaN and never reaches the
    function.
    """

    function: Callable[[Float[Tensor, "r b d"]], Float[Tensor, "r b"]]

    def __call__(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
        """The function's values."""
        known = x.isfinite().all(-1)
        value = self.function(torch.where(known[..., None], x, 0.5))
        return torch.where(known, value, torch.nan)

    def value_and_gradient(
        self, x: Float[Tensor, "r b d"]
    ) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b d"]]:
        """The function's values and their gradients, each with respect to its own point."""
        with torch.enable_grad():
            points = x.detach().requires_grad_()
            value = self(points)
            (gradient,) = torch.autograd.grad(value.sum(), points)
        return value.detach(), gradient


@dataclass(frozen=True)
class _ImprovementUtility(ABC):
    """``log mean_s sd_s^power exp(score(u_s))`` with ``u = (best - mean) / sd``.

    Attributes:
        surrogate: the posterior per hyperparameter draw.
        best: the values to improve on, per draw.
    """

    surrogate: Moments
    best: Float[Tensor, "r s"]

    _sd_power: ClassVar[float]

    def __call__(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
        """The utility of each point; differentiable by autograd."""
        mean, variance = self.surrogate.moments(x)
        u = (self.best.unsqueeze(-1) - mean) * variance.rsqrt()
        values = self._score(u)[0] + 0.5 * self._sd_power * variance.log()
        return _log_mean_exp(values)

    @torch.no_grad()
    def value_and_gradient(
        self, x: Float[Tensor, "r b d"]
    ) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b d"]]:
        """The utility of each point and its gradient in closed form."""
        mean, variance, mean_gradient, variance_gradient = self.surrogate.moments_and_gradients(x)
        inverse_sd = variance.rsqrt()
        u = (self.best.unsqueeze(-1) - mean) * inverse_sd
        score, slope = self._score(u)
        values = score + 0.5 * self._sd_power * variance.log()
        value = _log_mean_exp(values)
        share = torch.exp(values - value.unsqueeze(1)) / values.shape[1]
        by_mean = -share * slope * inverse_sd
        by_variance = 0.5 * share * (self._sd_power - slope * u) / variance
        # At a floored variance the factor may overflow; times a gradient of 0 it would be NaN.
        by_variance = by_variance.clamp(max=torch.finfo(x.dtype).max)
        gradient = by_mean.unsqueeze(-1) * mean_gradient
        gradient = torch.addcmul(gradient, by_variance.unsqueeze(-1), variance_gradient)
        return value, gradient.sum(1)

    @staticmethod
    @abstractmethod
    def _score(u: Float[Tensor, "*n"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        """Log utility at unit standard deviation, and its derivative."""


class LogExpectedImprovement(_ImprovementUtility):
    """``log mean_s E max(best_s - f(x), 0)``: Jones, Schonlau and Welch (1998), over the draws.

    In log space (Ament et al. 2023, "Unexpected improvements to expected improvement for Bayesian
    optimization", NeurIPS) the utility has a slope to climb far from the data too.

    Args:
        surrogate: The posterior for each of ``s`` draws of the hyperparameters.
        best: The values to improve on, ``[r,s]``, on the surrogate's scale.
    """

    _sd_power = 1.0

    @staticmethod
    def _score(u: Float[Tensor, "*n"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        return log_h(u)


class LogProbabilityOfImprovement(_ImprovementUtility):
    """``log mean_s P(f(x) < best_s)``: Kushner (1964), in log space, over the draws.

    Args:
        surrogate: The posterior for each of ``s`` draws of the hyperparameters.
        best: The values to improve on, ``[r,s]``, on the surrogate's scale.
    """

    _sd_power = 0.0

    @staticmethod
    def _score(u: Float[Tensor, "*n"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        # d log Phi / du = phi / Phi, the inverse of the Mills ratio, which does not underflow.
        return torch.special.log_ndtr(u), 1.0 / _mills_ratio(u)


def log_h(u: Float[Tensor, "*n"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """``log h(u)`` with ``h(u) = phi(u) + u Phi(u)``, and its derivative ``Phi(u) / h(u)``.

    ``h`` is the expected improvement at unit standard deviation. With the Mills ratio
    ``m = Phi / phi`` it is ``phi (1 + u m)``, and the derivative ``m / (1 + u m)``, computed in
    three ranges: far below 0, where ``1 + u m`` cancels, its asymptotic series in ``1 / u^2``; far
    above, where ``m`` overflows, ``h = u``. Ament et al. (2023), appendix A.1, has the same ranges
    with other limits. In float64 the relative errors of ``h`` (of its logarithm where ``h``
    underflows) and of the derivative are below 1e-10, and the branches not taken yield no NaN under
    autograd.
    """
    low = u.clamp(max=_FAR_ABOVE)
    mills = _mills_ratio(low)
    z = low.clamp(max=_FAR_BELOW).square().reciprocal()
    series = z * (1.0 - 3.0 * z * (1.0 - 5.0 * z))
    bracket = torch.where(low < _FAR_BELOW, series, 1.0 + low * mills)
    high = u.clamp(min=_FAR_ABOVE)
    above = u > _FAR_ABOVE
    below = bracket.log() - (0.5 * low.square() + _LOG_SQRT_2PI)
    return (
        torch.where(above, high.log(), below),
        torch.where(above, 1.0 / high, mills / bracket),
    )


def _mills_ratio(u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """``Phi(u) / phi(u)``; infinite above 38."""
    return _SQRT_HALF_PI * torch.special.erfcx(-_SQRT_HALF * u)


def _log_mean_exp(values: Float[Tensor, "r s b"]) -> Float[Tensor, "r b"]:
    return torch.logsumexp(values, dim=1) - math.log(values.shape[1])

"""Utilities weighted by the probability that a point gives a value, and one that may be the best.

The first comes from a model of the failures, if trials failed; the second from models of the
quantities that constraints limit, if there are any: Schonlau, Welch and Jones (1998, "Global versus
local search in constrained optimization of computer models"), Gardner et al. (2014, "Bayesian
optimization with inequality constraints", ICML), in log space.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.acquisition import LogProbabilityOfImprovement
from gpbo.candidates import Utility
from gpbo.data import Observations, padded
from gpbo.rows import selected
from gpbo.surrogate import Surrogate

#: Lengthscale of the model of failures in one dimension; like distances in the cube, it grows with
#: the root of the dimension.
_LENGTHSCALE = 0.2
#: A trial may fail for reasons of its own, such as a machine that dies.
_NOISE_VARIANCE = 0.05


@dataclass(frozen=True)
class Sum:
    """A sum of utilities in log space: of independent probabilities, or of a gain and its
    probability.

    Attributes:
        parts: One or more.
    """

    parts: tuple[Utility, ...]

    def __call__(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
        """The sum at each point."""
        return torch.stack([part(x) for part in self.parts]).sum(0)

    def value_and_gradient(
        self, x: Float[Tensor, "r b d"]
    ) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b d"]]:
        """The sum and its gradient."""
        each = [part.value_and_gradient(x) for part in self.parts]
        values, gradients = zip(*each, strict=True)
        return torch.stack(values).sum(0), torch.stack(gradients).sum(0)


@dataclass(frozen=True)
class Scaled:
    """A utility times a constant.

    Attributes:
        utility: The utility.
        by: The constant.
    """

    utility: Utility
    by: float

    def __call__(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
        """The scaled utility of each point."""
        return self.by * self.utility(x)

    def value_and_gradient(
        self, x: Float[Tensor, "r b d"]
    ) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b d"]]:
        """The scaled utility and its gradient."""
        value, gradient = self.utility.value_and_gradient(x)
        return self.by * value, self.by * gradient


@dataclass(frozen=True)
class Where:
    """A utility in some runs, 0 in the others.

    Attributes:
        utility: The utility.
        applies: The runs.
    """

    utility: Utility
    applies: Bool[Tensor, " r"]

    def __call__(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
        """The utility of each point."""
        return torch.where(self.applies[:, None], self.utility(x), 0.0)

    def value_and_gradient(
        self, x: Float[Tensor, "r b d"]
    ) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b d"]]:
        """The utility and its gradient."""
        value, gradient = self.utility.value_and_gradient(x)
        applies = self.applies[:, None]
        return torch.where(applies, value, 0.0), torch.where(applies[..., None], gradient, 0.0)


@dataclass(frozen=True)
class Limits:
    """Models of the quantities that ``k`` constraints limit.

    Attributes:
        surrogate: A row for each constraint of each run, those of run 0 first.
        most: The upper limit of each quantity, on the scale of its model.
    """

    surrogate: Surrogate
    most: Float[Tensor, "r k"]

    @classmethod
    def apart(cls, fitted: Surrogate, data: Observations) -> tuple[Surrogate, "Limits | None"]:
        """The models of the values, and of the quantities that constraints limit, if any.

        Args:
            fitted: The models of all rows of ``data``.
        """
        if data.outputs == 1:
            return fitted, None
        rows = torch.arange(data.runs, device=data.x.device).view(-1, data.outputs)
        limit, none_beyond = _limit(data)
        most = (data.units(limit) + none_beyond).view_as(rows)[:, 1:]
        return selected(fitted, rows[:, 0]), cls(selected(fitted, rows[:, 1:].flatten()), most)

    def log_chance(self, draws: int | None = None) -> Utility:
        """The log probability that a point meets the constraints, taken as independent.

        Args:
            draws: The most hyperparameter draws to average over; by default all.
        """
        surrogate = self.surrogate
        if draws is not None:
            surrogate = surrogate.of_draws(slice(None, None, -(-surrogate.draws // draws)))
        best = self.most.flatten()[:, None].expand(-1, surrogate.draws)
        return _AllMet(LogProbabilityOfImprovement(surrogate, best), self.most.shape[1])

    def ahead(self, data: Observations) -> "Limits":
        """The models conditioned on what they expect at pending points."""
        constraints = self.most.shape[1]
        pending, mask = (
            part.repeat_interleave(constraints, 0) for part in (data.pending, data.pending_mask)
        )
        return replace(self, surrogate=self.surrogate.hallucinate(pending, mask))


def _limit(data: Observations) -> tuple[Float[Tensor, "r 1"], Bool[Tensor, "r 1"]]:
    """How far beyond its limit a quantity may be, and whether to add one standard deviation.

    A quantity that was exactly on its limit is a count or was clipped there. Its limit is moved
    halfway to the least value that violates it: a smooth model would put such points on either side
    equally often.
    """
    met = data.mask & (data.values <= 0)
    on = torch.where(met, data.values, -torch.inf).amax(-1, keepdim=True) == 0
    beyond = torch.where(data.mask & ~met, data.values, torch.inf).amin(-1, keepdim=True)
    known = beyond.isfinite()
    return torch.where(on & known, beyond / 2, 0.0), on & ~known


@dataclass(frozen=True)
class _AllMet:
    """A utility that has a row for each constraint, summed over the constraints of each run.

    Attributes:
        each: The utility.
        constraints: How many a run has, ``k``.
    """

    each: Utility
    constraints: int

    def __call__(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
        rows = x.repeat_interleave(self.constraints, 0)
        return self.each(rows).unflatten(0, (len(x), -1)).sum(1)

    def value_and_gradient(
        self, x: Float[Tensor, "r b d"]
    ) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b d"]]:
        rows = x.repeat_interleave(self.constraints, 0)
        value, gradient = (
            part.unflatten(0, (len(x), -1)).sum(1) for part in self.each.value_and_gradient(rows)
        )
        return value, gradient


def weighted(utility: Utility, chance: Utility | None, eligible: Bool[Tensor, " r"]) -> Utility:
    """The utility plus the log probability that a point gives a value that may be the best.

    Args:
        chance: This log probability, from `with_limits`.
        eligible: Whether a run has such a value yet; without one, the log probability alone counts.
    """
    if chance is None:
        return utility
    return Sum((Where(utility, eligible), chance)) if bool(eligible.any()) else chance


def log_chance(
    data: Observations,
    failed: Float[Tensor, "r f d"],
    failed_mask: Bool[Tensor, "r f"],
    *,
    ahead: bool = False,
) -> Utility | None:
    """The log probability that a point gives a value; None if it is certain.

    Args:
        ahead: Count pending points as ended in the more probable way: points near them are then not
            tried for what the pending ones will tell.
    """
    if not failed.shape[1]:
        return None
    success = log_chance_of_success(data, failed, failed_mask)
    if ahead and data.pending.shape[1]:
        gives = likely_at(success, data.pending)
        success = log_chance_of_success(data, failed, failed_mask, gives)
    return success


def likely_at(chance: Utility | None, x: Float[Tensor, "r b d"]) -> Bool[Tensor, "r b"]:
    """Which points more probably than not give a value that may be the best, by `with_limits`."""
    if chance is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return chance(x) > -math.log(2)


def with_limits(success: Utility | None, limits: Limits | None) -> Utility | None:
    """The log probability that a point gives a value and meets the constraints; None if certain."""
    return success if limits is None else added(success, limits.log_chance())


def added(success: Utility | None, utility: Utility) -> Utility:
    """The utility plus the log probability of a value, unless that is certain."""
    return utility if success is None else Sum((success, utility))


def log_chance_of_success(
    data: Observations,
    failed: Float[Tensor, "r f d"],
    failed_mask: Bool[Tensor, "r f"],
    gives: Bool[Tensor, "r m"] | None = None,
) -> Utility:
    """The log probability that a point of the cube gives a value, from those that did or did not.

    A Gaussian process on labels, 1 for a failed trial and -1 for one with a value, has mean -1
    where nothing is known. The probability is that of the process, without the noise of the labels,
    being below 0, and is 1 in a run without failures. Its hyperparameters are fixed: a run has too
    few failures to infer them from.

    Args:
        gives: Which pending points count as giving a value; the others count as failures. By
            default pending points do not count.
    """
    runs, dim = data.runs, data.dim
    ones = data.x.new_ones(runs, 1)
    failed, failed_mask = padded(failed, failed_mask)
    known = [
        [data.x, -torch.ones_like(data.values), data.mask],
        [failed, torch.ones_like(failed[..., 0]), failed_mask],
    ]
    if gives is not None:
        expected = torch.where(gives, -ones, ones)
        known.append(padded(data.pending, expected, data.pending_mask))
    x, label, mask = (torch.cat(parts, 1) for parts in zip(*known, strict=True))
    labels = Surrogate.condition(
        x,
        label,
        mask,
        lengthscale=data.x.new_full((runs, 1, dim), _LENGTHSCALE * dim**0.5),
        outputscale=ones,
        noise_variance=_NOISE_VARIANCE * ones,
        mean=-ones,
    )
    chance = LogProbabilityOfImprovement(labels, best=torch.zeros_like(ones))
    return Where(chance, failed_mask.any(-1))

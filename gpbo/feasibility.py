"""Where trials fail: the chance that a point gives a value, as a weight on a utility."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.acquisition import LogProbabilityOfImprovement
from gpbo.candidates import Utility
from gpbo.data import Observations
from gpbo.surrogate import Surrogate

#: Lengthscale of the feasibility, for one dimension; distances in the cube grow with its root.
_LENGTHSCALE = 0.2
#: A trial may fail for reasons of its own, such as a machine that dies.
_NOISE_VARIANCE = 0.05


@dataclass(frozen=True)
class Weighted:
    """A utility in log space plus the log of the chance that a point gives a value.

    Attributes:
        utility: What a point is worth if it gives a value.
        log_chance: The log of the chance that it does.
    """

    utility: Utility
    log_chance: Utility

    def __call__(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
        """The weighted utility of each point."""
        return self.utility(x) + self.log_chance(x)

    def value_and_gradient(
        self, x: Float[Tensor, "r b d"]
    ) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b d"]]:
        """The weighted utility and its gradient."""
        value, gradient = self.utility.value_and_gradient(x)
        log_chance, slope = self.log_chance.value_and_gradient(x)
        return value + log_chance, gradient + slope


@dataclass(frozen=True)
class _WhereTrialsFailed:
    """The log of a chance, which is certain in the runs that know of no failure.

    Attributes:
        log_chance: As the model of the failures has it.
        applies: Runs that know of some.
    """

    log_chance: Utility
    applies: Bool[Tensor, " r"]

    def __call__(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
        return torch.where(self.applies[:, None], self.log_chance(x), 0.0)

    def value_and_gradient(
        self, x: Float[Tensor, "r b d"]
    ) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b d"]]:
        value, gradient = self.log_chance.value_and_gradient(x)
        applies = self.applies[:, None]
        return torch.where(applies, value, 0.0), torch.where(applies[..., None], gradient, 0.0)


def weighted(
    utility: Utility,
    data: Observations,
    failed: Float[Tensor, "r f d"],
    failed_mask: Bool[Tensor, "r f"],
) -> Utility:
    """The utility, weighted in the runs where trials failed by the chance that a point does not."""
    if failed.shape[1] == 0:
        return utility
    return Weighted(utility, log_chance_of_success(data, failed, failed_mask))


def log_chance_of_success(
    data: Observations, failed: Float[Tensor, "r f d"], failed_mask: Bool[Tensor, "r f"]
) -> Utility:
    """The log of the chance that a point of the cube gives a value, from those that did or not.

    A Gaussian process on labels, 1 for a failed trial and -1 for one with a value, is -1 where
    nothing is known; the chance is that of the process, without the noise of the labels, below 0,
    and 1 in a run without failures. Its hyperparameters are fixed: a run has too few failures to
    infer them from.
    """
    runs, dim = data.runs, data.dim
    ones = data.x.new_ones(runs, 1)
    labels = Surrogate.condition(
        torch.cat([data.x, failed], 1),
        torch.cat([-torch.ones_like(data.values), torch.ones_like(failed[..., 0])], 1),
        torch.cat([data.mask, failed_mask], 1),
        lengthscale=data.x.new_full((runs, 1, dim), _LENGTHSCALE * dim**0.5),
        outputscale=ones,
        noise_variance=_NOISE_VARIANCE * ones,
        mean=-ones,
    )
    log_chance = LogProbabilityOfImprovement(labels, best=torch.zeros_like(ones))
    return _WhereTrialsFailed(log_chance, failed_mask.any(-1))

"""Tuning of the step size and of the mass matrix."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.linalg import cholesky

#: Constants of Hoffman and Gelman (2014), section 3.2.
_GAMMA, _OFFSET = 0.05, 10.0
#: The average of the log step sizes gives the update number ``n`` the weight ``n^3``: pooled
#: updates have little noise, and in a short warm-up the first ones are far off.
_AVERAGING = 4.0
#: How much larger than the present step size the centre is, in logarithms.
_LEAN = math.log(2)


@dataclass(frozen=True)
class DualAveraging:
    """Step sizes that approach a target acceptance probability, one per run.

    Nesterov's dual averaging, Hoffman and Gelman (2014), equation 6, on the acceptance of all
    chains of a run: every one of the ``c`` chains that finishes a transition counts as
    ``pace / c`` of an update. Chains finish at different times, so the updates trickle in.

    Attributes:
        log_step: Log step size in use.
        log_average: Log of the averaged step size: what to keep at the end.
        error: Running mean of target less acceptance.
        center: Log step size that the iterates shrink towards.
        count: Updates so far.
        target: Acceptance probability to reach.
        pace: Updates per transition of all the chains.
    """

    log_step: Float[Tensor, "r"]
    log_average: Float[Tensor, "r"]
    error: Float[Tensor, "r"]
    center: Float[Tensor, "r"]
    count: Float[Tensor, "r"]
    target: float = 0.8
    pace: float = 2.0

    @classmethod
    def start(cls, step_size: Float[Tensor, "r"], target: float = 0.8) -> "DualAveraging":
        """Begin at these step sizes; the first guesses lean to larger ones."""
        zeros = torch.zeros_like(step_size)
        log_step = step_size.log()
        return cls(log_step, log_step, zeros, log_step + _LEAN, zeros, target)

    def update(self, done: Bool[Tensor, "k"], acceptance: Float[Tensor, "k"]) -> "DualAveraging":
        """Take in the acceptance probability of the chains that finished a transition."""
        finished = done.reshape(len(self.count), -1)
        share = self.pace / finished.shape[1]
        amount = share * finished.sum(-1)
        excess = torch.where(done, self.target - acceptance, 0.0)
        pull = share * excess.reshape(finished.shape).sum(-1)
        count = self.count + amount
        error = self.error + (pull - amount * self.error) / (count + _OFFSET)
        log_step = self.center - count.sqrt() / _GAMMA * error
        forget = (amount * _AVERAGING / (count + _AVERAGING)).clamp_max(1.0)
        return replace(
            self,
            log_step=log_step,
            log_average=torch.lerp(self.log_average, log_step, forget),
            error=error,
            count=count,
        )


def pooled_scale(draws: Float[Tensor, "r c t p"]) -> Float[Tensor, "r p p"]:
    """``A`` with ``A A'`` the covariance of a run's draws over all its chains, a little shrunk.

    Pooling the chains is what makes a short warm-up enough for a dense matrix. Correlations are
    shrunk by ``p`` draws' worth towards 0, variances by five draws' worth towards 1e-3 (Stan's).
    """
    centered = (draws - draws.mean(2, keepdim=True)).flatten(1, 2)
    dim = draws.shape[3]
    count = draws.shape[1] * max(draws.shape[2] - 1, 1)
    covariance = centered.mT @ centered / count
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    covariance = covariance * (count / (count + 5 + 2 * dim))
    shrunk = (count * variance + 5e-3) / (count + 5)
    covariance.diagonal(dim1=-2, dim2=-1).copy_(shrunk.clamp_min(1e-8))
    factor, succeeded = cholesky(covariance)
    diagonal = torch.diag_embed(shrunk.clamp_min(1e-8).sqrt())
    return torch.where(succeeded[:, None, None], factor, diagonal)


def refreshed_scale(
    scale: Float[Tensor, "r p p"], draws: Float[Tensor, "r c t p"]
) -> Float[Tensor, "r p p"]:
    """``A`` for the next, similar density: halfway from the present one to that of the draws.

    The posterior narrows as observations come in, so a matrix from ten of them is stale at fifty;
    half of it is kept because the draws of one warm start are few.
    """
    fresh = pooled_scale(draws)
    covariance = 0.5 * (scale @ scale.mT + fresh @ fresh.mT)
    factor, succeeded = cholesky(covariance)
    return torch.where(succeeded[:, None, None], factor, scale)

"""Tuning of the step size and of the mass matrix."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.linalg import cholesky, inverse_from_factor

#: The acceptance probability that step sizes aim at.
TARGET = 0.8
#: Constants of dual averaging. The offset is that of Hoffman and Gelman (2014), section 3.2; their
#: ``gamma`` of 0.05 lets the step size swing so much over a dozen transitions that its average
#: accepts 0.92 instead of 0.8, with half as many leapfrog steps again.
_GAMMA, _OFFSET = 0.1, 10.0
#: The average of the log step sizes gives the update number ``n`` the weight ``n^3``: pooled
#: updates have little noise, and in a short warm-up the first ones are far off.
_AVERAGING = 4.0
#: Updates per transition of all chains of a run.
_PACE = 2.0
#: How far the centre lies above the log of the present step size.
_LEAN = math.log(2)
#: The variance of draws or gradients that do not vary.
_LEAST_VARIANCE = 1e-10
#: Iterations of arithmetic and harmonic means towards the geometric one. Each turns a ratio ``q``
#: of the two into ``(1 + q)^2 / (4 q)``: a quarter of it while it is large, and soon 1 to the last
#: digit.
_MEANS = 12


@dataclass(frozen=True)
class DualAveraging:
    """Step sizes that approach a target acceptance probability, one per run.

    Nesterov's dual averaging, Hoffman and Gelman (2014), equation 6, on the acceptance of all
    chains of a run: every one of the ``c`` chains that finishes a transition counts as
    ``_PACE / c`` of an update. Chains finish at different times, so the updates trickle in.

    Attributes:
        log_step: Log step size in use.
        log_average: Log of the averaged step size: what to keep at the end.
        error: Running mean of target less acceptance.
        center: Log step size that the iterates shrink towards.
        count: Updates so far.
    """

    log_step: Float[Tensor, "r"]
    log_average: Float[Tensor, "r"]
    error: Float[Tensor, "r"]
    center: Float[Tensor, "r"]
    count: Float[Tensor, "r"]

    @classmethod
    def start(cls, step_size: Float[Tensor, "r"]) -> "DualAveraging":
        """Begin at these step sizes; the first guesses lean to larger ones."""
        zeros = torch.zeros_like(step_size)
        log_step = step_size.log()
        return cls(log_step, log_step, zeros, log_step + _LEAN, zeros)

    def update(self, done: Bool[Tensor, "k"], acceptance: Float[Tensor, "k"]) -> "DualAveraging":
        """Take in the acceptance probability of the chains that finished a transition."""
        finished = done.reshape(len(self.count), -1)
        share = _PACE / finished.shape[1]
        amount = share * finished.sum(-1).to(acceptance)
        excess = torch.where(done, TARGET - acceptance, 0.0)
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


def fisher_scale(
    draws: Float[Tensor, "r c t p"], gradients: Float[Tensor, "r c t p"]
) -> Float[Tensor, "r p p"]:
    """``A``, where ``A A'`` is the inverse mass matrix estimated from a run's draws and gradients.

    The geometric mean of the covariance of the draws and the inverse covariance of the gradients
    minimises the Fisher divergence between the whitened density and a standard normal (Seyboldt,
    Carlson and Carpenter 2026). For a normal density the two are equal; if a density has a long
    tail and a steep side, as that of a long lengthscale has, the covariance alone fits the tail and
    the step size must make up for it.

    All chains of a run are pooled, which is what makes a short warm-up enough for a dense matrix;
    the spread of the draws is that within chains, so that a chain that is still elsewhere, or in
    another mode, does not widen it. Correlations are shrunk by ``5 + 2 p`` draws' worth towards 0.
    """
    dim = draws.shape[3]
    count = draws.shape[1] * max(draws.shape[2] - 1, 1)
    spread = (draws - draws.mean(2, keepdim=True)).flatten(1, 2)
    slopes = gradients.flatten(1, 2)
    variance = spread.square().sum(1) / count + _LEAST_VARIANCE
    steepness = slopes.square().mean(1) + _LEAST_VARIANCE
    width = (variance / steepness).pow(0.25)
    shrinkage = count / (count + 5 + 2 * dim)
    covariance = _covariance(spread / width[:, None] / math.sqrt(count), shrinkage)
    information = _covariance(slopes * width[:, None] / math.sqrt(slopes.shape[1]), shrinkage)
    factor, succeeded = cholesky(_geometric_mean(covariance, information))
    none = torch.eye(dim, dtype=factor.dtype, device=factor.device)
    factor = torch.where(succeeded[:, None, None], factor, none)
    return width[:, :, None] * factor


def refreshed_scale(
    scale: Float[Tensor, "r p p"],
    draws: Float[Tensor, "r c t p"],
    gradients: Float[Tensor, "r c t p"],
) -> Float[Tensor, "r p p"]:
    """``A`` for the next, similar density: halfway from the present one to that of the draws.

    The posterior narrows as observations come in, so a matrix from ten of them is stale at fifty;
    half of it is kept because the draws of one warm start are few. A single draw per chain has no
    spread, and draws that are not finite tell nothing: both leave the scale as it is.
    """
    if draws.shape[2] < 2:
        return scale
    fresh = fisher_scale(draws, gradients)
    covariance = 0.5 * (scale @ scale.mT + fresh @ fresh.mT)
    factor, succeeded = cholesky(covariance)
    return torch.where(succeeded[:, None, None], factor, scale)


def _covariance(rows: Float[Tensor, "r n p"], shrinkage: float) -> Float[Tensor, "r p p"]:
    """``rows' rows`` with its off-diagonal entries shrunk, and a diagonal that is not 0."""
    product = rows.mT @ rows
    diagonal = product.diagonal(dim1=-2, dim2=-1).clone()
    product = product * shrinkage
    product.diagonal(dim1=-2, dim2=-1).copy_(diagonal.clamp_min(_LEAST_VARIANCE))
    return product


def _geometric_mean(
    a: Float[Tensor, "r p p"], inverse_b: Float[Tensor, "r p p"]
) -> Float[Tensor, "r p p"]:
    """The geometric mean of positive definite matrices ``a`` and ``b``; NaN in a row without one.

    The limit of arithmetic and harmonic means (Bhatia 2007, section 4.1), which converge
    quadratically, and unlike an eigendecomposition fail row by row. The harmonic one is kept as its
    inverse, the arithmetic mean of the inverses.
    """
    for _ in range(_MEANS):
        a, inverse_b = 0.5 * (a + _inverse(inverse_b)), 0.5 * (_inverse(a) + inverse_b)
    return a


def _inverse(matrix: Float[Tensor, "r p p"]) -> Float[Tensor, "r p p"]:
    return inverse_from_factor(cholesky(matrix)[0])

"""Matern correlation functions of scaled squared distances, and their slopes.

Everything here works on ``q[i,j] = |z_i - z_j|^2`` with ``z = x / lengthscale``, so no
``n x n x d`` tensor is ever formed. Rasmussen and Williams (2006), equations 4.14 to 4.17.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.checks import one_of

#: Smoothness of the Matern family: the functions are differentiable ``ceil(nu) - 1`` times.
NUS = (0.5, 1.5, 2.5)

#: Below this fraction of |z_i|^2 + |z_j|^2 a squared distance from the norm expansion is only
#: rounding.
_ROUNDING = 1e-14
#: Under autograd ``q`` is at least this: at 0 its root has no slope.
_LEAST_Q = 1e-30


def check_nu(nu: float) -> None:
    """Raise InvalidOption if ``nu`` is none of the closed-form cases."""
    one_of("nu", nu, NUS)


def squared_distances(
    z: Float[Tensor, "r *b n d"], w: Float[Tensor, "r *b m d"]
) -> Float[Tensor, "r *b n m"]:
    """``|z_i - w_j|^2`` by the squared-norm expansion: one matrix product.

    Differences that are nothing but rounding become exactly 0, so coincident points have
    correlation 1. Points should be centred: the expansion loses digits far from the origin.
    """
    z_norm = z.square().sum(-1)[..., :, None]
    w_norm = w.square().sum(-1)[..., None, :]
    norms = z_norm + w_norm
    distances = torch.baddbmm(norms.flatten(0, -3), z.flatten(0, -3), w.mT.flatten(0, -3), alpha=-2)
    distances = distances.reshape(norms.shape)
    return distances.masked_fill_(distances < norms.mul_(_ROUNDING), 0.0)


def matern(q: Float[Tensor, "*b"], nu: float) -> Float[Tensor, "*b"]:
    """Correlation at squared scaled distance ``q``; safe under autograd at ``q = 0``."""
    if q.requires_grad:
        q = q.clamp_min(_LEAST_Q)
    return matern_and_slope(q, nu)[0]


def matern_and_slope(
    q: Float[Tensor, "*b"], nu: float
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Correlation ``R(q)`` and ``-dR/dq``, which share their exponential.

    With ``a = sqrt(2 nu q)``, the slope is ``exp(-a) / (2 a)`` for nu = 1/2 (0 at ``q = 0``,
    where it always multiplies a zero), ``3/2 exp(-a)`` for 3/2, ``5/6 (1 + a) exp(-a)`` for 5/2.
    """
    scaled = (q * (2 * nu)).sqrt_()
    decay = scaled.neg().exp_()
    if nu == 0.5:
        return decay, torch.where(q > 0, decay / (2 * scaled), 0.0)
    if nu == 1.5:
        return torch.addcmul(decay, scaled, decay), 1.5 * decay
    linear = torch.addcmul(decay, scaled, decay)
    return torch.addcmul(linear, q, decay, value=5 / 3), linear.mul_(5 / 6)

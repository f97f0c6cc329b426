"""One step of Hamiltonian dynamics, for every chain at once."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

#: A log-density and its gradient. A row where it cannot be computed has value -inf.
LogDensity = Callable[[Float[Tensor, "k p"]], tuple[Float[Tensor, "k"], Float[Tensor, "k p"]]]


def leapfrog(
    log_density: LogDensity,
    position: Float[Tensor, "k p"],
    momentum: Float[Tensor, "k p"],
    gradient: Float[Tensor, "k p"],
    step: Float[Tensor, "k"],
    scale: Float[Tensor, "r p p"],
) -> tuple[Float[Tensor, "k p"], Float[Tensor, "k p"], Float[Tensor, "k"], Float[Tensor, "k p"]]:
    """Position, momentum, log-density and gradient one step later.

    With the inverse mass matrix ``A A'``, the momentum here is whitened, ``A'`` times the usual
    one: it is standard normal, and ``dq/dt = A p``, ``dp/dt = A' grad``. Reversible: a step of the
    opposite sign goes back.

    Args:
        gradient: Whitened, ``A'`` times the gradient of the log-density at ``position``; so is
            the one returned.
        step: Signed step size.
        scale: ``A`` of every run.
    """
    half, runs = 0.5 * step[:, None], len(scale)
    halfway = torch.addcmul(momentum, half, gradient)
    drift = (halfway.reshape(runs, -1, halfway.shape[1]) @ scale.mT).reshape(halfway.shape)
    position = torch.addcmul(position, step[:, None], drift)
    value, slope = log_density(position)
    gradient = (slope.reshape(runs, -1, slope.shape[1]) @ scale).reshape(slope.shape)
    return position, torch.addcmul(halfway, half, gradient), value, gradient

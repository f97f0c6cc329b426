"""Priors that users bring: any ``gpytorch`` prior, any ``torch`` or ``pyro`` distribution."""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Transform, biject_to, constraints

from gpbo.backend import DTYPE, Streams
from gpbo.errors import InvalidOption
from gpbo.priors import Density, Prior

#: A user's prior is sampled by rejection; it raises where fewer than about one in so many count.
_REJECTION_ROUNDS = 100


class FromDistribution(Prior):
    """A user's ``gpytorch`` prior or ``torch`` / ``pyro`` distribution of one hyperparameter.

    The coordinate is ``biject_to(support).inv``; gradients come from autograd. A distribution on
    all real numbers, such as gpytorch's ``NormalPrior`` and ``SmoothedBoxPrior``, is also a prior
    of a positive hyperparameter: cut off at 0, which changes its density by a constant only.

    Args:
        distribution: Over single numbers.
        positive: Whether it is of a positive hyperparameter.

    Raises:
        InvalidOption: The distribution is not over single real numbers, states no support, or has
            part of its bounded support where the hyperparameter is not.
    """

    logarithmic = False

    def __init__(self, distribution: Distribution, *, positive: bool) -> None:
        if distribution.batch_shape.numel() != 1 or distribution.event_shape.numel() != 1:
            raise InvalidOption(f"{distribution!r}: expected a prior of one number, not of many")
        self.distribution = _in_double_precision(distribution)
        self.positive = positive
        self._support, self._transform = _support_of(self.distribution)
        probe = self._transform(torch.linspace(-20.0, 20.0, 41, dtype=DTYPE))
        if positive and not bool((probe >= 0).all()):
            if self._support is not constraints.real:
                raise InvalidOption(f"{distribution!r}: expected a prior on positive numbers")
            self._support = constraints.positive
            self._transform = biject_to(self._support)

    def __repr__(self) -> str:
        return f"FromDistribution({self.distribution!r}, positive={self.positive})"

    def constrain(self, u: Float[Tensor, "k j"], dim: int) -> Float[Tensor, "k j"]:
        """The transform of the support."""
        return self._transform(u)

    def pull_back(
        self, u: Float[Tensor, "k j"], gradient: Float[Tensor, "k j"]
    ) -> Float[Tensor, "k j"]:
        """The slope of the (log) natural value in ``u``, by autograd."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = u.clone().detach().requires_grad_()
            natural = self._transform(leaf)
            target = natural.log() if self.positive else natural
            (slope,) = torch.autograd.grad(target.sum(), leaf)
        return gradient * slope

    def log_density(self, u: Float[Tensor, "k j"], dim: int) -> Density:
        """The distribution's density and the transform's Jacobian.

        Where the natural value overflows or rounds to the edge of an open support it is -inf: the
        distribution is not asked there, since it would raise for the whole batch.
        """
        with torch.inference_mode(False), torch.enable_grad():
            u = u.clone().detach()
            natural = self._transform(u)
            inside = self._support.check(natural) & torch.isfinite(natural)
            leaf = torch.where(inside, u, 0.0).requires_grad_()
            natural = self._transform(leaf)
            # A batch and an event of one number are axes of the argument or of the result.
            shape = (-1, *self.distribution.batch_shape, *self.distribution.event_shape)
            density = self.distribution.log_prob(natural.reshape(shape)).reshape(natural.shape)
            density = density + self._transform.log_abs_det_jacobian(leaf, natural)
            value = torch.where(inside, density, -torch.inf).sum(-1)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach().to(DTYPE), gradient

    def sample(
        self, streams: Streams, count: int, size: int, dim: int
    ) -> Float[Tensor, "r count size"]:
        """Draws of ``u``; each run's draws come from a generator seeded by its own stream.

        Raises:
            InvalidOption: Hardly any of the distribution's draws are positive numbers.
        """
        rows = []
        for seed in streams.integers(2**62, 1)[:, 0].tolist():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                rows.append(self._draw(count * size).reshape(count, size))
        return torch.stack(rows).to(streams.device)

    def _draw(self, number: int) -> Float[Tensor, "number"]:
        """Draws of ``u``; what is outside the support, or rounded to its edge, is rejected."""
        draws = torch.empty(0, dtype=DTYPE)
        for _ in range(_REJECTION_ROUNDS):
            natural = self.distribution.sample(torch.Size((max(number, 16),))).reshape(-1)
            natural = natural.to(device="cpu", dtype=DTYPE)
            u = self._transform.inv(natural[self._support.check(natural)])
            draws = torch.cat([draws, u[torch.isfinite(u)]])
            if len(draws) >= number:
                return draws[:number]
        raise InvalidOption(f"{self.distribution!r}: hardly any of its draws are in its support")


def _in_double_precision(distribution: Distribution) -> Distribution:
    """A copy with its parameters in double precision.

    A distribution made from Python numbers holds them in single precision, and some, such as the
    gamma distribution, then compute their density in it.
    """
    seen: set[int] = set()

    def convert(item: Any) -> Any:
        if isinstance(item, Tensor):
            return item.to(DTYPE) if item.is_floating_point() else item
        if isinstance(item, list):
            return [convert(each) for each in item]
        if isinstance(item, (dict, Distribution, Transform)) and id(item) not in seen:
            seen.add(id(item))
            parts = item if isinstance(item, dict) else vars(item)
            parts.update({name: convert(part) for name, part in parts.items()})
        return item

    converted: Distribution = convert(copy.deepcopy(distribution))
    return converted


def _support_of(distribution: Distribution) -> tuple[Any, Transform]:
    """The support of one number, and the transform from all real numbers to it."""
    try:
        support: Any = distribution.support
        if isinstance(support, constraints.independent):
            support = support.base_constraint
        transform = biject_to(support)
    except NotImplementedError as error:
        raise InvalidOption(
            f"{distribution!r}: expected a distribution with a support that "
            "torch.distributions.biject_to knows"
        ) from error
    if support.event_dim > 0:
        raise InvalidOption(f"{distribution!r}: expected a prior of one number, not of many")
    return support, transform

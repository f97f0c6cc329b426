"""Priors that users bring: any ``gpytorch`` prior, any ``torch`` or ``pyro`` distribution."""

import copy
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Transform, biject_to, constraints

from gpbo.backend import DTYPE, Streams
from gpbo.errors import InvalidOption
from gpbo.priors import Density, Prior

#: A user's prior is sampled by rejection; it raises if fewer than about one draw in so many counts.
_REJECTION_ROUNDS = 100
#: Draws whose quantiles stand for the distribution's, to 1 % of its mass: chains only start there.
_QUANTILES = 2**14


class FromDistribution(Prior):
    """A user's ``gpytorch`` prior or ``torch`` / ``pyro`` distribution of one hyperparameter.

    The coordinate is ``biject_to(support).inv``; gradients come from autograd. A distribution on
    all real numbers, such as gpytorch's ``NormalPrior`` and ``SmoothedBoxPrior``, is also a prior
    of a positive hyperparameter: cut off at 0, which changes its density only by a constant factor.

    Args:
        distribution: A distribution over single numbers.
        positive: Whether it is of a positive hyperparameter.

    Raises:
        InvalidOption: The distribution is not over single real numbers, states no support, has part
            of its bounded support where the hyperparameter is not, cannot be drawn from, or hardly
            any of its draws are in its support.
    """

    logarithmic = False

    def __init__(self, distribution: Distribution, *, positive: bool) -> None:
        if distribution.batch_shape.numel() != 1 or distribution.event_shape.numel() != 1:
            raise InvalidOption(f"{distribution!r}: expected a prior of a single number")
        self.distribution: Distribution = _in_double_precision(distribution)
        self.positive = positive
        self._copies: dict[torch.device, _Copy] = {}
        support, transform = _support_of(self.distribution)
        probe = transform(torch.linspace(-20.0, 20.0, 41, dtype=DTYPE, device="cpu"))
        self._cut_off = positive and not bool((probe >= 0).all())
        if self._cut_off and support is not constraints.real:
            raise InvalidOption(f"{distribution!r}: expected a prior on positive numbers")
        # Torch draws from its global generator, which belongs to the user, whose threads may use
        # it.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # without seeding GPUs
            self._quantiles = self._draw(_QUANTILES).sort().values

    def _on(self, device: torch.device) -> "_Copy":
        """The distribution with its parameters on a device, as numbers there require."""
        if device not in self._copies:
            distribution = _in_double_precision(self.distribution, device)
            with torch.inference_mode(False):  # the caller's mode allows no gradients
                support, transform = _support_of(distribution)
            if self._cut_off:
                support, transform = constraints.positive, biject_to(constraints.positive)
            self._copies[device] = _Copy(distribution, support, transform)
        return self._copies[device]

    def __getstate__(self) -> dict[str, Any]:
        # Copies that are unpickled in inference mode would have no gradients.
        return {**vars(self), "_copies": {}}

    def __repr__(self) -> str:
        return f"FromDistribution({self.distribution!r}, positive={self.positive})"

    def constrain(self, u: Float[Tensor, "k j"]) -> Float[Tensor, "k j"]:
        """The transform of the support."""
        return self._on(u.device).transform(u)

    def pull_back(
        self, u: Float[Tensor, "k j"], gradient: Float[Tensor, "k j"]
    ) -> Float[Tensor, "k j"]:
        """The slope of the (log) natural value in ``u``, by autograd."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = u.clone().detach().requires_grad_()
            natural = self._on(u.device).transform(leaf)
            target = natural.log() if self.positive else natural
            (slope,) = torch.autograd.grad(target.sum(), leaf)
        return gradient * slope

    def log_density(self, u: Float[Tensor, "k j"]) -> Density:
        """The distribution's density and the transform's Jacobian.

        Where the natural value overflows or rounds to the edge of an open support it is -inf: the
        distribution is not evaluated there, since it would raise for the whole batch.
        """
        distribution, support, transform = self._on(u.device)
        with torch.inference_mode(False), torch.enable_grad():
            u = u.clone().detach()
            natural = transform(u)
            inside = support.check(natural) & torch.isfinite(natural)
            leaf = torch.where(inside, u, 0.0).requires_grad_()
            natural = transform(leaf)
            # A batch shape or event shape of one number adds axes to the argument or to the result.
            shape = (-1, *distribution.batch_shape, *distribution.event_shape)
            density = distribution.log_prob(natural.reshape(shape)).reshape(natural.shape)
            density = density + transform.log_abs_det_jacobian(leaf, natural)
            value = torch.where(inside & ~density.isnan(), density, -torch.inf).sum(-1)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach().to(DTYPE), gradient

    def sample(self, streams: Streams, count: int, size: int) -> Float[Tensor, "r count size"]:
        """Draws of ``u``, by the quantile function of many draws made once."""
        quantiles = self._quantiles.to(streams.device)
        place = streams.uniform(count, size) * (_QUANTILES - 1)
        lower = place.long()
        return torch.lerp(quantiles[lower], quantiles[lower + 1], place - lower)

    def _draw(self, number: int) -> Float[Tensor, "number"]:
        """Draws of ``u``; what is outside the support, or rounded to its edge, is rejected."""
        distribution, support, transform = self._on(torch.device("cpu"))
        draws = torch.empty(0, dtype=DTYPE, device="cpu")
        for _ in range(_REJECTION_ROUNDS):
            try:
                natural = distribution.sample(torch.Size((number,)))
            except NotImplementedError as error:
                raise InvalidOption(
                    f"{self.distribution!r}: expected a distribution that can be sampled"
                ) from error
            natural = natural.reshape(-1).to(DTYPE)
            u = transform.inv(natural[support.check(natural)])
            draws = torch.cat([draws, u[torch.isfinite(u)]])
            if len(draws) >= number:
                return draws[:number]
        raise InvalidOption(f"{self.distribution!r}: hardly any of its draws are in its support")


class _Copy(NamedTuple):
    """A distribution on one device, with its support and the transform from all real numbers."""

    distribution: Distribution
    support: Any
    transform: Transform


def only_value(distribution: Distribution) -> float | None:
    """The value of a distribution that has only one, such as pyro's ``Delta``; else None."""
    try:
        certain = bool((distribution.variance == 0).all())
    except NotImplementedError:
        return None
    return float(distribution.mean) if certain and distribution.mean.numel() == 1 else None


def _in_double_precision(
    distribution: Distribution, device: torch.device | str = "cpu"
) -> Distribution:
    """A copy with its parameters in double precision, on the device, that checks no arguments.

    A distribution made from Python numbers holds them in single precision, and some, such as the
    gamma distribution, then compute their density in it. Some state a larger support than they
    have, and would raise for a whole batch. The copy has gradients even if it is made in inference
    mode, while a sampler is at work.
    """
    seen: set[int] = set()

    def convert(item: Any) -> Any:
        if isinstance(item, Tensor):
            return item.to(device, DTYPE if item.is_floating_point() else item.dtype)
        if isinstance(item, list):
            return [convert(each) for each in item]
        if isinstance(item, (dict, Distribution, Transform)) and id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, Distribution):
                item._validate_args = False  # as ``validate_args=False`` does
            parts = item if isinstance(item, dict) else vars(item)
            parts.update({name: convert(part) for name, part in parts.items()})
        return item

    with torch.inference_mode(False):
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
        raise InvalidOption(f"{distribution!r}: expected a prior of a single number")
    return support, transform

"""Prior densities of one kind of hyperparameter, elementwise in an unconstrained coordinate ``u``.

Positive hyperparameters are ``exp(u)`` unless their prior says otherwise, real ones ``u`` itself;
densities include the Jacobian. Gradients are in closed form, so sampling needs no autograd tape.
Parameters of priors are finite numbers; scales, shapes and rates are positive, and anything else
is an `InvalidOption`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from scipy.special import gammaincinv
from torch import Tensor

from gpbo.backend import DTYPE, Streams
from gpbo.checks import finite, truth_value
from gpbo.errors import InvalidOption

#: The precision of a normal distribution, the square of this, has to be finite.
_MOST_PRECISE = 1e154

Density = tuple[Float[Tensor, "k"], Float[Tensor, "k j"]]


class Prior(ABC):
    """Independent, identical priors of the ``j`` coordinates of a block ``u[k,j]``.

    Attributes:
        positive: True for a prior on positive numbers, False on all real numbers, None for `Fixed`.
        logarithmic: Whether ``u`` is the logarithm of the natural value.
    """

    positive: bool | None = True
    logarithmic: bool = True

    def at(self, dim: int) -> "Prior":
        """The prior for ``dim`` dimensions, on which the other methods are to be called."""
        return self

    def size(self, count: int) -> int:
        """How many coordinates ``count`` hyperparameters have."""
        return count

    def gaussian(self) -> tuple[float, float] | None:
        """Mean and standard deviation where the density is Gaussian in ``u``, else None."""
        return None

    def constrain(self, u: Float[Tensor, "k j"]) -> Float[Tensor, "k j_natural"]:
        """Natural values at ``u``."""
        return u.exp() if self.positive else u

    def pull_back(
        self, u: Float[Tensor, "k j"], gradient: Float[Tensor, "k j_natural"]
    ) -> Float[Tensor, "k j"]:
        """Gradient in ``u`` from the one in the log (positive) or plain (real) natural value."""
        return gradient

    @abstractmethod
    def log_density(self, u: Float[Tensor, "k j"]) -> Density:
        """Log density of ``u`` summed over the block, and its gradient."""

    @abstractmethod
    def sample(self, streams: Streams, count: int, size: int) -> Float[Tensor, "r count size"]:
        """Draws of ``u`` for each run."""


@dataclass(frozen=True)
class Normal(Prior):
    """Normal with mean ``loc`` and standard deviation ``scale``, on all real numbers."""

    loc: float = 0.0
    scale: float = 1.0
    positive = False
    logarithmic = False

    def __post_init__(self) -> None:
        precise = _positive(self.scale) and 1 / _number(self.scale) < _MOST_PRECISE
        _check(self, loc=math.isfinite(_number(self.loc)), scale=precise)

    def gaussian(self) -> tuple[float, float]:
        """Mean and standard deviation of ``u``."""
        return self.loc, self.scale

    def log_density(self, u: Float[Tensor, "k j"]) -> Density:
        """Gaussian in ``u``."""
        offset = (u - self.loc) / self.scale
        value = -0.5 * offset.square() - math.log(self.scale) - 0.5 * math.log(2 * math.pi)
        return value.sum(-1), -offset / self.scale

    def sample(self, streams: Streams, count: int, size: int) -> Float[Tensor, "r count size"]:
        """Draws of ``u``."""
        return self.loc + self.scale * streams.normal(count, size)


@dataclass(frozen=True)
class LogNormal(Normal):
    """The logarithm is normal with mean ``loc`` and standard deviation ``scale``.

    With ``scaled_by_dim``, ``at`` adds ``log(d) / 2`` to ``loc``.
    """

    scaled_by_dim: bool = False
    positive = True
    logarithmic = True

    def __post_init__(self) -> None:
        super().__post_init__()
        truth_value("scaled_by_dim", self.scaled_by_dim)

    def at(self, dim: int) -> "LogNormal":
        """The same with ``log(dim) / 2`` added to ``loc`` if ``scaled_by_dim``."""
        if not self.scaled_by_dim:
            return self
        return replace(self, loc=self.loc + 0.5 * math.log(dim), scaled_by_dim=False)


@dataclass(frozen=True)
class Gamma(Prior):
    """Gamma with shape ``concentration`` and ``rate``; mean ``concentration / rate``."""

    concentration: float
    rate: float

    def __post_init__(self) -> None:
        _check(self, concentration=_positive(self.concentration), rate=_positive(self.rate))

    def log_density(self, u: Float[Tensor, "k j"]) -> Density:
        """``concentration u - rate e^u`` and a constant."""
        pull = self.rate * u.exp()
        constant = self.concentration * math.log(self.rate) - math.lgamma(self.concentration)
        return (self.concentration * u - pull + constant).sum(-1), self.concentration - pull

    def sample(self, streams: Streams, count: int, size: int) -> Float[Tensor, "r count size"]:
        """Draws of ``u`` by the quantile function.

        It is that of concentration ``c + 1``, to which ``log(uniform) / c`` is added: with a small
        ``c`` itself the values would underflow (Marsaglia and Tsang 2000, section 6).
        """
        uniform = streams.uniform(count, size).clamp_min(1e-16)
        quantile = gammaincinv(self.concentration + 1, uniform.cpu().numpy())
        boost = streams.uniform(count, size).clamp_min(1e-16).log() / self.concentration
        return torch.from_numpy(quantile).to(uniform).log() + boost - math.log(self.rate)


@dataclass(frozen=True)
class HalfCauchy(Prior):
    """Cauchy of this ``scale``, folded onto the positive numbers."""

    scale: float

    def __post_init__(self) -> None:
        _check(self, scale=_positive(self.scale))

    def log_density(self, u: Float[Tensor, "k j"]) -> Density:
        """In ``w = u - log scale`` the density is ``sech(w) / pi``: no overflow, slope -tanh."""
        offset = u - math.log(self.scale)
        size = offset.abs()
        value = math.log(2 / math.pi) - size - torch.log1p(torch.exp(-2 * size))
        return value.sum(-1), -torch.tanh(offset)

    def sample(self, streams: Streams, count: int, size: int) -> Float[Tensor, "r count size"]:
        """Draws of ``u`` by the quantile function."""
        angle = (math.pi / 2) * streams.uniform(count, size).clamp_min(1e-16)
        return torch.log(torch.tan(angle)) + math.log(self.scale)


@dataclass(frozen=True)
class Horseshoe(Prior):
    """Density ``log(1 + (scale/v)^2) / (pi scale)`` of ``v > 0``: Spearmint's noise variance."""

    scale: float

    def __post_init__(self) -> None:
        _check(self, scale=_positive(self.scale))

    def log_density(self, u: Float[Tensor, "k j"]) -> Density:
        """With ``x = (scale/v)^2``: ``log log1p(x) + u``, slope ``1 - 2 x / (1 + x) / log1p(x)``.

        ``log1p(x)`` is computed as ``softplus(log x)``, or as ``x`` where the difference is below
        rounding, so neither end overflows.
        """
        log_ratio = 2 * (math.log(self.scale) - u)
        tiny = log_ratio < -40.0
        growth = torch.nn.functional.softplus(log_ratio.clamp_min(-40.0), threshold=40.0)
        value = torch.where(tiny, log_ratio, growth.log()) + u - math.log(math.pi * self.scale)
        return value.sum(-1), 1 - 2 * torch.where(tiny, 1.0, torch.sigmoid(log_ratio) / growth)

    def sample(self, streams: Streams, count: int, size: int) -> Float[Tensor, "r count size"]:
        """A half-Cauchy whose scale is uniform on (0, scale) has this density."""
        cauchy = HalfCauchy(self.scale).sample(streams, count, size)
        return cauchy + torch.log(streams.uniform(count, size).clamp_min(1e-16))


@dataclass(frozen=True)
class Uniform(Prior):
    """Uniform between two non-negative bounds; ``u`` is the logit of the place between them."""

    low: float
    high: float
    logarithmic = False

    def __post_init__(self) -> None:
        _check(self, low=_number(self.low) >= 0, high=_number(self.high) > _number(self.low))

    def constrain(self, u: Float[Tensor, "k j"]) -> Float[Tensor, "k j"]:
        """``low + (high - low) sigmoid(u)``."""
        return self.low + (self.high - self.low) * torch.sigmoid(u)

    def pull_back(
        self, u: Float[Tensor, "k j"], gradient: Float[Tensor, "k j"]
    ) -> Float[Tensor, "k j"]:
        """The slope of the log natural value in ``u``."""
        slope = gradient * torch.sigmoid(-u)
        if self.low == 0:
            return slope
        above = (self.high - self.low) * torch.sigmoid(u)
        return slope * (above / (self.low + above))

    def log_density(self, u: Float[Tensor, "k j"]) -> Density:
        """The logistic density."""
        size = u.abs()
        value = -size - 2 * torch.log1p(torch.exp(-size))
        return value.sum(-1), -torch.tanh(0.5 * u)

    def sample(self, streams: Streams, count: int, size: int) -> Float[Tensor, "r count size"]:
        """Draws of ``u`` by the quantile function."""
        return torch.logit(streams.uniform(count, size), eps=1e-16)


@dataclass(frozen=True)
class Fixed(Prior):
    """A known value: it has no coordinate. ``noise_floor`` is added to a fixed noise variance."""

    value: float
    positive = None
    logarithmic = False

    def __post_init__(self) -> None:
        _check(self, value=math.isfinite(_number(self.value)))

    def size(self, count: int) -> int:
        """None."""
        return 0

    def constrain(self, u: Float[Tensor, "k j"]) -> Float[Tensor, "k one"]:
        """The value."""
        return torch.full((len(u), 1), self.value, dtype=u.dtype, device=u.device)

    def pull_back(
        self, u: Float[Tensor, "k none"], gradient: Float[Tensor, "k j_natural"]
    ) -> Float[Tensor, "k none"]:
        """Empty, as there is no coordinate."""
        return u

    def log_density(self, u: Float[Tensor, "k j"]) -> Density:
        """0, as there is no coordinate."""
        return torch.zeros(len(u), dtype=u.dtype, device=u.device), torch.zeros_like(u)

    def sample(self, streams: Streams, count: int, size: int) -> Float[Tensor, "r count size"]:
        """No coordinates."""
        return torch.zeros(streams.runs, count, 0, dtype=DTYPE, device=streams.device)


@dataclass(frozen=True)
class Saas(Prior):
    """Sparse axis-aligned subspaces: one global and ``d`` local half-Cauchy inverse scales.

    ``lengthscale_k = (tau rho_k)^(-1/2)`` with ``tau ~ HalfCauchy(scale)``, ``rho_k ~
    HalfCauchy(1)`` (Eriksson and Jankowiak 2021; on the squared global scale, as in BoTorch).
    Coordinates: ``log tau``, then the ``d`` values ``log rho_k``.
    """

    scale: float = 0.1
    logarithmic = False

    def __post_init__(self) -> None:
        _check(self, scale=_positive(self.scale))

    def size(self, count: int) -> int:
        """One more than the lengthscales."""
        return count + 1

    def constrain(self, u: Float[Tensor, "k j"]) -> Float[Tensor, "k d"]:
        """The lengthscales."""
        return torch.exp(-0.5 * (u[:, :1] + u[:, 1:]))

    def pull_back(
        self, u: Float[Tensor, "k j"], gradient: Float[Tensor, "k d"]
    ) -> Float[Tensor, "k j"]:
        """Every lengthscale's gradient goes to its own scale and to the global one."""
        return -0.5 * torch.cat([gradient.sum(-1, keepdim=True), gradient], dim=-1)

    def log_density(self, u: Float[Tensor, "k j"]) -> Density:
        """The global and the local half-Cauchy densities."""
        global_value, global_slope = HalfCauchy(self.scale).log_density(u[:, :1])
        local_value, local_slope = HalfCauchy(1.0).log_density(u[:, 1:])
        return global_value + local_value, torch.cat([global_slope, local_slope], dim=-1)

    def sample(self, streams: Streams, count: int, size: int) -> Float[Tensor, "r count size"]:
        """Draws of the global and the local scales."""
        global_scale = HalfCauchy(self.scale).sample(streams, count, 1)
        return torch.cat([global_scale, HalfCauchy(1.0).sample(streams, count, size - 1)], dim=-1)


def _number(value: object) -> float:
    """The value; NaN, of which no comparison is true, if it is not a finite number."""
    number = finite(value.item() if isinstance(value, Tensor) and value.ndim == 0 else value)
    return math.nan if number is None else number


def _positive(value: object) -> bool:
    return _number(value) > 0


def _check(prior: Prior, **valid: bool) -> None:
    """Make the options of a prior floats, whatever kind of number they were given as.

    Raises:
        InvalidOption: one is not valid.
    """
    for name, is_valid in valid.items():
        if not is_valid:
            raise InvalidOption(
                f"{type(prior).__name__}: {name}={getattr(prior, name)!r} is out of range: "
                "expected finite numbers, with positive scales, shapes and rates (above 1e-154 in "
                "normal distributions) and 0 <= low < high"
            )
        object.__setattr__(prior, name, _number(getattr(prior, name)))

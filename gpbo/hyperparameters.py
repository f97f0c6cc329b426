"""Priors over kernel hyperparameters, in the unconstrained coordinates that are sampled.

A ``HyperparameterPrior`` has a prior for each of lengthscale, outputscale, noise variance and
mean, and maps ``u[k,p]`` to their natural values. Four well-known choices have names (``PRIORS``);
any ``gpytorch`` prior or ``torch`` / ``pyro`` distribution can replace the prior of a
hyperparameter.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from gpbo.backend import DTYPE, Streams
from gpbo.checks import finite
from gpbo.errors import InvalidOption
from gpbo.priors import (
    Fixed,
    Gamma,
    Horseshoe,
    LogNormal,
    Normal,
    Prior,
    Saas,
    Uniform,
)
from gpbo.user_priors import FromDistribution, only_value


@dataclass(frozen=True)
class Hyperparameters:
    """Natural values of one hyperparameter vector per chain; also used for gradients."""

    lengthscale: Float[Tensor, "k d"]
    outputscale: Float[Tensor, "k"]
    noise_variance: Float[Tensor, "k"]
    mean: Float[Tensor, "k"]


#: The names of the hyperparameters, in the order of the fields.
NAMES = tuple(field.name for field in fields(Hyperparameters))


@dataclass(frozen=True)
class HyperparameterPrior:
    """Independent priors of the four kinds of hyperparameters of a GP with ARD.

    The inputs are in the unit cube and the values are standardised, so the scales are relative.
    Each is a prior of `gpbo.priors`, a gpytorch prior or a torch or pyro distribution; by default
    those of ``"dimension-scaled"`` (`PRIORS`).

    Attributes:
        lengthscale: Prior of every lengthscale, in units of the cube.
        outputscale: Prior of the kernel's variance.
        noise_variance: Prior of the noise variance above ``noise_floor``.
        mean: Prior of the constant mean.
        noise_floor: The least noise variance; it bounds the condition number of the covariance.

    Raises:
        InvalidOption: one is not a prior of a single number, or not on the hyperparameter's range
            (all but ``mean`` are positive); or ``noise_floor`` is not positive.
    """

    # The lengthscale prior of Hvarfner et al. has its mode, to which it pulls a point estimate, at
    # exp(-3) = 1/20 of its median. An integral follows the median, by which most dimensions do not
    # matter until many points say so, and proposals lie on their bounds. It follows the spread too:
    # with sqrt(3), single draws explain values by noise or by one dimension alone.
    lengthscale: Prior | Distribution = LogNormal(-1.0, 1.0, scaled_by_dim=True)
    outputscale: Prior | Distribution = LogNormal(0.0, 1.0)
    noise_variance: Prior | Distribution = LogNormal(-8.0, 2.0)
    mean: Prior | Distribution = Normal(0.0, 1.0)
    noise_floor: float = 1e-6

    def __post_init__(self) -> None:
        number = finite(self.noise_floor)
        if number is None or number <= 0:
            raise InvalidOption(f"noise_floor={self.noise_floor!r}: expected a positive number")
        object.__setattr__(self, "noise_floor", number)
        for name in NAMES:
            object.__setattr__(self, name, _resolved(name, getattr(self, name)))


def _resolved(name: str, prior: Prior | Distribution) -> Prior:
    """``prior``, or a user's distribution as a prior.

    Raises:
        InvalidOption: It cannot be a prior of the hyperparameter ``name``.
    """
    positive = name != "mean"
    if isinstance(prior, Distribution):
        value = only_value(prior)
        if value is None:
            try:
                return FromDistribution(prior, positive=positive)
            except InvalidOption as error:
                raise InvalidOption(f"{name}={error}") from error
        prior = Fixed(value)
    if not isinstance(prior, Prior):
        raise InvalidOption(
            f"{name}={prior!r}: expected a prior from gpbo.priors, a gpytorch prior, or a torch or "
            "pyro distribution"
        )
    if prior.positive != positive and not isinstance(prior, Fixed):
        support = "positive numbers" if positive else "all real numbers"
        raise InvalidOption(f"{name}={prior!r}: expected a prior on {support}")
    if isinstance(prior, Saas) and name != "lengthscale":
        raise InvalidOption(f"{name}={prior!r}: Saas is a prior for lengthscale only")
    if isinstance(prior, Fixed) and positive:
        # The noise variance has a floor, so nothing need be added to it.
        is_no_more = prior.value == 0 and name == "noise_variance"
        if not (prior.value > 0 or is_no_more):
            raise InvalidOption(f"{name}={prior!r}: expected a positive value")
    return prior


class Parametrization:
    """The layout ``u = (lengthscales, outputscale, noise variance, mean)`` for ``d`` dimensions.

    A fixed hyperparameter has no coordinate. Blocks whose density is Gaussian in ``u`` (normal
    and log-normal priors) are evaluated together, in a handful of operations.
    """

    def __init__(
        self, prior: HyperparameterPrior, dim: int, device: torch.device | str = "cpu"
    ) -> None:
        self.prior = prior
        self.dim = dim
        self.device: torch.device = torch.device(device)
        self._blocks: dict[str, tuple[Prior, slice]] = {}
        start = 0
        for name in NAMES:
            block: Prior = getattr(prior, name).at(dim)
            size = block.size(dim if name == "lengthscale" else 1)
            self._blocks[name] = (block, slice(start, start + size))
            start += size
        self.size = start
        self._location = torch.zeros(start, dtype=DTYPE, device=self.device)
        self._precision = torch.zeros(start, dtype=DTYPE, device=self.device)
        self._constant = 0.0
        self._others: list[tuple[Prior, slice]] = []
        for block, place in self._blocks.values():
            count = place.stop - place.start
            gaussian = block.gaussian()
            if gaussian is not None:
                location, scale = gaussian
                self._location[place] = location
                self._precision[place] = scale**-2
                self._constant -= count * (math.log(scale) + 0.5 * math.log(2 * math.pi))
            elif count:
                self._others.append((block, place))

    def constrain(self, u: Float[Tensor, "k p"]) -> Hyperparameters:
        """Natural values at ``u``."""
        natural = {
            name: block.constrain(u[:, place]) for name, (block, place) in self._blocks.items()
        }
        return Hyperparameters(
            lengthscale=natural["lengthscale"].expand(len(u), self.dim),
            outputscale=natural["outputscale"].expand(len(u), 1)[:, 0],
            noise_variance=natural["noise_variance"].expand(len(u), 1)[:, 0]
            + self.prior.noise_floor,
            mean=natural["mean"].expand(len(u), 1)[:, 0],
        )

    def pull_back(
        self, u: Float[Tensor, "k p"], natural: Hyperparameters, gradient: Hyperparameters
    ) -> Float[Tensor, "k p"]:
        """Gradient with respect to ``u`` from that with respect to natural values.

        Args:
            u: The points.
            natural: ``constrain(u)``.
            gradient: With respect to the *log* lengthscale and *log* outputscale, the noise
                variance, and the mean.
        """
        excess = natural.noise_variance - self.prior.noise_floor
        towards = {
            "lengthscale": gradient.lengthscale,
            "outputscale": gradient.outputscale[:, None],
            "noise_variance": (gradient.noise_variance * excess)[:, None],
            "mean": gradient.mean[:, None],
        }
        slopes = [
            block.pull_back(u[:, place], towards[name])
            for name, (block, place) in self._blocks.items()
        ]
        return torch.cat(slopes, dim=-1)

    def log_prior(self, u: Float[Tensor, "k p"]) -> tuple[Float[Tensor, "k"], Float[Tensor, "k p"]]:
        """Log density of ``u``, the Jacobian of the transforms included, and its gradient."""
        offset = u - self._location
        gradient = offset * -self._precision
        value = self._constant - 0.5 * (offset.square() @ self._precision)
        for block, place in self._others:
            block_value, block_gradient = block.log_density(u[:, place])
            value = value + block_value
            gradient[:, place] = block_gradient
        return value, gradient

    def rescaled(
        self, u: Float[Tensor, "r c p"], shift: Float[Tensor, "r"], factor: Float[Tensor, "r"]
    ) -> Float[Tensor, "r c p"]:
        """The hyperparameters of the same functions for values ``(y - shift) / factor``.

        Variances are divided by ``factor^2``; exact up to the noise floor for priors whose
        coordinate is a logarithm. The mean is moved if its prior is normal. Other coordinates stay
        as they are.
        """
        moved = u.clone()
        for name in ("outputscale", "noise_variance"):
            block, place = self._blocks[name]
            if block.logarithmic:
                moved[..., place] -= 2 * factor.log()[:, None, None]
        block, place = self._blocks["mean"]
        if isinstance(block, Normal):
            moved[..., place] = (u[..., place] - shift[:, None, None]) / factor[:, None, None]
        return moved

    def sample(self, streams: Streams, count: int) -> Float[Tensor, "r count p"]:
        """``count`` draws of ``u`` from the prior, for each run."""
        return torch.cat(
            [
                block.sample(streams, count, place.stop - place.start)
                for block, place in self._blocks.values()
            ],
            dim=-1,
        )


def _botorch() -> HyperparameterPrior:
    return HyperparameterPrior(
        # Hvarfner, Hellsten and Nardi (2024).
        lengthscale=LogNormal(math.sqrt(2), math.sqrt(3), scaled_by_dim=True),
        outputscale=Fixed(1.0),
        noise_variance=Gamma(0.9, 10.0),
        noise_floor=1e-4,
    )


def _saas() -> HyperparameterPrior:
    return HyperparameterPrior(
        lengthscale=Saas(0.1),
        outputscale=Gamma(2.0, 0.15),
        noise_variance=Gamma(0.9, 10.0),
        noise_floor=1e-4,
    )


def _spearmint() -> HyperparameterPrior:
    return HyperparameterPrior(
        lengthscale=Uniform(0.0, 2.0),
        outputscale=LogNormal(4.0, 2.0),
        noise_variance=Horseshoe(0.1),
    )


#: The priors that have a name.
#:
#: - ``"dimension-scaled"`` (the default): lengthscales ``LogNormal(-1 + log(d)/2, 1)``, which
#:   grow with the dimension as Hvarfner, Hellsten and Nardi's (2024) do and lie nearer to their
#:   mode; outputscale ``LogNormal(0, 1)``; noise variance ``LogNormal(-8, 2)`` above 1e-6, which
#:   allows for none; mean ``Normal(0, 1)``.
#: - ``"botorch"``: BoTorch 0.18's ``FullyBayesianSingleTaskGP``, lengthscales as published,
#:   ``LogNormal(sqrt(2) + log(d)/2, sqrt(3))``, outputscale fixed at 1, noise variance
#:   ``Gamma(0.9, 10)`` above 1e-4.
#: - ``"saas"``: sparse axis-aligned subspaces, Eriksson and Jankowiak (2021), as in BoTorch.
#: - ``"spearmint"``: Snoek, Larochelle and Adams (2012), as their code has it: lengthscales uniform
#:   on (0, 2), ``exp(-log(outputscale)^2 / 8)`` with respect to the outputscale (which is
#:   ``LogNormal(4, 2)``), a horseshoe of scale 0.1 on the noise variance.
PRIORS: Mapping[str, Callable[[], HyperparameterPrior]] = {
    "dimension-scaled": HyperparameterPrior,
    "botorch": _botorch,
    "saas": _saas,
    "spearmint": _spearmint,
}


def resolve_prior(prior: str | HyperparameterPrior) -> HyperparameterPrior:
    """The prior of this name, or ``prior`` itself.

    Raises:
        InvalidOption: There is no prior of this name.
    """
    if isinstance(prior, HyperparameterPrior):
        return prior
    if not isinstance(prior, str) or prior not in PRIORS:
        raise InvalidOption(
            f"prior={prior!r}: expected one of {', '.join(map(repr, sorted(PRIORS)))}, or a "
            "HyperparameterPrior"
        )
    return PRIORS[prior]()

"""Log posterior density of the hyperparameters and its closed-form gradient.

No autograd tape and no ``n x n x d`` tensor: one factorisation, one inverse and a few batched
products per evaluation, about ``n^3 + 4 n^2 d`` operations per chain.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.data import capacity, check_finite, numbered
from gpbo.design import GOLDEN
from gpbo.errors import InvalidOption
from gpbo.hyperparameters import (
    HyperparameterPrior,
    Hyperparameters,
    Parametrization,
    resolve_prior,
)
from gpbo.kernels import check_nu, matern_and_slope, squared_distances
from gpbo.linalg import cholesky, inverse_from_factor
from gpbo.memory import in_parts


@dataclass(frozen=True)
class Model:
    """A Gaussian process with constant mean, ARD Matern kernel and homoscedastic noise.

    Attributes:
        nu: Smoothness of the kernel: 0.5, 1.5 or 2.5.
        prior: Priors of the hyperparameters, or the name of one of ``gpbo.hyperparameters.PRIORS``:
            ``"dimension-scaled"``, ``"botorch"``, ``"saas"`` or ``"spearmint"``.

    Raises:
        InvalidOption: ``nu`` or ``prior`` is none of these.
    """

    nu: float = 2.5
    prior: str | HyperparameterPrior = "dimension-scaled"

    def __post_init__(self) -> None:
        check_nu(self.nu)
        resolve_prior(self.prior)

    def log_posterior(
        self, x: Float[Tensor, "r n d"], y: Float[Tensor, "r n"], mask: Bool[Tensor, "r n"]
    ) -> "LogPosterior":
        """The density of the unconstrained hyperparameters given observations."""
        return LogPosterior(x, y, mask, resolve_prior(self.prior), self.nu)


def resolve_model(model: Model | None) -> Model:
    """The model, or the default one for None.

    Raises:
        InvalidOption: it is not a `Model`.
    """
    if model is None:
        return Model()
    if not isinstance(model, Model):
        raise InvalidOption(f"model={model!r}: expected a gpbo.Model, or None for the default")
    return model


class LogPosterior:
    """``u[k,p] -> (value[k], gradient[k,p])``, where the ``k`` chains are ``r`` runs x ``c`` each.

    Chains of one run are adjacent. A chain whose covariance cannot be factorised has value -inf and
    gradient 0: it rejects the step, and the others are unaffected.

    Args:
        x: Points in the unit cube.
        y: Values, standardised.
        mask: Which points are there. The covariance of an absent point is a row of the identity
            and its residual is 0, so it adds exactly nothing.
        prior: Priors of the hyperparameters.
        nu: Smoothness of the Matern kernel.

    Raises:
        InvalidData: Points or values that the mask keeps are not finite.
        InvalidOption: ``nu`` is not 0.5, 1.5 or 2.5.
    """

    def __init__(
        self,
        x: Float[Tensor, "r n d"],
        y: Float[Tensor, "r n"],
        mask: Bool[Tensor, "r n"],
        prior: HyperparameterPrior,
        nu: float = 2.5,
    ) -> None:
        check_nu(nu)
        check_finite(x, y, mask)
        self.parametrization: Parametrization = Parametrization(prior, x.shape[-1], x.device)
        self._nu = nu
        self._x = torch.where(mask[..., None], x - 0.5, 0.0)
        self._y = torch.where(mask, y, 0.0)
        self._mask = mask
        # On a GPU the arithmetic is the same whether there is padding or not: one graph for both.
        self._padded = x.device.type != "cpu" or not bool(mask.all())
        self._count = mask.sum(-1).to(x)

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return self._x.shape[0]

    @property
    def counts(self) -> Float[Tensor, "r"]:
        """How many results each run has."""
        return self._count

    def select(self, runs: slice | Int[Tensor, "_"]) -> "LogPosterior":
        """The posterior of these runs alone."""
        return self._given(self._x[runs], self._y[runs], self._mask[runs])

    def thinned(self, most: int, least_share: float = 0.0) -> "LogPosterior":
        """The posterior given about ``most`` of the results, or this share of them if that is more,
        in runs that have more.

        They are spread evenly over all results, and over those of each task where tasks take turns.
        """
        place = numbered(self._mask)
        share = (most / self._count[:, None]).clamp(min=least_share)
        kept = self._mask & (place.to(share) * GOLDEN % 1 < share)
        if bool((kept == self._mask).all()):
            return self
        room = capacity(int(kept.sum(-1).max()), kept.device)
        first = (~kept).long().argsort(dim=1, stable=True)[:, :room]
        x = self._x.take_along_dim(first[..., None], 1)
        return self._given(x, self._y.gather(1, first), kept.gather(1, first))

    def _given(
        self, x: Float[Tensor, "j m d"], y: Float[Tensor, "j m"], mask: Bool[Tensor, "j m"]
    ) -> "LogPosterior":
        """The posterior given other results, at points centred like those kept here."""
        return LogPosterior(x + 0.5, y, mask, self.parametrization.prior, self._nu)

    def __call__(self, u: Float[Tensor, "k p"]) -> tuple[Float[Tensor, "k"], Float[Tensor, "k p"]]:
        """Log posterior density up to a constant in ``u``, and its gradient."""
        prior, prior_slope, likelihood, slope = self.parts(u)
        return prior + likelihood, prior_slope + slope

    def parts(
        self, u: Float[Tensor, "k p"]
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k p"], Float[Tensor, "k"], Float[Tensor, "k p"]]:
        """Log prior density in ``u`` and its gradient; log likelihood and its gradient.

        Where either cannot be computed the likelihood is -inf and the gradients are 0.
        """
        natural = self.parametrization.constrain(u)
        value, gradient = self.log_likelihood(natural)
        prior, prior_slope = self.parametrization.log_prior(u)
        slope = self.parametrization.pull_back(u, natural, gradient)
        finite = torch.isfinite(value + prior) & torch.isfinite(slope + prior_slope).all(-1)
        return (
            prior.masked_fill(~finite, 0.0),
            prior_slope.masked_fill(~finite[:, None], 0.0),
            value.masked_fill(~finite, -torch.inf),
            slope.masked_fill(~finite[:, None], 0.0),
        )

    def log_likelihood(
        self, natural: Hyperparameters
    ) -> tuple[Float[Tensor, "k"], Hyperparameters]:
        """Log marginal likelihood (Rasmussen and Williams 2006, equations 5.8 and 5.9).

        Returns:
            The value, and its gradient with respect to the log lengthscale, the log outputscale,
            the noise variance and the mean. Rows without a factor have value -inf.
        """
        chains = len(natural.mean) // self.runs
        given = [rows.unflatten(0, (self.runs, chains)) for rows in vars(natural).values()]

        def part(runs: slice, some: slice) -> tuple[Tensor, ...]:
            own = Hyperparameters(*(rows[runs, some].flatten(0, 1) for rows in given))
            value, gradient = self._of_runs(runs, own)
            shape = given[0][runs, some].shape[:2]
            return tuple(rows.unflatten(0, shape) for rows in (value, *vars(gradient).values()))

        matrix_bytes = self._x.shape[1] ** 2 * self._x.element_size()
        parts = in_parts(part, self.runs, chains, matrix_bytes, self._x.device)
        value, *gradient = (rows.flatten(0, 1) for rows in parts)
        return value, Hyperparameters(*gradient)

    def _of_runs(
        self, runs: slice, natural: Hyperparameters
    ) -> tuple[Float[Tensor, "k"], Hyperparameters]:
        """The log likelihood and its gradient for some chains of these runs."""
        x, y, count = self._x[runs], self._y[runs], self._count[runs]
        chains = len(natural.mean) // len(x)
        lengthscale = natural.lengthscale.reshape(len(x), chains, 1, -1)
        z = (x[:, None] / lengthscale).flatten(0, 1)
        residual = (y[:, None] - natural.mean.reshape(len(x), chains, 1)).flatten(0, 1)
        count = count.repeat_interleave(chains)
        noise = natural.noise_variance[:, None]
        scale = natural.outputscale
        covariance, slope = matern_and_slope(self._squared_distances(z), self._nu)
        covariance = covariance.mul_(scale[:, None, None])
        if self._padded:
            present = self._mask[runs].repeat_interleave(chains, 0)
            residual = torch.where(present, residual, 0.0)
            covariance.mul_(present[:, :, None] & present[:, None, :])
            noise = torch.where(present, noise, 1.0)
        covariance.diagonal(dim1=-2, dim2=-1).add_(noise)

        factor, succeeded = cholesky(covariance)
        inverse = inverse_from_factor(factor)
        alpha = torch.bmm(inverse, residual[..., None])
        fit = (residual * alpha[..., 0]).sum(-1)
        log_determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        value = -0.5 * fit - log_determinant - (0.5 * math.log(2 * math.pi)) * count

        pull = torch.baddbmm(inverse, alpha, alpha.mT, beta=-1)
        diagonal = pull.diagonal(dim1=-2, dim2=-1)
        trace = torch.where(present, diagonal, 0.0).sum(-1) if self._padded else diagonal.sum(-1)
        weighted = pull.mul_(slope)
        spread = z * weighted.sum(-1, keepdim=True) - torch.bmm(weighted, z)
        gradient = Hyperparameters(
            lengthscale=(z * spread).sum(1) * (2 * scale[:, None]),
            outputscale=0.5 * (fit - count - natural.noise_variance * trace),
            noise_variance=0.5 * trace,
            mean=alpha.sum((-2, -1)),
        )
        return torch.where(succeeded, value, -torch.inf), gradient

    def _squared_distances(self, z: Float[Tensor, "k n d"]) -> Float[Tensor, "k n n"]:
        if self._nu == 0.5:
            return squared_distances(z, z)
        # Smooth at 0, so rounding of a distance does no harm and the cheaper form is enough.
        gram = torch.bmm(z, z.mT)
        norms = gram.diagonal(dim1=-2, dim2=-1)
        return (norms[:, :, None] + norms[:, None, :]).sub_(gram, alpha=2).clamp_min_(0.0)

"""The Gaussian-process posterior, for every run and hyperparameter draw at once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.backend import Streams
from gpbo.checks import truth_value, whole_number
from gpbo.data import check_finite, numbered, padded
from gpbo.errors import InvalidOption
from gpbo.kernels import check_nu, matern, matern_and_slope, squared_distances
from gpbo.linalg import (
    add_diagonal,
    append_inverse_lower,
    cholesky,
    inverse_lower,
    jittered_cholesky,
    times_lower,
    times_lower_transposed,
)
from gpbo.memory import in_parts
from gpbo.rows import selected

if TYPE_CHECKING:
    from botorch.models.gp_regression import SingleTaskGP

#: The noise variance left where the function is sampled at noisy points, over the outputscale.
_LEAST_NOISE = 1e-6
#: Posterior variances are kept above this fraction of the outputscale, so logarithms are finite.
_VARIANCE_FLOOR = 1e-14


@dataclass(frozen=True, eq=False)
class Surrogate:
    """Posterior of ``y = f(x) + noise``, ``f ~ GP(mean, outputscale * Matern)``, per draw.

    Built by :meth:`condition`. Lower is better everywhere in the engine.

    Attributes:
        x: Observed points in the unit cube; fantasised points follow the real ones.
        y: Observed values per draw (fantasies, and samples in place of noisy values, differ between
            draws).
        mask: Which of the points are present; the others are padding and change nothing.
        eligible: Which of those have a value that may be the best one: fantasies do, hallucinations
            and results that violate a constraint do not.
        lengthscale, outputscale, noise_variance, mean: The hyperparameter draws; for samples,
            ``noise_variance`` is what is left of the noise. If all are samples of one draw, there
            is one entry, also of its factor and ``succeeded``.
        inverse_factor: ``L^-1`` of ``K + noise_variance I = L L'``.
        weights: ``(K + noise_variance I)^-1 (y - mean)``.
        succeeded: Draws with finite hyperparameters whose matrix could be factorised; the others
            return their prior, with 1, or 0 for the mean, in place of what is not finite.
        nu: Smoothness of the Matern kernel.
    """

    x: Float[Tensor, "r n d"]
    y: Float[Tensor, "r s n"]
    mask: Bool[Tensor, "r n"]
    eligible: Bool[Tensor, "r n"]
    lengthscale: Float[Tensor, "r #s d"]
    outputscale: Float[Tensor, "r #s"]
    noise_variance: Float[Tensor, "r #s"]
    mean: Float[Tensor, "r #s"]
    inverse_factor: Float[Tensor, "r #s n n"]
    weights: Float[Tensor, "r s n"]
    succeeded: Bool[Tensor, "r #s"]
    nu: float

    @classmethod
    def condition(
        cls,
        x: Float[Tensor, "r n d"],
        y: Float[Tensor, "r n"],
        mask: Bool[Tensor, "r n"],
        lengthscale: Float[Tensor, "r s d"],
        outputscale: Float[Tensor, "r s"],
        noise_variance: Float[Tensor, "r s"],
        mean: Float[Tensor, "r s"],
        nu: float = 2.5,
        eligible: Bool[Tensor, "r n"] | None = None,
    ) -> "Surrogate":
        """The posterior given observations, one factorisation per draw.

        Args:
            eligible: By default all that the mask keeps.

        Raises:
            InvalidOption: ``nu`` is not 0.5, 1.5 or 2.5.
            InvalidData: Observations that the mask keeps are not finite.
        """
        check_nu(nu)
        check_finite(x, y, mask)
        x = torch.where(mask[..., None], x, 0.5)
        inverse, jitter, succeeded = _inverse_factors(
            x, mask, lengthscale, outputscale, noise_variance, nu, jittered_cholesky
        )
        succeeded = succeeded & torch.isfinite(mean + noise_variance)
        inverse.masked_fill_(~succeeded[..., None, None], 0.0)
        jittered = noise_variance + torch.where(succeeded, jitter, 0.0)
        residual = torch.where(mask[:, None], y[:, None] - mean[..., None], 0.0)
        weights = _solved(inverse, residual)
        return cls(
            x=x,
            y=torch.where(mask, y, 0.0)[:, None].expand_as(residual),
            mask=mask,
            eligible=mask if eligible is None else eligible & mask,
            lengthscale=torch.where(succeeded[..., None], lengthscale, 1.0),
            outputscale=_usable(outputscale, succeeded, 1.0),
            noise_variance=_usable(jittered, succeeded, 1.0),
            mean=_usable(mean, succeeded, 0.0),
            inverse_factor=inverse,
            weights=torch.where(torch.isfinite(weights), weights, 0.0),
            succeeded=succeeded,
            nu=nu,
        )

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return self.lengthscale.shape[0]

    @property
    def draws(self) -> int:
        """How many hyperparameter draws each run has, or samples of one."""
        return self.weights.shape[1]

    @property
    def dim(self) -> int:
        """Dimension of the unit cube."""
        return self.lengthscale.shape[2]

    @property
    def fitted(self) -> Float[Tensor, "r s n"]:
        """The posterior mean at the observed points, ``y - noise_variance * weights``."""
        return self.y - self.noise_variance[..., None] * self.weights

    @property
    def incumbent(self) -> Float[Tensor, "r s"]:
        """The least posterior mean at eligible points, per draw; the mean if there is none."""
        return self.least(self.fitted)

    @property
    def expected(self) -> Float[Tensor, "r n"]:
        """The posterior mean at the points, averaged over the draws that succeeded (all, if none
        did); infinite at points that are not eligible.

        The least of noisy values may be a lucky one.
        """
        return self.averaged(self.fitted)

    def averaged(self, means: Float[Tensor, "r s n"]) -> Float[Tensor, "r n"]:
        """Means per draw averaged over the draws that succeeded, as in `expected`."""
        return torch.where(self.eligible, self.over_draws(means), torch.inf)

    @property
    def counted(self) -> Bool[Tensor, "r s"]:
        """The draws that succeeded; all, if none did."""
        return self.succeeded | ~self.succeeded.any(1, keepdim=True)

    def over_draws(self, values: Float[Tensor, "r s b"]) -> Float[Tensor, "r b"]:
        """The mean over the draws that are counted."""
        counted = self.counted.expand(values.shape[:2])
        total = torch.where(counted[..., None], values, 0.0).sum(1)
        return total / counted.sum(1, keepdim=True)

    @property
    def recommended(self) -> Int[Tensor, " r"]:
        """The number of the observed point where the posterior mean over the draws is least."""
        return self.expected.argmin(-1)

    @property
    def least_observed(self) -> Float[Tensor, "r s"]:
        """The least eligible value, fantasies and samples too, per draw; the mean without any."""
        return self.least(self.y)

    def least(self, values: Float[Tensor, "r s n"]) -> Float[Tensor, "r s"]:
        """The least of these values at eligible points, per draw; the mean if there is none."""
        if not values.shape[-1]:
            return self.mean
        least = torch.where(self.eligible[:, None], values, torch.inf).amin(-1)
        return torch.where(torch.isfinite(least) & self.succeeded, least, self.mean)

    def moments(
        self, candidates: Float[Tensor, "r q d"]
    ) -> tuple[Float[Tensor, "r s q"], Float[Tensor, "r #s q"]]:
        """Mean and variance of the latent function; differentiable by autograd.

        Rasmussen and Williams (2006), equations 2.25 and 2.26.
        """
        mean, variance = self._in_parts(Surrogate._moments_at, candidates)
        return mean, variance

    def _moments_at(
        self, candidates: Float[Tensor, "r q d"]
    ) -> tuple[Float[Tensor, "r s q"], Float[Tensor, "r #s q"]]:
        return self._moments(self._cross_at(_scaled(candidates, self.lengthscale)))[:2]

    def joint(
        self, candidates: Float[Tensor, "r q d"]
    ) -> tuple[Float[Tensor, "r s q"], Float[Tensor, "r #s q q"]]:
        """Mean and covariance of the latent function at all candidates together.

        Rasmussen and Williams (2006), equations 2.23 and 2.24. Up to rounding the covariance is
        positive semidefinite.
        """
        z = _scaled(candidates, self.lengthscale)
        mean, _, whitened = self._moments(self._cross_at(z))
        prior = self.outputscale[..., None, None] * matern(squared_distances(z, z), self.nu)
        return mean, prior - whitened @ whitened.mT

    def means(self, candidates: Float[Tensor, "r q d"]) -> Float[Tensor, "r s q"]:
        """The mean alone, without the variance."""
        return self._in_parts(Surrogate._means_at, candidates)[0]

    def _means_at(self, candidates: Float[Tensor, "r q d"]) -> tuple[Float[Tensor, "r s q"]]:
        return (self._mean(self._cross_at(_scaled(candidates, self.lengthscale))),)

    def mean_of_draw(
        self, draw: Int[Tensor, " r"], candidates: Float[Tensor, "r q d"]
    ) -> Float[Tensor, "r q"]:
        """The mean of the latent function for one draw of each run, without the variance."""
        own = torch.arange(self.runs, device=draw.device), draw
        lengthscale, mean = self.lengthscale[own][:, None], self.mean[own][:, None]
        # The weights of absent points are 0.
        weights = self.outputscale[own][:, None] * self.weights[own]
        observed = (self.x - 0.5) / lengthscale

        def part(rows: slice, columns: slice) -> tuple[Tensor, ...]:
            z = (candidates[rows, columns] - 0.5) / lengthscale[rows]
            correlation = matern(squared_distances(z, observed[rows]), self.nu)
            return (mean[rows] + (correlation @ weights[rows, :, None])[..., 0],)

        size = max(self.x.shape[1:]) * candidates.element_size()
        points = candidates.shape[1]
        return in_parts(part, self.runs, points, size, candidates.device)[0]

    def moments_and_gradients(
        self, candidates: Float[Tensor, "r q d"]
    ) -> tuple[
        Float[Tensor, "r s q"],
        Float[Tensor, "r #s q"],
        Float[Tensor, "r s q d"],
        Float[Tensor, "r #s q d"],
    ]:
        """Mean, variance and their closed-form gradients with respect to the candidates.

        With ``k = a R(q)`` and ``dk_i/dx = -2 a R'(q_i) (z_i - z) / lengthscale``, a sum of such
        terms over the observations is one product with ``z``.
        """
        mean, variance, mean_gradient, variance_gradient = self._in_parts(
            Surrogate._moments_and_gradients_at, candidates
        )
        return mean, variance, mean_gradient, variance_gradient

    def _moments_and_gradients_at(
        self, candidates: Float[Tensor, "r q d"]
    ) -> tuple[
        Float[Tensor, "r s q"],
        Float[Tensor, "r #s q"],
        Float[Tensor, "r s q d"],
        Float[Tensor, "r #s q d"],
    ]:
        z, z_observed = _scaled(candidates, self.lengthscale), self._z()
        correlation, slope = matern_and_slope(squared_distances(z, z_observed), self.nu)
        mean, variance, whitened = self._moments(self._cross(correlation))
        slope = self._cross(slope)
        inverse_lengthscale = 1 / self.lengthscale[:, :, None]
        ends = torch.cat([torch.ones_like(z_observed[..., :1]), z_observed], -1)
        sums = _times(slope, ends * self.weights[..., None])
        mean_gradient = -2 * (sums[..., :1] * z - sums[..., 1:]) * inverse_lengthscale
        coefficients = slope * times_lower(whitened, self.inverse_factor)
        pull = coefficients.sum(-1, keepdim=True) * z - coefficients @ z_observed
        variance_gradient = 4 * pull * inverse_lengthscale
        floored = variance <= _VARIANCE_FLOOR * self.outputscale[..., None]
        return mean, variance, mean_gradient, variance_gradient.masked_fill(floored[..., None], 0.0)

    def fantasize(
        self,
        pending: Float[Tensor, "r m d"],
        pending_mask: Bool[Tensor, "r m"],
        streams: Streams,
        eligible: Bool[Tensor, "r m"] | None = None,
    ) -> "Surrogate":
        """Condition every draw on its own sample of what the pending points will return.

        One fantasy per hyperparameter draw (Snoek, Larochelle and Adams 2012). The sample is of
        the noisy observation, jointly over the pending points, and it costs no solve: with the
        factor bordered by the pending rows, the whitened residual of a sample *is* the standard
        normal vector it was made from.

        The numbers that a point gets depend on the number of columns: a run proposes what it would
        propose alone if all runs of a batch have equally many pending points.

        Args:
            eligible: Which of them may be the best one; by default all.
        """
        sampled = streams.normal(self.draws, pending.shape[1])
        eligible = pending_mask if eligible is None else pending_mask & eligible
        return self._bordered(pending, pending_mask, sampled, eligible)

    def hallucinate(
        self, pending: Float[Tensor, "r m d"], pending_mask: Bool[Tensor, "r m"]
    ) -> "Surrogate":
        """Condition on pending points returning what is expected: the mean stays as it is.

        Only the variance changes, which does not depend on the values (Desautels, Krause and
        Burdick 2014, JMLR 15). The points are not eligible: others need not improve on them.
        """
        expected = pending.new_zeros(self.runs, self.draws, pending.shape[1])
        return self._bordered(pending, pending_mask, expected, torch.zeros_like(pending_mask))

    def of_draws(self, draws: Int[Tensor, " j"] | slice) -> "Surrogate":
        """The posterior of these draws, by number; with a slice nothing is copied."""

        def of(values: Tensor) -> Tensor:
            return values if values.shape[1] < self.draws else values[:, draws]

        return replace(
            self,
            y=of(self.y),
            lengthscale=of(self.lengthscale),
            outputscale=of(self.outputscale),
            noise_variance=of(self.noise_variance),
            mean=of(self.mean),
            inverse_factor=of(self.inverse_factor),
            weights=of(self.weights),
            succeeded=of(self.succeeded),
        )

    def sampled(self, streams: Streams, times: int = 1, noisy: float = 0.0) -> "Surrogate":
        """Condition on a sample of the function at the points instead of their noisy values.

        There is one sample per hyperparameter draw, or ``times`` of the only one; each is then a
        draw. By Matheron's rule, with ``h`` from the prior and ``e`` from the noise,
        ``f = y - e - noise_variance (K + noise_variance I)^-1 (y - mean - h - e)`` (Wilson et al.
        2020, "Efficiently sampling functions from Gaussian process posteriors", ICML, equation 8,
        at the points themselves). Noise of variance 1e-6 of the outputscale is left, so that
        matrices of close points can be factorised. Draws stay as they are if they have no more
        noise than that, or a standard deviation below ``noisy``, or if their matrix still cannot be
        factorised.
        """
        drawn = self.noise_variance >= noisy**2
        drawn = drawn & (self.noise_variance > _LEAST_NOISE * self.outputscale)
        if not bool(drawn.any()):
            return self
        kept, inverse, succeeded = self._almost_exact
        drawn = drawn & succeeded & self.succeeded
        kept = torch.where(drawn, kept, self.noise_variance)
        inverse = torch.where(drawn[..., None, None], inverse, self.inverse_factor)
        excess = (self.noise_variance - kept)[..., None]
        there, mean = self.mask[:, None], self.mean[..., None]
        normals = streams.first_normals(self.x.shape[1], 2, times * self.draws)
        # Absent points may lie between the others: numbers go by the points present.
        order = numbered(self.mask)[..., None, None]
        white, noise = normals.gather(1, order.expand_as(normals)).permute(2, 0, 3, 1)
        of_factors = white.unflatten(1, (inverse.shape[1], -1))  # a shared factor is not copied
        # The factor times white noise, by a solve with its inverse.
        prior = torch.linalg.solve_triangular(inverse, of_factors.mT, upper=False).mT.flatten(1, 2)
        less_noise = self.y - excess.sqrt() * noise
        residual = torch.where(there, less_noise - mean, 0.0) - prior
        values = less_noise - excess * _solved(self.inverse_factor, residual)
        values = torch.where(there & drawn[..., None], values, self.y)
        weights = _solved(inverse, torch.where(there, values - mean, 0.0))
        return replace(self, y=values, noise_variance=kept, inverse_factor=inverse, weights=weights)

    @cached_property
    def _almost_exact(
        self,
    ) -> tuple[Float[Tensor, "r s"], Float[Tensor, "r s n n"], Bool[Tensor, "r s"]]:
        """The noise variance that is left in samples, the inverse factor with it, and which draws
        have one; cached for the points of a batch.
        """
        kept = torch.minimum(_LEAST_NOISE * self.outputscale, self.noise_variance)
        inverse, succeeded = _inverse_factors(
            self.x, self.mask, self.lengthscale, self.outputscale, kept, self.nu, cholesky
        )
        return kept, inverse, succeeded

    def _bordered(
        self,
        pending: Float[Tensor, "r m d"],
        pending_mask: Bool[Tensor, "r m"],
        whitened: Float[Tensor, "r s m"],
        eligible: Bool[Tensor, "r m"],
    ) -> "Surrogate":
        """Conditioned on pending points too, with these whitened residuals.

        They are padded like results, so that a batch, whose points become pending one after
        another, makes few shapes on a GPU.
        """
        if pending.shape[1] == 0:
            return self
        pending, pending_mask, eligible, whitened = padded(
            pending, pending_mask, eligible, whitened
        )
        pending = torch.where(pending_mask[..., None], pending, 0.5)
        z, z_pending = self._z(), _scaled(pending, self.lengthscale)
        present = pending_mask[:, None, :, None]
        cross = self._cross(matern(squared_distances(z_pending, z), self.nu)) * present
        prior = self.outputscale[..., None, None] * matern(
            squared_distances(z_pending, z_pending), self.nu
        )
        corner = add_diagonal(
            prior * present * present.mT,
            torch.where(pending_mask[:, None], self.noise_variance[..., None], 1.0),
        )
        inverse = append_inverse_lower(self.inverse_factor, cross, corner)
        whitened = torch.where(pending_mask[:, None], whitened, 0.0)
        residual = torch.where(self.mask[:, None], self.y - self.mean[..., None], 0.0)
        whitened = torch.cat([_apply(self.inverse_factor, residual), whitened], dim=-1)
        weights = _apply(inverse.mT, whitened)
        # At all known points, ``y = mean + (K + noise_variance I) weights``.
        values = self.mean[..., None] + _apply(torch.cat([cross, corner], dim=-1), weights)
        return replace(
            self,
            x=torch.cat([self.x, pending], dim=1),
            y=torch.cat([self.y, torch.where(pending_mask[:, None], values, 0.0)], dim=-1),
            mask=torch.cat([self.mask, pending_mask], dim=1),
            eligible=torch.cat([self.eligible, eligible], dim=1),
            inverse_factor=inverse,
            weights=weights,
        )

    def to_botorch(self, run: int = 0, *, ensemble: bool = False) -> "SingleTaskGP":
        """Run ``run`` as a BoTorch model with a batch axis of draws, ``posterior(x).mean[s,q,1]``.

        The model is a ``SingleTaskGP`` with the hyperparameters set, on this surrogate's scale
        (lower is better). BoTorch's acquisition functions work on it draw by draw: for points
        ``x[b,d]``, an analytic one with ``best_f=surrogate.incumbent[run][:, None]`` takes
        ``x[:, None, None]`` and gives ``[b,s]``.

        Args:
            run: Which run.
            ensemble: Have BoTorch average over the draws, as it does for its own fully Bayesian
                models: its acquisition functions then take ``x[b,q,d]`` and give ``[b]``, and
                ``optimize_acqf`` finds their maximum. An analytic one has the same ``best_f``, a
                Monte Carlo one, which maximises, ``best_f=-surrogate.incumbent[run]`` and an
                objective or a posterior transform that negates.

        Raises:
            InvalidOption: there is no such run, or ``ensemble`` is neither True nor False.
        """
        from gpbo.bridge import surrogate_to_botorch

        truth_value("ensemble", ensemble)
        if whole_number("run", run, least=0) >= self.runs:
            raise InvalidOption(f"run={run!r}: expected a number below {self.runs}")
        return surrogate_to_botorch(self, run, ensemble=ensemble)

    def _in_parts(
        self,
        evaluate: Callable[["Surrogate", Float[Tensor, "r q d"]], tuple[Tensor, ...]],
        candidates: Float[Tensor, "r q d"],
    ) -> tuple[Tensor, ...]:
        """The function's results for the candidates, in parts that fit the memory budget.

        Draws are divided first, and candidates only if one draw does not fit: every part of the
        candidates reads the matrices of all its draws again.
        """
        bytes_each = max(self.x.shape[1], self.dim) * candidates.element_size()
        points, device = candidates.shape[1], candidates.device
        factors = self.inverse_factor.shape[1]

        def of_draws(runs: slice, draws: slice) -> tuple[Tensor, ...]:
            some, own = self._of_runs(runs), candidates[runs]
            if factors == self.draws:
                some = some.of_draws(draws)

            def of_candidates(rows: slice, columns: slice) -> tuple[Tensor, ...]:
                return evaluate(some._of_runs(rows), own[rows, columns])

            each = some.inverse_factor.shape[1] * bytes_each
            return in_parts(of_candidates, some.runs, points, each, device, axis=2)

        return in_parts(of_draws, self.runs, factors, points * bytes_each, device)

    def _of_runs(self, runs: slice) -> "Surrogate":
        """The posterior of these runs; nothing is copied."""
        return self if runs == slice(None) else selected(self, runs)

    def _z(self) -> Float[Tensor, "r s n d"]:
        return _scaled(self.x, self.lengthscale)

    def _cross_at(self, z: Float[Tensor, "r #s q d"]) -> Float[Tensor, "r #s q n"]:
        """The covariances of scaled points with the observed ones."""
        return self._cross(matern(squared_distances(z, self._z()), self.nu))

    def _cross(self, correlation: Float[Tensor, "r s q n"]) -> Float[Tensor, "r s q n"]:
        return correlation * (self.outputscale[..., None] * self.mask[:, None])[:, :, None]

    def _mean(self, cross: Float[Tensor, "r #s q n"]) -> Float[Tensor, "r s q"]:
        return self.mean[..., None] + _apply(cross, self.weights)

    def _moments(
        self, cross: Float[Tensor, "r #s q n"]
    ) -> tuple[Float[Tensor, "r s q"], Float[Tensor, "r #s q"], Float[Tensor, "r #s q n"]]:
        mean = self._mean(cross)
        whitened = times_lower_transposed(cross, self.inverse_factor)
        prior = self.outputscale[..., None]
        variance = torch.maximum(prior - whitened.square().sum(-1), _VARIANCE_FLOOR * prior)
        return mean, variance, whitened


def _covariance(
    x: Float[Tensor, "r n d"],
    mask: Bool[Tensor, "r n"],
    lengthscale: Float[Tensor, "r s d"],
    outputscale: Float[Tensor, "r s"],
    noise_variance: Float[Tensor, "r s"],
    nu: float,
) -> Float[Tensor, "r s n n"]:
    """The covariance of noisy observations; the row of an absent one has a diagonal entry only.

    That entry equals those of the others, so that padding does not change their jitter.
    """
    z = _scaled(x, lengthscale)
    both = mask[:, None, :, None] & mask[:, None, None, :]
    prior = outputscale[..., None, None] * matern(squared_distances(z, z), nu) * both
    absent = outputscale[..., None] * ~mask[:, None]
    return add_diagonal(prior, noise_variance[..., None] + absent)


def _inverse_factors(
    x: Float[Tensor, "r n d"],
    mask: Bool[Tensor, "r n"],
    lengthscale: Float[Tensor, "r s d"],
    outputscale: Float[Tensor, "r s"],
    noise_variance: Float[Tensor, "r s"],
    nu: float,
    factorise: Callable[[Tensor], tuple[Tensor, ...]],
) -> tuple[Tensor, ...]:
    """Inverses of the factors of these covariances, and what else ``factorise`` returns."""

    def of_part(runs: slice, draws: slice) -> tuple[Tensor, ...]:
        some = runs, draws
        own = lengthscale[some], outputscale[some], noise_variance[some]
        factor, *told = factorise(_covariance(x[runs], mask[runs], *own, nu))
        return inverse_lower(factor), *told

    runs, draws = outputscale.shape
    return in_parts(of_part, runs, draws, x.shape[1] ** 2 * x.element_size(), x.device)


def _usable(
    values: Float[Tensor, "r s"], succeeded: Bool[Tensor, "r s"], standard: float
) -> Float[Tensor, "r s"]:
    """``values``, with ``standard`` in place of what is not finite in failed draws."""
    return torch.where(succeeded | torch.isfinite(values), values, standard)


def _scaled(
    x: Float[Tensor, "r q d"], lengthscale: Float[Tensor, "r s d"]
) -> Float[Tensor, "r s q d"]:
    """Points in units of the lengthscales, about the centre of the cube."""
    return (x[:, None] - 0.5) / lengthscale[:, :, None]


def _apply(
    matrix: Float[Tensor, "r #s m n"], vector: Float[Tensor, "r s n"]
) -> Float[Tensor, "r s m"]:
    return _times(matrix, vector[..., None])[..., 0]


def _times(
    matrix: Float[Tensor, "r #s m n"], columns: Float[Tensor, "r #s n k"]
) -> Float[Tensor, "r #s m k"]:
    """The product for every draw; a single one if all draws share the matrix."""
    if matrix.shape[1] > 1:
        return matrix @ columns
    product = matrix[:, 0] @ columns.transpose(1, 2).flatten(2)
    return product.unflatten(-1, (columns.shape[1], -1)).transpose(1, 2)


def _solved(
    inverse_factor: Float[Tensor, "r #s n n"], vector: Float[Tensor, "r s n"]
) -> Float[Tensor, "r s n"]:
    """``A^-1`` times the vector, from ``L^-1`` of ``A = L L'``."""
    return _apply(inverse_factor.mT, _apply(inverse_factor, vector))

"""Inference of hyperparameters given observations: draws from their posterior, or its mode."""

import warnings
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from gpbo.ascent import maximize
from gpbo.backend import DTYPE, Streams, settings_for
from gpbo.checks import check_tensor, whole_number
from gpbo.errors import InvalidData, InvalidOption
from gpbo.evidence import LogPosterior, Model, resolve_model
from gpbo.hyperparameters import NAMES
from gpbo.mcmc.adaptation import fisher_scale
from gpbo.mcmc.annealing import anneal
from gpbo.mcmc.diagnostics import bulk_ess, rank_rhat, tail_ess
from gpbo.mcmc.sampling import Draws, Kernel, Schedule, Warmth, sample
from gpbo.units import centred

#: Particles that are annealed per chain of a cold start: all of them tell the mass matrix, and the
#: weight of each mode.
_PARTICLES = 2
_CHAINS = 16
#: More results than this are many. A factorisation takes time in proportion to the cube of their
#: number, and about this many show where the modes are: a cold start uses no more.
MANY = 200
#: Or this share of them, if that is more: the posterior given an eighth was too far from that given
#: all.
_LEAST_SHARE = 0.25
#: Transitions that settle the step size at the start of a sampling.
_SETTLE = 8
#: Prior draws from which each start of a mode search takes the best: dispersed, but not absurd.
_CANDIDATES = 8
#: A chain is stuck if it ends with a log density this plus the dimension below the best chain's.
_STUCK = 20.0
#: Coordinates may leave the unit cube by a rounding of single precision.
_ROUNDING = 1e-6
#: R-hat and ESS are not reported for chains with fewer draws from the present posterior.
_FEWEST = 12
#: Values were not standardised if their mean is farther from 0, or their standard deviation greater
#: than the second number or less than its inverse.
_FAR_FROM_ZERO, _FAR_FROM_ONE = 3.0, 10.0
#: Starts of the mode search.
_MODE_STARTS = 8
#: Its box in the unconstrained coordinates, wide enough for any sensible prior.
_MODE_BOUNDS = (-20.0, 20.0)
#: Climbs whose log densities end this close have found the same mode.
_SAME_MODE = 1e-3


@dataclass(frozen=True, eq=False)
class SamplerInfo:
    """How the sampling went, per run; the worst over the hyperparameters.

    Attributes:
        rhat: Rank-normalised split R-hat; 1 at convergence.
        ess_bulk: Effective sample size for means, over all chains.
        ess_tail: Effective sample size for the 5 % and 95 % quantiles.
        divergences: Transitions that ended in a divergence.
        depth_saturation: Fraction of the transitions that were cut off at the maximal depth.
        acceptance: Mean acceptance probability.
        leapfrog_steps: Leapfrog steps per chain, warm-up included.
        transitions: Transitions kept per chain.
    """

    rhat: Float[Tensor, "r"]
    ess_bulk: Float[Tensor, "r"]
    ess_tail: Float[Tensor, "r"]
    divergences: Float[Tensor, "r"]
    depth_saturation: Float[Tensor, "r"]
    acceptance: Float[Tensor, "r"]
    leapfrog_steps: Float[Tensor, "r"]
    transitions: int


@dataclass(frozen=True, eq=False)
class HyperparameterDraws:
    """Draws of a GP's hyperparameters, all chains of a run in one axis.

    Attributes:
        lengthscale: In units of the cube.
        outputscale: Variance of the latent function, on the scale of ``y`` squared.
        noise_variance: Variance of the observation noise, on the same scale.
        mean: Constant mean of the process.
        unconstrained: The same in the coordinates that were sampled; see `gpbo.hyperparameters`.
        chains: Chains of a run; the draws of a chain are adjacent. 1 if some chains have more draws
            than others.
        info: Diagnostics of the sampling, per run: ``rhat``, ``ess_bulk``, ``ess_tail``,
            ``divergences``, ``depth_saturation`` and ``leapfrog_steps`` as in `gpbo.FitReport`, and
            ``acceptance``, the mean acceptance probability.
        warmth: What the next sampling can start from.
        continuations: For how many samplings after the first one the chains have continued.
    """

    lengthscale: Float[Tensor, "r s d"]
    outputscale: Float[Tensor, "r s"]
    noise_variance: Float[Tensor, "r s"]
    mean: Float[Tensor, "r s"]
    unconstrained: Float[Tensor, "r s p"]
    chains: int
    info: SamplerInfo
    warmth: Warmth
    continuations: int = 0

    def last(self, count: int) -> "HyperparameterDraws":
        """``count`` draws per run, or as many as there are: the latest of every chain, evenly.

        Raises:
            InvalidOption: ``count`` is not a whole number, 1 or more.
        """
        count = whole_number("count", count, least=1)
        length = self.mean.shape[1] // self.chains
        per_chain = -(-count // self.chains)
        index = torch.arange(self.mean.shape[1], device="cpu").reshape(self.chains, length)
        stride = max(length // per_chain, 1)
        latest = index.flip(1)[:, ::stride][:, :per_chain].T.flatten()[:count]
        # Sorted, so that the draws of a chain stay adjacent.
        kept = latest.sort().values.to(self.mean.device)
        names = (*NAMES, "unconstrained")
        parts = {name: getattr(self, name)[:, kept] for name in names}
        chains = min(self.chains, count)
        return replace(self, chains=chains if len(kept) % chains == 0 else 1, **parts)


def sample_hyperparameters(
    x: Shaped[Tensor, "..."],
    y: Shaped[Tensor, "..."],
    *,
    mask: Bool[Tensor, "..."] | None = None,
    chains: int | None = None,
    draws: int = 24,
    warmup: int | None = None,
    start: HyperparameterDraws | None = None,
    kernel: Kernel = "hmc",
    seed: int = 0,
    model: Model | None = None,
) -> HyperparameterDraws:
    """Draw a GP's hyperparameters from their posterior, for all runs at once.

    Chains start cold from a sequential Monte Carlo sampler (`gpbo.mcmc.annealing`), so that they
    begin in each mode of a posterior in proportion to its mass, and continue by Hamiltonian Monte
    Carlo. Chains that stay in different modes show as a large R-hat. With more than 200 results,
    where chains start is decided by about 200 of them, or a quarter if that is more, spread evenly
    over all.

    Args:
        x: Points in the unit cube, ``[n,d]`` or ``[r,n,d]``.
        y: Values, standardised to mean 0 and variance 1, ``[n]`` or ``[r,n]``; values far from that
            give a warning, as the priors are not meant for them.
        mask: Which of the points are present; by default all.
        chains: Chains of a run; by default 16, or as many as ``start`` has.
        draws: Transitions kept per chain, so that ``s = chains * draws``.
        warmup: Transitions of a chain before those, to settle the step size; by default 8. After a
            cold start, the first third of 24 or more adapts the mass matrix, too.
        start: Draws for similar data, such as the same with one observation less: their chains
            continue, with their step size and mass matrix, and hardly need a warm-up.
        kernel: ``"hmc"``, trajectories of four to six leapfrog steps, or ``"nuts"``, trajectories
            that adapt their length: slower here, and never too short.
        seed: The seed of all runs, 0 or more; what a run draws does not depend on the others.
        model: Kernel and priors; by default Matern-5/2 with dimension-scaled priors.

    Returns:
        The draws, on ``x``'s device, with a leading axis of runs, which is 1 for ``[n,d]``.

    Raises:
        InvalidData: Not tensors of real numbers on one device, shapes do not fit, points are not in
            the unit cube, or numbers that the mask keeps are not finite.
        InvalidOption: A number of chains, draws or transitions is out of range, there is no such
            kernel, the prior fixes every hyperparameter, or ``start`` is of other data.
    """
    x, y, mask = _batched(x, y, mask)
    log_posterior = resolve_model(model).log_posterior(x, y, mask)
    if not log_posterior.parametrization.size:
        raise InvalidOption(
            f"model={model!r}: expected a prior that leaves a hyperparameter to sample, "
            "and this one fixes all of them"
        )
    if not isinstance(start, HyperparameterDraws | None):
        raise InvalidOption(f"start={start!r}: expected gpbo.HyperparameterDraws, or None")
    for name, number, least in (("chains", chains, 1), ("warmup", warmup, 0)):
        if number is not None:
            whole_number(name, number, least=least)
    draws, seed = whole_number("draws", draws, least=1), whole_number("seed", seed, least=0)
    # A continuation must not reuse the random numbers that brought its chains here.
    continuations = 0 if start is None else start.continuations + 1
    streams = Streams.named(seed, "nuts", continuations, runs=x.shape[0], device=x.device)
    schedule = schedule_for(warmup, draws, cold=start is None, kernel=kernel)
    warmth = None if start is None else replace(start.warmth, gradient=None)
    if chains is None:
        chains = _CHAINS if warmth is None else warmth.position.shape[1]
    with settings_for(x.device):
        found = draw(log_posterior, streams, schedule, chains=chains, warmth=warmth)
    return diagnosed(replace(found, continuations=continuations), by_chain(found))


def _batched(
    x: Shaped[Tensor, "..."], y: Shaped[Tensor, "..."], mask: Bool[Tensor, "..."] | None
) -> tuple[Float[Tensor, "r n d"], Float[Tensor, "r n"], Bool[Tensor, "r n"]]:
    """The given data with an axis of runs, in double precision and with a mask.

    Raises:
        InvalidData: Not tensors of real numbers on one device, shapes do not fit, or points are not
            in the unit cube.
    """
    for name, given in (("x", x), ("y", y)):
        check_tensor(name, given)
    mask = torch.ones_like(y, dtype=torch.bool) if mask is None else mask
    check_tensor("mask", mask)
    if mask.dtype != torch.bool:
        raise InvalidData(f"mask has dtype {mask.dtype}: expected torch.bool")
    if len({x.device, y.device, mask.device}) > 1:
        raise InvalidData(
            f"x is on {x.device}, y on {y.device}, mask on {mask.device}: expected one device"
        )
    if x.ndim == 2:
        x, y, mask = x[None], y[None], mask[None]
    fits = x.ndim == 3 and y.shape == x.shape[:2] == mask.shape and x.shape[0] and x.shape[2]
    if not fits:
        raise InvalidData(
            f"x{list(x.shape)}, y{list(y.shape)}, mask{list(mask.shape)}: expected x[r,n,d] with "
            "y[r,n] and mask[r,n], or x[n,d] with y[n] and mask[n], with at least one run and one "
            "dimension"
        )
    x, y = x.to(DTYPE), y.to(DTYPE)
    outside = x[mask & x.isfinite().all(-1) & ((x < -_ROUNDING) | (x > 1 + _ROUNDING)).any(-1)]
    if len(outside):
        low, high = float(outside.min()), float(outside.max())
        raise InvalidData(f"x has coordinates from {low:g} to {high:g}: expected 0 to 1")
    _warn_unless_standardised(y, mask)
    return x, y, mask


def _warn_unless_standardised(y: Float[Tensor, "r n"], mask: Bool[Tensor, "r n"]) -> None:
    """Warn the caller of `sample_hyperparameters` of values that the priors are not meant for."""
    _, mean, deviation = centred(y, mask)
    # The deviation of equal values is a rounding error of their mean, and says nothing.
    deviation = deviation[deviation > y.shape[1] * torch.finfo(DTYPE).eps * mean.abs()]
    scaled = (deviation > _FAR_FROM_ONE) | (deviation < 1 / _FAR_FROM_ONE)
    if bool((mean.abs() > _FAR_FROM_ZERO).any() | scaled.any()):
        spread = "no spread"
        if len(deviation):
            least, most = float(deviation.min()), float(deviation.max())
            spread = f"standard deviations from {least:g} to {most:g}"
        warnings.warn(
            f"y has means up to {float(mean.abs().max()):g} and {spread}: the priors are meant for "
            "values with a mean near 0 and a variance near 1; standardise y in each run",
            stacklevel=4,
        )


def schedule_for(warmup: int | None, draws: int, *, cold: bool, kernel: Kernel = "hmc") -> Schedule:
    """The phases of ``warmup`` transitions and ``draws`` kept ones.

    Raises:
        InvalidOption: ``warmup`` is negative, ``draws`` not positive, or there is no such kernel.
    """
    warmup = _SETTLE if warmup is None else warmup
    windows = (warmup // 3,) if cold and warmup >= 3 * _SETTLE else ()
    return Schedule(windows, warmup - sum(windows), draws, kernel)


def draw(
    log_posterior: LogPosterior,
    streams: Streams,
    schedule: Schedule,
    *,
    chains: int,
    warmth: Warmth | None,
) -> HyperparameterDraws:
    """Draws from a posterior, from ``warmth`` or cold; R-hat and ESS are left to `diagnosed`.

    Raises:
        InvalidOption: ``warmth`` is of other runs, chains or hyperparameters.
    """
    if warmth is None:
        start, steps = cold_start(log_posterior, streams, chains)
    else:
        start, steps = warmth, torch.zeros_like(warmth.step_size)
        expected = (log_posterior.runs, chains, log_posterior.parametrization.size)
        if start.position.shape != expected:
            has = "{} runs, {} chains and {} coordinates".format(*start.position.shape)
            raise InvalidOption("start has {}: expected {}, {} and {}".format(has, *expected))
    drawn = sample(log_posterior, start, schedule, streams)
    drawn = replace(drawn, warmup_steps=drawn.warmup_steps + steps)
    return constrained(log_posterior, replace(drawn, warmth=_without_stuck(drawn.warmth)))


def resting(log_posterior: LogPosterior, warmth: Warmth, count: int) -> HyperparameterDraws:
    """Draws of chains that stay where they are: each position ``count`` times."""
    position = warmth.position[:, :, None].expand(-1, -1, count, -1)
    none = torch.zeros_like(position[..., 0])
    value = warmth.value[..., None].expand_as(none)
    stayed = Draws(position, value, none, none, none, none, warmth, none[:, 0, 0])
    return constrained(log_posterior, stayed)


def cold_start(
    log_posterior: LogPosterior, streams: Streams, chains: int
) -> tuple[Warmth, Float[Tensor, "r"]]:
    """Chains brought from the prior to the posterior, and the leapfrog steps that this took.

    With many results, it is the posterior given some of them, at a fraction of the price: it is
    wider than that given all, which the transitions that follow soon reach from there. The mass
    matrix is estimated for all results: if ``S`` is the covariance of the particles and ``P`` the
    precision of a normal density, its gradients at the particles have the covariance ``P S P``,
    from which `fisher_scale` finds ``P``.
    """
    prior = log_posterior.parametrization.sample(streams, chains * _PARTICLES)
    annealed = log_posterior.thinned(MANY, _LEAST_SHARE)
    warmth, steps = anneal(annealed, prior, streams)
    some = annealed.counts < log_posterior.counts
    if bool(some.any()):
        value, gradient = evaluated(log_posterior, warmth.position)
        scale = fisher_scale(warmth.position[:, None], gradient[:, None])
        scale = torch.where(some[:, None, None], scale, warmth.scale)
        warmth = replace(warmth, value=value, gradient=gradient, scale=scale)
    # Particles with a common ancestor are adjacent, so every second one is taken.
    own = torch.arange(0, prior.shape[1], _PARTICLES, device=prior.device)
    return warmth.of_chains(own.expand(log_posterior.runs, -1)), steps


def evaluated(
    log_posterior: LogPosterior, position: Float[Tensor, "r c p"]
) -> tuple[Float[Tensor, "r c"], Float[Tensor, "r c p"]]:
    """Log density and gradient at the positions of every run's chains."""
    value, gradient = log_posterior(position.flatten(0, 1))
    return value.reshape(position.shape[:2]), gradient.reshape(position.shape)


def _without_stuck(warmth: Warmth) -> Warmth:
    """What to continue from: chains that ended where there is no mass move to the run's best one.

    A new observation that contradicts all earlier ones can lower a chain's log density by hundreds.
    From there it moves faster than its step size can follow, and may end where no covariance can be
    factorised: it would stay there in every later fit.
    """
    value = warmth.value.nan_to_num(nan=-torch.inf)
    best, chain = value.max(-1, keepdim=True)
    # Among draws from the posterior the log density varies by about the square root of p.
    stuck = value < best - (_STUCK + warmth.position.shape[2])
    own = torch.arange(value.shape[1], device=value.device)
    return replace(warmth, value=value).of_chains(torch.where(stuck, chain, own))


def constrained(log_posterior: LogPosterior, draws: Draws) -> HyperparameterDraws:
    """The natural values of unconstrained draws; R-hat and ESS are left to `diagnosed`."""
    runs, chains, transitions, dim = draws.position.shape
    natural = log_posterior.parametrization.constrain(draws.position.reshape(-1, dim))
    unknown = torch.full_like(draws.warmup_steps, torch.nan)
    info = SamplerInfo(
        rhat=unknown,
        ess_bulk=unknown,
        ess_tail=unknown,
        divergences=draws.diverged.sum((1, 2)),
        depth_saturation=draws.saturated.mean((1, 2)),
        acceptance=draws.acceptance.mean((1, 2)),
        leapfrog_steps=draws.warmup_steps + draws.steps.sum(-1).mean(-1),
        transitions=transitions,
    )
    return HyperparameterDraws(
        lengthscale=natural.lengthscale.reshape(runs, chains * transitions, -1),
        outputscale=natural.outputscale.reshape(runs, -1),
        noise_variance=natural.noise_variance.reshape(runs, -1),
        mean=natural.mean.reshape(runs, -1),
        unconstrained=draws.position.flatten(1, 2),
        chains=chains,
        info=info,
        warmth=draws.warmth,
    )


def by_chain(draws: HyperparameterDraws) -> Float[Tensor, "r c t p"]:
    """The unconstrained draws of every chain."""
    return draws.unconstrained.unflatten(1, (draws.chains, -1))


def diagnosed(
    draws: HyperparameterDraws, position: Float[Tensor, "r c t p"]
) -> HyperparameterDraws:
    """The draws with R-hat and ESS of these positions of their chains."""
    rhat, ess_bulk, ess_tail = convergence(position)
    return replace(draws, info=replace(draws.info, rhat=rhat, ess_bulk=ess_bulk, ess_tail=ess_tail))


def convergence(
    position: Float[Tensor, "r c t p"],
) -> tuple[Float[Tensor, "r"], Float[Tensor, "r"], Float[Tensor, "r"]]:
    """R-hat, bulk and tail effective sample size of draws, the worst over the coordinates.

    Of the draws after the last one that is not finite in all chains; NaN if these are fewer than a
    dozen, unless they are all that there are.
    """
    finite = position.isfinite().all(-1).all(1)
    lengths = finite.flip(-1).long().cumprod(-1).sum(-1)
    found = position.new_full((3, position.shape[0]), torch.nan)
    for length in lengths.unique().tolist():
        if length >= min(_FEWEST, position.shape[2]):
            rows = torch.nonzero(lengths == length)[:, 0]
            by_coordinate = position[rows, :, -length:].permute(0, 3, 1, 2)
            found[0, rows] = rank_rhat(by_coordinate).amax(-1)
            found[1, rows] = bulk_ess(by_coordinate).amin(-1)
            found[2, rows] = tail_ess(by_coordinate).amin(-1)
    rhat, ess_bulk, ess_tail = found
    return rhat, ess_bulk, ess_tail


def mode(log_posterior: LogPosterior, streams: Streams) -> Float[Tensor, "r p"]:
    """The best mode of every run's posterior found from several starts.

    It is the mode of the density in the unconstrained coordinates, from which draws are made too.
    With many results, modes are found given some of them, as in `cold_start`; climbs then continue
    from these given all.
    """
    if not log_posterior.parametrization.size:
        device = log_posterior.parametrization.device
        return torch.zeros(log_posterior.runs, 0, dtype=DTYPE, device=device)
    some = log_posterior.thinned(MANY, _LEAST_SHARE)
    value, points = _climbed(some, promising_starts(some, streams, _MODE_STARTS))
    if some is not log_posterior:
        value, points = _climbed(log_posterior, _without_repeats(value, points))
    best = value.nan_to_num(nan=-torch.inf).argmax(-1)
    return points[torch.arange(len(points), device=points.device), best]


def _climbed(
    log_posterior: LogPosterior, start: Float[Tensor, "r b p"]
) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b p"]]:
    """The modes that are reached from these starts, and their log densities."""
    lower, upper = _MODE_BOUNDS
    runs = len(start)
    found = maximize(
        log_posterior, start.flatten(0, 1), lower, upper, iterations=200, history=12, runs=runs
    )
    return found.value.view(runs, -1), found.x.view_as(start)


def _without_repeats(
    value: Float[Tensor, "r b"], points: Float[Tensor, "r b p"]
) -> Float[Tensor, "r b p"]:
    """The modes, best first; a repeated one is replaced by NaN, from which no climb starts."""
    value, order = value.sort(descending=True)
    points = points.take_along_dim(order[..., None], 1)
    repeated = torch.zeros_like(value, dtype=torch.bool)
    repeated[:, 1:] = value[:, :-1] - value[:, 1:] < _SAME_MODE
    return points.masked_fill(repeated[..., None], torch.nan)


def promising_starts(
    log_posterior: LogPosterior, streams: Streams, count: int
) -> Float[Tensor, "r b p"]:
    """Starts, each the best of a few draws from the prior."""
    runs = log_posterior.runs
    prior = log_posterior.parametrization.sample(streams, count * _CANDIDATES)
    value, _ = log_posterior(prior.flatten(0, 1))
    best = value.reshape(runs, count, _CANDIDATES).argmax(-1)
    candidates = prior.reshape(runs, count, _CANDIDATES, -1)
    return candidates.take_along_dim(best[:, :, None, None], 2)[:, :, 0]

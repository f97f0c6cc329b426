"""From observations to a surrogate: NUTS or a point estimate, warm starts, a report."""

import logging
import time
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.backend import Streams, threads_for
from gpbo.data import Observations
from gpbo.errors import InvalidData, InvalidOption
from gpbo.evidence import LogPosterior, Model
from gpbo.inference import (
    HyperparameterDraws,
    SamplerInfo,
    cold_start,
    convergence,
    draw,
    mode,
    schedule_for,
)
from gpbo.mcmc.sampling import Warmth
from gpbo.restarts import is_due, restarted
from gpbo.surrogate import Surrogate

__all__ = ["Fit", "FitReport", "Inference", "Model", "Sampling", "WarmState", "fit"]

logger = logging.getLogger("gpbo")

Inference = Literal["nuts", "map", "pyro"]

#: What became of a run: converged at once; after more sampling; not, but its draws serve; the
#: sampler was of no use and the posterior's mode stands in; a point estimate as asked.
Status = Literal["ok", "extended", "unconverged", "fallback-map", "map"]

#: A cold run with a larger R-hat samples on, once. Chains here are short and many, and the split
#: R-hat of chains of a dozen draws is about 1.1 when they mix well, so this is not the 1.01 of
#: long chains. A posterior with several modes keeps it high, and rightly: its draws still serve.
RHAT_LIMIT = 1.2
#: With more than this fraction of divergences the draws are not of the posterior at all.
_BROKEN_DIVERGENCES = 0.5
#: A chain is not moved along with the values to where its density is this much less, in logarithms.
_FAR_OUT = 10.0
#: A posterior has moved if the last draws, weighted for it, are worth less than this share of them.
_LEAST_WEIGHED = 0.5

_Rows = TypeVar("_Rows", HyperparameterDraws, SamplerInfo, Warmth)


@dataclass(frozen=True)
class Sampling:
    """How much to sample for a fit.

    Attributes:
        chains: NUTS chains of a run.
        warmup: Transitions before the kept ones in a cold start.
        draws: Transitions kept per chain in a cold start.
        warm_draws: Transitions per chain in a warm start. One observation more hardly moves the
            posterior, so all of them are kept.
        kept: Draws that the surrogate averages over, the latest of every chain.
    """

    chains: int = 16
    warmup: int = 48
    draws: int = 24
    warm_draws: int = 6
    kept: int = 16

    def __post_init__(self) -> None:
        for name in ("chains", "draws", "warm_draws", "kept"):
            if getattr(self, name) < 1:
                raise InvalidOption(f"{name}={getattr(self, name)}: expected at least 1")
        fewest = self.chains * min(self.draws, self.warm_draws)
        if self.kept > fewest:
            raise InvalidOption(
                f"kept={self.kept}: expected at most as many as there are draws, {fewest}"
            )


@dataclass(frozen=True)
class WarmState:
    """Where the chains of the last fit ended, and the scale of the values they were fitted to.

    Attributes:
        warmth: Positions, step sizes and mass matrices.
        recent: The latest draws of every chain, of this fit and those before.
        location: Of the values' standardisation.
        scale: Likewise.
        fits: How many there were, each from the one before.
    """

    warmth: Warmth
    recent: Float[Tensor, "r c t p"]
    location: Float[Tensor, "r"]
    scale: Float[Tensor, "r"]
    fits: int = 1


@dataclass(frozen=True)
class FitReport:
    """How a fit went, per run; numbers are the worst over the hyperparameters.

    Attributes:
        inference: What was asked for.
        status: What became of every run.
        rhat: Rank-normalised split R-hat of the latest draws, those of the fits before a warm one
            included up to as many as a cold one keeps; NaN for a point estimate.
        ess_bulk: Effective sample size of the same draws for means.
        ess_tail: Likewise for the 5 % and 95 % quantiles.
        divergences: Transitions that ended in a divergence.
        depth_saturation: Fraction of the transitions cut off at the maximal depth.
        leapfrog_steps: Leapfrog steps per chain, warm-up included.
        transitions: Transitions kept per chain.
        warm: Whether the chains went on from the last fit.
        seconds: Wall time of the fit, all runs together.
    """

    inference: Inference
    status: tuple[Status, ...]
    rhat: Float[Tensor, "r"]
    ess_bulk: Float[Tensor, "r"]
    ess_tail: Float[Tensor, "r"]
    divergences: Float[Tensor, "r"]
    depth_saturation: Float[Tensor, "r"]
    leapfrog_steps: Float[Tensor, "r"]
    transitions: int
    warm: bool
    seconds: float

    def summary(self) -> str:
        """One line: what was done and the worst run's diagnostics."""
        if self.inference == "map":
            return f"map, {self.seconds:.2f} s"
        counts = {status: self.status.count(status) for status in dict.fromkeys(self.status)}
        several = ", ".join(f"{count} {status}" for status, count in counts.items())
        outcome = several if len(self.status) > 1 else self.status[0]
        start = "warm" if self.warm else "cold"
        return (
            f"{self.inference} ({start} start): {outcome}, R-hat {float(self.rhat.max()):.3f}"
            f", bulk ESS {float(self.ess_bulk.min()):.0f}"
            f", tail ESS {float(self.ess_tail.min()):.0f}"
            f", {float(self.divergences.sum()):.0f} divergences"
            f", {100 * float(self.depth_saturation.nan_to_num(0.0).max()):.0f} % at maximal depth"
            f", {self.seconds:.2f} s"
        )


@dataclass(frozen=True)
class Fit:
    """A surrogate, how it came about, and what the next one can start from."""

    surrogate: Surrogate
    report: FitReport
    warm: WarmState | None
    draws: HyperparameterDraws | None


def fit(
    data: Observations,
    model: Model | None = None,
    *,
    inference: Inference = "nuts",
    sampling: Sampling | None = None,
    warm: WarmState | None = None,
    streams: Streams,
) -> Fit:
    """Condition a Gaussian process on observations, its hyperparameters integrated out.

    A cold run whose chains disagree samples on, once and without the others; so does a warm one
    whose posterior has moved far. Every tenth warm fit some chains start from dispersed points
    (`gpbo.restarts`). A run that cannot be sampled gets the mode of its posterior.
    Either is told in the report, the latter also logged.

    Args:
        data: Observations of every run; pending points are not looked at.
        model: Kernel and priors.
        inference: ``"nuts"``; ``"map"`` for the mode of the posterior, from several starts;
            ``"pyro"`` for Pyro's NUTS, slow, to check ours against.
        sampling: How much to sample.
        warm: The last fit's, for the same runs with a few observations more.
        streams: One stream per run.

    Raises:
        InvalidOption: ``inference`` is none of the three, or ``warm`` is of other runs or
            hyperparameters.
        InvalidData: A run has no observation.
    """
    if inference not in get_args(Inference):
        raise InvalidOption(f"inference={inference!r}: expected one of {get_args(Inference)}")
    if not bool(data.mask.any(-1).all()):
        raise InvalidData("a run has no observation yet: expected at least one to fit to")
    with threads_for(data.x.shape[1], data.x.device):
        return _fit(data, model or Model(), inference, sampling or Sampling(), warm, streams)


def _fit(
    data: Observations,
    model: Model,
    inference: Inference,
    sampling: Sampling,
    warm: WarmState | None,
    streams: Streams,
) -> Fit:
    began = time.perf_counter()
    log_posterior = model.log_posterior(data.x, data.y, data.mask)
    if inference == "map":
        return _map_fit(data, model, log_posterior, streams, began)
    if inference == "nuts":
        moved = None if warm is None else _transported(warm, data, log_posterior)
        draws, extended = _sample(log_posterior, sampling, moved, streams)
        recent = _recent(draws, moved, sampling.draws)
        draws = draws if warm is None else _diagnosed(draws, recent)
        status = _statuses(draws, extended)
        fits = 1 if warm is None else warm.fits + 1
        state = WarmState(draws.warmth, recent, data.location, data.scale, fits)
    else:
        from gpbo.pyro_nuts import draw_with_pyro

        draws = draw_with_pyro(log_posterior, streams)
        status = _statuses(draws, torch.zeros(data.runs, dtype=torch.bool))
        state = None
    broken = [run for run, outcome in enumerate(status) if outcome == "fallback-map"]
    natural = draws.last(sampling.kept)
    if broken:
        natural, state = _with_modes(natural, state, log_posterior, broken, streams)
    info = draws.info
    report = FitReport(
        inference,
        tuple(status),
        rhat=info.rhat,
        ess_bulk=info.ess_bulk,
        ess_tail=info.ess_tail,
        divergences=info.divergences,
        depth_saturation=info.depth_saturation,
        leapfrog_steps=info.leapfrog_steps,
        transitions=info.transitions,
        warm=warm is not None and inference == "nuts",
        seconds=time.perf_counter() - began,
    )
    _log(report)
    surrogate = Surrogate.condition(
        data.x,
        data.y,
        data.mask,
        natural.lengthscale,
        natural.outputscale,
        natural.noise_variance,
        natural.mean,
        model.nu,
    )
    return Fit(surrogate, report, state, draws)


def _sample(
    log_posterior: LogPosterior,
    sampling: Sampling,
    warm: WarmState | None,
    streams: Streams,
) -> tuple[HyperparameterDraws, Bool[Tensor, "r"]]:
    """NUTS, and again from where it stopped for the runs that need more; and which those were.

    A cold run whose chains disagree does. Chains of a warm start that disagree are those of a
    posterior with several modes, most often, and go on at the next fit anyway; there it is a run
    whose posterior has moved, or whose draws are of no use.
    """
    if warm is None:
        schedule = schedule_for(sampling.warmup, sampling.draws, cold=True)
        draws = draw(log_posterior, streams, schedule, chains=sampling.chains, warmth=None)
        more_for = _in_trouble(draws)
    else:
        schedule = schedule_for(0, sampling.warm_draws, cold=False)
        warmth, arrival_steps = warm.warmth, torch.zeros_like(warm.scale)
        if is_due(warm.fits):
            warmth, arrival_steps = restarted(warmth, log_posterior, streams, warm.fits)
        draws = draw(log_posterior, streams, schedule, chains=sampling.chains, warmth=warmth)
        draws = _with_steps(draws, arrival_steps)
        more_for = _is_broken(draws) | _has_moved(log_posterior, warmth)
    extended = more_for.cpu()
    if bool(extended.any()):
        runs = torch.nonzero(more_for)[:, 0]
        more = draw(
            log_posterior.select(runs),
            streams.select(runs.tolist()),
            schedule_for(sampling.draws, schedule.draws, cold=False),
            chains=sampling.chains,
            warmth=_selected(draws.warmth, runs),
        )
        draws = _put(draws, runs, _with_steps(more, draws.info.leapfrog_steps[runs]))
    return draws, extended


def _with_steps(draws: HyperparameterDraws, steps: Float[Tensor, "r"]) -> HyperparameterDraws:
    """The draws, whose sampling took so many leapfrog steps more."""
    total = draws.info.leapfrog_steps + steps
    return replace(draws, info=replace(draws.info, leapfrog_steps=total))


def _has_moved(log_posterior: LogPosterior, warmth: Warmth) -> Bool[Tensor, "r"]:
    """Runs whose last draws represent the present posterior poorly.

    Weighted by the ratio of the new density to the old one, which is the predictive density of the
    new observations, they count as this many draws (Chopin 2002).
    """
    runs, chains, _ = warmth.position.shape
    value, _ = log_posterior(warmth.position.flatten(0, 1))
    weight = torch.softmax(value.reshape(runs, chains) - warmth.value, dim=-1)
    return ~(1 / weight.square().sum(-1) > _LEAST_WEIGHED * chains)


def _recent(
    draws: HyperparameterDraws, before: WarmState | None, length: int
) -> Float[Tensor, "r c t p"]:
    """The last draws of every chain, those of the fits before included."""
    runs, _, dim = draws.unconstrained.shape
    own = draws.unconstrained.reshape(runs, draws.chains, -1, dim)
    return (own if before is None else torch.cat([before.recent, own], 2))[:, :, -length:]


def _diagnosed(draws: HyperparameterDraws, recent: Float[Tensor, "r c t p"]) -> HyperparameterDraws:
    rhat, ess_bulk, ess_tail = convergence(recent)
    return replace(draws, info=replace(draws.info, rhat=rhat, ess_bulk=ess_bulk, ess_tail=ess_tail))


def _statuses(draws: HyperparameterDraws, extended: Bool[Tensor, "r"]) -> list[Status]:
    converged = (~_in_trouble(draws)).tolist()
    usable = (~_is_broken(draws)).tolist()
    return [
        ("extended" if more else "ok") if good else ("unconverged" if use else "fallback-map")
        for good, use, more in zip(converged, usable, extended.tolist(), strict=True)
    ]


def _in_trouble(draws: HyperparameterDraws) -> Bool[Tensor, "r"]:
    """Runs whose chains disagree; too few draws to tell is no trouble."""
    return (draws.info.rhat > RHAT_LIMIT) | _is_broken(draws)


def _is_broken(draws: HyperparameterDraws) -> Bool[Tensor, "r"]:
    """Runs whose draws cannot be of the posterior."""
    info = draws.info
    transitions = info.transitions * draws.chains
    finite = torch.isfinite(draws.warmth.position).all(-1).all(-1)
    return (info.divergences > _BROKEN_DIVERGENCES * transitions) | ~finite


def _selected(warmth: Warmth, runs: Int[Tensor, "_"]) -> Warmth:
    return Warmth(
        warmth.position[runs], warmth.value[runs], warmth.step_size[runs], warmth.scale[runs]
    )


def _put(whole: _Rows, runs: Int[Tensor, "_"], part: _Rows) -> _Rows:
    """``whole`` with the rows ``runs`` of every tensor replaced by those of ``part``."""
    changes: dict[str, Any] = {}
    for field in fields(whole):
        old, new = getattr(whole, field.name), getattr(part, field.name)
        if isinstance(old, Tensor):
            changes[field.name] = old.index_copy(0, runs, new)
        elif is_dataclass(old):
            changes[field.name] = _put(old, runs, new)
    return replace(whole, **changes)


def _transported(warm: WarmState, data: Observations, log_posterior: LogPosterior) -> WarmState:
    """The last chains in the present standardisation of the values.

    Standardising with another observation maps ``y`` to ``(y - shift) / factor``; the posterior
    moves with it, and so do the chains, exactly where the priors allow. After an outlier they do
    not: all the other values shrink a millionfold, say, and no prior expects a variance of 1e-12.
    A chain that would be far out of the way there stays where it was.

    Raises:
        InvalidOption: ``warm`` is of other runs or hyperparameters.
    """
    stayed, size = warm.warmth.position, log_posterior.parametrization.size
    if (stayed.shape[0], stayed.shape[2]) != (data.runs, size):
        raise InvalidOption(
            f"warm has {stayed.shape[0]} runs and {stayed.shape[2]} coordinates: expected "
            f"{data.runs} and {size}"
        )
    factor = data.scale / warm.scale
    shift = (data.location - warm.location) / warm.scale
    usable = torch.isfinite(factor) & (factor > 0) & torch.isfinite(shift)
    rescaling = torch.where(usable, shift, 0.0), torch.where(usable, factor, 1.0)
    rescaled = log_posterior.parametrization.rescaled
    moved = rescaled(stayed, *rescaling)
    here, _ = log_posterior(stayed.flatten(0, 1))
    there, _ = log_posterior(moved.flatten(0, 1))
    lost = (there < here - _FAR_OUT).reshape(moved.shape[:2])
    position = torch.where(lost[..., None], stayed, moved)
    recent = rescaled(warm.recent.flatten(1, 2), *rescaling).reshape(warm.recent.shape)
    return replace(warm, warmth=replace(warm.warmth, position=position), recent=recent)


def _with_modes(
    draws: HyperparameterDraws,
    state: WarmState | None,
    log_posterior: LogPosterior,
    runs: list[int],
    streams: Streams,
) -> tuple[HyperparameterDraws, WarmState | None]:
    """Every draw of these runs replaced by the mode of their posterior, their chains dispersed."""
    rows = torch.tensor(runs, device=draws.mean.device)
    troubled, own = log_posterior.select(rows), streams.select(runs)
    points, _ = mode(troubled, own)
    natural = log_posterior.parametrization.constrain(points)
    count = draws.mean.shape[1]
    repeated = {
        "lengthscale": natural.lengthscale[:, None].expand(-1, count, -1),
        "outputscale": natural.outputscale[:, None].expand(-1, count),
        "noise_variance": natural.noise_variance[:, None].expand(-1, count),
        "mean": natural.mean[:, None].expand(-1, count),
    }
    replaced = {
        name: getattr(draws, name).index_copy(0, rows, value) for name, value in repeated.items()
    }
    if state is not None:
        afresh = cold_start(troubled, own, state.warmth.position.shape[1])
        state = replace(state, warmth=_put(state.warmth, rows, afresh))
    return replace(draws, **replaced), state


def _map_fit(
    data: Observations,
    model: Model,
    log_posterior: LogPosterior,
    streams: Streams,
    began: float,
) -> Fit:
    points, _ = mode(log_posterior, streams)
    natural = log_posterior.parametrization.constrain(points)
    surrogate = Surrogate.condition(
        data.x,
        data.y,
        data.mask,
        natural.lengthscale[:, None],
        natural.outputscale[:, None],
        natural.noise_variance[:, None],
        natural.mean[:, None],
        model.nu,
    )
    unknown = torch.full_like(natural.mean, torch.nan)
    status: list[Status] = ["map"] * data.runs
    report = FitReport(
        "map",
        tuple(status),
        rhat=unknown,
        ess_bulk=unknown,
        ess_tail=unknown,
        divergences=torch.zeros_like(unknown),
        depth_saturation=unknown,
        leapfrog_steps=unknown,
        transitions=0,
        warm=False,
        seconds=time.perf_counter() - began,
    )
    return Fit(surrogate, report, None, None)


def _log(report: FitReport) -> None:
    level = logging.WARNING if "fallback-map" in report.status else logging.DEBUG
    logger.log(level, "fit: %s", report.summary())

"""From observations to a surrogate: posterior draws or a point estimate, warm starts, a report."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.backend import Streams, settings_for
from gpbo.checks import one_of, whole_number
from gpbo.data import Observations
from gpbo.errors import InvalidData, InvalidOption
from gpbo.evidence import LogPosterior, Model, resolve_model
from gpbo.hyperparameters import NAMES
from gpbo.inference import (
    HyperparameterDraws,
    SamplerInfo,
    by_chain,
    cold_start,
    diagnosed,
    draw,
    mode,
    resting,
    schedule_for,
)
from gpbo.mcmc.sampling import Kernel
from gpbo.rows import bucket, put, selected
from gpbo.surrogate import Surrogate
from gpbo.warm_start import (
    MOST_ROUNDS,
    WarmState,
    carried_over,
    drawn_anew,
    latest_draws,
    rounds_due,
    started_afresh,
)

__all__ = [
    "Fit",
    "FitReport",
    "Inference",
    "Model",
    "Sampling",
    "WarmState",
    "check_inference",
    "fit",
    "resolve_model",
]

logger = logging.getLogger("gpbo")

Inference = Literal["hmc", "nuts", "map", "pyro"]

#: The outcome of a run: converged at once; converged after more sampling; not converged, but its
#: draws are used; the sampler failed and the posterior's mode is used; a point estimate, as asked.
Status = Literal["ok", "extended", "unconverged", "fallback-map", "map"]

#: A cold run with a larger R-hat continues to sample, once. Chains here are short and many, and the
#: split R-hat of chains of a dozen draws is about 1.1 when they mix well, so this is not the 1.01
#: of long chains. A posterior with several modes keeps it high, and rightly: its draws are still
#: used.
RHAT_LIMIT = 1.2
#: With more than this fraction of divergences the draws do not represent the posterior.
_BROKEN_DIVERGENCES = 0.5


@dataclass(frozen=True)
class Sampling:
    """How much to sample for a fit.

    Attributes:
        chains: Chains of a run.
        warmup: Transitions after a cold start before the kept ones.
        draws: Transitions kept per chain after a cold start.
        warm_draws: Transitions per chain in a round of a warm start; those of the last round are
            kept. A round is enough where one more observation hardly moves the posterior; otherwise
            there are two or four.
        kept: Draws that the surrogate averages over, the latest of every chain.
    """

    chains: int = 16
    warmup: int = 8
    draws: int = 24
    warm_draws: int = 2
    kept: int = 16

    def __post_init__(self) -> None:
        for name in ("chains", "draws", "warm_draws", "kept"):
            whole_number(name, getattr(self, name), least=1)
        whole_number("warmup", self.warmup, least=0)
        fewest = self.chains * min(self.draws, self.warm_draws)
        if self.kept > fewest:
            raise InvalidOption(
                f"kept={self.kept}: expected at most {fewest}, which is chains * min(draws, "
                "warm_draws)"
            )


@dataclass(frozen=True, eq=False)
class FitReport:
    """How a fit went, per run; numbers are the worst over the hyperparameters.

    Attributes:
        inference: How the hyperparameters were treated.
        status: The outcome of every run. ``"ok"``: its chains agree, as far as their draws tell;
            ``"extended"``: they agree after more sampling; ``"unconverged"``: they do not agree,
            and their draws are used all the same; ``"fallback-map"``: the sampler failed, and the
            posterior's mode is used; ``"map"``: a point estimate, as asked.
        rhat: Rank-normalised split R-hat (Vehtari et al. 2021) of the latest draws; after a warm
            start also of those of earlier fits, up to as many as a cold start keeps. NaN, like the
            two below, with fewer than a dozen draws per chain from the present posterior: since the
            chains last started anew, their effective sample size fell below a quarter of their
            number, or the power of the values changed. NaN for a point estimate, like
            ``depth_saturation`` and ``leapfrog_steps``.
        ess_bulk: Effective sample size of the same draws for means.
        ess_tail: Effective sample size for the 5 % and 95 % quantiles.
        divergences: Transitions that ended in a divergence.
        depth_saturation: Fraction of the transitions cut off at the maximal depth of NUTS.
        leapfrog_steps: Leapfrog steps per chain, warm-up included; 0 where chains rested, as they
            do in many fits with more than 200 results.
        transitions: Transitions kept per chain, in runs whose chains did not rest.
        warm: Whether the fit continued from an earlier one; chains of some runs may have started
            anew.
        seconds: Wall time of the fit in seconds, all runs together.
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
        agreement, known = "", ~self.rhat.isnan()
        if bool(known.any()):
            agreement = (
                f", R-hat {float(self.rhat[known].max()):.3f}"
                f", bulk ESS {float(self.ess_bulk[known].min()):.0f}"
                f", tail ESS {float(self.ess_tail[known].min()):.0f}"
            )
        return (
            f"{self.inference} ({start} start): {outcome}{agreement}"
            f", {float(self.divergences.sum()):.0f} divergences"
            f", {100 * float(self.depth_saturation.nan_to_num(0.0).max()):.0f} % at maximal depth"
            f", {self.seconds:.2f} s"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """A surrogate, a report of how it was fitted, and what the next fit can start from."""

    surrogate: Surrogate
    report: FitReport
    warm: WarmState | None
    draws: HyperparameterDraws | None

    def __repr__(self) -> str:
        return f"Fit({self.report.summary()})"


def fit(
    data: Observations,
    model: Model | None = None,
    *,
    inference: Inference = "hmc",
    sampling: Sampling | None = None,
    warm: WarmState | None = None,
    streams: Streams,
) -> Fit:
    """Condition a Gaussian process on observations, its hyperparameters integrated out.

    Warm chains are the particles of a sequential Monte Carlo sampler (Chopin 2002): each is
    weighted by the ratio of the new posterior density to the old one. When the weights are uneven,
    the chains are resampled by weight and sample longer; while they are even, chains rest in many
    fits with more than 200 results. From time to time all chains start anew from the prior, lest a
    mode be lost for good. A cold run whose chains disagree continues to sample, once and without
    the others. A run that cannot be sampled gets the mode of its posterior. The report says all of
    this; the last is also logged. If the prior fixes every hyperparameter, there is nothing to
    infer and the fit is as for ``"map"``.

    Args:
        data: Observations of every run; pending points are ignored.
        model: Kernel and priors.
        inference: ``"hmc"``, Hamiltonian Monte Carlo of short trajectories; ``"nuts"``, of
            trajectories that adapt their length; ``"map"`` for the mode of the posterior, from
            several starts; ``"pyro"`` for Pyro's NUTS, slow, to check ours against.
        sampling: How much to sample.
        warm: The last fit's ``warm``, for the same runs, now with a few more observations.
        streams: One stream per run.

    Raises:
        InvalidOption: ``inference`` is none of these, or ``warm`` is of other runs or
            hyperparameters.
        InvalidData: A run has no observation.
    """
    check_inference(inference)
    if not bool(data.mask.any(-1).all()):
        raise InvalidData("a run has no observation yet: expected at least one in each run")
    with settings_for(data.x.device):
        return _fit(data, resolve_model(model), inference, sampling or Sampling(), warm, streams)


def check_inference(inference: Inference) -> Inference:
    """The treatment of the hyperparameters, checked.

    Raises:
        InvalidOption: it is not an `Inference`.
    """
    one_of("inference", inference, get_args(Inference))
    return inference


def _fit(
    data: Observations,
    model: Model,
    inference: Inference,
    sampling: Sampling,
    warm: WarmState | None,
    streams: Streams,
) -> Fit:
    """`fit`, under the settings of its device."""
    began = time.perf_counter()
    log_posterior = model.log_posterior(data.x, data.y, data.mask)
    if inference == "map" or not log_posterior.parametrization.size:
        values, info = _likeliest(log_posterior, streams)
        inference, state, draws = "map", None, None
        status: Sequence[Status] = ["map"] * data.runs
    else:
        values, status, state, draws = _drawn(
            log_posterior, data, inference, sampling, warm, streams
        )
        info = draws.info
    surrogate = Surrogate.condition(
        data.x, data.y, data.mask, **values, nu=model.nu, eligible=data.eligible
    )
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
        warm=warm is not None and inference in ("hmc", "nuts"),
        seconds=time.perf_counter() - began,
    )
    level = logging.WARNING if "fallback-map" in status else logging.DEBUG
    logger.log(level, "fit: %s", report.summary())
    return Fit(surrogate, report, state, draws)


def _likeliest(
    log_posterior: LogPosterior, streams: Streams
) -> tuple[dict[str, Tensor], SamplerInfo]:
    """The mode of every run's posterior by name, ``[r,1,...]``, and a `SamplerInfo` of none."""
    natural = log_posterior.parametrization.constrain(mode(log_posterior, streams))
    unknown = torch.full_like(natural.mean, torch.nan)
    not_sampled = SamplerInfo(
        rhat=unknown,
        ess_bulk=unknown,
        ess_tail=unknown,
        divergences=torch.zeros_like(unknown),
        depth_saturation=unknown,
        acceptance=unknown,
        leapfrog_steps=unknown,
        transitions=0,
    )
    return {name: value[:, None] for name, value in vars(natural).items()}, not_sampled


def _drawn(
    log_posterior: LogPosterior,
    data: Observations,
    inference: Literal["hmc", "nuts", "pyro"],
    sampling: Sampling,
    warm: WarmState | None,
    streams: Streams,
) -> tuple[dict[str, Tensor], tuple[Status, ...], WarmState | None, HyperparameterDraws]:
    """The hyperparameters that the surrogate averages over by name, ``[r,s,...]``; the status of
    every run; what the next fit starts from; all draws.
    """
    if inference == "pyro":
        from gpbo.pyro_nuts import draw_with_pyro

        draws, state = draw_with_pyro(log_posterior, streams), None
        extended = torch.zeros(data.runs, dtype=torch.bool, device="cpu")
    else:
        carried = None if warm is None else carried_over(warm, data, log_posterior)
        draws, state, extended = _sample(log_posterior, data, inference, sampling, carried, streams)
    draws = diagnosed(draws, by_chain(draws) if state is None else state.recent)
    status = _statuses(draws, extended)
    broken = [run for run, outcome in enumerate(status) if outcome == "fallback-map"]
    kept = draws.last(sampling.kept)
    if broken:
        kept, state = _with_modes(kept, state, log_posterior, broken, streams)
    return {name: getattr(kept, name) for name in NAMES}, status, state, draws


def _sample(
    log_posterior: LogPosterior,
    data: Observations,
    kernel: Kernel,
    sampling: Sampling,
    warm: WarmState | None,
    streams: Streams,
) -> tuple[HyperparameterDraws, WarmState, Bool[Tensor, "r"]]:
    """Draws, what the next fit starts from, and which runs sampled longer.

    Of cold runs, those whose chains disagree. After a warm start, chains that disagree mostly
    belong to a posterior with several modes, and continue in the next fit anyway. There, a run
    samples longer if its draws are unusable, which also settles its step size again, or if its
    posterior has moved, by how much the weights tell (`rounds_due`).
    """
    counts = log_posterior.counts
    kept = sampling.draws if warm is None else sampling.warm_draws

    def gone_on(
        draws: HyperparameterDraws, due: Bool[Tensor, "r"], warmup: int
    ) -> HyperparameterDraws:
        """The draws, in the runs that are due replaced by those that come next."""
        if not bool(due.any()):
            return draws
        runs, count = bucket(due)
        more = draw(
            log_posterior.select(runs),
            streams.select(runs.tolist()),
            schedule_for(warmup, kept, cold=False, kernel=kernel),
            chains=sampling.chains,
            warmth=selected(draws.warmth, runs),
        )
        more = _with_steps(more, draws.info.leapfrog_steps[runs])
        return put(draws, runs[:count], selected(more, slice(count)))

    if warm is None:
        schedule = schedule_for(sampling.warmup, kept, cold=True, kernel=kernel)
        draws = draw(log_posterior, streams, schedule, chains=sampling.chains, warmth=None)
        settling = _in_trouble(diagnosed(draws, by_chain(draws)))
        rounds = torch.ones_like(data.counts)
        log_weight, afresh, moved = torch.zeros_like(draws.warmth.value), counts, counts
    else:
        warm, spent = started_afresh(warm, log_posterior, streams)
        rounds = rounds_due(warm, counts)
        warmth, log_weight = drawn_anew(warm, streams)
        draws = _with_steps(resting(log_posterior, warmth, kept), spent)
        draws = gone_on(draws, rounds > 0, 0)
        settling, afresh, moved = _is_broken(draws), warm.afresh, warm.moved
    draws = gone_on(draws, settling, kept)
    for number in range(1, int(rounds.max())):
        draws = gone_on(draws, (rounds > number) & ~settling, 0)
    active = settling | (rounds > 0)
    latest = latest_draws(draws, warm, active, sampling.draws)
    moved = torch.where(active, counts, moved)
    # The next fit has other data, and so another gradient.
    warmth = replace(draws.warmth, gradient=None)
    state = WarmState(warmth, log_weight, latest, data.units, afresh, moved)
    return draws, state, (settling | (rounds == MOST_ROUNDS)).cpu()


def _with_steps(draws: HyperparameterDraws, steps: Float[Tensor, "r"]) -> HyperparameterDraws:
    """The draws, with this many leapfrog steps added to those they took."""
    total = draws.info.leapfrog_steps + steps
    return replace(draws, info=replace(draws.info, leapfrog_steps=total))


def _statuses(draws: HyperparameterDraws, extended: Bool[Tensor, "r"]) -> tuple[Status, ...]:
    converged = (~_in_trouble(draws)).tolist()
    usable = (~_is_broken(draws)).tolist()
    return tuple(
        ("extended" if more else "ok") if good else ("unconverged" if use else "fallback-map")
        for good, use, more in zip(converged, usable, extended.tolist(), strict=True)
    )


def _in_trouble(draws: HyperparameterDraws) -> Bool[Tensor, "r"]:
    """Runs whose chains disagree or whose draws are broken; R-hat is NaN with too few to tell."""
    return (draws.info.rhat > RHAT_LIMIT) | _is_broken(draws)


def _is_broken(draws: HyperparameterDraws) -> Bool[Tensor, "r"]:
    """Runs whose draws cannot represent the posterior."""
    info = draws.info
    transitions = info.transitions * draws.chains
    finite = torch.isfinite(draws.warmth.position).all(-1).all(-1)
    return (info.divergences > _BROKEN_DIVERGENCES * transitions) | ~finite


def _with_modes(
    draws: HyperparameterDraws,
    state: WarmState | None,
    log_posterior: LogPosterior,
    runs: list[int],
    streams: Streams,
) -> tuple[HyperparameterDraws, WarmState | None]:
    """Replace every draw of these runs by their posterior's mode, and start their chains anew."""
    rows = torch.tensor(runs, device=draws.mean.device)
    troubled, own = log_posterior.select(rows), streams.select(runs)
    natural = log_posterior.parametrization.constrain(mode(troubled, own))
    count = draws.mean.shape[1]
    replaced = {
        name: getattr(draws, name).index_copy(0, rows, value[:, None].repeat_interleave(count, 1))
        for name, value in vars(natural).items()
    }
    if state is not None:
        warmth, _ = cold_start(troubled, own, state.warmth.position.shape[1])
        state = state.restarted(rows, warmth, troubled.counts)
    return replace(draws, **replaced), state

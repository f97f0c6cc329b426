"""Where chains start that have sampled the posterior of nearly the same data.

They are the particles of a sequential Monte Carlo sampler (Chopin 2002, "A sequential particle
filter method for static models", Biometrika 89): carried over to the new data, they are weighted by
the ratio of the new posterior density to the old one, and resampled when the weights have become
uneven.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.backend import Streams
from gpbo.data import Observations
from gpbo.errors import InvalidOption
from gpbo.evidence import LogPosterior
from gpbo.inference import MANY, HyperparameterDraws, by_chain, cold_start, evaluated
from gpbo.mcmc.annealing import effective_sample_size, resampled
from gpbo.mcmc.sampling import Warmth
from gpbo.rows import bucket, put, selected
from gpbo.units import Units

#: A chain is not moved along with the values if that lowers its log density by more than this.
_FAR_OUT = 10.0
#: One that would move by no more than this in every coordinate is moved without this check.
_DISPLACED = 0.1
#: Chains are resampled when their effective sample size is below this share of their number: the
#: surrogate averages over them with equal weights.
_STEADY = 0.95
#: Steady chains need one round of transitions, others two, or the most if their effective sample
#: size is below this share.
_LEAST_ESS, MOST_ROUNDS = 0.5, 4
#: Chains belong to another posterior when their effective sample size is below this share. They
#: start anew, from the prior, when there are this many times the results of the last start.
_COLLAPSED, _AFRESH = 0.25, 2.0


@dataclass(frozen=True)
class WarmState:
    """Where the chains of the last fit ended, and the scale of the values they were fitted to.

    Attributes:
        warmth: Positions, step sizes and mass matrices.
        log_weight: Logarithms of the importance weights of the chains since their last resampling.
        recent: The latest draws of every chain, of this fit and earlier ones; NaN in place of those
            from another posterior: before the chains started anew or were below ``_COLLAPSED``, or
            before the power of the units changed.
        units: Units of the values that the chains were fitted to.
        afresh: How many results there were when the chains last started from the prior; 0 if they
            must start from it again.
        moved: How many there were when they last made a transition; 0 if they have made none since
            they started from the prior.
    """

    warmth: Warmth
    log_weight: Float[Tensor, "r c"]
    recent: Float[Tensor, "r c t p"]
    units: Units
    afresh: Float[Tensor, "r"]
    moved: Float[Tensor, "r"]

    def restarted(
        self, runs: Int[Tensor, " j"], warmth: Warmth, counts: Float[Tensor, " j"]
    ) -> "WarmState":
        """The state with the chains of these runs started from the prior, at so many results."""
        return replace(
            self,
            warmth=put(self.warmth, runs, warmth),
            log_weight=self.log_weight.index_fill(0, runs, 0.0),
            recent=self.recent.index_fill(0, runs, torch.nan),
            afresh=self.afresh.index_copy(0, runs, counts),
            moved=self.moved.index_fill(0, runs, 0.0),
        )


def carried_over(warm: WarmState, data: Observations, log_posterior: LogPosterior) -> WarmState:
    """The last chains in the present standardisation of the values, weighted for the new results.

    Standardising with another observation maps ``y`` to ``(y - shift) / factor``; the posterior
    moves with it, and so do the chains, exactly so if the priors allow it. After an outlier they do
    not: all other values shrink a millionfold, say, and no prior expects a variance of 1e-12. A
    chain whose density would be far lower there stays where it was.

    The ratio of the new density to the old one is the predictive density of the new results, times
    the ratio of the prior densities if the scale of the values changed.

    Raises:
        InvalidOption: ``warm`` is of other runs or hyperparameters.
    """
    stayed, size = warm.warmth.position, log_posterior.parametrization.size
    if (stayed.shape[0], stayed.shape[2]) != (data.runs, size):
        raise InvalidOption(
            f"warm has {stayed.shape[0]} runs and {stayed.shape[2]} coordinates: expected "
            f"{data.runs} and {size}"
        )
    rescaling = data.rescaling(warm.units)
    rescaled = log_posterior.parametrization.rescaled
    moved = rescaled(stayed, *rescaling)
    value, gradient = evaluated(log_posterior, moved)
    position, displaced = moved, ((moved - stayed).abs() > _DISPLACED).any(-1)
    afresh = warm.afresh
    if bool(displaced.any()):
        here, slope = evaluated(log_posterior, stayed)
        lost = displaced & (value < here - _FAR_OUT)
        # With many results, chains that all stay behind do not reach the new posterior.
        afresh = torch.where(lost.all(-1) & (log_posterior.counts > MANY), 0.0, afresh)
        position = torch.where(lost[..., None], stayed, moved)
        value = torch.where(lost, here, value)
        gradient = torch.where(lost[..., None], slope, gradient)
    warmth = replace(warm.warmth, position=position, value=value, gradient=gradient)
    same = (warm.units.power == data.units.power)[:, None, None, None]
    recent = rescaled(warm.recent.flatten(1, 2), *rescaling).view_as(warm.recent)
    gain = value - warm.warmth.value
    log_weight = warm.log_weight + gain.nan_to_num(nan=-torch.inf, posinf=0.0, neginf=-torch.inf)
    # A run without any chain of finite density cannot be weighted.
    usable = torch.isfinite(log_weight).any(-1, keepdim=True)
    return replace(
        warm,
        warmth=warmth,
        log_weight=torch.where(usable, log_weight, 0.0),
        recent=torch.where(same, recent, torch.nan),
        afresh=afresh,
    )


def started_afresh(
    warm: WarmState, log_posterior: LogPosterior, streams: Streams
) -> tuple[WarmState, Float[Tensor, "r"]]:
    """The chains, in some runs started anew from the prior, and the leapfrog steps that this took.

    Runs start anew if they have many more results than at their last start: chains do not return to
    a mode that all have left, however much mass it has by now. So do runs whose posterior has
    become another one, unless they have many results: then it is no farther from the last posterior
    than from that given some of the results, from which new chains would come.
    """
    spent, counts = torch.zeros_like(warm.afresh), log_posterior.counts
    chains = warm.log_weight.shape[1]
    collapsed = _relative_ess(warm) < _COLLAPSED
    due = (counts >= _AFRESH * warm.afresh) | (collapsed & (counts <= MANY))
    recent = warm.recent.masked_fill(collapsed[:, None, None, None], torch.nan)
    warm = replace(warm, recent=recent)
    if not bool(due.any()):
        return warm, spent
    runs, count = bucket(due)
    warmth, steps = cold_start(log_posterior.select(runs), streams.select(runs.tolist()), chains)
    runs = runs[:count]
    afresh = warm.restarted(runs, selected(warmth, slice(count)), counts[runs])
    return afresh, spent.index_copy(0, runs, steps[:count])


def rounds_due(warm: WarmState, counts: Float[Tensor, "r"]) -> Int[Tensor, "r"]:
    """How many rounds of transitions the chains need: more, the lower their effective sample size.

    With many results, one more hardly moves the posterior, and a transition takes long: a round is
    enough, and steady chains rest until half a percent of the results is new. Chains that started
    anew, given some of many results, still have to move to the posterior given all.
    """
    share, many, afresh = _relative_ess(warm), counts > MANY, warm.moved == 0
    steady = (share >= _STEADY) & ~afresh
    resting = many & steady & (counts - warm.moved < counts / MANY)
    longer = ~(many | steady)
    far = (share < _LEAST_ESS) | (many & afresh)
    return torch.where(far, MOST_ROUNDS, 1 + longer.long() - resting.long())


def drawn_anew(warm: WarmState, streams: Streams) -> tuple[Warmth, Float[Tensor, "r c"]]:
    """The chains, resampled where their weights are uneven, and the weights."""
    log_weight = warm.log_weight
    renewed = _relative_ess(warm) < _STEADY
    own = torch.arange(log_weight.shape[1], device=log_weight.device)
    drawn = resampled(log_weight, streams.uniform(1)[:, 0])
    ancestors = torch.where(renewed[:, None], drawn, own)
    return warm.warmth.of_chains(ancestors), log_weight.masked_fill(renewed[:, None], 0.0)


def latest_draws(
    draws: HyperparameterDraws, before: WarmState | None, moved: Bool[Tensor, "r"], length: int
) -> Float[Tensor, "r c t p"]:
    """The last ``length`` draws of every chain, those of earlier fits included.

    Draws of runs whose chains did not move repeat the last position, and do not count.
    """
    own = by_chain(draws)
    if before is None:
        return own[:, :, -length:]
    more = torch.cat([before.recent, own], 2)
    same = torch.cat([torch.full_like(own, torch.nan), before.recent], 2)
    return torch.where(moved[:, None, None, None], more, same)[:, :, -length:]


def _relative_ess(warm: WarmState) -> Float[Tensor, "r"]:
    """The effective sample size of the weighted chains, as a share of their number."""
    return effective_sample_size(warm.log_weight) / warm.log_weight.shape[1]

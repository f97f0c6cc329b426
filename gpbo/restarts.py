"""Chains that start afresh now and then, so that no mode of a posterior is lost for good.

Warm chains go on from where they ended, fit after fit; a mode that all of them left is one that
none comes back to, however much it weighs by then. So every tenth fit an eighth of a run's chains,
two of sixteen, in turn, may be replaced by chains from dispersed points.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.backend import Streams
from gpbo.evidence import LogPosterior
from gpbo.inference import cold_start
from gpbo.mcmc.sampling import Schedule, Warmth, sample

#: Fits between two restarts, and how many chains there are to one that is restarted.
_EVERY, _SHARE = 10, 8
#: What a chain from a dispersed point has of transitions before it counts: to settle its step
#: size, on the run's mass matrix, and to tell how well it is doing.
_ARRIVAL = Schedule(windows=(), settle=16, draws=8)


def is_due(fits: int) -> bool:
    """Whether chains are restarted in the fit after so many others."""
    return fits > 0 and fits % _EVERY == 0


def restarted(
    warmth: Warmth, log_posterior: LogPosterior, streams: Streams, fits: int
) -> tuple[Warmth, Float[Tensor, "r"]]:
    """The chains, some of them replaced by others from dispersed points; and what that cost.

    One is replaced if the newcomer arrives where there is mass: where its mean log density is not
    less than the median of the run's chains by more than the log of their number. (A mode as wide
    as the others that is lower than that holds less than one chain's share.) A newcomer is given
    the importance weight of the chain that it replaces.

    Args:
        warmth: Chains of the last fit.
        log_posterior: The present density.
        streams: One per run.
        fits: How many fits there were; it says whose turn it is.

    Returns:
        The warmth, and the leapfrog steps of every newcomer.
    """
    runs, chains, _ = warmth.position.shape
    count = max(1, chains // _SHARE)
    start = replace(
        cold_start(log_posterior, streams, count), step_size=warmth.step_size, scale=warmth.scale
    )
    arrived = sample(log_posterior, start, _ARRIVAL, streams)
    here = log_posterior(warmth.position.flatten(0, 1))[0].reshape(runs, chains)
    level = here.median(-1, keepdim=True).values
    welcome = arrived.value.mean(-1) > level - math.log(chains)
    first = (fits // _EVERY - 1) * count
    turn = [(first + place) % chains for place in range(count)]
    position, value = warmth.position.clone(), warmth.value.clone()
    position[:, turn] = torch.where(
        welcome[..., None], arrived.position[:, :, -1], position[:, turn]
    )
    weight = here[:, turn] - value[:, turn]
    value[:, turn] = torch.where(welcome, arrived.value[:, :, -1] - weight, value[:, turn])
    steps = arrived.warmup_steps + arrived.steps.sum(-1).mean(-1)
    return replace(warmth, position=position, value=value), steps

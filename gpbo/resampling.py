"""Chains of the last fit as a weighed sample of the present posterior.

A few observations more change the posterior by their predictive density. That ratio is the
importance weight of a chain; chains are resampled by it, so that modes that do not communicate
keep the shares that they have by now, and what few transitions follow move them (iterated batch
importance sampling, Chopin 2002, Biometrika 89).
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.backend import Streams
from gpbo.evidence import LogPosterior
from gpbo.mcmc.sampling import Warmth

#: A posterior has moved if the last draws, weighed for it, are worth less than this share of them.
_LEAST_WEIGHED = 0.5
#: Weights that leave no more draws than this are no guide to which chains to go on from.
_COLLAPSED = 2.0


def weighed(warmth: Warmth, log_posterior: LogPosterior) -> Float[Tensor, "r c"]:
    """The weight of every chain, of sum 1; NaN for a run none of whose chains has a density now."""
    value, _ = log_posterior(warmth.position.flatten(0, 1))
    ratio = value.reshape(warmth.value.shape) - warmth.value
    # A chain that had no density, and now has one, weighs as much as if nothing had changed.
    ratio = torch.where(torch.isposinf(ratio), 0.0, ratio)
    return torch.softmax(ratio.masked_fill(ratio.isnan(), -torch.inf), dim=-1)


def has_moved(weight: Float[Tensor, "r c"]) -> Bool[Tensor, "r"]:
    """Runs whose last draws represent the present posterior poorly."""
    return ~(_effective(weight) > _LEAST_WEIGHED * weight.shape[1])


def resampled(warmth: Warmth, weight: Float[Tensor, "r c"], streams: Streams) -> Warmth:
    """Chains in numbers proportional to their weights, to within one; survivors stay in place.

    Systematic resampling (Carpenter, Clifford and Fearnhead 1999) in the order of the weights:
    chains of a mode have similar ones, so that its share is right to within one chain. A run whose
    weights have collapsed keeps its chains.

    Args:
        streams: One per run.
    """
    chains = weight.shape[1]
    offset, order = streams.uniform(1), weight.argsort(dim=-1, stable=True)
    ends = (chains * weight.gather(1, order).cumsum(-1) - offset).ceil().clamp(0, chains)
    ends[:, -1] = chains
    ordered = ends.diff(dim=-1, prepend=torch.zeros_like(offset)).long()
    copies = torch.zeros_like(ordered).scatter(1, order, ordered)
    vacant = copies == 0
    # The surplus copies, in order, go to the vacant places, in order.
    surplus = (copies - 1).clamp_min(0).cumsum(-1)
    rank = vacant.cumsum(-1) - 1
    parent = torch.searchsorted(surplus, rank, right=True).clamp_max(chains - 1)
    own = torch.arange(chains, device=weight.device).expand_as(parent)
    usable = (_effective(weight) > min(_COLLAPSED, 0.5 * chains))[:, None]
    index = torch.where(vacant & usable, parent, own)
    position = warmth.position.gather(1, index[..., None].expand_as(warmth.position))
    return replace(warmth, position=position, value=warmth.value.gather(1, index))


def _effective(weight: Float[Tensor, "r c"]) -> Float[Tensor, "r"]:
    """As how many draws without weights they count."""
    return 1 / weight.square().sum(-1)

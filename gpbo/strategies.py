"""What to try next: policy only. A strategy remembers nothing and waits for nobody.

    ExpectedImprovement       "ei"      log expected improvement, averaged over the posterior draws
    ProbabilityOfImprovement  "pi"      log probability of improvement, likewise
    RandomSearch              "random"  uniform in the unit cube
    GridSearch                "grid"    a full-factorial grid
    SobolSearch               "sobol"   a scrambled Sobol sequence

A strategy sees a `Situation` (what ``r`` runs know) and answers with points; everything that it
needs is in there, so one strategy serves `gpbo.Optimizer`, where ``r`` is 1, and many runs at once.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.acquisition import LogExpectedImprovement, LogProbabilityOfImprovement
from gpbo.backend import threads_for
from gpbo.candidates import Search, propose
from gpbo.data import Observations
from gpbo.errors import InvalidOption
from gpbo.feasibility import weighted
from gpbo.model_free import GridSearch, RandomSearch, SobolSearch
from gpbo.situation import Situation, Strategy, one_by_one
from gpbo.surrogate import Surrogate

__all__ = [
    "STRATEGIES",
    "ExpectedImprovement",
    "GridSearch",
    "ProbabilityOfImprovement",
    "RandomSearch",
    "Situation",
    "SobolSearch",
    "Strategy",
    "resolve_strategy",
]

#: Observed points around which the maximum of an acquisition is searched too.
_BEST = 5


@dataclass(frozen=True)
class ExpectedImprovement:
    """The point of greatest expected improvement, in log space, averaged over the draws.

    Points of a batch, and points asked while others are pending, see the others through one
    fantasy per hyperparameter draw.

    Args:
        search: How hard to search the acquisition's maximum.
    """

    search: Search = field(default_factory=Search)
    name: ClassVar[str] = "ei"
    uses_model: ClassVar[bool] = True

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """The maximisers, one after another."""
        return one_by_one(
            situation, count, lambda now: _improve(now, LogExpectedImprovement, self.search)
        )


@dataclass(frozen=True)
class ProbabilityOfImprovement:
    """The point that is most probably better than the incumbent; greedier than `"ei"`.

    Args:
        search: How hard to search the acquisition's maximum.
    """

    search: Search = field(default_factory=Search)
    name: ClassVar[str] = "pi"
    uses_model: ClassVar[bool] = True

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """The maximisers, one after another."""
        return one_by_one(
            situation, count, lambda now: _improve(now, LogProbabilityOfImprovement, self.search)
        )


#: The strategies that can be asked for by name.
STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy
    for strategy in (
        ExpectedImprovement,
        ProbabilityOfImprovement,
        RandomSearch,
        GridSearch,
        SobolSearch,
    )
}


def resolve_strategy(strategy: object) -> Strategy:
    """The strategy of this name, with its defaults; an object that is a strategy as it is.

    Raises:
        InvalidOption: neither a known name nor a strategy.
    """
    if isinstance(strategy, str) and strategy in STRATEGIES:
        return STRATEGIES[strategy]()
    if isinstance(strategy, Strategy) and not isinstance(strategy, type):
        return strategy
    raise InvalidOption(
        f"strategy={strategy!r}: expected one of {', '.join(map(repr, STRATEGIES))}, "
        "or an object such as ExpectedImprovement()"
    )


def _improve(
    situation: Situation,
    acquisition: type[LogExpectedImprovement] | type[LogProbabilityOfImprovement],
    search: Search,
) -> Float[Tensor, "r d"]:
    """The maximiser of an acquisition that looks for improvement, times the chance of a value."""
    data = situation.data
    surrogate = situation.fit().surrogate
    best = _best_points(surrogate, data)
    if data.pending.shape[1]:
        streams = situation.streams("fantasy")
        surrogate = surrogate.fantasize(data.pending, data.pending_mask, streams)
    with threads_for(surrogate.x.shape[1], surrogate.x.device):
        return propose(
            weighted(acquisition(surrogate), data, situation.failed, situation.failed_mask),
            situation.space,
            situation.streams("ascent"),
            best_x=best,
            taken=situation.taken,
            options=search,
        )


def _best_points(surrogate: Surrogate, data: Observations) -> Float[Tensor, "r j d"]:
    """The observed points of least posterior mean (the values themselves may be lucky)."""
    fitted = surrogate.moments(data.x)[0].mean(1)
    order = torch.where(data.mask, fitted, torch.inf).argsort(-1)
    # A run with fewer results repeats its best ones instead of offering padding.
    places = torch.arange(_BEST, device=order.device) % data.counts.clamp(min=1)[:, None]
    order = order.gather(1, places)
    return data.x.gather(1, order.unsqueeze(-1).expand(-1, -1, data.dim))

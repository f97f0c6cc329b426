"""Where posterior functions have their minima: every path its own, all paths in one batch."""

from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.backend import Streams
from gpbo.candidates import Bounds, Ranked, Search, Utility, first_free, maxima
from gpbo.errors import SpaceExhausted
from gpbo.paths import Paths
from gpbo.space import Space

#: Screened points of a path that are starts of its ascents, or stand in for its minimum.
_SHORT_LIST = 128


@dataclass(frozen=True)
class PathUtility:
    """How low the paths are, a row for each path, those of run 0 first.

    Attributes:
        paths: What is to be minimised.
        log_chance: The log of the chance that a point gives a value, per run; None for certain.
    """

    paths: Paths
    log_chance: Utility | None = None

    def at(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "rows b"]:
        """The utility of points of a run to all of its paths."""
        value = -self.paths.at(x)
        if self.log_chance is not None:
            value += self.log_chance(x)[:, None]
        return value.flatten(0, 1)

    def __call__(self, x: Float[Tensor, "rows b d"]) -> Float[Tensor, "rows b"]:
        """The utility of points of its own to each path."""
        return self.value_and_gradient(x)[0]

    def value_and_gradient(
        self, x: Float[Tensor, "rows b d"]
    ) -> tuple[Float[Tensor, "rows b"], Float[Tensor, "rows b d"]]:
        """The utility of points of its own to each path, and its gradient."""
        value, gradient = self.paths.value_and_gradient(x.unflatten(0, (-1, self.paths.count)))
        value, gradient = -value.flatten(0, 1), -gradient.flatten(0, 1)
        if self.log_chance is None:
            return value, gradient
        of_run = x.unflatten(0, (-1, self.paths.count)).flatten(1, 2)
        chance, slope = self.log_chance.value_and_gradient(of_run)
        return value + chance.view(value.shape), gradient + slope.view(gradient.shape)


@torch.no_grad()
def minima(
    utility: PathUtility,
    space: Space,
    streams: Sequence[Streams],
    *,
    raw: Float[Tensor, "r b d"],
    taken: Sequence[AbstractSet[Hashable]],
    search: Search,
    bounds: Bounds | None = None,
) -> Float[Tensor, "r q d"]:
    """The minimum of every path among the legal points that are not taken, all of a run distinct.

    Path ``j`` knows the points of those before it only as taken. There are fewer than ``q``
    points where a run has no more left.

    Args:
        streams: Of every path.
        raw: Points to screen, for all paths of a run.
        taken: Per run, the `Space.key` of every configuration not to propose.
        bounds: Where each run's paths are searched, besides the raw points; the cube if None.

    Raises:
        SpaceExhausted: a run has nothing left to try.
    """
    screened = utility.at(raw).nan_to_num(nan=-torch.inf)
    value, index = screened.topk(min(_SHORT_LIST, raw.shape[1]), dim=1)
    of_path = index.view(raw.shape[0], -1, 1).expand(-1, -1, raw.shape[2])
    short_list = Ranked(raw.gather(1, of_path).view(*index.shape, -1), value)
    rows = Streams.dealt(streams)
    if bounds is not None:
        lower, upper = (end.repeat_interleave(len(streams), 0) for end in bounds)
        bounds = lower, upper
    ranked = maxima(utility, space, rows, short_list, search, bounds)
    return _distinct(ranked, space, rows, taken)


def _distinct(
    ranked: Ranked, space: Space, streams: Streams, taken: Sequence[AbstractSet[Hashable]]
) -> Float[Tensor, "r q d"]:
    """The best free point of every row; rows of a run, one after another, take theirs."""
    winners = ranked.top(1).x.squeeze(1)
    paths = len(winners) // len(taken)
    keys = [space.key(params) for params in space.decode(winners)]
    complete = paths
    for run, already in enumerate(taken):
        used = set(already)
        for j in range(complete):
            row = run * paths + j
            if keys[row] in used:
                own = Ranked(ranked.x[row : row + 1], ranked.value[row : row + 1])
                try:
                    winners[row] = first_free(own, space, streams.select([row]), [used])[0]
                except SpaceExhausted:
                    if j == 0:
                        raise
                    complete = j
                    break
                keys[row] = space.key(space.decode(winners[row : row + 1])[0])
            used.add(keys[row])
    return winners.view(len(taken), paths, -1)[:, :complete]

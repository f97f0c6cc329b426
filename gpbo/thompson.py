"""Where posterior functions have their minima: every path its own, all paths in one batch."""

from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.backend import DTYPE, Streams
from gpbo.candidates import Ranked, Search, Utility, first_free, maxima
from gpbo.errors import SpaceExhausted
from gpbo.memory import budget
from gpbo.paths import Paths
from gpbo.space import Space

#: At least so many screened points of a path may be starts of its ascents, or its minimum.
_SHORT_LIST = 128
#: Paths are searched so many at a time that what their ascents remember, this many numbers for each
#: start and dimension, takes at most so much in all: 100 MB, or four times what one temporary
#: tensor may take of a GPU's memory.
_NUMBERS_OF_A_START = 20
_CPU_NUMBERS, _GPU_TENSORS = 100 * 2**17, 4


@dataclass(frozen=True)
class PathUtility:
    """How low the paths are, a row for each path, those of run 0 first.

    Attributes:
        paths: What is to be minimised.
        log_chance: The log of the chance that a point gives a value, per run; None for certain.
    """

    paths: Paths
    log_chance: Utility | None = None

    def roughly(self) -> "PathUtility":
        """The same, some 1e-6 of the paths' spread off, in half the time."""
        return replace(self, paths=replace(self.paths, rough=True))

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


@dataclass(frozen=True)
class Within:
    """Where each path is searched, if not in the whole cube.

    Attributes:
        lower, upper: Ends of its box.
        holds: Which of the raw points lie in it.
    """

    lower: Float[Tensor, "r q d"]
    upper: Float[Tensor, "r q d"]
    holds: Bool[Tensor, "q b"]

    def part(self, paths: slice) -> "Within":
        """Of these paths."""
        return Within(self.lower[:, paths], self.upper[:, paths], self.holds[paths])


@torch.no_grad()
def minima(
    utility: PathUtility,
    space: Space,
    streams: Sequence[Streams],
    *,
    raw: Float[Tensor, "r b d"],
    taken: Sequence[AbstractSet[Hashable]],
    search: Search,
    within: Within | None = None,
) -> Float[Tensor, "r q d"]:
    """The minimum of every path among the legal points that are not taken, all of a run distinct.

    Path ``j`` knows the points of those before it only as taken. There are fewer than ``q``
    points where a run has no more left.

    Args:
        streams: Of every path.
        raw: Points to screen, for all paths of a run.
        taken: Per run, the `Space.key` of every configuration not to propose.
        within: Where each path is searched; the cube if None.

    Raises:
        SpaceExhausted: a run has nothing left to try.
    """
    runs, _, dim = raw.shape
    each = _NUMBERS_OF_A_START * max(search.restarts, search.scouts) * dim * runs
    found, first = [], 0
    for paths in utility.paths.parts(_most(raw.device) // each):
        some = slice(first, first + paths.count)
        part, confined = replace(utility, paths=paths), within and within.part(some)
        ranked = _searched(part, space, streams[some], raw, search, confined)
        found.append([tensor.unflatten(0, (runs, -1)) for tensor in (ranked.x, ranked.value)])
        first += paths.count
    x, value = (torch.cat(parts, 1).flatten(0, 1) for parts in zip(*found, strict=True))
    return _distinct(Ranked(x, value), space, Streams.dealt(streams), taken)


def _most(device: torch.device) -> int:
    if device.type == "cpu":
        return _CPU_NUMBERS
    return _GPU_TENSORS * budget(device) // DTYPE.itemsize


def _searched(
    utility: PathUtility,
    space: Space,
    streams: Sequence[Streams],
    raw: Float[Tensor, "r b d"],
    search: Search,
    within: Within | None,
) -> Ranked:
    """Legal points of every path, a row each, among them its minimum."""
    screened = utility.at(raw).nan_to_num(nan=-torch.inf)
    bounds = None
    if within is not None:
        outside = ~within.holds.repeat(raw.shape[0], 1)
        screened = screened.masked_fill(outside, -torch.inf)
        bounds = within.lower.flatten(0, 1), within.upper.flatten(0, 1)
    kept = max(_SHORT_LIST, 2 * max(search.scouts, search.restarts))
    value, index = screened.topk(min(kept, raw.shape[1]), dim=1)
    of_path = index.view(raw.shape[0], -1, 1).expand(-1, -1, raw.shape[2])
    short_list = Ranked(raw.gather(1, of_path).view(*index.shape, -1), value)
    rows = Streams.dealt(streams)
    return maxima(utility, space, rows, short_list, search, bounds, utility.roughly())


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

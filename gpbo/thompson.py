"""The minima of functions drawn from the posterior, all paths in one batch."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import repeat

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.backend import DTYPE, Streams
from gpbo.candidates import Ranked, Search, Utility, first_free, maxima
from gpbo.errors import SpaceExhausted
from gpbo.memory import budget
from gpbo.paths import Paths
from gpbo.rows import selected
from gpbo.space import Space
from gpbo.trust_region import Boxes

#: At least this many screened points of a path may start its ascents, or be its minimum.
_SHORT_LIST = 128
#: A gain on the best point is at least this, in standard deviations of the values.
_LEAST_GAIN = 1e-4
#: A gain in another basin is also at least this share of its lowest point's height above the best.
_LEAST_SHARE = 0.01
#: A quantity this far beyond its limit, in its standard deviations, costs a path one half.
_BEYOND = 3e-3
#: Ascents begin with these multiples of it, in turn.
_EASIER = (30.0, 10.0, 3.0)
#: Paths are searched in parts whose ascents remember, with this many numbers per start and
#: dimension, at most 100 MB in all on a CPU, or twice what one temporary tensor may take on a GPU.
#: The graph of an iteration keeps several times as much, and there are two, as the last part has
#: fewer paths.
_NUMBERS_OF_A_START = 20
_CPU_NUMBERS, _GPU_TENSORS = 100 * 2**17, 2


@dataclass(frozen=True)
class DrawnLimits:
    """Functions drawn for the quantities that constraints limit, one of each for every path.

    Attributes:
        paths: The functions, a row for each constraint of each run, those of run 0 first.
        most: The upper limit of each quantity, a row for each run.
        beyond: A quantity this far beyond its limit costs a path one half.
    """

    paths: Paths
    most: Float[Tensor, "r k"]
    beyond: Float[Tensor, ""]

    @classmethod
    def of(cls, paths: Paths, most: Float[Tensor, "r k"]) -> "DrawnLimits":
        """Limits so steep that a minimum is hardly beyond them."""
        return cls(paths, most, most.new_full((), _BEYOND))

    def parts(self, most: int) -> Iterator["DrawnLimits"]:
        """As those of the paths."""
        return (replace(self, paths=paths) for paths in self.paths.parts(most))

    def at(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r q b"]:
        """The cost of points of a run to each of its paths, for exceeding the limits."""
        cost, _ = self._cost(self.paths.at(x.repeat_interleave(self.most.shape[1], 0)))
        return cost.unflatten(0, self.most.shape).sum(1)

    def value_and_gradient(
        self, x: Float[Tensor, "r q b d"]
    ) -> tuple[Float[Tensor, "r q b"], Float[Tensor, "r q b d"]]:
        """The cost to each path of points of its own, and its gradient."""
        rows = x.repeat_interleave(self.most.shape[1], 0)
        value, gradient = self.paths.value_and_gradient(rows)
        cost, slope = self._cost(value)
        cost, gradient = (
            each.unflatten(0, self.most.shape).sum(1)
            for each in (cost, slope[..., None] * gradient)
        )
        return cost, gradient

    def _cost(
        self, value: Float[Tensor, "rows q b"]
    ) -> tuple[Float[Tensor, "rows q b"], Float[Tensor, "rows q b"]]:
        """Half the square of the excess, in units of ``beyond``, and its slope."""
        excess = (value - self.most.flatten()[:, None, None]).clamp(min=0.0) / self.beyond
        return excess.square() / 2, excess / self.beyond


@dataclass(frozen=True)
class PathUtility:
    """How low the paths are, a row for each path, those of run 0 first.

    Attributes:
        paths: What is to be minimised.
        log_chance: The log probability that a point gives a value, per run, plus a small multiple
            of that of meeting the constraints; None if certain.
        limits: The limits as drawn, if there are constraints.
    """

    paths: Paths
    log_chance: Utility | None = None
    limits: DrawnLimits | None = None

    def parts(self, most: int) -> Iterator["PathUtility"]:
        """As those of the paths."""
        limits = repeat(None) if self.limits is None else self.limits.parts(most)
        for paths, limited in zip(self.paths.parts(most), limits, strict=False):
            yield replace(self, paths=paths, limits=limited)

    def roughly(self) -> "PathUtility":
        """The paths in single precision, in half the time; the limits are too steep for it."""
        return replace(self, paths=replace(self.paths, rough=True))

    def easier(self) -> list["PathUtility"]:
        """What ascents climb one after another before this one, where there are limits.

        Along a steep limit an ascent creeps, and ends long before the minimum if the path is flat
        there. Along a softer limit it does not, and it then follows the minimum as the limit gets
        steeper: the quadratic penalty method (Nocedal and Wright 2006, framework 17.1).
        """
        limits = self.limits
        if limits is None:
            return []
        eased = [replace(limits, beyond=times * limits.beyond) for times in _EASIER]
        return [replace(self, limits=each) for each in eased]

    def at(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "rows b"]:
        """The utility of points of a run to all of its paths."""
        value = -self.paths.at(x)
        if self.log_chance is not None:
            value += self.log_chance(x)[:, None]
        if self.limits is not None:
            value -= self.limits.at(x)
        return value.flatten(0, 1)

    def __call__(self, x: Float[Tensor, "rows b d"]) -> Float[Tensor, "rows b"]:
        """The utility of points of its own to each path."""
        return self.value_and_gradient(x)[0]

    def value_and_gradient(
        self, x: Float[Tensor, "rows b d"]
    ) -> tuple[Float[Tensor, "rows b"], Float[Tensor, "rows b d"]]:
        """The utility of points of its own to each path, and its gradient."""
        own = x.unflatten(0, (-1, self.paths.count))
        value, gradient = self.paths.value_and_gradient(own)
        if self.limits is not None:
            cost, slope = self.limits.value_and_gradient(own)
            value, gradient = value + cost, gradient + slope
        value, gradient = -value.flatten(0, 1), -gradient.flatten(0, 1)
        if self.log_chance is None:
            return value, gradient
        chance, slope = self.log_chance.value_and_gradient(own.flatten(1, 2))
        return value + chance.view(value.shape), gradient + slope.view(gradient.shape)


@dataclass(frozen=True)
class Confined:
    """Paths that are searched in boxes.

    Attributes:
        boxes: The boxes.
        numbers: The path's number, which says in which box it is searched.
        pending: How many trials are under way when the path's minimum is asked for.
        place: Puts the raw points ``[r, b, d]`` in boxes, in turn.
    """

    boxes: Boxes
    numbers: Int[Tensor, "r q"]
    pending: Int[Tensor, "r q"]
    place: Callable[[Boxes], Tensor]

    def part(self, paths: slice) -> "Confined":
        """The part for these paths."""
        return replace(self, numbers=self.numbers[:, paths], pending=self.pending[:, paths])


@torch.no_grad()
def minima(
    utility: PathUtility,
    space: Space,
    streams: Sequence[Streams],
    *,
    raw: Float[Tensor, "r b d"],
    taken: Sequence[AbstractSet[Hashable]],
    search: Search,
    confined: Confined | None = None,
    distinct: bool = True,
) -> Float[Tensor, "r q d"]:
    """The minimum of every path among the legal points that are not taken, all of a run distinct.

    Path ``j`` depends on the points of earlier paths only as taken ones, or not at all if minima
    need not be distinct. There are fewer than ``q`` points if a run has no more left.

    Args:
        streams: Of every path.
        raw: Points to screen, for all paths of a run.
        taken: Per run, the `Space.key` of every configuration not to propose.
        confined: Where each path is searched; the cube if None.
        distinct: Whether no two minima of a run may be the same.

    Raises:
        SpaceExhausted: a run has nothing left to try.
    """
    runs, _, dim = raw.shape
    each = _NUMBERS_OF_A_START * max(search.restarts, search.scouts) * dim * runs
    found, first = [], 0
    for searched in utility.parts(_most(raw.device) // each):
        some = slice(first, first + searched.paths.count)
        part = _PathSearch(searched, space, Streams.dealt(streams[some]), search)
        screened = part.screened(raw)
        ranked = (
            part.anywhere(raw, screened)
            if confined is None
            else part.in_boxes(raw, screened, confined.part(some))
        )
        # In a finite space the minima may all be taken, and most raw points are the same few ones.
        spare = screened if space.size is not None else screened[:, :0]
        parts = (ranked.x, ranked.value, spare)
        found.append([tensor.unflatten(0, (runs, -1)) for tensor in parts])
        first += searched.paths.count
    x, value, spare = (torch.cat(parts, 1).flatten(0, 1) for parts in zip(*found, strict=True))
    ranked, of_rows = Ranked(x, value), Streams.dealt(streams)
    spares = [
        Ranked(raw[row // len(streams)][None], spare[row : row + 1])
        for row in range(len(spare))
        if spare.shape[1]
    ]
    if distinct:
        return _distinct(ranked, space, of_rows, taken, spares)
    of_paths = [keys for keys in taken for _ in streams]
    return first_free(ranked, space, of_rows, of_paths, spares).unflatten(0, (runs, -1))


def _most(device: torch.device) -> int:
    if device.type == "cpu":
        return _CPU_NUMBERS
    return _GPU_TENSORS * budget(device) // DTYPE.itemsize


@dataclass(frozen=True)
class _PathSearch:
    """The search for the minima of some paths: ranked legal points, a row for each path."""

    utility: PathUtility
    space: Space
    streams: Streams
    search: Search

    def anywhere(self, raw: Float[Tensor, "r b d"], screened: Float[Tensor, "rows b"]) -> Ranked:
        """In the whole cube."""
        return self._climbed(self.streams, raw, screened)

    def in_boxes(
        self, raw: Float[Tensor, "r b d"], screened: Float[Tensor, "rows b"], confined: Confined
    ) -> Ranked:
        """In the box of each path; in another basin if there is nothing new in its box."""
        boxes, numbers = confined.boxes, confined.numbers
        found = self._within(boxes, numbers, self.streams, raw, screened)
        if boxes.elsewhere is None:
            return found
        # Even if not needed, so that the streams of a row do not depend on other rows.
        streams = self.streams.spawn()
        at_best = self.utility.at(boxes.centre)
        idle = self._finds_nothing_new(found.top(1), at_best, confined)
        if not bool(idle.any()):
            return found
        others = boxes.elsewhere()
        raw = confined.place(others)
        screened = self.screened(raw)
        chosen, gains = self._chosen(others, at_best, screened)
        leaves = idle & gains
        if not bool(leaves.any()):
            return found
        second = self._within(others, chosen, streams, raw, screened)
        return found.replaced(leaves.view(-1, 1), second)

    def _finds_nothing_new(
        self, minimum: Ranked, at_best: Float[Tensor, "rows 1"], confined: Confined
    ) -> Bool[Tensor, "r q"]:
        """Whether a path's box has nothing new: its minimum is hardly lower than the best point, or
        lies in the next shorter box, where other paths are searched.
        """
        boxes, numbers = confined.boxes, confined.numbers
        gain = minimum.value - at_best
        count, x = boxes.lower.shape[1], minimum.x.view(*numbers.shape, -1)
        lower, upper = boxes.of(numbers)
        next_lower, next_upper = boxes.of((numbers % count + 1).clamp(max=count - 1))
        shorter = ((next_lower > lower) | (next_upper < upper)).any(-1)
        agrees = shorter & ((x >= next_lower) & (x <= next_upper)).all(-1)
        # With fewer trials under way, no other path may be searching the next shorter box.
        return (gain.view(numbers.shape) < _LEAST_GAIN) | agrees & (confined.pending >= count)

    def _chosen(
        self, others: Boxes, at_best: Float[Tensor, "rows 1"], screened: Float[Tensor, "rows b"]
    ) -> tuple[Int[Tensor, "r q"], Bool[Tensor, "r q"]]:
        """Around which of the other points to search each path, and whether it gains at any.

        A path gains at a point if it is lower near the point than at it, by more than a small share
        of the point's height above the best one. It is searched where it is lowest.
        """
        at_point = self.utility.at(others.centre)
        point = torch.arange(screened.shape[1], device=screened.device) % others.points
        nothing = torch.full_like(at_point, -torch.inf)
        best = nothing.scatter_reduce(1, point.expand_as(screened), screened, "amax")
        height = at_best - at_point
        gains = best - at_point > (_LEAST_SHARE * height).clamp(min=_LEAST_GAIN)
        possible = gains & others.present.repeat_interleave(self.utility.paths.count, 0)
        shape = len(others.centre), -1
        chosen = torch.where(possible, best, -torch.inf).argmax(1).view(shape)
        return chosen, possible.any(1).view(shape)

    def screened(self, raw: Float[Tensor, "r b d"]) -> Float[Tensor, "rows b"]:
        """The utility of the raw points of a run to all of its paths, in boxes or not."""
        return self.utility.at(raw).nan_to_num(nan=-torch.inf)

    def _within(
        self,
        boxes: Boxes,
        numbers: Int[Tensor, "r q"],
        streams: Streams,
        raw: Float[Tensor, "r b d"],
        screened: Float[Tensor, "rows b"],
    ) -> Ranked:
        """In the boxes with these numbers."""
        outside = ~boxes.holds(numbers, raw.shape[1]).flatten(0, 1)
        lower, upper = boxes.of(numbers)
        bounds = lower.flatten(0, 1), upper.flatten(0, 1)
        return self._climbed(streams, raw, screened.masked_fill(outside, -torch.inf), bounds)

    def _climbed(
        self,
        streams: Streams,
        raw: Float[Tensor, "r b d"],
        screened: Float[Tensor, "rows b"],
        bounds: tuple[Float[Tensor, "rows d"], Float[Tensor, "rows d"]] | None = None,
    ) -> Ranked:
        """Where ascents from the best raw points of each path end, and these points."""
        kept = max(_SHORT_LIST, 2 * max(self.search.scouts, self.search.restarts))
        value, index = screened.topk(min(kept, raw.shape[1]), dim=1)
        of_paths = raw.take_along_dim(index.view(raw.shape[0], -1, 1), 1)
        starts = Ranked(of_paths.view(*index.shape, -1), value)
        utility, rough = self.utility, self.utility.roughly()
        easier = utility.easier()
        return maxima(utility, self.space, streams, starts, self.search, bounds, rough, easier)


def _distinct(
    ranked: Ranked,
    space: Space,
    streams: Streams,
    taken: Sequence[AbstractSet[Hashable]],
    spare: Sequence[Ranked],
) -> Float[Tensor, "r q d"]:
    """The best free point of every row; the rows of a run take theirs one after another."""
    winners = ranked.top(1).x.squeeze(1)
    paths = len(winners) // len(taken)
    keys = [space.key(params) for params in space.decode(winners)]
    complete = paths
    for run, already in enumerate(taken):
        used = set(already)
        for j in range(complete):
            row = run * paths + j
            if keys[row] in used:
                own = selected(ranked, slice(row, row + 1))
                one = streams.select([row])
                try:
                    winners[row] = first_free(own, space, one, [used], spare[row : row + 1])[0]
                except SpaceExhausted:
                    if j == 0:
                        raise
                    complete = j
                    break
                keys[row] = space.key(space.decode(winners[row : row + 1])[0])
            used.add(keys[row])
    return winners.view(len(taken), paths, -1)[:, :complete]

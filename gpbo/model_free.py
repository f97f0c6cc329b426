"""Strategies without a model: random, grid and Sobol search."""

import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo import design
from gpbo.checks import settle, truth_value, whole_number
from gpbo.errors import InvalidOption, SpaceExhausted
from gpbo.situation import Situation, one_by_one
from gpbo.space import Space

#: ``points(skip, count)``: consecutive points of a sequence, per run.
Consecutive = Callable[[int, int], Float[Tensor, "r count d"]]

#: Points of a sequence that are checked at once in search of a new one: the first nearly always is,
#: and in a nearly used-up space 256 are enough before it is enumerated.
_CHUNKS = (1, 15, 240)
#: Configurations among which a replacement is drawn if nearly all of a finite space is taken.
_REPLACEMENTS = 10_000
#: A shuffled grid is a permutation held in memory.
_LARGEST_GRID = 1_000_000


@dataclass(frozen=True)
class RandomSearch:
    """Uniform points of the unit cube: log parameters uniform in the logarithm, and so on."""

    name = "random"
    uses_model = False

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """Independent points, drawn again while they are taken."""
        return one_by_one(situation, count, self._one)

    def _one(self, situation: Situation) -> Float[Tensor, "r d"]:
        streams = situation.streams("random")
        return _first_new(situation, lambda _, count: streams.uniform(count, situation.space.dim))


@dataclass(frozen=True)
class SobolSearch:
    """The run's own scrambled Sobol sequence: it fills the cube more evenly than random points.

    The initial design of the strategies with a model is this sequence too.
    """

    name = "sobol"
    uses_model = False

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """Trial ``i`` gets point ``i``, or the first later one that is not taken."""
        return one_by_one(situation, count, _next_of_sequence)


@dataclass(frozen=True)
class RepeatingSobol:
    """The initial design of a strategy that ``repeats``.

    It is the sequence of `SobolSearch`; in a run that has used up a finite space, configurations
    that did not fail are free again.
    """

    name = "sobol"
    uses_model = False
    repeats = True

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """Like `SobolSearch`."""
        return one_by_one(situation, count, lambda now: _next_of_sequence(_reopened(now)))


@dataclass(frozen=True)
class GridSearch:
    """A full-factorial grid over all parameters.

    Args:
        points_per_real: How many values each real parameter has, both bounds among them. Integers
            have as many, or all their values if these are fewer; ordinals and categoricals have
            all.
        shuffle: Go through the grid in random order, different in each run, so that a search that
            ends early has covered the whole space thinly instead of one corner; at most a million
            points. Otherwise in order, the last parameter changing fastest.

    Raises:
        InvalidOption: ``points_per_real`` is not a whole number, or below 2; ``shuffle`` is neither
            True nor False. On the first `Optimizer.ask`: the grid is too large to shuffle.
    """

    points_per_real: int = 5
    shuffle: bool = True
    name = "grid"
    uses_model = False

    def __post_init__(self) -> None:
        settle(self, "points_per_real", whole_number, least=2)
        truth_value("shuffle", self.shuffle)

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """The next points of the grid that are not taken.

        Raises:
            SpaceExhausted: the grid is used up.
            InvalidOption: the grid is too large to be shuffled.
        """
        levels = [p.grid(self.points_per_real) for p in situation.space.parameters]
        order = self._order(situation, math.prod(map(len, levels)))
        return one_by_one(situation, count, lambda now: _next_on_grid(now, levels, order))

    def _order(self, situation: Situation, size: int) -> list[list[int]] | None:
        if not self.shuffle:
            return None
        if size > _LARGEST_GRID:
            raise InvalidOption(
                f"points_per_real={self.points_per_real}: the grid has {size} points, expected "
                f"at most {_LARGEST_GRID} with shuffle=True; lower points_per_real or set "
                "shuffle=False"
            )
        return situation.streams("grid", index=0).uniform(size).argsort(-1).tolist()


def _reopened(situation: Situation) -> Situation:
    """In runs that have taken all configurations, count only those that failed as taken."""
    size = situation.space.size
    both = zip(situation.taken, situation.closed(repeats=True), strict=True)
    left = (taken if size is None or len(taken) < size else failed for taken, failed in both)
    return replace(situation, taken=tuple(left))


def _next_of_sequence(situation: Situation) -> Float[Tensor, "r d"]:
    """Each run's point with the number of the trial, or the first later one that is not taken."""

    def sequence(skip: int, count: int) -> Float[Tensor, "r count d"]:
        streams = situation.streams("sobol", index=0)
        return design.sobol(count, situation.space.dim, streams, situation.index + skip)

    return _first_new(situation, sequence)


def _first_new(situation: Situation, sequence: Consecutive) -> Float[Tensor, "r d"]:
    """Each run's first point of ``sequence(skip, count)`` that snaps to something not taken.

    Raises:
        SpaceExhausted: a run has taken everything.
    """
    space = situation.space
    chosen: list[Tensor | None] = [None] * situation.data.runs
    skip = 0
    for chunk in _CHUNKS:
        points = space.snap(sequence(skip, chunk))
        for run, taken in enumerate(situation.taken):
            if chosen[run] is None:
                keys = [space.key(params) for params in space.decode(points[run])]
                new = next((j for j, key in enumerate(keys) if key not in taken), None)
                chosen[run] = None if new is None else points[run, new]
        if all(point is not None for point in chosen):
            break
        skip += chunk
    streams = situation.streams("replacement")
    ranks = streams.uniform()
    return torch.stack(
        [
            _any_left(space, situation.taken[run], float(ranks[run])).to(ranks.device)
            if point is None
            else point
            for run, point in enumerate(chosen)
        ]
    )


def _any_left(space: Space, taken: frozenset[Hashable], rank: float) -> Float[Tensor, " d"]:
    """One of the configurations left in a nearly used-up space: the ``rank`` in [0, 1) says which.

    Raises:
        SpaceExhausted: nothing is left.
    """
    everything = () if space.size is None else space.grid(max(2, space.size))
    free = (params for params in everything if space.key(params) not in taken)
    left = list(itertools.islice(free, _REPLACEMENTS))
    if not left:
        every_one = "nearly all" if space.size is None else f"all {space.size}"
        raise SpaceExhausted(f"{every_one} configurations of the space were tried or are pending")
    return space.encode([left[int(rank * len(left))]])[0]


def _is_free(params: dict[str, Any], space: Space, taken: frozenset[Hashable]) -> bool:
    """Whether the configuration is not taken, neither as it is nor as a trial would round it."""
    return space.key(params) not in taken and space.key(space.round_trip(params)) not in taken


def _next_on_grid(
    situation: Situation, levels: list[list[Any]], order: list[list[int]] | None
) -> Float[Tensor, "r d"]:
    """Each run's first grid point, in its order, that is not taken.

    Raises:
        SpaceExhausted: a run has taken the whole grid.
    """
    space = situation.space
    size = math.prod(map(len, levels))
    chosen = []
    for run, taken in enumerate(situation.taken):
        numbers = range(size) if order is None else order[run]
        points = (_grid_point(space, levels, number) for number in numbers)
        point = next((params for params in points if _is_free(params, space, taken)), None)
        if point is None:
            raise SpaceExhausted(f"all {size} points of the grid were tried or are pending")
        chosen.append(point)
    return space.encode(chosen).to(situation.data.x.device)


def _grid_point(space: Space, levels: list[list[Any]], number: int) -> dict[str, Any]:
    """Point ``number`` of the full-factorial design, the last parameter changing fastest."""
    values = []
    for level in reversed(levels):
        number, place = divmod(number, len(level))
        values.append(level[place])
    return dict(zip(space.names, reversed(values), strict=True))

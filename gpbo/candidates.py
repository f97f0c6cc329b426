"""Which configuration to try: the maximum of a utility over a space.

Raw points (a scrambled Sobol set, and small perturbations of the best points seen) are screened;
from the promising ones a batched ascent climbs in the unit cube, ordered columns relaxed and
one-hot columns pinned; what it finds is snapped to the space, improved over the discrete
neighbours, and polished in the continuous columns. No configuration that was tried before, compared
in user units, is proposed again.
"""

import logging
import operator
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.ascent import maximize
from gpbo.backend import Streams
from gpbo.checks import settle, whole_number
from gpbo.design import sobol
from gpbo.errors import InvalidOption, SpaceExhausted
from gpbo.rows import selected
from gpbo.space import Space

logger = logging.getLogger("gpbo")

# Perturbations have a standard deviation between these, log-uniform, in units of the cube.
_LEAST_SPREAD, _LARGEST_SPREAD = 1e-3, 1e-1
# Starts that are not the very best are drawn with probability exp(-_COLDNESS g), where g is the
# gap to the best value in units of the gap between the best and the median.
_COLDNESS = 6.0
# How many finalists try their discrete neighbours and are polished in the continuous columns; the
# most moves of each; how often both are done, as long as they gain anything.
_FINALISTS, _MOVES, _ROUNDS = 4, 10, 2
# Iterations after which scouts are compared, and the divisor of the number that continue.
_SCOUTING, _GOING_ON = 10, 4
# In a finite space, around how many points to look for the next best if the best is taken.
_EXPANSIONS = 20
# Random points that are tried before configurations are enumerated.
_RANDOM = 64
# An ascent ends where the utility is exact to this: log EI differs more between draws, and a
# utility in single precision is no more exact.
_TOLERANCE, _GAIN_TOLERANCE = 1e-5, 1e-6


#: Lower and upper ends of the coordinates, a row for each row of points.
Bounds: TypeAlias = tuple[Float[Tensor, "r d"], Float[Tensor, "r d"]]


@runtime_checkable
class Utility(Protocol):
    """What a point is worth, per run; see `gpbo.acquisition`."""

    def __call__(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
        """The values; NaN or -inf for a point that cannot be judged."""
        ...

    def value_and_gradient(
        self, x: Float[Tensor, "r b d"]
    ) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b d"]]:
        """The values and their gradients."""
        ...


@dataclass(frozen=True)
class Search:
    """How hard to search for the maximum of a utility.

    Args:
        raw: Sobol points to screen.
        perturbed: Perturbations of the best points to screen too.
        restarts: Screened points from which an ascent starts.
        iterations: The most iterations of an ascent; each is one evaluation of all restarts.
        scouts: Screened points from which rough ascents are made first, to find the restarts; the
            best quarter after a few iterations continues. Scouts are used only if there are more of
            them than restarts.

    Raises:
        InvalidOption: one is not a whole number or is negative, ``raw`` or ``restarts`` is 0, or
            ``restarts`` or ``scouts`` exceeds ``raw``.
    """

    raw: int = 512
    perturbed: int = 64
    restarts: int = 16
    iterations: int = 60
    scouts: int = 0

    def __post_init__(self) -> None:
        for name in ("raw", "restarts"):
            settle(self, name, whole_number, least=1)
        for name in ("perturbed", "iterations", "scouts"):
            settle(self, name, whole_number, least=0)
        for name in ("restarts", "scouts"):
            if (starts := getattr(self, name)) > self.raw:
                raise InvalidOption(f"{name}={starts!r}: expected at most raw={self.raw!r}")


@dataclass(frozen=True)
class Ranked:
    """Points with their values, NaN counted as the least."""

    x: Float[Tensor, "r b d"]
    value: Float[Tensor, "r b"]

    @classmethod
    def of(cls, x: Float[Tensor, "r b d"], value: Float[Tensor, "r b"]) -> "Ranked":
        """Points with the values that a utility gave them, which may be NaN."""
        return cls(x, value.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf))

    def joined(self, other: "Ranked") -> "Ranked":
        """These points and the others."""
        x, value = torch.cat([self.x, other.x], 1), torch.cat([self.value, other.value], 1)
        return Ranked(x, value)

    def at(self, index: Int[Tensor, "r j"]) -> "Ranked":
        """The points at these places of each row."""
        return Ranked(self.x.take_along_dim(index[..., None], 1), self.value.gather(1, index))

    def top(self, count: int) -> "Ranked":
        """The best of each row, best first."""
        return self.at(self.value.topk(min(count, self.value.shape[1]), dim=1).indices)

    def replaced(self, chosen: Bool[Tensor, "r #b"], other: "Ranked") -> "Ranked":
        """These points, with the chosen ones replaced by the others."""
        x = torch.where(chosen.unsqueeze(-1), other.x, self.x)
        return Ranked(x, torch.where(chosen, other.value, self.value))

    def with_value(self) -> Float[Tensor, "b d"]:
        """The points of the only row that have a value, best first."""
        ordered = self.top(self.value.shape[1])
        return ordered.x[0, ~ordered.value[0].isneginf()]


@torch.no_grad()
def propose(
    utility: Utility,
    space: Space,
    streams: Streams,
    *,
    best_x: Float[Tensor, "r j d"],
    taken: Sequence[AbstractSet[Hashable]],
    search: Search | None = None,
    any_scale: bool = False,
) -> Float[Tensor, "r d"]:
    """Each run's legal point of greatest utility among those not taken.

    Args:
        best_x: points to perturb, such as the best observed ones; may be none.
        taken: per run, the `Space.key` of every configuration not to propose.
        search: by default ``Search()``.
        any_scale: whether the utility may be of any magnitude, unlike a logarithm.

    Raises:
        SpaceExhausted: a run has taken every configuration of a finite space.
    """
    search = search or Search()
    raw = _ranked(utility, raw_points(space, streams, best_x, search))
    if bool(raw.value.isneginf().all(1).any()):
        points = raw.value.shape[1]
        logger.warning("the acquisition function is NaN or -inf at all %d points tried", points)
    if any_scale:
        utility, raw = _rescaled(utility, raw)
    found = maxima(utility, space, streams, raw, search)
    if space.size is not None:
        found = _around_taken(utility, space, found, taken)
    return first_free(found, space, streams, taken)


def _rescaled(utility: Utility, raw: Ranked) -> tuple[Utility, Ranked]:
    """Both rescaled: the best raw point is at 0, and the median at -1 or below.

    The tolerances of ascents are meant for values that differ by 1 or more.
    """
    best, median = raw.value.amax(1), raw.value.median(1).values
    gap = best - median
    scale = torch.where((gap > 0) & gap.isfinite(), gap, 1.0).clamp(max=1.0)
    shift = torch.where(best.isfinite(), best, 0.0)
    value = (raw.value - shift[:, None]) / scale[:, None]
    return _Rescaled(utility, shift[:, None], scale[:, None]), Ranked(raw.x, value)


def maxima(
    utility: Utility,
    space: Space,
    streams: Streams,
    raw: Ranked,
    search: Search,
    bounds: Bounds | None = None,
    rough: Utility | None = None,
    easier: Sequence[Utility] = (),
) -> Ranked:
    """The points where ascents from the promising raw points end, joined by the raw points; the
    best of both improved where some parameters are discrete.

    Args:
        bounds: Lower and upper bounds of each row's ascents; by default the cube's.
        rough: What scouts climb, if not the utility itself.
        easier: What ascents climb before the utility, one after another.
    """
    starts = _pick_starts(raw, max(search.restarts, search.scouts), streams)
    if search.scouts > search.restarts:
        starts = _scouted(rough or utility, space, starts, search, bounds)
    ends = starts
    for each in (*easier, utility):
        ends = _ascend(each, ends.x, space.movable, search.iterations, bounds)
    if easier:  # they may have led astray
        ends = ends.joined(_ranked(utility, starts.x))
    if all(kind == "continuous" for kind in space.kinds):
        return ends.joined(raw)
    # Snapped, the end of an ascent may be worse than a raw point, which is legal already.
    legal = _ranked(utility, space.snap(ends.x)).joined(raw)
    return _improved(utility, space, legal.top(_FINALISTS), search, bounds).joined(legal)


def _scouted(
    utility: Utility, space: Space, starts: Ranked, search: Search, bounds: Bounds | None
) -> Ranked:
    """The best ends of rough ascents, as many as there are restarts."""
    going_on = max(search.restarts, starts.x.shape[1] // _GOING_ON)
    scouts = _ascend(utility, starts.x, space.movable, _SCOUTING, bounds).top(going_on)
    ends = _ascend(utility, scouts.x, space.movable, search.iterations, bounds)
    return ends.top(search.restarts)


def first_free(
    ranked: Ranked,
    space: Space,
    streams: Streams,
    taken: Sequence[AbstractSet[Hashable]],
    spare: Sequence[Ranked] = (),
) -> Float[Tensor, "r d"]:
    """Each row's best point that is not taken: a ranked one, else a spare one, else a random one,
    else one of a grid.

    Args:
        spare: For each row, if given, points that come after all ranked ones that have a value.

    Raises:
        SpaceExhausted: a row has taken every configuration of a finite space.
    """
    winner, clashes = _winners(ranked, space, taken)
    if not any(clashes):
        return winner
    anywhere = space.snap(streams.uniform(_RANDOM, space.dim))

    def next_best(run: int) -> Float[Tensor, " d"]:
        tiers = [selected(ranked, slice(run, run + 1)), *spare[run : run + 1]]
        known = [tier.with_value() for tier in tiers]
        return _first_free(torch.cat([*known, anywhere[run]]), space, taken[run])

    return torch.stack(
        [next_best(run) if clash else winner[run] for run, clash in enumerate(clashes)]
    )


def _winners(
    ranked: Ranked, space: Space, taken: Sequence[AbstractSet[Hashable]]
) -> tuple[Float[Tensor, "r d"], list[bool]]:
    """The best point of each row, and whether it is taken."""
    winner = ranked.top(1).x.squeeze(1)
    keys = map(space.key, space.decode(winner))
    return winner, [key in closed for key, closed in zip(keys, taken, strict=True)]


def raw_points(
    space: Space, streams: Streams, best_x: Float[Tensor, "r j d"], search: Search
) -> Float[Tensor, "r b d"]:
    """Points to screen: scrambled Sobol points, and small perturbations of the best ones."""
    spread_out = sobol(search.raw, space.dim, streams)
    if not best_x.shape[1] or not search.perturbed:
        return space.snap(spread_out)
    exponent = streams.uniform(search.perturbed, 1)
    spread = _LEAST_SPREAD * (_LARGEST_SPREAD / _LEAST_SPREAD) ** exponent
    each = torch.arange(search.perturbed, device=best_x.device) % best_x.shape[1]
    near = best_x[:, each] + spread * streams.normal(search.perturbed, space.dim)
    return space.snap(torch.cat([spread_out, near], dim=1))


def _ranked(utility: Utility, x: Float[Tensor, "r b d"]) -> Ranked:
    return Ranked.of(x, utility(x))


def _pick_starts(raw: Ranked, restarts: int, streams: Streams) -> Ranked:
    """Half of them the best points, the others drawn by their value, without replacement.

    Drawing by the Gumbel-max trick: the largest of value plus Gumbel noise.
    """
    best = raw.value.topk(restarts - restarts // 2, dim=1)
    top, median = best.values[:, :1], raw.value.median(dim=1, keepdim=True).values
    gap = (top - raw.value) / (top - median).clamp(min=torch.finfo(raw.value.dtype).tiny)
    noise = -torch.log(-torch.log(streams.uniform(raw.value.shape[1])))
    lot = (noise - _COLDNESS * gap).nan_to_num(nan=-torch.inf)
    drawn = lot.scatter(1, best.indices, -torch.inf).topk(restarts // 2, dim=1)
    return raw.at(torch.cat([best.indices, drawn.indices], dim=1))


def _improved(
    utility: Utility, space: Space, best: Ranked, search: Search, bounds: Bounds | None
) -> Ranked:
    """These points moved to better discrete neighbours, and polished in the continuous columns."""
    going_on = torch.ones_like(best.value[:, :1], dtype=torch.bool)
    for _ in range(_ROUNDS):
        after = _try_neighbours(utility, space, best)
        if "continuous" in space.kinds:
            polished = _ascend(utility, after.x, space.continuous, search.iterations, bounds)
            after = _ranked(utility, space.snap(polished.x))
        gained = (after.value > best.value + _GAIN_TOLERANCE).any(1, keepdim=True)
        best, going_on = best.replaced(going_on, after), going_on & gained
        if not bool(going_on.any()):
            break
    return best


def _ascend(
    utility: Utility,
    starts: Float[Tensor, "r b d"],
    movable: Bool[Tensor, " d"],
    iterations: int,
    bounds: Bounds | None,
) -> Ranked:
    r, b, d = starts.shape
    cube = starts.new_zeros(r, d), starts.new_ones(r, d)
    lower, upper = (end.repeat_interleave(b, 0) for end in bounds or cube)
    x, movable = starts.reshape(r * b, d), movable.to(starts.device)
    ascent = maximize(
        _RowByRow(utility, r),
        x,
        torch.where(movable, lower, x),
        torch.where(movable, upper, x),
        iterations=iterations,
        tolerance=_TOLERANCE,
        gain_tolerance=_GAIN_TOLERANCE,
        runs=r,
    )
    return Ranked.of(ascent.x.view(r, b, d), ascent.value.view(r, b))


def _try_neighbours(utility: Utility, space: Space, points: Ranked) -> Ranked:
    """Let each point move to its best discrete neighbour while that is better."""
    r, b, d = points.x.shape
    for _ in range(_MOVES):
        around = space.neighbours(points.x)
        if not around.shape[2]:
            break
        judged = _ranked(utility, around.reshape(r, -1, d))
        value, index = judged.value.view(r, b, -1).max(dim=-1)
        better = value > points.value
        if not bool(better.any()):
            break
        moved = around.take_along_dim(index[..., None, None], 2).squeeze(2)
        points = points.replaced(better, Ranked(moved, value))
    return points


def _around_taken(
    utility: Utility, space: Space, ranked: Ranked, taken: Sequence[AbstractSet[Hashable]]
) -> Ranked:
    """The points, joined by neighbours of the best ones in runs whose best one is taken.

    Ascents and moves all end at the taken one, so little is known around it. Its neighbours are
    evaluated, then those of the next best point, and so on, until the best point left is free and
    its neighbours are known too.
    """
    searches = [_Neighbourhood(space, keys) for keys in taken]
    for run, clash in enumerate(_winners(ranked, space, taken)[1]):
        if clash:
            searches[run].learn(ranked.x[run], ranked.value[run])
    for _ in range(_EXPANSIONS):
        centres = [search.next_centre() for search in searches]
        if all(centre is None for centre in centres):
            break
        x = [ranked.x[run, 0] if each is None else each for run, each in enumerate(centres)]
        around = space.neighbours(torch.stack(x)[:, None]).squeeze(1)
        idle = torch.tensor([each is None for each in centres], device=around.device)
        value = _ranked(utility, around).value.masked_fill(idle[:, None], -torch.inf)
        ranked = ranked.joined(Ranked(around, value))
        for run, search in enumerate(searches):
            if centres[run] is not None:
                search.learn(around[run], value[run])
    return ranked


class _Neighbourhood:
    """What one run knows of a finite space, and around which configurations it has looked."""

    def __init__(self, space: Space, taken: AbstractSet[Hashable]) -> None:
        self._space, self._taken = space, taken
        self._known: dict[Hashable, tuple[float, Tensor]] = {}
        self._looked: set[Hashable] = set()

    def learn(self, x: Float[Tensor, "b d"], value: Float[Tensor, " b"]) -> None:
        """Record the values of these points."""
        keys = map(self._space.key, self._space.decode(x))
        self._known.update(zip(keys, zip(value.tolist(), x, strict=True), strict=True))

    def next_centre(self) -> Float[Tensor, " d"] | None:
        """The best point that is free or whose surroundings are unknown; None if they are known."""
        spent = self._looked & self._taken
        left = [(value, key) for key, (value, _) in self._known.items() if key not in spent]
        _, best = max(left, key=operator.itemgetter(0), default=(None, None))
        if best is None or best in self._looked:
            return None
        self._looked.add(best)
        return self._known[best][1]


def _first_free(
    choices: Float[Tensor, "b d"], space: Space, taken: AbstractSet[Hashable]
) -> Float[Tensor, " d"]:
    """The first of the points that is not taken, else the first free configuration of all.

    Raises:
        SpaceExhausted: there is none.
    """
    for block in choices.split(32):
        for x, params in zip(block, space.decode(block), strict=True):
            if space.key(params) not in taken:
                return x
    # With one value more than are taken, along a parameter that has so many, one must be free.
    for params in space.grid(len(taken) + 1):
        if space.key(space.round_trip(params)) not in taken:
            return space.encode([params])[0].to(choices)
    every_one = "all" if space.size is None else f"all {space.size}"
    raise SpaceExhausted(f"{every_one} configurations of the space were tried or are pending")


@dataclass(frozen=True)
class _Rescaled:
    """A utility in other units, different in each run."""

    utility: Utility
    shift: Float[Tensor, "r 1"]
    scale: Float[Tensor, "r 1"]

    def __call__(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
        return (self.utility(x) - self.shift) / self.scale

    def value_and_gradient(
        self, x: Float[Tensor, "r b d"]
    ) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b d"]]:
        value, gradient = self.utility.value_and_gradient(x)
        return (value - self.shift) / self.scale, gradient / self.scale[..., None]


@dataclass(frozen=True)
class _RowByRow:
    """A utility as the objective of an ascent: the points of all runs in one axis."""

    utility: Utility
    runs: int

    def __call__(self, x: Float[Tensor, "k d"]) -> tuple[Float[Tensor, " k"], Float[Tensor, "k d"]]:
        value, gradient = self.utility.value_and_gradient(x.view(self.runs, -1, x.shape[1]))
        return value.reshape(-1), gradient.reshape(x.shape)

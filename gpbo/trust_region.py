"""Boxes around the best point, in which the functions of Thompson sampling are searched.

    NestedBoxes  boxes of several lengths, which the functions take in turn; also other basins
    TrustRegion  one box, which grows with success and shrinks with failure

Neither has a state: both follow from the results, and the same results give the same boxes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.basins import lowest_point, other_basins
from gpbo.candidates import Utility
from gpbo.checks import positive_number, settle, whole_number
from gpbo.data import Observations
from gpbo.errors import InvalidOption
from gpbo.fixed import expected_within, lie_within
from gpbo.space import Space
from gpbo.surrogate import Surrogate

#: The least improvement that counts, relative to the best value (Eriksson et al. 2019, supplement).
_LEAST_GAIN = 1e-3
#: How many coordinates of a screened point differ from the centre's on average.
_PERTURBED = 20
#: Longer lengthscales, in units of the cube, count as this: the function is flat along all of them
#: (Eriksson et al. have this bound, too). Otherwise parameters about which the results say nothing,
#: whose lengthscales are the prior's, would make the sides of the others tiny.
_FLAT = 2.0


@dataclass(frozen=True)
class Boxes:
    """Where each run searches: boxes of one or several lengths around one or several points.

    Attributes:
        centre: The points.
        lower, upper: Ends of the boxes: the longest around every point, the next one around every
            point, and so on.
        present: Which of the points exist; the boxes of the others have no meaning.
        elsewhere: Returns the boxes for functions that find nothing new in these.
    """

    centre: Float[Tensor, "r c d"]
    lower: Float[Tensor, "r k d"]
    upper: Float[Tensor, "r k d"]
    present: Bool[Tensor, "r c"]
    elsewhere: "Callable[[], Boxes] | None" = None

    @property
    def points(self) -> int:
        """The number of points, ``c``."""
        return self.centre.shape[1]

    def of(self, numbers: Int[Tensor, "r q"]) -> tuple[Tensor, Tensor]:
        """The ends ``[r, q, d]`` of the boxes of functions with these numbers, taken in turn."""
        index = (numbers % self.lower.shape[1])[..., None]
        return self.lower.take_along_dim(index, 1), self.upper.take_along_dim(index, 1)

    def place(
        self, x: Float[Tensor, "r b d"], lot: Float[Tensor, "r b d"]
    ) -> Float[Tensor, "r b d"]:
        """Points of the cube mapped into the boxes in turn; in many dimensions they differ from the
        centre in some coordinates only, where ``lot``, uniform on [0, 1), is small.
        """
        placed, boxes = x.shape[1], self.lower.shape[1]
        turn = torch.arange(placed, device=x.device)
        lower, upper = self.of(turn.expand(len(x), -1))
        # Each box gets a block of the Sobol sequence: every fourth point would lie in one quadrant.
        order = turn % boxes * max(1, placed // boxes) + turn // boxes
        inside = lower + x[:, order] * (upper - lower)
        centre = self.centre[:, turn % self.points]
        return torch.where(lot < _PERTURBED / x.shape[-1], inside, centre)

    def holds(self, numbers: Int[Tensor, "r q"], placed: int) -> Bool[Tensor, "r q b"]:
        """Which of ``placed`` points lie in the boxes of functions with these numbers."""
        boxes = self.lower.shape[1]
        own = (numbers % boxes)[..., None]
        box_of_point = torch.arange(placed, device=numbers.device) % boxes
        return (box_of_point >= own) & (box_of_point % self.points == own % self.points)


@runtime_checkable
class Region(Protocol):
    """Where to search, given what is known."""

    def boxes(
        self,
        data: Observations,
        surrogate: Surrogate,
        space: Space,
        log_chance: Utility | None = None,
    ) -> Boxes:
        """The boxes of every run after its results so far.

        Args:
            data: The results.
            surrogate: Their model.
            space: The search space.
            log_chance: The log probability that a point has a value and meets the constraints;
                None if it is certain.
        """
        ...


@dataclass(frozen=True)
class NestedBoxes:
    """Boxes of several lengths around the best point, and around points of other basins.

    Which length pays changes from one batch to the next. In a long box the functions differ nearly
    everywhere, and with few data or many dimensions their minima are far worse than the best point;
    in a short one all minima are a little better. So each function takes the next length in turn,
    and by default one in four has the whole cube. It makes no difference whether points are asked
    for together or one after another, or in which order the results come.

    A function that finds nothing new is searched again, around the lowest points of other basins,
    which are separated from the best point by a hill of the posterior mean. It finds nothing new if
    its minimum is hardly lower than at the best point, or if it lies in the next shorter box, where
    other functions are searched (once as many trials are pending as there are boxes). Otherwise
    whole batches would only refine the basin that was found first.

    Args:
        lengths: Lengths of the boxes, the longest first: the geometric mean of a box's sides, in
            units of the cube. The sides are in proportion to the lengthscales. Infinity is the
            whole cube.
        others: How many other basins to search at most; 0 for the best point's only.

    Raises:
        InvalidOption: ``lengths`` is empty, has one that is not positive, or a shorter one before
            a longer one; or ``others`` is negative.
    """

    lengths: tuple[float, ...] = (math.inf, 0.4, 0.1, 0.025)
    others: int = 3

    def __post_init__(self) -> None:
        given = self.lengths
        if not isinstance(given, list | tuple) or not given:
            raise InvalidOption(f"lengths={given!r}: expected a tuple of one or more lengths")
        lengths = tuple(positive_number("lengths", length) for length in given)
        if list(lengths) != sorted(lengths, reverse=True):
            raise InvalidOption(f"lengths={given!r}: expected the longest first")
        object.__setattr__(self, "lengths", lengths)
        settle(self, "others", whole_number, least=0)

    def boxes(
        self,
        data: Observations,
        surrogate: Surrogate,
        space: Space,
        log_chance: Utility | None = None,
    ) -> Boxes:
        """Boxes around the observed point of every run where the posterior mean is least."""
        x = space.snap(data.x)
        expected = expected_within(surrogate, space)[:, : x.shape[1]]
        height = _possible(x, data.mask, expected, log_chance)
        centre = lowest_point(x, height)
        lengths = data.x.new_tensor(self.lengths).expand(data.runs, -1)
        boxes = _around(centre[:, None], lengths, surrogate, space)
        finite = sum(map(math.isfinite, self.lengths))
        if not finite or not self.others:
            return boxes
        longest = boxes.lower[:, -finite, None], boxes.upper[:, -finite, None]
        inside = ((x >= longest[0]) & (x <= longest[1])).all(-1)

        @cache
        def elsewhere() -> Boxes:
            outside = torch.where(inside, torch.inf, height)
            points, present = other_basins(surrogate, x, centre, outside, self.others, log_chance)
            return _around(points, lengths[:, -finite:], surrogate, space, present)

        return replace(boxes, elsewhere=elsewhere)


def _possible(
    x: Float[Tensor, "r n d"],
    mask: Bool[Tensor, "r n"],
    height: Float[Tensor, "r n"],
    log_chance: Utility | None,
) -> Float[Tensor, "r n"]:
    """The height of the points around which a box may lie, infinite for the others.

    Points where the next trial would probably fail, or violate a constraint, are left out if there
    are others: a short box around such a point has nothing else. As long as no result meets the
    constraints, the height is the negative log probability that another one does.
    """
    if log_chance is None:
        return height
    chance, found = log_chance(x), height.isfinite()
    likely = found & (chance > -math.log(2))
    possible = height.masked_fill(~likely & likely.any(-1, keepdim=True), torch.inf)
    return torch.where(found.any(-1, keepdim=True), possible, torch.where(mask, -chance, torch.inf))


def _around(
    centre: Float[Tensor, "r c d"],
    length: Float[Tensor, "r l"],
    surrogate: Surrogate,
    space: Space,
    present: Bool[Tensor, "r c"] | None = None,
) -> Boxes:
    """Boxes of these lengths around each point; categorical parameters are not confined."""
    scale = surrogate.lengthscale.clamp(max=_FLAT).log().mean(1)
    confined = space.movable
    sides = length[..., None] * (scale - scale[:, confined].mean(-1, keepdim=True)).exp()[:, None]
    confined = confined.to(centre.device)
    half = sides[:, :, None] / 2
    lower = torch.where(confined, (centre[:, None] - half).clamp(min=0.0), 0.0)
    upper = torch.where(confined, (centre[:, None] + half).clamp(max=1.0), 1.0)
    if present is None:
        present = torch.ones(centre.shape[:2], dtype=torch.bool, device=centre.device)
    return Boxes(centre, lower.flatten(1, 2), upper.flatten(1, 2), present)


@dataclass(frozen=True)
class TrustRegion:
    """A box that grows with success and shrinks with failure.

    After Eriksson et al. (2019), "Scalable global optimization via local Bayesian optimization",
    NeurIPS. A box's length is the geometric mean of its sides, in units of the cube; the sides are
    in proportion to the lengthscales.

    When the box has become too short, the search restarts: earlier results no longer count for
    its centre, and the box is the whole cube until there are two new results per dimension.

    Args:
        batch: How many results are judged together: as many as are asked for at once. They are a
            success if the best of them improves on the best so far by a thousandth of its size.
            The first two results per dimension after every start are not judged.
        length: The length at the start.
        shortest: A box that becomes shorter is given up.
        longest: The greatest length.
        successes: How many successes in a row double the length.
        failures: How many failures in a row halve it; by default ``max(4, d) / batch``, rounded up.

    Raises:
        InvalidOption: a count is not a whole number above 0, or the lengths are not positive or
            not in order.
    """

    batch: int = 1
    length: float = 0.8
    shortest: float = 0.5**7
    longest: float = 1.6
    successes: int = 3
    failures: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "successes"):
            settle(self, name, whole_number, least=1)
        if self.failures is not None:
            settle(self, "failures", whole_number, least=1)
        for name in ("length", "shortest", "longest"):
            settle(self, name, positive_number)
        if not self.shortest <= self.length <= self.longest:
            raise InvalidOption(
                f"length={self.length!r}: expected a length from shortest={self.shortest!r} "
                f"to longest={self.longest!r}"
            )

    def boxes(
        self,
        data: Observations,
        surrogate: Surrogate,
        space: Space,
        log_chance: Utility | None = None,
    ) -> Boxes:
        """The box of every run after its results so far.

        In a slice of the space only results in the slice count; before there is one, the box is
        the whole slice.
        """
        x = space.snap(data.x)
        counts = data.mask & lie_within(space, data.x)
        values = torch.where(counts & data.eligible, data.values, torch.inf)
        length, begin = self._judged(values, counts, data.dim)
        since = counts & (counts.cumsum(-1) > begin[:, None])
        own = torch.where(since, values, torch.inf)
        centre = lowest_point(x, _possible(x, since, own, log_chance))
        young = (since.sum(-1) < 2 * data.dim) & (begin > 0) | ~own.isfinite().any(-1)
        length = torch.where(young, torch.inf, length)
        return _around(centre[:, None], length[:, None], surrogate, space)

    def _judged(
        self, values: Float[Tensor, "r n"], mask: Bool[Tensor, "r n"], dim: int
    ) -> tuple[Float[Tensor, " r"], Int[Tensor, " r"]]:
        """The length now, and how many results there were before the last restart.

        Trials between the results that failed, or are pending, are left out.
        """
        failures = self.failures or math.ceil(max(4, dim) / self.batch)
        found = [
            self._of_run(row[own].tolist(), dim, failures)
            for row, own in zip(values.cpu(), mask.cpu(), strict=True)
        ]
        length, begin = zip(*found, strict=True)
        return values.new_tensor(length), torch.tensor(begin, device=values.device)

    def _of_run(self, values: list[float], dim: int, failures: int) -> tuple[float, int]:
        """The same for the results of one run, in plain Python: they are sequential and few."""
        length, best, begin, age, won, lost = self.length, math.inf, 0, 0, 0, 0
        for start in range(0, len(values), self.batch):
            block = values[start : start + self.batch]
            least, counts = min(block), age >= 2 * dim
            better = least < best - (_LEAST_GAIN * abs(best) if math.isfinite(best) else 0.0)
            won = won + 1 if better and counts else 0
            lost = lost + 1 if counts and not better else 0
            best, age = min(best, least), age + len(block)
            if won >= self.successes:
                length, won = min(2 * length, self.longest), 0
            if lost >= failures:
                length, lost = length / 2, 0
            if length < self.shortest:
                length, best, begin, age = self.length, math.inf, start + self.batch, 0
        return length, begin

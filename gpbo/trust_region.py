"""Boxes around the best point, in which functions are searched that differ everywhere else.

    NestedBoxes  boxes of several lengths, which the functions share out
    TrustRegion  one box, which grows with success and shrinks with failure

Neither is remembered: both are read off the results, and the same results give the same boxes.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.candidates import Utility
from gpbo.checks import positive_number, whole_number
from gpbo.data import Observations
from gpbo.errors import InvalidOption
from gpbo.space import Space
from gpbo.surrogate import Surrogate

#: An improvement counts from this fraction of the best value on (ibid., supplement).
_LEAST_GAIN = 1e-3
#: So many coordinates of a point that is screened differ from the centre's on average.
_PERTURBED = 20
#: Longer lengthscales, in units of the cube, count as this: the function is flat along all of them
#: (the bound of Eriksson et al., too). Otherwise those that the results say nothing about, which
#: have the prior's, would make the others' sides tiny.
_FLAT = 2.0


@dataclass(frozen=True)
class Boxes:
    """Where each run searches: one or several boxes, each within those before it.

    Attributes:
        centre: What they lie around.
        lower, upper: Their ends.
    """

    centre: Float[Tensor, "r d"]
    lower: Float[Tensor, "r k d"]
    upper: Float[Tensor, "r k d"]

    @property
    def count(self) -> int:
        """How many there are, ``k``."""
        return self.lower.shape[1]

    def of(self, numbers: Int[Tensor, " q"]) -> tuple[Tensor, Tensor]:
        """The ends ``[r, q, d]`` of the boxes of functions with these numbers: they take turns."""
        return self.lower[:, numbers % self.count], self.upper[:, numbers % self.count]

    def place(
        self, x: Float[Tensor, "r b d"], lot: Float[Tensor, "r b d"]
    ) -> Float[Tensor, "r b d"]:
        """Points of the cube put into the boxes in turn; in many dimensions they differ from the
        centre in some coordinates only, where ``lot``, uniform on [0, 1), is small.
        """
        lower, upper = self.of(torch.arange(x.shape[1], device=x.device))
        inside = lower + x * (upper - lower)
        return torch.where(lot < _PERTURBED / x.shape[-1], inside, self.centre[:, None])

    def holds(self, numbers: Int[Tensor, " q"], placed: int) -> Bool[Tensor, "q b"]:
        """Which of so many placed points lie in the boxes of functions with these numbers."""
        box_of_point = torch.arange(placed, device=numbers.device) % self.count
        return box_of_point >= (numbers % self.count)[:, None]


@runtime_checkable
class Region(Protocol):
    """Where to search, from what is known."""

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
            surrogate: The model of them.
            space: What the cube stands for.
            log_chance: The log of the chance that a point gives a value, where trials failed.
        """
        ...


@dataclass(frozen=True)
class NestedBoxes:
    """Boxes of several lengths around the best point.

    Which length pays changes from one batch to the next: in a long box the functions differ nearly
    everywhere, and with few data or many dimensions their minima are far worse than the best point;
    in a short one all of them are a little better. So each function takes the next length in turn,
    and one in four the whole cube. Nothing has to be counted, so it makes no difference how many
    points are asked for at a time, or in which order the results come.

    Args:
        lengths: In units of the cube, of the geometric mean of the sides, which go with the
            lengthscales; from the longest to the shortest. Infinity is the whole cube.

    Raises:
        InvalidOption: no length, one that is not positive, or a shorter one before a longer one.
    """

    lengths: tuple[float, ...] = (math.inf, 0.4, 0.1, 0.025)

    def __post_init__(self) -> None:
        given = self.lengths
        if not isinstance(given, list | tuple) or not given:
            raise InvalidOption(f"lengths={given!r}: expected one or more, in a tuple")
        for length in given:
            positive_number("lengths", length)
        if list(given) != sorted(given, reverse=True):
            raise InvalidOption(f"lengths={given!r}: expected the longest first")

    def boxes(
        self,
        data: Observations,
        surrogate: Surrogate,
        space: Space,
        log_chance: Utility | None = None,
    ) -> Boxes:
        """Around the observed point of every run where the posterior mean is least."""
        fitted = surrogate.fitted[..., : data.x.shape[1]].mean(1)
        centre = _lowest(data.x, torch.where(data.mask, fitted, torch.inf), log_chance)
        length = torch.tensor(self.lengths, dtype=centre.dtype, device=centre.device)
        return _around(centre, length.expand(data.runs, -1), surrogate, space)


def _lowest(
    x: Float[Tensor, "r n d"], height: Float[Tensor, "r n"], log_chance: Utility | None
) -> Float[Tensor, "r d"]:
    """The point of every run of least finite height, for a box to lie around.

    Not one where the next trial would rather fail, as long as there are others: in a short box
    around it there is nothing else.
    """
    possible = height.isfinite()
    if log_chance is not None:
        likely = possible & (log_chance(x) > -math.log(2))
        possible = torch.where(likely.any(-1, keepdim=True), likely, possible)
    best = torch.where(possible, height, torch.inf).argmin(1)
    return x[torch.arange(len(x), device=x.device), best]


def _around(
    centre: Float[Tensor, "r d"],
    length: Float[Tensor, "r k"],
    surrogate: Surrogate,
    space: Space,
) -> Boxes:
    """Boxes of these lengths; choices without an order are not confined."""
    scale = surrogate.lengthscale.clamp(max=_FLAT).log().mean(1)
    sides = length[..., None] * (scale - scale.mean(-1, keepdim=True)).exp()[:, None]
    confined = (space.continuous | space.ordered).to(centre.device)
    lower = torch.where(confined, (centre[:, None] - sides / 2).clamp(min=0.0), 0.0)
    upper = torch.where(confined, (centre[:, None] + sides / 2).clamp(max=1.0), 1.0)
    return Boxes(centre, lower, upper)


@dataclass(frozen=True)
class TrustRegion:
    """A box that grows with success and shrinks with failure.

    After Eriksson et al. (2019), "Scalable global optimization via local Bayesian optimization",
    NeurIPS. Lengths are in units of the cube, of the geometric mean of the sides.

    When it has become too short the search starts anew: until it has two results per dimension
    the box is the cube, and the best point is one of these or later.

    Args:
        batch: Results that are judged together: as many as are asked for at once.
        length: Of a new box.
        shortest: Of a box that is given up.
        longest: Of any box.
        successes: So many in a row double the length.
        failures: So many in a row halve it; by default ``max(4, d) / batch``, at least 1.

    Raises:
        InvalidOption: a count that is no whole number above 0, or lengths that are not positive or
            not in order.
    """

    batch: int = 1
    length: float = 0.8
    shortest: float = 0.5**7
    longest: float = 1.6
    successes: int = 3
    failures: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "successes", "failures"):
            value = getattr(self, name)
            if name != "failures" or value is not None:
                whole_number(name, value, least=1)
        for name in ("length", "shortest", "longest"):
            positive_number(name, getattr(self, name))
        if not self.shortest <= self.length <= self.longest:
            raise InvalidOption(
                f"length={self.length!r}: expected from shortest={self.shortest!r} "
                f"to longest={self.longest!r}"
            )

    def boxes(
        self,
        data: Observations,
        surrogate: Surrogate,
        space: Space,
        log_chance: Utility | None = None,
    ) -> Boxes:
        """The box of every run after its results so far; its sides go with the lengthscales."""
        values = torch.where(data.mask, data.values, torch.inf)
        length, begin = self._judged(values, data.mask, data.dim)
        numbers = torch.arange(values.shape[1], device=values.device)
        own = torch.where(numbers >= begin[:, None], values, torch.inf)
        centre = _lowest(data.x, own, log_chance)
        young = (own.isfinite().sum(-1) < 2 * data.dim) & (begin > 0)
        length = torch.where(young, torch.inf, length)
        return _around(centre, length[:, None], surrogate, space)

    def _judged(
        self, values: Float[Tensor, "r n"], mask: Bool[Tensor, "r n"], dim: int
    ) -> tuple[Float[Tensor, " r"], Int[Tensor, " r"]]:
        """The length now, and the number of the first result since the last start."""
        failures = self.failures or max(1, math.ceil(max(4, dim) / self.batch))
        zero = torch.zeros_like(values[:, :1].sum(-1))
        length, best, begin = zero + self.length, zero + torch.inf, zero.long()
        won, lost, age = zero.long(), zero.long(), zero.long()
        for start in range(0, values.shape[1], self.batch):
            block = slice(start, start + self.batch)
            least = values[:, block].amin(-1)
            counts = age >= 2 * dim
            better = least < best - _LEAST_GAIN * best.abs().nan_to_num(posinf=0.0)
            won = torch.where(better & counts, won + 1, 0)
            lost = torch.where(~better & counts & mask[:, block].any(-1), lost + 1, lost * ~better)
            best = torch.minimum(best, least)
            age = age + mask[:, block].sum(-1)
            longer, shorter = won >= self.successes, lost >= failures
            length = torch.where(longer, 2 * length, length).clamp(max=self.longest)
            length = torch.where(shorter, length / 2, length)
            won, lost = won * ~longer, lost * ~shorter
            anew = length < self.shortest
            begin = torch.where(anew, start + self.batch, begin)
            length = torch.where(anew, self.length, length)
            best = torch.where(anew, torch.inf, best)
            age = age * ~anew
        return length, begin

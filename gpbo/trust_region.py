"""A box around the best point, which grows with success and shrinks with failure.

After Eriksson et al. (2019), "Scalable global optimization via local Bayesian optimization",
NeurIPS. It is not remembered but read off the results, which are there in the order in which they
came: the same results give the same box.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.data import Observations
from gpbo.errors import InvalidOption
from gpbo.space import Space
from gpbo.surrogate import Surrogate

#: An improvement counts from this fraction of the best value on (ibid., supplement).
_LEAST_GAIN = 1e-3
#: So many coordinates of a point that is screened differ from the centre's on average.
_PERTURBED = 20


@dataclass(frozen=True)
class Box:
    """Where each run searches, and around which point."""

    centre: Float[Tensor, "r d"]
    lower: Float[Tensor, "r d"]
    upper: Float[Tensor, "r d"]

    def place(
        self, x: Float[Tensor, "r b d"], lot: Float[Tensor, "r b d"]
    ) -> Float[Tensor, "r b d"]:
        """Points of the cube put into the box; in many dimensions they differ from the centre in
        some coordinates only, where ``lot``, uniform on [0, 1), is small.
        """
        inside = self.lower[:, None] + x * (self.upper - self.lower)[:, None]
        return torch.where(lot < _PERTURBED / x.shape[-1], inside, self.centre[:, None])


@dataclass(frozen=True)
class TrustRegion:
    """How the box changes; lengths are in units of the cube, of the geometric mean of the sides.

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
        InvalidOption: a count below 1, or lengths that are not in order.
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
            if value is not None and value < 1:
                raise InvalidOption(f"{name}={value!r}: expected 1 or more")
        if not 0 < self.shortest <= self.length <= self.longest:
            raise InvalidOption(
                f"length={self.length!r}: expected from shortest={self.shortest!r} "
                f"to longest={self.longest!r}"
            )

    def box(self, data: Observations, surrogate: Surrogate, space: Space) -> Box:
        """The box of every run after its results so far; its sides go with the lengthscales."""
        values = torch.where(data.mask, data.in_units(data.y), torch.inf)
        length, begin = self._judged(values, data.mask, data.dim)
        numbers = torch.arange(values.shape[1], device=values.device)
        own = torch.where(numbers >= begin[:, None], values, torch.inf)
        centre = data.x[torch.arange(data.runs, device=values.device), own.argmin(1)]
        scale = surrogate.lengthscale.log().mean(1)
        sides = length[:, None] * (scale - scale.mean(-1, keepdim=True)).exp()
        young = (own.isfinite().sum(-1) < 2 * data.dim) & (begin > 0)
        fixed = ~(space.continuous | space.ordered).to(values.device)
        everywhere = young[:, None] | fixed
        lower = torch.where(everywhere, 0.0, (centre - sides / 2).clamp(min=0.0))
        upper = torch.where(everywhere, 1.0, (centre + sides / 2).clamp(max=1.0))
        return Box(centre, lower, upper)

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

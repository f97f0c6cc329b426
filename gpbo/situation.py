"""What a strategy is: it sees the situation of ``r`` runs and answers with points."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.backend import Streams
from gpbo.data import Observations
from gpbo.errors import SpaceExhausted
from gpbo.fitting import Fit
from gpbo.space import Space


@dataclass(frozen=True)
class Situation:
    """What ``r`` runs know at the moment when they are asked for points.

    Attributes:
        space: Where the runs search.
        data: Results so far, and the points that are pending.
        failed: Points that were tried and gave no value; ``failed_mask`` is false for padding.
        taken: Per run, the `Space.key` of every configuration that was ever asked or added.
        seeds: The seed of every run.
        index: The number of the trial that is asked for: it names the random streams.
        fit: The model of ``data``, fitted when first called; only strategies with
            ``uses_model`` may call it.
    """

    space: Space
    data: Observations
    failed: Float[Tensor, "r f d"]
    failed_mask: Bool[Tensor, "r f"]
    taken: tuple[frozenset[Hashable], ...]
    seeds: tuple[int, ...]
    index: int
    fit: Callable[[], Fit]

    def streams(self, purpose: str, index: int | Sequence[int] | None = None) -> Streams:
        """A random stream per run, of this purpose and trial (or of another ``index``, or each)."""
        number = self.index if index is None else index
        return Streams.per_seed(self.seeds, purpose, number, device=self.data.x.device)

    def after(self, points: Float[Tensor, "r d"]) -> "Situation":
        """The situation once each run has asked for its point too: pending, and taken."""
        asked = self.space.decode(points)
        keys = map(self.space.key, asked)
        # Encoded anew, as a trial's configuration will be: the points may differ by a rounding.
        points = self.space.encode(asked).to(points.device)
        return replace(
            self,
            data=self.data.with_pending(points.unsqueeze(1)),
            taken=tuple(row | {key} for row, key in zip(self.taken, keys, strict=True)),
            index=self.index + 1,
        )


@runtime_checkable
class Strategy(Protocol):
    """What `gpbo.Optimizer` asks for points.

    Attributes:
        name: Names the origin of a trial.
        uses_model: Whether it needs an initial design, and may call ``situation.fit``.
    """

    name: ClassVar[str]
    uses_model: ClassVar[bool]

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """Up to ``count`` snapped points per run, none of them taken, no two of a run the same.

        Fewer only where no more are left, at least one. Row ``i`` depends on run ``i`` only, and
        a batch of points is what as many single calls would have proposed.

        Raises:
            SpaceExhausted: some run has nothing left to try.
        """
        ...


def one_by_one(
    situation: Situation, count: int, one: Callable[[Situation], Float[Tensor, "r d"]]
) -> Float[Tensor, "r q d"]:
    """Points chosen in sequence, each knowing those before it; fewer if the space runs out."""
    points: list[Tensor] = []
    while len(points) < count:
        try:
            point = one(situation)
        except SpaceExhausted:
            if not points:
                raise
            break
        points.append(point)
        situation = situation.after(point)
    return torch.stack(points, 1)

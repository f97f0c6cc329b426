"""What a strategy is: it sees the situation of ``r`` runs and answers with points."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.backend import Streams
from gpbo.data import Observations
from gpbo.errors import InvalidOption, SpaceExhausted
from gpbo.feasibility import Limits
from gpbo.fitting import Fit
from gpbo.fixed import lie_within
from gpbo.space import Space

_T = TypeVar("_T")


class Lazy(Generic[_T]):
    """A value that is made when it is first used.

    Attributes:
        made: The value; None until it is first used.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self.made: _T | None = None

    def __call__(self) -> _T:
        """The value."""
        if self.made is None:
            self.made = self._make()
        return self.made


@dataclass(frozen=True)
class Situation:
    """What ``r`` runs know at the moment when they are asked for points.

    Attributes:
        space: Where the runs search; a slice of the space of ``data`` if a value of some parameters
            is fixed.
        data: Results so far, and the points that are pending.
        failed: The ``f`` points that were tried and gave no value; ``failed_mask`` is false for
            padding.
        taken: Per run, the `Space.key` of every configuration that was ever asked or added.
        seeds: The seed of every run.
        index: The number of the trial that is asked for: it names the random streams.
        fit: The model of ``data``, fitted when first called; only strategies with
            ``uses_model`` may call it.
        limits: The models of the quantities that constraints limit, likewise; None if there are
            none.
    """

    space: Space
    data: Observations
    failed: Float[Tensor, "r f d"]
    failed_mask: Bool[Tensor, "r f"]
    taken: tuple[frozenset[Hashable], ...]
    seeds: tuple[int, ...]
    index: int
    fit: Callable[[], Fit]
    limits: Callable[[], Limits | None] = lambda: None

    @classmethod
    def of_trials(
        cls,
        space: Space,
        x: Float[Tensor, "r n d"],
        succeeded: Bool[Tensor, "r n"],
        rows: Observations,
        fit: Callable[[], Fit],
        *,
        taken: tuple[frozenset[Hashable], ...],
        seeds: tuple[int, ...],
        index: int,
    ) -> "Situation":
        """The situation after ``n`` trials of every run, at ``x``.

        Args:
            succeeded: Which trials have a value.
            rows: What they returned, all outputs of a run (`gpbo.data`).
            fit: Gives the model of all these rows.
        """
        models = Lazy(lambda: Limits.apart(fit().surrogate, rows))
        some = ~succeeded.all(0)
        return cls(
            space,
            rows.of_values,
            x[:, some],
            ~succeeded[:, some],
            taken,
            seeds,
            index,
            fit=lambda: replace(fit(), surrogate=models()[0]),
            limits=lambda: models()[1],
        )

    def streams(self, purpose: str, index: int | Sequence[int] | None = None) -> Streams:
        """A random stream per run for this purpose, named by the number of the trial that is asked
        for, or by ``index``: one number for all runs or one for each.
        """
        number = self.index if index is None else index
        return Streams.per_seed(self.seeds, purpose, number, device=self.data.x.device)

    def closed(self, repeats: bool) -> tuple[frozenset[Hashable], ...]:
        """Per run, what not to propose: all that is taken, or with ``repeats`` only what failed."""
        if not repeats:
            return self.taken
        # In a slice of the space, what failed elsewhere means nothing.
        here = self.failed_mask & lie_within(self.space, self.failed)
        failed = [x[tried] for x, tried in zip(self.failed, here, strict=True)]
        return tuple(frozenset(map(self.space.key, self.space.decode(x))) for x in failed)

    def after(self, points: Float[Tensor, "r d"]) -> "Situation":
        """The situation in which each run has asked for its point too: it is pending, and taken."""
        x, keys = points_and_keys(self.space, points.unsqueeze(1))
        return replace(
            self,
            data=self.data.with_pending(x),
            taken=tuple(row | new for row, new in zip(self.taken, keys, strict=True)),
            index=self.index + 1,
        )


def points_and_keys(
    space: Space, points: Float[Tensor, "r q d"]
) -> tuple[Float[Tensor, "r q d"], list[frozenset[Hashable]]]:
    """The points, encoded again from their configurations, and each run's keys of these.

    As in an `Optimizer`; they may differ from the given points by a rounding.
    """
    configurations = space.decode(points.flatten(0, 1))
    x = space.encode(configurations).to(points.device).view(points.shape)
    keys = list(map(space.key, configurations))
    count = points.shape[1]
    return x, [frozenset(keys[i : i + count]) for i in range(0, len(keys), count)]


@runtime_checkable
class Strategy(Protocol):
    """What `gpbo.Optimizer` asks for points.

    A strategy whose attribute ``repeats`` is true may propose what is taken, and is asked for
    points even when a finite space is used up.
    """

    @property
    def name(self) -> str:
        """The origin that its trials record."""
        ...

    @property
    def uses_model(self) -> bool:
        """Whether it needs an initial design, and may call ``situation.fit`` and its ``limits``."""
        ...

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """Up to ``count`` snapped points per run, none of them taken, no two of a run the same
        (unless it ``repeats``).

        There are fewer only where no more are left, and at least one. Row ``i`` depends on run
        ``i`` only, and a batch of points is what as many single calls would have proposed, up to
        rounding errors (in Thompson sampling those of single precision, which may move a point by
        1e-3 of the cube).

        Raises:
            SpaceExhausted: some run has nothing left to try.
        """
        ...


#: How far outside the unit cube a point may be that was computed in single precision.
_ROUNDING = 1e-6


def proposed(strategy: Strategy, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
    """What the strategy proposes, as doubles on the device of the situation.

    Values are checked on a CPU only, so as not to wait for a GPU; `Space.decode`, which sees all
    points later, refuses NaN and replaces a point outside the cube by the nearest one in it.

    Raises:
        InvalidOption: the answer is not a float tensor ``[r, q, d]`` with ``q`` from 1 to
            ``count``, or a point is not in the unit cube.
        SpaceExhausted: as the strategy does.
    """
    points: object = strategy.propose(situation, count)
    runs, dim = situation.data.runs, situation.data.dim
    given = type(points).__name__
    if isinstance(points, Tensor):
        given = f"{points.dtype} of shape {tuple(points.shape)}"
        enough = points.ndim == 3 and 1 <= points.shape[1] <= count
        if enough and points.shape[::2] == (runs, dim) and points.is_floating_point():
            unseen = points.device.type != "cpu"
            if unseen or bool(((points - 0.5).abs() <= 0.5 + _ROUNDING).all()):
                return points.to(situation.data.x)
            given = f"values from {float(points.min())} to {float(points.max())}"
    raise InvalidOption(
        f"strategy={strategy.name!r}: proposed {given}: expected a float tensor of shape "
        f"({runs}, q, {dim}), q from 1 to {count}, of points in the unit cube"
    )


def one_by_one(
    situation: Situation, count: int, one: Callable[[Situation], Float[Tensor, "r d"]]
) -> Float[Tensor, "r q d"]:
    """Points chosen in sequence, each knowing those before it; fewer if the space runs out."""
    points: list[Tensor] = []
    while len(points) < count:
        if points:
            situation = situation.after(points[-1])
        try:
            point = one(situation)
        except SpaceExhausted:
            if not points:
                raise
            break
        points.append(point)
    return torch.stack(points, 1)

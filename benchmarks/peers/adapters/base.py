"""What an adapter does: one run of one peer, everything minimised."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from .space import Parameter, Point


@dataclass(frozen=True)
class Task:
    """What a run starts with.

    Attributes:
        space: The parameters, at least one.
        seed: The seed of everything random in the peer, 0 or more.
        budget: Evaluations in all, the initial design among them.
        initial: Results of an initial design that will be added before the first `Adapter.ask`.
        constraints: How many numbers `Adapter.excess` has.
    """

    space: tuple[Parameter, ...]
    seed: int
    budget: int
    initial: int
    constraints: int = 0


class Adapter(ABC):
    """A peer behind ask and tell.

    The results of the initial design stand in for the peer's own initial phase; everything else is
    as its authors set it.
    """

    #: Seconds of the parts of the last `ask`, if they can be told apart.
    fit_s: float | None = None
    acquisition_s: float | None = None
    #: How far the result that is added or told is beyond each constraint, 0 or less if it meets it;
    #: empty if it failed, and without constraints.
    excess: Sequence[float] = ()

    def __init__(self, task: Task) -> None:
        self.task = task

    @abstractmethod
    def add(self, point: Point, value: float | None) -> None:
        """Take a result that was not asked for; None stands for a failed evaluation."""

    @abstractmethod
    def ask(self) -> Point:
        """The next point to evaluate."""

    def asks(self, count: int) -> Sequence[Point]:
        """At most this many next points to evaluate, from a peer that proposes several together.

        Their results are told in this order. By default the peer, which knows its proposals without
        results, is asked for one at a time.
        """
        return [self.ask() for _ in range(count)]

    @abstractmethod
    def tell(self, value: float | None) -> None:
        """Take the result of the first point that was asked for and has none yet."""

    def recommend(self) -> Point | None:
        """The point that the peer thinks is best; None if that is the best one observed."""
        return None


class Forgetful(Adapter):
    """A peer that is told points with their values, whether it proposed them or not."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._asked: list[Point] = []

    @abstractmethod
    def _proposed(self, count: int) -> Sequence[Point]:
        """This many points, chosen together."""

    def ask(self) -> Point:
        """A batch of one."""
        return self.asks(1)[0]

    def asks(self, count: int) -> Sequence[Point]:
        """What the peer proposes."""
        points = self._proposed(count)
        self._asked += points
        return points

    def tell(self, value: float | None) -> None:
        """Add it."""
        self.add(self._asked.pop(0), value)


class Results:
    """Points and values for a peer that knows nothing of failed evaluations.

    It is told the worst value so far instead of a missing one, the usual remedy: without a value it
    would propose the same point again.
    """

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._given: list[float | None] = []

    def append(self, point: Point, value: float | None) -> None:
        """One more result."""
        self.points.append(point)
        self._given.append(value)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def values(self) -> list[float]:
        """A value for every point."""
        return imputed(self._given)


def imputed(values: Sequence[float | None]) -> list[float]:
    """The values, with the worst of them for each that is missing; 0 if there is none."""
    worst = max((value for value in values if value is not None), default=0.0)
    return [worst if value is None else value for value in values]

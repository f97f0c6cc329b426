"""A strategy that tells what it was shown."""

from torch import Tensor

from gpbo.situation import Situation
from gpbo.strategies import RandomSearch


class Noting:
    """Random points.

    Attributes:
        uses_model: Whether an initial design comes first.
        asked: What it knew at every ask, and how many points were wanted.
    """

    name = "noting"

    def __init__(self, *, uses_model: bool) -> None:
        self.uses_model = uses_model
        self.asked: list[tuple[Situation, int]] = []

    @property
    def seen(self) -> list[Situation]:
        """What it knew at every ask."""
        return [situation for situation, _ in self.asked]

    def propose(self, situation: Situation, count: int) -> Tensor:
        self.asked.append((situation, count))
        return RandomSearch().propose(situation, count)

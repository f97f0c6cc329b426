"""Tuning problems: losses over spaces of reals, integers and choices."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.checks import as_number
from gpbo.errors import InvalidOption
from gpbo.problems import Problem
from gpbo.space import Space

from .trace import Evaluation, Params


@dataclass(frozen=True)
class Loss:
    """A deterministic function of configurations; a process evaluates each only once.

    Attributes:
        function: From a configuration of the space to its loss, NaN for a trial that fails.
    """

    space: Space
    function: Callable[[Params], float]
    known: dict[tuple[Any, ...], Evaluation] = field(default_factory=dict, repr=False)

    def __call__(self, params: Params) -> Evaluation:
        """The loss, and the seconds of its evaluation.

        Raises:
            InvalidResult: the function did not return a real number.
        """
        key = tuple(params.values())
        if key not in self.known:
            began = time.perf_counter()
            loss = as_number("the loss", self.function(params))
            value = loss if math.isfinite(loss) else None
            self.known[key] = Evaluation(value, value, time.perf_counter() - began)
        return self.known[key]

    def values(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """The losses of points of the unit cube."""
        asked = self.space.decode(x.reshape(-1, self.space.dim))
        found = [self(params).value for params in asked]
        losses = [math.nan if value is None else value for value in found]
        return torch.tensor(losses, dtype=DTYPE).view(x.shape[:-1])


@dataclass(frozen=True, eq=False, kw_only=True)
class TuningProblem(Problem):
    """A problem over a mixed space, whose optimum seeds do not move.

    Attributes:
        mixed: The space.
        objective: The loss of a configuration.

    Raises:
        InvalidOption: as `Problem` does, or there is noise or a constraint, which peers would not
            see, as they call the objective.
    """

    mixed: Space
    objective: Loss

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("noise", "constraints"):
            if given := getattr(self, name):
                raise InvalidOption(f"{name}={given!r}: expected none in a tuning problem")

    @classmethod
    def of(
        cls,
        name: str,
        space: Space,
        function: Callable[[Params], float],
        *,
        optimum: float = math.nan,
        citation: str = "",
    ) -> "TuningProblem":
        """The problem of a function of configurations.

        Args:
            function: See `Loss`.
            optimum: The least loss there is; NaN if it is not known.
        """
        loss = Loss(space, function)
        return cls(
            name=name,
            dim=space.dim,
            bounds=torch.tensor([[0.0] * space.dim, [1.0] * space.dim], dtype=DTYPE),
            optimum=optimum,
            unshifted_minimizers=torch.zeros(0, space.dim, dtype=DTYPE),
            citation=citation,
            function=loss.values,
            mixed=space,
            objective=loss,
        )

    def shifted(self, *seeds: int) -> "TuningProblem":
        """The problem itself: seeds do not move its optimum."""
        super().shifted(*seeds)  # checks the seeds
        return self

    @cached_property
    def space(self) -> Space:
        """The mixed space itself."""
        return self.mixed

"""What an optimizer has to compute, as values that any thread or process may compute it from."""

from dataclasses import dataclass
from typing import Any

import torch

from gpbo import fitting
from gpbo.backend import Streams
from gpbo.data import Observations
from gpbo.errors import InvalidData
from gpbo.kept import Kept


@dataclass(frozen=True)
class Fitted:
    """A model of the first ``kept.size`` results."""

    fit: fitting.Fit
    kept: Kept


@dataclass(frozen=True)
class Chosen:
    """What is to be asked next: not yet trials.

    Attributes:
        index: The id of the first of them.
        configurations: Each with its origin.
        fitted: The model that they were chosen by; None if it was not needed.
    """

    index: int
    configurations: tuple[tuple[dict[str, Any], str], ...]
    fitted: Fitted | None


@dataclass(frozen=True)
class FitPlan:
    """A fit to be made."""

    data: Observations
    size: int
    model: fitting.Model
    inference: fitting.Inference
    warm: fitting.WarmState | None
    seed: int
    device: torch.device

    def __call__(self) -> Fitted:
        """Make it.

        Raises:
            InvalidData: there is no result yet.
        """
        if self.size == 0:
            raise InvalidData("no trial has a value yet: expected one or more to fit to")
        fitted = fitting.fit(
            self.data,
            self.model,
            inference=self.inference,
            warm=self.warm,
            streams=Streams.named(self.seed, "fit", self.size, device=self.device),
        )
        return Fitted(fitted, Kept.of(fitted, self.data, self.size))

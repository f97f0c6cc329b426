"""What an optimizer has to compute, as values that any thread or process may compute it from."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo import fitting
from gpbo.backend import Streams
from gpbo.data import Observations
from gpbo.errors import InvalidData, SpaceExhausted
from gpbo.feasibility import Limits
from gpbo.fixed import is_slice
from gpbo.kept import Kept
from gpbo.model_free import RepeatingSobol, SobolSearch
from gpbo.situation import Lazy, Situation, Strategy, proposed


@dataclass(frozen=True)
class Fitted:
    """A model of the first ``kept.size`` results.

    Attributes:
        fit: The model of the values.
        limits: The models of what the constraints limit; None if there are none.
        kept: What to keep of all of them.
    """

    fit: fitting.Fit
    limits: Limits | None
    kept: Kept

    @classmethod
    def of(cls, fit: fitting.Fit, data: Observations, kept: Kept) -> "Fitted":
        """From a fit to these values and to what is limited."""
        surrogate, limits = Limits.apart(fit.surrogate, data)
        return cls(replace(fit, surrogate=surrogate), limits, kept)


@dataclass(frozen=True)
class Chosen:
    """What is to be asked next: not yet trials.

    Attributes:
        index: The id of the first of them.
        configurations: Each with its origin.
        queued: How many of them, the first ones, were enqueued.
        fitted: The model that they were chosen by; None if it was not needed.
    """

    index: int
    configurations: tuple[tuple[dict[str, Any], str], ...]
    queued: int
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

    @torch.inference_mode(False)  # a caller's, as in `Optimizer`
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
            streams=Streams.named(
                self.seed, "fit", self.size, runs=self.data.runs, device=self.data.x.device
            ),
        )
        return Fitted.of(fitted, self.data, Kept.of(fitted, self.data, self.size, self.model))


@dataclass(frozen=True)
class ChoicePlan:
    """Trials to be chosen.

    Attributes:
        situation: What is known.
        strategy: What proposes them, but for the first ones.
        queued: Configurations that are asked before all others.
        design: How many points of the initial design come next.
        count: How many trials in all.
        fitted: The model, whose fit is that of the situation.
    """

    situation: Situation
    strategy: Strategy
    queued: list[dict[str, Any]]
    design: int
    count: int
    fitted: Lazy[Fitted]

    @torch.inference_mode(False)
    def __call__(self) -> Chosen:
        """Choose them one after another, each knowing that those before it are pending.

        Raises:
            SpaceExhausted: every configuration was asked or added before.
        """
        situation, space = self.situation, self.situation.space
        design = RepeatingSobol() if _may_repeat(self.strategy) else SobolSearch()
        chosen = [(params, "enqueued") for params in self.queued]
        for params in self.queued:
            situation = situation.after(space.encode([params]).to(situation.data.x))
        model = "model:" if self.strategy.uses_model else ""
        rest = self.count - len(self.queued) - self.design
        for strategy, origin, wanted in (
            (design, "design", self.design),
            (self.strategy, model + self.strategy.name, rest),
        ):
            try:
                points = _propose(strategy, situation, wanted)
            except SpaceExhausted:
                if not chosen:
                    raise
                break
            for point in points:
                situation = situation.after(point.unsqueeze(0))
            chosen += [(params, origin) for params in space.decode(points)]
        return Chosen(self.situation.index, tuple(chosen), len(self.queued), self.fitted.made)


def _may_repeat(strategy: Strategy) -> bool:
    return bool(getattr(strategy, "repeats", False))


def _propose(strategy: Strategy, situation: Situation, count: int) -> Float[Tensor, "q d"]:
    if count == 0:
        return situation.data.x[0, :0]
    size = situation.space.size
    if size is not None and len(situation.taken[0]) >= size and not _may_repeat(strategy):
        which = "with these fixed values" if is_slice(situation.space) else "of the space"
        raise SpaceExhausted(f"all {size} configurations {which} were tried or are pending")
    return proposed(strategy, situation, count)[0]

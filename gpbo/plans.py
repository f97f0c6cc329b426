"""What an optimizer has to compute, as values from which any thread or process can compute it."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo import fitting
from gpbo.backend import Streams
from gpbo.data import Observations
from gpbo.errors import InvalidData, SpaceExhausted
from gpbo.feasibility import Limits
from gpbo.fixed import holds, is_slice
from gpbo.kept import Kept
from gpbo.model_free import RepeatingSobol, SobolSearch
from gpbo.rows import selected
from gpbo.situation import Lazy, Situation, Strategy, proposed
from gpbo.space import Space
from gpbo.units import Units


@dataclass(frozen=True)
class Fitted:
    """A model of the first ``kept.size`` results.

    Attributes:
        fit: The model of the values.
        limits: The models of the constraints; None if there are none.
        units: The units of the values as the fit sees them.
        kept: What to keep of all these models.
    """

    fit: fitting.Fit
    limits: Limits | None
    units: Units
    kept: Kept

    @classmethod
    def of(cls, fit: fitting.Fit, data: Observations, kept: Kept) -> "Fitted":
        """From a fit to the values and to the constrained quantities."""
        surrogate, limits = Limits.apart(fit.surrogate, data)
        units = selected(data.units, slice(None, None, data.outputs))
        return cls(replace(fit, surrogate=surrogate), limits, units, kept)


@dataclass(frozen=True)
class Chosen:
    """Configurations to be asked next: not trials yet.

    Attributes:
        index: The id of the first trial.
        configurations: The configurations, each with its origin.
        queued: How many of them, from the first, were enqueued.
        fitted: The model that chose them; None if it was not needed.
    """

    index: int
    configurations: tuple[tuple[dict[str, Any], str], ...]
    queued: int
    fitted: Fitted | None = field(repr=False)  # many tensors


@dataclass(frozen=True)
class FitPlan:
    """A fit to be made."""

    data: Observations
    model: fitting.Model
    inference: fitting.Inference
    warm: fitting.WarmState | None
    seed: int

    @torch.inference_mode(False)  # a caller's, as in `Optimizer`
    def __call__(self) -> Fitted:
        """Make the fit.

        Raises:
            InvalidData: there is no result yet.
        """
        size = int(self.data.counts.max())
        if size == 0:
            raise InvalidData("no trial has a value yet: expected at least one to fit to")
        fitted = fitting.fit(
            self.data,
            self.model,
            inference=self.inference,
            warm=self.warm,
            streams=Streams.named(
                self.seed, "fit", size, runs=self.data.runs, device=self.data.x.device
            ),
        )
        return Fitted.of(fitted, self.data, Kept.of(fitted, self.data, self.model))


@dataclass(frozen=True)
class Queued:
    """An enqueued configuration.

    Attributes:
        params: Its values; parameters that are left out are to be chosen.
        within: The slice of the space that has these values.
        taken: The keys of the taken configurations in this slice.
    """

    params: dict[str, Any]
    within: Space
    taken: frozenset[Hashable]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is to be chosen."""
        return len(self.params) == len(self.within.names)


@dataclass(frozen=True)
class ChoicePlan:
    """Trials to be chosen.

    Attributes:
        situation: What is known.
        strategy: Proposes the trials after the initial design.
        queued: The enqueued configurations, which are asked first.
        design: How many of the trials, from the first, belong to the initial design.
        count: How many trials in all.
        fitted: The model, whose fit is that of the situation.
    """

    situation: Situation
    strategy: Strategy
    queued: list[Queued]
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
        chosen: list[tuple[dict[str, Any], str]] = []
        for number, queued in enumerate(self.queued):
            strategy = design if number < self.design else self.strategy
            params = _completed(queued, situation, strategy, [params for params, _ in chosen])
            situation = situation.after(space.encode([params]).to(situation.data.x))
            chosen.append((params, "enqueued"))
        model = "model:" if self.strategy.uses_model else ""
        of_design = max(0, self.design - len(chosen))
        rest = self.count - len(chosen) - of_design
        for strategy, origin, wanted in (
            (design, "design", of_design),
            (self.strategy, model + self.strategy.name, rest),
        ):
            try:
                points = _propose(strategy, situation, wanted)
            except SpaceExhausted:
                if not chosen:
                    raise
                break
            chosen += [(params, origin) for params in space.decode(points)]
            if strategy is design:
                for point in points:
                    situation = situation.after(point.unsqueeze(0))
        return Chosen(self.situation.index, tuple(chosen), len(self.queued), self.fitted.made)


def _completed(
    queued: Queued,
    situation: Situation,
    strategy: Strategy,
    chosen: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """An enqueued configuration; parameters that it leaves out are proposed by the strategy."""
    if queued.is_whole:
        return queued.params
    within = queued.within
    taken = queued.taken | {within.key(params) for params in chosen if holds(within, params)}
    here = replace(situation, space=within, taken=(taken,))
    try:
        points = _propose(strategy, here, 1)
    except SpaceExhausted:
        # It was enqueued, so it is asked even if it was tried.
        points = _propose(SobolSearch(), replace(here, taken=(frozenset(),)), 1)
    return within.decode(points)[0]


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

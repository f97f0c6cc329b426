"""gpbo as a sampler of Optuna's studies; needs ``pip install 'gpbo[optuna]'``.

The sampler knows only what the study has. It learns the trials of all processes that have ended
since it was last asked; a copy, in which the running trials are pending, makes the proposal.
"""

import math
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from gpbo.errors import InvalidParams, SpaceError, SpaceExhausted
from gpbo.fitting import Inference, Model
from gpbo.integrations import needs_extra
from gpbo.optimizer import Optimizer
from gpbo.parameters import Integer, Parameter, Real
from gpbo.space import Categorical, Space
from gpbo.strategies import Strategy, resolve_strategy

with needs_extra("optuna"):
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.samplers import BaseSampler, RandomSampler
    from optuna.search_space import intersection_search_space
    from optuna.study import Study, StudyDirection
    from optuna.trial import FrozenTrial, TrialState

#: How far a value may be from a point of its grid, in steps; the same as in Optuna.
_ROUNDING = 1e-8


class Sampler(BaseSampler):
    """Proposes the trials of a study: ``optuna.create_study(sampler=Sampler())``.

    It chooses the parameters that all completed trials have, with the same distributions. All other
    parameters, and all parameters until one trial is completed, are drawn at random, independently
    of each other; then the initial design follows. Running trials are pending, trials that failed
    or were pruned make points near them less attractive, and enqueued values are used while the
    others are chosen. Each constraint (``trial.set_constraint``) has a model; a trial that does not
    set one that others have set counts as failed. Once a finite space is used up, values are drawn
    at random, unless the strategy ``repeats``, which is switched on if trials have other parameters
    besides.

    The same seed and results give the same trials if they run one at a time and in one process.
    Processes that share a study need different seeds.

    Args:
        strategy, initial, inference, model, device: As in `gpbo.Optimizer`. Trials that are already
            in the study count towards the initial design.
        seed: The seed of all randomness, 0 or more; by default a different one each time.

    Raises:
        InvalidOption: an option has a value that is not allowed.
    """

    def __init__(
        self,
        strategy: str | Strategy = "ei",
        *,
        seed: int | None = None,
        initial: int | None = None,
        inference: Inference = "hmc",
        model: Model | None = None,
        device: str = "auto",
    ) -> None:
        self._options: dict[str, Any] = {
            "strategy": strategy,
            "seed": _new_seed() if seed is None else seed,
            "initial": initial,
            "inference": inference,
            "model": model,
            "device": device,
        }
        Optimizer(Space(Real("x", 0.0, 1.0)), **self._options)  # checks the options
        self._random = RandomSampler(self._options["seed"] % 2**32)
        self._learner: _Learner | None = None
        self._lock = Lock()  # for the learner, which the threads of a study share
        self._process: int | None = os.getpid()  # the one that the seed is for; None in a copy

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lock": None, "_process": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters to choose: those that all completed trials have and that have several
        values, except ranges too wide or too fine for a `gpbo.Space`.
        """
        searched = {}
        for name, values in intersection_search_space(study.get_trials(deepcopy=False)).items():
            with suppress(SpaceError):
                if not values.single():
                    _parameter(name, values)
                    searched[name] = values
        return searched

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal for a trial.

        Raises:
            ValueError: the study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        with self._lock:
            trials = study.get_trials(deepcopy=False)
            kind = _Kind.of(trials, search_space, study.direction)
            if self._learner is None or not self._learner.serves(kind, trials):
                self._learner = _Learner(kind, self._options)
            with suppress(SpaceExhausted):
                return self._learner.proposed(trial, trials)
        draw = self._random.sample_independent
        return {name: draw(study, trial, name, values) for name, values in search_space.items()}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value for a parameter that the proposal does not have.

        Raises:
            ValueError: the study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw other random values; a copy, or a forked process, also gets another seed.

        A study calls it before each trial in its threads, whose proposals differ by what is
        pending.
        """
        with self._lock:
            self._random.reseed_rng()
            if self._process != os.getpid():
                self._options["seed"], self._learner = _new_seed(), None
                self._process = os.getpid()


@dataclass(frozen=True)
class _Kind:
    """What a learner's trials have in common.

    Attributes:
        searched: The parameters that are chosen.
        limited: The names of the constraints.
        open: Whether trials have other parameters too, on which their values depend.
    """

    direction: StudyDirection
    searched: Mapping[str, BaseDistribution]
    limited: tuple[str, ...]
    open: bool

    @classmethod
    def of(
        cls,
        trials: Iterable[FrozenTrial],
        searched: Mapping[str, BaseDistribution],
        direction: StudyDirection,
    ) -> "_Kind":
        completed = list(filter(_is_complete, trials))
        limited = {name for one in completed for name in one.constraints}
        others = (
            values
            for one in completed
            for name, values in one.distributions.items()
            if name not in searched
        )
        is_open = any(not values.single() for values in others)
        return cls(direction, searched, tuple(sorted(limited)), is_open)

    @property
    def quantities(self) -> list[str]:
        """gpbo's names of the constraints; Optuna's may be any text."""
        return [f"c{number}" for number in range(len(self.limited))]


class _Learner:
    """What is known of a study."""

    def __init__(self, kind: _Kind, options: Mapping[str, Any]) -> None:
        self._kind = kind
        strategy = resolve_strategy(options["strategy"])
        if kind.open:
            with suppress(TypeError):  # a strategy without this option
                strategy = replace(strategy, repeats=True)  # type: ignore[type-var]
        self._optimizer = Optimizer(
            Space(*(_parameter(name, values) for name, values in kind.searched.items())),
            direction="maximize" if kind.direction is StudyDirection.MAXIMIZE else "minimize",
            constraints=[f"{name} <= 0" for name in kind.quantities],
            **{**options, "strategy": strategy},
        )
        self._learned: dict[int, object] = {}  # when the learned trials began, by number
        self._proposals: dict[int, Mapping[str, Any]] = {}  # for trials not yet learned

    def serves(self, kind: _Kind, trials: Iterable[FrozenTrial]) -> bool:
        """Whether the learner is for these trials and this kind."""
        began = self._learned
        same = (began.get(one.number, one.datetime_start) == one.datetime_start for one in trials)
        return kind == self._kind and all(same)

    def proposed(self, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        """A value for each of the parameters.

        Raises:
            SpaceExhausted: all configurations were tried or are pending.
        """
        self._learn([one for one in trials if one.state.is_finished()])
        running = [one for one in trials if one.state is TrialState.RUNNING]
        pending = [self._point(one) for one in running if one.number != trial.number]
        asking = copy(self._optimizer)
        asking.learn(queue=filter(None, pending))
        if asking.queue:
            asking.ask(len(asking.queue))
        params = asking.ask(fixed=self._known(_fixed(trial))).params
        if asking.fitted_size > self._optimizer.fitted_size:
            self._optimizer.adopt(asking.plan_fit()())
        self._proposals[trial.number] = params
        return {name: _decoded(self._kind.searched[name], value) for name, value in params.items()}

    def _learn(self, ended: Iterable[FrozenTrial]) -> None:
        new = [trial for trial in ended if trial.number not in self._learned]
        told = [(self._point(trial), *self._told(trial)) for trial in new]
        self._optimizer.learn([result for result in told if result[0]])
        for trial in new:
            self._learned[trial.number] = trial.datetime_start
            self._proposals.pop(trial.number, None)

    def _told(self, trial: FrozenTrial) -> tuple[float, dict[str, float] | None]:
        """The value and the constrained quantities; NaN for a trial that lacks one of them."""
        limited = self._kind.limited
        if not _is_complete(trial) or not trial.constraints.keys() >= set(limited):
            return math.nan, None
        measured = map(trial.constraints.get, limited)
        return trial.value, dict(zip(self._kind.quantities, measured, strict=True))

    def _point(self, trial: FrozenTrial) -> dict[str, Any]:
        """The trial's configuration; parameters that it has not taken (yet) are as proposed. Empty
        if it lies outside the space, or is not known.
        """
        given = {**_fixed(trial), **trial.params}
        known = self._known(given)
        if len(known) < len(self._kind.searched.keys() & given.keys()):
            return {}
        known = {**self._proposals.get(trial.number, {}), **known}
        return known if len(known) == len(self._kind.searched) else {}

    def _known(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values that lie in the space; Optuna lets enqueued ones lie outside."""
        known: dict[str, Any] = {}
        for name in self._kind.searched.keys() & given.keys():
            with suppress(InvalidParams, ArithmeticError, TypeError, ValueError):
                encoded = {name: _encoded(self._kind.searched[name], given[name])}
                known.update(self._optimizer.space.validate(encoded, whole=False))
        return known


def _new_seed() -> int:
    return secrets.randbelow(2**31)


def _fixed(trial: FrozenTrial) -> Mapping[str, Any]:
    """The values that the trial was enqueued with."""
    enqueued: Mapping[str, Any] = trial.system_attrs.get("fixed_params", {})
    return enqueued


def _is_complete(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.COMPLETE


def _is_stepped(values: Any) -> bool:
    """Whether the values lie on an even grid, so that their places on it represent them."""
    return not isinstance(values, CategoricalDistribution) and bool(
        values.step is not None and not values.log
    )


def _parameter(name: str, values: Any) -> Parameter:
    """The parameter for a distribution; choices are represented by their numbers."""
    if isinstance(values, CategoricalDistribution):
        return Categorical(name, range(len(values.choices)))
    if _is_stepped(values):
        return Integer(name, 0, _place(values, values.high))
    kind = Real if isinstance(values.high, float) else Integer
    return kind(name, values.low, values.high, "log" if values.log else "linear")


def _encoded(values: Any, value: Any) -> Any:
    """Optuna's value as a value of the parameter.

    Raises:
        ValueError: it is not one of the choices, or not on the grid.
    """
    if isinstance(values, CategoricalDistribution):
        return int(values.to_internal_repr(value))
    if not _is_stepped(values):
        return value
    place = _place(values, value)
    if abs(value - _decoded(values, place)) > _ROUNDING * values.step:
        raise ValueError(f"{value!r} is not on the grid")
    return place


def _decoded(values: Any, value: Any) -> Any:
    """The inverse of `_encoded`."""
    if isinstance(values, CategoricalDistribution):
        return values.choices[value]
    return min(values.low + value * values.step, values.high) if _is_stepped(values) else value


def _place(values: Any, value: Any) -> int:
    return round((value - values.low) / values.step)

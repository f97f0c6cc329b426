"""gpbo as a sampler of Optuna's studies; needs ``pip install 'gpbo[optuna]'``.

What a study has is all that the sampler knows. It learns the trials that have ended since it was
asked last, from whatever process, and those that run are pending in a copy that makes the proposal.
"""

import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import copy
from threading import Lock
from typing import Any

from gpbo.errors import InvalidParams, SpaceExhausted
from gpbo.fitting import Inference, Model
from gpbo.integrations import needs_extra
from gpbo.optimizer import Optimizer
from gpbo.parameters import Integer, Parameter, Real
from gpbo.space import Categorical, Space
from gpbo.strategies import Strategy

with needs_extra("optuna"):
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.samplers import BaseSampler, RandomSampler
    from optuna.search_space import intersection_search_space
    from optuna.study import Study, StudyDirection
    from optuna.trial import FrozenTrial, TrialState

#: By name.
Distributions = Mapping[str, BaseDistribution]


class Sampler(BaseSampler):
    """Proposes the trials of a study: ``optuna.create_study(sampler=Sampler())``.

    It chooses the parameters that all completed trials have had, with the same distributions. All
    others, and all of the first trial, are drawn at random, independently of each other; the
    initial design follows. Trials that run are pending, those that failed or were pruned make the
    points near them less attractive, and enqueued values are kept to while the others are chosen.
    Quantities that the objective limits (``trial.set_constraint``) have models; a trial that
    does not set one that others have set counts as failed. A finite space that is used up is
    searched at random, unless the strategy ``repeats``.

    The same seed and results give the same trials, if they run one at a time and in one process.

    Args:
        strategy, initial, inference, model, device: As those of `gpbo.Optimizer`. Trials that are
            in the study already count towards the initial design.
        seed: The seed of everything random, 0 or more; by default another one each time.

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
            "seed": secrets.randbelow(2**31) if seed is None else seed,
            "initial": initial,
            "inference": inference,
            "model": model,
            "device": device,
        }
        Optimizer(Space(Real("x", 0.0, 1.0)), **self._options)  # refuses what is not allowed
        self._random = RandomSampler(self._options["seed"])
        self._learner: _Learner | None = None
        self._lock = Lock()  # of the learner, which the threads of a study share

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What is chosen: the parameters of all completed trials that have several values."""
        found = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: values for name, values in found.items() if not values.single()}

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
            complete = filter(_is_complete, trials)
            limited = sorted({name for one in complete for name in one.constraints})
            serves = study.study_name, study.direction, search_space, limited
            if self._learner is None or self._learner.serves != serves:
                self._learner = _Learner(*serves, self._options)
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
        """Draw other random values from now on; proposals differ by what is pending."""
        self._random.reseed_rng()


class _Learner:
    """What is known of a study whose trials have these parameters and set these constraints."""

    def __init__(
        self,
        study: str,
        direction: StudyDirection,
        searched: Distributions,
        limited: list[str],
        options: Mapping[str, Any],
    ) -> None:
        self.serves = study, direction, searched, limited
        self._searched, self._limited = searched, limited
        self._optimizer = Optimizer(
            Space(*(_parameter(name, values) for name, values in searched.items())),
            direction="maximize" if direction is StudyDirection.MAXIMIZE else "minimize",
            constraints=[f"{name} <= 0" for name in self._quantities()],
            **options,
        )
        self._learned: set[int] = set()
        self._proposals: dict[int, Mapping[str, Any]] = {}

    def proposed(self, trial: FrozenTrial, trials: Iterable[FrozenTrial]) -> dict[str, Any]:
        """A value for each of the parameters.

        Raises:
            SpaceExhausted: all configurations are known, or pending.
        """
        self._learn(one for one in trials if one.state.is_finished())
        asking = copy(self._optimizer)
        self._have_pending(asking, (one for one in trials if one.state is TrialState.RUNNING))
        fixed = self._known(trial.system_attrs.get("fixed_params", {}))
        params = asking.ask(fixed=fixed or None).params
        if asking.fitted_size > self._optimizer.fitted_size:
            self._optimizer.adopt(asking.plan_fit()())
        self._proposals[trial.number] = params
        return {name: _decoded(self._searched[name], value) for name, value in params.items()}

    def _learn(self, ended: Iterable[FrozenTrial]) -> None:
        new = [trial for trial in ended if trial.number not in self._learned]
        self._learned.update(trial.number for trial in new)
        told = [(self._configuration(trial), *self._told(trial)) for trial in new]
        self._optimizer.learn([result for result in told if result[0]])

    def _told(self, trial: FrozenTrial) -> tuple[float, dict[str, float] | None]:
        """The value and what is limited; NaN for a trial that has not all of it."""
        if not _is_complete(trial) or not trial.constraints.keys() >= set(self._limited):
            return float("nan"), None
        limits = map(trial.constraints.get, self._limited)
        return trial.value, dict(zip(self._quantities(), limits, strict=True))

    def _have_pending(self, asking: Optimizer, running: Iterable[FrozenTrial]) -> None:
        # A trial that has just begun may not have taken its values yet.
        found = [self._configuration(one) or self._proposals.get(one.number) for one in running]
        pending = [params for params in found if params]
        asking.learn(queue=pending)
        if pending:
            asking.ask(len(pending))

    def _configuration(self, trial: FrozenTrial) -> dict[str, Any]:
        """The trial's point of the space; empty if it has none."""
        known = self._known(trial.params)
        return known if len(known) == len(self._searched) else {}

    def _known(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the values that the space has; Optuna lets enqueued ones lie outside."""
        known: dict[str, Any] = {}
        for name in self._searched.keys() & params.keys():
            with suppress(InvalidParams, ArithmeticError, TypeError, ValueError):
                encoded = {name: _encoded(self._searched[name], params[name])}
                known.update(self._optimizer.space.validate(encoded, whole=False))
        return known

    def _quantities(self) -> list[str]:
        """The names of the constraints here; Optuna's may be any text."""
        return [f"c{number}" for number in range(len(self._limited))]


def _is_complete(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.COMPLETE


def _is_stepped(values: Any) -> bool:
    """Whether the values lie on an even grid, and are known here by their places on it."""
    return not isinstance(values, CategoricalDistribution) and bool(
        values.step is not None and not values.log
    )


def _parameter(name: str, values: Any) -> Parameter:
    """The parameter of a space for a distribution; choices go by their numbers."""
    if isinstance(values, CategoricalDistribution):
        return Categorical(name, range(len(values.choices)))
    if _is_stepped(values):
        return Integer(name, 0, _place(values, values.high))
    kind = Real if isinstance(values.high, float) else Integer
    return kind(name, values.low, values.high, "log" if values.log else "linear")


def _encoded(values: Any, value: Any) -> Any:
    """A value of Optuna's as one of the parameter's.

    Raises:
        ValueError: it is none of the choices, or no number.
    """
    if isinstance(values, CategoricalDistribution):
        return int(values.to_internal_repr(value))
    return _place(values, value) if _is_stepped(values) else value


def _decoded(values: Any, value: Any) -> Any:
    """The inverse of `_encoded`."""
    if isinstance(values, CategoricalDistribution):
        return values.choices[value]
    return min(values.low + value * values.step, values.high) if _is_stepped(values) else value


def _place(values: Any, value: Any) -> int:
    return round((value - values.low) / values.step)

"""Ax: its client at the default ("fast") strategy, BoTorch under Ax's transforms and log NEI."""

from collections.abc import Sequence
from typing import Any, Literal

from ax.api.client import Client
from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

from .base import Adapter, Task
from .space import Parameter, Point


class Fast(Adapter):
    """``Client`` with the initial design instead of its centre and Sobol points."""

    method: Literal["fast", "quality"] = "fast"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._client = Client(random_seed=task.seed)
        self._client.configure_experiment(parameters=[_config(p) for p in task.space])
        self._excesses = [f"excess{i}" for i in range(task.constraints)]
        self._client.configure_optimization(
            objective="-value", outcome_constraints=[f"{name} <= 0" for name in self._excesses]
        )
        if task.initial:
            self._client.configure_generation_strategy(
                method=self.method,
                initialization_budget=task.initial,
                initialization_random_seed=task.seed,
                initialize_with_center=False,
                allow_exceeding_initialization_budget=True,
            )
        self._running: list[int] = []

    def add(self, point: Point, value: float | None) -> None:
        """As an attached trial."""
        typed = {p.name: _typed(p, point[p.name]) for p in self.task.space}
        self._end(self._client.attach_trial(typed), value)

    def ask(self) -> Point:
        """The client's next trial."""
        return self.asks(1)[0]

    def asks(self, count: int) -> Sequence[Point]:
        """The client's next trials."""
        trials = self._client.get_next_trials(max_trials=count)
        self._running += trials
        return [self._numbers(params) for params in trials.values()]

    def tell(self, value: float | None) -> None:
        """A failed evaluation is a failed trial."""
        self._end(self._running.pop(0), value)

    def _end(self, trial: int, value: float | None) -> None:
        if value is None:
            self._client.mark_trial_failed(trial)
        else:
            measured = dict(zip(self._excesses, self.excess, strict=True))
            self._client.complete_trial(trial, raw_data={"value": value, **measured})

    def recommend(self) -> Point | None:
        """The best of the configurations by the model's prediction; with constraints none."""
        if self.task.constraints:
            return None
        params, _, _, _ = self._client.get_best_parameterization()
        return self._numbers(params)

    def _numbers(self, params: Any) -> Point:
        return {p.name: float(params[p.name]) for p in self.task.space}


def _config(parameter: Parameter) -> Any:
    if parameter.kind in ("ordinal", "categorical"):
        ordered = parameter.kind == "ordinal"
        return ChoiceParameterConfig(
            name=parameter.name,
            values=[_typed(parameter, value) for value in parameter.values()],
            parameter_type="int" if ordered else "str",
            is_ordered=ordered,
        )
    return RangeParameterConfig(
        name=parameter.name,
        bounds=(parameter.low, parameter.high),
        parameter_type="float" if parameter.kind == "real" else "int",
        scaling="log" if parameter.log else "linear",
    )


def _typed(parameter: Parameter, value: float) -> Any:
    """Categoricals are strings, so that their numbers do not count as quantities."""
    return str(int(value)) if parameter.kind == "categorical" else parameter.typed(value)

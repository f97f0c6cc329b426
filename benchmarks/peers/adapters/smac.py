"""SMAC3 (Lindauer et al. 2022): its facades for black boxes and for hyperparameters."""

import logging
import tempfile
from typing import Any

from ConfigSpace import (
    Categorical,
    Configuration,
    ConfigurationSpace,
    Float,
    Integer,
    OrdinalHyperparameter,
)
from smac import BlackBoxFacade, HyperparameterOptimizationFacade, Scenario
from smac.runhistory.dataclasses import TrialInfo, TrialValue
from smac.runhistory.enumerations import StatusType

from .base import Adapter, Task, imputed
from .space import Parameter, Point


class _Facade(Adapter):
    """A facade that is asked and told; it is made once the design is complete."""

    facade_class: type[Any]

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        logging.getLogger("smac").setLevel(logging.ERROR)
        self._space = ConfigurationSpace(seed=task.seed)
        self._space.add([_hyperparameter(p) for p in task.space])
        self._folder = tempfile.TemporaryDirectory()
        self._design: list[tuple[Configuration, float | None]] = []
        self._facade: Any = None
        self._values: list[float | None] = []

    def add(self, point: Point, value: float | None) -> None:
        """Kept for the facade."""
        self._values.append(value)
        typed = {p.name: p.typed(point[p.name]) for p in self.task.space}
        self._design.append((Configuration(self._space, typed), value))

    def ask(self) -> Point:
        """The next trial of the intensifier, which calls a configuration once."""
        if self._facade is None:
            self._facade = self._make()
        self._trial: TrialInfo = self._facade.ask()
        config = dict(self._trial.config)
        return {p.name: config[p.name] for p in self.task.space}

    def tell(self, value: float | None) -> None:
        """A failed evaluation is a crash, at the worst cost so far."""
        self._values.append(value)
        self._tell(self._facade, self._trial, value)

    def _make(self) -> Any:
        scenario = Scenario(
            self._space,
            deterministic=True,
            # Asking ends with the budget; SMAC must not make plans for its last trials.
            n_trials=self.task.budget + 10,
            seed=self.task.seed,
            output_directory=self._folder.name,
        )
        own: dict[str, Any] = {}
        if self._design:
            configs = [config for config, _ in self._design]
            own["initial_design"] = self.facade_class.get_initial_design(
                scenario, n_configs=0, additional_configs=configs
            )
        facade = self.facade_class(
            scenario,
            _nothing,
            intensifier=self.facade_class.get_intensifier(scenario, max_config_calls=1),
            overwrite=True,
            logging_level=False,
            **own,
        )
        # SMAC asks for its initial design itself, as it would in its own loop.
        known = dict(self._design)
        for _ in known:
            trial = facade.ask()
            self._tell(facade, trial, known[trial.config])
        return facade

    def _tell(self, facade: Any, trial: TrialInfo, value: float | None) -> None:
        facade.tell(
            trial,
            TrialValue(
                cost=imputed([*self._values, value])[-1],
                status=StatusType.CRASHED if value is None else StatusType.SUCCESS,
            ),
            save=False,
        )


class BlackBox(_Facade):
    """A Gaussian process and expected improvement."""

    facade_class = BlackBoxFacade


class Forest(_Facade):
    """A random forest and log EI, for mixed spaces: SMAC's first choice for hyperparameters."""

    facade_class = HyperparameterOptimizationFacade


def _nothing(config: Configuration, seed: int = 0) -> float:
    """The facade wants a function, which asking never calls."""
    raise AssertionError("evaluations are the runner's")


def _hyperparameter(parameter: Parameter) -> Any:
    if parameter.kind == "real":
        return Float(parameter.name, (parameter.low, parameter.high), log=parameter.log)
    if parameter.kind == "integer":
        bounds = (int(parameter.low), int(parameter.high))
        return Integer(parameter.name, bounds, log=parameter.log)
    if parameter.kind == "ordinal":
        return OrdinalHyperparameter(parameter.name, parameter.values())
    return Categorical(parameter.name, parameter.values())

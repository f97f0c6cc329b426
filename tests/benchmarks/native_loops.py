"""Every peer's own loop on Branin, as its documentation has it, in its own interpreter.

    python native_loops.py NAME DESIGN SEED BUDGET    # DESIGN is a JSON list of points

where ``within-NAME`` is the loop of NAME within a constraint,

prints the values, those of the design first, as a JSON list. Only the standard library and the
peer are imported. The channels of the runner are not used: there is no ask and tell here where the
peer has a loop of its own.
"""

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

LOW, HIGH = (-5.0, 0.0), (10.0, 15.0)
Design = list[list[float]]


def branin(x: float, y: float) -> float:
    """In user units."""
    bowl = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return float(bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)


def beyond_disk(x: float, y: float) -> float:
    """How far a point is outside a disk that has no minimum of Branin in it."""
    return (x - 2.5) ** 2 + (y - 7.5) ** 2 - 25


def _optuna(
    sampler: Any, design: Design, budget: int, within: bool = False, batch: int = 1
) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    names = {"x": 0, "y": 1}
    distributions: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(LOW[i], HIGH[i]) for name, i in names.items()
    }
    for point in design:
        params = dict(zip(names, point, strict=True))
        trial = optuna.trial.create_trial(
            params=params, distributions=distributions, value=branin(*point)
        )
        if within:
            trial.set_constraint("disk", beyond_disk(*point))
        study.add_trial(trial)

    def objective(trial: Any) -> float:
        x, y = (trial.suggest_float(name, LOW[i], HIGH[i]) for name, i in names.items())
        if within:
            trial.set_constraint("disk", beyond_disk(x, y))
        return branin(x, y)

    if batch == 1:
        study.optimize(objective, n_trials=budget - len(design))
    while len(study.trials) < budget:
        count = min(batch, budget - len(study.trials))
        for trial in [study.ask(distributions) for _ in range(count)]:
            study.tell(trial, objective(trial))
    return [trial.value for trial in study.trials]


def _botorch(acquisition: Any, design: Design, seed: int, budget: int, batch: int) -> list[float]:
    import torch
    from botorch import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.optim import optimize_acqf
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.manual_seed(seed)
    low, high = torch.tensor([LOW, HIGH]).double()
    points = torch.tensor(design).double()
    values = [branin(*point) for point in points.tolist()]
    while len(values) < budget:
        x, y = (points - low) / (high - low), -torch.tensor(values).double()[:, None]
        model = SingleTaskGP(x, y)  # which standardises
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        cube = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
        count = min(batch, budget - len(values))
        found, _ = optimize_acqf(
            acquisition(model, x, y),
            cube,
            q=count,
            num_restarts=10,
            raw_samples=512,
            sequential=count > 1,
        )
        points = torch.cat([points, low + found * (high - low)])
        values += [branin(*point) for point in points[-count:].tolist()]
    return values


def botorch_nei(design: Design, seed: int, budget: int, batch: int = 1) -> list[float]:
    from botorch.acquisition import qLogNoisyExpectedImprovement

    def acquisition(model: Any, x: Any, y: Any) -> Any:
        return qLogNoisyExpectedImprovement(model, x)

    return _botorch(acquisition, design, seed, budget, batch)


def botorch_ei(design: Design, seed: int, budget: int, batch: int) -> list[float]:
    from botorch.acquisition import LogExpectedImprovement, qLogExpectedImprovement

    def acquisition(model: Any, x: Any, y: Any) -> Any:
        alone = (budget - len(y)) == 1
        return (LogExpectedImprovement if alone else qLogExpectedImprovement)(model, y.max())

    return _botorch(acquisition, design, seed, budget, batch)


def botorch_ei_within(design: Design, seed: int, budget: int) -> list[float]:
    import torch
    from botorch import fit_gpytorch_mll
    from botorch.acquisition.analytic import (
        LogConstrainedExpectedImprovement,
        LogProbabilityOfFeasibility,
    )
    from botorch.models import ModelListGP, SingleTaskGP
    from botorch.optim import optimize_acqf
    from gpytorch.mlls import SumMarginalLogLikelihood

    torch.manual_seed(seed)
    low, high = torch.tensor([LOW, HIGH]).double()
    points = torch.tensor(design).double()
    while True:
        results = [(branin(*point), beyond_disk(*point)) for point in points.tolist()]
        if len(results) == budget:
            return [value for value, _ in results]
        x = (points - low) / (high - low)
        value, beyond = torch.tensor(results).double().split(1, 1)  # each model standardises
        model = ModelListGP(SingleTaskGP(x, value), SingleTaskGP(x, beyond))
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        limit = {1: (None, 0.0)}
        acquisition = LogProbabilityOfFeasibility(model, limit)
        if (beyond <= 0).any():
            best = value[beyond <= 0].min()
            acquisition = LogConstrainedExpectedImprovement(model, best, 0, limit, maximize=False)
        cube = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
        found, _ = optimize_acqf(acquisition, cube, q=1, num_restarts=10, raw_samples=512)
        points = torch.cat([points, low + found * (high - low)])


def optuna_gp(
    design: Design, seed: int, budget: int, within: bool = False, batch: int = 1
) -> list[float]:
    import optuna

    sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=len(design))
    return _optuna(sampler, design, budget, within, batch)


def optuna_tpe(
    design: Design, seed: int, budget: int, within: bool = False, batch: int = 1
) -> list[float]:
    import optuna

    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=len(design))
    return _optuna(sampler, design, budget, within, batch)


def skopt(design: Design, seed: int, budget: int) -> list[float]:
    from skopt import gp_minimize

    result = gp_minimize(
        lambda point: branin(*point),
        list(zip(LOW, HIGH, strict=True)),
        x0=design,
        y0=[branin(*point) for point in design],
        n_calls=budget - len(design),
        n_initial_points=0,
        random_state=seed,
    )
    return [float(value) for value in result.func_vals]


def skopt_in_batches(design: Design, seed: int, budget: int, batch: int) -> list[float]:
    import numpy as np
    from sklearn.utils import check_random_state
    from skopt import Optimizer
    from skopt.utils import cook_estimator, normalize_dimensions

    random = check_random_state(seed)
    dimensions = normalize_dimensions(list(zip(LOW, HIGH, strict=True)))
    own_seed = random.randint(0, np.iinfo(np.int32).max)
    optimizer = Optimizer(
        dimensions,
        cook_estimator("GP", space=dimensions, random_state=own_seed, noise="gaussian"),
        n_initial_points=len(design),
        random_state=random,
        acq_func="gp_hedge",
        acq_optimizer_kwargs={"n_points": 10_000, "n_restarts_optimizer": 5, "n_jobs": 1},
    )
    values, points = [branin(*point) for point in design], design
    optimizer.tell(points, values)
    while len(values) < budget:
        count = min(batch, budget - len(values))
        points = optimizer.ask(n_points=count) if count > 1 else [optimizer.ask()]
        new = [branin(*point) for point in points]
        values += new
        optimizer.tell(points, new)
    return values


def _smac(name: str, design: Design, seed: int, budget: int) -> list[float]:
    import smac
    from ConfigSpace import Configuration, ConfigurationSpace, Float

    space = ConfigurationSpace(seed=seed)
    space.add([Float(n, (LOW[i], HIGH[i])) for i, n in enumerate(("p0", "p1"))])
    values: list[float] = []
    # ConfigSpace rounds what it is given, and a forest may split elsewhere after a rounding.
    known = {tuple(round(x, 9) for x in point): branin(*point) for point in design}

    def objective(config: Any, seed: int = 0) -> float:
        point = config["p0"], config["p1"]
        values.append(known.get(tuple(round(x, 9) for x in point), branin(*point)))
        return values[-1]

    facade_class = getattr(smac, name)
    with tempfile.TemporaryDirectory() as folder:
        scenario = smac.Scenario(
            space, deterministic=True, n_trials=budget, seed=seed, output_directory=folder
        )
        configs = [
            Configuration(space, dict(zip(("p0", "p1"), point, strict=True))) for point in design
        ]
        facade_class(
            scenario,
            objective,
            initial_design=facade_class.get_initial_design(
                scenario, n_configs=0, additional_configs=configs
            ),
            intensifier=facade_class.get_intensifier(scenario, max_config_calls=1),
            overwrite=True,
            logging_level=False,
        ).optimize()
    return values


def smac_gp(design: Design, seed: int, budget: int) -> list[float]:
    return _smac("BlackBoxFacade", design, seed, budget)


def smac_rf(design: Design, seed: int, budget: int) -> list[float]:
    return _smac("HyperparameterOptimizationFacade", design, seed, budget)


def ax(design: Design, seed: int, budget: int, within: bool = False, batch: int = 1) -> list[float]:
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig

    client = Client(random_seed=seed)
    client.configure_experiment(
        parameters=[
            RangeParameterConfig(name=n, bounds=(LOW[i], HIGH[i]), parameter_type="float")
            for i, n in enumerate(("p0", "p1"))
        ]
    )
    client.configure_optimization(
        objective="-value", outcome_constraints=["beyond <= 0"] if within else []
    )
    client.configure_generation_strategy(
        initialization_budget=len(design),
        initialize_with_center=False,
        # Otherwise the first batch is one point.
        allow_exceeding_initialization_budget=batch > 1,
    )
    values: list[float] = []

    def complete(index: int, x: float, y: float) -> None:
        values.append(branin(x, y))
        # Their order by name decides that of their models, and that the last digits.
        beyond = {"beyond": beyond_disk(x, y)} if within else {}
        client.complete_trial(index, raw_data={"value": values[-1], **beyond})

    for x, y in design:
        complete(client.attach_trial({"p0": x, "p1": y}), x, y)
    while len(values) < budget:
        count = min(batch, budget - len(values))
        for index, params in client.get_next_trials(max_trials=count).items():
            complete(index, params["p0"], params["p1"])
    return values


def hebo(design: Design, seed: int, budget: int, batch: int = 1) -> list[float]:
    import random

    import numpy as np
    import pandas as pd
    import torch
    from hebo.design_space.design_space import DesignSpace
    from hebo.optimizers.hebo import HEBO

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    space = DesignSpace().parse(
        [
            {"name": n, "type": "num", "lb": LOW[i], "ub": HIGH[i]}
            for i, n in enumerate(("p0", "p1"))
        ]
    )
    optimizer = HEBO(space, rand_sample=len(design), scramble_seed=seed)
    values = [branin(*point) for point in design]
    optimizer.observe(pd.DataFrame(design, columns=["p0", "p1"]), np.array(values)[:, None])
    while len(values) < budget:
        suggested = optimizer.suggest(n_suggestions=min(batch, budget - len(values)))
        new = [branin(*point) for point in suggested[["p0", "p1"]].to_numpy()]
        values += new
        optimizer.observe(suggested, np.array(new)[:, None])
    return values


def cmaes(design: Design, seed: int, budget: int) -> list[float]:
    import numpy as np
    from cmaes import CMA

    values = [branin(*point) for point in design]
    low, width = np.array(LOW), np.array(HIGH) - np.array(LOW)
    best = np.array(design[int(np.argmin(values))])
    own_seed = np.random.RandomState(seed).randint(2**31 - 1)
    optimizer = CMA(
        mean=(best - low) / width, sigma=0.2, bounds=np.array([[0, 1], [0, 1]]), seed=own_seed
    )
    while len(values) < budget:
        solutions = []
        for _ in range(optimizer.population_size):
            x = optimizer.ask()
            value = branin(*(low + x * width))
            values.append(value)
            solutions.append((x, value))
        optimizer.tell(solutions)
    return values[:budget]


LOOPS: dict[str, Callable[[Design, int, int], list[float]]] = {
    "botorch-nei": botorch_nei,
    "optuna-gp": optuna_gp,
    "optuna-tpe": optuna_tpe,
    "skopt": skopt,
    "smac-gp": smac_gp,
    "smac-rf": smac_rf,
    "ax": ax,
    "hebo": hebo,
    "cmaes": cmaes,
}

#: Within a constraint, where a peer takes one.
WITHIN: dict[str, Callable[[Design, int, int], list[float]]] = {
    "botorch-ei": botorch_ei_within,
    "optuna-gp": partial(optuna_gp, within=True),
    "optuna-tpe": partial(optuna_tpe, within=True),
    "ax": partial(ax, within=True),
}

#: In batches of three, where a peer makes them; of those of BoTorch with draws see `botorch_nei`.
IN_BATCHES: dict[str, Callable[[Design, int, int], list[float]]] = {
    "botorch-ei": partial(botorch_ei, batch=3),
    "botorch-nei": partial(botorch_nei, batch=3),
    "optuna-gp": partial(optuna_gp, batch=3),
    "optuna-tpe": partial(optuna_tpe, batch=3),
    "skopt": partial(skopt_in_batches, batch=3),
    "ax": partial(ax, batch=3),
    "hebo": partial(hebo, batch=3),
}

if __name__ == "__main__":
    name, design, seed, budget = sys.argv[1:]
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    within = {f"within-{own}": loop for own, loop in WITHIN.items()}
    in_batches = {f"in-batches-{own}": loop for own, loop in IN_BATCHES.items()}
    loop = (LOOPS | within | in_batches)[name]
    json.dump(loop(json.loads(design), int(seed), int(budget)), results)

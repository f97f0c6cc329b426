"""gpbo's own methods: all seeds of a problem as rows of one batch, timed part by part."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

import gpbo
from gpbo.fitting import Fit, Inference, Model
from gpbo.problems import Problem
from gpbo.simulation import simulate
from gpbo.situation import Situation, Strategy
from gpbo.strategies import (
    ExpectedImprovement,
    ProbabilityOfImprovement,
    RandomSearch,
    SobolSearch,
    ThompsonSampling,
)
from gpbo.trust_region import TrustRegion

from .estimators import TuningProblem
from .suites import Case
from .trace import Trace

#: The law of the evaluation times where there are several workers; see `gpbo.simulation.LAWS`.
LAW = "exponential"


@dataclass(frozen=True)
class Method:
    """A strategy with everything that it is run with.

    Attributes:
        workers, mode: With more than one, they run on a simulated clock, in step or not.
    """

    name: str
    strategy: Strategy
    inference: Inference = "nuts"
    model: Model | None = None
    workers: int = 1
    mode: Literal["async", "sync"] = "async"

    def run(self, case: Case, seeds: Sequence[int]) -> list[Trace]:
        """A trace for each of these consecutive seeds.

        Where the problem has noise, a run makes one trial more, which is not in the trace: the
        model it comes from says what is to be recommended after the last one.
        """
        problem = case.of(seeds)
        timer = Timer(problem.function)
        problem = replace(problem, function=timer)
        strategy = Timed(self.strategy)
        extra = int(problem.noise > 0 and self.strategy.uses_model)
        options: dict[str, Any] = {
            "strategy": strategy,
            "runs": len(seeds),
            "seed": seeds[0],
            "budget": case.budget + extra,
            "initial": max(case.design, self.workers),
            "inference": self.inference,
            "model": self.model,
        }
        began = time.perf_counter()
        if self.workers > 1:
            done = _simulated(problem, options, self.workers, self.mode)
        else:
            done = _replicated(problem, options)
        spent = time.perf_counter() - began - timer.seconds
        return [self._trace(case, problem, strategy, done, row, spent) for row in range(len(seeds))]

    def _trace(
        self, case: Case, problem: Problem, strategy: "Timed", done: "_Done", row: int, spent: float
    ) -> Trace:
        seed, count = done.seeds[row], min(done.counts[row], case.budget)
        numbers = done.trial[row][:count]
        values, truth = (
            [value if math.isfinite(value) else None for value in each[row][:count].tolist()]
            for each in (done.values, done.truth)
        )
        params = problem.space.decode(done.points[row, :count])
        steps = [strategy.steps.get((seed, number)) for number in numbers]
        searched = sum(step is not None for step in steps)
        # What is neither fit nor acquisition is spread evenly over the proposals of all runs.
        rest = (spent - strategy.seconds) / max(1, len(strategy.steps))
        places = [strategy.recommended.get((seed, n)) for n in range(1, count + 1)]
        objective = problem.objective if isinstance(problem, TuningProblem) else None
        return Trace(
            method=self.name,
            problem=case.name,
            seed=seed,
            budget=case.budget,
            design=count - searched,
            params=tuple(params),
            values=tuple(values),
            truth=tuple(truth),
            status=tuple("failed" if value is None else "completed" for value in values),
            ask_s=tuple(0.0 if step is None else sum(step) + rest for step in steps),
            fit_s=tuple(0.0 if step is None else step[0] for step in steps),
            acquisition_s=tuple(0.0 if step is None else step[1] for step in steps),
            evaluation_s=tuple(objective(p).seconds if objective else 0.0 for p in params),
            clock=tuple(done.clock[row][:count]) if done.clock else (),
            recommended=tuple(None if at is None else params[at] for at in places),
            recommended_truth=tuple(None if at is None else truth[at] for at in places),
            together=len(done.seeds),
            versions=VERSIONS,
            failure=None if count == case.budget else "the space was exhausted",
        )


VERSIONS = {name: version(name) for name in ("gpbo", "torch", "gpytorch", "botorch")}


@dataclass
class Timer:
    """A function, and the seconds spent in it."""

    function: Callable[[Tensor], Tensor]
    seconds: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        began = time.perf_counter()
        try:
            return self.function(x)
        finally:
            self.seconds += time.perf_counter() - began


@dataclass
class Timed:
    """A strategy that starts from the initial design, whatever it is, and whose parts are timed.

    Attributes:
        steps: Seconds of the fit and of the acquisition, by seed and number of the trial.
        recommended: The observed point of least posterior mean, by seed and number of results.
        seconds: Of all steps together.
    """

    strategy: Strategy
    steps: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    recommended: dict[tuple[int, int], int] = field(default_factory=dict)
    seconds: float = 0.0
    uses_model: bool = True

    @property
    def name(self) -> str:
        """That of the strategy."""
        return self.strategy.name

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """What the strategy proposes."""
        fits: list[Fit] = []
        fit_s = 0.0

        def fit() -> Fit:
            nonlocal fit_s
            began = time.perf_counter()
            fits[:] = [situation.fit()]
            fit_s += time.perf_counter() - began
            return fits[0]

        began = time.perf_counter()
        points = self.strategy.propose(replace(situation, fit=fit), count)
        seconds = time.perf_counter() - began
        share = len(situation.seeds) * count
        parts = fit_s / share, (seconds - fit_s) / share
        for seed in situation.seeds:
            for number in range(situation.index, situation.index + count):
                self.steps[seed, number] = parts
        self.seconds += seconds
        if fits:
            self._recommend(situation, fits[0])
        return points

    def _recommend(self, situation: Situation, fit: Fit) -> None:
        data = situation.data
        mean = fit.surrogate.moments(data.x)[0].mean(1)
        best = torch.where(data.mask, mean, torch.inf).argmin(-1)
        counts = data.counts.tolist()
        for seed, results, place in zip(situation.seeds, counts, best.tolist(), strict=True):
            self.recommended[seed, results] = place


@dataclass(frozen=True)
class _Done:
    """Trials of every run in the order in which they ended; ``counts`` of them are there."""

    seeds: tuple[int, ...]
    counts: list[int]
    trial: list[list[int]]
    points: Float[Tensor, "r t d"]
    values: Float[Tensor, "r t"]
    truth: Float[Tensor, "r t"]
    clock: list[list[float]]


def _replicated(problem: Problem, options: dict[str, Any]) -> _Done:
    runs = gpbo.replicate(problem, progress=False, **options)
    if runs.stopped == "interrupted":
        raise KeyboardInterrupt
    trials = list(range(runs.values.shape[1]))
    points, values, truth = map(torch.from_numpy, (runs.points, runs.values, runs.truth))
    return _Done(
        runs.seeds, runs.trials.tolist(), [trials] * len(runs.seeds), points, values, truth, []
    )


def _simulated(
    problem: Problem, options: dict[str, Any], workers: int, mode: Literal["async", "sync"]
) -> _Done:
    runs = simulate(problem, workers=workers, mode=mode, times=LAW, **options)
    return _Done(
        runs.seeds,
        [runs.values.shape[1]] * len(runs.seeds),
        runs.trial.tolist(),
        runs.points,
        runs.values,
        runs.truth,
        runs.told.tolist(),
    )


def _own() -> dict[str, Method]:
    plain: dict[str, Strategy] = {
        "ei": ExpectedImprovement(),
        "pi": ProbabilityOfImprovement(),
        "ts": ThompsonSampling(),
    }
    region = ThompsonSampling(trust_region=TrustRegion())
    methods = [Method("random", RandomSearch()), Method("sobol", SobolSearch())]
    for name, strategy in plain.items():
        for inference in ("nuts", "map"):
            method = Method(f"{name}-{inference}", strategy, inference)
            methods.append(method)
            for mode in ("sync", "async"):
                label = f"{method.name}-{mode}4"
                methods.append(replace(method, name=label, workers=4, mode=mode))
    methods += [
        Method("ei-nuts-saas", plain["ei"], "nuts", Model(prior="saas")),
        Method("ts-nuts-region", region, "nuts"),
        Method("ts-map-region", region, "map"),
    ]
    return {method.name: method for method in methods}


#: By name, such as ``"ei-nuts"``: strategy, inference, and if several workers, how many and how.
METHODS: dict[str, Method] = _own()

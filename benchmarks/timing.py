"""Runs of gpbo timed part by part, and the traces that they leave."""

import itertools
import time
from dataclasses import dataclass, field, replace
from importlib.metadata import version

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.fitting import Fit
from gpbo.problems import Problem
from gpbo.problems.problem import Function
from gpbo.replications import Replications
from gpbo.simulation import Simulation
from gpbo.situation import Situation, Strategy

from .suites import Case
from .trace import EXHAUSTED, Evaluation, Trace
from .tuning import TuningProblem

VERSIONS = {name: version(name) for name in ("gpbo", "torch", "gpytorch", "botorch")}


@dataclass
class Stopwatch:
    """The seconds spent in functions, all together."""

    seconds: float = 0.0

    def of(self, function: Function) -> Function:
        """The function, timed."""

        def timed(x: Tensor) -> Tensor:
            began = time.perf_counter()
            try:
                return function(x)
            finally:
                self.seconds += time.perf_counter() - began

        return timed

    def problem(self, problem: Problem) -> Problem:
        """The problem, whose function and constraints are timed."""
        limits = tuple(map(self.of, problem.constraints))
        return replace(problem, function=self.of(problem.function), constraints=limits)


@dataclass
class TimedStrategy:
    """A strategy whose parts are timed.

    Attributes:
        uses_model: Whether it starts from the initial design, as it may even without a model.
        steps: Seconds of the fit and of the acquisition, by seed and number of the trial.
        recommended: The observed point of least posterior mean among those that meet the
            constraints, ``[d]``, by seed and number of results; missing while none does.
        seconds: Of all steps together.
    """

    strategy: Strategy
    uses_model: bool = True
    steps: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)
    recommended: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The strategy's name."""
        return self.strategy.name

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """The strategy's proposal, timed."""
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
        surrogate, counts = fit.surrogate, situation.data.counts.tolist()
        runs = torch.arange(surrogate.runs, device=surrogate.x.device)
        best = surrogate.x[runs, surrogate.recommended].cpu()
        found = surrogate.eligible.any(-1).tolist()
        for seed, results, point, is_one in zip(situation.seeds, counts, best, found, strict=True):
            if is_one:
                self.recommended[seed, results] = point


@dataclass(frozen=True)
class Done:
    """Trials of every run in the order in which they ended.

    Attributes:
        counts: How many each run made, in time.
        trial: Their numbers, in the order in which they were asked for.
        clock: When they were told, on a simulated clock; empty without one.
    """

    seeds: tuple[int, ...]
    counts: list[int]
    trial: list[list[int]]
    points: Float[Tensor, "r t d"]
    values: Float[Tensor, "r t"]
    truth: Float[Tensor, "r t"]
    excess: Float[Tensor, "r t k"]
    clock: list[list[float]]

    @classmethod
    def replicated(cls, runs: Replications) -> "Done":
        """Of runs one trial after another."""
        numbers = [list(range(runs.values.shape[1]))] * len(runs.seeds)
        arrays = (runs.points, runs.values, runs.truth, runs.excess)
        points, values, truth, excess = map(torch.from_numpy, arrays)
        return cls(runs.seeds, runs.trials.tolist(), numbers, points, values, truth, excess, [])

    @classmethod
    def simulated(cls, runs: Simulation) -> "Done":
        """Of runs with several workers."""
        return cls(
            runs.seeds,
            runs.evaluations.tolist(),
            runs.trial.tolist(),
            runs.points,
            runs.values,
            runs.truth,
            runs.excess,
            runs.told.tolist(),
        )

    def traces(
        self,
        method: str,
        case: Case,
        problem: Problem,
        strategy: TimedStrategy,
        seconds: float,
        *,
        evaluation_s: float = 0.0,
        timed_out: bool = False,
    ) -> list[Trace]:
        """A trace for each run.

        Args:
            seconds: Of everything but the evaluations, all runs together.
            evaluation_s: Of all evaluations, if only their total is known.
            timed_out: Whether the clock ended the runs, and not the case's budget.
        """
        # Time that is neither fit nor acquisition is spread evenly over the proposals of all runs.
        rest = (seconds - strategy.seconds) / max(1, len(strategy.steps))
        objective = problem.objective if isinstance(problem, TuningProblem) else None
        share = evaluation_s / max(1, sum(self.counts))
        found = []
        for row, seed in enumerate(self.seeds):
            count = self.counts[row] if timed_out else min(self.counts[row], case.budget)
            steps = [strategy.steps.get((seed, number)) for number in self.trial[row][:count]]
            succeeded = self.values[row, :count].isfinite().tolist()
            values, truth = (
                [value if has else None for value, has in zip(each, succeeded, strict=True)]
                for each in (self.values[row, :count].tolist(), self.truth[row, :count].tolist())
            )
            params = problem.space.decode(self.points[row, :count])
            told = zip(values, truth, self.excess[row, :count].tolist(), strict=True)
            status = [Evaluation(v, t, excess=tuple(excess)).status for v, t, excess in told]
            completed = [n for n, value in enumerate(values) if value is not None]
            results = itertools.accumulate(value is not None for value in values)
            best = [strategy.recommended.get((seed, number)) for number in results]
            points = self.points[row, completed]
            places = [None if x is None else completed[_first_at(points, x)] for x in best]
            ended = timed_out or count == case.budget
            trace = Trace(
                method=method,
                problem=case.name,
                seed=seed,
                budget=count if timed_out else case.budget,
                design=case.design,
                params=tuple(params),
                values=tuple(values),
                truth=tuple(truth),
                status=tuple(status),
                ask_s=tuple(0.0 if step is None else sum(step) + rest for step in steps),
                fit_s=tuple(0.0 if step is None else step[0] for step in steps),
                acquisition_s=tuple(0.0 if step is None else step[1] for step in steps),
                evaluation_s=tuple(objective(p).seconds if objective else share for p in params),
                clock=tuple(self.clock[row][:count]) if self.clock else (),
                recommended=tuple(None if at is None else params[at] for at in places),
                recommended_truth=tuple(None if at is None else truth[at] for at in places),
                together=len(self.seeds),
                versions=VERSIONS,
                failure=None if ended else EXHAUSTED,
            )
            found.append(trace)
        return found


def _first_at(points: Float[Tensor, "n d"], x: Float[Tensor, " d"]) -> int:
    """The number of the first point that equals this one."""
    return int((points == x).all(-1).nonzero()[0])

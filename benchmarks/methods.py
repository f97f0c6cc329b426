"""gpbo's own methods: all seeds of a problem as rows of one batch, timed part by part."""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, get_args

import gpbo
from gpbo.checks import one_of, whole_number
from gpbo.errors import InvalidOption
from gpbo.fitting import Inference, Model, check_inference, resolve_model
from gpbo.simulation import simulate
from gpbo.situation import Strategy
from gpbo.strategies import (
    ExpectedImprovement,
    ProbabilityOfImprovement,
    RandomSearch,
    SobolSearch,
    ThompsonSampling,
    resolve_strategy,
)
from gpbo.trial import Mode
from gpbo.trust_region import TrustRegion

from . import asynchronous, paths
from .peers import PEERS
from .suites import Case
from .timing import Done, Stopwatch, TimedStrategy
from .trace import Trace

#: The law of the evaluation times where there are several workers; see `gpbo.simulation.LAWS`.
LAW = "exponential"


class OwnMethod(Protocol):
    """A method that runs all seeds of a case at once.

    Attributes:
        slow: Whether it samples the hyperparameters by Markov chains.
        clocked: Whether it runs on a simulated clock, as several workers do.
        alone: Whether a single worker evaluates one point after another.
    """

    @property
    def name(self) -> str: ...

    @property
    def slow(self) -> bool: ...

    @property
    def clocked(self) -> bool: ...

    @property
    def alone(self) -> bool: ...

    def run(self, case: Case, seeds: Sequence[int]) -> list[Trace]:
        """A trace for each of these consecutive seeds."""
        ...


@dataclass(frozen=True)
class Method:
    """A strategy and the options that it runs with; all start from the initial design.

    Attributes:
        workers, mode: Several workers run on a simulated clock, synchronously or not.

    Raises:
        InvalidOption: an option has a value that is not allowed.
    """

    name: str
    strategy: Strategy
    inference: Inference = "hmc"
    model: Model | None = None
    workers: int = 1
    mode: Mode = "async"

    def __post_init__(self) -> None:
        check_inference(self.inference)
        resolve_model(self.model)
        whole_number("workers", self.workers, least=1)
        one_of("mode", self.mode, get_args(Mode))

    @property
    def clocked(self) -> bool:
        """Whether several workers run on a simulated clock."""
        return not self.alone

    @property
    def alone(self) -> bool:
        """Whether a single worker evaluates one point after another."""
        return self.workers == 1

    @property
    def slow(self) -> bool:
        """Whether it samples the hyperparameters by Markov chains."""
        return self.strategy.uses_model and self.inference in ("hmc", "nuts")

    def run(self, case: Case, seeds: Sequence[int]) -> list[Trace]:
        """A trace for each of these consecutive seeds.

        Where the problem has noise, a run makes one trial more, which is not in the trace: the
        model behind it says what is to be recommended after the last one.

        Raises:
            InvalidOption: several workers in batches.
        """
        if case.batch > 1 and not self.alone:
            raise InvalidOption(
                f"workers={self.workers}: expected 1 for {case.name}, which is run in batches"
            )
        problem = case.of(seeds)
        evaluating = Stopwatch()
        problem = evaluating.problem(problem)
        strategy = TimedStrategy(self.strategy)
        options: dict[str, Any] = {
            "strategy": strategy,
            "runs": len(seeds),
            "seed": seeds[0],
            "budget": case.budget + int(problem.noise > 0 and self.strategy.uses_model),
            "initial": max(case.design, self.workers),
            "inference": self.inference,
            "model": self.model,
            "device": "cpu",  # like the peers, on one thread
            "progress": False,
        }
        began = time.perf_counter()
        if self.workers > 1:
            options |= {"workers": self.workers, "mode": self.mode, "times": LAW}
            done = Done.simulated(asynchronous.whole(simulate(problem, **options)))
        else:
            options["batch"] = case.batch
            done = Done.replicated(asynchronous.whole(gpbo.replicate(problem, **options)))
        spent = evaluating.seconds
        seconds = time.perf_counter() - began - spent
        return done.traces(self.name, case, problem, strategy, seconds, evaluation_s=spent)


@dataclass(frozen=True)
class KandasamyMethod:
    """A method of `asynchronous`, on its cases: the clock ends the runs, not a budget."""

    name: str
    method: asynchronous.Method
    slow: bool = False
    clocked: bool = True

    @property
    def alone(self) -> bool:
        """Whether a single worker evaluates one point after another, on the same clock."""
        return self.method.workers == 1

    def run(self, case: Case, seeds: Sequence[int]) -> list[Trace]:
        """A trace for each of these consecutive seeds, the first of which is 0."""
        setting = asynchronous.CASES[case.name]
        strategy = TimedStrategy(self.method.strategy, self.method.strategy.uses_model)
        horizon = min(setting.horizon, case.budget / setting.workers)
        began = time.perf_counter()
        timed = replace(self.method, strategy=cast(Strategy, strategy))
        runs = asynchronous.run(setting, timed, horizon=horizon, runs=len(seeds))
        seconds = time.perf_counter() - began
        done = Done.simulated(runs)
        return done.traces(self.name, case, case.problem, strategy, seconds, timed_out=True)


def _own() -> dict[str, OwnMethod]:
    plain: dict[str, Strategy] = {
        "ei": ExpectedImprovement(),
        "pi": ProbabilityOfImprovement(),
        "ts": ThompsonSampling(),
    }
    region = ThompsonSampling(region=TrustRegion())
    observed = ExpectedImprovement(incumbent="observed")
    mean = ExpectedImprovement(incumbent="mean")
    methods: list[OwnMethod] = [Method("random", RandomSearch()), Method("sobol", SobolSearch())]
    inferences: tuple[Inference, ...] = ("hmc", "map")
    modes: tuple[Mode, ...] = ("sync", "async")
    for name, strategy in plain.items():
        for inference in inferences:
            method = Method(f"{name}-{inference}", strategy, inference)
            methods.append(method)
            methods += [
                replace(method, name=f"{method.name}-{mode}4", workers=4, mode=mode)
                for mode in modes
            ]
    methods += [
        Method("ei-hmc-observed", observed, "hmc"),
        Method("ei-map-observed", observed, "map"),
        Method("ei-hmc-mean", mean, "hmc"),
        Method("ei-map-mean", mean, "map"),
        Method("ei-hmc-saas", plain["ei"], "hmc", Model(prior="saas")),
        Method("ei-nuts", plain["ei"], "nuts"),
        Method("ts-hmc-region", region, "hmc"),
        Method("ts-map-region", region, "map"),
    ]
    methods += [
        KandasamyMethod(name, method) for name, method in asynchronous.methods(full=True).items()
    ]
    return {method.name: method for method in methods}


#: By name, such as ``"ei-hmc"``: strategy, inference, and for several workers their mode and
#: number. Methods of `asynchronous` have its names, such as ``"asyTS"``.
METHODS: dict[str, OwnMethod] = _own()


@functools.cache
def find(method: str) -> OwnMethod | None:
    """The method of this name, or the user's at this path; None for any other name, such as a
    peer's.

    A strategy at a path has the name of the attribute, and runs with the defaults of `Method`.

    Raises:
        InvalidOption: there is nothing at the path, or no strategy or `Method`, or its name is
            taken or cannot be that of a file.
    """
    if not paths.is_path(method):
        return METHODS.get(method)
    option, found = f"--method={method}", paths.load("--method", method)
    own = found if isinstance(found, Method) else None
    try:
        strategy = resolve_strategy(found if own is None else own.strategy)
    except InvalidOption as error:
        raise InvalidOption(f"{option}: expected a strategy or a Method: {error}") from error
    own = own or Method(method.partition(":")[2], strategy)
    paths.check_name(option, own.name)
    if own.name in METHODS or own.name in PEERS:
        raise InvalidOption(f"{option}: expected another name than {own.name!r}, which is taken")
    return replace(own, strategy=strategy)


def label(method: str) -> str:
    """What a method, or a peer, is called in results."""
    own = find(method)
    return method if own is None else own.name

"""The unit of work: a method on a problem, with all seeds for gpbo's methods and one for a peer.

A unit is plain data, so that another process can run it.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpbo.archive import write_text
from gpbo.backend import Streams
from gpbo.design import sobol
from gpbo.problems import Problem

from . import methods, paths, suites
from .beside import place
from .peers import PEERS, installed, run_peer
from .record import machine
from .suites import Case, Suite
from .trace import Evaluate, Evaluation, Params, Trace
from .tuning import TuningProblem

#: Where the peers' adapters are, and what they have in common.
_ADAPTERS = Path(__file__).parent / "peers" / "adapters"
_SHARED = ("base.py", "serve.py", "space.py")
#: An initial design: configurations, their values, how far they are beyond the constraints.
_Start = tuple[list[Params], list[str], list[str]]
#: How the failure of a peer begins that started and then exceeded its time limits.
OUT_OF_TIME = re.compile(r"[\w-]+: (?!start)\w+: no answer in time")


@dataclass(frozen=True)
class Unit:
    """What is measured at once, and kept in one file.

    Attributes:
        suite, method: Names, or paths of a user's own, which are imported where the unit runs.
        budget: Evaluations of each run, which may be fewer than the suite's.
        peer_traces: Where the traces of peers are kept, for all suites.
    """

    suite: str
    problem: str
    method: str
    seeds: tuple[int, ...]
    budget: int
    peer_traces: str

    @property
    def file(self) -> str:
        """The name of the file that keeps it."""
        seeds = f"{self.seeds[0]}" if len(self.seeds) == 1 else f"{self.seeds[0]}-{self.seeds[-1]}"
        own = methods.find(self.method)
        method = _versioned(self.method) if own is None else own.name
        return f"{self.problem}--{method}--{self.budget}--{seeds}.parquet"

    @property
    def case(self) -> Case:
        """The problem as the suite poses it, with this budget."""
        return replace(suites.get(self.suite).case(self.problem), budget=self.budget)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the modules of a user's own suite and method."""
        return paths.versions(self.suite, self.method)

    def measure(self) -> list[Trace]:
        """A trace for each seed; exceptions of gpbo's own methods pass."""
        if (own := methods.find(self.method)) is not None:
            versions = paths.versions(self.method)
            return [
                replace(trace, versions={**trace.versions, **versions})
                for trace in own.run(self.case, self.seeds)
            ]
        return [
            kept_peer_trace(self.case, self.method, seed, self.peer_traces) for seed in self.seeds
        ]

    def failed(self, reason: str) -> list[Trace]:
        """The traces of a unit that could not be measured."""
        case, method = self.case, methods.label(self.method)
        return [
            Trace(method, self.problem, seed, self.budget, case.design, failure=reason)
            for seed in self.seeds
        ]


def units(suite: Suite, wanted: tuple[str, ...], peer_traces: Path) -> Iterator[Unit]:
    """All units of a suite: the long ones first, so that no process is left with one at the end."""
    seeds = tuple(range(suite.seeds))
    for case in sorted(suite.cases, key=lambda case: -case.budget):
        for method in sorted(wanted, key=_cost, reverse=True):
            parts = [(seed,) for seed in seeds] if methods.find(method) is None else [seeds]
            for part in parts:
                yield Unit(suite.name, case.name, method, part, case.budget, str(peer_traces))


def _cost(method: str) -> int:
    """Peers, and gpbo's own methods with a chain for the hyperparameters, take the longest."""
    own = methods.find(method)
    return 2 if own is None else int(own.slow)


def initial_design(case: Case, seed: int) -> list[Params]:
    """The configurations that every method of a seed starts from, as `gpbo.Optimizer` asks them."""
    space = case.problem.space
    streams = Streams.per_seed([seed], "sobol", 0)
    points = space.snap(sobol(case.design, space.dim, streams))
    return [dict(params) for params in space.decode(points[0])]


def objective(case: Case, problem: Problem, seed: int) -> Evaluate:
    """The problem of one seed as a function of a configuration, with the noise of that seed.

    The noise is that of `gpbo.replicate`: for the design it is drawn at once.
    """
    first = Streams.per_seed([seed], "noise", 0).normal(case.design)[0].tolist()

    def evaluate(params: Params, number: int) -> Evaluation:
        if isinstance(problem, TuningProblem):
            return problem.objective(problem.space.validate(params))
        truth, measured = problem.measure(params)
        excess = tuple(measured.values())
        if not all(map(math.isfinite, (truth, *excess))):
            return Evaluation(None, None)
        if number < case.design:
            return Evaluation(truth + problem.noise * first[number], truth, excess=excess)
        noise = float(Streams.per_seed([seed], "noise", number).normal(1))
        return Evaluation(truth + problem.noise * noise, truth, excess=excess)

    return evaluate


def kept_peer_trace(case: Case, peer: str, seed: int, folder: str) -> Trace:
    """The trace of a peer: the kept one of this code, problem and seed, or else a new one."""
    versions = installed(PEERS[peer]) or {}
    path = _kept_at(Path(folder), case, peer, versions, seed, _start(case, seed))
    if path.exists():
        kept = Trace.from_plain(json.loads(path.read_text()))
        return replace(kept, measured=kept.measured or place({}))
    problem, where = case.of([seed]), place(machine())
    trace = run_peer(
        peer,
        space=problem.space,
        evaluate=objective(case, problem, seed),
        design=initial_design(case, seed),
        budget=case.budget,
        seed=seed,
        problem=case.name,
        constraints=len(problem.constraints),
        batch=case.batch,
        recommend_always=problem.noise > 0,
    )
    trace = replace(trace, measured=where)
    if trace.versions and trace.failure is None:  # the machine may have caused a failure
        _keep(path, trace)
    return trace


def adopt_peer_traces(suite: Suite, traces: Iterable[Trace], folder: Path) -> None:
    """Keep peers' traces that were read from results of an earlier run.

    Those of other seeds, another budget or another initial design than the suite's, and failures,
    are left out, and so are those that exist already; one of other versions of the peer's packages
    is kept, but not found when the installed ones run. They count as made by the present adapter.
    """
    cases = {case.name: case for case in suite.cases}
    for trace in traces:
        case = cases.get(trace.problem)
        wanted = trace.method in PEERS and trace.seed < suite.seeds
        if not wanted or case is None or case.budget != trace.budget:
            continue
        start = design, values, _ = _start(case, trace.seed)
        if _rounded(trace.values[: len(design)]) == values:
            path = _kept_at(folder, case, trace.method, trace.versions, trace.seed, start)
            if not path.exists():
                _keep(path, trace)


def _start(case: Case, seed: int) -> _Start:
    """The initial design, its values and how far it is beyond the constraints, rounded."""
    evaluate, design = objective(case, case.of([seed]), seed), initial_design(case, seed)
    results = [evaluate(params, number) for number, params in enumerate(design)]
    excess = [each for result in results for each in result.excess]
    return design, _rounded([result.value for result in results]), _rounded(excess)


def _versioned(peer: str, versions: Mapping[str, str] | None = None) -> str:
    """A peer's name with a version of its package, by default the installed one."""
    found = installed(PEERS[peer]) or {} if versions is None else versions
    main = "-".join(found.get(PEERS[peer].distributions[0], "unknown").split())
    return f"{peer}-{main}"


def _kept_at(
    folder: Path, case: Case, peer: str, versions: Mapping[str, str], seed: int, start: _Start
) -> Path:
    key = _fingerprint(case, peer, versions, start)
    return folder / _versioned(peer, versions) / f"{case.name}-{key}" / f"seed-{seed}.json"


def _keep(path: Path, trace: Trace) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(trace.to_plain()))


def _fingerprint(case: Case, peer: str, versions: Mapping[str, str], start: _Start) -> str:
    """A key that changes with anything that the trace of a peer depends on."""
    design, values, excess = start
    files = (*_SHARED, PEERS[peer].adapter.rpartition(":")[0])
    known: dict[str, Any] = {
        "adapter": [(_ADAPTERS / name).read_text() for name in files],
        "versions": dict(versions),
        "budget": case.budget,
        "optimum": repr(case.problem.optimum),
        "noise": case.problem.noise,
        "space": repr(case.problem.space),
        "design": design,
        "values": values,
    }
    if excess:
        known["excess"] = excess
    if case.batch > 1:
        known["batch"] = case.batch
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


def _rounded(values: Sequence[float | None]) -> list[str]:
    """Rounded to nine digits: the last ones differ between machines."""
    return [f"{float('nan') if value is None else value:.9g}" for value in values]

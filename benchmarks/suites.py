"""The suites: which problems, how many evaluations and seeds, and which of gpbo's methods.

Everything is a frozen value. The optimum of a synthetic problem moves with the seed, off the
centre of the cube and off its bounds (`gpbo.problems.Problem.shifted`): methods that try the centre
or the bounds first gain nothing from it. All methods of a seed see the same problem, noise and
initial design, which is scrambled Sobol.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from gpbo import problems
from gpbo.backend import DTYPE
from gpbo.checks import instance_of, truth_value, whole_number
from gpbo.design import resolve_initial
from gpbo.errors import InvalidOption
from gpbo.problems import Problem

from . import asynchronous, paths
from .estimators import TUNING
from .heldout import HELD_OUT

#: The methods of gpbo that a sequential comparison runs: every acquisition with hyperparameters
#: integrated out and with their most probable values, and the two searches without a model.
SEQUENTIAL = ("ei-hmc", "ei-map", "pi-hmc", "pi-map", "ts-hmc", "ts-map", "random", "sobol")
#: Four workers, synchronous and asynchronous.
PARALLEL = ("ei-map-sync4", "ei-map-async4", "ts-hmc-sync4", "ts-hmc-async4")
#: The method that the others are compared with: what ``gpbo.minimize`` does by default.
DEFAULT = "ei-hmc"


@dataclass(frozen=True)
class Case:
    """A problem as a suite poses it.

    Attributes:
        name: Unique in its suite.
        problem: The function, its box, its optimum and its citation, without a shift.
        budget: Evaluations of every run, the initial design among them.
        shifted: Whether every seed moves the optimum.
        batch: How many points are proposed, and then evaluated, at a time after the design.

    Raises:
        InvalidOption: a value that is not allowed; batches of a problem with noise or constraints,
            which suites do not compare.
    """

    name: str
    problem: Problem
    budget: int
    shifted: bool = True
    batch: int = 1

    def __post_init__(self) -> None:
        instance_of("problem", self.problem, Problem)
        whole_number("budget", self.budget, least=2)
        truth_value("shifted", self.shifted)
        whole_number("batch", self.batch, least=1)
        if self.batch > 1 and (self.problem.noise or self.problem.constraints):
            raise InvalidOption(
                f"batch={self.batch}: expected 1 for {self.name}, which has noise or constraints"
            )

    @property
    def optimum_known(self) -> bool:
        """Whether it is; if not, regret is relative to the best value that any method found."""
        return not math.isnan(self.problem.optimum)

    @property
    def design(self) -> int:
        """Evaluations of the initial design: `gpbo.Optimizer`'s default, at most half of all."""
        return resolve_initial(None, self.problem.space, self.budget)

    def of(self, seeds: Sequence[int]) -> Problem:
        """The problem of these seeds, a row for each."""
        return self.problem.shifted(*seeds) if self.shifted else self.problem


@dataclass(frozen=True)
class Suite:
    """Problems, methods and seeds that are run and reported together.

    Attributes:
        name: A name that `get` knows, or the path of a user's suite, whatever name that has.
        seeds: How many, from 0 on.
        methods: Names in `gpbo_benchmarks.methods.METHODS`, or paths of a user's own.
        peers: Whether the other packages' methods are compared too, where they are installed.
        targets: Targets of the time to target, as shares of the regret that the initial design
            leaves.
    """

    name: str
    cases: tuple[Case, ...]
    seeds: int
    methods: tuple[str, ...] = SEQUENTIAL
    peers: bool = True
    targets: tuple[float, ...] = (0.1, 0.01, 0.001)

    def __post_init__(self) -> None:
        whole_number("seeds", self.seeds, least=1)
        for name, what, kind in (("methods", "names", str), ("targets", "shares", float)):
            given = getattr(self, name)
            proper = isinstance(given, tuple | list) and all(isinstance(one, kind) for one in given)
            if not (proper and given):
                raise InvalidOption(f"{name}={given!r}: expected a tuple of one or more {what}")

    def case(self, name: str) -> Case:
        """The case of this name.

        Raises:
            InvalidOption: there is none.
        """
        for case in self.cases:
            if case.name == name:
                return case
        known = ", ".join(case.name for case in self.cases)
        raise InvalidOption(f"problem={name!r}: expected one of {known}")

    @property
    def constrained(self) -> bool:
        """Whether a problem has constraints, which not every peer takes."""
        return any(case.problem.constraints for case in self.cases)

    @property
    def batched(self) -> bool:
        """Whether a problem is run in batches, which not every peer proposes."""
        return any(case.batch > 1 for case in self.cases)

    def with_budget(self, evaluations: int) -> "Suite":
        """The same with at most this many evaluations each, for a dry run."""
        cut = tuple(replace(case, budget=min(case.budget, evaluations)) for case in self.cases)
        return replace(self, cases=cut)


def _case(name: str, dim: int | None = None, *, budget: int | None = None) -> Case:
    """A problem of the catalogue, by default with the usual budget."""
    problem = problems.get(name, dim)
    label = name if dim is None else f"{name}-{dim}"
    return Case(label, problem, budget or _usual_budget(problem))


def _usual_budget(problem: Problem) -> int:
    """Twenty evaluations per dimension, at most 200."""
    return min(20 * problem.dim, 200)


def noisy(case: Case, share: float) -> Case:
    """The case with Gaussian noise: a share of the standard deviation of its values in the box.

    The standard deviation is that of 4096 Sobol points, to two digits.
    """
    points = torch.quasirandom.SobolEngine(case.problem.dim, scramble=True, seed=0)
    spread = float(case.problem(points.draw(4096, dtype=DTYPE)).std())
    problem = replace(case.problem, noise=float(f"{share * spread:.2g}"))
    return replace(case, name=f"{case.name}-noise{share:g}", problem=problem)


def in_batches(case: Case, batch: int, rounds: int) -> Case:
    """The case in batches: so many rounds of them after the initial design."""
    budget = case.design + batch * rounds
    return replace(case, name=f"{case.name}-q{batch}", budget=budget, batch=batch)


def embedded(problem: Problem, dim: int, active: Int[Tensor, " _"] | None = None) -> Problem:
    """The problem, without constraints, in ``dim`` dimensions, of which the ``active`` ones matter.

    By default the active ones are spread evenly. The others have the range [0, 1] and no effect:
    the minimisers are a continuum, of which the one in the middle of the idle dimensions is stated.
    """
    if active is None:
        active = torch.linspace(0, dim - 1, problem.dim).round().long()
    bounds = torch.tensor([[0.0], [1.0]], dtype=DTYPE).repeat(1, dim)
    bounds[:, active] = problem.bounds
    minimizers = torch.full((len(problem.unshifted_minimizers), dim), 0.5, dtype=DTYPE)
    minimizers[:, active] = problem.unshifted_minimizers
    return replace(
        problem,
        name=f"{problem.name} in {dim}",
        dim=dim,
        bounds=bounds,
        unshifted_minimizers=minimizers,
        function=lambda x: problem.function(x[..., active]),
    )


def _embedded(name: str, dim: int) -> Case:
    return Case(f"{name}-in-{dim}", embedded(problems.get(name), dim), budget=200)


def _smoke() -> Suite:
    cases = (
        _case("branin", budget=20),
        _case("hartmann3", budget=24),
        _case("styblinski_tang", 4, budget=28),
        _case("hartmann6", budget=36),
    )
    return Suite("smoke", cases, seeds=5, methods=(*SEQUENTIAL, *PARALLEL))


def _synthetic() -> Suite:
    cases = (
        _case("branin"),
        _case("six_hump_camel"),
        _case("hartmann3"),
        _case("shekel"),
        _case("rosenbrock", 4),
        _case("michalewicz", 5),
        _case("ackley", 5),
        _case("hartmann6"),
        _case("griewank", 6),
        _case("levy", 8),
        _case("powell", 8),
        _case("styblinski_tang", 10),
        _case("rastrigin", 10),
        _case("dixon_price", 12),
        _case("levy", 20),
        _case("ackley", 20),
    )
    return Suite("synthetic", cases, seeds=20)


def _heldout() -> Suite:
    cases = tuple(Case(name, problem, _usual_budget(problem)) for name, problem in HELD_OUT.items())
    return Suite("heldout", cases, seeds=20)


def _highdim() -> Suite:
    cases = (
        _embedded("branin", 50),
        _embedded("hartmann6", 100),
        _embedded("hartmann6", 500),
        _case("styblinski_tang", 50),
        _case("ackley", 100),
        _case("levy", 200),
    )
    methods = ("ei-hmc", "ei-hmc-saas", "ei-map", "ts-map", "ts-map-region", "random", "sobol")
    return Suite("highdim", cases, seeds=10, methods=methods)


def _noisy() -> Suite:
    cases = (
        noisy(_case("branin"), 0.02),
        noisy(_case("branin"), 0.2),
        noisy(_case("hartmann3"), 0.1),
        noisy(_case("ackley", 5), 0.1),
        noisy(_case("hartmann6"), 0.05),
        noisy(_case("hartmann6"), 0.5),
        noisy(_case("levy", 8), 0.1),
        noisy(_case("styblinski_tang", 10), 0.1),
    )
    return Suite("noisy", cases, seeds=20)


def _batches() -> Suite:
    cases = (
        _case("rosenbrock", 4),
        _case("michalewicz", 5),
        _case("ackley", 5),
        _case("hartmann6"),
        _case("levy", 8),
    )
    batches = tuple(in_batches(case, 8, rounds=10) for case in cases)
    return Suite("batches", batches, seeds=10)


def _constrained() -> Suite:
    cases = (
        _case("gardner", budget=30),
        _case("gramacy", budget=30),
        _case("hartmann6_ball", budget=60),
        _case("speed_reducer", budget=50),
    )
    methods = ("ei-hmc", "ei-map", "ts-hmc", "ts-map", "random", "sobol")
    return Suite("constrained", cases, seeds=20, methods=methods)


def _tuning() -> Suite:
    cases = tuple(Case(name, problem, budget=60) for name, problem in TUNING.items())
    methods = ("ei-hmc", "ei-map", "ts-hmc", "ts-map", "random", "sobol")
    return Suite("tuning", cases, seeds=10, methods=methods)


def _kandasamy() -> Suite:
    cases = tuple(
        Case(name, case.build(), budget=round(case.workers * case.horizon), shifted=False)
        for name, case in asynchronous.CASES.items()
    )
    methods = tuple(asynchronous.methods(full=True))
    return Suite("kandasamy", cases, seeds=20, methods=methods, peers=False)


#: What `get` builds; `commands` says what each is for.
_SUITES: dict[str, Callable[[], Suite]] = {
    "smoke": _smoke,
    "synthetic": _synthetic,
    "heldout": _heldout,
    "highdim": _highdim,
    "noisy": _noisy,
    "batches": _batches,
    "constrained": _constrained,
    "tuning": _tuning,
    "kandasamy": _kandasamy,
}


def _at(path: str) -> Suite:
    """The user's suite at a path; if there are only problems, the rest of the suite is as usual."""
    found = paths.load("suite", path)
    if isinstance(found, Suite):
        suite = replace(found, name=path)
    else:
        given = [found] if isinstance(found, Problem) else found
        if not isinstance(given, Sequence) or not all(isinstance(one, Problem) for one in given):
            raise InvalidOption(
                f"suite={path}: expected a Suite, a gpbo.problems.Problem or a sequence of "
                f"problems, and this is {type(found).__name__}"
            )
        suite = Suite(path, tuple(map(_posed, given)), seeds=20)
    cases = suite.cases
    if not isinstance(cases, tuple | list) or not all(isinstance(case, Case) for case in cases):
        raise InvalidOption(f"suite={path}: cases={cases!r}: expected a Case for each problem")
    names = [case.name for case in cases]
    if not names or len({str(name).casefold() for name in names}) < len(names):  # as of files
        raise InvalidOption(
            f"suite={path}: problems {names}: expected at least one, and no name twice"
        )
    for name in names:
        paths.check_name(f"suite={path}", name)
    return suite


def _posed(problem: Problem) -> Case:
    return Case(problem.name, problem, _usual_budget(problem))


@functools.cache
def get(name: str) -> Suite:
    """The suite of this name, or the user's at this path.

    Raises:
        InvalidOption: there is none.
    """
    if paths.is_path(name):
        return _at(name)
    if name not in _SUITES:
        raise InvalidOption(f"suite={name!r}: expected one of {', '.join(_SUITES)}")
    return _SUITES[name]()

"""The suites' problems: known to the last digit, and posed alike to every method."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import gpbo
from gpbo.backend import DTYPE
from gpbo.errors import InvalidOption, InvalidResult
from gpbo.space import Categorical, Integer, Real, Space
from gpbo_benchmarks import commands, suites
from gpbo_benchmarks.estimators import TUNING
from gpbo_benchmarks.methods import METHODS
from gpbo_benchmarks.suites import Case, embedded, noisy
from gpbo_benchmarks.tuning import TuningProblem
from gpbo_benchmarks.units import initial_design
from tests.monte_carlo import random_uniform

IN_BOXES = ["smoke", "synthetic", "heldout", "highdim", "noisy", "batches"]
NAMES = [*IN_BOXES, "constrained", "tuning", "kandasamy"]
SYNTHETIC = {case.name: case for name in IN_BOXES for case in suites.get(name).cases}


def test_the_commands_are_the_suites() -> None:
    assert list(commands.SUITES) == NAMES
    for name in NAMES:
        suite = suites.get(name)
        assert set(suite.methods) <= set(METHODS)
        assert len({case.name for case in suite.cases}) == len(suite.cases)


@pytest.mark.parametrize("case", SYNTHETIC.values(), ids=SYNTHETIC)
def test_the_optimum_is_attained_inside_the_box_and_off_its_centre(case: Case) -> None:
    problem = case.of([3, 11])
    at = problem.minimizers
    spread = max(1.0, float(problem(random_uniform(6, 2, 64, problem.dim)).std()))
    assert (problem(at) - case.problem.optimum).abs().max() < 1e-9 * spread
    assert at.shape[0] == 2
    assert ((at > 0) & (at < 1)).all()
    # Off the centre in some coordinate; a coordinate alone may come close to 1/2.
    assert ((at - 0.5).abs().amax(-1) > 0.02).all()
    assert not torch.allclose(at[0], at[1], atol=1e-3)


def test_what_the_suite_synthetic_promises() -> None:
    suite = suites.get("synthetic")
    assert len(suite.cases) >= 10
    assert suite.seeds >= 20
    for case in suite.cases:
        assert 2 <= case.problem.dim <= 20
        assert case.budget == min(20 * case.problem.dim, 200)
        assert case.problem.citation


def test_what_the_suite_constrained_promises() -> None:
    suite = suites.get("constrained")
    assert suite.constrained
    assert [name for name in NAMES if suites.get(name).constrained] == ["constrained"]
    counts = [len(case.problem.constraints) for case in suite.cases]
    assert (min(counts), max(counts)) == (1, 11)
    for case in suite.cases:
        assert case.shifted
        assert case.optimum_known


def test_what_the_suite_batches_promises() -> None:
    suite = suites.get("batches")
    assert suite.batched
    assert not suites.get("synthetic").batched
    for case in suite.cases:
        assert case.name.endswith("-q8")
        assert (case.batch, case.budget) == (8, case.design + 80)


def test_what_the_suite_highdim_promises() -> None:
    dims = [case.problem.dim for case in suites.get("highdim").cases]
    assert (min(dims), max(dims)) == (50, 500)


def test_idle_dimensions_change_nothing() -> None:
    hartmann = gpbo.problems.get("hartmann6")
    problem = embedded(hartmann, 23)
    points = random_uniform(4, 7, 23)
    active = torch.linspace(0, 22, 6).round().long()
    moved = points.clone()
    idle = [i for i in range(23) if i not in active.tolist()]
    moved[:, idle] = random_uniform(2, 7, len(idle))
    torch.testing.assert_close(problem(points), hartmann(points[:, active]))
    assert torch.equal(problem(points), problem(moved))


def test_noise_is_the_stated_share_of_the_spread() -> None:
    case = Case("branin", gpbo.problems.get("branin"), budget=9)
    many = torch.rand(200_000, 2, dtype=DTYPE, generator=torch.Generator().manual_seed(0))
    spread = float(case.problem(many).std())
    assert noisy(case, 0.1).problem.noise == pytest.approx(0.1 * spread, rel=0.06)


def test_the_initial_design_is_what_an_optimizer_asks_first() -> None:
    for case in (suites.get("smoke").case("hartmann6"), suites.get("tuning").case("svm-digits")):
        optimizer = gpbo.Optimizer(case.problem.space, seed=5, initial=case.design)
        asked = [trial.params for trial in optimizer.ask(case.design)]
        assert initial_design(case, 5) == asked


def test_a_dry_run_cuts_the_budget_and_the_design() -> None:
    case = suites.get("synthetic").with_budget(9).case("ackley-20")
    assert (case.budget, case.design) == (9, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 0}, "seeds=0: expected a whole number, 1 or more"),
        ({"targets": ()}, r"targets=\(\): expected a tuple of one or more shares"),
        ({"targets": 0.1}, r"targets=0\.1: expected a tuple of one or more shares"),
        ({"methods": ()}, r"methods=\(\): expected a tuple of one or more names"),
        ({"methods": "random"}, "methods='random': expected a tuple of one or more names"),
    ],
)
def test_a_suite_of_the_user_s_own_is_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        replace(suites.get("smoke"), **wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"problem": "branin"}, "problem='branin': expected "),
        ({"budget": 8.5}, r"budget=8\.5: expected a whole number, 2 or more"),
        ({"budget": 1}, "budget=1: expected a whole number, 2 or more"),
        ({"shifted": None}, "shifted=None: expected True or False"),
        ({"batch": 0}, "batch=0: expected a whole number, 1 or more"),
        (
            {"batch": 2, "problem": replace(gpbo.problems.get("branin"), noise=0.1)},
            "batch=2: expected 1 for branin, which has noise or constraints",
        ),
        (
            {"batch": 2, "problem": gpbo.problems.get("gardner")},
            "batch=2: expected 1 for branin, which has noise or constraints",
        ),
    ],
)
def test_a_case_of_the_user_s_own_is_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        replace(suites.get("smoke").cases[0], **wrong)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InvalidOption, match="suite='bogus': expected one of smoke, "):
        suites.get("bogus")
    with pytest.raises(InvalidOption, match="problem='bogus': expected one of branin, "):
        suites.get("smoke").case("bogus")


@pytest.mark.parametrize("name", TUNING)
def test_a_tuning_problem_is_a_deterministic_loss_over_a_mixed_space(name: str) -> None:
    problem = TUNING[name]
    assert len({type(parameter) for parameter in problem.space.parameters}) >= 2
    params = problem.space.decode(torch.full((1, problem.space.dim), 0.3, dtype=DTYPE))[0]
    assert problem.objective is not None
    first = problem.objective(params)
    assert first.value is not None
    assert 0 < first.value < math.inf
    assert first.seconds > 0
    assert problem.objective(params) is first  # evaluated once
    problem.objective.known.clear()
    assert problem.objective(params).value == first.value
    assert problem.evaluate(params) == first.value


def test_a_function_over_a_space_of_ones_own_is_a_problem() -> None:
    space = Space(Real("x", 0.5, 2.0), Integer("k", 1, 5), Categorical("kind", ["a", "b"]))
    asked: list[Any] = []

    def loss(params: Any) -> float:
        asked.append(params)
        return math.nan if params["kind"] == "b" else params["x"] * params["k"]

    problem = TuningProblem.of("mine", space, loss)
    runs = gpbo.replicate(problem, strategy="random", runs=3, budget=7, progress=False)
    for run in range(3):
        for params, value in zip(
            space.decode(torch.from_numpy(runs.points[run])), runs.values[run], strict=True
        ):
            assert math.isnan(value) if params["kind"] == "b" else value == loss(params)
    known = len(asked)
    params = {"x": 2.0, "k": 3, "kind": "a"}
    assert [problem.objective(params).value for _ in range(2)] == [6.0, 6.0]
    assert len(asked) == known + 1
    assert problem.objective({**params, "kind": "b"}).status == "failed"
    assert math.isnan(problem.optimum)
    assert problem.shifted(1, 2) is problem
    with pytest.raises(InvalidOption, match="seeds="):
        problem.shifted(-1)


@pytest.mark.parametrize(("option", "given"), [("noise", 0.5), ("constraints", (torch.sum,))])
def test_a_problem_over_a_mixed_space_has_neither_noise_nor_constraints(
    option: str, given: Any
) -> None:
    """Other packages are told the losses, and would have neither."""
    problem = TuningProblem.of("mine", Space(Integer("k", 1, 5)), lambda params: 1.0)
    with pytest.raises(InvalidOption, match=f"{option}=.*in a tuning problem"):
        replace(problem, **{option: given})


@pytest.mark.parametrize("returned", [None, "0.5", True])
def test_what_is_no_loss_is_said(returned: Any) -> None:
    problem = TuningProblem.of("mine", Space(Integer("k", 1, 5)), lambda params: returned)
    with pytest.raises(InvalidResult, match=r"the loss=.* expected one real number"):
        problem.objective({"k": 3})


def test_an_estimator_that_cannot_be_fitted_is_a_failed_evaluation() -> None:
    objective = TUNING["neighbours-diabetes"].objective
    assert objective is not None
    found = objective({"k": 100_000, "weights": "uniform", "power": 2.0})
    assert (found.value, found.truth) == (None, None)

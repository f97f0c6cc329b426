"""Benchmark problems: the stated minimum is the minimum, to the last digits."""

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from gpbo import problems
from gpbo.backend import DTYPE, Streams
from gpbo.design import sobol
from gpbo.errors import InvalidData, InvalidOption, InvalidParams
from gpbo.lockstep import replicate
from gpbo.problems import Problem
from gpbo.problems.catalogue import michalewicz_minimum
from tests.monte_carlo import random_uniform, unchecked_shapes

#: Those without constraints; the others are tested in `test_constrained_problems`.
NAMES = tuple(name for name in problems.names() if not problems.get(name).constraints)
FIXED = {
    "branin": 2,
    "six_hump_camel": 2,
    "hartmann3": 3,
    "hartmann6": 6,
    "shekel": 4,
    "park1": 4,
    "currin_exp": 2,
    "borehole": 8,
}
#: Where the gradient does not vanish: the point of a cone.
CUSPS = ("ackley",)


def odd_sized(name: str) -> Problem:
    """A problem in a dimension that it is not usually run in, where it has one."""
    return problems.get(name, FIXED.get(name) or (8 if name == "powell" else 3))


def points(problem: Problem, runs: int, count: int, seed: int = 7) -> Tensor:
    return sobol(count, problem.dim, Streams.named(seed, "points", runs=runs))


def digits(problem: Problem) -> float:
    """A few roundings of the optimum, or of terms of size 1 that add up to 0."""
    return 4e-15 * max(1.0, abs(problem.optimum))


def value_and_gradient(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    value = problem(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def test_the_problems_of_the_benchmark_are_all_there() -> None:
    assert set(NAMES) == set(FIXED) | {
        "ackley",
        "levy",
        "rosenbrock",
        "rastrigin",
        "griewank",
        "michalewicz",
        "styblinski_tang",
        "powell",
        "dixon_price",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_problem_knows_its_name_box_and_source(name: str) -> None:
    problem = problems.get(name)
    assert problem.name == name
    assert problem.bounds.shape == (2, problem.dim)
    assert bool((problem.bounds[0] < problem.bounds[1]).all())
    assert problem.bounds.dtype == DTYPE
    assert "(19" in problem.citation
    if name in FIXED:
        assert problem.dim == FIXED[name]


@pytest.mark.parametrize("make", [problems.get, odd_sized])
@pytest.mark.parametrize("name", NAMES)
def test_every_minimizer_attains_the_optimum(name: str, make: Callable[[str], Problem]) -> None:
    problem = make(name)
    value = problem(problem.minimizers)
    assert bool(((value - problem.optimum).abs() <= digits(problem)).all())
    [params] = problem.space.decode(problem.minimizers[0, :1])
    assert problem.evaluate(params) == pytest.approx(problem.optimum, abs=1e-12, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CUSPS])
def test_the_gradient_vanishes_at_a_minimizer_or_points_into_the_box(name: str) -> None:
    problem = odd_sized(name)
    x = problem.minimizers[0]
    _, gradient = value_and_gradient(problem, x)
    spread = float(problem(points(problem, 1, 256)).std())
    at_low, at_high = x == 0, x == 1
    inside = gradient.masked_fill(at_low | at_high, 0)
    assert float(inside.abs().max()) <= 1e-11 * spread
    assert bool((gradient[at_low] >= 0).all())
    assert bool((gradient[at_high] <= 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_better_is_found_by_random_points_and_local_searches(name: str) -> None:
    problem = odd_sized(name)
    x = points(problem, 1, 20_000)[0]
    value = problem(x)
    best = x[value.argsort()[:8]]
    lowest = float(value.min())
    for start in torch.cat([best, x[:4]]):

        def both(point: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, object]:
            at, slope = value_and_gradient(problem, torch.from_numpy(point))
            return float(at), slope.numpy()

        box = [(0, 1)] * problem.dim
        found = minimize(both, start.numpy(), jac=True, method="L-BFGS-B", bounds=box)
        lowest = min(lowest, float(found.fun))
    assert lowest >= problem.optimum - digits(problem)
    # The searches are good enough to have found something better, had there been something.
    spread = float(value.std())
    assert lowest <= problem.optimum + (0.2 if name in ("ackley", "rastrigin") else 1e-3) * spread


@pytest.mark.parametrize(
    ("name", "dim", "published"),
    [
        ("branin", 2, 0.397887),
        ("six_hump_camel", 2, -1.0316),
        ("hartmann3", 3, -3.86278),
        ("hartmann6", 6, -3.32237),
        ("shekel", 4, -10.5364),
        ("park1", 4, -25.5893),
        ("currin_exp", 2, -13.7987),
        ("borehole", 8, -309.5756),
        ("michalewicz", 2, -1.8013),
        ("michalewicz", 5, -4.687658),
        ("michalewicz", 10, -9.66015),
        ("styblinski_tang", 2, -78.33233),
    ],
)
def test_the_optimum_rounds_to_the_published_one(name: str, dim: int, published: float) -> None:
    half_a_digit = 0.5 * 10.0 ** -len(f"{published}".partition(".")[2])
    assert problems.get(name, dim).optimum == pytest.approx(published, abs=1.01 * half_a_digit)


def test_hartmann_has_its_published_constants_in_double_precision() -> None:
    alpha = np.array([1.0, 1.2, 3.0, 3.2])
    a = np.array(
        [
            [10, 3, 17, 3.5, 1.7, 8],
            [0.05, 10, 17, 0.1, 8, 14],
            [3, 3.5, 1.7, 10, 17, 8],
            [17, 8, 0.05, 10, 0.1, 14],
        ]
    )
    p = np.array(
        [
            [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
            [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
            [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
            [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
        ]
    )
    problem = problems.get("hartmann6")
    x = points(problem, 1, 101)[0]
    exponent = (a * (x.numpy()[:, None, :] - p) ** 2).sum(-1)
    expected = -(alpha * np.exp(-exponent)).sum(-1)
    np.testing.assert_allclose(problem(x).numpy(), expected, rtol=1e-14)


def test_shekel_has_its_published_constants_in_double_precision() -> None:
    beta = np.array([1, 2, 2, 4, 4, 6, 3, 7, 5, 5]) / 10
    odd = np.array([4.0, 1, 8, 6, 3, 2, 5, 8, 6, 7])
    even = np.array([4, 1, 8, 6, 7, 9, 3, 1, 2, 3.6])
    wells = np.stack([odd, even, odd, even], axis=-1)
    problem = problems.get("shekel")
    x = points(problem, 1, 101)[0]
    distance = ((10 * x.numpy()[:, None, :] - wells) ** 2).sum(-1)
    np.testing.assert_allclose(problem(x).numpy(), -(1 / (distance + beta)).sum(-1), rtol=1e-13)


def test_park_currin_and_borehole_are_their_published_formulas_with_the_sign_turned() -> None:
    park = problems.get("park1")
    x1, x2, x3, x4 = (0.3, 0.7, 0.2, 0.9)
    expected = x1 / 2 * (math.sqrt(1 + (x2 + x3**2) * x4 / x1**2) - 1)
    expected += (x1 + 3 * x4) * math.exp(1 + math.sin(x3))
    params = dict(zip(park.space.names, (x1, x2, x3, x4), strict=True))
    assert park.evaluate(params) == pytest.approx(-expected, rel=1e-14)

    currin = problems.get("currin_exp")
    expected = 1 - math.exp(-1 / (2 * x2))
    expected *= 2300 * x1**3 + 1900 * x1**2 + 2092 * x1 + 60
    expected /= 100 * x1**3 + 500 * x1**2 + 4 * x1 + 20
    assert currin.evaluate({"x1": x1, "x2": x2}) == pytest.approx(-expected, rel=1e-14)

    borehole = problems.get("borehole")
    well, reach, upper, head, lower, low_head, length, rate = values = (
        *(0.11, 4000.0, 80_000.0, 1050.0, 90.0, 750.0, 1300.0, 10_000.0),
    )
    log = math.log(reach / well)
    expected = 2 * math.pi * upper * (head - low_head)
    expected /= log * (1 + 2 * length * upper / (log * well**2 * rate) + upper / lower)
    params = dict(zip(borehole.space.names, values, strict=True))
    assert borehole.evaluate(params) == pytest.approx(-expected, rel=1e-14)


def test_currin_is_finite_and_continuous_where_its_formula_divides_by_zero() -> None:
    problem = problems.get("currin_exp")
    x2 = torch.tensor([-0.0, 0.0, 1e-300, 1e-4, 1e-2], dtype=DTYPE)
    x = torch.stack([torch.full_like(x2, 0.3), x2], dim=-1)
    value, gradient = value_and_gradient(problem, x)
    assert bool(gradient.isfinite().all())
    assert bool((value == value[0]).all())


def test_park_is_finite_where_its_formula_divides_by_zero() -> None:
    problem = problems.get("park1")
    near, at = ({"x1": x1, "x2": 0.5, "x3": 0.5, "x4": 0.5} for x1 in (1e-9, 0.0))
    assert problem.evaluate(at) == pytest.approx(problem.evaluate(near), rel=1e-8)


@pytest.mark.parametrize("i", [1, 2, 3, 7, 20, 50])
def test_no_point_of_a_fine_grid_is_below_the_michalewicz_minimum(i: int) -> None:
    x = torch.linspace(0, math.pi, 400_001, dtype=DTYPE)
    grid = -x.sin() * (i * x.square() / math.pi).sin() ** 20
    at, value = michalewicz_minimum(i)
    assert value <= float(grid.min()) + 1e-15
    assert value >= float(grid.min()) - 1e-6
    assert abs(at - float(x[grid.argmin()])) <= math.pi / 400_000


@pytest.mark.parametrize("name", NAMES)
def test_values_are_batched_over_any_axes_and_a_row_is_the_same_alone(name: str) -> None:
    problem = odd_sized(name)
    x = points(problem, 5, 11)
    value = problem(x)
    assert value.shape == (5, 11)
    assert value.dtype == DTYPE
    assert problem(x[2, 3]).shape == ()
    torch.testing.assert_close(problem(x[2, 3]), value[2, 3], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(problem(x[None]), value[None], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_moves_the_optimum_within_the_box_and_keeps_its_value(name: str) -> None:
    problem = odd_sized(name)
    shifted = problem.shifted(3, 1, 4, 1, 5)
    x = shifted.minimizers
    assert x.shape == (5, *problem.unshifted_minimizers.shape)
    assert bool(((x >= 0) & (x <= 1)).all())
    # A shifted minimizer is rounded, which costs digits at a cusp.
    loss = 1e-13 if name in CUSPS else digits(problem)
    assert bool(((shifted(x) - problem.optimum).abs() <= loss).all())
    still = (problem.minimizers == 0) | (problem.minimizers == 1)
    assert torch.equal(x == problem.minimizers, still.expand_as(x)), "only the boundary stays"
    assert torch.equal(x[1], x[3]), "the same seed, the same shift"
    assert not torch.equal(x[0], x[1]) or bool(still.all())
    assert float(shifted(points(problem, 5, 2000)).min()) >= problem.optimum


def test_each_run_has_the_shift_of_its_seed_alone() -> None:
    many = problems.get("levy", 3, shift_seed=[11, 12, 13, 14, 15])
    x = points(many, 5, 7)
    for run, seed in enumerate([11, 12, 13, 14, 15]):
        alone = problems.get("levy", 3, shift_seed=seed)
        torch.testing.assert_close(many(x)[run], alone(x[run]), rtol=1e-14, atol=1e-14)
    assert torch.equal(many(x.unsqueeze(2)), many(x).unsqueeze(2))


def test_a_problem_of_some_runs_has_their_shifts() -> None:
    problem = problems.get("ackley", 3, shift_seed=[4, 5, 6], noise=0.5)
    x = random_uniform(1, 2, 7, 3)
    some = problem.select([2, 0])
    torch.testing.assert_close(some(x)[0], problems.get("ackley", 3, shift_seed=6)(x[0]))
    torch.testing.assert_close(some(x)[1], problems.get("ackley", 3, shift_seed=4)(x[1]))
    assert some.noise == 0.5
    for shared in (problems.get("ackley", 3), problems.get("ackley", 3, shift_seed=4)):
        assert shared.select([2, 0]) is shared


def test_one_shift_serves_points_of_any_shape() -> None:
    problem = problems.get("levy", 3, shift_seed=1)
    x = points(problem, 5, 7)
    assert torch.equal(problem(x)[3, 4], problem(x[3, 4]))


def test_a_shift_takes_the_centre_evenly_to_the_middle_part_of_the_box() -> None:
    x = problems.get("ackley", 2, shift_seed=range(2000)).minimizers[:, 0]
    assert float(x.min()) >= 0.2
    assert float(x.max()) <= 0.8
    counts = torch.histc(x, bins=6, min=0.2, max=0.8)
    assert bool(((counts - 4000 / 6).abs() < 4.5 * math.sqrt(4000 / 6)).all())
    assert abs(float(torch.corrcoef(x.T)[0, 1])) < 4.5 / math.sqrt(2000)


@given(st.integers(0, 10**6), st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True))
@settings(deadline=None, max_examples=50)
def test_a_shift_is_an_increasing_map_of_the_interval_with_bounded_slopes(
    seed: int, pair: list[float]
) -> None:
    """Seen through the problem whose value is its first coordinate."""
    line = Problem(
        name="line",
        dim=1,
        bounds=torch.tensor([[0.0], [1.0]], dtype=DTYPE),
        optimum=0.0,
        unshifted_minimizers=torch.zeros(1, 1, dtype=DTYPE),
        citation="a straight line",
        function=lambda x: x[..., 0],
    ).shifted(seed)
    low, high = sorted(pair)
    ends = line(torch.tensor([[0.0], [low], [high], [1.0]], dtype=DTYPE)).tolist()
    assert (ends[0], ends[3]) == (0.0, 1.0)
    assert ends[2] - ends[1] <= 4 * (high - low) + 1e-15
    assert ends[2] - ends[1] >= (high - low) / 4 - 1e-15


def test_noise_is_gaussian_and_from_each_runs_own_stream() -> None:
    problem = problems.get("branin", noise=0.5)
    x = points(problem, 1, 1).expand(3, 2000, 2)
    noise = problem.observe(x, Streams.named(0, "noise", runs=3)) - problem(x)
    alone = problem.observe(x[:1], Streams.named(0, "noise", runs=1)) - problem(x[:1])
    torch.testing.assert_close(alone[0], noise[0], rtol=0, atol=1e-12)
    assert float(noise.mean()) == pytest.approx(0, abs=4.5 * 0.5 / math.sqrt(6000))
    assert float(noise.std()) == pytest.approx(0.5, rel=4.5 / math.sqrt(12_000))
    assert not torch.equal(noise[0], noise[1])


def test_without_noise_an_observation_is_the_value() -> None:
    problem = problems.get("branin")
    x = points(problem, 3, 5)
    assert torch.equal(problem.observe(x, Streams.named(0, "noise", runs=3)), problem(x))


def test_a_configuration_in_user_units_has_the_value_of_its_point() -> None:
    for problem in (problems.get("borehole"), problems.get("levy", 3, shift_seed=2)):
        x = points(problem, 1, 5)[0]
        params = problem.space.decode(x)
        values = [problem.evaluate(one) for one in params]
        torch.testing.assert_close(torch.tensor(values, dtype=DTYPE), problem(x))
    branin = problems.get("branin").evaluate({"x1": math.pi, "x2": 2.275})
    assert branin == pytest.approx(0.397887, abs=1e-6)


def test_points_outside_the_cube_count_as_the_nearest_inside() -> None:
    problem = problems.get("branin", shift_seed=1)
    outside = torch.tensor([[-1e-12, 0.5], [0.5, 1.5], [-2.0, 9.0]], dtype=DTYPE)
    assert torch.equal(problem(outside), problem(outside.clamp(0, 1)))


def test_a_problem_survives_pickling() -> None:
    for name in NAMES:
        problem = problems.get(name, shift_seed=3, noise=0.1)
        x = points(problem, 1, 3)
        assert torch.equal(pickle.loads(pickle.dumps(problem))(x), problem(x))


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidOption, match="name='branen': expected one of branin, six_hump"):
        problems.get("branen")


@pytest.mark.parametrize(
    ("name", "dim", "message"),
    [
        ("branin", 3, "dim=3: expected 2 for 'branin'"),
        ("hartmann6", 3, "dim=3: expected 6 for 'hartmann6'"),
        ("ackley", 0, "dim=0: expected 1, 2, 3, ... for 'ackley'"),
        ("rosenbrock", 1, "dim=1: expected 2, 3, 4, ... for 'rosenbrock'"),
        ("powell", 6, "dim=6: expected 4, 8, 12, ... for 'powell'"),
    ],
)
def test_a_dimension_that_a_problem_does_not_have_is_refused(
    name: str, dim: int, message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        problems.get(name, dim)


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
def test_a_noise_that_is_no_standard_deviation_is_refused(noise: float) -> None:
    with pytest.raises(InvalidOption, match=f"noise={noise}: expected a finite number, 0 or"):
        problems.get("branin", noise=noise)
    with pytest.raises(InvalidOption, match=f"noise={noise}: expected a finite number, 0 or"):
        replace(problems.get("branin"), noise=noise)


def test_whole_numbers_of_numpy_are_whole_numbers_and_a_float_is_none() -> None:
    shifted = problems.get("levy", int(np.int64(3)), shift_seed=np.int64(1))  # type: ignore[arg-type]
    torch.testing.assert_close(shifted.shift, problems.get("levy", 3, shift_seed=1).shift)
    with unchecked_shapes(), pytest.raises(InvalidOption, match=r"dim=3\.0: expected a whole"):
        problems.get("levy", 3.0)  # type: ignore[arg-type]


def test_points_that_do_not_fit_the_problem_are_refused() -> None:
    many = problems.get("levy", 3, shift_seed=[1, 2])
    with pytest.raises(InvalidData, match=r"x has shape \(2, 2\): expected \(\.\.\., 3\) for levy"):
        many(torch.zeros(2, 2, dtype=DTYPE))
    for shape in ((3,), (3, 5, 3)):
        with pytest.raises(InvalidData, match="expected a first axis of 2 runs"):
            many(torch.zeros(shape, dtype=DTYPE))
    with pytest.raises(InvalidData, match="expected a first axis of 2 runs"):
        many.evaluate({"x1": 0.0, "x2": 0.0, "x3": 0.0})
    with pytest.raises(InvalidData, match="x has 2 runs: expected 3, as many as streams has"):
        many.observe(torch.zeros(2, 5, 3, dtype=DTYPE), Streams.named(0, "noise", runs=3))
    with pytest.raises(InvalidOption, match="seeds"):
        many.shifted()
    with pytest.raises(InvalidOption, match=r"shift_seed=\[\]: expected a seed"):
        problems.get("levy", 3, shift_seed=[])
    with pytest.raises(InvalidParams, match="missing 'x3'"):
        problems.get("levy", 3).evaluate({"x1": 0.0, "x2": 0.0})


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_values_are_computed_on_the_device_of_the_points(name: str) -> None:
    problem = odd_sized(name).shifted(1, 2, 3)
    x = points(problem, 3, 11)
    on_gpu = problem(x.cuda())
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), problem(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, r"what mine returned has shape \(3, 5, 2\): expected \(3, 5\)"),
        (lambda x: x.sum(), r"what mine returned has shape \(\): expected \(3, 5\)"),
        (lambda x: x.sum(-1).numpy(), "what mine returned has type ndarray: expected a tensor"),
        (lambda x: x[..., 0] > 1, r"what mine returned has dtype torch\.bool: expected numbers"),
    ],
)
def test_what_a_function_of_one_s_own_returns_is_checked(
    function: Callable[[Tensor], Tensor], message: str
) -> None:
    bounds, least = torch.tensor([[0.0, -1.0], [1.0, 1.0]]), torch.zeros(1, 2)
    mine = Problem("mine", 2, bounds, 0.0, least, "", lambda x: x.square().sum(-1))
    assert mine(torch.zeros(3, 5, 2, dtype=DTYPE)).tolist() == [[1.0] * 5] * 3
    wrong = Problem("mine", 2, bounds, 0.0, least, "", function)
    with unchecked_shapes(), pytest.raises(InvalidData, match=message):
        wrong(torch.zeros(3, 5, 2, dtype=DTYPE))
    limited = replace(mine, constraints=(mine.function, function))
    of_it = message.replace("mine", r"constraints\[1\] of mine")
    with unchecked_shapes(), pytest.raises(InvalidData, match=of_it):
        limited.excess(torch.zeros(3, 5, 2, dtype=DTYPE))


def test_a_function_may_change_the_points_that_it_is_given() -> None:
    def in_place(x: Tensor) -> Tensor:
        x -= 0.5
        return x.square().sum(-1)

    limited = problems.get("gramacy")
    mine = replace(limited, function=in_place, constraints=(in_place, *limited.constraints))
    x = points(mine, 3, 5)
    _, truth, excess = mine.results(x, Streams.named(0, "problem", runs=3))
    torch.testing.assert_close(truth, (x - 0.5).square().sum(-1))
    torch.testing.assert_close(excess[..., 0], truth)
    torch.testing.assert_close(excess[..., 1:], limited.excess(x))


def test_a_function_with_parameters_to_be_learned_is_a_problem_too() -> None:
    weights = torch.ones(2, dtype=DTYPE, requires_grad=True)
    mine = replace(problems.get("branin"), function=lambda x: x @ weights)
    assert mine(torch.zeros(2, dtype=DTYPE)).requires_grad
    runs = replicate(mine, strategy="sobol", runs=2, budget=3, progress=False)
    assert np.isfinite(runs.values).all()


def test_a_function_of_whole_numbers_loses_no_digit() -> None:
    mine = replace(
        problems.get("branin"), function=lambda x: (1e9 + x[..., 0]).long(), optimum=math.nan
    )
    runs = replicate(mine, strategy="sobol", runs=2, budget=3, progress=False)
    np.testing.assert_array_equal(runs.values, runs.truth)
    np.testing.assert_array_equal(runs.values, runs.values.round())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": None}, "name=None: expected a string"),
        ({"citation": 3}, "citation=3: expected a string"),
        ({"function": None}, "function=None: expected a function of points"),
        ({"constraints": (len, 3)}, r"constraints\[1\]=3: expected a function of points"),
        ({"constraints": len}, "constraints=.*: expected a tuple of functions"),
        ({"shift": "a"}, "shift has type str: expected a tensor"),
        ({"shift": torch.zeros(3)}, r"shift has shape \(3,\): expected \(any, 2\)"),
        ({"shift": torch.zeros(1, 3)}, r"shift has shape \(1, 3\): expected \(any, 2\)"),
        ({"optimum": "0"}, "optimum='0': expected a finite number, or NaN if it is not known"),
        ({"optimum": 10**400}, "optimum=10+: expected a finite number, or NaN if it is not known"),
        ({"optimum": None}, "optimum=None: expected a finite number, or NaN if it is not known"),
        ({"optimum": math.inf}, "optimum=inf: expected a finite number"),
        ({"bounds": torch.tensor([[1.0, 2.0], [0.0, 3.0]])}, "expected finite ends, low < high"),
        ({"bounds": torch.tensor([[0.0, math.nan], [1.0, 3.0]])}, "expected finite ends"),
    ],
)
def test_a_problem_that_means_nothing_is_refused(changed: dict[str, Any], message: str) -> None:
    with unchecked_shapes(), pytest.raises((InvalidOption, InvalidData), match=message):
        replace(problems.get("branin"), **changed)


@pytest.mark.parametrize("unknown", [math.nan, np.float32("nan"), np.float64("nan")])
def test_an_optimum_that_is_not_known_is_nan_of_any_kind(unknown: Any) -> None:
    with unchecked_shapes():
        assert math.isnan(replace(problems.get("branin"), optimum=unknown).optimum)

"""Thompson sampling: every point is the minimum of a posterior function of its own."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from gpbo import strategies, thompson
from gpbo.backend import DTYPE, Streams
from gpbo.candidates import Ranked, Search, maxima, raw_points
from gpbo.data import Observations
from gpbo.feasibility import log_chance_of_success
from gpbo.fitting import fit
from gpbo.optimizer import Optimizer
from gpbo.paths import Paths, draw_paths
from gpbo.situation import Situation
from gpbo.space import Categorical, Integer, Real, Space
from gpbo.strategies import ThompsonSampling, default_search
from gpbo.surrogate import Surrogate
from gpbo.thompson import Confined, PathUtility, _PathSearch, minima
from gpbo.trust_region import Boxes, NestedBoxes, Region, TrustRegion
from tests.monte_carlo import random_uniform
from tests.test_basins import observed


def cube(dim: int) -> Space:
    return Space([Real(f"x{i}", 0.0, 1.0) for i in range(dim)])


def rugged(dim: int, count: int, lengthscale: float) -> Surrogate:
    """A posterior whose functions have many minima."""
    x = random_uniform(dim, 1, count, dim)
    one = torch.ones(1, 1, dtype=DTYPE)
    return Surrogate.condition(
        x,
        torch.sin(9 * x[..., :5]).sum(-1),
        torch.ones(1, count, dtype=torch.bool),
        torch.where(torch.arange(dim) < 6, lengthscale, 10 * lengthscale).view(1, 1, -1).to(DTYPE),
        one,
        1e-3 * one,
        0 * one,
    )


def drawn(surrogate: Surrogate, count: int, features: int = 1024) -> Paths:
    return draw_paths(
        surrogate,
        count,
        own=lambda number: Streams.named(3, "own", number),
        shared=lambda number: Streams.named(3, "shared", number),
        features=features,
    )


def shortfall(surrogate: Surrogate, count: int, features: int, exhaustive: Search) -> Tensor:
    """By how much each path's minimum is missed, in standard deviations of the path."""
    space = cube(surrogate.dim)
    default = default_search(space, confined=False)
    paths = drawn(surrogate, count, features)
    utility = PathUtility(paths)
    best = surrogate.x[:, :5]

    def found(search: Search, seed: int) -> Tensor:
        raw = raw_points(space, Streams([seed]), best, search)
        streams = [Streams([seed + j]) for j in range(count)]
        points = minima(utility, space, streams, raw=raw, taken=[frozenset()], search=search)
        return paths(points.unsqueeze(2))[0, :, 0]

    ours, reference = found(default, 100), found(exhaustive, 200)
    spread = paths.at(random_uniform(7, 1, 997, surrogate.dim))[0].std(-1)
    return (ours - torch.minimum(ours, reference)) / spread


def test_paths_end_in_their_own_minimum() -> None:
    exhaustive = Search(raw=3000, perturbed=500, restarts=60, iterations=60)
    missed = shortfall(rugged(6, 61, 0.5), 8, 256, exhaustive)
    assert (missed < 1e-3).float().mean() >= 7 / 8


@pytest.mark.long
@pytest.mark.parametrize(
    ("dim", "results", "lengthscale", "count"), [(6, 60, 0.5, 256), (20, 100, 0.7, 64)]
)
def test_nearly_all_paths_end_in_their_own_minimum(
    dim: int, results: int, lengthscale: float, count: int
) -> None:
    exhaustive = Search(raw=16_000, perturbed=2000, restarts=100, iterations=100)
    missed = shortfall(rugged(dim, results, lengthscale), count, 1024, exhaustive)
    assert (missed < 1e-3).double().mean() >= 0.99


def situation(surrogate: Surrogate, seed: int, failed: Tensor | None = None) -> Situation:
    failed = surrogate.x[:, :0] if failed is None else failed
    data = Observations.of(surrogate.x, surrogate.y[:, 0])
    fitted = fit(data, inference="map", streams=Streams(range(surrogate.runs)))
    return Situation(
        space=cube(surrogate.dim),
        data=data,
        failed=failed,
        failed_mask=torch.ones(failed.shape[:2], dtype=torch.bool),
        taken=(frozenset(),),
        seeds=(seed,),
        index=5,
        fit=lambda: replace(fitted, surrogate=surrogate),
    )


def test_proposals_have_the_distribution_of_the_posterior_minimum() -> None:
    """Against exact joint draws on a fine grid, in one dimension, of 100 runs of three points."""
    x = torch.tensor([[[0.05], [0.3], [0.55], [0.9]]], dtype=DTYPE).expand(100, -1, -1)
    y = torch.tensor([[0.3, -0.4, 0.5, -0.2]], dtype=DTYPE).expand(100, -1)
    one = torch.ones(100, 1, dtype=DTYPE)
    mask = torch.ones(100, 4, dtype=torch.bool)
    surrogate = Surrogate.condition(x, y, mask, 0.2 * one[..., None], one, 1e-2 * one, 0 * one)
    search = Search(raw=64, perturbed=16, restarts=2, scouts=8)
    quick = ThompsonSampling(search, features=256, region=None)
    now = replace(situation(surrogate, 1), seeds=tuple(range(100)), taken=(frozenset(),) * 100)
    proposed = quick.propose(now, 3).flatten()

    grid = torch.linspace(0, 1, 401, dtype=DTYPE)[:, None]
    with torch.no_grad():
        joint = surrogate.to_botorch().posterior(grid).distribution
        root = torch.linalg.cholesky(joint.covariance_matrix[0] + 1e-8 * torch.eye(401))
        normal = torch.randn(3000, 401, generator=torch.Generator().manual_seed(1), dtype=DTYPE)
        exact = (joint.mean[0] + normal @ root.mT).argmin(-1) / 400
    assert ks_2samp(proposed.numpy(), exact.numpy()).pvalue > 1e-3


def test_each_point_of_a_batch_is_lower_on_its_path_than_the_others() -> None:
    surrogate = rugged(4, 23, 0.5)
    paths = drawn(surrogate, 7, 256)
    search = default_search(cube(4), confined=False)
    raw = raw_points(cube(4), Streams([1]), surrogate.x[:, :5], search)
    streams = [Streams([j]) for j in range(7)]
    points = minima(
        PathUtility(paths), cube(4), streams, raw=raw, taken=[frozenset()], search=search
    )
    values = paths.at(points)[0]
    assert (values.argmin(1) == torch.arange(7)).all()


def test_the_utility_of_paths_where_trials_failed_has_the_right_gradient() -> None:
    surrogate = rugged(3, 11, 0.5)
    data = Observations.of(surrogate.x, surrogate.y[:, 0])
    failed = random_uniform(5, 1, 2, 3)
    chance = log_chance_of_success(data, failed, torch.ones(1, 2, dtype=torch.bool))
    utility = PathUtility(drawn(surrogate, 5, 32), chance)
    x = random_uniform(6, 5, 2, 3)
    gradient = utility.value_and_gradient(x)[1]
    for j in range(3):
        step = 1e-6 * torch.eye(3, dtype=DTYPE)[j]
        slope = (utility(x + step) - utility(x - step)) / 2e-6
        torch.testing.assert_close(gradient[..., j], slope, rtol=1e-5, atol=1e-5)
    same = utility.at(x.flatten(0, 1)[None]).view(5, 5, 2)
    own = same[torch.arange(5), torch.arange(5)]
    torch.testing.assert_close(own, utility(x), rtol=0, atol=1e-5)


def test_no_point_is_proposed_where_trials_most_probably_fail() -> None:
    surrogate = rugged(2, 7, 0.4)
    search = Search(raw=128, perturbed=32, restarts=2, scouts=8)
    quick = ThompsonSampling(search, features=256, region=None)
    before = quick.propose(situation(surrogate, 2), 40)
    around = 0.05 * torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=DTYPE)
    unlucky = situation(surrogate, 2, before.median(1, keepdim=True).values + around)
    after = quick.propose(unlucky, 40)
    chance = log_chance_of_success(unlucky.data, unlucky.failed, unlucky.failed_mask)
    assert (chance(before) < math.log(0.05)).sum() > 10
    assert (chance(after) > math.log(0.5)).all()


@pytest.mark.parametrize("region", [NestedBoxes(), TrustRegion(length=0.04)])
def test_boxes_do_not_lie_around_a_point_among_failures(region: Region) -> None:
    """In short boxes around it all functions would be searched where trials fail."""
    surrogate = rugged(2, 7, 0.4)
    search = Search(raw=128, perturbed=32, restarts=2, scouts=8)
    quick = ThompsonSampling(search, features=256, region=region)
    best = surrogate.x[0, surrogate.y[0, 0].argmin()]
    before = quick.propose(situation(surrogate, 2), 40)
    assert ((before - best).abs().amax(-1) < 0.05).sum() >= 10
    around = 0.05 * torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=DTYPE)
    unlucky = situation(surrogate, 2, (best + around)[None])
    after = quick.propose(unlucky, 40)
    chance = log_chance_of_success(unlucky.data, unlucky.failed, unlucky.failed_mask)
    assert chance(best[None, None]) < math.log(0.5)
    assert (chance(after) > math.log(0.5)).all()


def test_where_every_point_is_among_failures_boxes_lie_around_the_best_all_the_same() -> None:
    surrogate = rugged(2, 7, 0.4)
    data = Observations.of(surrogate.x, surrogate.y[:, 0])
    failed = surrogate.x[0].repeat(5, 1)[None]
    chance = log_chance_of_success(data, failed, torch.ones(failed.shape[:2], dtype=torch.bool))
    assert (chance(data.x) < math.log(0.5)).all()
    plain, told = (NestedBoxes().boxes(data, surrogate, cube(2), each) for each in (None, chance))
    assert torch.equal(told.centre, plain.centre)


def test_how_many_paths_are_searched_at_a_time_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    surrogate, count = rugged(3, 11, 0.5), 37
    paths = drawn(surrogate, count, 64)
    search = Search(raw=64, perturbed=8, restarts=2, scouts=8)
    raw = raw_points(cube(3), Streams([1]), surrogate.x[:, :5], search)
    inset = 0.3 * random_uniform(8, 1, count, 3).cummax(1).values
    lower, upper = inset, 1.0 - inset
    boxes = Boxes(raw[:, :1], lower, upper, torch.ones(1, 1, dtype=torch.bool))
    lot, cubic = torch.zeros_like(raw), raw
    raw = boxes.place(cubic, lot)
    numbers = torch.arange(count)[None]
    confined = Confined(boxes, numbers, numbers, lambda boxes: boxes.place(cubic, lot))

    def found() -> Tensor:
        streams = [Streams([j]) for j in range(count)]
        options: dict[str, Any] = {"raw": raw, "taken": [frozenset()], "search": search}
        return minima(PathUtility(paths), cube(3), streams, **options, confined=confined)

    whole, searched = found(), []

    def noting(*args: Any, **kwargs: Any) -> Ranked:
        searched.append(args[0].paths.count)
        return maxima(*args, **kwargs)

    monkeypatch.setattr(thompson, "maxima", noting)
    monkeypatch.setattr(thompson, "_CPU_NUMBERS", 1)
    parts = found()
    # Starts are ranked by sums in single precision, which round otherwise in other shapes, and an
    # ascent that begins elsewhere ends at the same value: at a minimum x is off by its root. How
    # they round depends on the processor: x by 3e-4, of which values of this curvature tell 1e-6.
    values = [paths(points[:, :, None])[..., 0] for points in (parts, whole)]
    torch.testing.assert_close(*values, rtol=0, atol=1e-6)
    torch.testing.assert_close(parts, whole, rtol=0, atol=3e-4)
    assert searched == [16, 16, 5]
    assert ((whole >= lower) & (whole <= upper)).all()


def test_there_may_be_more_starts_than_the_usual_short_list_has_points() -> None:
    surrogate = rugged(2, 7, 0.4)
    search = Search(raw=512, perturbed=8, restarts=2, iterations=5, scouts=300)
    strategy = ThompsonSampling(search, features=32)
    assert strategy.propose(situation(surrogate, 2), 2).shape == (1, 2, 2)


def test_the_search_grows_with_the_dimension_and_not_in_a_box() -> None:
    scouts = [default_search(cube(dim), confined=False).scouts for dim in (1, 6, 10, 20, 200)]
    assert scouts == [64, 64, 125, 1000, 1024]
    assert default_search(cube(20), confined=True).scouts == 64


def test_there_are_four_raw_points_to_a_scout_and_columns_that_cannot_move_do_not_count() -> None:
    raw = [default_search(cube(dim), confined=False).raw for dim in (6, 20)]
    assert raw == [2048, 4000]
    kinds = Space([*cube(13).parameters, Integer("i", 0, 3), Categorical("c", ("a", "b", "c"))])
    assert default_search(kinds, confined=False).scouts == 343


def test_a_path_that_cannot_be_evaluated_harms_no_other() -> None:
    surrogate = rugged(3, 11, 0.5)
    paths = drawn(surrogate, 3, 32)
    paths.amplitudes[0, 1] = math.nan
    search = Search(raw=64, perturbed=8, restarts=2, iterations=10)
    raw = raw_points(cube(3), Streams([1]), surrogate.x[:, :5], search)
    streams = [Streams([j]) for j in range(3)]
    points = minima(
        PathUtility(paths), cube(3), streams, raw=raw, taken=[frozenset()], search=search
    )
    healthy = minima(
        PathUtility(drawn(surrogate, 3, 32)),
        cube(3),
        streams,
        raw=raw,
        taken=[frozenset()],
        search=search,
    )
    assert torch.isfinite(points).all()
    torch.testing.assert_close(points[0, 0], healthy[0, 0], rtol=0, atol=1e-4)


def test_hallucinated_results_leave_the_mean_and_take_the_spread_away() -> None:
    surrogate = rugged(3, 11, 0.5)
    pending = random_uniform(8, 1, 2, 3)
    mask = torch.tensor([[True, False]])
    sure = surrogate.hallucinate(pending, mask)
    x = torch.cat([pending, random_uniform(9, 1, 5, 3)], 1)
    (mean, variance), (same, less) = surrogate.moments(x), sure.moments(x)
    torch.testing.assert_close(same, mean)
    assert (less <= variance * (1 + 1e-9)).all()
    assert less[0, 0, 0] < 2e-3
    assert variance[0, 0, 0] > 0.1
    torch.testing.assert_close(less[0, 0, 1], sure.moments(x[:, 1:2])[1][0, 0, 0])


def test_functions_conditioned_on_what_is_pending_go_through_the_expected_values() -> None:
    surrogate = rugged(3, 11, 0.5)
    pending = random_uniform(8, 1, 2, 3)
    sure = surrogate.hallucinate(pending, torch.ones(1, 2, dtype=torch.bool))
    values = drawn(sure, 200, 256).at(pending)[0]
    mean, variance = (moment[0, 0] for moment in sure.moments(pending))
    assert ((values.mean(0) - mean).abs() < 4 * (variance / 200).sqrt()).all()
    assert ((values.std(0) / variance.sqrt() - 1).abs() < 4 / 400**0.5).all()


def test_conditioning_on_pending_points_matters_from_the_second_point_of_a_batch_on() -> None:
    search = Search(raw=64, perturbed=16, restarts=2, scouts=8)
    plain, sure = (ThompsonSampling(search, 256, hallucinate) for hallucinate in (False, True))
    now = situation(rugged(2, 7, 0.4), 5)
    without, conditioned = plain.propose(now, 5)[0], sure.propose(now, 5)[0]
    # An ascent ends as near the maximum as its value tells, at the square root of its tolerance.
    torch.testing.assert_close(conditioned[0], without[0], rtol=0, atol=1e-3)
    assert (conditioned[1:] - without[1:]).abs().max() > 1e-2


@pytest.mark.parametrize("region", [None, NestedBoxes()])
def test_the_failures_of_a_run_move_no_point_of_another(region: Region | None) -> None:
    surrogate = rugged(2, 7, 0.4)
    search = Search(raw=128, perturbed=32, restarts=2, scouts=8)
    quick = ThompsonSampling(search, features=256, region=region)
    alone = quick.propose(situation(surrogate, 2), 13)
    names = ("lengthscale", "outputscale", "noise_variance", "mean")
    known = {name: getattr(surrogate, name).repeat_interleave(2, 0) for name in names}
    known |= {"x": surrogate.x.expand(2, -1, -1), "y": surrogate.y[:, 0].expand(2, -1)}
    two = Surrogate.condition(mask=surrogate.mask.expand(2, -1), **known)
    beside = replace(
        situation(two, 2, alone.expand(2, -1, -1)),
        failed_mask=torch.tensor([[False], [True]]).expand(-1, 13),
        seeds=(2, 2),
        taken=(frozenset(), frozenset()),
    )
    together = quick.propose(beside, 13)
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-3)
    assert (together[1] - alone[0]).abs().amax() > 0.05


@pytest.fixture
def two_wells() -> Situation:
    """The better well is known to its bottom, and the other one from one point on its slope."""
    bottom = torch.tensor([0.2, 0.2], dtype=DTYPE)
    known = bottom + 0.03 * (random_uniform(1, 1, 19, 2) - 0.5)
    plain = torch.tensor([[0.5, 0.9], [0.9, 0.2], [0.5, 0.5], [0.1, 0.7], [0.8, 0.7]], dtype=DTYPE)
    x = torch.cat([known, plain[None]], 1)
    away = (x - bottom).square().sum(-1)
    values = -torch.exp(-away / 0.03)
    values[0, -1] = -0.4
    return situation(observed(x, values, outputscale=0.03), 2)


QUICK = Search(raw=256, perturbed=16, restarts=2, scouts=8)


def near(points: Tensor, centre: list[float]) -> Tensor:
    return (points - torch.tensor(centre, dtype=DTYPE)).norm(dim=-1) < 0.25


def test_functions_that_agree_are_searched_in_the_other_basin(
    two_wells: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All agree where the minimum is. With few trials under way none of them looks elsewhere."""
    monkeypatch.setattr(thompson, "_LEAST_GAIN", -1.0)
    alone, together = (
        ThompsonSampling(QUICK, 256, region=NestedBoxes(others=others)).propose(two_wells, 16)[0]
        for others in (0, 3)
    )
    assert near(alone, [0.2, 0.2]).sum() >= 15
    elsewhere = near(together, [0.8, 0.7])
    assert (elsewhere | near(together, [0.2, 0.2])).sum() >= 15
    assert not elsewhere[:4].any()
    assert elsewhere[4:].sum() >= 3


def test_a_function_finds_nothing_new_in_the_next_shorter_box_once_it_is_searched_by_others() -> (
    None
):
    """The boxes end at a corner of the cube, and only the other ends of them differ."""
    upper = torch.tensor([1.0, 0.4, 0.1], dtype=DTYPE)[None, :, None].expand(1, -1, 2)
    centre = torch.zeros(1, 1, 2, dtype=DTYPE)
    boxes = Boxes(centre, torch.zeros_like(upper), upper, torch.ones(1, 1, dtype=torch.bool))
    utility = PathUtility(drawn(rugged(2, 7, 0.4), 7, 32))
    searching = _PathSearch(utility, cube(2), Streams(range(7)), Search())
    numbers, nothing = torch.arange(7)[None], torch.zeros(7, 1, dtype=DTYPE)

    def idle(coordinate: float, pending: int, gain: float = 1.0) -> list[bool]:
        where = Confined(boxes, numbers, torch.full_like(numbers, pending), lambda boxes: centre)
        minimum = Ranked(torch.full((7, 1, 2), coordinate, dtype=DTYPE), nothing + gain)
        found: list[bool] = searching._finds_nothing_new(minimum, nothing, where)[0].tolist()
        return found

    # In the shortest box, the third of each three, nobody else searches what is found.
    assert idle(0.05, 3) == [True, True, False, True, True, False, True]
    assert idle(0.3, 3) == [True, False, False, True, False, False, True]
    assert idle(0.7, 3) == [False] * 7
    assert idle(0.05, 2) == [False] * 7
    assert idle(0.7, 2, gain=9e-5) == [True] * 7


def test_trials_that_are_under_way_count_whichever_call_asked_for_them(
    two_wells: Situation,
) -> None:
    strategy = ThompsonSampling(QUICK, 256)
    points = strategy.propose(two_wells, 9)
    now = two_wells
    for point in points.unbind(1):
        torch.testing.assert_close(strategy.propose(now, 1)[:, 0], point, rtol=0, atol=1e-3)
        now = now.after(point)
    assert near(points[0], [0.8, 0.7]).any()


def test_how_many_functions_are_searched_at_a_time_makes_no_difference_elsewhere(
    two_wells: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = ThompsonSampling(QUICK, 256)
    whole = strategy.propose(two_wells, 23)
    monkeypatch.setattr(thompson, "_CPU_NUMBERS", 1)
    torch.testing.assert_close(strategy.propose(two_wells, 23), whole, rtol=0, atol=1e-3)


def test_there_may_be_more_boxes_than_raw_points(two_wells: Situation) -> None:
    few = Search(raw=8, restarts=2, scouts=4)
    strategy = ThompsonSampling(few, 256, region=NestedBoxes(others=11))
    assert strategy.propose(two_wells, 9).shape == (1, 9, 2)


def test_a_function_that_gains_nothing_is_searched_in_the_other_basin_at_any_time(
    two_wells: Situation,
) -> None:
    points = ThompsonSampling(QUICK, 256).propose(two_wells, 4)[0]
    here = near(points, [0.2, 0.2])
    assert 0 < here.sum() < 4
    assert near(points[~here], [0.8, 0.7]).all()


def test_where_there_is_nothing_to_gain_in_any_basin_functions_stay(
    two_wells: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ThompsonSampling(QUICK, 256, region=NestedBoxes(others=0)).propose(two_wells, 9)
    monkeypatch.setattr(thompson, "_LEAST_GAIN", 10.0)
    points = ThompsonSampling(QUICK, 256).propose(two_wells, 9)
    torch.testing.assert_close(points, own, rtol=0, atol=1e-3)


def test_a_basin_that_has_nothing_more_to_give_is_left_for_the_next() -> None:
    """Wells of heights -1, -0.6 and -0.5, of which the second is known to its bottom, too."""
    centres = torch.tensor([[0.2, 0.2], [0.8, 0.8], [0.8, 0.2]], dtype=DTYPE)
    spread = torch.tensor([0.03, 0.3], dtype=DTYPE).repeat_interleave(19)[:, None]
    around = spread * (random_uniform(1, 1, 38, 2) - 0.5) + centres[:2].repeat_interleave(19, 0)
    plain = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.5, 0.05], [0.8, 0.5], [0.8, 0.2]])
    plain = plain.to(DTYPE)
    x = torch.cat([around, plain[None]], 1)
    away = (x[:, :, None] - centres[:2]).square().sum(-1)
    values = -(torch.tensor([1.0, 0.6]) * torch.exp(-away / 0.03)).sum(-1)
    values[0, -1] = -0.5
    now = situation(observed(x, values, outputscale=0.03), 2)
    points = ThompsonSampling(QUICK, 256).propose(now, 16)[0]
    assert near(points, [0.8, 0.2]).sum() > near(points, [0.8, 0.8]).sum()


def test_a_run_looks_elsewhere_or_not_whatever_runs_are_beside_it(two_wells: Situation) -> None:
    """The one with two wells does, and the one with a bowl does not."""
    strategy = ThompsonSampling(QUICK, 256)
    known = two_wells.fit().surrogate
    bowl = observed(known.x, 3 * (known.x - 0.4).square().sum(-1), outputscale=0.03)
    names = ("lengthscale", "outputscale", "noise_variance", "mean")
    both = {name: getattr(known, name).expand(2, *getattr(known, name).shape[1:]) for name in names}
    values = torch.cat([known.y[:, 0], bowl.y[:, 0]])
    pair = Surrogate.condition(known.x.expand(2, -1, -1), values, known.mask.expand(2, -1), **both)
    beside = replace(situation(pair, 2), seeds=(2, 2), taken=(frozenset(), frozenset()))
    together = strategy.propose(beside, 7)
    for row, surrogate in enumerate((known, bowl)):
        alone = strategy.propose(situation(surrogate, 2), 7)[0]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-3)
    assert near(together[0], [0.8, 0.7]).any()
    assert not near(together[1], [0.8, 0.7]).any()


@pytest.mark.parametrize("region", [None, NestedBoxes()])
def test_in_a_finite_space_a_function_has_the_best_point_that_is_left(
    region: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all good points among those screened in its box are taken."""
    space = Space(Integer("a", 0, 15), Integer("b", 0, 15))
    every = space.encode(list(space.grid(16)))
    better = []

    def spied(utility: Any, *args: Any, taken: Any, **options: Any) -> Tensor:
        found = minima(utility, *args, taken=taken, **options)
        left = torch.tensor([space.key(params) not in taken[0] for params in space.decode(every)])
        values = utility.at(every[None])[0]
        own = values[(every - found[0, 0]).abs().amax(-1) < 1e-9]
        better.append(int(((values > own + 1e-9) & left).sum()))
        return found

    monkeypatch.setattr(strategies, "minima", spied)
    optimizer = Optimizer(space, ThompsonSampling(region=region), initial=8, inference="map")
    for _ in range(27):
        trial = optimizer.ask()
        optimizer.tell(trial, (trial.params["a"] - 8) ** 2 + 1.3 * (trial.params["b"] - 7) ** 2)
    assert len(better) == 19
    assert sum(better) <= 3  # few points are not screened

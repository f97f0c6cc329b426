"""Which observed points lie in other basins: those that a hill separates from the best."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gpbo import trust_region
from gpbo.backend import DTYPE
from gpbo.basins import other_basins
from gpbo.data import Observations
from gpbo.feasibility import log_chance_of_success
from gpbo.space import Real, Space
from gpbo.surrogate import Surrogate
from gpbo.trust_region import NestedBoxes, TrustRegion
from tests.monte_carlo import random_uniform

CENTRES = torch.tensor([[0.2, 0.2], [0.8, 0.7], [0.3, 0.9]], dtype=DTYPE)
SPACE = Space([Real(f"x{i}", 0.0, 1.0) for i in range(2)])


def observed(
    x: Tensor, values: Tensor, mask: Tensor | None = None, outputscale: float = 1.0
) -> Surrogate:
    one = torch.ones(len(x), 1, dtype=DTYPE)
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    scales = 0.3 * torch.ones(len(x), 1, x.shape[-1], dtype=DTYPE)
    return Surrogate.condition(x, values, mask, scales, outputscale * one, 1e-4 * one, 0 * one)


def wells(centres: Tensor, count: int, runs: int = 1) -> Surrogate:
    """A plain with a well at each of these points, the deepest first."""
    x = random_uniform(4, runs, count, 2)
    away = (x[:, :, None] - centres).square().sum(-1)
    depth = 0.5 ** torch.arange(len(centres), dtype=DTYPE)
    return observed(x, -(depth * torch.exp(-away / 0.03)).sum(-1))


def results(surrogate: Surrogate) -> Observations:
    return Observations.of(surrogate.x, surrogate.y[:, 0], surrogate.mask)


def height(surrogate: Surrogate) -> Tensor:
    return torch.where(surrogate.mask, surrogate.fitted.mean(1), torch.inf)


def best(surrogate: Surrogate) -> Tensor:
    return surrogate.x[torch.arange(surrogate.runs), height(surrogate).argmin(-1)]


def test_the_lowest_points_of_the_other_wells_are_found_the_lowest_first() -> None:
    surrogate = wells(CENTRES, 61, runs=3)
    points, present = other_basins(surrogate, surrogate.x, best(surrogate), height(surrogate), 2)
    assert present.all()
    assert ((points - CENTRES[1:]).norm(dim=-1) < 0.15).all()


def test_where_there_is_one_well_there_is_no_other_basin() -> None:
    x = random_uniform(3, 1, 53, 2)
    bowl = observed(x, (x - 0.4).square().sum(-1))
    points, present = other_basins(bowl, bowl.x, best(bowl), height(bowl), 2)
    assert not present.any()
    assert torch.equal(points, best(bowl)[:, None].expand(-1, 2, -1))


def test_points_that_do_not_count_are_not_taken_but_the_hills_are_the_same() -> None:
    surrogate = wells(CENTRES, 61)
    allowed = (surrogate.x - CENTRES[1]).norm(dim=-1) > 0.3
    counting = torch.where(allowed, height(surrogate), torch.inf)
    points, present = other_basins(surrogate, surrogate.x, best(surrogate), counting, 1)
    assert present.all()
    assert (points - CENTRES[2]).norm() < 0.15


def test_a_run_has_the_basins_that_it_has_alone() -> None:
    few, many = wells(CENTRES, 23), wells(CENTRES, 61)
    count = many.x.shape[1] - few.x.shape[1]
    padded = torch.nn.functional.pad(few.x, (0, 0, 0, count), value=0.5)
    values = torch.nn.functional.pad(few.y[:, 0], (0, count))
    mask = torch.cat([few.mask, torch.zeros(1, count, dtype=torch.bool)], 1)
    x, y = torch.cat([padded, many.x]), torch.cat([values, many.y[:, 0]])
    both = observed(x, y, torch.cat([mask, many.mask]))
    centres = torch.cat([best(few), best(many)])
    points, present = other_basins(both, both.x, centres, height(both), 3)
    for row, alone in enumerate((few, many)):
        own, there = other_basins(alone, alone.x, best(alone), height(alone), 3)
        assert torch.equal(present[row], there[0])
        torch.testing.assert_close(points[row], own[0])


@pytest.mark.parametrize("failed", [0, 1])
def test_a_draw_that_failed_has_no_hills(failed: int) -> None:
    x = random_uniform(3, 1, 53, 2)
    values = (x - 0.4).square().sum(-1)
    both = torch.ones(1, 2, dtype=DTYPE)
    broken = torch.where(torch.arange(2) == failed, torch.nan, 1e-4 * both)
    mask = torch.ones_like(values, dtype=torch.bool)
    scales = 0.3 * torch.ones(1, 2, 2, dtype=DTYPE)
    bowl = Surrogate.condition(x, values, mask, scales, both, broken, 0 * both)
    assert bowl.succeeded.tolist() == [[failed != 0, failed != 1]]
    assert not other_basins(bowl, bowl.x, best(bowl), height(bowl), 2)[1].any()


@pytest.mark.parametrize("failed", [0, 1])
def test_the_hills_are_those_of_a_draw_that_succeeded(failed: int) -> None:
    alone, both = wells(CENTRES, 61), torch.ones(1, 2, dtype=DTYPE)
    broken = torch.where(torch.arange(2) == failed, torch.nan, 1e-4 * both)
    scales, y = 0.3 * torch.ones(1, 2, 2, dtype=DTYPE), alone.y[:, 0]
    beside = Surrogate.condition(alone.x, y, alone.mask, scales, both, broken, 0 * both)
    (points, present), (expected, there) = (
        other_basins(model, alone.x, best(alone), height(alone), 2) for model in (beside, alone)
    )
    assert there.all()
    assert present.all()
    torch.testing.assert_close(points, expected)


def test_a_slope_is_no_hill_from_whichever_end() -> None:
    x = torch.linspace(0, 1, 23, dtype=DTYPE).view(1, -1, 1)
    slope = observed(x, 3 * x[..., 0])
    for end in (0.0, 1.0):
        top = torch.full((1, 1), end, dtype=DTYPE)
        assert not other_basins(slope, slope.x, top, height(slope), 1)[1].any()


def test_what_is_beyond_points_that_do_not_count_is_another_basin() -> None:
    """On a slope, which has no hill: from 0.3 to 0.6 the chance is less than a half."""
    x = torch.linspace(0, 1, 23, dtype=DTYPE).view(1, -1, 1)
    slope, top = observed(x, 3 * x[..., 0]), torch.zeros(1, 1, dtype=DTYPE)

    def log_chance(x: Tensor) -> Tensor:
        barred = (x[..., 0] > 0.3) & (x[..., 0] < 0.6)
        return torch.where(barred, 0.4, 0.6).to(DTYPE).log()

    own = height(slope).masked_fill(log_chance(x) < math.log(0.5), torch.inf)
    points, present = other_basins(slope, slope.x, top, own, 2, log_chance)
    assert present.tolist() == [[True, False]]
    assert 0.6 < float(points[0, 0, 0]) < 0.65
    boxes = NestedBoxes((float("inf"), 0.2), others=1)
    data, space = results(slope), Space([Real("x", 0.0, 1.0)])

    class Chance:
        __call__ = staticmethod(log_chance)

        def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
            raise AssertionError("no gradient is needed")

    for chance, there in ((Chance(), True), (None, False)):
        elsewhere = boxes.boxes(data, slope, space, chance).elsewhere
        assert elsewhere is not None
        assert bool(elsewhere().present.all()) == there


def test_boxes_elsewhere_lie_around_other_basins_outside_of_the_longest_box() -> None:
    surrogate = wells(CENTRES, 61)
    data = results(surrogate)
    boxes = NestedBoxes((float("inf"), 0.4, 0.1), others=2).boxes(data, surrogate, SPACE)
    assert boxes.elsewhere is not None
    others = boxes.elsewhere()
    assert others.present.all()
    assert ((others.centre - CENTRES[1:]).norm(dim=-1) < 0.15).all()
    middle = torch.cat([others.centre, others.centre], 1)
    assert ((middle >= others.lower) & (middle <= others.upper)).all()
    sides = (others.upper - others.lower).amax(-1)
    assert (sides[:, :2] > 2 * sides[:, 2:]).all()
    # A box that reaches everywhere leaves no point outside.
    wide = NestedBoxes((3.0,)).boxes(data, surrogate, SPACE).elsewhere
    assert wide is not None
    assert not wide().present.any()


def test_a_basin_within_the_longest_finite_box_is_no_other_one() -> None:
    """Which reaches the second well, while the shortest is about the first alone."""
    surrogate = wells(CENTRES, 61)
    data = results(surrogate)
    boxes = NestedBoxes((float("inf"), 1.36, 0.1), others=2).boxes(data, surrogate, SPACE)
    assert ((CENTRES[1] > boxes.lower[0, 1]) & (CENTRES[1] < boxes.upper[0, 1])).all()
    assert boxes.elsewhere is not None
    others = boxes.elsewhere()
    outside = (others.centre < boxes.lower[:, 1:2]) | (others.centre > boxes.upper[:, 1:2])
    assert others.present.any()
    assert outside.any(-1)[others.present].all()


def test_other_basins_are_looked_for_once_and_only_where_they_are_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    surrogate, looked = wells(CENTRES, 61), []

    def noting(*args: Any) -> tuple[Tensor, Tensor]:
        looked.append(args)
        return other_basins(*args)

    monkeypatch.setattr(trust_region, "other_basins", noting)
    elsewhere = NestedBoxes().boxes(results(surrogate), surrogate, SPACE).elsewhere
    assert elsewhere is not None
    assert not looked
    assert elsewhere() is elsewhere()
    assert len(looked) == 1


def test_boxes_elsewhere_lie_around_no_point_among_failures() -> None:
    surrogate = wells(CENTRES, 61)
    data = results(surrogate)
    plain = NestedBoxes(others=1).boxes(data, surrogate, SPACE).elsewhere
    assert plain is not None
    failed = plain().centre.expand(1, 5, 2)
    chance = log_chance_of_success(data, failed, torch.ones(1, 5, dtype=torch.bool))
    likely = NestedBoxes(others=1).boxes(data, surrogate, SPACE, chance).elsewhere
    assert likely is not None
    assert likely().present.all()
    assert chance(plain().centre) < math.log(0.5) < chance(likely().centre)


@pytest.mark.parametrize(
    "region", [NestedBoxes(others=0), NestedBoxes((float("inf"),)), TrustRegion()]
)
def test_without_other_boxes_there_is_no_elsewhere(region: NestedBoxes | TrustRegion) -> None:
    surrogate = wells(CENTRES, 61)
    assert region.boxes(results(surrogate), surrogate, SPACE).elsewhere is None

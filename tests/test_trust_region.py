"""The box around the best point: when it grows, shrinks and starts anew, and that it holds."""

import pytest
import torch
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.candidates import Search
from gpbo.data import Observations, standardised
from gpbo.errors import InvalidOption
from gpbo.space import Categorical, Integer, Real, Space
from gpbo.strategies import ThompsonSampling
from gpbo.surrogate import Surrogate
from gpbo.trust_region import Box, TrustRegion
from tests.monte_carlo import random_uniform
from tests.test_strategies import situation

CUBE = Space([Real(f"x{i}", 0.0, 1.0) for i in range(2)])
DESIGN = [9.0, 8.0, 9.5, 8.5]  # two results for each of two dimensions, which do not count


def history(*rows: list[float]) -> Observations:
    """Runs with these values after the design, at points that tell their number."""
    values = torch.tensor([DESIGN + row for row in rows], dtype=DTYPE)
    x = 0.3 + 0.01 * torch.arange(values.shape[1], dtype=DTYPE)[None, :, None].expand(
        len(rows), -1, 2
    )
    return standardised(x, values, torch.isfinite(values))


def model(data: Observations, lengthscale: Tensor | None = None) -> Surrogate:
    one = torch.ones(data.runs, 1, dtype=DTYPE)
    lengthscale = torch.ones(2, dtype=DTYPE) if lengthscale is None else lengthscale
    scales = lengthscale.expand(data.runs, 1, -1)
    return Surrogate.condition(data.x, data.y, data.mask, scales, one, 0.1 * one, 0 * one)


def length(*rows: list[float], region: TrustRegion | None = None) -> list[float]:
    region = TrustRegion(length=0.2, longest=0.5) if region is None else region
    data = history(*rows)
    box = region.box(data, model(data), CUBE)
    return (box.upper - box.lower).amax(-1).tolist()


def test_three_successes_in_a_row_double_the_length_up_to_the_longest() -> None:
    assert length([7, 6]) == pytest.approx([0.2])
    assert length([7, 6, 5]) == pytest.approx([0.4])
    assert length([7, 6, 9, 5]) == pytest.approx([0.2])
    assert length([7, 6, 5, 4, 3, 2]) == pytest.approx([0.5])


def test_as_many_failures_as_dimensions_halve_it_but_four_at_least() -> None:
    assert length([9, 9, 9]) == pytest.approx([0.2])
    assert length([9, 9, 9, 9]) == pytest.approx([0.1])
    assert length([9, 9, 7, 9, 9, 9]) == pytest.approx([0.2])
    assert length([9] * 8) == pytest.approx([0.05])
    assert length([9, 9], region=TrustRegion(length=0.2, failures=2)) == pytest.approx([0.1])


def test_a_gain_of_less_than_a_thousandth_is_a_failure() -> None:
    assert length([7.999, 7.998, 7.997, 7.996]) == pytest.approx([0.1])


def test_the_results_of_a_batch_are_judged_together() -> None:
    region = TrustRegion(batch=4, length=0.2, failures=1)
    assert length([9, 9, 9, 9], region=region) == pytest.approx([0.1])
    assert length([9, 7, 9, 9], region=region) == pytest.approx([0.2])


def test_a_trial_that_failed_is_no_result() -> None:
    nan = float("nan")
    assert length([9, nan, 9, 9], [9, 9, 9, 9]) == pytest.approx([0.2, 0.1])


def test_when_it_is_too_short_the_search_starts_anew_in_the_whole_cube() -> None:
    region = TrustRegion(length=0.2, shortest=0.15)
    data = history([9.0] * 4, [9.0] * 3 + [7.0])
    box = region.box(data, model(data), CUBE)
    assert (box.lower[0] == 0).all()
    assert (box.upper[0] == 1).all()
    assert (box.upper[1] < 1).all()
    # Four results later the box is around the best of these, though an older one is better.
    data = history([9.0] * 4 + [9.9, 9.6, 9.8, 9.7])
    box = region.box(data, model(data), CUBE)
    assert box.centre[0].tolist() == data.x[0, 9].tolist()
    assert (box.upper - box.lower)[0].tolist() == pytest.approx([0.2, 0.2])


def test_the_sides_go_with_the_lengthscales_and_end_at_the_cube() -> None:
    data = history([7.0])
    surrogate = model(data, torch.tensor([0.4, 0.1], dtype=DTYPE))
    box = TrustRegion(length=0.2).box(data, surrogate, CUBE)
    assert (box.upper - box.lower)[0].tolist() == pytest.approx([0.4, 0.1])
    assert (((box.upper + box.lower) / 2)[0] - data.x[0, 4]).abs().max() < 1e-12
    wide = TrustRegion(length=1.6).box(data, surrogate, CUBE)
    assert wide.lower.min() >= 0
    assert wide.upper.max() <= 1


def test_choices_without_an_order_are_not_confined() -> None:
    space = Space(Real("a", 0, 1), Categorical("kind", ("x", "y", "z")))
    x = space.snap(random_uniform(1, 1, 9, 4))
    data = standardised(x, random_uniform(2, 1, 9))
    one = torch.ones(1, 1, dtype=DTYPE)
    surrogate = Surrogate.condition(
        x, data.y, data.mask, torch.ones(1, 1, 4, dtype=DTYPE), one, 0.1 * one, 0 * one
    )
    box = TrustRegion(length=0.1).box(data, surrogate, space)
    assert box.upper[0, 0] - box.lower[0, 0] < 0.11
    assert (box.lower[0, 1:] == 0).all()
    assert (box.upper[0, 1:] == 1).all()


def test_in_many_dimensions_screened_points_differ_from_the_centre_in_twenty_coordinates() -> None:
    centre = torch.full((1, 100), 0.5, dtype=DTYPE)
    box = Box(centre, centre - 0.1, centre + 0.1)
    points = box.place(random_uniform(3, 1, 500, 100), random_uniform(4, 1, 500, 100))
    assert ((points - 0.5).abs() <= 0.1).all()
    moved = (points != 0.5).double().sum(-1).mean()
    assert abs(moved - 20) < 4 * (100 * 0.2 * 0.8 / 500) ** 0.5


@pytest.mark.parametrize("space", [CUBE, Space(Real("a", 0, 1), Integer("n", 1, 50))])
def test_every_point_is_proposed_inside_the_box(space: Space) -> None:
    region = TrustRegion(length=0.1)
    search = Search(raw=64, perturbed=16, restarts=2, scouts=8)
    strategy = ThompsonSampling(search, features=64, trust_region=region)
    now = situation(space, [7, 11])
    points = strategy.propose(now, 5)
    box = region.box(now.data, now.fit().surrogate, space)
    # An integer may move on to its neighbours.
    real = space.continuous
    assert (points >= box.lower[:, None])[..., real].all()
    assert (points <= box.upper[:, None])[..., real].all()
    alone = ThompsonSampling(search, features=64).propose(now, 5)
    assert not ((alone >= box.lower[:, None]) & (alone <= box.upper[:, None])).all()


@pytest.mark.parametrize(
    ("option", "wrong"),
    [("batch", 0), ("successes", 0), ("failures", 0), ("length", 0.001), ("length", 2.0)],
)
def test_options_that_mean_nothing_are_refused(option: str, wrong: float) -> None:
    with pytest.raises(InvalidOption, match=f"{option}={wrong}"):
        TrustRegion(**{option: wrong})  # type: ignore[arg-type]

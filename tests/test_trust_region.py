"""The box around the best point: when it grows, shrinks and starts anew, and that it holds."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gpbo.backend import DTYPE, Streams
from gpbo.candidates import Search
from gpbo.data import Observations
from gpbo.design import sobol
from gpbo.errors import InvalidOption
from gpbo.optimizer import Optimizer
from gpbo.space import Categorical, Integer, Real, Space
from gpbo.strategies import ThompsonSampling
from gpbo.surrogate import Surrogate
from gpbo.trust_region import Boxes, NestedBoxes, TrustRegion
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
    return Observations.of(x, values, torch.isfinite(values))


def model(data: Observations, lengthscale: Tensor | None = None) -> Surrogate:
    one = torch.ones(data.runs, 1, dtype=DTYPE)
    lengthscale = torch.ones(2, dtype=DTYPE) if lengthscale is None else lengthscale
    scales = lengthscale.expand(data.runs, 1, -1)
    return Surrogate.condition(data.x, data.y, data.mask, scales, one, 0.1 * one, 0 * one)


def length(*rows: list[float], region: TrustRegion | None = None) -> list[float]:
    region = TrustRegion(length=0.2, longest=0.5) if region is None else region
    data = history(*rows)
    box = region.boxes(data, model(data), CUBE)
    return (box.upper - box.lower).amax(-1)[:, 0].tolist()


def test_the_defaults_are_those_of_the_paper() -> None:
    paper = TrustRegion(length=0.8, shortest=0.5**7, longest=1.6, successes=3, failures=None)
    assert TrustRegion() == paper


def test_three_successes_in_a_row_double_the_length_up_to_the_longest() -> None:
    assert length([7, 6]) == pytest.approx([0.2])
    assert length([7, 6, 5]) == pytest.approx([0.4])
    assert length([7, 6, 9, 5]) == pytest.approx([0.2])
    assert length([7, 6, 5, 4, 3, 2]) == pytest.approx([0.5])
    small = TrustRegion(length=0.1)
    assert length([7, 6, 5, 4, 3], region=small) == pytest.approx([0.2])
    assert length([7, 6, 5, 4, 3, 2], region=small) == pytest.approx([0.4])


def test_results_that_are_not_judged_are_no_successes() -> None:
    values = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0]], dtype=DTYPE)
    data = Observations.of(random_uniform(3, 1, 5, 2), values)
    box = TrustRegion(length=0.01).boxes(data, model(data), CUBE)
    assert (box.upper - box.lower)[0, 0].tolist() == pytest.approx([0.01, 0.01])


def test_as_many_failures_as_dimensions_halve_it_but_four_at_least() -> None:
    assert length([9, 9, 9]) == pytest.approx([0.2])
    assert length([9, 9, 9, 9]) == pytest.approx([0.1])
    assert length([9, 9, 7, 9, 9, 9]) == pytest.approx([0.2])
    assert length([9] * 8) == pytest.approx([0.05])
    assert length([9, 9], region=TrustRegion(length=0.2, failures=2)) == pytest.approx([0.1])
    assert length([9] * 4, region=TrustRegion(length=0.2, shortest=0.1)) == pytest.approx([0.1])


@pytest.mark.parametrize(("dim", "batch", "failures"), [(7, 1, 7), (7, 3, 3), (2, 5, 1)])
def test_how_many_batches_have_to_fail_follows_from_the_dimensions(
    dim: int, batch: int, failures: int
) -> None:
    region, judged = TrustRegion(batch=batch, length=0.2), -(-2 * dim // batch) * batch
    space = Space([Real(f"x{i}", 0.0, 1.0) for i in range(dim)])
    for more, expected in ((batch * failures - 1, 0.2), (batch * failures, 0.1)):
        count = judged + more // batch * batch
        data = Observations.of(0.4 + 0.2 * random_uniform(1, 1, count, dim), torch.ones(1, count))
        box = region.boxes(data, model(data, torch.ones(dim, dtype=DTYPE)), space)
        assert (box.upper - box.lower).mean().item() == pytest.approx(expected)


def test_so_many_failures_are_shared_out_to_batches_and_rounded_up() -> None:
    """The first batch that is judged begins after six results, and two have to fail."""
    region = TrustRegion(batch=3, length=0.2)
    assert length([9] * 5, region=region) == pytest.approx([0.2])
    assert length([9] * 8, region=region) == pytest.approx([0.1])


def test_the_first_search_has_a_box_from_the_first_result_on() -> None:
    whole = history([])
    for count in (1, 3):
        data = Observations.of(whole.x[:, :count], whole.values[:, :count])
        box = TrustRegion(length=0.2).boxes(data, model(data), CUBE)
        assert (box.upper - box.lower)[0, 0].tolist() == pytest.approx([0.2, 0.2])


def test_a_gain_of_less_than_a_thousandth_is_a_failure() -> None:
    assert length([7.999, 7.998, 7.997, 7.996]) == pytest.approx([0.1])


def test_what_is_a_little_worse_is_no_gain_on_a_value_below_0() -> None:
    assert length([-10, -9.995, -9.996, -9.997, -9.998]) == pytest.approx([0.1])
    assert length([-10, -10.02, -10.04]) == pytest.approx([0.4])


def test_the_first_value_that_meets_the_constraints_is_a_success() -> None:
    data = history([9.0, 9.9])
    eligible = torch.arange(data.values.shape[1])[None] == data.values.shape[1] - 1
    region = TrustRegion(length=0.2, successes=1)
    box = region.boxes(some := replace(data, eligible=eligible), model(some), CUBE)
    assert (box.upper - box.lower)[0, 0].tolist() == pytest.approx([0.4, 0.4])


def test_the_results_of_a_batch_are_judged_together() -> None:
    region = TrustRegion(batch=4, length=0.2, failures=1)
    assert length([9, 9, 9, 9], region=region) == pytest.approx([0.1])
    assert length([9, 7, 9, 9], region=region) == pytest.approx([0.2])


def test_a_trial_that_failed_is_no_result() -> None:
    nan = float("nan")
    assert length([9, nan, 9, 9], [9, 9, 9, 9]) == pytest.approx([0.2, 0.1])


@pytest.mark.parametrize("batch", [1, 2])
def test_where_trials_failed_between_results_makes_no_difference(batch: int) -> None:
    """Where each of the last starts begins is told in columns, holes among them."""
    nan = float("nan")
    region = TrustRegion(batch=batch, length=0.2, shortest=0.15, longest=0.4, successes=2)
    for row in ([7, 6, 5, 4], [7.0, 6, 9, 9, 9, 5], [9.0] * 4 + [8.9, 8.8, 8.7]):
        whole = history(list(row))
        for place in range(len(row) + 1):
            holes = history([*row[:place], nan, *row[place:]])
            boxes = [region.boxes(data, model(data), CUBE) for data in (whole, holes)]
            length = [(box.upper - box.lower).amax(-1).item() for box in boxes]
            assert length[0] == pytest.approx(length[1])
            values = [
                data.values[0, (box.centre == data.x).all(-1)[0]]
                for data, box in zip((whole, holes), boxes, strict=True)
            ]
            assert torch.equal(*values)


def test_a_failed_trial_parts_no_results_that_are_judged_together() -> None:
    region, nan = TrustRegion(batch=2, length=0.2, successes=2), float("nan")
    row = [7.0, 9.0, 9.0, 6.0]
    rows = [[*row[:place], nan, *row[place:]] for place in range(5)]
    assert length(*rows, region=region) == pytest.approx([0.4] * 5)


def test_when_it_is_too_short_the_search_starts_anew_in_the_whole_cube() -> None:
    region = TrustRegion(length=0.2, shortest=0.15)
    data = history([9.0] * 4, [9.0] * 3 + [7.0])
    box = region.boxes(data, model(data), CUBE)
    assert (box.lower[0] == 0).all()
    assert (box.upper[0] == 1).all()
    assert (box.upper[1] < 1).all()
    # Four results later the box is around the best of these, though an older one is better.
    data = history([9.0] * 4 + [9.9, 9.6, 9.8, 9.7])
    box = region.boxes(data, model(data), CUBE)
    assert box.centre[0, 0].tolist() == data.x[0, 9].tolist()
    assert (box.upper - box.lower)[0, 0].tolist() == pytest.approx([0.2, 0.2])


def test_after_a_new_start_results_are_judged_as_after_the_first() -> None:
    """Two for each dimension are not, and what was found before is no measure of the others."""
    region = TrustRegion(length=0.2, shortest=0.15)
    assert length([9.0] * 4 + [9.5, 9.6, 9.7, 9.8, 9.9], region=region) == pytest.approx([0.2])
    found = length([9.0] * 4 + [9.9, 9.6, 9.8, 9.7, 9.5, 9.4, 9.3], region=region)
    assert found == pytest.approx([0.4])


def test_no_trial_that_is_not_judged_undoes_a_new_start() -> None:
    """Neither one that failed nor a result outside of the slice that is searched."""
    region = TrustRegion(length=0.2, shortest=0.15)
    data = history([9.0] * 4)
    spot = torch.full((1, 1, 2), 0.9, dtype=DTYPE)
    for place in range(len(DESIGN) + 5):
        values = torch.cat([data.values[:, :place], spot[:, :, 0], data.values[:, place:]], 1)
        x = torch.cat([data.x[:, :place], spot, data.x[:, place:]], 1)
        holes = Observations.of(x, values, torch.arange(values.shape[1])[None] != place)
        box = region.boxes(holes, model(holes), CUBE)
        assert (box.upper - box.lower).amin() == 1
    space = Space(Real("x", 0, 1), Categorical("task", ("a", "b")))
    region = TrustRegion(length=0.8, shortest=0.5, failures=1)
    optimizer = Optimizer(space, ThompsonSampling(region=region), inference="map")
    optimizer.add({"x": 0.5, "task": "b"}, 7.0)
    for number, coordinate in enumerate([0.9, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7]):
        optimizer.add({"x": coordinate, "task": "a"}, float(number))
    plan: Any = optimizer.plan(1, fixed={"task": "a"})
    now = plan.situation
    box = region.boxes(now.data, now.fit().surrogate, now.space)
    assert (box.upper - box.lower).amin() == 1


class Nearer:
    """A chance that falls with the distance from a point."""

    def __init__(self, point: Tensor) -> None:
        self._point = point

    def __call__(self, x: Tensor) -> Tensor:
        return -1.0 - (x - self._point).norm(dim=-1)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def test_results_that_violate_a_constraint_are_results_of_a_new_start() -> None:
    """Two for each dimension end it, as long as one of them meets the constraints."""
    data = history([9.0] * 4 + [9.9, 9.6, 9.8, 9.7])
    eligible = torch.ones_like(data.mask)
    region = TrustRegion(length=0.2, shortest=0.15)
    eligible[0, 8:] = torch.tensor([False, True, False, False])
    some = replace(data, eligible=eligible)
    box = region.boxes(some, model(some), CUBE, Nearer(data.x[0, 9]))
    assert (box.upper - box.lower)[0, 0].tolist() == pytest.approx([0.2, 0.2])
    assert box.centre[0, 0].tolist() == data.x[0, 9].tolist()


class Certain(Nearer):
    """A chance of 1 at the point, and everywhere else one of less than a half."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where((x == self._point).all(-1), 0.0, -1.0).to(x)


class Likelier(Nearer):
    """A chance of 0.6 at the point, and everywhere else one of 0.4."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where((x == self._point).all(-1), 0.6, 0.4).to(x).log()


def test_the_centre_rather_gives_a_value_than_not() -> None:
    data = history([7.0, 8.0])
    for region in (TrustRegion(length=0.2), NestedBoxes()):
        for place in (4, 5):
            boxes = region.boxes(data, model(data), CUBE, Likelier(data.x[0, place]))
            assert boxes.centre[0, 0].tolist() == data.x[0, place].tolist()


def test_padding_is_no_centre_and_takes_none_away_whatever_chance_there_is() -> None:
    """It lies at 0.5: nearer to it than the results are, and alone in being likely."""
    data, region = history([7.0, 8.0, float("nan")]), TrustRegion(length=0.2)
    padding = data.x[0, -1]
    box = region.boxes(data, model(data), CUBE, Certain(padding))
    assert box.centre[0, 0].tolist() == data.x[0, 4].tolist()
    violating = replace(data, eligible=torch.zeros_like(data.mask))
    box = region.boxes(violating, model(violating), CUBE, Nearer(padding))
    assert box.centre[0, 0].tolist() == data.x[0, 5].tolist()


def test_the_sides_go_with_the_lengthscales_and_end_at_the_cube() -> None:
    data = history([7.0])
    surrogate = model(data, torch.tensor([0.4, 0.1], dtype=DTYPE))
    box = TrustRegion(length=0.2).boxes(data, surrogate, CUBE)
    assert (box.upper - box.lower)[0, 0].tolist() == pytest.approx([0.4, 0.1])
    assert (((box.upper + box.lower) / 2)[0, 0] - data.x[0, 4]).abs().max() < 1e-12
    wide = TrustRegion(length=1.6).boxes(data, surrogate, CUBE)
    assert wide.lower.min() >= 0
    assert wide.upper.max() <= 1


def test_a_dimension_that_says_nothing_takes_no_room_from_the_others() -> None:
    data = history([7.0])
    sides = []
    for flat in (2.0, 1e9):
        surrogate = model(data, torch.tensor([flat, 0.1], dtype=DTYPE))
        box = TrustRegion(length=0.05, shortest=0.01).boxes(data, surrogate, CUBE)
        sides.append((box.upper - box.lower)[0, 0].tolist())
    assert sides[0] == sides[1] == pytest.approx([0.05 * 20**0.5, 0.05 / 20**0.5])


def test_choices_without_an_order_are_not_confined() -> None:
    space = Space(Real("a", 0, 1), Categorical("kind", ("x", "y", "z")))
    x = space.snap(random_uniform(1, 1, 9, 4))
    data = Observations.of(x, random_uniform(2, 1, 9))
    one = torch.ones(1, 1, dtype=DTYPE)
    surrogate = Surrogate.condition(
        x, data.y, data.mask, torch.ones(1, 1, 4, dtype=DTYPE), one, 0.1 * one, 0 * one
    )
    box = TrustRegion(length=0.1).boxes(data, surrogate, space)
    assert box.upper[0, 0, 0] - box.lower[0, 0, 0] < 0.11
    assert (box.lower[0, 0, 1:] == 0).all()
    assert (box.upper[0, 0, 1:] == 1).all()


def test_in_many_dimensions_screened_points_differ_from_the_centre_in_twenty_coordinates() -> None:
    centre = torch.full((1, 1, 100), 0.5, dtype=DTYPE)
    box = Boxes(centre, centre - 0.1, centre + 0.1, torch.ones(1, 1, dtype=torch.bool))
    points = box.place(random_uniform(3, 1, 500, 100), random_uniform(4, 1, 500, 100))
    assert ((points - 0.5).abs() <= 0.1).all()
    moved = (points != 0.5).double().sum(-1).mean()
    assert abs(moved - 20) < 4 * (100 * 0.2 * 0.8 / 500) ** 0.5


@pytest.mark.parametrize("space", [CUBE, Space(Real("a", 0, 1), Integer("n", 1, 50))])
def test_every_point_is_proposed_inside_the_box(space: Space) -> None:
    region = TrustRegion(length=0.1)
    search = Search(raw=64, perturbed=16, restarts=2, scouts=8)
    strategy = ThompsonSampling(search, features=64, region=region)
    now = situation(space, [7, 11])
    points = strategy.propose(now, 5)
    box = region.boxes(now.data, now.fit().surrogate, space)
    # An integer may move on to its neighbours.
    real = space.continuous
    assert (points >= box.lower)[..., real].all()
    assert (points <= box.upper)[..., real].all()
    alone = ThompsonSampling(search, features=64, region=None).propose(now, 5)
    assert not ((alone >= box.lower) & (alone <= box.upper)).all()


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("batch", 0),
        ("successes", 0),
        ("failures", 0),
        ("length", 0.001),
        ("length", 2.0),
        ("shortest", 0.0),
    ],
)
def test_options_that_mean_nothing_are_refused(option: str, wrong: float) -> None:
    with pytest.raises(InvalidOption, match=f"{option}={wrong}"):
        TrustRegion(**{option: wrong})  # type: ignore[arg-type]


def test_nested_boxes_lie_around_the_point_of_least_mean_and_in_each_other() -> None:
    data = history([7.0, 9.0], [9.0, 6.0])
    surrogate = model(data)
    boxes = NestedBoxes((float("inf"), 0.2, 0.1)).boxes(data, surrogate, CUBE)
    least = surrogate.moments(data.x)[0].mean(1).argmin(-1).tolist()
    assert boxes.centre[:, 0].tolist() == [data.x[run, j].tolist() for run, j in enumerate(least)]
    sides = (boxes.upper - boxes.lower)[..., 0]
    torch.testing.assert_close(sides, torch.tensor([[1.0, 0.2, 0.1]] * 2, dtype=DTYPE))
    assert (boxes.lower.diff(dim=1) >= 0).all()
    assert (boxes.upper.diff(dim=1) <= 0).all()


def test_boxes_may_lie_around_the_best_point_only() -> None:
    data = history([1.0])
    around = [NestedBoxes(others=others).boxes(data, model(data), CUBE) for others in (0, 1)]
    assert torch.equal(around[0].lower, around[1].lower)
    assert around[0].elsewhere is None
    assert around[1].elsewhere is not None


def test_a_lucky_value_is_not_the_centre() -> None:
    """Many results say that the function is low elsewhere."""
    x = torch.tensor([[[0.2]] * 9 + [[0.8]]], dtype=DTYPE).reshape(1, 10, 1)
    data = Observations.of(x, torch.tensor([[1.0] * 9 + [0.9]], dtype=DTYPE))
    one = torch.ones(1, 1, dtype=DTYPE)
    surrogate = Surrogate.condition(
        x,
        torch.tensor([[-1.0] * 9 + [-1.1]]).double(),
        data.mask,
        one[..., None] * 0.1,
        one,
        one,
        one,
    )
    boxes = NestedBoxes().boxes(data, surrogate, Space(Real("x", 0, 1)))
    assert boxes.centre.tolist() == [[[0.2]]]


def test_functions_take_the_boxes_in_turn_whatever_batch_they_are_asked_in() -> None:
    region = NestedBoxes((float("inf"), 0.1, 0.02))
    strategy = ThompsonSampling(Search(raw=64, restarts=2, scouts=8), features=64, region=region)
    now = situation(CUBE, [7, 11])
    points = strategy.propose(now, 7)
    boxes = region.boxes(now.data, now.fit().surrogate, CUBE)
    lower, upper = boxes.of((torch.arange(7) + now.index).expand(2, -1))
    assert (points >= lower).all()
    assert (points <= upper).all()
    outside = (points < boxes.lower[:, 1:2]) | (points > boxes.upper[:, 1:2])
    assert outside.any(-1).any(0).tolist() == [(j + now.index) % 3 == 0 for j in range(7)]
    for point in points.unbind(1):
        alone = strategy.propose(now, 1)[:, 0]
        torch.testing.assert_close(alone, point, rtol=0, atol=1e-4)
        now = now.after(point)


@pytest.mark.parametrize("dim", [2, 20])
def test_functions_are_searched_in_nested_boxes_by_default(dim: int) -> None:
    space = Space([Real(f"x{i}", 0.0, 1.0) for i in range(dim)])
    search = Search(raw=32, restarts=2, scouts=4, perturbed=8)
    now = situation(space, [2 * dim])
    boxes = NestedBoxes().boxes(now.data, now.fit().surrogate, space)
    lower, upper = boxes.of((torch.arange(5) + now.index).expand(1, -1))
    points = ThompsonSampling(search, features=32).propose(now, 5)
    assert ((points >= lower) & (points <= upper)).all()
    anywhere = ThompsonSampling(search, features=32, region=None).propose(now, 5)
    assert not ((anywhere >= lower) & (anywhere <= upper)).all()


@pytest.mark.parametrize("lengths", [(), (0.0,), (0.1, 0.2)])
def test_lengths_that_are_no_nest_are_refused(lengths: tuple[float, ...]) -> None:
    with pytest.raises(InvalidOption, match="lengths="):
        NestedBoxes(lengths)


def test_what_is_no_region_is_refused() -> None:
    with pytest.raises((InvalidOption, TypeError), match="region"):
        ThompsonSampling(region="everywhere")  # type: ignore[arg-type]


def test_each_box_gets_points_from_all_over_it() -> None:
    """Of a Sobol sequence every fourth point lies in the same quadrant."""
    box = Boxes(
        torch.zeros(1, 1, 2, dtype=DTYPE),
        torch.zeros(1, 4, 2, dtype=DTYPE),
        torch.ones(1, 4, 2, dtype=DTYPE),
        torch.ones(1, 1, dtype=torch.bool),
    )
    sequence = sobol(256, 2, Streams([5]))
    points = box.place(sequence, torch.zeros_like(sequence))[0].view(-1, 4, 2)
    for own in points.unbind(1):
        quadrant = (own >= 0.5).long() @ torch.tensor([1, 2])
        assert quadrant.bincount(minlength=4).tolist() == [16, 16, 16, 16]
    # More boxes than points: each point is there all the same.
    lower, upper = (end.repeat(1, 99, 1) for end in (box.lower, box.upper))
    many = Boxes(box.centre, lower, upper, box.present)
    placed = many.place(sequence, torch.zeros_like(sequence))[0]
    assert len({tuple(point) for point in placed.tolist()}) == 256


def test_a_placed_point_lies_in_the_boxes_around_the_one_that_it_is_placed_in() -> None:
    """Of three lengths around each of two points, far from each other."""
    points, lengths, placed = torch.tensor([0.25, 0.75]), torch.tensor([0.4, 0.2, 0.1]), 13
    centre = points.to(DTYPE)[None, :, None].expand(1, -1, 45)
    half = lengths.to(DTYPE).repeat_interleave(2)[None, :, None] / 2
    around = centre.repeat(1, 3, 1)
    boxes = Boxes(centre, around - half, around + half, torch.ones(1, 2, dtype=torch.bool))
    numbers = torch.arange(7)[None]
    lower, upper = (end[:, :, None] for end in boxes.of(numbers))
    own = [end[:, None] for end in boxes.of(torch.arange(placed)[None])]
    nested = ((lower <= own[0]) & (own[1] <= upper)).all(-1)
    assert torch.equal(boxes.holds(numbers, placed), nested)
    cubic = random_uniform(5, 1, placed, 45)
    x = boxes.place(cubic, torch.zeros_like(cubic))[:, None]
    assert ((lower <= x) & (x <= upper)).all(-1)[nested].all()
    unmoved = boxes.place(cubic, torch.ones_like(cubic))
    assert unmoved[0, :, 0].tolist() == ([0.25, 0.75] * 7)[:placed]


def test_the_sides_go_with_the_geometric_mean_of_the_drawn_lengthscales() -> None:
    data = history([7.0])
    one = torch.ones(1, 3, dtype=DTYPE)
    scales = torch.tensor([[[0.1, 0.2], [0.4, 0.2], [0.2, 0.2]]], dtype=DTYPE)
    surrogate = Surrogate.condition(data.x, data.y, data.mask, scales, one, 0.1 * one, 0 * one)
    box = TrustRegion(length=0.2).boxes(data, surrogate, CUBE)
    assert (box.upper - box.lower)[0, 0].tolist() == pytest.approx([0.2, 0.2])


def test_choices_do_not_change_the_length_of_a_box() -> None:
    """Its length is the geometric mean of the sides that there are."""
    space = Space(Real("a", 0, 1), Real("b", 0, 1), Categorical("c", list("vwxyz")))
    x = random_uniform(3, 1, 7, space.dim)
    scales = torch.tensor([0.1, 0.4, *[2.0] * 5], dtype=DTYPE).expand(1, 1, -1)
    data = Observations.of(x, x.sum(-1))
    boxes = NestedBoxes(lengths=(0.1,)).boxes(data, model(data, scales), space)
    sides = (0.1 * torch.tensor([0.5, 2.0], dtype=DTYPE)).tolist()
    width = (boxes.upper - boxes.lower)[0, 0]
    centre = boxes.centre[0, 0, :2]
    free = ((centre > width[:2] / 2 + 1e-9) & (centre < 1 - width[:2] / 2 - 1e-9)).tolist()
    assert any(free)
    for side, expected, inside in zip(width[:2].tolist(), sides, free, strict=True):
        assert not inside or side == pytest.approx(expected)
    assert width[2:].tolist() == [1.0] * 5

"""Observations: standardised exactly, padded with nothing, whatever the values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpbo.backend import DTYPE
from gpbo.data import Observations, capacity, with_room
from gpbo.errors import InvalidData
from gpbo.rows import selected
from tests.monte_carlo import ragged, random_normal, random_uniform
from tests.penalties import without_penalties

FINITE = st.floats(-1e150, 1e150, allow_nan=False, allow_subnormal=True)


def one_run(values: list[float]) -> Observations:
    n = len(values)
    return Observations.of(random_uniform(120, 1, n, 3), torch.tensor([values], dtype=DTYPE))


def test_values_get_mean_zero_and_deviation_one() -> None:
    data = one_run([1.0, 2.0, 6.0])
    assert data.units.back(torch.zeros(1, dtype=DTYPE)).item() == pytest.approx(3.0, rel=1e-15)
    assert data.units.scale.item() == pytest.approx(math.sqrt(14 / 3), rel=1e-15)
    expected = torch.tensor([[-2.0, -1.0, 3.0]], dtype=DTYPE) / math.sqrt(14 / 3)
    torch.testing.assert_close(data.y, expected, rtol=1e-14, atol=0)


def test_standardised_values_map_back_to_the_values() -> None:
    values = random_normal(119, 3, 7) * 40 + 1000
    data = Observations.of(random_uniform(116, 3, 7, 2), values)
    torch.testing.assert_close(data.units.back(data.y), values, rtol=1e-14, atol=0)
    broadcast = data.units.back(data.y.unsqueeze(1).expand(3, 5, 7))
    torch.testing.assert_close(broadcast[:, 4], values, rtol=1e-14, atol=0)


@pytest.mark.parametrize("value", [0.0, -3.7, 1e300, 1e-310])
@pytest.mark.parametrize("count", [1, 5])
def test_a_constant_has_scale_one_and_residual_zero(value: float, count: int) -> None:
    data = one_run([value] * count)
    assert data.units.scale.item() == 1.0
    assert data.y.abs().max().item() == 0.0
    assert data.units.back(data.y)[0, 0].item() == pytest.approx(value, rel=1e-15, abs=1e-323)


@pytest.mark.parametrize(
    "values",
    [
        [1e300, -1e300, 5e299],
        [1.7e308, 1.6e308, -1.7e308],
        [0.0, 1e12, 1.0],
        [0.3, 0.1, 1e6, 0.2],
        [1.0, 1.0, 1.0 + 2**-52],
        [5e-324, 0.0, 0.0],
        [1e-310, 3e-310, 2e-310],
    ],
)
def test_extreme_values_stay_finite_ordered_and_standardised(values: list[float]) -> None:
    data = one_run(values)
    y = data.y[0]
    assert torch.isfinite(y).all()
    assert torch.isfinite(data.units.back(y[None])).all()
    assert torch.isfinite(data.units.scale).all()
    assert data.units.scale.item() > 0
    assert y.mean().item() == pytest.approx(0, abs=1e-14)
    assert y.square().mean().item() == pytest.approx(1, rel=1e-12)
    assert (
        torch.argsort(y, stable=True).tolist()
        == torch.argsort(torch.tensor(values, dtype=DTYPE), stable=True).tolist()
    )


@given(st.lists(FINITE, min_size=1, max_size=11))
@settings(max_examples=200, deadline=None)
def test_any_values_are_bounded_by_the_root_of_their_number_and_map_back(
    values: list[float],
) -> None:
    data = one_run(values)
    assert data.y.abs().max().item() <= math.sqrt(len(values)) * (1 + 1e-12)
    back = data.units.back(data.y)[0]
    seen = torch.tensor(without_penalties(values), dtype=DTYPE)
    largest = seen.abs().max().item()
    assert (back - seen).abs().max().item() <= 1e-13 * largest + 1e-306


@given(st.lists(st.lists(FINITE, max_size=5), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_run_in_a_ragged_batch_equals_the_run_alone(runs: list[list[float]]) -> None:
    x = [random_uniform(113, len(values), 3) for values in runs]
    y = [torch.tensor(values, dtype=DTYPE) for values in runs]
    together = ragged(x, y)
    for row, count in enumerate(map(len, runs)):
        alone = ragged(x[row : row + 1], y[row : row + 1])
        assert together.counts[row].item() == count
        torch.testing.assert_close(together.y[row, :count], alone.y[0], rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(together.x[row, :count], x[row], rtol=0, atol=0)
        torch.testing.assert_close(together.values[row, :count], alone.values[0], rtol=0, atol=0)


def test_padding_holds_the_centre_and_zero_whatever_was_there() -> None:
    x = torch.full((2, 3, 5), torch.nan, dtype=DTYPE)
    x[0], x[1, 0] = 0.25, 0.75
    values = torch.tensor([[1.0, 2.0, 4.0], [7.0, torch.inf, torch.nan]], dtype=DTYPE)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    data = Observations.of(x, values, mask)
    assert data.y[1].tolist() == [0.0, 0.0, 0.0]
    assert (data.x[1, 1:] == 0.5).all()
    assert data.values[1].tolist() == [7.0, 0.0, 0.0]
    assert data.units.back(data.y)[1].tolist() == [7.0, 7.0, 7.0]


def test_runs_without_results_are_allowed_and_neutral() -> None:
    data = Observations.of(random_uniform(109, 1, 0, 2), torch.zeros(1, 0, dtype=DTYPE))
    assert data.y.shape == (1, 0)
    one = torch.ones(1, dtype=DTYPE)
    assert (data.units(one).item(), data.units.back(one).item()) == (1.0, 1.0)
    assert (data.runs, data.dim) == (1, 2)
    mixed = ragged(
        [random_uniform(105, 0, 2), random_uniform(99, 3, 2)], [torch.zeros(0), torch.ones(3)]
    )
    assert mixed.units.back(torch.ones(2, dtype=DTYPE)).tolist() == [1.0, 2.0]


def test_pending_points_are_padded_and_masked_and_can_be_added_to() -> None:
    x = [random_uniform(89, 2, 3), random_uniform(81, 1, 3)]
    values = [torch.ones(2, dtype=DTYPE), torch.ones(1, dtype=DTYPE)]
    pending = [random_uniform(72, 0, 3), random_uniform(62, 2, 3)]
    data = ragged(x, values, pending)
    assert data.pending_mask.tolist() == [[False, False], [True, True]]
    torch.testing.assert_close(data.pending[1], pending[1])
    point = random_uniform(43, 2, 1, 3)
    more = data.with_pending(point)
    assert more.pending_mask.tolist() == [[False, False, True], [True, True, True]]
    torch.testing.assert_close(more.pending[:, 2:], point)
    assert data.pending.shape == (2, 2, 3)


def test_rows_of_a_run_are_its_values_and_then_each_quantity_that_is_limited() -> None:
    x, values = random_uniform(94, 3, 4, 2), random_normal(95, 3, 4)
    excess = random_normal(96, 3, 4, 2)
    data = with_room(x, values, excess=excess)
    assert (data.runs, data.outputs) == (9, 3)
    assert torch.equal(data.of_values.values, values)
    assert torch.equal(data.of_values.x, x)
    assert data.of_values.outputs == 1
    assert not data.of_values.straight.any()
    later = selected(data, data.rows_of(torch.tensor([2, 1])))
    expected = torch.cat([values[..., None], excess], -1).mT
    assert torch.equal(later.values, expected[[2, 1]].flatten(0, 1))
    assert later.straight.tolist() == [False, True, True] * 2
    assert torch.equal(later.of_values.values, values[[2, 1]])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_unmasked_number_that_is_not_finite_is_refused_by_place(bad: float) -> None:
    with pytest.raises(InvalidData, match=rf"values\[0, 1\] is {bad}"):
        one_run([1.0, bad])
    x = random_uniform(31, 1, 2, 3)
    x[0, 1, 2] = bad
    with pytest.raises(InvalidData, match=rf"x\[0, 1, 2\] is {bad}"):
        Observations.of(x, torch.ones(1, 2, dtype=DTYPE))


def test_a_cpu_holds_what_there_is_and_a_gpu_holds_steps() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 1)
    assert [capacity(count, cpu) for count in (0, 1, 7, 129)] == [0, 1, 7, 129]
    steps = [capacity(count, gpu) for count in range(1, 1001)]
    assert sorted({*steps[:200]}) == [16, 32, 48, 64, 96, 128, 192, 256]
    assert capacity(0, gpu) == 0
    for count, step in enumerate(steps, 1):
        assert count <= step < max(count + 16, 1.5 * count)
        assert capacity(step, gpu) == step


def test_results_have_room_and_pending_points_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpbo.data.capacity", lambda count, device: count + 3)
    x, waiting = random_uniform(26, 5, 2), random_uniform(12, 2, 2)
    data = with_room(x[None], x.sum(-1)[None], pending=waiting[None])
    assert data.mask.tolist() == [[True] * 5 + [False] * 3]
    assert data.y[0, 5:].tolist() == [0.0] * 3
    assert data.x[0, 5:].tolist() == [[0.5] * 2] * 3
    assert data.pending_mask.tolist() == [[True, True]]

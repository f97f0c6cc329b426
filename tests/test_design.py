"""Designs: inside the cube, even, and a row is the same run alone."""

import pytest
import torch
from scipy.stats import qmc

from gpbo.backend import DTYPE, Streams
from gpbo.design import sobol
from gpbo.errors import InvalidOption


def streams(runs: int, seed: int = 5) -> Streams:
    return Streams.named(seed, "design", runs=runs)


def test_points_lie_in_the_cube_and_differ_between_runs() -> None:
    points = sobol(11, 7, streams(3))
    assert points.shape == (3, 11, 7)
    assert points.dtype == DTYPE
    assert bool(((points >= 0) & (points <= 1)).all())
    assert bool((points[0] != points[1]).all())


def test_a_row_is_the_same_run_alone() -> None:
    assert torch.equal(sobol(13, 5, streams(3))[:1], sobol(13, 5, streams(1)))


def test_the_same_name_gives_the_same_design_and_another_seed_another() -> None:
    assert torch.equal(sobol(5, 3, streams(2)), sobol(5, 3, streams(2)))
    assert not torch.equal(sobol(5, 3, streams(2)), sobol(5, 3, streams(2, seed=6)))


@pytest.mark.parametrize("skip", [0, 1, 2, 19])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_skipping_goes_on_where_the_skipped_points_stopped(skip: int, count: int) -> None:
    whole = sobol(skip + count, 3, streams(2))
    rest = sobol(count, 3, streams(2), skip=skip)
    torch.testing.assert_close(rest, whole[:, skip:], atol=1e-7, rtol=0)


def test_sobol_puts_one_point_in_every_interval_of_every_column() -> None:
    points = sobol(64, 7, streams(3))
    cells = (points * 64).floor().long().sort(dim=1).values
    assert torch.equal(cells, torch.arange(64).view(1, -1, 1).expand(3, -1, 7))


def test_sobol_fills_the_cube_more_evenly_than_uniform_points() -> None:
    even, loose = sobol(128, 3, streams(5)), streams(5).uniform(128, 3)
    for row in range(5):
        assert qmc.discrepancy(even[row].numpy()) < 0.3 * qmc.discrepancy(loose[row].numpy())


def test_sobol_avoids_the_centre_and_the_corner_of_the_cube() -> None:
    points = sobol(256, 2, streams(17))
    for special in (0.0, 0.5):
        assert not bool((points == special).any())


def test_sobol_reaches_the_largest_dimension_and_no_further() -> None:
    assert sobol(2, 21201, streams(1)).shape == (1, 2, 21201)
    with pytest.raises(InvalidOption, match="dim=21202: expected 1 to 21201"):
        sobol(2, 21202, streams(1))


def test_no_points_are_a_design_too() -> None:
    assert sobol(0, 3, streams(2)).shape == (2, 0, 3)


@pytest.mark.parametrize(("count", "dim", "named"), [(-1, 3, "count=-1"), (2, 0, "dim=0")])
def test_impossible_designs_are_refused(count: int, dim: int, named: str) -> None:
    with pytest.raises(InvalidOption, match=named):
        sobol(count, dim, streams(1))


def test_a_negative_skip_is_refused() -> None:
    with pytest.raises(InvalidOption, match="skip=-1"):
        sobol(1, 1, streams(1), skip=-1)


@pytest.mark.gpu
def test_points_lie_on_the_device_of_the_streams() -> None:
    on_gpu = Streams.named(5, "design", runs=2, device="cuda")
    assert sobol(3, 2, on_gpu).device.type == "cuda"

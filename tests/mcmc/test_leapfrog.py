"""The leapfrog step: reversible, of second order, keeps volume, and every chain for itself."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.mcmc.leapfrog import leapfrog
from tests.monte_carlo import elliptical, quartic, random_normal, random_uniform

RUNS, CHAINS, DIM = 2, 3, 5
ROWS = RUNS * CHAINS


def _scale() -> Tensor:
    return 0.3 * random_normal(0, RUNS, DIM, DIM) + 0.7 * torch.eye(DIM, dtype=DTYPE)


def _whitened(gradient: Tensor, scale: Tensor) -> Tensor:
    return (gradient.reshape(len(scale), -1, gradient.shape[-1]) @ scale).reshape(gradient.shape)


def _many(
    position: Tensor, momentum: Tensor, step: Tensor, scale: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    gradient = _whitened(quartic(position)[1], scale)
    value = quartic(position)[0]
    for _ in range(count):
        position, momentum, value, gradient = leapfrog(
            quartic, position, momentum, gradient, step, scale
        )
    return position, momentum, value - 0.5 * momentum.square().sum(-1)


def test_the_densities_of_these_tests_have_the_gradients_that_they_state() -> None:
    location, spread = random_normal(1, RUNS, DIM), torch.eye(DIM, dtype=DTYPE) + 0.3
    for density in (
        quartic,
        elliptical(location, spread.expand(RUNS, -1, -1)),
        elliptical(location, spread.expand(RUNS, -1, -1), dof=5.0),
    ):
        u = random_normal(2, ROWS, DIM).requires_grad_()
        value, gradient = density(u)
        torch.testing.assert_close(
            gradient, torch.autograd.grad(value.sum(), u)[0], rtol=1e-12, atol=1e-12
        )


def test_a_step_of_a_standard_normal_is_the_one_worked_out_by_hand() -> None:
    """Half a kick -q/2 * 0.5, a drift of 0.5, half a kick."""
    normal = elliptical(torch.zeros(1, 1, dtype=DTYPE), torch.ones(1, 1, 1, dtype=DTYPE))
    position = torch.tensor([[2.0]], dtype=DTYPE)
    momentum = torch.tensor([[1.0]], dtype=DTYPE)
    step = torch.tensor([0.5], dtype=DTYPE)
    identity = torch.ones(1, 1, 1, dtype=DTYPE)
    moved = leapfrog(normal, position, momentum, -position, step, identity)
    # 1 - 0.25 * 2 = 0.5; 2 + 0.5 * 0.5 = 2.25; 0.5 - 0.25 * 2.25 = -0.0625
    expected = (2.25, -0.0625, -0.5 * 2.25**2, -2.25)
    assert [float(part) for part in moved] == pytest.approx(expected, rel=1e-15)


def test_steps_of_the_opposite_sign_go_back() -> None:
    position, momentum = random_normal(3, ROWS, DIM), random_normal(4, ROWS, DIM)
    step = 0.05 + 0.1 * random_uniform(5, ROWS)
    there, faster, _ = _many(position, momentum, step, _scale(), 50)
    back, slower, _ = _many(there, faster, -step, _scale(), 50)
    assert (there - position).norm(dim=-1).min() > 0.1
    torch.testing.assert_close(back, position, rtol=0, atol=1e-10)
    torch.testing.assert_close(slower, momentum, rtol=0, atol=1e-10)


def test_the_energy_error_over_a_fixed_time_is_of_second_order() -> None:
    position, momentum = random_normal(6, ROWS, DIM), random_normal(7, ROWS, DIM)
    energy = quartic(position)[0] - 0.5 * momentum.square().sum(-1)
    counts, errors = (64, 128, 256, 512), []
    for count in counts:
        step = torch.full((ROWS,), 1.0 / count, dtype=DTYPE)
        _, _, after = _many(position, momentum, step, _scale(), count)
        errors.append(float((after - energy).square().mean().sqrt()))
    slopes = [math.log(coarse / fine, 2) for coarse, fine in pairwise(errors)]
    assert slopes == pytest.approx([2.0] * 3, abs=0.1)


def test_a_trajectory_keeps_the_volume_of_phase_space() -> None:
    """The Jacobian of (position, momentum) has determinant 1 (in both whitened coordinates)."""
    scale = _scale()[:1]
    step = torch.tensor([0.2], dtype=DTYPE)

    def flow(phase: Tensor) -> Tensor:
        position, momentum, _ = _many(phase[None, :DIM], phase[None, DIM:], step, scale, 7)
        return torch.cat([position[0], momentum[0]])

    phase = torch.cat([random_normal(8, DIM), random_normal(9, DIM)])
    jacobian = torch.autograd.functional.jacobian(flow, phase)
    assert isinstance(jacobian, Tensor)
    assert (jacobian - torch.eye(2 * DIM, dtype=DTYPE)).abs().max() > 0.5
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-11)


def test_a_mass_matrix_is_the_same_as_sampling_a_stretched_density() -> None:
    """In ``w`` with ``u = A w`` the inverse mass matrix ``A A'`` is the identity."""
    scale, identity = _scale(), torch.eye(DIM, dtype=DTYPE).expand(RUNS, -1, -1)

    def stretched(w: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = quartic(_times(scale, w))
        return value, _whitened(gradient, scale)

    w, momentum = random_normal(10, ROWS, DIM), random_normal(11, ROWS, DIM)
    step = 0.05 + 0.1 * random_uniform(12, ROWS)
    plain = leapfrog(stretched, w, momentum, stretched(w)[1], step, identity)
    start = _times(scale, w)
    scaled = leapfrog(quartic, start, momentum, _whitened(quartic(start)[1], scale), step, scale)
    torch.testing.assert_close(scaled[0], _times(scale, plain[0]), rtol=1e-13, atol=1e-13)
    for ours, expected in zip(scaled[1:], plain[1:], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-13)


def _times(scale: Tensor, w: Tensor) -> Tensor:
    return (w.reshape(len(scale), -1, w.shape[-1]) @ scale.mT).reshape(w.shape)


def test_a_chain_without_a_gradient_harms_no_other() -> None:
    position, momentum = random_normal(13, ROWS, DIM), random_normal(14, ROWS, DIM)
    step, scale = torch.full((ROWS,), 0.1, dtype=DTYPE), _scale()
    gradient = _whitened(quartic(position)[1], scale)
    clean = leapfrog(quartic, position, momentum, gradient, step, scale)
    gradient[1] = torch.nan
    broken = leapfrog(quartic, position, momentum, gradient, step, scale)
    others = torch.arange(ROWS) != 1
    for ours, expected in zip(broken, clean, strict=True):
        assert torch.equal(ours[others], expected[others])
    assert broken[0][1].isnan().all()

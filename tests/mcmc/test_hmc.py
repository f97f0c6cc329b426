"""Trajectories of a given length: what one transition does."""

import math

import torch
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.mcmc.hmc import LENGTHS, transition
from gpbo.mcmc.leapfrog import LogDensity, leapfrog
from gpbo.mcmc.nuts import Point
from tests.monte_carlo import elliptical, random_normal

RUNS, CHAINS, DIM = 2, 5, 3


def _density() -> LogDensity:
    scale = torch.eye(DIM, dtype=DTYPE).expand(RUNS, -1, -1) * torch.tensor([0.5, 1.0, 2.0])
    return elliptical(random_normal(0, RUNS, DIM), scale.to(DTYPE))


def _scale() -> Tensor:
    return torch.linalg.cholesky(
        torch.eye(DIM, dtype=DTYPE) + 0.3 * torch.ones(RUNS, DIM, DIM, dtype=DTYPE)
    )


def _point(density: LogDensity, scale: Tensor) -> Point:
    position = random_normal(1, RUNS * CHAINS, DIM)
    value, gradient = density(position)
    whitened = (gradient.reshape(RUNS, CHAINS, DIM) @ scale).reshape(position.shape)
    return Point(position, whitened, value)


def _moved(uniform: float, step_size: float = 0.3, length: int = 4) -> tuple[Point, Point, Tensor]:
    density, scale = _density(), _scale()
    before = _point(density, scale)
    step = torch.full((RUNS,), step_size, dtype=DTYPE)
    momentum = random_normal(2, RUNS * CHAINS, DIM)
    log_uniform = torch.full_like(before.value, math.log(uniform))
    after, record = transition(before, density, step, scale, momentum, log_uniform, length)
    return before, after, record


def test_an_accepted_transition_is_so_many_leapfrog_steps() -> None:
    density, scale = _density(), _scale()
    before, after, record = _moved(1e-12)
    position, momentum, gradient = before.position, random_normal(2, RUNS * CHAINS, DIM), None
    gradient = before.gradient
    step = torch.full((RUNS * CHAINS,), 0.3, dtype=DTYPE)
    start = before.value - 0.5 * momentum.square().sum(-1)
    for _ in range(4):
        position, momentum, value, gradient = leapfrog(
            density, position, momentum, gradient, step, scale
        )
    torch.testing.assert_close(after.position, position)
    torch.testing.assert_close(after.gradient, gradient)
    torch.testing.assert_close(after.value, value)
    change = value - 0.5 * momentum.square().sum(-1) - start
    torch.testing.assert_close(record[:, -4], change.exp().clamp_max(1.0))
    expected = torch.cat([position, gradient, value[:, None]], dim=1)
    torch.testing.assert_close(record[:, :-4], expected)
    assert (record[:, -3] == 4).all()
    assert (record[:, -2:] == 0).all()


def test_a_rejected_transition_stays_where_it_was() -> None:
    before, after, record = _moved(1.0 - 1e-15, step_size=1.4)
    stayed = record[:, -4] < 0.5
    assert stayed.any()
    assert torch.equal(after.position[stayed], before.position[stayed])
    assert torch.equal(after.gradient[stayed], before.gradient[stayed])
    assert torch.equal(after.value[stayed], before.value[stayed])


def test_a_trajectory_into_a_region_without_density_is_rejected_and_told() -> None:
    def walled(u: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = _density()(u)
        out = u[:, 0] > 0
        return value.masked_fill(out, -torch.inf), gradient.masked_fill(out[:, None], 0.0)

    scale = _scale()
    before = _point(walled, scale)
    step = torch.full((RUNS,), 0.3, dtype=DTYPE)
    momentum = random_normal(2, RUNS * CHAINS, DIM)
    log_uniform = torch.full_like(before.value, math.log(1e-12))
    after, record = transition(before, walled, step, scale, momentum, log_uniform, 4)
    inside = torch.isfinite(before.value)
    assert torch.isfinite(after.value[inside]).all()
    crossed = record[:, -2] == 1
    assert (crossed & inside).any()
    assert torch.equal(after.position[crossed & inside], before.position[crossed & inside])
    assert (record[crossed, -4] == 0).all()


def test_the_lengths_differ_so_that_none_is_in_step_with_an_orbit() -> None:
    assert len(set(LENGTHS)) == len(LENGTHS) > 1

"""Laws of the integrator."""

import math

import torch

from gpbo.backend import DTYPE, Streams
from gpbo.mcmc.leapfrog import leapfrog

RUNS, CHAINS, DIM = 2, 3, 5


def quartic(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return -(0.25 * u**4 + 0.5 * u**2).sum(-1), -(u**3 + u)


def start() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    streams = Streams([0, 1])
    position = streams.normal(CHAINS, DIM).flatten(0, 1)
    momentum = streams.normal(CHAINS, DIM).flatten(0, 1)
    scale = 0.3 * streams.normal(DIM, DIM) + torch.eye(DIM, dtype=DTYPE)
    slope = quartic(position)[1].reshape(RUNS, CHAINS, DIM)
    return position, momentum, (slope @ scale).flatten(0, 1), scale


def test_going_back_undoes_going_forth() -> None:
    position, momentum, gradient, scale = start()
    step = torch.full((RUNS * CHAINS,), 0.1, dtype=DTYPE)
    here = (position, momentum, gradient)
    for sign in (1.0, -1.0):
        for _ in range(13):
            new_position, new_momentum, _, new_gradient = leapfrog(
                quartic, *here, sign * step, scale
            )
            here = (new_position, new_momentum, new_gradient)
    for back, origin in zip(here, (position, momentum, gradient), strict=True):
        torch.testing.assert_close(back, origin, rtol=0, atol=1e-10)


def test_the_energy_error_is_of_second_order() -> None:
    position, momentum, gradient, scale = start()
    before = quartic(position)[0] - 0.5 * momentum.square().sum(-1)
    errors = []
    for count in (40, 80):
        step = torch.full((RUNS * CHAINS,), 0.4 / count, dtype=DTYPE)
        q, p, g = position, momentum, gradient
        for _ in range(count):
            q, p, value, g = leapfrog(quartic, q, p, g, step, scale)
        errors.append((value - 0.5 * p.square().sum(-1) - before).abs().mean())
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.1


def test_the_map_preserves_volume() -> None:
    position, momentum, _, scale = start()
    step = torch.full((1,), 0.2, dtype=DTYPE)

    def flow(state: torch.Tensor) -> torch.Tensor:
        q, p = state[None, :DIM], state[None, DIM:]
        slope = quartic(q)[1] @ scale[0]
        q, p, _, _ = leapfrog(quartic, q, p, slope, step, scale[:1])
        return torch.cat([q[0], p[0]])

    jacobian = torch.func.jacrev(flow)(torch.cat([position[0], momentum[0]]))
    assert abs(float(torch.linalg.det(jacobian)) - 1) < 1e-10

"""Inputs of the measurements of speed, in any dimension: a cube, and results in it."""

from dataclasses import replace

import torch

from gpbo import Real, Space, problems
from gpbo.backend import Streams
from gpbo.data import Observations
from gpbo.design import sobol
from gpbo.fitting import Fit, WarmState


def cube(dim: int) -> Space:
    """Reals between 0 and 1."""
    return Space([Real(f"x{i}", 0.0, 1.0) for i in range(dim)])


def observed(
    n: int, dim: int, streams: Streams, device: str | torch.device = "cpu"
) -> Observations:
    """Sobol points and their values: of Hartmann-6, or of Levy in other dimensions."""
    x = sobol(n, dim, streams)
    return Observations.of(x.to(device), problem_of(dim)(x).to(device))


def problem_of(dim: int) -> problems.Problem:
    """Hartmann-6, or Levy in other dimensions than six."""
    return problems.get("hartmann6" if dim == 6 else "levy", dim)


def moving(fit: Fit) -> WarmState:
    """What the next fit starts from, with chains due to move; with many results most would rest."""
    assert fit.warm is not None, "a fit by chains"
    return replace(fit.warm, moved=torch.zeros_like(fit.warm.moved))

"""What seconds are measured on, in any dimension: the cube that is searched, and results in it."""

import torch

from gpbo import Real, Space, problems
from gpbo.backend import Streams
from gpbo.data import Observations
from gpbo.design import sobol


def cube(dim: int) -> Space:
    """Reals between 0 and 1."""
    return Space([Real(f"x{i}", 0.0, 1.0) for i in range(dim)])


def observed(
    n: int, dim: int, streams: Streams, device: str | torch.device = "cpu"
) -> Observations:
    """Sobol points and their values: of Hartmann-6, or of Levy in other dimensions."""
    x = sobol(n, dim, streams)
    values = problems.get("hartmann6" if dim == 6 else "levy", dim)(x)
    return Observations.of(x.to(device), values.to(device))

"""Which observed points lie in basins of their own: a hill of the posterior mean is between them.

The test of Ursem (1999), "Multinational evolutionary algorithms", CEC, with the posterior mean in
place of the function: two points share a basin if nothing on the straight line between them is
higher than the higher of the two. Hills are those of one hyperparameter draw, the first that
succeeded: there are as many lines as results.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.kernels import matern, squared_distances
from gpbo.memory import in_parts
from gpbo.surrogate import Surrogate

#: Where on a line the mean is looked at.
_SHARES = tuple(step / 7 for step in range(1, 7))
#: What is no more than this, in standard deviations of the values, is no hill.
_LEAST_HILL = 0.01


def other_basins(
    surrogate: Surrogate,
    centre: Float[Tensor, "r d"],
    height: Float[Tensor, "r n"],
    count: int,
) -> tuple[Float[Tensor, "r m d"], Bool[Tensor, "r m"]]:
    """The lowest of the first ``n`` points in up to ``count`` other basins, the lowest first.

    Args:
        surrogate: The model; pending points may follow the observed ones.
        centre: Whose basin does not count.
        height: How low the points are, infinite for those that do not count.
        count: How many basins, 1 or more.

    Returns:
        The points, and which of them there are; in place of the others the centre.
    """
    x, rows = surrogate.x[:, : height.shape[1]], torch.arange(len(height), device=height.device)
    mean = _Mean.of(surrogate)
    own, free, last = mean(x), height.isfinite(), centre
    found, present = [], []
    for _ in range(count):
        top = torch.maximum(own, mean(last[:, None])) + _LEAST_HILL
        hills = [mean(torch.lerp(x, last[:, None], share)) > top for share in _SHARES]
        free = free & torch.stack(hills).any(0)
        there = free.any(1)
        lowest = x[rows, torch.where(free, height, torch.inf).argmin(1)]
        last = torch.where(there[:, None], lowest, centre)
        found.append(last)
        present.append(there)
    return torch.stack(found, 1), torch.stack(present, 1)


@dataclass(frozen=True)
class _Mean:
    """The posterior mean of one draw of each run, at some points."""

    z: Float[Tensor, "r n d"]
    lengthscale: Float[Tensor, "r 1 d"]
    weights: Float[Tensor, "r n"]
    mean: Float[Tensor, "r 1"]
    nu: float

    @classmethod
    def of(cls, surrogate: Surrogate) -> "_Mean":
        draw = surrogate.succeeded.long().argmax(1)
        rows = torch.arange(len(draw), device=draw.device)
        lengthscale = surrogate.lengthscale[rows, draw][:, None]
        # The weights of what is not there are 0.
        weights = surrogate.outputscale[rows, draw][:, None] * surrogate.weights[rows, draw]
        z = (surrogate.x - 0.5) / lengthscale
        return cls(z, lengthscale, weights, surrogate.mean[rows, draw][:, None], surrogate.nu)

    def __call__(self, x: Float[Tensor, "r q d"]) -> Float[Tensor, "r q"]:
        def part(rows: slice, columns: slice) -> tuple[Tensor, ...]:
            z = (x[rows, columns] - 0.5) / self.lengthscale[rows]
            correlation = matern(squared_distances(z, self.z[rows]), self.nu)
            mean = self.mean[rows] + (correlation @ self.weights[rows, :, None])[..., 0]
            return (mean[:, None],)

        size = max(self.z.shape[1:]) * x.element_size()
        return in_parts(part, len(x), x.shape[1], size, x.device)[0][:, 0]

"""Which observed points lie in different basins: between them there is a hill of the posterior
mean, or points that do not count.

The test of Ursem (1999), "Multinational evolutionary algorithms", CEC, with the posterior mean in
place of the function: two points share a basin if nothing on the straight line between them is
higher than the higher of the two. As there are as many lines as results, hills are those of a
single hyperparameter draw, the first that succeeded.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.surrogate import Surrogate

#: Where on a line the mean is evaluated.
_SHARES = tuple(step / 7 for step in range(1, 7))
#: A hill is higher than this, in standard deviations of the values.
_LEAST_HILL = 0.01


def other_basins(
    surrogate: Surrogate,
    x: Float[Tensor, "r n d"],
    centre: Float[Tensor, "r d"],
    height: Float[Tensor, "r n"],
    count: int,
    log_chance: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Float[Tensor, "r m d"], Bool[Tensor, "r m"]]:
    """The lowest of the points in up to ``count`` other basins, the lowest first.

    Args:
        surrogate: The model.
        x: The points, such as those of the results.
        centre: The point whose basin does not count.
        height: How low the points are, infinite for those that do not count.
        count: How many basins, 1 or more.
        log_chance: The log probability that points ``[r, b, d]`` give values that may be the best,
            None if certain: where the probability is less than a half there is a hill, too.

    Returns:
        The points, and which of them exist; the others are the centre.
    """
    draw = surrogate.succeeded.long().argmax(1)
    own, free, last = surrogate.mean_of_draw(draw, x), height.isfinite(), centre
    found, present = [], []
    for _ in range(count):
        top = torch.maximum(own, surrogate.mean_of_draw(draw, last[:, None])) + _LEAST_HILL
        lines = [torch.lerp(x, last[:, None], share) for share in _SHARES]
        hills = [surrogate.mean_of_draw(draw, line) > top for line in lines]
        if log_chance is not None:
            hills += [log_chance(line) < -math.log(2) for line in lines]
        free = free & torch.stack(hills).any(0)
        there = free.any(1)
        lowest = lowest_point(x, torch.where(free, height, torch.inf))
        last = torch.where(there[:, None], lowest, centre)
        found.append(last)
        present.append(there)
    return torch.stack(found, 1), torch.stack(present, 1)


def lowest_point(x: Float[Tensor, "r n d"], height: Float[Tensor, "r n"]) -> Float[Tensor, "r d"]:
    """Each run's point of least finite height."""
    best = torch.where(height.isfinite(), height, torch.inf).argmin(1)
    return x[torch.arange(len(x), device=x.device), best]

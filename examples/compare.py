"""A method and a problem of one's own, to be compared with gpbo's. In the folder of this file:

gpbo bench compare:valley --method ei-map --method compare:lcb --seeds 5 --no-peers
"""

import torch

import gpbo
from gpbo_benchmarks.methods import Method


def lower_confidence_bound(surrogate):
    """Minus the mean, and twice the standard deviation: the greatest is evaluated next."""

    def value(x):  # [runs, points, dimensions] in the unit cube -> [runs, points]
        mean, variance = surrogate.moments(x)  # [runs, draws, points], less is better
        return (2.0 * variance.sqrt() - mean).mean(1)

    return value


def height(x):
    """The values ``[...]`` of points ``[..., 2]`` in user units."""
    return (x[..., 1] - torch.sin(2.0 * x[..., 0])) ** 2 + 0.1 * x[..., 0] ** 2


strategy = gpbo.CustomAcquisition("lcb", lower_confidence_bound)
lcb = Method("lcb-map", strategy, inference="map")
valley = gpbo.problems.Problem(
    name="valley",
    dim=2,
    bounds=torch.tensor([[-2.0, -2.0], [2.0, 2.0]]),
    optimum=0.0,
    unshifted_minimizers=torch.zeros(1, 2),
    citation="examples/compare.py",
    function=height,
)

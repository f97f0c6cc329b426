"""How much each parameter matters to the model."""

from dataclasses import dataclass

import numpy as np
import torch

from gpbo.optimizer import Optimizer
from gpbo.parameters import Parameter
from gpbo.result import Result, optimizer_of

#: The ends and the middle of the interval of an importance.
_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Importance:
    """One parameter's share of the relevance: its range in lengthscales, over the sum for all.

    Attributes:
        name: The parameter.
        low, median, high: The 5 %, 50 % and 95 % quantiles over the hyperparameter draws.
    """

    name: str
    low: float
    median: float
    high: float


def importance_data(source: Result | Optimizer, *, refit: bool = True) -> tuple[Importance, ...]:
    """The parameters' shares of relevance, the largest first; none if no draw is usable.

    The relevance of a parameter is the length of its range in lengthscales; for a categorical one,
    whose choices are corners of the cube, the distance between two choices, as a root mean square.
    For each draw of the hyperparameters it is divided by the sum over the parameters.

    Args:
        refit: As in `Optimizer.fit`.

    Raises:
        InvalidOption: ``source`` is neither a result nor an optimizer.
        InvalidData: no trial has a value yet.
    """
    optimizer = optimizer_of(source)
    surrogate = optimizer.fit(refit=refit).surrogate
    inverse = 1.0 / surrogate.lengthscale[0, surrogate.succeeded[0]]
    if not len(inverse):
        return ()
    space = optimizer.space
    relevance = torch.stack(
        [
            inverse[:, columns].square().mean(-1).sqrt() * _span(parameter)
            for parameter, columns in zip(space.parameters, space.slices, strict=True)
        ],
        dim=-1,
    )
    # If every parameter has a single value, none matters.
    shares = (relevance / relevance.sum(-1, keepdim=True)).nan_to_num(nan=0.0).cpu().numpy()
    quantiles = np.quantile(shares, _QUANTILES, axis=0).T.tolist()
    found = [Importance(name, *row) for name, row in zip(space.names, quantiles, strict=True)]
    return tuple(sorted(found, key=lambda one: -one.median))


def _span(parameter: Parameter) -> float:
    """The distance in the cube between a range's ends, or two choices; 0 for a single value."""
    if parameter.size == 1:
        return 0.0
    if parameter.kind == "categorical":
        return 2**0.5
    values = parameter.grid(2)
    first, last = parameter.to_cube([values[0], values[-1]])
    return float(last - first)

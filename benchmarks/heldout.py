"""Functions on which no default of gpbo was chosen, and none may be.

From the library of Surjanovic and Bingham (2013, www.sfu.ca/~ssurjano), taken before anything was
run on them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.problems import Problem

#: What is added to values before their logarithm is taken: it is finite where they are 0.
_LEAST = 1e-9


def goldstein_price(x: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    """Least where it is 3."""
    a, b = x.unbind(-1)
    one = 19 - 14 * a + 3 * a**2 - 14 * b + 6 * a * b + 3 * b**2
    two = 18 - 32 * a + 12 * a**2 + 48 * b - 36 * a * b + 27 * b**2
    return (1 + (a + b + 1) ** 2 * one) * (30 + (2 * a - 3 * b) ** 2 * two)


def beale(x: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    """A long valley."""
    a, b = x.unbind(-1)
    return sum(
        ((goal - a + a * b**power) ** 2 for power, goal in enumerate((1.5, 2.25, 2.625), start=1)),
        torch.zeros_like(a),
    )


def levy13(x: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    """Ripples on a bowl."""
    a, b = x.unbind(-1)
    first = torch.sin(3 * math.pi * a) ** 2
    second = (a - 1) ** 2 * (1 + torch.sin(3 * math.pi * b) ** 2)
    return first + second + (b - 1) ** 2 * (1 + torch.sin(2 * math.pi * b) ** 2)


def zakharov(x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
    """A plate, which becomes steep."""
    along = (0.5 * torch.arange(1, x.shape[-1] + 1).to(x) * x).sum(-1)
    return x.square().sum(-1) + along**2 + along**4


def schwefel(x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
    """Many minima, the best ones far apart."""
    return 418.98288727243369 * x.shape[-1] - (x * torch.sin(x.abs().sqrt())).sum(-1)


def colville(x: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Two coupled valleys."""
    a, b, c, d = x.unbind(-1)
    valleys = 100 * (a**2 - b) ** 2 + 90 * (c**2 - d) ** 2
    bowls = (a - 1) ** 2 + (c - 1) ** 2 + 10.1 * ((b - 1) ** 2 + (d - 1) ** 2)
    return valleys + bowls + 19.8 * (b - 1) * (d - 1)


def power_sum(x: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Four sums of powers that are to be met."""
    sums = torch.stack([(x**power).sum(-1) for power in (1, 2, 3, 4)], -1)
    return (sums - torch.tensor([8.0, 18.0, 44.0, 114.0]).to(x)).square().sum(-1)


def _problem(
    name: str,
    function: Callable[[Tensor], Tensor],
    box: tuple[float, float],
    minimizer: Sequence[float],
    optimum: float = 0.0,
) -> Problem:
    dim = len(minimizer)
    return Problem(
        name=name,
        dim=dim,
        bounds=torch.tensor(box, dtype=DTYPE)[:, None].repeat(1, dim),
        optimum=optimum,
        unshifted_minimizers=torch.tensor([minimizer], dtype=DTYPE),
        citation="Surjanovic and Bingham 2013",
        function=function,
    )


HELD_OUT = {
    "goldstein_price": _problem("goldstein_price", goldstein_price, (-2.0, 2.0), (0.0, -1.0), 3.0),
    "beale": _problem("beale", beale, (-4.5, 4.5), (3.0, 0.5)),
    "levy13": _problem("levy13", levy13, (-10.0, 10.0), (1.0, 1.0)),
    "zakharov-3": _problem("zakharov", zakharov, (-5.0, 10.0), (0.0,) * 3),
    "schwefel-3": _problem("schwefel", schwefel, (-500.0, 500.0), (420.968746359982,) * 3),
    "colville": _problem("colville", colville, (-10.0, 10.0), (1.0,) * 4),
    "power_sum": _problem("power_sum", power_sum, (0.0, 4.0), (1.0, 2.0, 2.0, 3.0)),
}


def _seen(problem: Problem, suffix: str, values: Callable[[Tensor], Tensor]) -> Problem:
    """The problem with an increasing function of its values in their place."""
    optimum = torch.tensor(problem.optimum, dtype=DTYPE)
    return replace(
        problem,
        name=f"{problem.name}-{suffix}",
        optimum=float(values(optimum)),
        function=lambda x: values(problem.function(x)),
    )


def _less(by: float) -> Callable[[Tensor], Tensor]:
    return lambda values: values - by


def _logarithms(values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    return (values + _LEAST).log10()


#: The same less the median of their values in the box, so that zero is no bound of them, which
#: transforms of positive values take it for: ``gpbo bench gpbo_benchmarks.heldout:LOWERED``.
LOWERED = tuple(
    _seen(HELD_OUT[name], "lowered", _less(median))
    for name, median in {
        "goldstein_price": 6500.0,
        "beale": 380.0,
        "levy13": 92.0,
        "zakharov-3": 4400.0,
        "schwefel-3": 1300.0,
        "colville": 280000.0,
        "power_sum": 9800.0,
    }.items()
)
#: Their logarithms to base 10, as who knows that zero is a bound of the values may minimise them:
#: ``gpbo bench gpbo_benchmarks.heldout:LOGARITHMS``. Where the minimum is 0, a regret of 6 is 1e-3
#: of the value, as zero counts as 1e-9.
LOGARITHMS = tuple(_seen(problem, "log", _logarithms) for problem in HELD_OUT.values())

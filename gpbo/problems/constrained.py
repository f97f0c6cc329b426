"""Benchmark problems with constraints, with the least values that meet them to double precision.

The minima are roots of the Karush-Kuhn-Tucker conditions in 40-digit arithmetic, with the active
constraints found by SLSQP from 25 starts or more.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.problems.family import Family, FromBotorch, fixed, problem_of, synthetic
from gpbo.problems.problem import Problem


@dataclass(frozen=True)
class _ExcessFromBotorch:
    """How far points are beyond one of the constraints of a BoTorch function."""

    module: Any
    place: int

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        slack: Tensor = self.module.to(x.device).evaluate_slack(x, noise=False)
        return -slack[..., self.place]


def _excesses(module: Any) -> tuple[_ExcessFromBotorch, ...]:
    return tuple(_ExcessFromBotorch(module, place) for place in range(module.num_constraints))


def _sine_and_line(x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    return x[..., 0].sin() + x[..., 1]


def _outside_the_spots(x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    return x.sin().prod(-1) + 0.95


def _gardner(dim: int) -> Problem:
    # The sine of x1 is -1 at the optimum, and that of x2 has to be 0.95.
    x1, x2 = 1.5 * math.pi, math.asin(0.95)
    return problem_of(
        "gardner",
        _sine_and_line,
        [(0.0, 6.0), (0.0, 6.0)],
        x2 - 1,
        [[x1, x2]],
        "Gardner et al. (2014), ICML",
        (_outside_the_spots,),
    )


def _gramacy(dim: int) -> Problem:
    module = synthetic.ConstrainedGramacy()
    return problem_of(
        "gramacy",
        FromBotorch(module),
        [(0.0, 1.0), (0.0, 1.0)],
        0.59978805201006756114,
        [[0.19512268347207176293, 0.40466536853799579821]],
        "Gramacy et al. (2016), Technometrics 58",
        _excesses(module),
    )


def _beyond_the_ball(x: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch"]:
    return torch.linalg.vector_norm(x, dim=-1) - 0.8


def _hartmann6_ball(dim: int) -> Problem:
    """BoTorch's ``ConstrainedHartmann``, in a ball of radius 0.8 instead of 1.

    The unconstrained optimum lies at 0.946: a radius of 1 cuts off nothing of interest.
    """
    return problem_of(
        "hartmann6_ball",
        FromBotorch(synthetic.Hartmann(dim=dim)),
        [(0.0, 1.0)] * dim,
        -2.9594427957087018394,
        [
            [
                0.16856155277478183605,
                0.11460503782806210689,
                0.31836294122400690086,
                0.25619322346287491487,
                0.2906222068545008471,
                0.5890683245774666315,
            ]
        ],
        "Letham et al. (2019), Bayesian Analysis 14",
        (_beyond_the_ball,),
    )


def _speed_reducer(dim: int) -> Problem:
    # x2 to x5 are at their lower ends; two stresses and the width decide the others.
    module = synthetic.SpeedReducer()
    return problem_of(
        "speed_reducer",
        FromBotorch(module),
        [(2.6, 3.6), (0.7, 0.8), (17.0, 28.0), (7.3, 8.3), (7.8, 8.3), (2.9, 3.9), (5.0, 5.5)],
        2996.3481649685297167,
        [[3.5, 0.7, 17.0, 7.3, 7.8, 3.3502146660964473117, 5.2866832297579161309]],
        "Golinski (1970), J. Mechanisms 5; Lemonge et al. (2010), Mecanica Computacional 29",
        _excesses(module),
    )


CONSTRAINED: dict[str, Family] = {
    "gardner": fixed(_gardner, 2),
    "gramacy": fixed(_gramacy, 2),
    "hartmann6_ball": fixed(_hartmann6_ball, 6),
    "speed_reducer": fixed(_speed_reducer, 7),
}

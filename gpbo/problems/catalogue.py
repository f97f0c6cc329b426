"""The benchmark problems, with their minima to double precision.

BoTorch has most of the functions; the minima that it states are rounded, so they are computed
here: in closed form, or as roots of the gradient in 40-digit arithmetic. Domains and most
formulas are those of Surjanovic and Bingham, "Virtual Library of Simulation Experiments: Test
Functions and Datasets" (https://www.sfu.ca/~ssurjano). Everything is minimised.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.problems.family import Family, FromBotorch, fixed, problem_of, scalable, synthetic
from gpbo.problems.problem import Problem

_DIXON_SZEGO = "Dixon & Szegö (1978), The global optimisation problem: an introduction"


# --- Fixed dimension -------------------------------------------------------------------------


def _branin(dim: int) -> Problem:
    # The square and the cosine reach their least values, 0 and -1, at the same points.
    return problem_of(
        "branin",
        FromBotorch(synthetic.Branin()),
        [(-5.0, 10.0), (0.0, 15.0)],
        5 / (4 * math.pi),
        [[-math.pi, 12.275], [math.pi, 2.275], [3 * math.pi, 2.475]],
        "Branin (1972), IBM J. Res. Dev. 16; " + _DIXON_SZEGO,
    )


def _six_hump_camel(dim: int) -> Problem:
    x1, x2 = 0.089842013100318062, -0.7126564030207396334
    return problem_of(
        "six_hump_camel",
        FromBotorch(synthetic.SixHumpCamel()),
        [(-3.0, 3.0), (-2.0, 2.0)],
        -1.031628453489877350,
        [[x1, x2], [-x1, -x2]],
        _DIXON_SZEGO,
    )


def _hartmann(dim: int) -> Problem:
    optimum, minimizer = {
        3: (
            -3.862779787332662523,
            [0.11458887665506896836, 0.55564889461693004477, 0.85254698468667743762],
        ),
        6: (
            -3.322368011415514800,
            [
                0.20168951100670542433,
                0.15001069182345796879,
                0.47687397422189699032,
                0.27533243049405606824,
                0.31165161660011324245,
                0.65730053406562030606,
            ],
        ),
    }[dim]
    return problem_of(
        f"hartmann{dim}",
        FromBotorch(synthetic.Hartmann(dim=dim)),
        [(0.0, 1.0)] * dim,
        optimum,
        [minimizer],
        "Hartman (1973), Some experiments in global optimization; " + _DIXON_SZEGO,
    )


def _shekel(dim: int) -> Problem:
    # Ten wells (m = 10).
    return problem_of(
        "shekel",
        FromBotorch(synthetic.Shekel(m=10)),
        [(0.0, 10.0)] * dim,
        -10.53644315348352787,
        [[4.0007468682706343883, 3.9995094800857735584] * 2],
        "Shekel (1971), Test functions for multimodal search techniques; " + _DIXON_SZEGO,
    )


def _park1(dim: int) -> Problem:
    # f grows in every coordinate, so -f is least at the far corner.
    return problem_of(
        "park1",
        negative_park1,
        [(0.0, 1.0)] * dim,
        -((math.sqrt(3) - 1) / 2 + 4 * math.exp(1 + math.sin(1))),
        [[1.0] * dim],
        "Park (1991), Tuning complex computer codes to data and optimal designs, function 1; "
        "Cox, Park & Singer (2001), Comput. Stat. Data Anal. 37",
    )


def _currin_exp(dim: int) -> Problem:
    # The factor in x2 is 1, its largest value, at 0, and in double precision up to x2 = 0.013.
    return problem_of(
        "currin_exp",
        negative_currin_exp,
        [(0.0, 1.0)] * dim,
        -13.79872204472843450,
        [[13 / 60, 0.0]],
        "Currin, Mitchell, Morris & Ylvisaker (1991), J. Am. Stat. Assoc. 86",
    )


def _borehole(dim: int) -> Problem:
    # f is monotone in every coordinate, so -f is least at a corner.
    return problem_of(
        "borehole",
        negative_borehole,
        [
            (0.05, 0.15),
            (100.0, 50_000.0),
            (63_070.0, 115_600.0),
            (990.0, 1110.0),
            (63.1, 116.0),
            (700.0, 820.0),
            (1120.0, 1680.0),
            (9855.0, 12_045.0),
        ],
        -309.5755876604079835,
        [[0.15, 100.0, 115_600.0, 1110.0, 116.0, 700.0, 1120.0, 12_045.0]],
        "Harper & Gupta (1983), ONWI-516; Morris, Mitchell & Ylvisaker (1993), Technometrics 35",
    )


def negative_park1(x: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Minus the first function of Park (1991), on [0, 1]^4.

    The published form, ``x1 / 2 (sqrt(1 + (x2 + x3^2) x4 / x1^2) - 1)`` for the first term,
    divides by zero at x1 = 0; this is the same with x1 under the root.
    """
    x1, x2, x3, x4 = x.unbind(-1)
    root = (x1.square() + (x2 + x3.square()) * x4).sqrt()
    return -((root - x1) / 2 + (x1 + 3 * x4) * (1 + x3.sin()).exp())


def negative_currin_exp(x: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    """Minus the exponential function of Currin et al. (1991), on [0, 1]^2.

    ``1 - exp(-1 / (2 x2))`` tends to 1 as x2 falls to 0, and equals 1 in double precision below
    0.013 already: the lower limit on x2 changes no value, and keeps 0 and its gradient finite.
    """
    x1, x2 = x[..., 0], x[..., 1].clamp(min=1e-3)
    above = 2300 * x1**3 + 1900 * x1**2 + 2092 * x1 + 60
    below = 100 * x1**3 + 500 * x1**2 + 4 * x1 + 20
    return torch.expm1(-1 / (2 * x2)) * above / below


def negative_borehole(x: Float[Tensor, "*batch 8"]) -> Float[Tensor, "*batch"]:
    """Minus the flow of water through a borehole, in m^3 per year (Harper & Gupta 1983).

    The columns: radius of the borehole (m), radius of influence (m), transmissivity (m^2/yr) and
    head (m) of the upper aquifer, transmissivity and head of the lower one, length (m) and
    hydraulic conductivity (m/yr) of the borehole.
    """
    well, influence, upper, upper_head, lower, lower_head, length, conductivity = x.unbind(-1)
    log_ratio = (influence / well).log()
    leak = 2 * length * upper / (log_ratio * well.square() * conductivity)
    flow = 2 * math.pi * upper * (upper_head - lower_head)
    return -flow / (log_ratio * (1 + leak + upper / lower))


# --- Any dimension ---------------------------------------------------------------------------


def _ackley(dim: int) -> Problem:
    return problem_of(
        "ackley",
        FromBotorch(synthetic.Ackley(dim=dim)),
        [(-32.768, 32.768)] * dim,
        0.0,
        [[0.0] * dim],
        "Ackley (1987), A connectionist machine for genetic hillclimbing",
    )


def _levy(dim: int) -> Problem:
    return problem_of(
        "levy",
        FromBotorch(synthetic.Levy(dim=dim)),
        [(-10.0, 10.0)] * dim,
        0.0,
        [[1.0] * dim],
        "Levy & Montalvo (1985), SIAM J. Sci. Stat. Comput. 6",
    )


def _rosenbrock(dim: int) -> Problem:
    return problem_of(
        "rosenbrock",
        FromBotorch(synthetic.Rosenbrock(dim=dim)),
        [(-5.0, 10.0)] * dim,
        0.0,
        [[1.0] * dim],
        "Rosenbrock (1960), Comput. J. 3",
    )


def _rastrigin(dim: int) -> Problem:
    return problem_of(
        "rastrigin",
        FromBotorch(synthetic.Rastrigin(dim=dim)),
        [(-5.12, 5.12)] * dim,
        0.0,
        [[0.0] * dim],
        "Rastrigin (1974), Systems of extremal control",
    )


def _griewank(dim: int) -> Problem:
    return problem_of(
        "griewank",
        FromBotorch(synthetic.Griewank(dim=dim)),
        [(-600.0, 600.0)] * dim,
        0.0,
        [[0.0] * dim],
        "Griewank (1981), J. Optim. Theory Appl. 34",
    )


def _styblinski_tang(dim: int) -> Problem:
    # The same in every coordinate: the least root of 4 x^3 - 32 x + 5.
    return problem_of(
        "styblinski_tang",
        FromBotorch(synthetic.StyblinskiTang(dim=dim)),
        [(-5.0, 5.0)] * dim,
        -39.16616570377141546 * dim,
        [[-2.9035340277711770951] * dim],
        "Styblinski & Tang (1990), Neural Networks 3",
    )


def _powell(dim: int) -> Problem:
    return problem_of(
        "powell",
        FromBotorch(synthetic.Powell(dim=dim)),
        [(-4.0, 5.0)] * dim,
        0.0,
        [[0.0] * dim],
        "Powell (1962), Comput. J. 5",
    )


def _dixon_price(dim: int) -> Problem:
    # x_i = 2 x_(i+1)^2 with x_1 = 1 makes every square zero; the last sign is free.
    positive = [2.0 ** (2.0 ** (1 - i) - 1) for i in range(1, dim + 1)]
    return problem_of(
        "dixon_price",
        FromBotorch(synthetic.DixonPrice(dim=dim)),
        [(-10.0, 10.0)] * dim,
        0.0,
        [positive, [*positive[:-1], -positive[-1]]],
        "Dixon & Price (1989), J. Optim. Theory Appl. 60",
    )


def _michalewicz(dim: int) -> Problem:
    steps = [michalewicz_minimum(i) for i in range(1, dim + 1)]
    return problem_of(
        "michalewicz",
        FromBotorch(synthetic.Michalewicz(dim=dim)),
        [(0.0, math.pi)] * dim,
        math.fsum(value for _, value in steps),
        [[x for x, _ in steps]],
        "Michalewicz (1992), Genetic algorithms + data structures = evolution programs",
    )


def michalewicz_minimum(i: int) -> tuple[float, float]:
    """Where and how low coordinate ``i`` of the Michalewicz function is, which is separable.

    ``sin(x) sin(i x^2 / pi)^20`` on [0, pi] has a peak near each of the ``i`` points where the
    second sine is 1 or -1. Newton's method on the logarithm, which is concave around a peak,
    goes up each of them; the highest counts.
    """
    count = torch.arange(i, dtype=DTYPE)
    x = math.pi * ((count + 0.5) / i).sqrt()
    for _ in range(20):
        angle, rate = i * x.square() / math.pi, 2 * i * x / math.pi
        slope = 1 / x.tan() + 20 * rate / angle.tan()
        curvature = -1 / x.sin().square() - 20 * (rate / angle.sin()).square()
        curvature = curvature + 40 * i / (math.pi * angle.tan())
        x = x - slope / curvature
    value = -x.sin() * (i * x.square() / math.pi).sin() ** 20
    best = int(value.argmin())
    return float(x[best]), float(value[best])


CATALOGUE: dict[str, Family] = {
    "branin": fixed(_branin, 2),
    "six_hump_camel": fixed(_six_hump_camel, 2),
    "hartmann3": fixed(_hartmann, 3),
    "hartmann6": fixed(_hartmann, 6),
    "shekel": fixed(_shekel, 4),
    "park1": fixed(_park1, 4),
    "currin_exp": fixed(_currin_exp, 2),
    "borehole": fixed(_borehole, 8),
    "ackley": scalable(_ackley, 5),
    "levy": scalable(_levy, 4),
    "rosenbrock": scalable(_rosenbrock, 4, smallest=2),
    "rastrigin": scalable(_rastrigin, 4),
    "griewank": scalable(_griewank, 5),
    "michalewicz": scalable(_michalewicz, 5),
    "styblinski_tang": scalable(_styblinski_tang, 4),
    "powell": scalable(_powell, 4, smallest=4, step=4),
    "dixon_price": scalable(_dixon_price, 4, smallest=2),
}

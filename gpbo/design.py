"""Points that fill the unit cube without a model, a design per run."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.quasirandom import SobolEngine

from gpbo.backend import DTYPE, Streams
from gpbo.checks import whole_number
from gpbo.errors import InvalidOption
from gpbo.parallel import threads
from gpbo.space import Space

#: The initial design has two points per parameter, within these limits: fewer than 5 say
#: nothing about a single parameter, and beyond 20 a posterior over the hyperparameters, which
#: does not overfit few points as a point estimate does, chooses better than a space-filling design.
SMALLEST_DESIGN, LARGEST_DESIGN = 5, 20
#: Its multiples, modulo 1, are the most evenly spread of all, at every stride too (Kuipers and
#: Niederreiter 1974, "Uniform distribution of sequences").
GOLDEN = (math.sqrt(5) - 1) / 2
#: The most dimensions that torch has direction numbers for.
LARGEST_SOBOL_DIM = SobolEngine.MAXDIM


def sobol(count: int, dim: int, streams: Streams, skip: int = 0) -> Float[Tensor, "r count d"]:
    """``count`` consecutive points of every run's own scrambled Sobol sequence.

    Always scrambled (random linear scramble and digital shift, Matousek 1998, J. Complexity 14,
    527-556): the plain sequence contains the origin and the exact centre of the cube, where
    several standard problems have their optimum. The scramble is one draw from each run's
    stream, so equal fresh streams with ``skip=k`` continue after the first ``k`` points.

    Args:
        skip: How many points of the sequence to leave out first.

    Raises:
        InvalidOption: negative counts, or ``dim`` not in 1 .. 21201.
    """
    if count < 0:
        raise InvalidOption(f"count={count!r}: expected 0 or more")
    if skip < 0:
        raise InvalidOption(f"skip={skip!r}: expected 0 or more")
    if not 1 <= dim <= LARGEST_SOBOL_DIM:
        raise InvalidOption(
            f"dim={dim!r}: expected 1 to {LARGEST_SOBOL_DIM} columns; a Categorical has one column "
            "per choice, every other parameter has one"
        )
    seeds: list[int] = streams.integers(2**62).tolist()
    if count == 0:
        return torch.zeros(len(seeds), 0, dim, dtype=DTYPE, device=streams.device)
    designs = []
    # More threads gain nothing, and a process that is forked later would wait for them forever.
    with threads(1):
        for seed in seeds:
            engine = SobolEngine(dim, scramble=True, seed=seed)
            # torch rounds the first point to its default precision, which is the user's to choose.
            first = engine.quasi.to(torch.float32) / 2**SobolEngine.MAXBIT
            if skip:
                engine.fast_forward(skip)
            points = engine.draw(count, dtype=DTYPE)
            if skip == 0:
                points[0] = first
            designs.append(points)
    return torch.stack(designs).to(streams.device)


def resolve_initial(initial: int | None, space: object, budget: int | None = None) -> int:
    """The size of the initial design; for None the default one, see `Optimizer`.

    The default does not count parameters of one value, and is at most half of the budget if one is
    known.

    Raises:
        InvalidOption: ``space`` is not a `Space`, or ``initial`` is not a whole number, 1 or more.
    """
    if not isinstance(space, Space):
        raise InvalidOption(f"space={space!r}: expected a gpbo.Space")
    if initial is not None:
        return whole_number("initial", initial, least=1)
    most = LARGEST_DESIGN if budget is None else max(1, budget // 2)
    searched = sum(each.size != 1 for each in space.parameters)
    return min(max(2 * searched, SMALLEST_DESIGN), LARGEST_DESIGN, most)

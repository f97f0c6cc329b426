"""A benchmark problem as a value: a function on a box, its minimum, its shift and its noise."""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.backend import DTYPE, Streams, stream_seed
from gpbo.checks import check_tensor, finite, real_number, settle, whole_number
from gpbo.errors import InvalidData, InvalidOption
from gpbo.space import Real, Space

#: Points of the box in user units, ``[*batch, d]``, to values ``[*batch]``, smaller is better.
Function = Callable[[Tensor], Tensor]

#: A shift takes the centre of the cube to a point uniform in this range of every coordinate.
SHIFTED_CENTRE = (0.2, 0.8)


@dataclass(frozen=True, eq=False)
class Problem:
    """A function to minimise: one of `gpbo.problems.get`, or one of your own.

    Args:
        name: What it is called.
        dim: The dimension, ``d``.
        bounds: Lower and upper end of every coordinate, in user units.
        optimum: The smallest value in the box, to double precision; regret is the distance from
            it. NaN if it is not known: then regret is NaN.
        unshifted_minimizers: Where it is attained without a shift, in user units: all points,
            or, if they are a continuum, one of them.
        citation: Where the function comes from.
        function: From points ``[*batch, d]`` in user units, a tensor of doubles, to their values
            ``[*batch]``, a tensor too; NaN or infinity for a trial that fails.
        noise: Standard deviation of the noise of `observe`.
        shift: The shift of every run, or one for all, in log-odds of the cube's coordinates; see
            `shifted`.
        constraints: Functions like ``function``, without noise, of how far points are beyond each
            of ``k`` limits: a point meets the constraints if all are 0 or less. ``optimum`` is then
            the least value of a point that does.

    Raises:
        InvalidOption: ``dim`` is not a whole number, 1 or more, ``noise`` is negative or not
            finite, ``optimum`` is not a number, ``function`` or a constraint is not a function, or
            ``name`` or ``citation`` is not a string.
        InvalidData: the bounds are not a tensor ``[2, d]`` of finite ends, the lower ones first,
            the minimizers not one ``[j, d]``, or the shift not one ``[r, d]``.
    """

    name: str
    dim: int
    bounds: Float[Tensor, "2 d"]
    optimum: float
    unshifted_minimizers: Float[Tensor, "j d"]
    citation: str
    function: Function
    noise: float = 0.0
    shift: Float[Tensor, "r d"] | None = None
    constraints: tuple[Function, ...] = ()

    def __post_init__(self) -> None:
        for name, given in (("name", self.name), ("citation", self.citation)):
            if not isinstance(given, str):
                raise InvalidOption(f"{name}={given!r}: expected a string")
        if not isinstance(self.constraints, tuple | list):
            raise InvalidOption(f"constraints={self.constraints!r}: expected a tuple of functions")
        for name, function in (("function", self.function), *self._numbered):
            if not callable(function):
                raise InvalidOption(f"{name}={function!r}: expected a function of points")
        whole_number("dim", self.dim, least=1)
        settle(self, "noise", real_number, least=0.0)
        settle(self, "optimum", _number_or_nan)
        for name, rows in (("bounds", 2), ("unshifted_minimizers", None), ("shift", None)):
            given = getattr(self, name)
            if name == "shift" and given is None:
                continue
            check_tensor(name, given)
            if given.ndim != 2 or given.shape[1] != self.dim or rows not in (None, len(given)):
                raise InvalidData(
                    f"{name} has shape {tuple(given.shape)}: expected ({rows or 'any'}, {self.dim})"
                )
        low, high = self.bounds
        if not bool((low.isfinite() & high.isfinite() & (low < high)).all()):
            raise InvalidData(f"bounds={self.bounds.tolist()}: expected finite ends, low < high")

    @cached_property
    def space(self) -> Space:
        """The box in user units: reals ``x1`` to ``xd``."""
        ends = zip(*self.bounds.tolist(), strict=True)
        return Space([Real(f"x{i}", low, high) for i, (low, high) in enumerate(ends, start=1)])

    @property
    def limits(self) -> list[str]:
        """The constraints as `gpbo.minimize` takes them."""
        return [f"{name} <= 0" for name in self._excesses]

    @property
    def _excesses(self) -> list[str]:
        return [f"excess{i}" for i in range(1, 1 + len(self.constraints))]

    @property
    def minimizers(self) -> Float[Tensor, "r j d"]:
        """Where the optimum is attained, as points of the cube, of every run (1 if all agree)."""
        low, high = self.bounds
        cube = ((self.unshifted_minimizers - low) / (high - low)).unsqueeze(0)
        return cube if self.shift is None else _move(cube, -self.shift.unsqueeze(1))

    def shifted(self, *seeds: int) -> "Problem":
        """The problem with its optimum moved: one seed for all runs, or a seed per run.

        Coordinate ``u`` of the cube is read where its log-odds, ``log(u / (1 - u))``, are larger
        by a random constant (of that seed and coordinate alone), such that the centre of the cube
        goes to a point uniform in [0.2, 0.8]^d. The map is a smooth, increasing bijection of
        [0, 1] with slopes from 1/4 to 4. So the function stays as smooth as it was, the box stays
        the box, the same values are attained, and the optimum is known exactly. (A translation
        would need the function beyond its box or wrap it around with a jump; a piecewise-linear
        map would put a kink through the optimum.) An optimum on the boundary stays there.

        Raises:
            InvalidOption: there is no seed, or one is not a whole number, 0 or more.
        """
        if not seeds:
            raise InvalidOption("seeds=(): expected one seed, or a seed per run")
        numbers = [whole_number("seeds", seed, least=0) for seed in seeds]
        streams = Streams([stream_seed(number, "problem-shift") for number in numbers])
        low, high = SHIFTED_CENTRE
        centre = low + (high - low) * streams.uniform(self.dim)
        return replace(self, shift=-torch.logit(centre))

    def select(self, runs: Sequence[int]) -> "Problem":
        """The problem of these runs only."""
        if self.shift is None or self.shift.shape[0] == 1:
            return self
        return replace(self, shift=self.shift[list(runs)])

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """The values, without noise, of points in the unit cube, on their device.

        A point outside the cube counts as the nearest one in it.

        Raises:
            InvalidData: not a tensor, not ``d`` columns, or a first axis other than the runs that
                the problem has shifts for; or the function did not return a value for each point.
        """
        return self._value_of(self._in_user_units(x))

    def _value_of(self, points: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """The same for points in user units."""
        return self._of(self.name, self.function, points)

    def excess(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        """How far these points are beyond each of the constraints; raises as a call does."""
        return self._excess_of(self._in_user_units(x))

    def _excess_of(self, points: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        """The same for points in user units."""
        each = [self._of(f"{name} of {self.name}", one, points) for name, one in self._numbered]
        return torch.stack(each, -1) if each else points[..., :0]

    def _in_user_units(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        check_tensor("x", x)
        if x.shape[-1:] != (self.dim,):
            raise InvalidData(
                f"x has shape {tuple(x.shape)}: expected (..., {self.dim}) for {self.name}"
            )
        inside = x.to(DTYPE).clamp(0, 1)
        if self.shift is not None:
            inside = _move(inside, self._shift_like(inside))
        low, high = self.bounds.to(x.device)
        # low + (high - low) may be a rounding beyond high, where a function need not be defined.
        return (low + inside * (high - low)).clamp(low, high)

    @property
    def _numbered(self) -> list[tuple[str, Function]]:
        """The constraints, with their names for errors."""
        return [(f"constraints[{i}]", each) for i, each in enumerate(self.constraints)]

    def _of(
        self, name: str, function: Function, x: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch"]:
        """The values of a function at points in user units, checked."""
        values = function(x.clone())  # it may work in place
        returned = f"what {name} returned"
        check_tensor(returned, values)
        if values.shape != x.shape[:-1]:
            raise InvalidData(
                f"{returned} has shape {tuple(values.shape)}: expected {tuple(x.shape[:-1])}, a "
                "value for each point"
            )
        if values.dtype == torch.bool:
            raise InvalidData(f"{returned} has dtype torch.bool: expected numbers")
        return values.to(DTYPE)

    def observe(self, x: Float[Tensor, "r q d"], streams: Streams) -> Float[Tensor, "r q"]:
        """The values with Gaussian noise, each run's from its own stream.

        Raises:
            InvalidData: as for a call, or the streams are not of ``r`` runs.
        """
        return self.noisy(self(x), streams)

    @torch.no_grad()
    def results(
        self, x: Float[Tensor, "r q d"], streams: Streams
    ) -> tuple[Float[Tensor, "r q"], Float[Tensor, "r q"], Float[Tensor, "r q k"]]:
        """What is observed, with NaN for a trial that fails, the values without noise, and how far
        the points are beyond each of the constraints.

        Raises:
            InvalidData: as `observe` does.
        """
        points = self._in_user_units(x)
        truth, excess = self._value_of(points), self._excess_of(points)
        values = self.noisy(truth, streams)
        return values.where(excess.isfinite().all(-1), torch.nan), truth, excess

    def noisy(self, values: Float[Tensor, "r q"], streams: Streams) -> Float[Tensor, "r q"]:
        """What is observed where the function has these values; NaN where one is not finite.

        Raises:
            InvalidData: the streams are not of ``r`` runs.
        """
        if streams.runs != values.shape[0]:
            raise InvalidData(
                f"x has {values.shape[0]} runs: expected {streams.runs}, as many as streams has"
            )
        if self.noise:
            values = values + self.noise * streams.normal(values.shape[1])
        return torch.where(values.isfinite(), values, torch.nan)

    def evaluate(self, params: Mapping[str, Any]) -> float:
        """The value, without noise, of a configuration of `space`.

        Raises:
            InvalidParams: not a configuration of `space`.
            InvalidData: the problem has different shifts for several runs.
        """
        return float(self(self.space.encode([params]).unsqueeze(0)))

    def measure(self, params: Mapping[str, Any]) -> tuple[float, dict[str, float]]:
        """The value, and the quantities that `limits` limit, as `gpbo.minimize` takes them with
        constraints.

        Raises:
            InvalidParams, InvalidData: as `evaluate` does.
        """
        points = self._in_user_units(self.space.encode([params]).unsqueeze(0))
        excess = self._excess_of(points).flatten().tolist()
        value = float(self._value_of(points))
        return value, dict(zip(self._excesses, excess, strict=True))

    def _shift_like(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*#batch d"]:
        """The shift, in a shape that broadcasts with the points."""
        assert self.shift is not None
        runs = self.shift.shape[0]
        if runs == 1:
            return self.shift[0].to(x.device)
        if x.ndim < 2 or x.shape[0] != runs:
            raise InvalidData(
                f"x has shape {tuple(x.shape)}: expected a first axis of {runs} runs, "
                "since each has a shift of its own"
            )
        return self.shift.view(runs, *[1] * (x.ndim - 2), self.dim).to(x.device)


def _number_or_nan(name: str, value: object) -> float:
    if isinstance(value, numbers.Real) and finite(value) is None and value != value:
        return math.nan
    try:
        return real_number(name, value)
    except InvalidOption as error:
        raise InvalidOption(f"{error}, or NaN if it is not known") from None


def _move(
    x: Float[Tensor, "*#batch d"], shift: Float[Tensor, "*#batch d"]
) -> Float[Tensor, "*#batch d"]:
    """Add to the log-odds of coordinates in [0, 1]; 0 and 1 stay exactly where they are."""
    odds = shift.exp()
    return odds * x / (odds * x + (1 - x))

"""CMA-ES (Hansen and Ostermeier 2001) of the package ``cmaes`` (Nomura and Shibata 2024).

Reals alone have CMA-ES with its default population; with other parameters CatCMA with margin, the
package's own for mixed spaces (Hamano et al. 2025). Both want a first mean: the best point of the
design. CMA-ES wants a first step size too: 1/5 of the range, of which its authors say that the
optimum should be within about three. A search that has converged starts again from a random point,
with twice the population (Auger and Hansen 2005).
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from cmaes import CMA, CatCMAwM

from .base import Adapter, Results, Task
from .space import Parameter, Point

_STEP_SIZE = 0.2


class CmaEs(Adapter):
    """A point at a time; a generation is told when it is complete."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._random = np.random.RandomState(task.seed)
        self._design = Results()
        self._population: int | None = None
        self._search: _Search | None = None
        self._generation = Results()
        self._solutions: list[Any] = []

    def add(self, point: Point, value: float | None) -> None:
        """Kept for the first mean."""
        self._design.append(point, value)

    def ask(self) -> Point:
        """A point of the present generation."""
        if self._search is None:
            self._search = self._begin()
        elif len(self._solutions) == self._search.population:
            self._search.tell(list(zip(self._solutions, self._generation.values, strict=True)))
            self._solutions, self._generation = [], Results()
            if self._search.has_converged():
                self._population = 2 * self._search.population
                self._design = Results()
                self._search = self._begin()
        solution, self._asked = self._search.ask()
        self._solutions.append(solution)
        return self._asked

    def tell(self, value: float | None) -> None:
        """A failed evaluation gets the worst value of its generation."""
        self._generation.append(self._asked, value)

    def _begin(self) -> "_Search":
        space = self.task.space
        if len(self._design):
            start = self._design.points[int(np.argmin(self._design.values))]
        else:
            start = {p.name: p.from_unit(self._random.rand()) for p in space}
        kind = _Reals if all(p.kind == "real" for p in space) else _Mixed
        return kind(space, start, self._population, self._random.randint(2**31 - 1))


class _Search(ABC):
    """Reals are searched as coordinates of the unit cube."""

    optimizer: Any

    @property
    def population(self) -> int:
        """How many points a generation has."""
        return int(self.optimizer.population_size)

    @abstractmethod
    def ask(self) -> tuple[Any, Point]:
        """What to tell, and the point."""

    def tell(self, results: list[tuple[Any, float]]) -> None:
        """A whole generation."""
        self.optimizer.tell(results)

    def has_converged(self) -> bool:
        """Whether its own criteria end it."""
        return bool(self.optimizer.should_stop())


class _Reals(_Search):
    def __init__(
        self, space: tuple[Parameter, ...], start: Point, population: int | None, seed: int
    ) -> None:
        self._space = space
        self.optimizer = CMA(
            mean=np.array([p.to_unit(start[p.name]) for p in space]),
            sigma=_STEP_SIZE,
            bounds=np.tile([0.0, 1.0], (len(space), 1)),
            population_size=population,
            seed=seed,
        )

    def ask(self) -> tuple[Any, Point]:
        solution = self.optimizer.ask()
        return solution, {
            p.name: p.from_unit(float(coordinate))
            for p, coordinate in zip(self._space, solution, strict=True)
        }


class _Mixed(_Search):
    """Integers on a linear scale and ordinals are steps of 1, integers on a log scale of the log.

    A parameter with two values is a categorical, as the package advises.
    """

    def __init__(
        self, space: tuple[Parameter, ...], start: Point, population: int | None, seed: int
    ) -> None:
        self._reals = [p for p in space if p.kind == "real"]
        self._categories = [
            p for p in space if p.kind == "categorical" or (p.kind != "real" and p.size == 2)
        ]
        self._steps = [p for p in space if p not in self._reals and p not in self._categories]
        self._grids = [_grid(p) for p in self._steps]
        mean = [p.to_unit(start[p.name]) for p in self._reals] + [
            grid[int(start[p.name] - p.low)]
            for p, grid in zip(self._steps, self._grids, strict=True)
        ]
        # Its default first spread is a share of the way from the mean to the nearer bound: 0 on it.
        inside = [
            min(max(value, low + 0.1 * (high - low)), high - 0.1 * (high - low))
            for value, (low, high) in zip(
                mean,
                [(0.0, 1.0)] * len(self._reals) + [(g[0], g[-1]) for g in self._grids],
                strict=True,
            )
        ]
        self.optimizer = CatCMAwM(
            x_space=[[0.0, 1.0]] * len(self._reals) or None,
            z_space=self._grids or None,
            c_space=[p.size for p in self._categories] or None,
            population_size=population,
            mean=np.array(inside) if inside else None,
            seed=seed,
        )

    def ask(self) -> tuple[Any, Point]:
        solution = self.optimizer.ask()
        point: dict[str, float] = {}
        for p, coordinate in zip(self._reals, _listed(solution.x), strict=True):
            point[p.name] = p.from_unit(float(coordinate))
        for p, grid, step in zip(self._steps, self._grids, _listed(solution.z), strict=True):
            point[p.name] = p.low + int(np.argmin(np.abs(np.array(grid) - step)))
        for p, chosen in zip(self._categories, _listed(solution.c), strict=True):
            point[p.name] = p.low + int(np.argmax(chosen))
        return solution, point


def _grid(parameter: Parameter) -> list[float]:
    values = np.array(parameter.values(), dtype=float)
    return [float(value) for value in (np.log(values) if parameter.log else values)]


def _listed(values: Any) -> list[Any]:
    return [] if values is None else list(values)

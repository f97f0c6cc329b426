"""The results of many runs of a benchmark problem: values, regret, diagnostics, times."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int, Num, Shaped

from gpbo import archive
from gpbo.completion import STOPPED, Stopped
from gpbo.text import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Prefix of the names of `Diagnostics` in a file.
_PREFIX = "diagnostics."
#: The precision of a stated optimum, as a share of the range of the values.
ROUNDING = 1e-9


def quartiles(values: Num[np.ndarray, "r *t"]) -> Float[np.ndarray, "3 *t"]:
    """Lower quartile, median and upper quartile of the runs; if some values are infinite, without
    interpolation.
    """
    at = [0.25, 0.5, 0.75]
    finite = np.isfinite(values)
    between = np.quantile(np.where(finite, values, 0.0), at, axis=0)
    return np.where(finite.all(axis=0), between, np.quantile(values, at, axis=0, method="higher"))


@np.errstate(over="ignore", invalid="ignore")  # of numbers near the largest double
def over_runs(what: str, values: Num[np.ndarray, "r"]) -> list[str]:
    """A line that summarises values of the runs; no line if there are no runs."""
    if not len(values):
        return []
    low, middle, high = (short(float(quartile)) for quartile in quartiles(values))
    mean = short(float(values.mean()))
    return [f"{what}: median {middle} (quartiles {low} to {high}), mean {mean}"]


def not_counted(runs: int) -> str:
    """A line about the runs that `over_runs` leaves out."""
    return f"runs without a trial that meets the constraints, not counted: {runs}"


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """How the fit behind each trial went; see `gpbo.FitReport`.

    Numbers are NaN, and the status is empty, where there was no fit: in the initial design, and
    always for a strategy without a model. R-hat and effective sample sizes are also NaN where there
    were too few draws.
    """

    status: Shaped[np.ndarray, "r t"]
    rhat: Float[np.ndarray, "r t"]
    ess_bulk: Float[np.ndarray, "r t"]
    ess_tail: Float[np.ndarray, "r t"]
    divergences: Float[np.ndarray, "r t"]
    depth_saturation: Float[np.ndarray, "r t"]
    leapfrog_steps: Float[np.ndarray, "r t"]


@dataclass(frozen=True, eq=False)
class RegretCurve:
    """Simple regret over the trials that every run made, from where half of the runs have one.

    A run without a trial that counts has infinite regret.

    Attributes:
        trial: Numbers of the trials, from 1.
        median, low, high: The median and the quartiles of the runs.
        mean: Their mean.
        error: The standard error of the mean; NaN for a single run, or if the mean is infinite.
    """

    trial: Int[np.ndarray, "t"]
    median: Float[np.ndarray, "t"]
    low: Float[np.ndarray, "t"]
    high: Float[np.ndarray, "t"]
    mean: Float[np.ndarray, "t"]
    error: Float[np.ndarray, "t"]


@dataclass(frozen=True, eq=False, repr=False)
class Replications:
    """Runs of one strategy on one benchmark problem: a row per run, a column per trial.

    Attributes:
        problem, strategy, inference, device: What was run, how and where.
        optimum: The least value of the problem.
        seeds: The seed of every run.
        trials: How many trials every run made; columns beyond them are NaN.
        design: How many of them, from the first, were the initial design.
        points: Where the problem was evaluated, in the unit cube.
        values: What was observed, to be minimised; NaN for a trial that failed.
        truth: The values without noise, at the same points.
        excess: By how much the points exceed each of the problem's ``k`` limits; 0 or less where
            they meet the constraint.
        diagnostics: Of the fits, for every trial: arrays ``[r,t]`` of ``status``, ``rhat``,
            ``ess_bulk``, ``ess_tail``, ``divergences``, ``depth_saturation`` and
            ``leapfrog_steps``, as in `gpbo.FitReport`; empty or NaN where there was no fit.
        seconds: Spent on ``"design"``, ``"fit"``, ``"acquisition"`` and ``"evaluation"``, all runs
            together.
        stopped: ``"budget"``, ``"exhausted"`` or ``"interrupted"``, as in `gpbo.Result`.
    """

    problem: str
    strategy: str
    inference: str
    device: str
    optimum: float
    seeds: tuple[int, ...]
    trials: Int[np.ndarray, "r"]
    design: Int[np.ndarray, "r"]
    points: Float[np.ndarray, "r t d"]
    values: Float[np.ndarray, "r t"]
    truth: Float[np.ndarray, "r t"]
    excess: Float[np.ndarray, "r t k"]
    diagnostics: Diagnostics
    seconds: Mapping[str, float]
    stopped: Stopped

    @cached_property
    def incumbents(self) -> Int[np.ndarray, "r t"]:
        """The trial with the least value so far among those that meet the constraints, the first in
        a tie; -1 before there is one.
        """
        counted = ~np.isnan(self.values) & (self.excess <= 0).all(axis=-1)
        values = np.where(counted, self.values, np.inf)
        least = np.minimum.accumulate(values, axis=1)
        before = np.concatenate([np.full((len(values), 1), np.inf), least[:, :-1]], axis=1)
        number = np.where(values < before, np.arange(values.shape[1]), -1)
        return np.maximum.accumulate(number, axis=1)

    @cached_property
    def reached(self) -> Float[np.ndarray, "r t"]:
        """The true value at the incumbent; NaN before there is one."""
        reached = np.take_along_axis(self.truth, np.maximum(self.incumbents, 0), axis=1)
        made = np.arange(self.values.shape[1]) < self.trials[:, None]
        return np.where((self.incumbents >= 0) & made, reached, np.nan)

    @cached_property
    def regret(self) -> Float[np.ndarray, "r t"]:
        """How far the true value at the incumbent lies above the optimum; NaN before there is one.

        With noise the incumbent is the trial that *looked* best.
        """
        return self.reached - self.optimum

    def save(self, path: str | Path) -> None:
        """Write everything to one file: a zip of NumPy arrays and a header in JSON (``.npz``).

        ``numpy.load`` reads it too. The file appears only when it is complete.

        Raises:
            InvalidOption: the path cannot be written, or its folder does not exist.
        """
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        parts = vars(values.pop("diagnostics"))
        values |= {f"{_PREFIX}{name}": array for name, array in parts.items()}
        archive.write(path, {**values, "seconds": dict(self.seconds)})

    @classmethod
    def load(cls, path: str | Path) -> "Replications":
        """Read what `save` wrote.

        Raises:
            InvalidData: no such file, not written by `save`, or by a later version of gpbo.
        """
        own = [one.name for one in fields(cls) if one.name != "diagnostics"]
        parts = [one.name for one in fields(Diagnostics)]
        names = [*own, *(f"{_PREFIX}{name}" for name in parts)]
        names.remove("excess")  # which older versions did not have
        found = archive.read(path, names, writer="Replications.save")
        found.setdefault("excess", found["points"][..., :0])
        values = {name: found[name] for name in own}
        diagnostics = Diagnostics(**{name: found[f"{_PREFIX}{name}"] for name in parts})
        return cls(**{**values, "seeds": tuple(values["seeds"])}, diagnostics=diagnostics)

    def curve(self) -> RegretCurve:
        """The regret after every trial, over all runs: for each ``trial`` the ``median``, the
        quartiles ``low`` and ``high``, the ``mean`` and its standard ``error``.
        """
        made = (np.arange(self.values.shape[1]) < self.trials[:, None]).all(axis=0)
        regret = np.where(np.isnan(self.regret), np.inf, self.regret)
        drawn = made & np.isfinite(quartiles(regret)[1])
        regret = regret[:, drawn]
        low, median, high = quartiles(regret)
        error = np.full(regret.shape[1], np.nan)
        if len(regret) > 1:
            with np.errstate(invalid="ignore"):  # an infinite mean has no error
                error = regret.std(axis=0, ddof=1) / math.sqrt(len(regret))
        trial = 1 + np.flatnonzero(drawn)
        return RegretCurve(trial, median, low, high, regret.mean(axis=0), error)

    def plot(self, path: str | Path | None = None) -> "Figure":
        """The plot of the regret, also written to the path if given; its suffix sets the format.

        Raises:
            InvalidOption: the folder of the path does not exist, or the suffix is unknown.
        """
        from gpbo import plots

        return plots.regret(self, path)

    def __repr__(self) -> str:
        return str(self)

    @np.errstate(over="ignore")  # of numbers near the largest double
    def __str__(self) -> str:
        made = f"{len(self.seeds)} runs of {self.strategy} on {self.problem}"
        how = STOPPED[self.stopped]
        lines = [f"{made}, {int(self.trials.sum())} trials on {self.device}, {how}"]
        what, final = "simple regret", self.final_regret
        if math.isnan(self.optimum):
            what, final = "true value at the best trial", self._final(self.reached)
        lines += over_runs(what, final[~np.isnan(final)])
        if self._is_optimum_beaten:
            lines.append(
                f"the problem's optimum={self.optimum:.6g} is too large: some runs found less"
            )
        spent = ", ".join(f"{seconds:.1f} s {phase}" for phase, seconds in self.seconds.items())
        if self.excess.shape[-1]:
            without = int((self.incumbents[:, -1:] < 0).all(axis=-1).sum())
            lines.append(not_counted(without))
        lines.append(f"time: {spent}")
        statuses, counts = np.unique(self.diagnostics.status, return_counts=True)
        fits = [
            f"{count} {status}" for status, count in zip(statuses, counts, strict=True) if status
        ]
        if fits:
            lines.append(f"fits of the model: {', '.join(fits)}")
        return "\n".join(lines)

    @property
    def _is_optimum_beaten(self) -> bool:
        """Whether a value is below the problem's stated optimum, by more than rounding."""
        truth = self.truth[np.isfinite(self.truth)]
        return truth.size > 0 and bool((self.final_regret < -ROUNDING * np.ptp(truth)).any())

    @property
    def final_regret(self) -> Float[np.ndarray, "r"]:
        """The regret of every run after its last trial; NaN if none of its trials has a value, or
        none of them meets the constraints.
        """
        return self._final(self.regret)

    def _final(self, values: Float[np.ndarray, "r t"]) -> Float[np.ndarray, "r"]:
        last = np.maximum(self.trials - 1, 0)[:, None]
        if not values.shape[1]:
            return np.full(len(self.seeds), np.nan)
        return np.take_along_axis(values, last, axis=1)[:, 0]

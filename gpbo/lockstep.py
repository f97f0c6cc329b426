"""Many runs of a benchmark problem advance together: every step is one batch of all of them."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo import fitting, problems
from gpbo.backend import DTYPE, Streams, resolve_device
from gpbo.checkpoint import Checkpoint, identified
from gpbo.checks import truth_value, whole_number
from gpbo.completion import Stopped
from gpbo.data import Observations, feasible, with_room
from gpbo.design import resolve_initial
from gpbo.errors import SpaceExhausted
from gpbo.fitting import Fit, FitReport, Inference, Model, WarmState, check_inference, resolve_model
from gpbo.graphs import wait
from gpbo.kept import PLAIN
from gpbo.problems import Problem
from gpbo.replications import Diagnostics, Replications
from gpbo.rows import selected
from gpbo.situation import Lazy, Situation, Strategy, points_and_keys, proposed
from gpbo.strategies import SobolSearch, resolve_strategy

#: Called after every step with what all runs have done so far, and their median regret.
Show = Callable[[int, float], None]

_NUMBERS = tuple(field.name for field in fields(Diagnostics) if field.name != "status")
_PHASES = ("design", "fit", "acquisition", "evaluation")


@torch.inference_mode(False)  # a caller's, as in `gpbo.Optimizer`
def replicate(
    problem: Problem | str,
    *,
    strategy: str | Strategy = "ei",
    runs: int = 64,
    budget: int = 100,
    batch: int = 1,
    seed: int = 0,
    inference: Inference = "hmc",
    model: Model | None = None,
    initial: int | None = None,
    device: str = "auto",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Replications:
    """Run a strategy many times on a benchmark problem, all runs in one batch.

    Run ``i`` has the seed ``seed + i``: it makes the same trials as ``replicate(..., runs=1,
    seed=seed + i)`` and, for a problem without noise and as long as no trial fails, as
    ``minimize(problem.evaluate, problem.space, seed=seed + i)`` with the same ``budget`` and
    ``initial``. A batch may differ from a single run by rounding, which a sampler and Thompson
    sampling amplify to different trials of the same distribution. (If a trial fails, `minimize`
    keeps its last fit, and this function fits again with all runs.)

    If the problem has constraints, each run has a model of every constraint, a further row of the
    batch; the runs are then those of ``minimize(problem.measure, problem.space,
    constraints=problem.limits)``.

    A value that is NaN or infinite is a failed trial: that run's initial design gets one more
    trial, its model one observation less. Ctrl-C ends all runs and returns the trials so far. An
    exception of the problem's function ends all runs and is passed on. With a ``checkpoint``,
    repeating the call continues after either, or after a crash, and makes the same trials as
    without the interruption.

    Args:
        problem: A name that `gpbo.problems.get` knows, or a problem. If it has shifts, one for all
            runs or one for each.
        strategy: As in `gpbo.Optimizer`.
        runs: The number of runs.
        budget: The number of trials of each run, failed ones included.
        batch: How many points a run asks for at a time, ``q``.
        seed: The seed of the first run, 0 or more.
        inference: As in `gpbo.Optimizer`.
        model: Likewise.
        initial: Size of the initial design of a strategy with a model, asked at once; by default
            as in `minimize`: two per parameter, 5 to 20, at most half of the budget.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:<index>"``, or ``"auto"``: a GPU, if there is one
            and this many runs are expected to be faster on it.
        checkpoint: Path of a file that is written every few seconds and at the end, from which the
            next call continues. That call may have a larger ``budget``, which adds to the initial
            design and the batches so far, or a smaller one, which adds nothing. The file identifies
            a function, and a strategy or prior of your own, only by name.
        progress: Whether to report progress on the standard error stream.

    Raises:
        InvalidOption: an option has a value that is not allowed, or differs from that in the
            ``checkpoint``; or a strategy of your own proposed something other than points, see
            `gpbo.situation.Strategy`.
        InvalidData: the problem returned something other than a value for every point, or the
            ``checkpoint`` is not such a file.
    """
    budget = whole_number("budget", budget, least=1)
    runs = whole_number("runs", runs, least=1)
    seed = whole_number("seed", seed, least=0)
    truth_value("progress", progress)
    problem = problems.resolve(problem, runs=runs)
    chosen = resolve_strategy(strategy)
    design = resolve_initial(initial, problem.space, budget)
    rows = runs * (1 + len(problem.constraints))
    target = resolve_device(device, runs=rows, results=budget if chosen.uses_model else 0)
    engine = _Engine(
        problem=problem,
        strategy=chosen,
        budget=budget,
        batch=whole_number("batch", batch, least=1),
        initial=design if chosen.uses_model else 0,
        inference=check_inference(inference),
        model=resolve_model(model),
        seeds=tuple(range(seed, seed + runs)),
        device=target,
        clock=_Clock(target),
    )
    settings = {"runs": runs, "seed": seed, "batch": engine.batch, "initial": engine.initial}
    kept: Checkpoint[_State] = Checkpoint(
        checkpoint,
        identified(problem, chosen, engine.model, inference=inference, **settings),
        first=((engine.beginning(),), dict(engine.clock.seconds)),
        free={"initial"} if initial is None else (),  # a larger budget has a larger default
        kinds=(_Runs, *PLAIN),
        device=target,
    )
    engine = replace(engine, initial=kept.options["initial"])
    with (
        display(f"{chosen.name} on {problem.name}", runs * budget, progress) as show,
        closing(kept),
    ):
        return engine.run(show, kept)


@dataclass(frozen=True)
class _Runs:
    """Runs that made equally many trials, and their results.

    Attributes:
        seeds: The seed of each run.
        x, values, truth, excess: As in `Replications`, with NaN for the value of a trial that
            failed.
        taken: Per run, the keys of all configurations that it tried.
        design: How many of the trials are the initial design.
        reports: The reports of the fits, each with the number of the first trial that came from it.
        warm: What the next fit starts from.
    """

    seeds: tuple[int, ...]
    x: Float[Tensor, "r n d"]
    values: Float[Tensor, "r n"]
    truth: Float[Tensor, "r n"]
    excess: Float[Tensor, "r n k"]
    taken: tuple[frozenset[Hashable], ...]
    design: int = 0
    reports: tuple[tuple[int, FitReport], ...] = ()
    warm: WarmState | None = None

    @property
    def trials(self) -> int:
        """The number of trials that each run made."""
        return self.x.shape[1]

    @property
    def succeeded(self) -> Bool[Tensor, "r n"]:
        """Which trials have a value."""
        return self.values.isfinite()

    def observations(self) -> Observations:
        """The results as a fit sees them; rows of trials that failed are padding."""
        return with_room(self.x, self.values, self.succeeded, excess=self.excess)

    def by_results(self) -> list["_Runs"]:
        """The runs in groups with equally many results; only before their first fit."""
        counts = self.succeeded.sum(-1).tolist()
        groups = [[i for i, own in enumerate(counts) if own == count] for count in {*counts}]
        return [
            replace(
                selected(self, torch.tensor(rows, device=self.x.device)),
                seeds=tuple(self.seeds[i] for i in rows),
                taken=tuple(self.taken[i] for i in rows),
            )
            for rows in groups
        ]


#: Groups of runs, and the seconds spent on each phase.
_State = tuple[tuple[_Runs, ...], dict[str, float]]


class _Clock:
    """Seconds spent on each phase; a phase inside another one interrupts it."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(_PHASES, 0.0)
        self._device = device
        self._phase: str | None = None
        self._since = 0.0

    @contextmanager
    def on(self, phase: str) -> Iterator[None]:
        """Time the block."""
        outer = self._switch(phase)
        try:
            yield
        finally:
            self._switch(outer)

    def _switch(self, phase: str | None) -> str | None:
        wait(self._device)
        now, last = time.perf_counter(), self._phase
        if last is not None:
            self.seconds[last] += now - self._since
        self._phase, self._since = phase, now
        return last


@dataclass(frozen=True)
class _Engine:
    """What all runs have in common, and how they advance."""

    problem: Problem
    strategy: Strategy
    budget: int
    batch: int
    initial: int
    inference: Inference
    model: Model
    seeds: tuple[int, ...]
    device: torch.device
    clock: _Clock

    def run(self, show: Show | None, kept: Checkpoint[_State]) -> Replications:
        """Continue from the checkpoint to the last trial.

        The runs are one group, which is split only if trials of the initial design fail. A group is
        replaced when its step is complete, so an interrupt costs that step and nothing else.
        """
        groups, seconds = kept.state
        self.clock.seconds.update(seconds)
        stopped: Stopped = "budget"
        try:
            while unfinished := [group for group in groups if group.trials < self.budget]:
                group = min(unfinished, key=lambda group: group.trials)
                advanced = self._step(group)
                groups = (*(other for other in groups if other is not group), *advanced)
                kept.advance((groups, dict(self.clock.seconds)))
                if show is not None:
                    values = [feasible(group.values, group.excess) for group in groups]
                    regret = median_regret(values, self.problem.optimum)
                    show(sum(len(group.seeds) * group.trials for group in groups), regret)
        except SpaceExhausted:
            stopped = "exhausted"
        except KeyboardInterrupt:
            stopped = "interrupted"
        return self._collected(groups, stopped)

    def beginning(self) -> _Runs:
        """Before the first trial."""
        runs = len(self.seeds)
        nothing = torch.zeros(runs, 0, dtype=DTYPE, device=self.device)
        x = torch.zeros(runs, 0, self.problem.dim, dtype=DTYPE, device=self.device)
        excess = x.new_zeros(runs, 0, self._limited)
        return _Runs(self.seeds, x, nothing, nothing, excess, (frozenset(),) * runs)

    @property
    def _limited(self) -> int:
        return len(self.problem.constraints)

    def _step(self, runs: _Runs) -> list[_Runs]:
        """The next trials of these runs: what the initial design lacks, or a batch."""
        left = self.budget - runs.trials
        lacking = self.initial - int(runs.succeeded.sum(-1).min())
        if lacking <= 0:
            return [self._tried(runs, "acquisition", self.strategy, min(self.batch, left))]
        designed = self._tried(runs, "design", SobolSearch(), min(lacking, left))
        return replace(designed, design=designed.trials).by_results()

    def _tried(self, runs: _Runs, phase: str, strategy: Strategy, count: int) -> _Runs:
        """The runs after ``count`` more trials, proposed by the strategy."""
        rows = runs.observations()

        def fitted() -> Fit:
            with self.clock.on("fit"):
                streams = Streams.per_seed(
                    runs.seeds, "fit", runs.trials, rows=rows.outputs, device=self.device
                )
                return fitting.fit(
                    rows, self.model, inference=self.inference, warm=runs.warm, streams=streams
                )

        fit = Lazy(fitted)
        with self.clock.on(phase):
            situation = Situation.of_trials(
                self.problem.space,
                runs.x,
                runs.succeeded,
                rows,
                fit,
                taken=runs.taken,
                seeds=runs.seeds,
                index=runs.trials,
            )
            points = proposed(strategy, situation, count)
        tried = self._evaluated(runs, points)
        if fit.made is None:
            return tried
        reports = (*runs.reports, (runs.trials, fit.made.report))
        return replace(tried, reports=reports, warm=fit.made.warm)

    def _evaluated(self, runs: _Runs, points: Float[Tensor, "r q d"]) -> _Runs:
        """The runs with these points tried."""
        with self.clock.on("evaluation"):
            x, asked = points_and_keys(self.problem.space, points)
            problem = self.problem.select([seed - self.seeds[0] for seed in runs.seeds])
            noise = Streams.per_seed(runs.seeds, "noise", runs.trials, device=self.device)
            values, truth, excess = problem.results(x, noise)
        return replace(
            runs,
            x=torch.cat([runs.x, x], 1),
            values=torch.cat([runs.values, values], 1),
            truth=torch.cat([runs.truth, truth], 1),
            excess=torch.cat([runs.excess, excess], 1),
            taken=tuple(old | new for old, new in zip(runs.taken, asked, strict=True)),
        )

    def _collected(self, groups: Sequence[_Runs], stopped: Stopped) -> Replications:
        shape = len(self.seeds), max(group.trials for group in groups)
        points = np.full((*shape, self.problem.dim), np.nan)
        values, truth = np.full((2, *shape), np.nan)
        excess = np.full((*shape, self._limited), np.nan)
        status = np.full(shape, "", dtype="<U16")
        numbers = {name: np.full(shape, np.nan) for name in _NUMBERS}
        trials, design = np.zeros((2, shape[0]), dtype=int)
        of_values = slice(None, None, 1 + self._limited)
        for group in groups:
            rows = [seed - self.seeds[0] for seed in group.seeds]
            trials[rows], design[rows] = group.trials, group.design
            points[rows, : group.trials] = group.x.cpu().numpy()
            values[rows, : group.trials] = group.values.cpu().numpy()
            truth[rows, : group.trials] = group.truth.cpu().numpy()
            excess[rows, : group.trials] = group.excess.cpu().numpy()
            ends = [first for first, _ in group.reports[1:]] + [group.trials]
            for (first, report), end in zip(group.reports, ends, strict=False):
                status[rows, first:end] = np.array(report.status)[of_values, None]
                for name, array in numbers.items():
                    array[rows, first:end] = getattr(report, name)[of_values].cpu().numpy()[:, None]
        return Replications(
            problem=self.problem.name,
            strategy=self.strategy.name,
            inference=self.inference,
            device=str(self.device),
            optimum=self.problem.optimum,
            seeds=self.seeds,
            trials=trials,
            design=design,
            points=points,
            values=values,
            truth=truth,
            excess=excess,
            diagnostics=Diagnostics(status=status, **numbers),
            seconds=dict(self.clock.seconds),
            stopped=stopped,
        )


def median_regret(values: Sequence[Float[Tensor, "_ _"]], optimum: float) -> float:
    """The median regret of groups of runs with these observed values; infinite as long as half of
    the runs have none.
    """
    best = [own.nan_to_num(nan=torch.inf).amin(-1) for own in values]
    return float(np.median(torch.cat(best).cpu())) - optimum


def display(
    title: str, total: int, progress: bool, *, unit: str = "trials"
) -> AbstractContextManager[Show | None]:
    """Inside, show many runs together if ``progress``; see `gpbo.progress.counted`."""
    if not progress:
        return nullcontext()
    from gpbo.progress import counted

    return counted(title, total, unit=unit)

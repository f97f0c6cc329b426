"""Workers on a simulated clock: what a strategy makes of parallel evaluations, many runs at once.

Evaluations take simulated time, by a law or by what is evaluated. In every run, at every step, one
worker ends (or, in step, all of them) and is asked for again, so the runs stay aligned by their
numbers of trials while each has a clock of its own, and every step is one batch of all runs.
"""

import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpbo import archive, fitting, problems
from gpbo.backend import DTYPE, Streams, resolve_device
from gpbo.checks import finite, one_of, positive_number, real_number, whole_number
from gpbo.data import Observations, with_room
from gpbo.design import default_initial
from gpbo.errors import InvalidOption, SpaceExhausted
from gpbo.fitting import Fit, Inference, Model, check_inference, resolve_model
from gpbo.kept import Kept
from gpbo.lockstep import display, median_regret
from gpbo.problems import Problem
from gpbo.result import Stopped
from gpbo.rows import bucket, put, selected
from gpbo.situation import Lazy, Situation, Strategy, points_and_keys, proposed
from gpbo.strategies import SobolSearch, resolve_strategy
from gpbo.trial import Mode

#: How long points take to evaluate, 0 or more each, from the points in the unit cube and the
#: streams of the runs.
Times = Callable[[Float[Tensor, "r q d"], Streams], Float[Tensor, "r q"]]


def pareto(shape: float) -> Times:
    """Pareto times of mean 1: most are a little shorter, a few very long.

    Args:
        shape: The tail index, above 1.

    Raises:
        InvalidOption: ``shape`` is no finite number, or at most 1, where there is no mean.
    """
    if real_number("shape", shape) <= 1:
        raise InvalidOption(f"shape={shape!r}: expected more than 1")

    def times(x: Float[Tensor, "r q d"], streams: Streams) -> Float[Tensor, "r q"]:
        return (shape - 1) / shape * (1 - streams.uniform(x.shape[1])) ** (-1 / shape)

    return times


#: Laws of evaluation times, all of mean 1.
LAWS: dict[str, Times] = {
    "constant": lambda x, streams: torch.ones_like(x[..., 0]),
    "uniform": lambda x, streams: 2 * streams.uniform(x.shape[1]),
    "half-normal": lambda x, streams: (torch.pi / 2) ** 0.5 * streams.normal(x.shape[1]).abs(),
    "exponential": lambda x, streams: -torch.log1p(-streams.uniform(x.shape[1])),
    "pareto": pareto(3.0),
}


@dataclass(frozen=True, eq=False)
class Simulation:
    """The trials of every run, in the order in which they ended.

    Attributes:
        trial: Their numbers, from 0 in the order in which they were asked for.
        started, ended: When, on the simulated clock, which starts at 0.
        told: When the optimizer heard of a trial: in mode ``"sync"``, when the last one of its
            batch ended.
        known: How many trials the optimizer had heard of when it began to choose this one.
        points: Where the problem was evaluated, in the unit cube.
        values: What was observed, to be minimised; NaN for a trial that failed.
        truth: The values without noise.
        unfinished: The numbers of the ``w`` trials that were running when the simulation ended.
        unfinished_started: When they had started.
        unfinished_known: As ``known``; an ask that waited beyond the end counts some of these, too.
        optimum: The least value of the problem.
        horizon: When the clocks stop; trials that ended later are there, too.
        seeds: The seed of every run.
        stopped: ``"runtime"``: all clocks reached the horizon; ``"budget"``; ``"exhausted"``: some
            run had nothing left to try, and all trials ended; ``"interrupted"``: by Ctrl-C, and
            what had ended is here.
    """

    trial: Int[Tensor, "r t"]
    started: Float[Tensor, "r t"]
    ended: Float[Tensor, "r t"]
    told: Float[Tensor, "r t"]
    known: Int[Tensor, "r t"]
    points: Float[Tensor, "r t d"]
    values: Float[Tensor, "r t"]
    truth: Float[Tensor, "r t"]
    unfinished: Int[Tensor, "r w"]
    unfinished_started: Float[Tensor, "r w"]
    unfinished_known: Int[Tensor, "r w"]
    optimum: float
    horizon: float
    seeds: tuple[int, ...]
    stopped: Stopped = "runtime"

    @property
    def evaluations(self) -> Int[Tensor, " r"]:
        """How many trials the optimizer heard of by the horizon."""
        return (self.told <= self.horizon).sum(-1)

    @property
    def regret(self) -> Float[Tensor, "r t"]:
        """How far the best of the points evaluated so far lies above the optimum.

        Trials that failed do not count: it is infinite before the first that did not.
        """
        return self._reached.cummin(-1).values - self.optimum

    def regret_at(self, times: Float[Tensor, " k"]) -> Float[Tensor, "r k"]:
        """The regret of what had ended at these times; infinite before the first trial has."""
        late = self.ended.unsqueeze(-1) > times.to(self.ended.device)
        best = self._reached.unsqueeze(-1).masked_fill(late, torch.inf).amin(1)
        return best - self.optimum

    @property
    def _reached(self) -> Float[Tensor, "r t"]:
        """The truth, infinite where a trial failed."""
        return self.truth.masked_fill(~self.values.isfinite(), torch.inf)

    def events(self, run: int = 0) -> Iterator[tuple[Literal["ask", "tell"], int]]:
        """The log of a run: its trials' numbers, as they were asked for and told.

        A simulation of one run with ``refit_every=1`` makes the trials of a `gpbo.Optimizer` with
        its seed that is asked and told in this order, with ``ask(n)`` for ``n`` asks in a row; a
        value that is NaN is told, too, as a failure. (In a batch of runs, up to rounding.)
        """
        ended = self.trial[run].tolist()
        numbers = [*ended, *self.unfinished[run].tolist()]
        known = [*self.known[run].tolist(), *self.unfinished_known[run].tolist()]
        told = 0
        for number, heard_of in sorted(zip(numbers, known, strict=True)):
            for earlier in ended[told:heard_of]:
                yield "tell", earlier
            told = heard_of
            yield "ask", number
        for last in ended[told:]:
            yield "tell", last

    def save(self, path: str | Path) -> None:
        """Write everything to one file: a zip of NumPy arrays and a header in JSON (``.npz``).

        The file appears when it is complete.

        Raises:
            InvalidOption: no file may be written at the path, or its folder does not exist.
        """
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        for name, one in values.items():
            if isinstance(one, Tensor):
                values[name] = one.numpy(force=True)
        archive.write(path, values)

    @classmethod
    def load(cls, path: str | Path) -> "Simulation":
        """What `save` wrote, on the CPU.

        Raises:
            InvalidData: no such file, one that `save` did not write, or one of a later gpbo.
        """
        names = [one.name for one in fields(cls)]
        values = archive.read(path, names, writer="Simulation.save")
        for name, one in values.items():
            if isinstance(one, np.ndarray):
                values[name] = torch.from_numpy(one)
        return cls(**{**values, "seeds": tuple(values["seeds"])})


def simulate(
    problem: str | Problem,
    *,
    workers: int,
    horizon: float = float("inf"),
    budget: int | None = None,
    strategy: str | Strategy = "ts",
    mode: Mode = "async",
    times: str | Times = "exponential",
    latency: float | Literal["measured"] = 0.0,
    refit_every: int = 1,
    runs: int = 1,
    seed: int = 0,
    initial: int | None = None,
    inference: Inference = "map",
    model: Model | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Simulation:
    """Run a strategy with several workers until every run's clock, or its budget, has run out.

    Run ``i`` has the seed ``seed + i``. Under a law of `LAWS` its ``j``-th trial takes the same
    time, and has the same noise, whatever the strategy and the mode. Ctrl-C ends all runs and
    returns what has ended so far.

    A value that is NaN or infinite is a failed trial, heard of when it ends: that run's initial
    design gets one trial more, its model one observation less.

    Args:
        problem: What to minimise, or its name.
        workers: How many trials run at a time.
        horizon: When the clocks stop, in simulated time; a ``budget`` may take its place.
        budget: How many trials of a run end, if its clock does not stop before; in mode
            ``"sync"`` rounded up to whole batches.
        strategy: As in `gpbo.Optimizer`.
        mode: ``"async"``: a worker gets its next trial as soon as its last one ends; ``"sync"``:
            when those of all workers have.
        times: A name in `LAWS`, all of mean 1, or a function of the points.
        latency: How long one ask takes on the simulated clock, during which no other worker is
            asked for; ``"measured"`` for the seconds that it really took, divided by ``runs``. An
            ask that had to wait sees what was told meanwhile.
        refit_every: After how many results the hyperparameters are fitted anew; the posterior
            always knows all results.
        runs: How many.
        seed: The seed of the first run.
        initial: Size of the initial design; by default as in `gpbo.Optimizer`.
        inference: As in `gpbo.Optimizer`, but by default ``"map"``.
        model: As in `gpbo.Optimizer`.
        device: As in `gpbo.Optimizer`; ``"auto"`` is the CPU for many runs, too.
        progress: Whether to report progress on the standard error stream, as the share of the
            horizon, or of the budget, that is spent.

    Raises:
        InvalidOption: an option has a value that is not allowed, ``times`` returned something
            other than times, or a strategy of your own something other than points; see
            `gpbo.strategies.Strategy`.
    """
    runs = whole_number("runs", runs, least=1)
    problem = problems.resolve(problem, runs=runs)
    one_of("mode", mode, get_args(Mode))
    if times not in LAWS if isinstance(times, str) else not callable(times):
        raise InvalidOption(f"times={times!r}: expected one of {', '.join(LAWS)}, or a function")
    horizon = positive_number("horizon", horizon)
    if budget is None and horizon == float("inf"):
        raise InvalidOption("horizon=inf, budget=None: expected a positive number for one of them")
    most = float("inf") if budget is None else whole_number("budget", budget, least=1)
    seconds = 0.0 if latency == "measured" else finite(latency)
    if seconds is None or seconds < 0:
        raise InvalidOption(f"latency={latency!r}: expected 'measured' or a number, 0 or more")
    workers = whole_number("workers", workers, least=1)
    seed = whole_number("seed", seed, least=0)
    if initial is None:
        initial = default_initial(problem.space)
    engine = _Engine(
        problem=problem,
        strategy=resolve_strategy(strategy),
        workers=workers,
        width=workers if mode == "sync" else 1,
        times=LAWS[times] if isinstance(times, str) else times,
        latency="measured" if latency == "measured" else seconds,
        refit_every=whole_number("refit_every", refit_every, least=1),
        initial=whole_number("initial", initial, least=1),
        inference=check_inference(inference),
        model=resolve_model(model),
        seeds=tuple(range(seed, seed + runs)),
        device=resolve_device(device),
    )
    stopped: Stopped = "runtime"
    state = engine.begin()
    with display(f"{engine.strategy.name} on {problem.name}", 100, progress, unit="%") as show:
        try:
            while (
                state.running.trial.shape[1]
                and state.done.trial.shape[1] < most
                and bool((state.now <= horizon).any())
            ):
                state = engine.ask(engine.end(state, engine.width), engine.width)
                if progress:
                    clock = float((state.now / horizon).nan_to_num(nan=0.0).min())
                    spent = max(clock, state.done.trial.shape[1] / most)
                    regret = median_regret([state.done.values], problem.optimum)
                    show(int(100 * min(spent, 1.0)), regret)
            if state.done.trial.shape[1] >= most:
                stopped = "budget"
            elif not state.running.trial.shape[1]:
                stopped = "exhausted"
        except KeyboardInterrupt:
            stopped = "interrupted"
    done = state.done
    return Simulation(
        done.trial,
        done.started,
        done.ended,
        done.told,
        done.known,
        done.x,
        done.values,
        done.truth,
        state.running.trial,
        state.running.started,
        state.running.known,
        problem.optimum,
        horizon,
        engine.seeds,
        stopped,
    )


@dataclass(frozen=True)
class _Trials:
    """Trials of every run; ``ended`` is when they will have, for those that are under way."""

    trial: Int[Tensor, "r t"]
    started: Float[Tensor, "r t"]
    ended: Float[Tensor, "r t"]
    told: Float[Tensor, "r t"]
    known: Int[Tensor, "r t"]
    x: Float[Tensor, "r t d"]
    values: Float[Tensor, "r t"]
    truth: Float[Tensor, "r t"]

    def joined(self, other: "_Trials") -> "_Trials":
        return _Trials(
            **{name: torch.cat([own, getattr(other, name)], 1) for name, own in vars(self).items()}
        )

    def at(self, index: Int[Tensor, "r j"]) -> "_Trials":
        rows = torch.arange(index.shape[0], device=index.device).unsqueeze(-1)
        return _Trials(**{name: own[rows, index] for name, own in vars(self).items()})


@dataclass(frozen=True)
class _Fits:
    """The last fit of every run, and to how many results it was made: 0 where there is none yet."""

    kept: Kept | None  # rows of runs without a fit mean nothing
    size: Int[Tensor, " r"]

    def updated(self, rows: Int[Tensor, " j"], kept: Kept, size: Int[Tensor, " j"]) -> "_Fits":
        """With these fits of these runs."""
        old = selected(kept, torch.zeros_like(self.size)) if self.kept is None else self.kept
        return _Fits(put(old, rows, kept), self.size.index_copy(0, rows, size))


@dataclass(frozen=True)
class _State:
    done: _Trials
    running: _Trials
    now: Float[Tensor, " r"]  # of each run's clock
    free_at: Float[Tensor, " r"]  # when the optimizer has answered all asks so far
    asked: int
    taken: tuple[frozenset[Hashable], ...]
    fits: _Fits

    @property
    def trials(self) -> _Trials:
        """All of them, in the order in which they end."""
        return self.done.joined(self.running.at(self.running.ended.argsort(stable=True)))


@dataclass(frozen=True)
class _Engine:
    """What all runs have in common, and how they advance."""

    problem: Problem
    strategy: Strategy
    workers: int
    width: int  # workers that are asked for together
    times: Times
    latency: float | Literal["measured"]
    refit_every: int
    initial: int
    inference: Inference
    model: Model
    seeds: tuple[int, ...]
    device: torch.device

    def begin(self) -> _State:
        """All workers on their first trials."""
        runs = len(self.seeds)
        nothing = torch.zeros(runs, 0, dtype=DTYPE, device=self.device)
        x = torch.zeros(runs, 0, self.problem.dim, dtype=DTYPE, device=self.device)
        number = nothing.long()
        none = _Trials(number, nothing, nothing, nothing, number, x, nothing, nothing)
        zero = torch.zeros(runs, dtype=DTYPE, device=self.device)
        fits = _Fits(None, zero.long())
        state = _State(none, none, zero, zero, 0, (frozenset(),) * runs, fits)
        for _ in range(self.workers // self.width):
            state = self.ask(state, self.width)
        return state

    def end(self, state: _State, count: int) -> _State:
        """The clocks at the end of the next ``count`` trials to end, which are told."""
        order = state.running.ended.argsort(dim=1, stable=True)
        done = state.running.at(order[:, :count])
        now = done.ended[:, -1]
        told = replace(done, told=now.unsqueeze(-1).expand_as(done.ended))
        left = state.running.at(order[:, count:].sort(dim=1).values)
        return replace(state, done=state.done.joined(told), running=left, now=now)

    def ask(self, state: _State, count: int) -> _State:
        """``count`` workers of every run set to work, one after another.

        Fewer, or none, where some run has nothing left to try.
        """
        began = time.perf_counter()
        known = self._known(state)
        try:
            points, state = self._propose(state, known, count)
        except SpaceExhausted:
            return state
        count = points.shape[1]
        seconds = (time.perf_counter() - began) / (count * len(self.seeds))
        latency = seconds if self.latency == "measured" else self.latency
        asks = 1 + torch.arange(count, dtype=DTYPE, device=self.device)
        started = torch.maximum(state.now, state.free_at).unsqueeze(-1) + latency * asks
        x, asked = points_and_keys(self.problem.space, points)
        numbers = torch.arange(state.asked, state.asked + count, device=self.device)
        trials = [self._evaluated(x[:, j : j + 1], state.asked + j) for j in range(count)]
        took, values = (torch.cat(each, 1) for each in zip(*trials, strict=True))
        ended = started + took
        numbers = numbers.expand(len(x), -1)
        known = known.unsqueeze(-1).expand_as(numbers)
        running = _Trials(numbers, started, ended, ended, known, x, values, self.problem(x))
        return replace(
            state,
            running=state.running.joined(running),
            free_at=started[:, -1],
            asked=state.asked + count,
            taken=tuple(old | new for old, new in zip(state.taken, asked, strict=True)),
        )

    def _known(self, state: _State) -> Int[Tensor, " r"]:
        """How many trials each run has heard of when its ask begins, those while it waited too."""
        begins = torch.where(state.free_at > state.now, state.free_at, -torch.inf)
        meanwhile = state.running.ended <= begins.unsqueeze(-1)
        return state.done.x.shape[1] + meanwhile.sum(-1)

    def _evaluated(
        self, x: Float[Tensor, "r 1 d"], number: int
    ) -> tuple[Float[Tensor, "r 1"], Float[Tensor, "r 1"]]:
        """How long this trial takes, and its value: NaN if it fails."""
        clock, noise = (
            Streams.per_seed(self.seeds, purpose, number, device=self.device)
            for purpose in ("evaluation-time", "noise")
        )
        took = self.times(x, clock)
        if not isinstance(took, Tensor) or took.shape != x.shape[:2] or not bool((took >= 0).all()):
            raise InvalidOption(
                f"times returned {took!r}: expected a tensor of shape {tuple(x.shape[:2])} of "
                "numbers, 0 or more"
            )
        value = self.problem.observe(x, noise)
        return took, torch.where(value.isfinite(), value, torch.nan)

    def _propose(
        self, state: _State, known: Int[Tensor, " r"], count: int
    ) -> tuple[Float[Tensor, "r q d"], _State]:
        """The next points of every run, and the state with the fits that they come from.

        Runs that know of as many trials, and whose initial designs lack as many, are asked
        together. There are as many points as the run with the fewest left has.

        Raises:
            SpaceExhausted: some run has nothing left to try.
        """
        trials = state.trials
        design = self._design_left(trials, known, count)
        points = state.done.x.new_zeros(len(self.seeds), count, self.problem.dim)
        keys = list(zip(known.tolist(), design.tolist(), strict=True))
        for key in sorted({*keys}):
            group = [run for run, own in enumerate(keys) if own == key]
            rows = torch.tensor(group, device=points.device)
            own, state = self._chosen(state, selected(trials, rows), rows, *key, count)
            points = points[:, : own.shape[1]].index_copy(0, rows, own[:, : points.shape[1]])
        return points, state

    def _chosen(
        self,
        state: _State,
        trials: _Trials,
        rows: Int[Tensor, " j"],
        known: int,
        design: int,
        count: int,
    ) -> tuple[Float[Tensor, "j q d"], _State]:
        """The next points of these runs, each of which knows of the first of its trials.

        The first ``design`` points are of the initial design.
        """
        x, values = trials.x[:, :known], trials.values[:, :known]
        succeeded = values.isfinite()
        some = ~succeeded.all(0)
        waiting = known + trials.trial[:, known:].argsort()
        data = with_room(x, values, succeeded, trials.at(waiting).x)
        seeds = tuple(self.seeds[run] for run in rows.tolist())

        fitted = Lazy(lambda: self._fit(data, seeds, rows, state.fits))
        situation = Situation(
            space=self.problem.space,
            data=data,
            failed=x[:, some],
            failed_mask=~succeeded[:, some],
            taken=tuple(state.taken[run] for run in rows.tolist()),
            seeds=seeds,
            index=state.asked,
            fit=lambda: fitted()[0],
        )
        points = SobolSearch().propose(situation, design) if design else data.x[:, :0]
        for point in points.unbind(1):
            situation = situation.after(point)
        if design < count:
            try:
                more = proposed(self.strategy, situation, count - design)
                points = torch.cat([points, more], 1)
            except SpaceExhausted:
                if not design:
                    raise
        used = state.fits if fitted.made is None else fitted.made[1]
        return points, replace(state, fits=used)

    def _design_left(
        self, trials: _Trials, known: Int[Tensor, " r"], wanted: int
    ) -> Int[Tensor, " r"]:
        """As in `gpbo.Optimizer`: it replaces failed trials; nothing is fitted to no result."""
        if not self.strategy.uses_model:
            return torch.zeros_like(known)
        asked = trials.trial.shape[1]
        heard = torch.arange(asked, device=known.device) < known.unsqueeze(-1)
        failed = (heard & ~trials.values.isfinite()).sum(-1)
        left = (self.initial - (asked - failed)).clamp(0, wanted)
        return left.masked_fill(failed == known, wanted)

    def _fit(
        self, data: Observations, seeds: tuple[int, ...], rows: Int[Tensor, " j"], fits: _Fits
    ) -> tuple[Fit, _Fits]:
        """The model of these runs, with hyperparameters fitted anew where enough results came."""
        counts, last = data.counts, fits.size[rows]
        streams = Streams.per_seed(seeds, "fit", counts.tolist(), device=self.device)
        first = last == 0
        for due in (first, ~first & (counts >= last + self.refit_every)):
            if not bool(due.any()):
                continue
            chosen, count = bucket(due)
            warm = None
            if fits.kept is not None and fits.kept.warm is not None and not bool(first[chosen[0]]):
                warm = selected(fits.kept.warm, rows[chosen])
            every = count == data.runs
            own = data if every else selected(data, chosen)
            fitted = fitting.fit(
                own,
                self.model,
                inference=self.inference,
                warm=warm,
                streams=streams.select(chosen.tolist()),
            )
            kept = selected(Kept.of(fitted, own, int(own.counts.max())), slice(count))
            fits = fits.updated(rows[chosen[:count]], kept, counts[chosen[:count]])
            if every:
                return fitted, fits
        assert fits.kept is not None
        return selected(fits.kept, rows).condition(data, self.model.nu), fits

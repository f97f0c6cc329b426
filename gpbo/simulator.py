"""How simulated runs advance: every step is one batch of all runs, each on its own clock."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpbo import fitting
from gpbo.backend import DTYPE, Streams
from gpbo.checkpoint import Checkpoint
from gpbo.completion import Stopped
from gpbo.data import Observations, feasible, with_room
from gpbo.errors import InvalidOption, SpaceExhausted
from gpbo.fitting import Fit, Inference, Model
from gpbo.kept import PLAIN, Kept
from gpbo.lockstep import Show, median_regret
from gpbo.problems import Problem
from gpbo.rows import bucket, put, selected
from gpbo.situation import Lazy, Situation, Strategy, points_and_keys, proposed
from gpbo.strategies import SobolSearch

#: How long evaluations take, 0 or more each, given the points in the unit cube and the random
#: streams of the runs.
Times = Callable[[Float[Tensor, "r q d"], Streams], Float[Tensor, "r q"]]


@dataclass(frozen=True)
class Trials:
    """Trials of every run; for those that still run, ``ended`` is when they will end."""

    trial: Int[Tensor, "r t"]
    started: Float[Tensor, "r t"]
    ended: Float[Tensor, "r t"]
    told: Float[Tensor, "r t"]
    known: Int[Tensor, "r t"]
    points: Float[Tensor, "r t d"]
    values: Float[Tensor, "r t"]
    truth: Float[Tensor, "r t"]
    excess: Float[Tensor, "r t k"]

    @property
    def count(self) -> int:
        """The number of trials of each run."""
        return self.trial.shape[1]

    def joined(self, other: "Trials") -> "Trials":
        """In every run, these trials and then the others."""
        return Trials(
            **{name: torch.cat([own, getattr(other, name)], 1) for name, own in vars(self).items()}
        )

    def at(self, index: Int[Tensor, "r j"]) -> "Trials":
        """The trials at these places of every run."""
        rows = torch.arange(index.shape[0], device=index.device).unsqueeze(-1)
        return Trials(**{name: own[rows, index] for name, own in vars(self).items()})


@dataclass(frozen=True)
class _Fits:
    """The last fit of every run, and how many results it used: 0 where there is none yet."""

    kept: Kept | None  # rows of runs without a fit mean nothing
    size: Int[Tensor, " r"]

    def updated(
        self, data: Observations, runs: Int[Tensor, " j"], kept: Kept, size: Int[Tensor, " j"]
    ) -> "_Fits":
        """The fits with these runs' replaced; each run has as many rows as in ``data``."""
        old = self.kept
        if old is None:
            old = selected(kept, data.rows_of(torch.zeros_like(self.size)))
        new = put(old, data.rows_of(runs), kept)
        return _Fits(new, self.size.index_copy(0, runs, size))


@dataclass(frozen=True)
class State:
    """The state of all runs.

    Attributes:
        done: The trials that ended, in the order in which they ended.
        running: The trials that still run.
        now: The time of each run's clock.
        free_at: When the optimizer will have answered all asks so far.
        asked: How many trials of each run were asked.
        taken: Per run, the keys of all configurations that were asked.
        fits: The last fits, from which the next ones start.
    """

    done: Trials
    running: Trials
    now: Float[Tensor, " r"]
    free_at: Float[Tensor, " r"]
    asked: int
    taken: tuple[frozenset[Hashable], ...]
    fits: _Fits

    @property
    def trials(self) -> Trials:
        """All trials, in the order in which they end."""
        return self.done.joined(self.running.at(self.running.ended.argsort(stable=True)))


#: The dataclasses that states consist of.
KINDS = (State, Trials, _Fits, *PLAIN)


@dataclass(frozen=True)
class Simulator:
    """What all runs have in common, and how they advance."""

    problem: Problem
    strategy: Strategy
    workers: int
    in_step: bool  # whether workers wait for each other
    times: Times
    latency: float | Literal["measured"]
    refit_every: int
    initial: int
    inference: Inference
    model: Model
    seeds: tuple[int, ...]
    device: torch.device
    horizon: float
    budget: float  # of trials that end; infinite without one

    def run(self, show: Show | None, kept: Checkpoint[State]) -> Stopped:
        """Continue from the checkpoint until every clock, or the budget, has run out."""
        try:
            if not kept.state.asked:
                kept.advance(self.begin(kept.state))
            while self._goes_on(kept.state):
                kept.advance(self.advance(kept.state))
                if show is not None:
                    show(*self._progress(kept.state))
        except KeyboardInterrupt:
            return "interrupted"
        if kept.state.done.count >= self.budget:
            return "budget"
        return "runtime" if kept.state.running.count else "exhausted"

    def _goes_on(self, state: State) -> bool:
        left = state.running.count > 0 and state.done.count < self.budget
        return left and bool((state.now <= self.horizon).any())

    def _progress(self, state: State) -> tuple[int, float]:
        """The percentage of the horizon, or of the budget, that is spent; and the median regret."""
        clock = float((state.now / self.horizon).nan_to_num(nan=0.0).min())
        spent = max(clock, state.done.count / self.budget)
        values = feasible(state.done.values, state.done.excess)
        return int(100 * min(spent, 1.0)), median_regret([values], self.problem.optimum)

    def idle(self) -> State:
        """Before the first trial."""
        runs = len(self.seeds)
        nothing = torch.zeros(runs, 0, dtype=DTYPE, device=self.device)
        x = torch.zeros(runs, 0, self.problem.dim, dtype=DTYPE, device=self.device)
        number = nothing.long()
        excess = x.new_zeros(runs, 0, len(self.problem.constraints))
        none = Trials(number, nothing, nothing, nothing, number, x, nothing, nothing, excess)
        zero = torch.zeros(runs, dtype=DTYPE, device=self.device)
        fits = _Fits(None, zero.long())
        return State(none, none, zero, zero, 0, (frozenset(),) * runs, fits)

    def begin(self, state: State) -> State:
        """The state once all workers have their first trials."""
        if self.in_step:
            return self._ask(state, self.workers)
        for _ in range(self.workers):
            state = self._ask(state, 1)
        return state

    def advance(self, state: State) -> State:
        """The state after the next trial has ended, or all workers' trials, and new ones began.

        No worker waits in the initial design, whose points do not depend on results.
        """
        in_design = self.strategy.uses_model and state.asked < self.initial
        together = self.workers if self.in_step and not in_design else 1
        return self._ask(self._end(state, together), together)

    def _end(self, state: State, count: int) -> State:
        """The state after the next ``count`` trials have ended and were told."""
        order = state.running.ended.argsort(dim=1, stable=True)
        done = state.running.at(order[:, :count])
        now = done.ended[:, -1]
        told = replace(done, told=now.unsqueeze(-1).expand_as(done.ended))
        left = state.running.at(order[:, count:].sort(dim=1).values)
        return replace(state, done=state.done.joined(told), running=left, now=now)

    def _ask(self, state: State, count: int) -> State:
        """The state after ``count`` workers of every run got a trial, one after another.

        Fewer, or none, if some run has nothing left to try.
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
        took, values, truth, excess = (torch.cat(each, 1) for each in zip(*trials, strict=True))
        ended = started + took
        numbers = numbers.expand(len(x), -1)
        known = known.unsqueeze(-1).expand_as(numbers)
        running = Trials(numbers, started, ended, ended, known, x, values, truth, excess)
        return replace(
            state,
            running=state.running.joined(running),
            free_at=started[:, -1],
            asked=state.asked + count,
            taken=tuple(old | new for old, new in zip(state.taken, asked, strict=True)),
        )

    def _known(self, state: State) -> Int[Tensor, " r"]:
        """How many trials each run was told of when its ask begins, also those while it waited."""
        begins = torch.where(state.free_at > state.now, state.free_at, -torch.inf)
        meanwhile = state.running.ended <= begins.unsqueeze(-1)
        return state.done.count + meanwhile.sum(-1)

    def _evaluated(
        self, x: Float[Tensor, "r 1 d"], number: int
    ) -> tuple[
        Float[Tensor, "r 1"], Float[Tensor, "r 1"], Float[Tensor, "r 1"], Float[Tensor, "r 1 k"]
    ]:
        """How long this trial takes, and its `gpbo.problems.Problem.results`."""
        clock, noise = (
            Streams.per_seed(self.seeds, purpose, number, device=self.device)
            for purpose in ("evaluation-time", "noise")
        )
        took = self.times(x, clock)
        if not isinstance(took, Tensor) or took.shape != x.shape[:2] or not bool((took >= 0).all()):
            raise InvalidOption(
                f"times returned {took!r}: expected a tensor of shape {tuple(x.shape[:2])} with "
                "numbers, 0 or more"
            )
        return took, *self.problem.results(x, noise)

    def _propose(
        self, state: State, known: Int[Tensor, " r"], count: int
    ) -> tuple[Float[Tensor, "r q d"], State]:
        """The next points of every run, and the state with the fits that they come from.

        Runs that were told of equally many trials, and whose initial designs lack equally many
        points, are asked together. There are as many points as the run with the fewest left has.

        Raises:
            SpaceExhausted: some run has nothing left to try.
        """
        trials = state.trials
        design = self._design_left(trials, known, count)
        points = state.done.points.new_zeros(len(self.seeds), count, self.problem.dim)
        keys = list(zip(known.tolist(), design.tolist(), strict=True))
        for key in sorted({*keys}):
            group = [run for run, own in enumerate(keys) if own == key]
            rows = torch.tensor(group, device=points.device)
            own, state = self._chosen(state, selected(trials, rows), rows, *key, count)
            points = points[:, : own.shape[1]].index_copy(0, rows, own[:, : points.shape[1]])
        return points, state

    def _chosen(
        self,
        state: State,
        trials: Trials,
        rows: Int[Tensor, " j"],
        known: int,
        design: int,
        count: int,
    ) -> tuple[Float[Tensor, "j q d"], State]:
        """The next points of these runs, each of which knows the first ``known`` of its trials.

        The first ``design`` points belong to the initial design.
        """
        told = trials.at(trials.trial[:, :known].argsort())  # by number, as in an optimizer
        succeeded = told.values.isfinite()
        waiting = known + trials.trial[:, known:].argsort()
        all_rows = with_room(
            told.points, told.values, succeeded, trials.at(waiting).points, told.excess
        )
        seeds = tuple(self.seeds[run] for run in rows.tolist())

        fitted = Lazy(lambda: self._fit(all_rows, seeds, rows, state.fits))
        situation = Situation.of_trials(
            self.problem.space,
            told.points,
            succeeded,
            all_rows,
            lambda: fitted()[0],
            taken=tuple(state.taken[run] for run in rows.tolist()),
            seeds=seeds,
            index=state.asked,
        )
        points = told.points[:, :0]
        if design:
            points = SobolSearch().propose(situation, design)
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
        self, trials: Trials, known: Int[Tensor, " r"], count: int
    ) -> Int[Tensor, " r"]:
        """How many of the next ``count`` points of each run belong to the initial design.

        As in `gpbo.Optimizer`: trials that are known to have failed are replaced, and all points
        belong to the design before the first result, when there is nothing to fit to.
        """
        if not self.strategy.uses_model:
            return torch.zeros_like(known)
        heard = torch.arange(trials.count, device=known.device) < known.unsqueeze(-1)
        failed = (heard & ~trials.values.isfinite()).sum(-1)
        left = (self.initial - (trials.count - failed)).clamp(0, count)
        return left.masked_fill(failed == known, count)

    def _fit(
        self, data: Observations, seeds: tuple[int, ...], rows: Int[Tensor, " j"], fits: _Fits
    ) -> tuple[Fit, _Fits]:
        """The model of these runs, with a new fit where enough results came since the last one."""
        counts, last = data.of_values.counts, fits.size[rows]
        streams = Streams.per_seed(
            seeds, "fit", counts.tolist(), rows=data.outputs, device=self.device
        )
        first = last == 0
        chains = None if fits.kept is None else fits.kept.warm
        for due, warm in ((first, None), (~first & (counts >= last + self.refit_every), chains)):
            if not bool(due.any()):
                continue
            chosen, count = bucket(due)
            if warm is not None:
                warm = selected(warm, data.rows_of(rows[chosen]))
            every = count == len(rows)
            due_rows = data.rows_of(chosen)
            own = data if every else selected(data, due_rows)
            fitted = fitting.fit(
                own,
                self.model,
                inference=self.inference,
                warm=warm,
                streams=streams.select(due_rows.tolist()),
            )
            kept = Kept.of(fitted, own)
            kept = selected(kept, slice(count * data.outputs))
            fits = fits.updated(data, rows[chosen[:count]], kept, counts[chosen[:count]])
            if every:
                return fitted, fits
        assert fits.kept is not None
        return selected(fits.kept, data.rows_of(rows)).condition(data, self.model.nu), fits

"""Workers on a simulated clock: how a strategy does with parallel evaluations, many runs at once.

Evaluations take simulated time, random or depending on the point. At every step, in every run, one
worker ends (in mode ``"sync"`` all of them) and gets its next trial. So all runs have the same
number of trials, each on its own clock, and every step is one batch of all runs.
"""

import math
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from gpbo import archive, problems
from gpbo.backend import DTYPE, Streams, resolve_device
from gpbo.checkpoint import Checkpoint, identified
from gpbo.checks import (
    finite,
    is_among,
    one_of,
    positive_number,
    real_number,
    truth_value,
    whole_number,
)
from gpbo.completion import STOPPED, Stopped
from gpbo.data import feasible
from gpbo.design import resolve_initial
from gpbo.errors import InvalidOption
from gpbo.fitting import Inference, Model, check_inference, resolve_model
from gpbo.lockstep import display
from gpbo.problems import Problem
from gpbo.replications import not_counted, over_runs
from gpbo.simulator import KINDS, Simulator, State, Times
from gpbo.situation import Strategy
from gpbo.strategies import resolve_strategy
from gpbo.trial import Mode

__all__ = ["LAWS", "Simulation", "Times", "pareto", "simulate"]


def pareto(shape: float) -> Times:
    """Pareto times of mean 1: most are a little shorter, a few very long.

    Args:
        shape: The tail index, above 1.

    Raises:
        InvalidOption: ``shape`` is not a finite number, or at most 1, so that there is no mean.
    """
    if real_number("shape", shape) <= 1:
        raise InvalidOption(f"shape={shape!r}: expected a number above 1")

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


@dataclass(frozen=True, eq=False, repr=False)
class Simulation:
    """The trials of every run, in the order in which they ended.

    Attributes:
        trial: Their numbers, from 0 in the order in which they were asked.
        started, ended: When, on the simulated clock, which starts at 0.
        told: When the optimizer was told of the trial: in mode ``"sync"``, when the last trial of
            the batch ended.
        known: How many trials the optimizer had been told of when it began to choose this one.
        points: Where the problem was evaluated, in the unit cube.
        values: What was observed, to be minimised; NaN for a trial that failed.
        truth: The values without noise.
        excess: By how much the points exceed each of the problem's ``k`` limits; 0 or less where
            they meet the constraint.
        unfinished: The numbers of the ``w`` trials that were running when the simulation ended.
        unfinished_started: When they started.
        unfinished_known: As ``known``; an ask that waited beyond the end counts some of these, too.
        optimum: The least value of the problem.
        horizon: When the clocks stop; trials that ended later are included.
        seeds: The seed of every run.
        stopped: ``"runtime"``: all clocks reached the horizon; ``"budget"``; ``"exhausted"``: some
            run had nothing left to try, and all trials ended; ``"interrupted"``: by Ctrl-C; the
            trials are those that had ended.
    """

    trial: Int[Tensor, "r t"]
    started: Float[Tensor, "r t"]
    ended: Float[Tensor, "r t"]
    told: Float[Tensor, "r t"]
    known: Int[Tensor, "r t"]
    points: Float[Tensor, "r t d"]
    values: Float[Tensor, "r t"]
    truth: Float[Tensor, "r t"]
    excess: Float[Tensor, "r t k"]
    unfinished: Int[Tensor, "r w"]
    unfinished_started: Float[Tensor, "r w"]
    unfinished_known: Int[Tensor, "r w"]
    optimum: float
    horizon: float
    seeds: tuple[int, ...]
    stopped: Stopped = "runtime"

    @property
    def evaluations(self) -> Int[Tensor, " r"]:
        """How many trials the optimizer was told of by the horizon."""
        return (self.told <= self.horizon).sum(-1)

    @property
    def regret(self) -> Float[Tensor, "r t"]:
        """How far the best of the points evaluated so far lies above the optimum.

        Trials that failed, or violate a constraint, do not count; before the first that counts the
        regret is infinite.
        """
        return self._reached.cummin(-1).values - self.optimum

    def regret_at(
        self, times: float | Sequence[float] | Float[np.ndarray, " k"] | Shaped[Tensor, " k"]
    ) -> Float[Tensor, "r k"]:
        """The regret of the trials that had ended by these times; infinite before the first one.

        Args:
            times: On the simulated clock: a list, an array or a tensor of numbers, or one number.

        Raises:
            InvalidOption: ``times`` are not such numbers.
        """
        return self._reached_at(times) - self.optimum

    def _reached_at(self, times: object) -> Float[Tensor, "r k"]:
        try:
            at = torch.as_tensor(times, dtype=DTYPE, device=self.ended.device)
        except (TypeError, ValueError, RuntimeError):  # torch's errors for what is not a number
            at = self.ended.new_zeros(0, 0)
        if at.ndim > 1:
            raise InvalidOption(
                f"times={reprlib.repr(times)}: expected a number, or a list of them"
            )
        at = at.flatten()
        late = self.ended.unsqueeze(-1) > at
        reached = self._reached.unsqueeze(-1).masked_fill(late, torch.inf)
        none_yet = reached.new_full((len(reached), 1, len(at)), torch.inf)
        return torch.cat([none_yet, reached], 1).amin(1)

    @property
    def _reached(self) -> Float[Tensor, "r t"]:
        """The true values, infinite where a trial does not count."""
        counted = feasible(self.values, self.excess).isfinite()
        return self.truth.masked_fill(~counted, torch.inf)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        trials, running = self.trial.shape[1], self.unfinished.shape[1]
        lines = [
            f"{len(self.seeds)} runs, in each {trials} trials ended and {running} were running, "
            f"{STOPPED[self.stopped]}"
        ]
        by = "" if math.isinf(self.horizon) else f" by time {self.horizon:g}"
        what, final = "simple regret", self.regret_at(self.horizon)
        if math.isnan(self.optimum):
            what, final = "true value at the best trial", self._reached_at(self.horizon)
        counted = final.isfinite()
        lines += over_runs(what + by, final[counted].numpy(force=True))
        if self.excess.shape[-1]:
            lines.append(not_counted(int((~counted).sum())))
        heard = self.evaluations.numpy(force=True)
        return "\n".join([*lines, *over_runs(f"results told{by}", heard)])

    def events(self, run: int = 0) -> Iterator[tuple[Literal["ask", "tell"], int]]:
        """The log of a run: the numbers of its trials, as they were asked and told.

        A simulation of one run with ``refit_every=1`` makes the same trials as a `gpbo.Optimizer`
        with its seed that is asked and told in this order, with ``ask(n)`` for ``n`` asks in a row;
        a value that is NaN is told as a failure. (In a batch of runs, up to rounding.)
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

        The file appears only when it is complete.

        Raises:
            InvalidOption: the path cannot be written, or its folder does not exist.
        """
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        for name, one in values.items():
            if isinstance(one, Tensor):
                values[name] = one.numpy(force=True)
        archive.write(path, values)

    @classmethod
    def load(cls, path: str | Path) -> "Simulation":
        """Read what `save` wrote, on the CPU.

        Raises:
            InvalidData: no such file, not written by `save`, or by a later version of gpbo.
        """
        names = [one.name for one in fields(cls)]
        known = [name for name in names if name != "excess"]  # which older versions did not have
        values = archive.read(path, known, writer="Simulation.save")
        values.setdefault("excess", values["points"][..., :0])
        for name, one in values.items():
            if isinstance(one, np.ndarray):
                values[name] = torch.from_numpy(one)
        return cls(**{**values, "seeds": tuple(values["seeds"])})


@torch.inference_mode(False)  # a caller's, as in `gpbo.Optimizer`
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
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Simulation:
    """Run a strategy with several workers until every run's clock, or its budget, has run out.

    Run ``i`` has the seed ``seed + i``. With times from `LAWS` its ``j``-th trial takes the same
    time, and has the same noise, whatever the strategy and the mode. Ctrl-C ends all runs and
    returns the trials that have ended. With a ``checkpoint``, repeating the call continues after
    that, or after a crash, and makes the same trials as without the interruption.

    A value that is NaN or infinite is a failed trial, known when it ends: that run's initial design
    gets one more trial, its model one observation less.

    Args:
        problem: What to minimise, or its name.
        workers: How many trials run at a time.
        horizon: When the clocks stop, in simulated time; may be left out with a ``budget``.
        budget: How many trials of a run end, unless its clock stops first; in mode ``"sync"`` the
            last batch is completed.
        strategy: As in `gpbo.Optimizer`.
        mode: ``"async"``: a worker gets its next trial as soon as its last one ends; ``"sync"``:
            as soon as all workers' trials have ended. In the initial design, whose points do not
            depend on results, no worker waits.
        times: A name in `LAWS`, all of mean 1, or a function of the points ``[r,q,d]`` and random
            streams that returns their times ``[r,q]``.
        latency: How long one ask takes on the simulated clock, during which the optimizer serves
            no other worker; ``"measured"`` for the seconds that it really took, divided by
            ``runs``. An ask that had to wait knows what was told meanwhile.
        refit_every: After how many results the hyperparameters are fitted again; the posterior is
            always conditioned on all results.
        runs: The number of runs.
        seed: The seed of the first run.
        initial: Size of the initial design; by default as in `gpbo.Optimizer`.
        inference: As in `gpbo.Optimizer`, but by default ``"map"``.
        model: As in `gpbo.Optimizer`.
        device: As in `gpbo.Optimizer`; ``"auto"`` is the CPU, even for many runs.
        checkpoint: As in `gpbo.replicate`: a file from which the next call continues, with a larger
            ``horizon`` or ``budget`` if wanted.
        progress: Whether to report progress on the standard error stream, as the share of the
            horizon, or of the budget, that is spent.

    Raises:
        InvalidOption: an option has a value that is not allowed, or differs from that in the
            ``checkpoint``; ``times`` returned something other than times, or a strategy of your own
            something other than points, see `gpbo.situation.Strategy`.
        InvalidData: the ``checkpoint`` is not such a file.
    """
    runs = whole_number("runs", runs, least=1)
    problem = problems.resolve(problem, runs=runs)
    one_of("mode", mode, get_args(Mode))
    truth_value("progress", progress)
    law = LAWS.get(times) if isinstance(times, str) else times
    if not callable(law):
        raise InvalidOption(f"times={times!r}: expected one of {', '.join(LAWS)}, or a function")
    horizon = positive_number("horizon", horizon)
    if budget is None and horizon == float("inf"):
        raise InvalidOption("horizon=inf, budget=None: expected a limit for at least one of them")
    if not is_among(latency, ("measured",)):
        seconds = finite(latency)
        if seconds is None or seconds < 0:
            raise InvalidOption(
                f"latency={latency!r}: expected 'measured' or a finite number, 0 or more"
            )
        latency = seconds
    workers = whole_number("workers", workers, least=1)
    seed = whole_number("seed", seed, least=0)
    simulator = Simulator(
        problem=problem,
        strategy=resolve_strategy(strategy),
        workers=workers,
        in_step=mode == "sync",
        times=law,
        latency=latency,
        refit_every=whole_number("refit_every", refit_every, least=1),
        initial=resolve_initial(initial, problem.space),
        inference=check_inference(inference),
        model=resolve_model(model),
        seeds=tuple(range(seed, seed + runs)),
        device=resolve_device(device),
        horizon=horizon,
        budget=math.inf if budget is None else float(whole_number("budget", budget, least=1)),
    )
    kept: Checkpoint[State] = Checkpoint(
        checkpoint,
        identified(
            problem,
            simulator.strategy,
            simulator.model,
            runs=runs,
            seed=seed,
            workers=workers,
            mode=mode,
            times=times if isinstance(times, str) else None,
            latency=latency,
            refit_every=simulator.refit_every,
            initial=simulator.initial,
            inference=inference,
        ),
        first=simulator.idle(),
        kinds=KINDS,
        device=simulator.device,
    )
    title = f"{simulator.strategy.name} on {problem.name}"
    with display(title, 100, progress, unit="%") as show, closing(kept):
        stopped = simulator.run(show, kept)
    state = kept.state
    return Simulation(
        **vars(state.done),
        unfinished=state.running.trial,
        unfinished_started=state.running.started,
        unfinished_known=state.running.known,
        optimum=problem.optimum,
        horizon=horizon,
        seeds=simulator.seeds,
        stopped=stopped,
    )

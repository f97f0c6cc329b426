"""Warm-up and sampling: transitions of HMC or NUTS, until every chain has enough of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpbo.backend import Streams
from gpbo.checks import one_of, whole_number
from gpbo.errors import InvalidOption
from gpbo.graphs import replayed
from gpbo.mcmc.adaptation import TARGET, DualAveraging, fisher_scale, refreshed_scale
from gpbo.mcmc.hmc import LENGTHS, transition
from gpbo.mcmc.leapfrog import LogDensity
from gpbo.mcmc.nuts import ACCEPTANCE, STEPS, Noise, Point, Trajectory, begin, tick, unpack

#: Ticks between two checks of whether all chains are done: many where a check makes the host wait
#: for the device, few where it costs nothing. On a GPU, a CUDA graph has this many.
_TICKS_PER_LOOK = {"cpu": 4, "cuda": 16}
_TICKS_PER_NOISE = 64

Kernel = Literal["nuts", "hmc"]


@dataclass(frozen=True)
class Warmth:
    """What the next sampling of a similar density starts from.

    Attributes:
        position: Last position of every chain.
        value: Log-density there.
        step_size: Step size of every run, corrected for the acceptance of the draws.
        scale: A factor of every run's inverse mass matrix, already brought up to date with the
            draws that it comes with.
        gradient: Gradient of the log-density there, if it and the value are those of the density to
            be sampled; if None, both are computed.
    """

    position: Float[Tensor, "r c p"]
    value: Float[Tensor, "r c"]
    step_size: Float[Tensor, "r"]
    scale: Float[Tensor, "r p p"]
    gradient: Float[Tensor, "r c p"] | None = None

    def of_chains(self, own: Int[Tensor, "r j"]) -> "Warmth":
        """Every run with these of its chains, each as often as it is listed."""
        gradient = self.gradient
        return replace(
            self,
            position=self.position.take_along_dim(own[..., None], 1),
            value=self.value.gather(1, own),
            gradient=None if gradient is None else gradient.take_along_dim(own[..., None], 1),
        )


@dataclass(frozen=True)
class Draws:
    """The transitions kept, per run and chain.

    Attributes:
        position: The draws.
        value: Log-density of the draws.
        acceptance: Mean acceptance probability of each transition's leaves.
        steps: Leapfrog steps of each transition.
        diverged: 1 where a transition ended in a divergence, else 0.
        saturated: 1 where it was cut off at the maximal depth, else 0.
        warmth: What the next sampling can start from.
        warmup_steps: Leapfrog steps per chain that were spent on warm-up.
    """

    position: Float[Tensor, "r c t p"]
    value: Float[Tensor, "r c t"]
    acceptance: Float[Tensor, "r c t"]
    steps: Float[Tensor, "r c t"]
    diverged: Float[Tensor, "r c t"]
    saturated: Float[Tensor, "r c t"]
    warmth: Warmth
    warmup_steps: Float[Tensor, "r"]


@dataclass(frozen=True)
class Schedule:
    """How many transitions each phase has.

    Attributes:
        windows: Cold warm-up: transitions of the windows that end with a new mass matrix, that of
            `fisher_scale` (Seyboldt, Carlson and Carpenter 2026) from the draws and gradients in
            the second half of the window, of all chains of the run. A warm start has none and
            keeps the mass matrix.
        settle: Transitions after that which only settle the step size. Without any, the step size
            is fixed during a sampling, and follows the acceptance from one sampling to the next.
        draws: Transitions kept.
        kernel: ``"nuts"``, which adapts the length of trajectories; or ``"hmc"``, for a start in
            the posterior, with trajectories of ``gpbo.mcmc.hmc.LENGTHS``.
        max_depth: A trajectory of NUTS has at most ``2^max_depth - 1`` leapfrog steps.
    """

    windows: tuple[int, ...]
    settle: int
    draws: int
    kernel: Kernel
    max_depth: int = 7

    def __post_init__(self) -> None:
        whole_number("draws", self.draws, least=1)
        whole_number("settle", self.settle, least=0)
        for window in self.windows:
            whole_number("windows", window, least=2)
        one_of("kernel", self.kernel, get_args(Kernel))
        if not 1 <= self.max_depth <= 12:
            raise InvalidOption(f"max_depth={self.max_depth}: expected 1 to 12")


def sample(
    log_density: LogDensity,
    start: Warmth,
    schedule: Schedule,
    streams: Streams,
) -> Draws:
    """Draws from a density for every run and chain.

    Args:
        log_density: Over ``k = r * c`` rows, the chains of a run adjacent.
        start: Positions, step sizes and inverse mass; a cold start only needs the order of
            magnitude of the latter two.
        schedule: Lengths of the phases.
        streams: One stream per run.
    """
    with torch.inference_mode():
        runs, chains, _ = start.position.shape
        place, step_size, scale = _begun(log_density, start), start.step_size, start.scale
        warmup_steps = torch.zeros_like(step_size)
        for phase, length in enumerate((*schedule.windows, schedule.settle)):
            if length == 0:
                continue
            driver = _Driver(log_density, schedule, streams, chains, scale)
            averaging = DualAveraging.start(step_size)
            records, step_size = driver.run(place, step_size, length, averaging)
            place = _reached(records, scale)
            warmup_steps += _by_run(records, runs)[..., STEPS].sum(-1).mean(-1)
            if phase < len(schedule.windows):
                second_half = _by_run(records, runs)[:, :, length // 2 :]
                scale = fisher_scale(*_draws_and_gradients(second_half, scale))
        driver = _Driver(log_density, schedule, streams, chains, scale)
        records, _ = driver.run(place, step_size, schedule.draws)
        draws, gradients = _draws_and_gradients(_by_run(records, runs), scale)
        scale = refreshed_scale(scale, draws, gradients)
        excess = _by_run(records, runs)[..., ACCEPTANCE].mean((1, 2)) - TARGET
        step_size = step_size * excess.exp()
    by_run = _by_run(records.clone(), runs)
    position, _, value = unpack(by_run[..., :ACCEPTANCE])
    acceptance, steps, diverged, saturated = by_run[..., ACCEPTANCE:].unbind(-1)
    return Draws(
        position=position,
        value=value,
        acceptance=acceptance,
        steps=steps,
        diverged=diverged,
        saturated=saturated,
        warmth=Warmth(
            position[:, :, -1],
            value[:, :, -1],
            step_size.clone(),
            scale.clone(),
            gradients[:, :, -1].clone(),
        ),
        warmup_steps=warmup_steps.clone(),
    )


@dataclass(frozen=True)
class _Place:
    """Where chains are, the log-density there and its gradient."""

    position: Float[Tensor, "k p"]
    value: Float[Tensor, "k"]
    gradient: Float[Tensor, "k p"]


def _begun(log_density: LogDensity, start: Warmth) -> _Place:
    position = start.position.flatten(0, 1)
    if start.gradient is None:
        return _Place(position, *log_density(position))
    return _Place(position, start.value.flatten(), start.gradient.flatten(0, 1))


def _reached(records: Float[Tensor, "k t packed"], scale: Float[Tensor, "r p p"]) -> _Place:
    last = _by_run(records[:, -1:], len(scale))
    position, gradient = _draws_and_gradients(last, scale)
    _, _, value = unpack(last[..., :ACCEPTANCE])
    return _Place(position.flatten(0, 2), value.flatten(), gradient.flatten(0, 2))


@dataclass(frozen=True)
class _Driver:
    """Makes transitions with one mass matrix until every chain has enough of them."""

    log_density: LogDensity
    schedule: Schedule
    streams: Streams
    chains: int
    scale: Float[Tensor, "r p p"]

    def run(
        self,
        place: _Place,
        step_size: Float[Tensor, "r"],
        transitions: int,
        averaging: DualAveraging | None = None,
    ) -> tuple[Float[Tensor, "k t packed"], Float[Tensor, "r"]]:
        """``transitions`` records of every chain, and the step size per run to continue with.

        It is fixed, or with dual averaging follows the acceptance, pooled over a run's chains.
        """
        run = self._run_nuts if self.schedule.kernel == "nuts" else self._run_hmc
        by_run = place.gradient.reshape(len(self.scale), self.chains, -1)
        whitened = (by_run @ self.scale).flatten(0, 1)
        point = Point(place.position, whitened, place.value)
        return run(point, step_size, transitions, averaging)

    def _run_nuts(
        self,
        point: Point,
        step_size: Float[Tensor, "r"],
        transitions: int,
        averaging: DualAveraging | None,
    ) -> tuple[Float[Tensor, "k t packed"], Float[Tensor, "r"]]:
        rows, dim = point.position.shape
        device = point.position.device
        row = torch.arange(rows, device=device)
        # One slot more than is kept: chains that are done continue, and write there.
        records = point.position.new_zeros(rows, transitions + 1, 2 * dim + 5)
        noise = self._noise(dim)
        walk = _Walk(
            state=begin(point, next(noise), self.schedule.max_depth),
            step=step_size.repeat_interleave(self.chains),
            finished=torch.zeros_like(row),
            wanted=torch.full_like(row[0], transitions),
            averaging=averaging,
        )
        with replayed(_advance, device) as advance:
            while True:
                ticks = tuple(next(noise) for _ in range(_TICKS_PER_LOOK[device.type]))
                walk, (slots, told) = advance(walk, self.log_density, self.scale, ticks)
                records[row.expand_as(slots), slots] = told
                if bool((walk.finished == transitions).all()):
                    averaging = walk.averaging
                    if averaging is not None:
                        step_size = averaging.log_average.exp()
                    return records[:, :transitions], step_size

    def _run_hmc(
        self,
        point: Point,
        step_size: Float[Tensor, "r"],
        transitions: int,
        averaging: DualAveraging | None,
    ) -> tuple[Float[Tensor, "k t packed"], Float[Tensor, "r"]]:
        streams, records = self.streams.spawn(), []
        with replayed(transition, point.position.device) as moved:
            for length in islice(cycle(LENGTHS), transitions):
                if averaging is not None:
                    step_size = averaging.log_step.exp()
                momentum = streams.normal(self.chains, point.position.shape[1]).flatten(0, 1)
                log_uniform = streams.uniform(self.chains).flatten().log()
                point, record = moved(
                    point,
                    self.log_density,
                    step_size,
                    self.scale,
                    momentum,
                    log_uniform,
                    length,
                )
                records.append(record.clone())
                if averaging is not None:
                    done = torch.ones_like(log_uniform, dtype=torch.bool)
                    averaging = averaging.update(done, records[-1][:, ACCEPTANCE])
        if averaging is not None:
            step_size = averaging.log_average.exp()
        return torch.stack(records, 1), step_size

    def _noise(self, dim: int) -> Iterator[Noise]:
        # The number of ticks depends on the slowest run; what a run draws must not.
        streams = self.streams.spawn()
        while True:
            shape = (_TICKS_PER_NOISE, self.chains)
            momentum = streams.normal(*shape, dim).transpose(0, 1).flatten(1, 2)
            kinetic = 0.5 * momentum.square().sum(-1)
            uniform = streams.uniform(*shape, 3).transpose(0, 1).flatten(1, 2)
            log_uniform = uniform[..., :2].log().mT
            growing = torch.stack([uniform[..., 2] < 0.5, uniform[..., 2] >= 0.5], dim=-1)
            yield from map(Noise, momentum, kinetic, log_uniform, growing)


@dataclass(frozen=True)
class _Walk:
    """Where all chains are, and how many of the ``wanted`` transitions each has finished."""

    state: Trajectory
    step: Float[Tensor, "k"]
    finished: Int[Tensor, "k"]
    wanted: Int[Tensor, ""]
    averaging: DualAveraging | None


def _advance(
    walk: _Walk, log_density: LogDensity, scale: Float[Tensor, "r p p"], noise: tuple[Noise, ...]
) -> tuple[_Walk, tuple[Int[Tensor, "ticks k"], Float[Tensor, "ticks k packed"]]]:
    """A tick for each noise; and what each recorded, with the slot where it belongs."""
    state, step, finished, averaging = walk.state, walk.step, walk.finished, walk.averaging
    slots, records = [], []
    for own in noise:
        state, ended = tick(log_density, state, step, scale, own)
        counted = ended.done & (finished < walk.wanted)
        slots.append(torch.where(counted, finished, walk.wanted))
        records.append(ended.record)
        finished = finished + counted
        if averaging is not None:
            averaging = averaging.update(counted, ended.record[:, ACCEPTANCE])
            # A step size must not change within a trajectory.
            proposed = averaging.log_step.exp().repeat_interleave(len(step) // len(scale))
            step = torch.where(ended.done, proposed, step)
    advanced = _Walk(state, step, finished, walk.wanted, averaging)
    return advanced, (torch.stack(slots), torch.stack(records))


def _by_run(records: Float[Tensor, "k t packed"], runs: int) -> Float[Tensor, "r c t packed"]:
    return records.reshape(runs, -1, *records.shape[1:])


def _draws_and_gradients(
    records: Float[Tensor, "r c t packed"], scale: Float[Tensor, "r p p"]
) -> tuple[Float[Tensor, "r c t p"], Float[Tensor, "r c t p"]]:
    """Positions and gradients of recorded transitions, the latter no longer whitened."""
    position, whitened, _ = unpack(records[..., :ACCEPTANCE])
    gradient = torch.linalg.solve_triangular(
        scale.mT, whitened.flatten(1, 2).mT, upper=True
    ).mT.reshape(position.shape)
    return position, gradient

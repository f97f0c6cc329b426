"""A batch is computed in parts that fit a budget, and less at once where memory runs out."""

import logging
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gpbo import linalg, memory
from gpbo.acquisition import LogExpectedImprovement
from gpbo.backend import DTYPE, Streams
from gpbo.data import Observations
from gpbo.design import sobol
from gpbo.memory import budget, in_parts
from gpbo.surrogate import Surrogate

CPU = torch.device("cpu")
RUNS, POINTS = 5, 7
WHOLE = torch.arange(RUNS * 3 * POINTS * 2, dtype=DTYPE).view(RUNS, 3, POINTS, 2)


@pytest.fixture(autouse=True)
def _own_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_lowered", {})
    monkeypatch.setattr(memory, "_LEAST_BYTES", 1)


class Machine:
    """Has room for so many points at a time, and counts what it is asked for."""

    def __init__(self, room: float = float("inf")) -> None:
        self.room = room
        self.parts: list[tuple[int, int]] = []
        self.failures = 0

    def __call__(self, rows: slice, columns: slice) -> tuple[Tensor, ...]:
        part = WHOLE[rows, :, columns]
        if part.shape[0] * part.shape[2] > self.room:
            self.failures += 1
            raise torch.OutOfMemoryError("no room")
        self.parts.append((part.shape[0], part.shape[2]))
        return part[..., 0], part


def everything(machine: Machine, bytes_each: int) -> tuple[Tensor, ...]:
    return in_parts(machine, RUNS, POINTS, bytes_each, CPU, axis=2)


@pytest.mark.parametrize(
    ("allowed", "parts"),
    [
        (100, [(5, 7)]),  # all at once
        (35, [(5, 7)]),
        (34, [(3, 7), (2, 7)]),  # whole runs, evenly
        (7, [(1, 7)] * 5),
        (6, [(1, 4), (1, 3)] * 5),  # points of one run, evenly
        (1, [(1, 1)] * 35),
        (0, [(1, 1)] * 35),  # nothing fits: the least that there is
    ],
)
def test_parts_are_whole_runs_as_long_as_one_fits(
    allowed: int, parts: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CPU_BYTES", 11 * allowed + 10)
    machine = Machine()
    flat, deep = everything(machine, 11)
    assert machine.parts == parts
    assert torch.equal(flat, WHOLE[..., 0])
    assert torch.equal(deep, WHOLE)


@pytest.mark.parametrize("room", [1, 2, 6, 7, 20, 34])
def test_out_of_memory_halves_the_parts_and_changes_nothing(
    room: int, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(room)
    with caplog.at_level(logging.WARNING, "gpbo"):
        flat, deep = everything(machine, 11)
    assert torch.equal(flat, WHOLE[..., 0])
    assert torch.equal(deep, WHOLE)
    assert 2 <= machine.failures <= 7
    assert len(caplog.records) == machine.failures - 1  # after the first what is idle is let go of
    assert "out of memory on cpu" in caplog.text


def test_what_was_learned_stays_for_the_device_and_no_other() -> None:
    machine = Machine(20)
    everything(machine, 11)
    assert budget(CPU) <= 20 * 11
    failures = machine.failures
    everything(machine, 11)
    assert machine.failures == failures
    assert set(memory._lowered) == {CPU}


def test_one_point_of_one_run_without_room_is_an_error() -> None:
    machine = Machine(0)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        everything(machine, 11)
    assert machine.failures <= 8


def test_what_is_idle_is_let_go_of_even_for_a_single_point(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(0)
    monkeypatch.setattr(memory, "_CPU_BYTES", 11)
    monkeypatch.setattr(memory, "release", lambda device: setattr(machine, "room", 1))
    assert torch.equal(everything(machine, 11)[1], WHOLE)
    assert machine.failures == 1


def test_memory_that_is_short_for_a_moment_lowers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(0)

    def let_go(device: torch.device) -> None:
        assert device == CPU
        machine.room = 35

    monkeypatch.setattr(memory, "release", let_go)
    assert torch.equal(everything(machine, 11)[1], WHOLE)
    assert machine.parts == [(5, 7)]
    assert not memory._lowered


def test_a_small_call_without_room_takes_little_from_later_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "_LEAST_BYTES", 2**20)
    everything(Machine(2), 11)
    assert budget(CPU) == 2**20


def test_other_errors_are_not_out_of_memory() -> None:
    def broken(rows: slice, columns: slice) -> tuple[Tensor, ...]:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        in_parts(broken, RUNS, POINTS, 11, CPU)
    assert memory._lowered == {}


def test_nothing_to_compute_is_one_empty_part() -> None:
    (empty,) = in_parts(lambda rows, columns: (WHOLE[rows, :, :0],), RUNS, 0, 11, CPU, axis=2)
    assert empty.shape == (RUNS, 3, 0, 2)


@pytest.mark.gpu
def test_a_gpu_may_use_a_share_of_its_memory() -> None:
    device = torch.device("cuda")
    assert budget(device) == torch.cuda.get_device_properties(device).total_memory // 64


# --- the surrogate in parts


def surrogate() -> Surrogate:
    streams = Streams.named(3, "memory", runs=RUNS)
    x = sobol(11, 2, streams)
    mask = torch.arange(11) < torch.tensor([[11], [3], [7], [1], [5]])
    data = Observations.of(x, (x - 0.3).square().sum(-1), mask)
    one = torch.ones(RUNS, 3, dtype=DTYPE)
    lengthscale = 0.3 + streams.uniform(3, 2)
    return Surrogate.condition(data.x, data.y, mask, lengthscale, one, 1e-3 * one, 0 * one)


Evaluate = Callable[[Surrogate, Tensor], tuple[Tensor, ...]]
EVALUATIONS: dict[str, Evaluate] = {
    "moments": lambda posterior, x: posterior.moments(x),
    "gradients": lambda posterior, x: posterior.moments_and_gradients(x),
    "log EI": lambda posterior, x: LogExpectedImprovement(
        posterior, posterior.incumbent
    ).value_and_gradient(x),
}


@pytest.mark.parametrize("name", EVALUATIONS)
@pytest.mark.parametrize("allowed", [1, 4, 13, 30])
def test_a_posterior_in_parts_is_the_posterior(
    name: str, allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    posterior, x = surrogate(), sobol(13, 2, Streams.named(4, "x", runs=RUNS))
    whole = EVALUATIONS[name](posterior, x)
    monkeypatch.setattr(memory, "_CPU_BYTES", allowed * 3 * 11 * 8)
    for part, expected in zip(EVALUATIONS[name](posterior, x), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("allowed", "parts"),
    [
        (15 * 13, [(5, 3, 13)]),  # runs, draws and candidates, all at once
        (6 * 13, [(2, 3, 13), (2, 3, 13), (1, 3, 13)]),
        (3 * 13 - 1, [(1, 2, 13), (1, 1, 13)] * 5),
        (13, [(1, 1, 13)] * 15),
        (12, [(1, 1, 7), (1, 1, 6)] * 15),
    ],
)
def test_parts_are_of_draws_as_long_as_one_fits(
    allowed: int, parts: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    posterior, x = surrogate(), sobol(13, 2, Streams.named(4, "x", runs=RUNS))
    genuine = Surrogate._moments_at
    seen: list[tuple[int, int, int]] = []

    def noted(self: Surrogate, candidates: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((self.runs, self.draws, candidates.shape[1]))
        return genuine(self, candidates)

    monkeypatch.setattr(Surrogate, "_moments_at", noted)
    monkeypatch.setattr(memory, "_CPU_BYTES", allowed * 11 * 8)
    posterior.moments(x)
    assert seen == parts


@pytest.mark.parametrize("matrices", [1, 2, 3, 7])
def test_factors_in_parts_are_the_factors(matrices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = surrogate()
    monkeypatch.setattr(memory, "_CPU_BYTES", matrices * 11**2 * 8)
    sizes: list[int] = []
    genuine = linalg.cholesky

    def noted(matrix: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(matrix.shape[0] * matrix.shape[1])
        return genuine(matrix)

    monkeypatch.setattr(linalg, "cholesky", noted)
    in_part = surrogate()
    assert max(sizes) <= matrices
    assert sum(sizes) == RUNS * 3
    for name in ("inverse_factor", "weights", "noise_variance", "succeeded"):
        one, other = getattr(in_part, name), getattr(whole, name)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_moments_in_parts_have_their_gradients_by_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = surrogate()
    x = sobol(13, 2, Streams.named(4, "x", runs=RUNS)).requires_grad_()
    monkeypatch.setattr(memory, "_CPU_BYTES", 4 * 3 * 11 * 8)
    mean, _ = posterior.moments(x)
    (gradient,) = torch.autograd.grad(mean.sum(), x)
    expected = posterior.moments_and_gradients(x.detach())[2].sum(1)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)


def test_a_posterior_backs_off_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior, x = surrogate(), sobol(13, 2, Streams.named(4, "x", runs=RUNS))
    whole = posterior.moments(x)
    genuine = Surrogate._moments_at
    sizes: list[int] = []

    def small_machine(self: Surrogate, candidates: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(candidates.shape[0] * candidates.shape[1])
        if sizes[-1] > 9:
            raise torch.OutOfMemoryError("no room")
        return genuine(self, candidates)

    monkeypatch.setattr(Surrogate, "_moments_at", small_machine)
    for part, expected in zip(posterior.moments(x), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-11)
    failed = [place for place, size in enumerate(sizes) if size > 9]
    assert sizes[0] == RUNS * 13
    assert 4 <= max(sizes[failed[-1] + 1 :]) <= 9


# --- a long experiment


RESIDENT = """
import ctypes, resource, sys, torch, gpbo
from dataclasses import replace
from functools import partial
from pathlib import Path
from gpbo import fitting
from gpbo.allocator import _is_glibc
from gpbo.candidates import Search
from gpbo.surrogate import Surrogate

budget, runs, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def resident():
    if _is_glibc():  # what it keeps for the next temporaries, 256 MB at most, is no growth
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

if how == "fixed":
    genuine, reports = fitting.fit, []

    def at_fixed_hyperparameters(data, *args, **options):
        if not reports:
            reports.append(genuine(data, *args, **options).report)
        one = torch.ones(data.runs, 1, dtype=torch.float64)
        lengthscale = 0.5 * one[..., None].expand(-1, -1, data.dim)
        fixed = Surrogate.condition(
            data.x, data.y, data.mask, lengthscale, one, 0.01 * one, 0 * one
        )
        return fitting.Fit(fixed, reports[0], None, None)

    fitting.fit = at_fixed_hyperparameters
if how == "brief":  # trajectories of one leapfrog step
    schedule_for = fitting.schedule_for
    fitting.schedule_for = lambda *args, **cold: replace(schedule_for(*args, **cold), max_depth=1)
    fitting.Sampling = partial(
        fitting.Sampling, chains=1, warmup=8, draws=1, warm_draws=1, kept=1
    )

torch.set_num_threads(1)
search = Search(64, 8, 4, 10) if how in ("map", "nuts") else Search(16, 4, 1, 3)
sizes = []
problem = gpbo.problems.get("branin")
function = problem.function

def measured(x):
    sizes.append(resident())
    return function(x)

gpbo.replicate(
    replace(problem, function=measured),
    strategy=gpbo.ExpectedImprovement(search),
    runs=runs, budget=budget, inference="map" if how == "map" else "nuts", progress=False,
)
quarter = len(sizes) // 4
print(max(sizes[-quarter:]) - max(sizes[quarter : 2 * quarter]))
"""


def growth(budget: int, how: str, runs: int = 2) -> float:
    """MiB that a process grew by from the second quarter of an experiment to the last.

    Its fits are by ``"map"``, by ``"nuts"``, by NUTS with ``"brief"`` trajectories, or at
    ``"fixed"`` hyperparameters.
    """
    command = [sys.executable, "-c", RESIDENT, str(budget), str(runs), how]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return float(ran.stdout)


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the resident size from /proc")


@linux
def test_the_resident_memory_of_a_short_experiment_is_flat() -> None:
    assert growth(32, "map") < 30


@pytest.mark.parametrize("budget", [120, pytest.param(500, marks=pytest.mark.long)])
@linux
def test_the_resident_memory_of_everything_but_the_fits_is_flat(budget: int) -> None:
    """A posterior of 500 results takes 6 MiB with its temporaries."""
    assert growth(budget, "fixed", runs=1) < 40


@pytest.mark.long
@linux
def test_the_resident_memory_of_a_long_experiment_is_flat() -> None:
    """Within what a few dozen matrices of 150 x 150 take, or a few of 500 x 500."""
    assert growth(150, "map") < 50
    assert growth(40, "nuts") < 30
    assert growth(500, "brief", runs=1) < 60

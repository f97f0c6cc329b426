"""Steps that are recorded and replayed: the law is that a replay is the step, bit for bit."""

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from gpbo import ascent, evidence, fitting, graphs, lockstep, warm_start
from gpbo.acquisition import LogExpectedImprovement, LogProbabilityOfImprovement
from gpbo.ascent import maximize
from gpbo.backend import DTYPE, Streams
from gpbo.candidates import Search, _RowByRow
from gpbo.design import sobol
from gpbo.evidence import LogPosterior, Model
from gpbo.fitting import Sampling
from gpbo.graphs import replayed
from gpbo.inference import HyperparameterDraws, draw, schedule_for
from gpbo.linalg import inverse_lower
from gpbo.mcmc import sampling
from gpbo.mcmc.sampling import Kernel
from gpbo.optimizer import Optimizer
from gpbo.space import Real, Space
from gpbo.strategies import ExpectedImprovement, Strategy, ThompsonSampling
from gpbo.surrogate import Surrogate
from tests.monte_carlo import random_normal, random_uniform, unchecked_shapes
from tests.tracing import recorded

CPU = torch.device("cpu")
RUNS, COUNT, DIM, CHAINS = 3, 7, 2, 5


@pytest.fixture(autouse=True)
def _short_and_unchecked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One tick to a recording: tracing is slow. Shapes are checked elsewhere."""
    monkeypatch.setitem(sampling._TICKS_PER_LOOK, "cpu", 1)
    monkeypatch.setattr(graphs, "_refused", set())
    with unchecked_shapes():
        yield


# --- a step of any kind


@dataclass(frozen=True)
class Pair:
    """A state with everything that can go wrong in copying it."""

    left: Tensor
    right: Tensor
    fixed: Tensor
    nested: dict[str, tuple[Tensor, ...]]


def entangled(state: Pair, pull: Tensor, by: float) -> tuple[Pair, tuple[Tensor, Tensor]]:
    """The two swap places, one is a view of the other, one is left as it is."""
    (counter,) = state.nested["counter"]
    after = Pair(state.right, by * state.left + pull, state.fixed, {"counter": (counter + 1,)})
    return after, (state.left.flip(0), state.right)


def pair(seed: int = 0, size: int = 5) -> Pair:
    left, right = random_normal(seed, 2, size).unbind(0)
    return Pair(left, right, random_normal(seed + 1, 3), {"counter": (torch.zeros(()),)})


def advanced(
    step: Callable[..., Any], start: Any, count: int, *others: Any
) -> list[tuple[Any, ...]]:
    """Copies of all that came out of so many steps."""
    found, state = [], start
    with replayed(step, CPU) as play:
        for number in range(count):
            state, output = play(state, random_normal(number, 5), *others)
            parts = (state.left, state.right, state.fixed, *state.nested["counter"], *output)
            found.append(tuple(part.clone() for part in parts))
    return found


def assert_same(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> None:
    assert len(one) == len(other)
    for ours, expected in zip(one, other, strict=True):
        assert all(map(torch.equal, ours, expected))


def test_without_a_recorder_for_the_device_the_step_is_itself() -> None:
    with replayed(entangled, CPU) as play:
        assert play is entangled


def test_a_replayed_step_is_the_step_whatever_its_state_shares() -> None:
    expected = advanced(entangled, pair(), 5, 0.5)
    with recorded() as made:
        assert_same(advanced(entangled, pair(), 5, 0.5), expected)
        assert [graph.replays for graph in made] == [5]


def test_what_was_passed_is_left_as_it_was() -> None:
    start = pair()
    with recorded():
        advanced(entangled, start, 3, 0.5)
    assert torch.equal(start.left, pair().left)
    assert torch.equal(start.right, pair().right)


def test_a_recording_serves_other_values_and_starts_of_the_same_shape() -> None:
    expected = advanced(entangled, pair(7), 4, 0.5)
    with recorded() as made:
        advanced(entangled, pair(0), 5, 0.5)
        assert_same(advanced(entangled, pair(7), 4, 0.5), expected)
        assert len(made) == 1


def test_a_start_that_comes_again_is_taken_over_again() -> None:
    """The replay before has overwritten what was copied of it."""
    start, pull = pair(), random_normal(0, 5)
    expected, _ = entangled(start, pull, 0.5)
    with recorded() as made, replayed(entangled, CPU) as play:
        for _ in range(3):
            state, _ = play(start, pull, 0.5)
            assert torch.equal(state.left, expected.left)
            assert torch.equal(state.right, expected.right)
        assert len(made) == 1


def test_another_number_another_shape_or_another_step_is_another_recording() -> None:
    def other(state: Pair, pull: Tensor, by: float) -> Any:
        return entangled(state, 2 * pull, by)

    with recorded() as made:
        for step, by in ((entangled, 0.5), (entangled, 0.25), (other, 0.5)):
            expected = advanced(step, pair(), 3, by)
            assert_same(advanced(step, pair(), 3, by), expected)
        assert len(made) == 3


def test_the_shape_may_change_between_two_calls() -> None:
    def doubled(state: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
        return state * by, state.sum()

    two = torch.tensor(2.0)
    with recorded() as made, replayed(doubled, CPU) as play:
        small, _ = play(torch.ones(3), two)
        small = small.clone()
        large, total = play(torch.ones(5), two)
        assert small.tolist() == [2.0] * 3
        assert large.tolist() == [2.0] * 5
        assert float(total) == 5.0
        again, _ = play(small, two)
        assert again.tolist() == [4.0] * 3
        assert len(made) == 2


def test_two_at_a_time_do_not_share_a_recording() -> None:
    """A fit in a thread beside the choice of the next trial."""
    expected = advanced(entangled, pair(), 3, 0.5)
    with recorded() as made, replayed(entangled, CPU) as outer:
        advanced(entangled, pair(), 1, 0.5)  # leaves a recording that only one can take
        state, _ = outer(pair(), random_normal(0, 5), 0.5)
        inner: list[Any] = []
        thread = threading.Thread(target=lambda: inner.extend(advanced(entangled, pair(), 3, 0.5)))
        thread.start()
        thread.join()
        assert_same(inner, expected)
        state, _ = outer(state, random_normal(1, 5), 0.5)
        assert torch.equal(state.left, expected[1][0])
        assert len(made) == 2


@contextmanager
def taken_at_once() -> Iterator[None]:
    """Inside, another thread overwrites a recording as soon as it is on the shelf."""
    put = graphs._Shelf.put

    def spoiled(shelf: graphs._Shelf, key: object, recording: graphs._Recording) -> None:
        for buffer in recording._buffers:
            buffer.fill_(7)
        put(shelf, key, recording)

    with mock.patch.object(graphs._Shelf, "put", spoiled):
        yield


def test_a_state_is_taken_over_before_others_have_the_recording_that_it_lies_in() -> None:
    def run() -> list[Tensor]:
        found: list[Tensor] = []
        with replayed(entangled, CPU) as play:
            state = pair()
            for number in range(6):  # another number is another recording
                state, _ = play(state, random_normal(number, 5), (0.5, 0.25)[number % 2])
                found.append(state.left.clone())
        return found

    expected = run()
    with recorded(), taken_at_once():
        assert all(map(torch.equal, run(), expected))


def test_what_was_passed_is_not_kept_alive() -> None:
    def added(state: Tensor, by: Tensor) -> tuple[Tensor, None]:
        return state + by, None

    with recorded():
        by = torch.ones(3)
        with replayed(added, CPU) as play:
            play(torch.zeros(3), by)
        gone = weakref.ref(by)
        del by
        gc.collect()
        assert gone() is None


def test_a_step_that_may_hide_tensors_is_called_as_it_is() -> None:
    hidden = torch.ones(5)

    def shifted(state: Tensor, by: Callable[[], Tensor]) -> tuple[Tensor, None]:
        return state + by(), None

    with recorded() as made, replayed(shifted, CPU) as play:
        state, _ = play(torch.zeros(5), lambda: hidden)
        assert torch.equal(state, hidden)
        assert made == []


def test_a_recording_is_let_go_of_when_its_shape_is_left() -> None:
    def step(state: Tensor, by: float) -> tuple[Tensor, None]:
        return state + by, None

    with recorded() as made:
        for number in range(graphs._IDLE):
            with replayed(step, CPU) as play:
                play(torch.zeros(1), 0.0)  # in use all the time
            with replayed(step, CPU) as play:
                play(torch.zeros(2 + number), 0.0)
        first_use, early, late = (weakref.ref(made[i]) for i in (0, 1, -1))
        made.clear()
        gc.collect()
        assert early() is None
        assert first_use() is not None
        assert late() is not None
        graphs.release(CPU)
        gc.collect()
        assert first_use() is late() is None


def test_a_step_that_looks_at_a_value_is_refused_once_and_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def looking(state: Tensor, by: float) -> tuple[Tensor, None]:
        return (state + by if bool(state.sum() > 0) else state - by), None

    with recorded() as made, caplog.at_level(logging.WARNING, "gpbo"):
        for start in (1.0, -1.0, 1.0):
            with replayed(looking, CPU) as play:
                state, _ = play(torch.full((3,), start), 2.0)
                assert state.tolist() == [start + (2.0 if start > 0 else -2.0)] * 3
    assert made == []
    assert len(caplog.records) == 1
    assert "looking cannot be captured in a CUDA graph" in caplog.text


def test_a_shape_that_cannot_be_captured_leaves_the_others() -> None:
    def small(state: Tensor, by: float) -> tuple[Tensor, None]:
        if len(state) > 3:
            raise RuntimeError("not for so many")
        return state + by, None

    def called(count: int) -> None:
        with replayed(small, CPU) as play:
            play(torch.zeros(count), 1.0)

    with recorded() as made:
        with pytest.raises(RuntimeError, match="not for so many"):
            called(5)
        called(3)
        assert len(made) == 1


def test_what_was_recorded_in_inference_mode_is_not_replayed_outside() -> None:
    expected = advanced(entangled, pair(), 3, 0.5)
    with recorded():
        with torch.inference_mode():
            assert_same(advanced(entangled, pair(), 3, 0.5), expected)
        assert_same(advanced(entangled, pair(), 3, 0.5), expected)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no room"), RuntimeError("CUDA error: out of memory")]
)
def test_where_there_is_no_memory_for_a_recording_the_step_is_called_as_it_is(
    error: RuntimeError,
) -> None:
    def full(work: object, buffers: object) -> Any:
        raise error

    expected = advanced(entangled, pair(), 3, 0.5)
    with recorded() as made:
        with mock.patch.dict(graphs.RECORDERS, {"cpu": full}):
            assert_same(advanced(entangled, pair(), 3, 0.5), expected)
        assert_same(advanced(entangled, pair(), 3, 0.5), expected)
        assert len(made) == 1


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> mock.MagicMock:
    """Stands in for CUDA, and for what torch keeps of it to itself."""
    cuda = mock.MagicMock()
    monkeypatch.setattr(torch, "cuda", cuda)
    for name in ("endAllocateToPool", "releasePool", "clearCublasWorkspaces"):
        monkeypatch.setattr(torch._C, f"_cuda_{name}", getattr(cuda, name), raising=False)
    monkeypatch.setattr(graphs, "_capture_streams", {})
    return cuda


@pytest.mark.parametrize("fault", [RuntimeError("not permitted"), KeyboardInterrupt()])
@pytest.mark.parametrize("older", [True, False], ids=["older torch", "newer torch"])
def test_a_capture_that_fails_is_over_for_the_allocator_and_says_what_was_wrong(
    cuda: mock.MagicMock, fault: BaseException, older: bool
) -> None:
    """On a stand-in for CUDA, where the end of a capture that went wrong fails too."""
    cuda.graph.return_value.__exit__.side_effect = RuntimeError("due to a previous error")
    cuda.endAllocateToPool.side_effect = None if older else RuntimeError("not currently recording")
    work = mock.Mock(side_effect=[[], fault])  # warms up, and then cannot be captured
    with pytest.raises(type(fault)) as raised:
        graphs.record_on_cuda(work, [mock.Mock(device=torch.device("cuda", 3))])
    assert raised.value is fault
    cuda.endAllocateToPool.assert_called_once_with(3, cuda.graph_pool_handle.return_value)
    # The end of a capture, whether or not it fails too, for the default generator.
    assert cuda.graph.return_value.__enter__.call_count == 2
    cuda.set_stream.assert_called_once_with(cuda.current_stream.return_value)


@pytest.mark.parametrize("older", [True, False], ids=["older torch", "newer torch"])
def test_what_a_capture_allocated_that_failed_is_given_back_once(
    cuda: mock.MagicMock, older: bool
) -> None:
    """Newer versions of torch release it with the graph: then it must not be released here too."""
    cuda.graph.return_value.__exit__.side_effect = RuntimeError("due to a previous error")
    cuda.endAllocateToPool.side_effect = None if older else RuntimeError("not currently recording")
    work = mock.Mock(side_effect=[[], RuntimeError("not permitted")])
    with pytest.raises(RuntimeError, match="not permitted"):
        graphs.record_on_cuda(work, [mock.Mock(device=torch.device("cuda", 3))])
    pool = cuda.graph_pool_handle.return_value
    names = "CUDAGraph().reset", "endAllocateToPool", "releasePool"
    released = [mock.call.releasePool(3, pool)] if older else []
    assert [call for call in cuda.mock_calls if call[0] in names] == [
        mock.call.CUDAGraph().reset(),
        mock.call.endAllocateToPool(3, pool),
        *released,
    ]


def test_a_graph_has_the_workspaces_of_libraries_to_itself(cuda: mock.MagicMock) -> None:
    """They are forgotten between the warm-up and the capture, and after it: on a stand-in."""
    happened: list[str] = []
    cuda.graph.return_value.__enter__.side_effect = lambda: happened.append("begin")
    cuda.graph.return_value.__exit__.side_effect = lambda *_: happened.append("end")
    cuda.clearCublasWorkspaces.side_effect = lambda: happened.append("forget")

    def work(_: object) -> list[Tensor]:
        happened.append("work")
        return []

    graphs.record_on_cuda(work, [mock.Mock(device=torch.device("cuda", 3))])
    assert happened == ["work", "forget", "begin", "work", "end", "forget"]


def test_a_state_that_changes_its_shape_is_a_mistake() -> None:
    def growing(state: Tensor, by: float) -> tuple[Tensor, None]:
        return torch.cat([state, state]) + by, None

    with recorded(), replayed(growing, CPU) as play, pytest.raises(TypeError, match="growing"):
        play(torch.zeros(2), 1.0)


# --- the sampler


def posterior(seed: int = 0, prior: str = "dimension-scaled") -> LogPosterior:
    x, y = random_uniform(seed, RUNS, COUNT, DIM), random_normal(seed + 1, RUNS, COUNT)
    mask = torch.arange(COUNT) < torch.tensor([[7], [5], [6]])
    return Model(prior=prior).log_posterior(x, y, mask)


def drawn(
    of: LogPosterior, kernel: Kernel, start: HyperparameterDraws | None = None
) -> HyperparameterDraws:
    cold = start is None
    schedule = schedule_for(8 if cold else 0, 2 if cold else 3, cold=cold, kernel=kernel)
    warmth = None if start is None else start.warmth
    return draw(of, Streams.named(2, "graphs", runs=RUNS), schedule, chains=CHAINS, warmth=warmth)


def assert_same_draws(one: HyperparameterDraws, other: HyperparameterDraws) -> None:
    assert torch.equal(one.unconstrained, other.unconstrained)
    for name, tensor in vars(one.info).items():
        if isinstance(tensor, Tensor):
            torch.testing.assert_close(
                tensor, getattr(other.info, name), rtol=0, atol=0, equal_nan=True
            )
    for name, tensor in vars(one.warmth).items():
        assert torch.equal(tensor, getattr(other.warmth, name))


@pytest.mark.parametrize(
    ("kernel", "gradients"), [("nuts", [2, 2, 4, 5, 6]), ("hmc", [4, 4, 5, 5, 6, 6])]
)
def test_replays_draw_what_is_drawn_without_them_and_a_few_recordings_serve_every_phase(
    monkeypatch: pytest.MonkeyPatch, kernel: Kernel, gradients: list[int]
) -> None:
    """For cold and warm starts, and for other data.

    A trajectory of each length for annealing, and for Hamiltonian Monte Carlo; of ticks, two with
    dual averaging and two without. With the inverse as a GPU computes it, and no operation that a
    CUDA graph cannot have.
    """

    def as_on_a_gpu(factor: Tensor) -> Tensor:
        inverse = inverse_lower(factor)
        return torch.bmm(inverse.mT, inverse)

    monkeypatch.setattr(evidence, "inverse_from_factor", as_on_a_gpu)
    monkeypatch.setitem(sampling._TICKS_PER_LOOK, "cpu", 2)
    first, second = posterior(0), posterior(10)
    cold, warm = drawn(first, kernel), drawn(second, kernel)
    further = drawn(second, kernel, cold)
    with recorded() as made:
        assert_same_draws(drawn(first, kernel), cold)
        assert_same_draws(drawn(second, kernel), warm)
        assert_same_draws(drawn(second, kernel, cold), further)
        solves = [graph.operations["aten.linalg_solve_triangular.default"] for graph in made]
        assert sorted(solves) == gradients
    for graph in made:
        assert graph.obstacles == []
        assert "aten.cholesky_inverse.default" not in graph.operations
        # Hundreds of launches: what replaying them saves.
        assert graph.operations.total() > 200


def evaluated(u: Tensor, of: LogPosterior) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """A step that goes nowhere."""
    return u, of(u)


@pytest.mark.parametrize("prior", ["dimension-scaled", "botorch", "saas", "spearmint"])
def test_the_density_under_every_named_prior_can_be_recorded(prior: str) -> None:
    u = random_normal(1, RUNS * CHAINS, posterior(0, prior).parametrization.size)
    expected = [posterior(seed, prior)(u) for seed in (0, 10)]
    with recorded() as made:
        for seed, wanted in zip((0, 10), expected, strict=True):
            with replayed(evaluated, CPU) as play:
                found = play(u, posterior(seed, prior))[1]
                assert all(map(torch.equal, found, wanted))
        assert len(made) == 1
        assert made[0].obstacles == []


def test_the_tracer_notices_what_cannot_be_captured() -> None:
    """This test can fail."""

    def masked(state: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        state = state.clone()
        state[mask] = torch.tensor(1.0)
        return state + state[mask].sum(), None

    with recorded() as made, replayed(masked, CPU) as play:
        play(torch.zeros(3), torch.tensor([True, False, True]))
        assert {"aten.index.Tensor by a mask", "aten.lift_fresh_copy.default"} <= {
            *made[0].obstacles
        }


# --- the ascent


def surrogate(seed: int = 0) -> Surrogate:
    streams = Streams.named(seed, "graphs", runs=RUNS)
    x, y = random_uniform(seed, RUNS, COUNT, DIM), random_normal(seed + 1, RUNS, COUNT)
    mask = torch.arange(COUNT) < torch.tensor([[7], [5], [6]])
    one = torch.ones(RUNS, 5, dtype=DTYPE)
    lengthscale = 0.2 + streams.uniform(5, DIM)
    return Surrogate.condition(x, y, mask, lengthscale, one, 0.01 * one, 0 * one)


def utility(kind: type[LogExpectedImprovement], seed: int = 0) -> _RowByRow:
    fitted = surrogate(seed)
    return _RowByRow(kind(fitted, fitted.incumbent), RUNS)


@pytest.mark.parametrize("kind", [LogExpectedImprovement, LogProbabilityOfImprovement])
def test_a_replayed_ascent_ends_where_the_ascent_does(kind: type[LogExpectedImprovement]) -> None:
    start = sobol(5, DIM, Streams.named(4, "graphs", runs=RUNS)).flatten(0, 1)
    expected = [maximize(utility(kind, seed), start, 0.0, 1.0) for seed in (0, 1)]
    with recorded() as made:
        for seed, wanted in enumerate(expected):
            found = maximize(utility(kind, seed), start, 0.0, 1.0)
            for name, value in vars(wanted).items():
                ours = getattr(found, name)
                assert torch.equal(ours, value) if isinstance(value, Tensor) else ours == value
        assert len(made) == 1
        assert made[0].obstacles == []
        assert made[0].replays == sum(wanted.iterations for wanted in expected)


def test_a_replayed_ascent_drops_no_rows_and_finds_the_best_of_every_run() -> None:
    start = sobol(5, DIM, Streams.named(4, "graphs", runs=RUNS)).flatten(0, 1)
    objective = utility(LogExpectedImprovement)
    expected = maximize(objective, start, 0.0, 1.0, runs=RUNS)
    with recorded() as made:
        found = maximize(objective, start, 0.0, 1.0, runs=RUNS)
    best = expected.value.view(RUNS, -1).argmax(-1) + 5 * torch.arange(RUNS)
    torch.testing.assert_close(found.x[best], expected.x[best])
    assert [graph.obstacles for graph in made] == [[]]


def test_the_search_of_a_mode_can_be_recorded() -> None:
    of, start = posterior(), random_normal(5, RUNS * 4, DIM + 3)
    expected = maximize(of, start, -20.0, 20.0)
    with recorded() as made:
        found = maximize(of, start, -20.0, 20.0)
        assert torch.equal(found.x, expected.x)
        assert made[0].obstacles == []


def test_a_user_s_function_is_climbed_without_a_recording() -> None:
    def hill(x: Tensor) -> tuple[Tensor, Tensor]:
        return -(x - 0.3).square().sum(-1), -2 * (x - 0.3)

    with recorded() as made:
        found = maximize(hill, random_uniform(1, 3, 2), 0.0, 1.0)
        torch.testing.assert_close(found.x, torch.full_like(found.x, 0.3), atol=1e-5, rtol=0)
        assert made == []


# --- whole runs


def in_steps_of_four(count: int, device: torch.device) -> int:
    """With padding in any case, as on a GPU."""
    return (count // 4 + 1) * 4


def test_whole_runs_are_the_same_and_record_once_for_each_capacity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpbo.data.capacity", in_steps_of_four)
    monkeypatch.setattr(ascent, "_drop_ended", lambda *kept: kept[:-1])
    few = Sampling(chains=2, warmup=8, draws=4, warm_draws=2, kept=2)
    monkeypatch.setattr(fitting, "Sampling", lambda: few)
    monkeypatch.setattr(fitting, "RHAT_LIMIT", np.inf)
    monkeypatch.setattr(warm_start, "_LEAST_ESS", 0.0)
    monkeypatch.setattr(warm_start, "_STEADY", 0.0)
    monkeypatch.setattr(warm_start, "_COLLAPSED", 0.0)
    monkeypatch.setattr(fitting, "_BROKEN_DIVERGENCES", 1.0)
    options: dict[str, Any] = {
        "strategy": ExpectedImprovement(Search(raw=16, perturbed=4, restarts=2, iterations=5)),
        "runs": 2,
        "budget": 9,
        "initial": 4,
        "progress": False,
    }
    expected = lockstep.replicate("branin", **options)
    with recorded() as made:
        found = lockstep.replicate("branin", **options)
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(
        found.diagnostics.leapfrog_steps, expected.diagnostics.leapfrog_steps
    )
    # Two capacities. Of the first the ascent and trajectories of three lengths, annealing and
    # settling; of the second, where the results double, the same, but two lengths are enough.
    assert len(made) == 7 + 6


@pytest.mark.parametrize("name", ["ei", "ts"])
def test_a_trial_that_failed_makes_no_new_shape(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpbo.data.capacity", in_steps_of_four)
    monkeypatch.setattr(ascent, "_drop_ended", lambda *kept: kept[:-1])
    search = Search(raw=16, perturbed=4, restarts=2, iterations=5)
    strategies: dict[str, Strategy] = {
        "ei": ExpectedImprovement(search),
        "ts": ThompsonSampling(search, features=32),
    }
    space = Space(Real("x", 0.0, 1.0), Real("y", 0.0, 1.0))
    optimizer = Optimizer(space, strategies[name], inference="map", initial=3)
    optimizer.learn([({"x": n / 7, "y": (n % 3) / 3}, float(n)) for n in range(6)])
    with recorded() as made:
        counts = []
        for _ in range(7):
            optimizer.fail(optimizer.ask(refit=False))
            counts.append(len(made))
    # The first with a failure, and the fifth, beyond whose number there is no room.
    assert counts[1] == counts[3] < counts[4] == counts[6]

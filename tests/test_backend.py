"""Devices, and random streams that depend on nothing but their name."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from torch import Tensor

from gpbo import backend
from gpbo.backend import (
    DTYPE,
    Streams,
    resolve_device,
    settings_for,
    stream_seed,
    threads_beside,
)
from gpbo.errors import InvalidOption

Draw = Callable[[Streams], Tensor]
DRAWS: dict[str, Draw] = {
    "uniform": lambda streams: streams.uniform(5, 7),
    "normal": lambda streams: streams.normal(5, 7),
    "integers": lambda streams: streams.integers(11, 5, 7),
}
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


# --- devices


def test_computation_is_in_double_precision() -> None:
    assert torch.float64 == DTYPE


@pytest.mark.parametrize("device", ["auto", "cpu", torch.device("cpu")])
def test_one_run_of_unknown_length_stays_on_the_cpu(
    device: str | torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device(device) == torch.device("cpu")


def test_auto_takes_a_gpu_from_the_crossover_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "CROSSOVER", ((30, 11), (50, 3)))
    grid = [
        (runs, results) for runs in (1, 2, 3, 10, 11, 99) for results in (0, 29, 30, 49, 50, 99)
    ]
    faster = {(11, 30), (99, 30), (11, 49), (99, 49)}
    faster |= {(runs, results) for runs in (3, 10, 11, 99) for results in (50, 99)}
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        for runs, results in grid:
            expected = "cuda:0" if there and (runs, results) in faster else "cpu"
            chosen = resolve_device("auto", runs=runs, results=results)
            assert chosen == torch.device(expected)
            assert resolve_device("cpu", runs=runs, results=results) == torch.device("cpu")


def test_the_more_results_the_fewer_runs_are_worth_a_gpu() -> None:
    results, runs = zip(*backend.CROSSOVER, strict=True)
    assert list(results) == sorted({*results})
    assert list(runs) == sorted({*runs}, reverse=True)


@pytest.mark.parametrize("device", ["", "tpu", "cuda:x", "cuda:-1", "cpu cuda", "meta", "mps"])
def test_an_unknown_device_is_an_error_that_names_it(device: str) -> None:
    with pytest.raises(InvalidOption, match=re.escape(f"device={device!r}")):
        resolve_device(device)


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there_is_an_error(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidOption, match=f"device='{device}': no CUDA device here"):
        resolve_device(device)


def test_a_gpu_beyond_the_last_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)  # in this thread
    assert resolve_device("cuda") == torch.device("cuda:1")
    with pytest.raises(InvalidOption, match=re.escape("device='cuda:2'")):
        resolve_device("cuda:2")


# --- names of streams


def test_the_seed_of_a_name_never_changes() -> None:
    # A stored run is resumed by a later version: these numbers are part of the format.
    assert stream_seed(0, "nuts") == stream_seed(0, "nuts", 0) == 8247723223065161453
    assert stream_seed(7, "design@3", 11) == 6874423820355640206


@settings(max_examples=30, deadline=None)
@given(st.integers(-(2**70), 2**70), WORDS, st.integers(0, 10**9))
def test_a_seed_has_63_bits(seed: int, purpose: str, index: int) -> None:
    value = stream_seed(seed, purpose, index)
    assert 0 <= value < 2**63
    torch.Generator().manual_seed(value)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(), WORDS, st.integers(0, 10**9)), min_size=2, unique=True))
def test_different_names_have_different_seeds(names: list[tuple[int, str, int]]) -> None:
    assert len({stream_seed(*name) for name in names}) == len(names)


@pytest.mark.parametrize("kind", DRAWS)
def test_a_name_gives_the_same_numbers_again(kind: str) -> None:
    first = DRAWS[kind](Streams.named(3, "fantasy", 5, runs=2))
    again = DRAWS[kind](Streams.named(3, "fantasy", 5, runs=2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("other", [(4, "fantasy", 5), (3, "design", 5), (3, "fantasy", 6)])
def test_another_seed_purpose_or_index_gives_other_numbers(
    kind: str, other: tuple[int, str, int]
) -> None:
    first = DRAWS[kind](Streams.named(3, "fantasy", 5))
    assert not torch.equal(first, DRAWS[kind](Streams.named(*other)))


# --- what is drawn


@pytest.mark.parametrize("kind", DRAWS)
def test_shapes_and_types(kind: str) -> None:
    values = DRAWS[kind](Streams.named(0, "shape", runs=3))
    assert values.shape == (3, 5, 7)
    assert values.dtype == (torch.int64 if kind == "integers" else DTYPE)
    assert Streams.named(0, "shape", runs=3).uniform().shape == (3,)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**62), st.sampled_from(sorted(DRAWS)), st.integers(1, 5))
def test_a_run_in_a_batch_draws_what_it_draws_alone(seed: int, kind: str, runs: int) -> None:
    batch, alone = Streams.named(seed, "law", runs=5), Streams.named(seed, "law", runs=runs)
    torch.testing.assert_close(DRAWS[kind](batch)[:runs], DRAWS[kind](alone), rtol=0, atol=0)
    last = Streams([stream_seed(seed, "law@4")])
    assert torch.equal(DRAWS[kind](Streams.named(seed, "law", runs=5))[4:], DRAWS[kind](last))


@pytest.mark.parametrize("kind", DRAWS)
def test_runs_with_seeds_of_their_own_draw_what_one_run_with_that_seed_does(kind: str) -> None:
    batch = DRAWS[kind](Streams.per_seed([5, 3], "law", 7))
    for row, seed in zip(batch, [5, 3], strict=True):
        assert torch.equal(row, DRAWS[kind](Streams.named(seed, "law", 7))[0])


@pytest.mark.parametrize("kind", DRAWS)
def test_what_is_drawn_elsewhere_changes_nothing(kind: str) -> None:
    undisturbed = DRAWS[kind](Streams.named(1, "quiet", runs=2))
    streams, other = Streams.named(1, "quiet", runs=2), Streams.named(1, "noise", runs=2)
    other.normal(100)
    torch.manual_seed(12345)
    torch.rand(3)
    assert torch.equal(DRAWS[kind](streams), undisturbed)


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    streams = Streams.named(0, "global", runs=2)
    for draw in DRAWS.values():
        draw(streams)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_that_is_there_twice_has_its_own_numbers_once() -> None:
    """Padding must not take the numbers of the run that it repeats."""
    whole, reference = (Streams.named(0, "select", runs=3) for _ in range(2))
    padded, alone = whole.select([0, 2, 2, 2]), reference.select([0, 2])
    for _ in range(2):
        assert torch.equal(padded.normal(5)[:2], alone.normal(5))
    assert torch.equal(whole.uniform(5), reference.uniform(5))


def test_selected_streams_go_on_where_the_whole_is() -> None:
    whole, reference = Streams.named(0, "select", runs=5), Streams.named(0, "select", runs=5)
    whole.uniform(3)
    reference.uniform(3)
    chosen = whole.select([3, 1])
    assert chosen.runs == 2
    assert chosen.device == whole.device
    expected = reference.uniform(7)
    assert torch.equal(chosen.uniform(7), expected[[3, 1]])
    # Runs 3 and 1 have moved on, the others have not.
    following, untouched = reference.uniform(7), whole.uniform(7)
    assert torch.equal(untouched[[1, 3]], following[[1, 3]])
    assert torch.equal(untouched[[0, 2, 4]], expected[[0, 2, 4]])


def test_runs_are_unrelated_to_each_other() -> None:
    draws = Streams.named(0, "unrelated", runs=7).normal(4001)
    correlation = torch.corrcoef(draws) - torch.eye(7, dtype=DTYPE)
    assert correlation.abs().max() < 4.5 / 4001**0.5


def test_draws_have_their_distribution() -> None:
    streams = Streams.named(0, "distribution", runs=2)
    uniform, normal = streams.uniform(5003), streams.normal(5003)
    integers = streams.integers(11, 5003)
    assert 0 <= float(uniform.min()) <= float(uniform.max()) < 1
    assert kstest(uniform.flatten().numpy(), "uniform").pvalue > 1e-3
    assert kstest(normal.flatten().numpy(), "norm").pvalue > 1e-3
    counts = integers.flatten().bincount()
    assert len(counts) == 11
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_the_guide_shows_the_table_of_crossovers_that_is_used() -> None:
    guide = (Path(__file__).parent.parent / "GUIDE.md").read_text()
    results, runs = (" | ".join(str(row[column]) for row in backend.CROSSOVER) for column in (0, 1))
    assert f"| results | {results} |\n|---|---|---|---|---|\n| runs | {runs} |" in guide


@pytest.fixture
def _four_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_four_threads")
@pytest.mark.parametrize(("workers", "left"), [(1, 3), (2, 2), (3, 1), (4, 1), (50, 1)])
def test_busy_workers_leave_threads_to_all_that_starts_beside_them(workers: int, left: int) -> None:
    with threads_beside(workers):
        with ThreadPoolExecutor(1) as engine:
            assert engine.submit(torch.get_num_threads).result() == left
        assert torch.get_num_threads() == left
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("_four_threads")
def test_an_operation_has_one_thread_under_the_settings_for_a_cpu() -> None:
    with settings_for(torch.device("cpu")):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 4


def test_no_gradients_are_recorded_under_the_settings_unless_they_are_asked_for() -> None:
    """Parts of a batch are on all threads only there, and in every part of a proposal."""
    leaf = torch.ones(3, requires_grad=True)
    with torch.enable_grad(), settings_for(torch.device("cpu")):
        assert not (2 * leaf).requires_grad
        with torch.enable_grad():
            assert (2 * leaf).requires_grad
    assert (2 * leaf).requires_grad

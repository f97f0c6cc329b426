"""Parts of a computation on several threads."""

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest
import torch

from gpbo import parallel
from gpbo.backend import DTYPE
from gpbo.evidence import Model
from gpbo.parallel import each, parallel_parts
from tests.monte_carlo import random_normal, random_uniform

THREADS = 3
NUMBERS = [(number,) for number in range(7)]


@pytest.fixture(autouse=True)
def _several_threads(_one_thread: None) -> Iterator[None]:
    torch.set_num_threads(THREADS)
    with parallel_parts(), torch.no_grad():
        yield


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 101])
def test_results_are_in_the_order_of_the_parts(count: int) -> None:
    parts = [(number, 2) for number in range(count)]
    assert each(lambda base, power: base**power, parts) == [n**2 for n in range(count)]


def test_parts_are_computed_at_the_same_time_by_so_many_threads() -> None:
    together, threads = threading.Barrier(THREADS), set[int]()

    def part(number: int) -> None:
        threads.add(threading.get_ident())
        if number < THREADS:
            together.wait(20)

    each(part, NUMBERS)
    assert len(threads) == THREADS
    assert threading.get_ident() in threads


def test_an_operation_has_one_thread_and_torch_gets_its_own_back() -> None:
    with torch.no_grad():
        assert set(each(lambda number: torch.get_num_threads(), NUMBERS)) == {1}
    torch.set_num_threads(2)
    with parallel_parts():
        assert torch.get_num_threads() == 1
        with parallel_parts():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_parts_within_parts_have_the_threads_that_there_were() -> None:
    together = threading.Barrier(THREADS)
    with parallel_parts():
        each(lambda number: together.wait(20) if number < THREADS else 0, NUMBERS)


def test_parts_within_parts_wait_for_nobody() -> None:
    """More of them than there can be threads."""
    count = 3 * (os.cpu_count() or 1)

    def outer(number: int) -> int:
        with parallel_parts():
            torch.set_num_threads(1)
            return sum(each(lambda inner: number * inner, NUMBERS))

    expected = [number * 21 for number in range(count)]
    assert each(outer, [(number,) for number in range(count)]) == expected


@pytest.mark.parametrize("broken", [0, 3, 6])
def test_an_error_of_a_part_is_raised_and_no_other_begins_after_it(broken: int) -> None:
    begun, failed, together = list[int](), threading.Event(), threading.Barrier(THREADS)

    def part(number: int) -> None:
        begun.append(number)
        if number < THREADS:
            together.wait(20)
        if number == broken:
            failed.set()
            raise ValueError(f"part {number}")
        if number > broken:
            failed.wait(20)

    many = [(number,) for number in range(1000)]
    with pytest.raises(ValueError, match=f"part {broken}"):
        each(part, many)
    count = len(begun)
    assert count < len(many)
    assert each(lambda number: number, NUMBERS) == list(range(7))
    assert len(begun) == count


def test_helpers_compute_in_the_mode_of_the_caller() -> None:
    together = threading.Barrier(THREADS)

    def modes(number: int) -> tuple[bool, bool]:
        if number < THREADS:
            together.wait(20)
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    assert set(each(modes, NUMBERS)) == {(False, False)}
    with torch.inference_mode():
        assert set(each(modes, NUMBERS)) == {(False, True)}


def test_gradients_are_recorded_by_the_caller_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_pool", pytest.fail)
    with torch.enable_grad():
        threads = set(each(lambda number: threading.get_ident(), NUMBERS))
    assert threads == {threading.get_ident()}


def test_without_new_threads_the_caller_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(parallel, "_pool", none_left)
    assert each(lambda number: number, NUMBERS) == list(range(7))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    together = threading.Barrier(THREADS)

    def part(number: int) -> int:
        if number < THREADS:
            together.wait(20)
        return number

    assert each(part, NUMBERS) == list(range(7))
    with warnings.catch_warnings():
        # What Python warns of is what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0 if each(part, NUMBERS) == list(range(7)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


FORKED = """
import faulthandler, os, warnings
import torch, gpbo

def run():
    space = gpbo.Space(gpbo.Real("x", 0, 1), gpbo.Real("y", 0, 1))
    return gpbo.minimize(lambda params: params["x"], space, budget=7, progress=False).best

torch.set_num_threads(2)
best = run()
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
    faulthandler.dump_traceback_later(60, exit=True)
    os._exit(0 if run().params == best.params else 2)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_optimizes_as_its_parent_did() -> None:
    """It has none of the threads that torch would wait for."""
    ran = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_density_is_the_same_on_any_number_of_threads() -> None:
    """To the last digit: what is computed together does not depend on them."""
    runs, n, dim, chains = 3, 67, 5, 11
    mask = torch.ones(runs, n, dtype=torch.bool)
    density = Model().log_posterior(
        random_uniform(1, runs, n, dim), random_normal(2, runs, n), mask
    )
    u = 0.3 * random_normal(3, runs * chains, density.parametrization.size).to(DTYPE)
    several = density(u)
    with torch.enable_grad():
        alone = density(u)
    for one, other in zip(several, alone, strict=True):
        assert torch.equal(one, other)

"""Parts of a computation on several CPU threads, each of which runs one operation at a time.

LAPACK takes the matrices of a batch one after the other, and several threads for one matrix gain
little below a thousand rows. Worse, torch's threads end an operation together, and those that are
done spin: next to a process that is busy on the same cores they take many times as long. Threads
that have a part each do not wait for each other.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import TypeVar, TypeVarTuple

import torch

_Arguments = TypeVarTuple("_Arguments")
_Result = TypeVar("_Result")

_allowed: ContextVar[int] = ContextVar("threads", default=1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with this many torch threads; the old number is restored at the end."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def parallel_parts() -> Iterator[None]:
    """Run each operation on one thread, and the parts of `each` on as many as torch has."""
    allowed = _allowed.set(max(torch.get_num_threads(), _allowed.get()))
    try:
        with threads(1):
            yield
    finally:
        _allowed.reset(allowed)


def each(
    function: Callable[[*_Arguments], _Result], parts: Sequence[tuple[*_Arguments]]
) -> list[_Result]:
    """The function's result for each part, on the threads that `parallel_parts` allows.

    The calling thread takes one part after another, and so do helpers that are free: a call from
    within a part waits for none that is busy. If gradients are recorded, it computes all parts
    alone.
    """
    helpers = 0 if torch.is_grad_enabled() else min(_allowed.get(), len(parts)) - 1
    if helpers < 1:
        return [function(*part) for part in parts]
    results: dict[int, _Result] = {}
    # The iterator is implemented in C, so each number goes to one thread only.
    numbers = iter(range(len(parts)))

    def work() -> None:
        try:
            for number in numbers:
                results[number] = function(*parts[number])
        finally:
            # After an error, leave nothing for the other threads to do.
            for _ in numbers:
                pass

    inference = torch.is_inference_mode_enabled()

    def help_out() -> None:
        # Each thread has its own mode.
        with torch.inference_mode(inference), torch.no_grad():
            work()

    helping = []
    # No thread can be started at the interpreter's exit, or beyond a limit of the system.
    with suppress(RuntimeError):
        for _ in range(helpers):
            helping.append(_pool().submit(help_out))
    try:
        work()
    finally:
        begun = [helper for helper in helping if not helper.cancel()]
        wait(begun)
    for helper in begun:
        helper.result()
    return [results[number] for number in range(len(parts))]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="gpbo-part")


if hasattr(os, "register_at_fork"):
    # A forked child does not have its parent's threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)

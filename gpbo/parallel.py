"""Parts of a computation on several threads of a CPU, one operation at a time on each.

LAPACK takes the matrices of a batch one after the other, and several threads for one of them gain
little below a thousand rows. Worse, torch's threads end an operation together, and those that are
done wait spinning: beside a process that is busy on the same cores they take many times as long.
Threads with a part each wait for nobody.
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
    """Run with so many of torch's threads; their number is put back at the end."""
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
    """Run with one thread for an operation, and with those that torch has for the parts of it."""
    allowed = _allowed.set(max(torch.get_num_threads(), _allowed.get()))
    try:
        with threads(1):
            yield
    finally:
        _allowed.reset(allowed)


def each(
    function: Callable[[*_Arguments], _Result], parts: Sequence[tuple[*_Arguments]]
) -> list[_Result]:
    """What the function makes of each part's arguments, on threads that `parallel_parts` allows.

    The calling thread takes part after part, and so do those that have time for it: a call from
    within a part waits for none. Where gradients are recorded it does all of them alone.
    """
    helpers = 0 if torch.is_grad_enabled() else min(_allowed.get(), len(parts)) - 1
    if helpers < 1:
        return [function(*part) for part in parts]
    results: dict[int, _Result] = {}
    # Its next number is taken by one thread alone: it is made in C.
    numbers = iter(range(len(parts)))

    def work() -> None:
        try:
            for number in numbers:
                results[number] = function(*parts[number])
        finally:
            # After an error there is nothing left to do, for the others either.
            for _ in numbers:
                pass

    inference = torch.is_inference_mode_enabled()

    def help_out() -> None:
        # The mode is that of a thread.
        with torch.inference_mode(inference), torch.no_grad():
            work()

    helping = []
    # There are no new threads at the interpreter's exit, nor beyond a limit of the system's.
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
    # The threads of a process are not those of its child.
    os.register_at_fork(after_in_child=_pool.cache_clear)

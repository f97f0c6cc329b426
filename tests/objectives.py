"""Objectives that worker processes import: none of them needs anything but this file."""

import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import time
from typing import Any


def bowl(params: dict[str, Any]) -> float:
    return float(params["x"] - 0.3) ** 2


def treacherous(params: dict[str, Any]) -> Any:
    """Ends its process, or its patience, in the way that ``how`` says."""
    print("trying", params["how"], flush=True)
    match params["how"]:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(60)
        case "raise":
            raise ValueError("no convergence")
        case "sys.exit":
            raise SystemExit("enough")
        case "nan":
            return float("nan")
        case "text":
            return "0.5"
        case "lock":
            return __import__("threading").Lock()
    return 1.0


def environment(params: dict[str, Any]) -> float:
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"], flush=True)
    return 0.0


def curve(params: dict[str, Any], trial: Any) -> float:
    """Converges to ``x``, slowly enough to be stopped."""
    for step in range(20):
        trial.report(step, params["x"] + 1 / (step + 1))
        time.sleep(0.02 if params["x"] < 0.5 else 0.2)
    return float(params["x"])


def huge_reports(params: dict[str, Any], trial: Any) -> float:
    for step in range(3):
        trial.report(step, 1.5e308)
    time.sleep(0.5)  # until they are read
    return float(params["x"])


def once_unlucky(params: dict[str, Any], trial: Any) -> float:
    if trial.attempt == 1:
        os._exit(9)
    return float(params["x"])


def kills_its_worker_once(params: dict[str, Any], trial: Any) -> float:
    """The first worker that tries trial 2 dies of it."""
    mark = trial.folder.parent / "killed"
    if trial.id == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(params["x"])


def variable(params: dict[str, Any]) -> float:
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"], flush=True)
    return float(os.environ["GPBO_TEST"])


_HOARD: list[bytearray] = []


def hoards(params: dict[str, Any]) -> float:
    """Keeps half a gigabyte from its first trial on, as a library does that is imported."""
    if not _HOARD:
        _HOARD.append(bytearray(os.urandom(1) * 500_000_000))
    time.sleep(1.2)
    return float(os.getpid())


def silent(params: dict[str, Any]) -> float:
    """Does with its output what ``how`` says."""
    if params["how"] == "close":
        sys.stdout.close()
    elif params["how"] == "none":
        sys.stdout = sys.stderr = None
    else:
        print("heard")
    return 0.5


def bowl_and_depth(params: dict[str, Any]) -> tuple[float, dict[str, float]]:
    return bowl(params), {"depth": params["x"]}


def starts_processes(params: dict[str, Any]) -> float:
    context = multiprocessing.get_context(params["method"])
    process = context.Process(target=abs, args=(-1,))
    process.start()
    process.join()
    with context.Pool(1) as pool:
        return sum(pool.map(abs, [-1, 2])) + float(process.exitcode or 0)


@functools.cache
def loaded_once() -> float:
    return float(int.from_bytes(os.urandom(4), "big"))

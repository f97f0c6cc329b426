"""Thompson sampling's parts next to BoTorch's: `python benchmarks/speed.py thompson`.

The hyperparameters are given, the same for both sides, so that only drawing the functions and
searching their minima is measured. Each side runs in a process of its own, which also reports how
much memory it took, and how many seconds of processor time, which other work on the machine changes
less than wall time. BoTorch draws 1024 features by default and gpbo 4096; here both numbers are
measured for gpbo.
"""

import re
import statistics
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from botorch.models import SingleTaskGP
from gpytorch.kernels import MaternKernel, ScaleKernel
from torch import Tensor

from gpbo import problems
from gpbo.backend import Streams, settings_for
from gpbo.candidates import Search, raw_points
from gpbo.data import Observations
from gpbo.design import sobol
from gpbo.fitting import fit
from gpbo.graphs import release, wait
from gpbo.paths import Paths, draw_paths
from gpbo.strategies import default_search
from gpbo.surrogate import Surrogate
from gpbo.thompson import PathUtility, minima
from gpbo_benchmarks.inputs import cube, observed

NOISE = 1e-3
#: Results, dimensions and functions of `largest`.
_LARGEST = {"cpu": (500, 20, 32), "cuda": (10_000, 200, 1000)}

#: Points, values, and a lengthscale for each dimension.
Known = tuple[Tensor, Tensor, Tensor]


def data(n: int, dim: int) -> Known:
    """The points and the standardised values of one run, and a plausible lengthscale."""
    found = observed(n, dim, Streams([0]))
    y = (found.values - found.values.mean()) / found.values.std()
    return found.x, y, torch.full((dim,), 0.2 * dim**0.5, dtype=found.x.dtype)


def surrogate(x: Tensor, y: Tensor, lengthscale: Tensor) -> Surrogate:
    """gpbo's posterior of such data."""
    one = torch.ones(1, 1, dtype=x.dtype, device=x.device)
    mask = torch.ones_like(y, dtype=torch.bool)
    return Surrogate.condition(
        x, y, mask, lengthscale.view(1, 1, -1), one, NOISE * one, torch.zeros_like(one)
    )


def botorch_model(x: Tensor, y: Tensor, lengthscale: Tensor) -> SingleTaskGP:
    """BoTorch's posterior of the negative values, which it maximises."""
    kernel = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=x.shape[-1]))
    model = SingleTaskGP(x[0], -y[0, :, None], covar_module=kernel, outcome_transform=None)
    kernel.outputscale, kernel.base_kernel.lengthscale = 1.0, lengthscale
    model.likelihood.noise, model.mean_module.constant.data = NOISE, torch.zeros(()).to(x)
    return model.eval()


def our_paths(posterior: Surrogate, count: int, seed: int, features: int = 4096) -> Paths:
    """Functions drawn under the settings of the engine."""
    device = posterior.x.device
    with settings_for(device):
        return draw_paths(
            posterior,
            count,
            own=lambda number: Streams.named(seed, "own", number, device=device),
            shared=lambda number: Streams.named(seed, "shared", number, device=device),
            features=features,
        )


def our_minima(posterior: Surrogate, paths: Paths, search: Search, seed: int) -> Tensor:
    """The minimum of each of the functions, ``[q, d]``, under the same settings."""
    device = posterior.x.device
    space = cube(posterior.dim)
    best = posterior.x[:, posterior.y[0, 0].argsort()[:5]]
    with settings_for(device):
        raw = raw_points(space, Streams([seed], device), best, search)
        streams = [Streams([seed + j], device) for j in range(paths.count)]
        taken: list[frozenset[Hashable]] = [frozenset()]
        found = minima(PathUtility(paths), space, streams, raw=raw, taken=taken, search=search)
    return found[0]


def draw_ours(known: Known, count: int) -> Callable[[int], object]:
    """The factorisation and the draw."""
    return lambda seed: our_paths(surrogate(*known), count, seed)


def draw_ours_as_botorch(known: Known, count: int) -> Callable[[int], object]:
    """The same with as many features as BoTorch has."""
    return lambda seed: our_paths(surrogate(*known), count, seed, 1024)


def draw_botorch(known: Known, count: int) -> Callable[[int], object]:
    """The same with ``draw_matheron_paths``."""
    from botorch.sampling.pathwise import draw_matheron_paths

    def draw(seed: int) -> object:
        with torch.no_grad():
            return draw_matheron_paths(botorch_model(*known), torch.Size([count]))

    return draw


def batch_ours(known: Known, count: int) -> Callable[[int], object]:
    """Factorisation, draw, and the minimum of each function."""

    def batch(seed: int) -> object:
        posterior = surrogate(*known)
        paths = our_paths(posterior, count, seed)
        space = cube(posterior.dim)
        return our_minima(posterior, paths, default_search(space, confined=False), seed)

    return batch


def batch_botorch(known: Known, count: int) -> Callable[[int], object]:
    """The same with ``PathwiseThompsonSampling`` and ``optimize_acqf``."""
    from botorch.acquisition.thompson_sampling import PathwiseThompsonSampling
    from botorch.optim import optimize_acqf

    def batch(seed: int) -> object:
        torch.manual_seed(seed)
        ends = torch.zeros_like(known[2]), torch.ones_like(known[2])
        utility = PathwiseThompsonSampling(botorch_model(*known))
        return optimize_acqf(utility, torch.stack(ends), q=count, num_restarts=10, raw_samples=512)

    return batch


SIDES = {
    ("draw", "gpbo"): draw_ours,
    ("draw", "BoTorch"): draw_botorch,
    ("draw, 1024 features", "gpbo"): draw_ours_as_botorch,
    ("draw, 1024 features", "BoTorch"): draw_botorch,
    ("batch", "gpbo"): batch_ours,
    ("batch", "BoTorch"): batch_botorch,
}


def measure(
    work: str, side: str, known: Known, count: int, repeats: int, device: str
) -> dict[str, float]:
    """Median seconds, and the rise of the memory in MiB.

    The peak of the process since the first call is compared with its memory before that. The data
    come from another process.
    """
    x, y, lengthscale = (each.to(device) for each in known)
    few = x[:, :20], y[:, :20], lengthscale
    SIDES[work, side](few, 2)(0)  # the first call pays for loading
    run = SIDES[work, side]((x, y, lengthscale), count)
    before, seconds, busy = _memory_begun(device), [], []
    for repeat in range(repeats):
        began, worked = time.perf_counter(), time.process_time()
        run(repeat)
        wait(x.device)
        seconds.append(time.perf_counter() - began)
        busy.append(time.process_time() - worked)
    return {
        "seconds": statistics.median(seconds),
        "busy": statistics.median(busy),
        "MiB": _most_memory(device) - before,
    }


def _memory_begun(device: str) -> float:
    """MiB now; the peak is counted again from here on.

    On a GPU, what torch has reserved, not only what tensors use: graphs keep the rest for their
    replays.
    """
    if device == "cuda":
        release(torch.device(device))
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_reserved() / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    return _most_memory(device)


def _most_memory(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_reserved() / 2**20
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]


def fitted(name: str, dim: int, n: int) -> Surrogate:
    """The posterior of Sobol points of a problem at its most probable hyperparameters."""
    problem = problems.get(name, dim, shift_seed=0)
    x = sobol(n, dim, Streams([0]))
    return fit(Observations.of(x, problem(x)), inference="map", streams=Streams([0])).surrogate


def optimality(name: str, dim: int, n: int, count: int) -> dict[str, Any]:
    """The share of paths whose minimum is within 1e-3 sd of the best one known.

    It is known from full ascents from 400 of 16,384 points of each path, and from our own.
    """
    posterior = fitted(name, dim, n)
    paths = our_paths(posterior, count, 0)
    space = cube(dim)
    default = default_search(space, confined=False)
    exhaustive = Search(raw=16_384, perturbed=2048, restarts=400, iterations=100)
    began = time.process_time()
    ours = paths(our_minima(posterior, paths, default, 0)[None, :, None])[0, :, 0]
    seconds = time.process_time() - began
    thorough = paths(our_minima(posterior, paths, exhaustive, 1000)[None, :, None])[0, :, 0]
    spread = paths.at(sobol(1024, dim, Streams([7])))[0].std(-1)
    missed = ours - torch.minimum(ours, thorough)
    return {
        "problem": name,
        "d": dim,
        "n": n,
        "q": count,
        "own_minimum": float((missed < 1e-3 * spread).double().mean()),
        "exhaustive_search_too": float(
            (thorough - torch.minimum(ours, thorough) < 1e-3 * spread).double().mean()
        ),
        "mean_missed_sd": float((missed / spread).mean()),
        "cpu_s": seconds,
    }


def _apart(*asked: Any) -> dict[str, float]:
    """`measure`, in a process of its own.

    Raises:
        BrokenProcessPool: the process died.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, *asked).result()


def largest(device: str = "cpu") -> dict[str, Any]:
    """The minima of many functions given many results, once; BoTorch is not tried."""
    n, dim, count = _LARGEST[device]
    found = _apart("batch", "gpbo", data(n, dim), count, 1, device)
    return {"work": "batch", "n": n, "d": dim, "q": count} | {
        "gpbo_s": found["seconds"],
        "gpbo_MiB": found["MiB"],
    }


def figures(repeats: int, device: str = "cpu") -> list[dict[str, Any]]:
    """A row for each piece of work."""
    dim, count = (20, 1000) if device == "cuda" else (6, 64)
    counts = {"draw": 1000, "draw, 1024 features": 1000, "batch": count}
    rows, known = [], data(500, dim)
    for work, wanted in counts.items():
        found = {}
        for side in ("gpbo", "BoTorch"):
            found[side] = _apart(work, side, known, wanted, repeats, device)
            print(f"{work}, {side}: {found[side]}", flush=True)
        ours, theirs = found["gpbo"], found["BoTorch"]
        rows.append(
            {
                "work": work,
                "n": 500,
                "d": dim,
                "q": wanted,
                "gpbo_s": ours["seconds"],
                "botorch_s": theirs["seconds"],
                "times_faster": theirs["seconds"] / ours["seconds"],
                "gpbo_cpu_s": ours["busy"],
                "botorch_cpu_s": theirs["busy"],
                "times_less_cpu": theirs["busy"] / ours["busy"],
                "gpbo_MiB": ours["MiB"],
                "botorch_MiB": theirs["MiB"],
                "times_less": theirs["MiB"] / max(ours["MiB"], 1.0),
            }
        )
    return rows

"""What many runs in one batch cost: posterior updates, acquisition ascents, effective draws.

The subcommands ``updates``, ``ascent`` and ``numpyro`` of `speed`. Both sides work on the same
data, on the same machine and in one process; a missing peer is reported.
"""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from unittest import mock

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.acquisition.analytic import _log_ei_helper
from botorch.optim import optimize_acqf
from jaxtyping import Float
from torch import Tensor

from gpbo import fitting, graphs
from gpbo.acquisition import LogExpectedImprovement
from gpbo.backend import DTYPE, Streams
from gpbo.candidates import Search, propose
from gpbo.data import Observations
from gpbo.graphs import wait
from gpbo.inference import HyperparameterDraws, sample_hyperparameters
from gpbo.surrogate import Surrogate
from gpbo_benchmarks.inputs import cube, moving, observed

#: The module that samples with NumPyro, where it is installed.
NUMPYRO = "gpbo_benchmarks.numpyro_sampler"
#: With more results than this, BoTorch's NUTS is not run.
_LARGEST_PEER = 200


def data_of(runs: int, n: int, dim: int, device: torch.device) -> Observations:
    """Other points in every run."""
    return observed(n, dim, Streams.named(0, "throughput", runs=runs), device)


def seconds(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """The seconds until the device was done, and the result."""
    began = time.perf_counter()
    result = work()
    wait(device)
    return time.perf_counter() - began, result


def updating(
    runs: int, n: int, dim: int, device: torch.device
) -> tuple[Observations, float, Callable[[int], fitting.Fit]]:
    """Data, the seconds of a cold fit to all but the last result, and the warm fit to all."""
    data = data_of(runs, n, dim, device)
    before = Observations.of(data.x[:, :-1], data.values[:, :-1])

    def streams(purpose: str, index: int = 0) -> Streams:
        return Streams.named(index, purpose, runs=runs, device=device)

    cold_s, cold = seconds(lambda: fitting.fit(before, streams=streams("cold")), device)

    def update(index: int) -> fitting.Fit:
        return fitting.fit(data, warm=moving(cold), streams=streams("warm", index))

    return data, cold_s, update


def updates(runs: int, n: int, dim: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Warm updates of the posterior of many runs by one observation each."""
    data, cold_s, update = updating(runs, n, dim, device)
    first_s, _ = seconds(lambda: update(repeats), device)  # loads kernels, captures graphs
    times, fits = zip(
        *(seconds(partial(update, index), device) for index in range(repeats)),
        strict=True,
    )
    warm_s = statistics.median(times)
    steps = statistics.median(float(fit.report.leapfrog_steps.mean()) for fit in fits)
    row = {
        "runs": runs,
        "n": n,
        "d": dim,
        "cold_s": cold_s,
        "first_warm_s": first_s,
        "warm_s": warm_s,
        "updates_per_s": runs / warm_s,
        "leapfrog_steps": steps,
        "extended": statistics.median(fit.report.status.count("extended") for fit in fits),
    }
    if device.type != "cpu":
        with mock.patch.dict(graphs.RECORDERS, clear=True):
            eager = [seconds(partial(update, index), device)[0] for index in range(repeats)]
        row["warm_without_graphs_s"] = statistics.median(eager)
    print(row, flush=True)
    return row | _botorch_nuts(data, runs, repeats, warm_s)


def _botorch_nuts(data: Observations, runs: int, repeats: int, warm_s: float) -> dict[str, Any]:
    if data.x.shape[1] > _LARGEST_PEER:
        return {"botorch_s": f"not tried beyond n={_LARGEST_PEER}"}
    missing = [name for name in ("jax", "numpyro") if find_spec(name) is None]
    if missing:
        return {"botorch_s": f"needs {' and '.join(missing)}"}
    from gpbo_benchmarks.botorch_loop import fully_bayesian_fit

    x, y = data.x[0].cpu(), data.y[0].cpu()
    fully_bayesian_fit(x, y)  # the first call pays for loading
    peer_s = statistics.median(fully_bayesian_fit(x, y)[0] for _ in range(repeats))
    return {"botorch_s": peer_s, "ratio": peer_s * runs / warm_s}


class MeanLogEI(AcquisitionFunction):
    """Log expected improvement averaged over the draws that a model has in its batch axis."""

    def __init__(self, surrogate: Surrogate, run: int) -> None:
        super().__init__(surrogate.to_botorch(run))
        self.best = surrogate.incumbent[run]

    def forward(self, X: Tensor) -> Tensor:  # the name that BoTorch calls it by
        """The values ``[b]`` of points ``[b, 1, d]``."""
        posterior = self.model.posterior(X.unsqueeze(1))
        mean, sd = posterior.mean[..., 0, 0], posterior.variance[..., 0, 0].sqrt()
        values = _log_ei_helper((self.best - mean) / sd) + sd.log()
        return values.logsumexp(-1) - math.log(values.shape[-1])


def posterior(runs: int, n: int, dim: int, draws: int, device: torch.device) -> Surrogate:
    """A posterior at plausible random hyperparameters, which need not fit the data."""
    data = data_of(runs, n, dim, device)
    streams = Streams.named(1, "throughput", runs=runs, device=device)
    one = torch.ones(runs, draws, dtype=DTYPE, device=device)
    lengthscale = 0.5 * dim**0.5 * (0.3 * streams.normal(draws, dim)).exp()
    noise = 1e-2 * (0.5 * streams.normal(draws)).exp()
    mean = 0.1 * streams.normal(draws)
    return Surrogate.condition(data.x, data.y, data.mask, lengthscale, one, noise, mean)


def ascent(
    runs: int, n: int, dim: int, peer_runs: int, repeats: int, device: torch.device
) -> dict[str, Any]:
    """The maximum of log EI over 16 draws from 20 restarts, all runs at once or one by one."""
    surrogate = posterior(runs, n, dim, 16, device)
    utility = LogExpectedImprovement(surrogate, surrogate.incumbent)
    space = cube(dim)
    best = surrogate.x[:, :5]
    search = Search(raw=512, restarts=20)

    def ours(index: int) -> Float[Tensor, "r d"]:
        streams = Streams.named(index, "ascent", runs=runs, device=device)
        nothing = [frozenset[Any]()] * runs
        return propose(utility, space, streams, best_x=best, taken=nothing, search=search)

    ours(repeats)
    times, points = zip(
        *(seconds(partial(ours, index), device) for index in range(repeats)),
        strict=True,
    )
    our_s = statistics.median(times)
    print(f"gpbo: {our_s} s", flush=True)
    bounds = torch.stack([torch.zeros(dim), torch.ones(dim)]).to(surrogate.x)
    their_s, theirs = 0.0, []

    def peer(run: int) -> tuple[Tensor, Tensor]:
        target = MeanLogEI(surrogate, run)
        return optimize_acqf(target, bounds, q=1, num_restarts=20, raw_samples=512)

    peer(0)
    for run in range(peer_runs):
        torch.manual_seed(run)
        took, (point, _) = seconds(partial(peer, run), device)
        their_s += took
        theirs.append(point.detach())
    own = utility(points[0][:, None])[:peer_runs, 0]
    padded = torch.cat([torch.stack(theirs), points[0][peer_runs:, None]])
    lead = own - utility(padded)[:peer_runs, 0]
    return {
        "runs": runs,
        "n": n,
        "d": dim,
        "gpbo_s": our_s,
        "botorch_runs": peer_runs,
        "botorch_s": their_s * runs / peer_runs,
        "ratio": their_s * runs / peer_runs / our_s,
        "as_good": float((lead >= -1e-4).double().mean()),
        "least_lead": float(lead.min()),
        "median_lead": float(lead.median()),
    }


def numpyro(runs: int, n: int, dim: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Effective draws per second, cold and warm, against NumPyro with all chains vectorised.

    The peer samples the same density with as many chains, otherwise at its defaults. Its
    compilation is reported separately.
    """
    data = data_of(runs, n, dim, device)

    def ours(start: HyperparameterDraws | None, seed: int) -> HyperparameterDraws:
        return sample_hyperparameters(data.x, data.y, start=start, seed=seed)

    ours(None, 99)
    cold_s, cold = seconds(lambda: ours(None, 0), device)
    times, warm = zip(
        *(seconds(partial(ours, cold, seed), device) for seed in range(1, 1 + repeats)),
        strict=True,
    )
    warm_s = statistics.median(times)
    ess = float(cold.info.ess_bulk.sum())
    warm_ess = statistics.median(float(draws.info.ess_bulk.sum()) for draws in warm)
    row = {
        "runs": runs,
        "n": n,
        "d": dim,
        "cold_s": cold_s,
        "cold_ess_per_s": ess / cold_s,
        "warm_s": warm_s,
        "warm_ess_per_s": warm_ess / warm_s,
    }
    print(row, flush=True)
    try:
        peer = import_module(NUMPYRO)
    except ModuleNotFoundError as error:
        return row | {"numpyro_s": f"needs {error.name}"}
    found = peer.sample(data.x.cpu(), data.y.cpu(), chains=cold.chains, seed=0)
    return row | {
        "numpyro_compile_s": found.compile_s,
        "numpyro_s": found.sample_s,
        "numpyro_ess_per_s": found.ess_per_s,
        "cold_ratio": ess / cold_s / found.ess_per_s,
        "warm_ratio": warm_ess / warm_s / found.ess_per_s,
    }

"""How long gpbo's fully Bayesian parts take, next to BoTorch's; in one process, except `thompson`.

    python benchmarks/speed.py [--repeats 3] [--case 50,6] [--case 100,20]
    python benchmarks/speed.py thompson [--repeats 3] [--device cuda]
    python benchmarks/speed.py large [--device cuda]
    python benchmarks/speed.py growth [--case n,d]
    python benchmarks/speed.py profile [--case runs,n,d]
    python benchmarks/speed.py updates | ascent | numpyro [--device cuda] [--case runs,n,d]

``growth`` measures a run with ever more results: its first proposal, and some after it, each of
them evaluated, next to BoTorch's from a point estimate given the same results. ``profile`` says
where the time of a warm update goes (`shares`), on a CPU. The last three measure many runs in one
batch (`throughput`): warm posterior updates per second, the maximum of an acquisition function, and
effective draws per second; by default a few runs on a CPU, and as many as the goals name on a GPU.

Figures are medians of several repeats (means in ``growth``), the two sides taking turns; in the
last three, one side follows the other, BoTorch's ascents are of one run each, and NumPyro samples
once. BoTorch compiles at every fit of a fully Bayesian model, so its time includes that; it is what
its users wait for.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice, product
from typing import Any

import torch

from gpbo import Optimizer
from gpbo.backend import Streams, resolve_device
from gpbo.data import Observations
from gpbo.design import sobol
from gpbo.fitting import Inference
from gpbo.inference import HyperparameterDraws, sample_hyperparameters
from gpbo.mcmc.diagnostics import bulk_ess
from gpbo_benchmarks import script, thompson
from gpbo_benchmarks.inputs import cube, observed, problem_of
from gpbo_benchmarks.script import Keep


def data(n: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The points and the standardised values of one run."""
    found = observed(n, dim, Streams.named(0, "speed"))
    return found.x[0], found.y[0]


def timed_draws(
    x: torch.Tensor, y: torch.Tensor, start: HyperparameterDraws | None, seed: int
) -> tuple[float, HyperparameterDraws]:
    """Seconds and result of a call of ``sample_hyperparameters`` at its defaults."""
    began = time.perf_counter()
    draws = sample_hyperparameters(x, y, start=start, seed=seed)
    return time.perf_counter() - began, draws


def sampling(n: int, dim: int, repeats: int) -> dict[str, Any]:
    """Cold and warm sampling against ``fit_fully_bayesian_model_nuts``."""
    from gpbo_benchmarks.botorch_loop import fully_bayesian_fit

    x, y = data(n, dim)
    # The first call of either side pays for loading.
    timed_draws(x[:-1], y[:-1], None, 99)
    fully_bayesian_fit(x[:5], y[:5])
    cold_s, cold_rhat, warm_s, peer_s, peer_ess, results = [], [], [], [], [], []
    for repeat in range(repeats):
        seconds, before = timed_draws(x[:-1], y[:-1], None, repeat)
        cold_s.append(seconds)
        cold_rhat.append(float(before.info.rhat.max()))
        for again in range(3):
            seconds, after = timed_draws(x, y, before, 100 * repeat + again)
            warm_s.append(seconds)
            results.append(after.info)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seconds, kept = fully_bayesian_fit(x, y)
        peer_s.append(seconds)
        peer_ess.append(float(bulk_ess(kept.T[:, None]).min()))
    peer = statistics.median(peer_s)
    return {
        "n": n,
        "d": dim,
        "botorch_s": peer,
        "cold_s": statistics.median(cold_s),
        "warm_s": statistics.median(warm_s),
        "cold_ratio": peer / statistics.median(cold_s),
        "warm_ratio": peer / statistics.median(warm_s),
        "cold_rhat": statistics.median(cold_rhat),
        "warm_rhat": statistics.median(float(info.rhat.max()) for info in results),
        "warm_ess_bulk": statistics.median(float(info.ess_bulk.min()) for info in results),
        "warm_ess_tail": statistics.median(float(info.ess_tail.min()) for info in results),
        "botorch_kept_draws": kept.shape[0],
        "botorch_ess_of_kept": statistics.median(peer_ess),
    }


@dataclass(frozen=True)
class Turn:
    """The seconds of a proposal by each side, given the same results."""

    gpbo_s: float
    gpbo_fit_s: float
    botorch_s: float
    botorch_fit_s: float


def turns(n: int, dim: int, inference: Inference = "hmc") -> Iterator[Turn]:
    """Proposals by both sides given so many results, and one more result for each proposal.

    gpbo's are evaluated. Its first one is cold; the peer's time to load is not counted.
    """
    from gpbo_benchmarks.botorch_loop import suggest_with_map

    problem, x = problem_of(dim), sobol(n, dim, Streams.named(0, "growth"))[0]
    values = problem(x)
    space = cube(dim)
    optimizer = Optimizer(space, seed=0, inference=inference, initial=1)
    for params, value in zip(space.decode(x), values.tolist(), strict=True):
        optimizer.add(params, value)
    suggest_with_map(x[:5], values[:5])
    while True:
        began = time.perf_counter()
        trial = optimizer.ask()
        gpbo_s, report = time.perf_counter() - began, optimizer.fit_report
        assert report is not None
        peer = suggest_with_map(x, Observations.of(x[None], values[None]).y[0])
        yield Turn(gpbo_s, report.seconds, peer.fit_s + peer.acquisition_s, peer.fit_s)
        x = torch.cat([x, space.encode([trial.params])])
        values = problem(x)
        optimizer.tell(trial, float(values[-1]))


def suggestion(n: int, dim: int, repeats: int) -> dict[str, Any]:
    """A warm fully Bayesian suggestion against BoTorch's suggestion from a point estimate."""
    _, *warm = islice(turns(n, dim), 1 + repeats)
    return {
        "n": n,
        "d": dim,
        "gpbo_s": statistics.median(each.gpbo_s for each in warm),
        "gpbo_fit_s": statistics.median(each.gpbo_fit_s for each in warm),
        "botorch_map_s": statistics.median(each.botorch_s for each in warm),
        "botorch_map_fit_s": statistics.median(each.botorch_fit_s for each in warm),
        "ratio": statistics.median(each.botorch_s / each.gpbo_s for each in warm),
    }


def grown(n: int, dim: int, asks: int, inference: Inference) -> dict[str, Any]:
    """The first proposal given so many results, and the mean of those that follow.

    Not the median: with many results, chains move in some proposals only, and long in a few.
    """
    first, *warm = islice(turns(n, dim, inference), 1 + asks)
    ours = statistics.mean(each.gpbo_s for each in warm)
    theirs = statistics.mean(each.botorch_s for each in warm)
    return {
        "n": n,
        "d": dim,
        "inference": inference,
        "first_s": first.gpbo_s,
        "gpbo_s": ours,
        "gpbo_fit_s": statistics.mean(each.gpbo_fit_s for each in warm),
        "botorch_map_s": theirs,
        "ratio": theirs / ours,
    }


#: Results and dimensions of measurements of one run.
CASES = ((50, 6), (100, 20))


def of_one_run(cases: Sequence[tuple[int, ...]], repeats: int) -> dict[str, Any]:
    """A suggestion and, where there is NumPyro, by which BoTorch samples, draws."""
    figures = {"suggestion": [suggestion(n, dim, 3 * repeats) for n, dim in cases]}
    script.show("one suggestion, seconds", figures["suggestion"])
    if find_spec("numpyro") is not None:
        figures["sampling"] = [sampling(n, dim, repeats) for n, dim in cases]
        script.show("draws of the hyperparameters, seconds", figures["sampling"])
    return figures


#: Runs, results and dimensions of measurements of many runs, on a CPU and on a GPU.
BATCHES: dict[str, dict[str, tuple[tuple[int, int, int], ...]]] = {
    "updates": {"cpu": ((4, 50, 6),), "cuda": ((128, 50, 6), (1, 1000, 100))},
    "ascent": {"cpu": ((4, 100, 20),), "cuda": ((64, 100, 20),)},
    "numpyro": {"cpu": ((2, 50, 6),), "cuda": ((128, 50, 6),)},
}

#: Likewise, for profiles.
PROFILED = ((1, 50, 6), (16, 50, 6), (1, 100, 20))


def sizes(text: str) -> tuple[int, ...]:
    """The numbers of a case."""
    return tuple(map(script.at_least(1), text.split(",")))


def many_runs(options: argparse.Namespace, keep: Keep) -> None:
    """One of `BATCHES`."""
    from gpbo_benchmarks import throughput

    device = resolve_device(options.device)
    rows = []
    for runs, n, dim in options.case or BATCHES[options.work][device.type]:
        if options.work == "ascent":
            peer_runs = options.peer_runs or min(runs, 8)
            row = throughput.ascent(runs, n, dim, peer_runs, options.repeats, device)
        else:
            measure = throughput.updates if options.work == "updates" else throughput.numpyro
            row = measure(runs, n, dim, options.repeats, device)
        rows.append(row)
        script.show(f"{options.work}, many runs in one batch", [row])
        # After each, in case this is ended before the last.
        keep(f"{options.work}-{device.type}", {options.work: rows})


def profiled(options: argparse.Namespace, keep: Keep) -> None:
    """Where the time of warm updates goes."""
    from gpbo_benchmarks.shares import shares

    rows = [shares(*case, options.repeats) for case in options.case or PROFILED]
    script.show("shares of the time of a warm update", rows)
    keep("profile", {"profile": rows})


def functions_drawn(options: argparse.Namespace, keep: Keep) -> None:
    """Thompson sampling's parts."""
    device = resolve_device(options.device)
    rows = thompson.figures(options.repeats, device.type)
    script.show("functions drawn (draw), and their minima found too (batch)", rows)
    figures = {"speed": rows}
    if device.type == "cpu":  # elsewhere the shares are the same
        cases = ("hartmann6", 6, 60), ("levy", 20, 100), ("styblinski_tang", 20, 300)
        shares = [thompson.optimality(name, dim, n, 32) for name, dim, n in cases]
        script.show("share of functions whose own minimum was found", shares)
        figures["optimality"] = shares
    keep(f"thompson-{device.type}", figures)


def many_functions_drawn(options: argparse.Namespace, keep: Keep) -> None:
    """As many functions given as many results as the goals name, by gpbo alone."""
    device = resolve_device(options.device)
    rows = [thompson.largest(device.type)]
    script.show("functions drawn and their minima found", rows)
    keep(f"large-{device.type}", {"large": rows})


def growth(options: argparse.Namespace, keep: Keep) -> None:
    """Proposals given more and more results."""
    cases = options.case or [(100, 6), (200, 6), (400, 6), (800, 6), (400, 20)]
    rows = []
    works: list[Inference] = ["hmc", "map"]
    for (n, dim), inference in product(cases, works):
        rows.append(grown(n, dim, 4 * options.repeats, inference))
        print(rows[-1], flush=True)
    script.show("a proposal of many results, seconds", rows)
    keep("growth", {"growth": rows})


def suggestions(options: argparse.Namespace, keep: Keep) -> None:
    """A suggestion, and draws of the hyperparameters."""
    keep("speed", of_one_run(options.case or CASES, options.repeats))


#: The subcommands that take each option that not all do.
TAKERS = {
    "case": ("suggestion", "growth", "profile", *BATCHES),
    "device": ("thompson", "large", *BATCHES),
    "peer_runs": ("ascent",),
}

#: The subcommands, which measure, print and save.
WORKS: dict[str, Callable[[argparse.Namespace, Keep], None]] = {
    "suggestion": suggestions,
    "thompson": functions_drawn,
    "large": many_functions_drawn,
    "growth": growth,
    "profile": profiled,
    **dict.fromkeys(BATCHES, many_runs),
}


def main() -> None:
    """Measure, print and save."""
    parser = script.parser(__doc__)
    parser.add_argument("work", nargs="?", choices=list(WORKS), default="suggestion")
    parser.add_argument("--repeats", type=script.at_least(1), default=3)
    parser.add_argument(
        "--case",
        type=sizes,
        action="append",
        help="n,d for suggestion (default 50,6 and 100,20) and growth; runs,n,d for the others",
    )
    parser.add_argument(
        "--device", type=script.known_device, help="for thompson and many runs; default cpu"
    )
    parser.add_argument(
        "--peer-runs", type=script.at_least(1), help="for ascent; default 8 at most"
    )
    options = parser.parse_args()
    for name, takers in TAKERS.items():
        if getattr(options, name) is not None and options.work not in takers:
            option = f"--{name.replace('_', '-')}"
            parser.error(
                f"argument {option}: {options.work} does not take it: expected one of "
                f"{', '.join(takers)}"
            )
    options.device = options.device or "cpu"
    axes = ("n", "d") if options.work in ("suggestion", "growth") else ("runs", "n", "d")
    if any(len(case) != len(axes) for case in options.case or ()):
        parser.error(f"argument --case: expected {','.join(axes)} for {options.work}")
    if options.work == "suggestion" and find_spec("numpyro") is None:
        parser.error(
            "numpyro is not installed, and BoTorch samples with it: run pip install 'gpbo[bench]'"
        )
    WORKS[options.work](options, script.begin(options.output))


if __name__ == "__main__":
    main()

"""Synchronous and asynchronous Thompson sampling, the experiments of Kandasamy et al. (2018).

    python benchmarks/kandasamy.py [--full] [--case hartmann6] [--runs 20] [--keep FOLDER]

"Parallelised Bayesian optimisation via Thompson sampling", AISTATS, in the settings of the
authors' code (kirthevasank/gp-parallel-ts), including the cases that they found to show no
difference or not to be worth showing. (Their last case, a network trained on Cifar-10 in real time,
does not fit a simulated clock.) As in theirs, functions are searched in the whole cube; in the
initial design no worker waits. All runs of a method advance as rows of a batch; the same seed has
the same evaluation times, noise and initial design in all methods. Reports how many evaluations fit
into the time, and simple regret against time and against completed evaluations; a single worker
continues until it has made as many as the others. Without ``--full``: a third of the time, fewer
waves and a quicker search, some hours on two cores for all cases. With ``--keep`` the same command
continues where it was interrupted, even in the middle of a method's runs.

As in the authors' code, the time to choose a point does not count, except with ``--latency``.
"""

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpbo.archive import write_text
from gpbo.backend import Streams
from gpbo.simulation import LAWS, Simulation
from gpbo.strategies import RandomSearch
from gpbo_benchmarks import script
from gpbo_benchmarks.asynchronous import CASES, Case, Method, methods, run
from gpbo_benchmarks.record import machine

#: Regret is drawn from here on: several of the optima are corners, which are met exactly.
_LEAST = 1e-6
#: Cases side by side in the plot; a colour for each strategy, a style for each mode.
_ACROSS = 6
_COLORS = {"TS": "tab:blue", "RAND": "tab:gray", "EI": "tab:orange", "HTS": "tab:green"}
_STYLES = {"asy": "-", "syn": "--", "seq": ":"}


def run_all(
    case: Case, of: dict[str, Method], *, horizon: float, keep: Path | None = None, **options: Any
) -> Iterator[tuple[str, Simulation]]:
    """Every method's runs as they are done, those of one worker last.

    A single worker makes few evaluations in the time of many, and is compared at as many as they
    make; so it continues after the time until it has made as many as the slowest of them. Runs that
    are kept in the folder are not made again.
    """
    made: list[int] = []
    for name, method in sorted(of.items(), key=lambda item: item[1].workers == 1):
        alone = method.workers == 1 and bool(made)
        file = None if keep is None else keep / f"{name}.npz"
        if file is not None and file.exists():
            done = Simulation.load(file)
        else:
            ends: dict[str, Any] = {"horizon": horizon}
            if alone:
                # The times of a run's trials are the same whatever is evaluated.
                in_time = run(case, replace(method, strategy=RandomSearch()), **ends, **options)
                budget = max(min(made), in_time.truth.shape[1])
                ends = {"horizon": math.inf, "budget": budget}
            done = kept(file, case, method, **ends, **options)
        if not alone:
            made.append(done.truth.shape[1])
        yield name, done


def kept(file: Path | None, case: Case, method: Method, **options: Any) -> Simulation:
    """The runs of a method, which are kept in a file, if one is given; until they are done, in
    another one next to it.
    """
    if file is None:
        return run(case, method, **options)
    file.parent.mkdir(exist_ok=True)
    begun = file.with_suffix(".begun")
    done = run(case, method, checkpoint=begun, **options)
    done.save(file)
    begun.unlink(missing_ok=True)
    return done


def interval(values: Tensor) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % interval by bootstrap over the runs."""
    values = values.cpu()
    draws = torch.randint(
        len(values), (4000, len(values)), generator=torch.Generator().manual_seed(0)
    )
    low, high = values[draws].mean(-1).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return float(values.mean()), low, high


def summarise(name: str, done: dict[str, Simulation], horizon: float) -> list[dict[str, Any]]:
    """A row for each method: evaluations, regret in time, regret at as many evaluations.

    Every run of a method has as many evaluations as the fastest one makes in the time; what a
    slower one makes after it counts for the last figure only.
    """
    fewest = min(result.truth.shape[1] for result in done.values())
    at_the_end = {
        method: result.regret_at(torch.tensor([horizon]).double())[:, 0]
        for method, result in done.items()
    }
    rows = []
    for method, result in done.items():
        in_time, at_equal = at_the_end[method], result.regret[:, fewest - 1]
        row: dict[str, Any] = {
            "case": name,
            "method": method,
            "evaluations": float((result.told <= horizon).sum(-1).double().mean()),
            "regret_in_time": written(in_time),
            f"regret_after_{fewest}": written(at_equal),
            "asy-syn_in_time": "",
            f"asy-syn_after_{fewest}": "",
        }
        if method.startswith("asy"):
            other = "syn" + method[3:]
            row["asy-syn_in_time"] = written(in_time - at_the_end[other])
            difference = at_equal - done[other].regret[:, fewest - 1]
            row[f"asy-syn_after_{fewest}"] = written(difference)
        rows.append(row)
    return rows


def written(values: Tensor) -> str:
    """The mean and its 95 % interval."""
    mean, low, high = interval(values)
    return f"{mean:.3g} ({low:.3g} to {high:.3g})"


def longest(law: str, workers: int) -> float:
    """The mean of the longest of so many times: how long a batch lasts, in trials."""
    times = LAWS[law](torch.zeros(1, 20_000 * workers, 1), Streams.named(0, "longest"))
    return float(times.view(-1, workers).amax(-1).mean())


def counts(name: str, done: dict[str, Simulation], case: Case) -> dict[str, Any]:
    """Asynchronous over synchronous evaluations, next to what the law predicts."""
    strategy = next(method[3:] for method in done if method.startswith("asy"))
    free, in_step = (done[mode + strategy].evaluations.double().mean() for mode in ("asy", "syn"))
    return {
        "case": name,
        "law": case.law,
        "workers": case.workers,
        "verdict": case.verdict,
        "asy": float(free),
        "syn": float(in_step),
        "ratio": float(free / in_step),
        "without_an_end": longest(case.law, case.workers),
    }


def paint(curves: dict[str, dict[str, Simulation]], horizons: dict[str, float], path: Path) -> None:
    """Mean regret and its standard error: above against time, below against evaluations."""
    from matplotlib.figure import Figure

    across = min(len(curves), _ACROSS)
    down = math.ceil(len(curves) / across)
    figure = Figure(figsize=(3.6 * across, 5.6 * down), layout="constrained")
    panels = figure.subplots(2 * down, across, squeeze=False)
    for place, (name, done) in enumerate(curves.items()):
        row, column = divmod(place, across)
        above, below = panels[2 * row][column], panels[2 * row + 1][column]
        times = torch.linspace(0, horizons[name], 101).double()[5:]
        for method, result in done.items():
            counted = torch.arange(1, result.truth.shape[1] + 1)
            draw(above, method, times, result.regret_at(times))
            draw(below, method, counted, result.regret)
        above.set(title=name, xlabel="simulated time")
        below.set(xlabel="completed evaluations")
        if column == 0:
            above.set_ylabel("simple regret")
            below.set_ylabel("simple regret")
    for axes in panels.flat:
        if not axes.has_data():
            axes.set_axis_off()
    lines, names = panels[0][0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", fontsize="small", ncols=len(names))
    figure.savefig(path, dpi=80)


def draw(axes: Any, method: str, steps: Tensor, regret: Tensor) -> None:
    """The mean of the runs and its standard error, from where on all of them have a regret."""
    regret = regret.cpu()
    shown = regret.isfinite().all(0)
    steps, regret = steps[shown], regret[:, shown]
    mean, error = regret.mean(0), regret.std(0) / len(regret) ** 0.5
    mode, color = method[:3], _COLORS[method[3:]]
    axes.plot(steps, mean.clamp(min=_LEAST), _STYLES[mode], label=method, color=color)
    low, high = ((mean + sign * error).clamp(min=_LEAST) for sign in (-1, 1))
    axes.fill_between(steps, low, high, alpha=0.12, color=color)
    axes.set(yscale="log")


def begin(folder: Path, asked: dict[str, Any]) -> None:
    """Make the folder of finished runs, or check that those in it fit.

    Raises:
        SystemExit: it has runs of other options, or of another commit.
    """
    folder.mkdir(exist_ok=True, parents=True)
    record, asked = folder / "options.json", {**asked, "commit": machine()["commit"]}
    if record.exists() and (before := json.loads(record.read_text())) != asked:
        sys.exit(f"--keep {folder}: has runs of {before}; expected {asked}, or another folder")
    write_text(record, json.dumps(asked))


def main() -> None:
    """Measure, print, save and paint."""
    parser = script.parser(__doc__)
    parser.add_argument("--full", action="store_true", help="as the authors did it")
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--runs", type=script.at_least(1), default=20)
    parser.add_argument(
        "--share",
        type=script.at_least(0.01),
        help="share of the authors' time; default 1/3, with --full 1",
    )
    parser.add_argument("--latency", action="store_true", help="count the time to choose a point")
    parser.add_argument("--device", type=script.known_device, default="auto")
    parser.add_argument(
        "--keep", type=Path, help="folder to keep finished runs in, which are not run again"
    )
    options = parser.parse_args()
    share = options.share or (1.0 if options.full else 1 / 3)
    names = options.case or list(CASES)
    others = ("case", "keep", "output")
    asked = {name: value for name, value in vars(options).items() if name not in others}
    if options.keep is not None:
        begin(options.keep, asked)
    keep = script.begin(options.output)
    done: dict[str, dict[str, Simulation]] = {}
    horizons = {name: share * CASES[name].horizon for name in names}
    tables, ratios = [], []
    for name in names:
        done[name] = {}
        began = time.perf_counter()
        for method, runs in run_all(
            CASES[name],
            methods(full=options.full),
            horizon=horizons[name],
            keep=options.keep and options.keep / name,
            runs=options.runs,
            device=options.device,
            latency=options.latency,
        ):
            done[name][method] = runs
            print(f"{name} {method}: {time.perf_counter() - began:.0f} s", flush=True)
            began = time.perf_counter()
        table = summarise(name, done[name], horizons[name])
        script.show(f"{name} (the authors: {CASES[name].verdict}), {options.runs} runs", table)
        tables += table
        ratios.append(counts(name, done[name], CASES[name]))
    script.show("evaluations without waiting over those in step", ratios)
    folder = options.output / "figures"
    folder.mkdir(exist_ok=True, parents=True)
    paint(done, horizons, folder / "kandasamy.png")
    figures = {"table": tables, "counts": ratios, "options": asked}
    keep("kandasamy", figures)


if __name__ == "__main__":
    main()

"""Tune a support vector machine on handwritten digits, and compare with random search.

The classifier learns the digits that scikit-learn ships from 400 of the images: principal
components, then a support vector machine. Five settings decide how well: two of them are real
numbers of unknown magnitude, one is an integer, two are choices. The objective is the error on
the other images, averaged over eight random splits.

    python examples/tune_svm.py --output demo-output
"""

import math
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

import gpbo

SPACE = gpbo.Space(
    gpbo.Real("C", 1e-3, 1e5, scale="log"),
    gpbo.Real("gamma", 1e-6, 1e1, scale="log"),
    gpbo.Categorical("kernel", ["rbf", "poly", "sigmoid"]),
    gpbo.Integer("components", 2, 60),
    gpbo.Categorical("whiten", [False, True]),
)
SPLITS = StratifiedShuffleSplit(n_splits=8, train_size=400, random_state=0)
digits = lru_cache(load_digits)


def log_error(params: dict[str, Any]) -> float:
    """The base-10 logarithm of the cross-validated error of a configuration.

    The logarithm, since halving an error of 4 % is worth as much as halving one of 40 %.
    """
    images, labels = digits(return_X_y=True)
    classifier = make_pipeline(
        PCA(params["components"], whiten=params["whiten"], random_state=0),
        SVC(C=params["C"], gamma=params["gamma"], kernel=params["kernel"]),
    )
    accuracy = cross_val_score(classifier, images / 16, labels, cv=SPLITS, n_jobs=1).mean()
    return math.log10(1 - accuracy)


def search(strategy: str, budget: int, seed: int, progress: bool) -> gpbo.Result:
    """Search for the configuration of least error, on one core."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        return gpbo.minimize(
            log_error, SPACE, budget=budget, strategy=strategy, seed=seed, progress=progress
        )


def percent(log10_error: float, _position: object = None) -> str:
    """A value of the objective for people."""
    return f"{100 * 10**log10_error:.3g} %"


def table(title: str, *columns: str) -> Table:
    """An empty table."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def comparison(results: dict[str, gpbo.Result], budget: int) -> Table:
    """How low the error was after a third, two thirds and all of the budget."""
    moments = [math.ceil(budget / 3), math.ceil(2 * budget / 3), budget]
    after = [f"after {moment} trials" for moment in moments]
    compared = table("Least error", "search", *after, "in training", "in choosing")
    for label, result in results.items():
        best = [result.incumbents[moment - 1] for moment in moments]
        errors = ["none" if trial is None else percent(trial.value) for trial in best]
        seconds = [f"{result.objective_s:.0f} s", f"{result.engine_s:.0f} s"]
        compared.add_row(label, *errors, *seconds)
    return compared


def diagnostics(report: gpbo.FitReport) -> Table:
    """Whether the last posterior over the hyperparameters was sampled well."""
    start = "warm" if report.warm else "cold"
    rows = table(f"Last fit: {report.inference}, {start} start, {report.status[0]}", "", "")
    rows.show_header = False
    rows.add_row("R-hat", f"{report.rhat[0]:.3f}")
    rows.add_row("bulk ESS", f"{report.ess_bulk[0]:.0f}")
    rows.add_row("tail ESS", f"{report.ess_tail[0]:.0f}")
    rows.add_row("divergences", f"{report.divergences[0]:.0f}")
    rows.add_row("at maximal tree depth", f"{100 * report.depth_saturation[0]:.0f} %")
    rows.add_row("leapfrog steps per chain", f"{report.leapfrog_steps[0]:.0f}")
    rows.add_row("time", f"{report.seconds:.2f} s")
    return rows


def write(figure: Figure, path: Path) -> None:
    """Write a figure, its values in percent."""
    for axes in figure.axes:
        axes.yaxis.set_major_formatter(percent)
        if axes.get_ylabel():
            axes.set_ylabel("cross-validated error")
    figure.savefig(path, dpi=150)


def main(
    output: Annotated[Path, typer.Option(help="Folder for the plots.")] = Path("demo-output"),
    budget: Annotated[int, typer.Option(min=3, help="Trials of each search.")] = 45,
    seed: Annotated[int, typer.Option(min=0, help="Of both searches.")] = 0,
    progress: Annotated[bool, typer.Option(help="Show the search while it runs.")] = True,
) -> None:
    """Tune a support vector machine on handwritten digits, and compare with random search."""
    output.mkdir(parents=True, exist_ok=True)
    console = Console()
    with ProcessPoolExecutor(1, get_context("spawn")) as other_core:
        random_search = other_core.submit(search, "random", budget, seed, False)
        tuned = search("ei", budget, seed, progress)
        results = {"fully Bayesian EI": tuned, "random search": random_search.result()}
    console.print(tuned)
    console.print(comparison(results, budget))
    if tuned.fit_report is not None:
        console.print(diagnostics(tuned.fit_report))
    write(gpbo.plots.convergence(results), output / "convergence.png")
    write(gpbo.plots.slices(tuned), output / "surrogate.png")
    console.print(f"Plots: {output / 'convergence.png'}, {output / 'surrogate.png'}")


if __name__ == "__main__":
    typer.run(main)

"""Tune a support vector machine on the breast-cancer data, and compare with random search.

The data, which scikit-learn ships, are 30 measurements of the cell nuclei in each of 569 tumours;
the machine says how probable it is that a tumour is malignant. Four settings decide how well: two
real numbers of unknown magnitude, an integer and a choice. The objective is the cross-validated
log-loss: ``log 2 = 0.69`` is a coin's, and less is better.

    python examples/tune_svm.py --output demo-output
"""

import math
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

import gpbo

SPACE = gpbo.Space(
    gpbo.Real("C", 1e-2, 1e4, scale="log"),
    gpbo.Real("gamma", 1e-4, 1e1, scale="log"),
    gpbo.Categorical("kernel", ["rbf", "poly", "sigmoid"]),
    gpbo.Integer("components", 2, 30),
)
ITERATIONS = 20_000  # a machine that needs more is a poor one, and some would need hours
FOLDS = RepeatedStratifiedKFold(n_splits=3, n_repeats=3, random_state=0)
data = cache(load_breast_cancer)


def log_loss(params: dict[str, Any]) -> float:
    """The cross-validated log-loss of a configuration."""
    classifier = make_pipeline(
        StandardScaler(),
        PCA(params["components"], random_state=0),
        CalibratedClassifierCV(
            SVC(
                C=params["C"],
                gamma=params["gamma"],
                kernel=params["kernel"],
                max_iter=ITERATIONS,
            ),
            ensemble=False,
            cv=3,
        ),
    )
    measurements, diagnoses = data(return_X_y=True)
    with threadpool_limits(1), warnings.catch_warnings():  # the other core has its own search
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(
            classifier, measurements, diagnoses, scoring="neg_log_loss", cv=FOLDS, n_jobs=1
        )
    return -float(scores.mean())


def search(strategy: str, budget: int, seed: int, progress: bool) -> gpbo.Result:
    """Look for the configuration of least log-loss."""
    return gpbo.minimize(
        log_loss, SPACE, budget=budget, strategy=strategy, seed=seed, progress=progress
    )


def comparison(results: dict[str, gpbo.Result], budget: int) -> Table:
    """What each search had found after a half, three quarters and all of the budget."""
    moments = [math.ceil(budget * share) for share in (0.5, 0.75, 1.0)]
    table = Table(title="Least log-loss found", box=SIMPLE_HEAD, title_justify="left")
    table.add_column("search")
    for heading in (*(f"{moment} trials" for moment in moments), "training", "choosing"):
        table.add_column(heading, justify="right")
    for label, result in results.items():
        best = [[None, *result.incumbents[:moment]][-1] for moment in moments]
        found = ["none" if trial is None else f"{trial.value:.4f}" for trial in best]
        table.add_row(label, *found, f"{result.objective_s:.0f} s", f"{result.engine_s:.0f} s")
    return table


def diagnostics(report: gpbo.FitReport) -> Table:
    """How well the posterior of the hyperparameters was sampled."""
    start = "warm" if report.warm else "cold"
    table = Table(
        title=f"Last fit: {report.inference}, {start} start, {report.status[0]}",
        box=SIMPLE_HEAD,
        title_justify="left",
        show_header=False,
    )
    if report.rhat[0].isnan():
        table.add_row("R-hat, effective sample sizes", "known a few fits after a fresh start")
    else:
        table.add_row("R-hat of the worst hyperparameter", f"{report.rhat[0]:.3f}")
        table.add_row("effective sample size, bulk", f"{report.ess_bulk[0]:.0f}")
        table.add_row("effective sample size, tails", f"{report.ess_tail[0]:.0f}")
    table.add_row("divergences", f"{report.divergences[0]:.0f}")
    table.add_row("cut off at the maximum tree depth", f"{report.depth_saturation[0]:.0%}")
    table.add_row("leapfrog steps per chain", f"{report.leapfrog_steps[0]:.0f}")
    table.add_row("seconds", f"{report.seconds:.2f}")
    return table


def main(
    output: Annotated[Path, typer.Option(help="Folder for the plots.")] = Path("demo-output"),
    budget: Annotated[int, typer.Option(min=2, help="Trials of each search.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of both searches.")] = 0,
    progress: Annotated[bool, typer.Option(help="Show the search while it runs.")] = True,
) -> None:
    """Tune a support vector machine on the breast-cancer data, and compare with random search."""
    output.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(1, get_context("spawn")) as other_core:
        running = other_core.submit(search, "random", budget, seed, False)
        tuned = search("ei", budget, seed, progress)
        results = {"fully Bayesian EI": tuned, "random search": running.result()}
    print(tuned)
    console = Console()
    console.print(comparison(results, budget))
    if tuned.fit_report is not None:
        console.print(diagnostics(tuned.fit_report))
    gpbo.plots.convergence(results, output / "convergence.png")
    gpbo.plots.slices(tuned, output / "surrogate.png")
    print(f"plots: {output / 'convergence.png'} and {output / 'surrogate.png'}")


if __name__ == "__main__":
    typer.run(main)

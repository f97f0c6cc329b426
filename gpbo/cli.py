"""The command line: tuning jobs (``tune``, ``resume``, ``show``, ``stop``) and benchmarks.

``problems`` and ``run`` are for single problems, ``bench`` compares methods on many.
"""

import io
import json
import sys
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import gpbo
from gpbo.errors import GpboError, InvalidOption
from gpbo_benchmarks.commands import app as bench

if TYPE_CHECKING:
    from gpbo.callbacks import Callback
    from gpbo.record import Record
    from gpbo.storage import SqliteStorage


class _Commands(TyperGroup):
    """The commands; wrong options are reported in the words of our own checks."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            from pydantic import ValidationError  # which newer versions of typer check options by

            if error.param is None or not isinstance(error.__cause__, ValidationError):
                raise
            wrong = error.__cause__.errors()[0]
            choices = wrong["msg"].rstrip(".").partition(" is not one of ")[2]
            if not choices and wrong["type"] != "int_parsing":
                raise
            expected = f"one of {choices}" if choices else "a whole number"
            name = error.param.opts[0]
            raise InvalidOption(f"{name}={wrong['input']!r}: expected {expected}") from error


app = typer.Typer(
    cls=_Commands,
    help="Fully Bayesian optimization.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")

_WHICH = "The job's name; by default the one in the job file, or the newest in the storage."


class StrategyName(StrEnum):
    """The strategies by name, listed here so that ``--help`` need not import `gpbo.strategies`."""

    EI = "ei"
    PI = "pi"
    TS = "ts"
    RANDOM = "random"
    GRID = "grid"
    SOBOL = "sobol"


class InferenceName(StrEnum):
    """How the hyperparameters are treated."""

    HMC = "hmc"
    NUTS = "nuts"
    MAP = "map"
    PYRO = "pyro"


def main() -> None:
    """Run the command line; errors of gpbo or of the system are printed without a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # Windows code pages lack letters
    try:
        app()
    except (GpboError, OSError) as error:
        print(f"gpbo: {error}", file=sys.stderr)
        sys.exit(2)


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"gpbo {gpbo.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None: ...


@app.command()
def problems() -> None:
    """List the built-in benchmark problems, all of which are minimised."""
    from rich.console import Console

    from gpbo.text import new_table

    table = new_table("problem", "parameters", "constraints", "optimum", "from")
    table.columns[0].no_wrap = True
    for column in table.columns[1:4]:
        column.justify = "right"
    for name in gpbo.problems.names():
        problem = gpbo.problems.get(name)
        counts = str(problem.dim), str(len(problem.constraints) or "")
        table.add_row(name, *counts, f"{problem.optimum:.10g}", problem.citation)
    Console().print(table)


@app.command()
def run(
    problem: Annotated[
        str, typer.Argument(help="The problem's name, as `gpbo problems` lists it.")
    ],
    strategy: Annotated[StrategyName, typer.Option(help="Search strategy.")] = StrategyName.EI,
    budget: Annotated[int, typer.Option(help="Number of trials.")] = 30,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    dim: Annotated[int | None, typer.Option(help="Number of parameters.")] = None,
    inference: Annotated[
        InferenceName, typer.Option(help="How to infer the hyperparameters.")
    ] = InferenceName.HMC,
    runs: Annotated[int, typer.Option(help="Number of runs, with consecutive seeds.")] = 1,
    plot: Annotated[
        Path | None, typer.Option(help="Write the convergence plot to this file.")
    ] = None,
    slices: Annotated[
        Path | None, typer.Option(help="Plot the surrogate along each parameter to this file.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Save the runs to this file, for gpbo.Replications.load.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Save progress to this file, and continue from it."),
    ] = None,
) -> None:
    """Optimize a built-in problem in this process, once or many times, and print the regret.

    Several runs, and a run with --save or --checkpoint, are made in one batch.
    """
    from gpbo.checks import path_to_write

    target = gpbo.problems.get(problem, dim)
    for option, path in (("--plot", plot), ("--slices", slices)):
        if path is not None:
            gpbo.plots.check_path(option, path)
    for option, path in (("--save", save), ("--checkpoint", checkpoint)):
        if path is not None:
            path_to_write(option, path)
    options: dict[str, Any] = {
        "budget": budget,
        "strategy": strategy.value,
        "seed": seed,
        "inference": inference.value,
    }
    if runs != 1 or save is not None or checkpoint is not None:
        if slices is not None:
            raise InvalidOption(
                f"--slices={slices}: expected a single run, without --save or --checkpoint"
            )
        _run_many(target, {**options, "runs": runs, "checkpoint": checkpoint}, plot, save)
        return
    objective = target.measure if target.constraints else target.evaluate
    result = gpbo.minimize(objective, target.space, constraints=target.limits, **options)
    print(result)
    if result.best is not None and result.best.value is not None:
        print(f"{result.best.value - target.optimum:.3g} above the optimum {target.optimum:.10g}")
    if plot is not None:
        result.plot(plot)
    if slices is not None and any(trial.value is not None for trial in result.trials):
        gpbo.plots.slices(result, slices)
    if result.interrupted:
        raise typer.Exit(130)


def _run_many(
    target: "gpbo.problems.Problem",
    options: dict[str, Any],
    plot: Path | None,
    save: Path | None,
) -> None:
    replications = gpbo.replicate(target, **options)
    print(replications)
    if save is not None:
        replications.save(save)
    if plot is not None:
        replications.plot(plot)
    if replications.stopped == "interrupted":
        raise typer.Exit(130)


TensorBoardFolder = Annotated[
    Path | None,
    typer.Option("--tensorboard", help="Write a TensorBoard run per trial to this folder."),
]
MLflowUri = Annotated[
    str | None, typer.Option("--mlflow", help="Log to MLflow at this tracking URI.")
]


@app.command()
def tune(
    file: Annotated[Path, typer.Argument(help="A job file in TOML.")],
    tensorboard: TensorBoardFolder = None,
    mlflow: MLflowUri = None,
) -> None:
    """Start the tuning job that a file describes; GUIDE.md has an example and lists all keys."""
    _run_job(file, _integrations(tensorboard, mlflow), resume=False)


@app.command()
def resume(
    file: Annotated[Path, typer.Argument(help="The job file.")],
    tensorboard: TensorBoardFolder = None,
    mlflow: MLflowUri = None,
) -> None:
    """Resume a file's job that was stopped or killed; for a script's job, run the script again."""
    _run_job(file, _integrations(tensorboard, mlflow), resume=True)


@app.command()
def show(
    where: Annotated[Path, typer.Argument(help="A job file, or a storage.")],
    name: Annotated[str | None, typer.Argument(help=_WHICH)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write everything to this file, as a page for a browser.")
    ] = None,
    watch: Annotated[bool, typer.Option(help="Update the display until the job ends.")] = False,
) -> None:
    """Show the state of a job, what its workers are doing, and its latest trials."""
    from rich.console import Console
    from rich.live import Live

    from gpbo import view

    if watch and (as_json or html is not None):
        raise InvalidOption(
            "--watch: cannot be combined with --json or --html, which show a single moment"
        )
    store, job, budget = _stored(where, name)
    if html is not None:
        from gpbo.report.page import write

        write(_at_present(store, job, latest=False), html)
        print(f"wrote {html}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        more = {"driven": store.is_driven(job), "folder": str(store.folder(job))}
        print(json.dumps({**view.plain(store.read(job)), **more}, allow_nan=False))
    if html is not None or as_json:
        return
    console, latest = Console(), _at_present(store, job)
    if store.folder(job).exists():
        console.print(f"logs of the trials: {store.folder(job)}", markup=False, soft_wrap=True)
    if others := [other for other in store.names() if other != job]:
        console.print(
            f"other jobs in this storage: {', '.join(others)}", markup=False, soft_wrap=True
        )
    with Live(get_renderable=lambda: view.panel(latest, budget), console=console):
        while watch and latest.ended is None:
            time.sleep(0.5)
            latest = _at_present(store, job)
    if not console.is_terminal:
        console.line()  # rich ends a live display with one on terminals only


@app.command()
def stop(
    where: Annotated[Path, typer.Argument(help="A job file, or a storage.")],
    name: Annotated[str | None, typer.Argument(help=_WHICH)] = None,
) -> None:
    """Ask the process that runs a job to stop it; `gpbo resume`, or its script, continues it."""
    from gpbo.completion import STOPPED

    store, job, _ = _stored(where, name)
    ended = _at_present(store, job).ended
    if ended is not None:
        why = STOPPED.get(ended, ended)
        raise InvalidOption(f"name={job!r}: expected a running job, but this one ended: {why}")
    store.request_stop(job)
    print(f"asked {job} to stop")


def _at_present(store: "SqliteStorage", job: str, *, latest: bool = True) -> "Record":
    """The stored job, as from `read`; if no process drives it, it counts as ended."""
    # In this order: a driver records the end of a job before it releases it.
    driven, record = store.is_driven(job), store.read(job, latest=latest)
    if driven or record.ended is not None:
        return record
    return replace(
        record, ended="no process is running it (continue with `gpbo resume` or its script)"
    )


def _integrations(tensorboard: Path | None, mlflow: str | None) -> "list[Callback]":
    found: list[Callback] = []
    option = ""
    try:
        if tensorboard is not None:
            option = "--tensorboard"
            from gpbo.integrations.tensorboard import TensorBoard

            found.append(TensorBoard(tensorboard))
        if mlflow is not None:
            option = "--mlflow"
            from gpbo.integrations.mlflow import MLflow

            found.append(MLflow(mlflow))
    except ModuleNotFoundError as error:
        raise InvalidOption(f"{option}: {error}") from error
    return found


def _run_job(file: Path, callbacks: "list[Callback]", *, resume: bool) -> None:
    from rich.live import Live

    from gpbo import terminal, view
    from gpbo.job import read_job
    from gpbo.storage import SqliteStorage
    from gpbo.trial import without_value

    job = read_job(file)
    console = terminal.console()
    tuner = job.tuner(file.parent, resume=resume, callbacks=callbacks)
    store = SqliteStorage(file.parent / job.storage)
    if console.is_terminal:
        with Live(
            get_renderable=lambda: view.panel(store.read(job.name, latest=True), job.budget),
            console=console,
            refresh_per_second=2,
            redirect_stdout=terminal.is_terminal(sys.stdout),
        ):
            result = tuner.run(progress=False)
    else:
        result = tuner.run()
    print(result)
    if any(without_value(result.trials)):
        print(f"logs of the trials: {store.folder(job.name)}")
    if result.interrupted:
        print(f"continue with `gpbo resume {file}`")
        raise typer.Exit(130)
    learned = any(trial.value is not None and not trial.added for trial in result.trials)
    if not learned or result.stopped in ("broken", "failures"):
        raise typer.Exit(1)


def _stored(where: Path, name: str | None) -> "tuple[SqliteStorage, str, int | None]":
    """The storage and the job that the arguments mean, and the budget if a job file has one."""
    from gpbo.storage import SqliteStorage

    hint, budget = "", None
    if where.suffix == ".toml":
        from gpbo.job_file import stored

        file, job = where, stored(where)
        if name is None or name == job.name:
            name, budget = job.name, job.budget
        where = job.storage
        hint = f"; this job has no storage yet, start it with `gpbo tune {file}`"
    if not where.is_file():
        raise InvalidOption(
            f"where={str(where)!r}: expected a job file or a storage that exists{hint}"
        )
    store = SqliteStorage(where)
    names = store.names()
    if name is None and not names:
        raise InvalidOption(f"where={str(where)!r}: this storage has no jobs")
    return store, names[-1] if name is None else name, budget

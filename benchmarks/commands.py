"""`gpbo bench`: a command for each suite, and those that read results. Loads nothing heavy."""

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gpbo.errors import InvalidOption

if TYPE_CHECKING:
    from .runner import Run
    from .suites import Suite
    from .units import Unit


class _Commands(TyperGroup):
    """The commands; the path of a user's suite is one too."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, if there is one."""
        if ":" not in cmd_name:
            return super().get_command(ctx, cmd_name)
        own = typer.Typer(add_completion=False)
        own.command(help=f"The problems at {cmd_name}." + _AGAIN)(_suite_command(cmd_name))
        return typer.main.get_command(own)


app = typer.Typer(
    cls=_Commands,
    help="Compare methods: run a suite, or problems of your own (module:attribute); write reports; "
    "check for regressions.",
    no_args_is_help=True,
)

#: What gpbo's extra ``suite`` installs.
_NEEDED = ("pandas", "pyarrow", "scipy", "sklearn", "statsmodels", "scikit_posthocs", "markdown_it")
#: The suites that `suites.get` builds.
SUITES = {
    "smoke": "Four problems, short: minutes on two cores.",
    "synthetic": "Sixteen problems in 2 to 20 dimensions, 20 evaluations per dimension up to 200.",
    "heldout": "Seven problems on which no default of gpbo was chosen, in 2 to 4 dimensions.",
    "highdim": "50 to 500 dimensions, of which a few or all matter.",
    "noisy": "Noise of 2 to 50 % of the spread of the values; methods are ranked by what they "
    "recommend.",
    "batches": "Ten batches of eight points, in 4 to 8 dimensions.",
    "constrained": "One to eleven constraints on quantities that are measured with the value.",
    "tuning": "Estimators of scikit-learn on data that it ships, in mixed spaces.",
    "kandasamy": "Thompson sampling with workers on a simulated clock (Kandasamy et al. 2018).",
}


@app.callback()
def _needs() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise InvalidOption(
            f"{', '.join(missing)} {verb} not installed: run pip install 'gpbo[suite]'"
        )


#: Where results go by default.
OUTPUT = Path("bench-results")

_Output = Annotated[Path, typer.Option(help="Folder of the results.")]
_Processes = Annotated[
    int | None,
    typer.Option(help="Processes at a time, with one thread each; by default one per core."),
]


def _suite_command(name: str) -> Callable[..., None]:
    def run(
        seeds: Annotated[
            int | None, typer.Option(help="Number of seeds; by default the suite's.")
        ] = None,
        budget: Annotated[
            int | None, typer.Option(help="At most this many evaluations per run, for a dry run.")
        ] = None,
        method: Annotated[
            list[str] | None,
            typer.Option(
                help="Run only this method (module:attribute for one of your own); may be repeated."
            ),
        ] = None,
        problem: Annotated[
            list[str] | None, typer.Option(help="Run only this problem; may be repeated.")
        ] = None,
        peers: Annotated[bool, typer.Option(help="Run other packages too.")] = True,
        peers_from: Annotated[
            Path | None,
            typer.Option(
                help="Results of an earlier run, or kept ones: peers of the same versions are not "
                "run again on the problems and seeds in them."
            ),
        ] = None,
        processes: _Processes = None,
        output: _Output = OUTPUT,
        fresh: Annotated[
            bool,
            typer.Option(
                help="Measure these methods, problems and seeds again; everything else in the "
                "folder is kept, and runs of other packages are reused from peer-traces."
            ),
        ] = False,
    ) -> None:
        run = _asked(name, seeds, budget, method, problem, peers, processes, output)
        _measure(replace(run, peers_from=peers_from, fresh=fresh))

    return run


_AGAIN = (
    "\n\nThe same command continues an interrupted run and retries what failed, except packages "
    "that ran out of time, which only --fresh retries."
    "\n\nEach command replaces trials.parquet and the report with what it asked for; other results "
    "stay in the folder, for a command that asks for them too."
)
for _name, _about in SUITES.items():
    app.command(_name, help=_about + _AGAIN)(_suite_command(_name))


@app.command()
def speed(
    repeats: Annotated[
        int, typer.Option(help="Repeats of every measurement; the median counts.")
    ] = 3,
    case: Annotated[
        list[str] | None,
        typer.Option(help="Numbers of results and dimensions, such as 50,6; may be repeated."),
    ] = None,
    output: _Output = OUTPUT,
) -> None:
    """Seconds of a suggestion and of a fit, next to BoTorch's in the same process."""
    from gpbo.checks import whole_number

    from . import record, report, stored
    from . import speed as measured

    whole_number("--repeats", repeats, least=1)
    cases = [_size(text) for text in case] if case else measured.CASES
    folder = _folder("--output", output) / "speed"
    sizes = [option for n, dim in cases for option in ("--case", f"{n},{dim}")]
    command = ["gpbo", "bench", "speed", "--repeats", str(repeats), *sizes]
    where = {**record.machine(), "command": " ".join(command)}
    figures = measured.of_one_run(cases, repeats)
    results = record.save("speed", figures, where, folder)
    tables = ["suggestions", *(("draws", "effective") if "sampling" in figures else ())]
    pages = report.write_pages(
        f"# Benchmark suite `speed`\n\n{stored.markdown(tables, folder)}\n", folder
    )
    for path in (results, *pages):
        typer.echo(path)


def _size(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise InvalidOption(f"--case={text}: expected two whole numbers above 0, such as 50,6")
    return int(parts[0]), int(parts[1])


def _asked(
    name: str,
    seeds: int | None,
    budget: int | None,
    wanted: list[str] | None,
    problems: list[str] | None,
    peers: bool,
    processes: int | None,
    output: Path,
) -> "Run":
    from gpbo.checks import whole_number

    from . import paths, suites
    from .peers import PEERS
    from .runner import Run, chosen_methods

    suite = suites.get(name)
    if seeds is not None:
        suite = replace(suite, seeds=whole_number("--seeds", seeds, least=1))
    if budget is not None:
        suite = suite.with_budget(whole_number("--budget", budget, least=2))
    if problems:
        cases = tuple(suite.case(problem) for problem in dict.fromkeys(problems))
        suite = replace(suite, cases=cases)
    asked = list(wanted or [])
    missing = {peer: why for peer in PEERS if (why := _why_not(peer, suite)) is not None}
    available = [peer for peer in PEERS if peer not in missing]
    for peer, why in missing.items():
        if peer in asked:
            raise InvalidOption(f"--method={peer}: {why}")
        if peers and not asked and suite.peers:
            typer.echo(f"skipped {peer}: {why}", err=True)
    methods = chosen_methods(suite, asked, available if asked or (peers and suite.peers) else [])
    folder = _folder("--output", output) / paths.file_name(name)
    return Run(suite, methods, folder, _count(processes))


def _why_not(name: str, suite: "Suite") -> str | None:
    """Why a peer cannot be compared on a suite; None if it can."""
    from .peers import PEERS, why_not

    if suite.constrained and not PEERS[name].constraints:
        return "it takes no constraints"
    if suite.batched and not PEERS[name].batches:
        return "it proposes one point at a time"
    return why_not(PEERS[name])


def _count(processes: int | None) -> int:
    from loky import cpu_count

    from gpbo.checks import whole_number

    if processes is None:
        return cpu_count()
    return whole_number("--processes", processes, least=1)


def _folder(option: str, path: Path) -> Path:
    """A folder that exists or can be created.

    Raises:
        InvalidOption: it, or a folder above it, is a file.
    """
    for part in (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise InvalidOption(f"{option}={path}: expected a folder, but {part} is a file")
    return path


def _to_keep_in(stored: Path | None) -> Path:
    """The folder of kept results to write to, by default the repository's.

    Raises:
        InvalidOption: there is no repository, or the folder is a file.
    """
    from .record import RESULTS, is_checkout

    if stored is None and not is_checkout():
        raise InvalidOption(
            "--stored: expected a folder: there is no default, as gpbo runs outside its repository"
        )
    return _folder("--stored", stored or RESULTS)


def _show(done: int, count: int, unit: "Unit", failure: str) -> None:
    why = f": {failure.splitlines()[0]}" if failure else ""
    typer.echo(f"{done}/{count} {unit.problem} {unit.method}{why}")


def _measure(run: "Run") -> None:
    from . import analysis, report, table, words
    from .peers import PEERS
    from .trace import EXHAUSTED

    try:
        results = run.execute(_show)
    except KeyboardInterrupt:
        same = "the same command" + " without --fresh" * run.fresh
        typer.echo(f"interrupted: run {same} to continue from here", err=True)
        raise typer.Exit(130) from None
    rows, header = table.read(results)
    markdown, page = report.write(rows, header, run.suite, results.parent)
    typer.echo(f"{results}\n{markdown}\n{page}")
    if run.others:
        rest = words.counted(run.others, "unit")
        typer.echo(f"not included: {rest} in {run.folder}, not asked for here", err=True)
    for problem, (least, optimum) in analysis.beaten_optima(rows).items():
        typer.echo(f"{problem}: {words.beaten(least, optimum)}", err=True)
    reasons = rows.drop_duplicates(analysis.RUN).set_index("method")["failure"]
    runs = reasons.notna() & (reasons != EXHAUSTED)
    failed = runs.groupby("method").all()
    # A failure of another package is not a mistake of the user.
    own = failed[failed].index.difference(PEERS)
    if failed.all():
        told = "every run"
    elif len(own):
        told = f"every run of {', '.join(own)}"
    else:
        told = f"{runs.sum()} of {len(runs)} runs"
    if runs.any():
        typer.echo(f"{told} failed: the report says why", err=True)
    if len(own) or failed.all():
        raise typer.Exit(1)


@app.command("report")
def report_command(
    results: Annotated[
        Path | None, typer.Argument(help="The file of results to write the report of again.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the report; by default the folder of a trials.parquet, and for a kept "
            "NAME.parquet the folder NAME-report beside it."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Method that the others are tested against; by default ei-hmc."),
    ] = None,
    readme: Annotated[
        list[Path] | None,
        typer.Option(help="Fill in the marked places of this file from --stored; may be repeated."),
    ] = None,
    stored: Annotated[
        Path | None, typer.Option(help="Folder of kept results; by default the repository's.")
    ] = None,
) -> None:
    """Write the report of results again, or the tables and figures of a README."""
    from . import report, suites, table
    from .readme import rewrite
    from .record import RESULTS
    from .words import counted

    if (results is None) == (not readme):
        raise InvalidOption("results, --readme: expected one of the two, and not both")
    if output is not None and results is None:
        raise InvalidOption(
            f"--output={output}: expected results instead of --readme, which writes no report"
        )
    if reference is not None and results is None:
        raise InvalidOption(
            f"--reference={reference}: expected results instead of --readme, which always uses the "
            "default reference"
        )
    if stored is not None and not readme:
        raise InvalidOption(
            f"--stored={stored}: expected --readme instead of results, which are not looked up in "
            "a folder"
        )
    if results is not None:
        rows, header = table.read(results)
        of_a_run = results.name == "trials.parquet"
        beside = results.parent if of_a_run else results.with_name(f"{results.stem}-report")
        folder = _folder("--output", output or beside)
        suite = suites.get(header["suite"])
        for path in report.write(rows, header, suite, folder, reference):
            typer.echo(path)
    for file in readme or ():
        if not file.is_file():
            raise InvalidOption(f"--readme={file}: expected a file that exists")
        kept = _folder("--stored", stored or RESULTS)
        typer.echo(f"{file}: {counted(rewrite(file, kept), 'place')}")


@app.command()
def keep(
    results: Annotated[Path, typer.Argument(help="The trials.parquet to keep.")],
    stored: Annotated[
        Path | None, typer.Option(help="Folder to keep it in; by default the repository's.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name to keep it under; by default that of its suite.")
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            help="Kept results of other methods, to join with these: the runs of both are kept on "
            "the problems and seeds that both files have."
        ),
    ] = None,
) -> None:
    """Keep results, without the configurations, for a README and for the regression gate."""
    from . import gate, paths, table

    if name is not None and not re.fullmatch(r"[\w-]+", name):
        raise InvalidOption(f"--name={name}: expected letters, digits, hyphens and underscores")
    folder = _to_keep_in(stored)
    suite = table.read_table(results)[1]["suite"]
    target = folder / f"{name or paths.file_name(suite)}.parquet"
    gate.keep_results(results, target, beside)
    typer.echo(target)


@app.command()
def check(
    processes: _Processes = None,
    output: _Output = Path("bench-check"),
    stored: Annotated[
        Path | None, typer.Option(help="Folder of kept results; by default the repository's.")
    ] = None,
    update: Annotated[
        bool, typer.Option(help="Store the new figures instead, for later checks to compare with.")
    ] = False,
) -> None:
    """Measure `smoke` and a few ratios of speed; fail if they are worse than stored ones."""
    from . import gate, suites
    from .record import RESULTS
    from .runner import Run

    suite = suites.get("smoke")
    suite = replace(suite, methods=suites.SEQUENTIAL)
    folder = _folder("--output", output) / "smoke"
    kept = _to_keep_in(stored) if update else _folder("--stored", stored or RESULTS)
    # Measured again: the gate tests the present code.
    run = Run(suite, suite.methods, folder, _count(processes), fresh=True)
    smoke = run.execute(_show)
    if update:
        gate.keep(smoke, kept)
        return
    findings = gate.check(smoke, kept)
    for finding in findings:
        typer.echo(str(finding))
    if any(finding.lost for finding in findings):
        raise typer.Exit(1)

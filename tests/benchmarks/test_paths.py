"""Methods and problems of a user's own, named by the path of their import."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gpbo.cli import app, main
from gpbo.errors import InvalidOption
from gpbo.strategies import RandomSearch
from gpbo_benchmarks import methods, runner, suites, table
from gpbo_benchmarks.runner import chosen_methods
from gpbo_benchmarks.units import Unit
from tests.monte_carlo import unchecked_shapes

CODE = """
import math
from dataclasses import replace

import gpbo
from gpbo_benchmarks.methods import Method
from gpbo_benchmarks.suites import Case, Suite

bare = gpbo.RandomSearch()
again = Method("the-same", gpbo.ExpectedImprovement(), "map")
workers = Method("workers", gpbo.RandomSearch(), workers=2)
branin = gpbo.problems.get("branin")
unknown = replace(branin, name="unknown", optimum=math.nan)
problems = [branin, unknown]
suite = Suite("any", (Case("still", branin, 6, shifted=False),), 2, ("random", f"{__name__}:bare"))

number = 3
hebo = bare
twin = Method("bare", bare)
shouted = Method("BARE", bare)
slash = Method("a/b", bare)
wrong = Method("wrong", "bogus")
twice = [branin, branin]
in_two_cases = [branin, replace(branin, name="Branin")]
empty = Suite("any", (), 2)
uncased = Suite("any", (branin,), 2)
spaces = replace(branin, name="two words")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module with this code in the current folder, which no other test has."""
    name = re.sub(r"\W", "_", f"own_{tmp_path.parent.name}_{tmp_path.name}")
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    importlib.invalidate_caches()
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`gpbo bench` on short runs, in this process."""
    monkeypatch.setattr(runner, "measured", lambda left, _: ((u, u.measure()) for u in left))

    def run(suite: str, *arguments: str) -> Result:
        short = ["--seeds", "2", "--budget", "6", "--no-peers"]
        return CliRunner().invoke(app, ["bench", suite, *arguments, *short])

    return run


def test_a_method_at_a_path_has_the_traces_that_it_has_by_name(module: str) -> None:
    named, own = (
        Unit("smoke", "branin", method, (0, 1), 7, "").measure()
        for method in ("ei-map", f"{module}:again")
    )
    for ours, theirs in zip(named, own, strict=True):
        assert theirs.method == "the-same"
        assert (theirs.params, theirs.values) == (ours.params, ours.values)
        assert theirs.recommended_truth == ours.recommended_truth
        assert theirs.versions.keys() - ours.versions.keys() == {f"{module}:again"}


def test_a_strategy_at_a_path_is_a_method_with_the_name_of_the_attribute(module: str) -> None:
    method = methods.find(f"{module}:bare")
    assert isinstance(method, methods.Method)
    assert method == methods.Method("bare", method.strategy)
    failed = Unit("smoke", "branin", f"{module}:bare", (0,), 7, "").failed("why")
    assert failed[0].method == "bare"


@pytest.mark.parametrize(
    ("option", "wrong", "message"),
    [
        ("inference", "mcmc", "inference='mcmc': expected one of"),
        ("model", "saas", "model='saas': expected a gpbo.Model"),
        ("workers", 0, "workers=0: expected a whole number, 1 or more"),
        ("mode", "batch", "mode='batch': expected 'async' or 'sync'"),
    ],
)
def test_an_option_that_a_method_cannot_have_is_refused_before_it_runs(
    option: str, wrong: Any, message: str
) -> None:
    with unchecked_shapes(), pytest.raises(InvalidOption, match=message):
        methods.Method("own", RandomSearch(), **{option: wrong})


def test_problems_at_a_path_are_posed_as_usual(module: str) -> None:
    suite = suites.get(f"{module}:problems")
    assert (suite.name, suite.seeds) == (f"{module}:problems", 20)
    assert [(case.name, case.budget, case.shifted) for case in suite.cases] == [
        ("branin", 40, True),
        ("unknown", 40, True),
    ]
    assert [case.optimum_known for case in suite.cases] == [True, False]
    alone = suites.get(f"{module}:branin")
    assert alone.cases == suite.cases[:1]


def test_a_suite_at_a_path_goes_by_the_path_and_has_methods_at_paths(module: str) -> None:
    suite = suites.get(f"{module}:suite")
    assert suite.name == f"{module}:suite"
    assert not suite.case("still").shifted
    assert chosen_methods(suite, [], []) == ("random", f"{module}:bare")


def test_problems_and_methods_of_ones_own_are_run_reported_and_kept(
    module: str, bench: Callable[..., Result], tmp_path: Path
) -> None:
    paths = [part for name in ("bare", "workers") for part in ("--method", f"{module}:{name}")]
    done = bench(f"{module}:problems", *paths, "--method", "random")
    assert done.exit_code == 0, done.output
    folder = tmp_path / "bench-results" / f"{module}-problems"
    rows, header = table.read(folder / "trials.parquet")
    assert header["methods"] == ["bare", "workers", "random"]
    assert {f"{module}:bare", f"{module}:workers", f"{module}:problems"} <= {*header["versions"]}
    assert set(rows["method"]) == {"bare", "workers", "random"}
    report = folder / "report.md"
    text = report.read_text()
    assert text.startswith(f"# Benchmark suite `{module}:problems`\n")
    assert "| problem | `bare` | `random` |" in text
    assert "| branin | `workers` |" in text.partition("## Several workers")[2]
    report.unlink()
    again = CliRunner().invoke(app, ["bench", "report", str(folder / "trials.parquet")])
    assert again.exit_code == 0, again.output
    assert report.read_text() == text
    kept = ["bench", "keep", str(folder / "trials.parquet"), "--stored", str(tmp_path / "kept")]
    assert CliRunner().invoke(app, kept).exit_code == 0
    assert (tmp_path / "kept" / f"{module}-problems.parquet").exists()


def test_results_of_a_module_that_has_changed_are_not_mixed_in(
    module: str, bench: Callable[..., Result], tmp_path: Path
) -> None:
    asked = ["smoke", "--problem", "branin", "--method"]
    assert bench(*asked, "random", "--method", f"{module}:bare").exit_code == 0
    file = tmp_path / f"{module}.py"
    file.write_text(file.read_text() + "# changed\n")
    assert bench(*asked, f"{module}:bare").exit_code == 0  # what runs is what was imported
    del sys.modules[module]  # as the next command, which is another process
    assert bench(*asked, "random").exit_code == 0  # which is not of the module
    changed = bench(*asked, f"{module}:bare")
    assert isinstance(changed.exception, InvalidOption)
    pattern = rf"has results of versions {{'{module}:bare': '\w+'}}, and this is {{'{module}:bare'"
    assert re.search(pattern, str(changed.exception))
    fresh = bench(*asked, f"{module}:bare", "--fresh")
    assert fresh.exit_code == 0, fresh.output
    both = bench(*asked, "random", "--method", f"{module}:bare")
    assert both.exit_code == 0, both.output
    assert "1/2" not in both.output  # what was measured is there


def test_a_unit_that_failed_is_tried_again_by_the_module_that_was_mended(
    module: str, bench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = ["smoke", "--problem", "branin", "--method", "random", "--method", f"{module}:bare"]

    def fails(left: Any, _: int) -> Any:
        for unit in left:
            yield unit, unit.failed("why") if unit.method != "random" else unit.measure()

    with monkeypatch.context() as patch:
        patch.setattr(runner, "measured", fails)
        assert bench(*asked).exit_code == 1
    file = tmp_path / f"{module}.py"
    file.write_text(file.read_text() + "# mended\n")
    del sys.modules[module]
    mended = bench(*asked)
    assert mended.exit_code == 0, mended.output
    assert "2/2 branin" in mended.output
    assert "1/2" not in mended.output  # the other method is not of the module


def test_a_folder_is_no_module_with_attributes(
    bench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "no_module_of_mine").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    error = bench("no_module_of_mine:thing").exception
    assert "no_module_of_mine has no attribute 'thing': expected one that it has" in str(error)


def test_a_module_that_was_changed_while_the_command_ran_is_noticed(module: str) -> None:
    """A process that begins later has imported something else."""
    unit = Unit("smoke", "branin", f"{module}:bare", (0,), 6, "")
    assert methods.find(unit.method) is not None
    assert [trace.failure for trace in runner._measure(unit, unit.versions)] == [None]
    (changed,) = runner._measure(unit, {unit.method: "another"})
    assert changed.failure == "its module was changed after the command had begun"


NAMES = [
    ("smoke", "nowhere:x", "--method=nowhere:x: there is no module 'nowhere': expected one in "),
    ("smoke", "own:x", "has no attribute 'x': expected one that it has"),
    ("smoke", "sys:path", "--method=sys:path: expected a strategy or a Method: strategy="),
    ("smoke", "own:x:y", ":x:y: expected module:attribute"),
    ("smoke", "own:number", ":number: expected a strategy or a Method: strategy=3: expected"),
    ("smoke", "own:wrong", ":wrong: expected a strategy or a Method: strategy='bogus': expected"),
    ("smoke", "own:hebo", ":hebo: expected another name than 'hebo', which is taken"),
    ("smoke", "own:slash", "name='a/b': expected letters, digits, dots, hyphens and underscores"),
    ("nowhere:x", "random", "suite=nowhere:x: there is no module 'nowhere': expected one in "),
    (
        "own:number",
        "random",
        "expected a Suite, a gpbo.problems.Problem or a sequence of problems, ",
    ),
    (
        "own:twice",
        "random",
        "problems ['branin', 'branin']: expected at least one, and no name twice",
    ),
    (
        "own:in_two_cases",
        "random",
        "problems ['branin', 'Branin']: expected at least one, and no name t",
    ),
    ("own:empty", "random", "problems []: expected at least one, and no name twice"),
    ("own:uncased", "random", "expected a Case for each problem"),
    ("own:spaces", "random", "name='two words': expected letters, digits, dots, hyphens and"),
]


@pytest.mark.parametrize(("suite", "method", "message"), NAMES)
def test_what_is_wrong_at_a_path_is_told(
    suite: str,
    method: str,
    message: str,
    module: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    suite, method = (re.sub("^own:", f"{module}:", name) for name in (suite, method))
    monkeypatch.setattr(sys, "argv", ["gpbo", "bench", suite, "--method", method, "--no-peers"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith(
        f"gpbo: --method={method}" if suite == "smoke" else f"gpbo: suite={suite}"
    )
    assert not (tmp_path / "bench-results").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "importing it raised ZeroDivisionError: division by zero\n"),
        ("import nowhere", "importing it raised ModuleNotFoundError: No module named 'nowhere'\n"),
        ("import sys; sys.exit(3)", "importing it raised SystemExit: 3\n"),
    ],
)
def test_what_a_module_raises_is_told_with_its_place(
    code: str, message: str, module: str, tmp_path: Path
) -> None:
    file = tmp_path / f"{module}.py"
    file.write_text(f"\n{code}\n")
    with pytest.raises(InvalidOption) as error:
        methods.find(f"{module}:bare")
    assert f"--method={module}:bare: {message}" in str(error.value)
    assert f'File "{file}", line 2' in str(error.value)


def test_two_methods_of_one_name_are_refused(module: str) -> None:
    smoke = replace(suites.get("smoke"), seeds=1)
    twin, bare = f"{module}:twin", f"{module}:bare"
    assert chosen_methods(smoke, [bare, "sobol", bare], []) == (bare, "sobol")
    with pytest.raises(InvalidOption, match=f"={twin}: expected another name than 'bare', which"):
        chosen_methods(smoke, [bare, twin], [])


def test_two_methods_differ_in_more_than_case_as_the_files_of_their_units_may_have_to(
    module: str,
) -> None:
    smoke, shouted = replace(suites.get("smoke"), seeds=1), f"{module}:shouted"
    with pytest.raises(InvalidOption, match=f"={shouted}: expected another name than 'BARE', whi"):
        chosen_methods(smoke, [f"{module}:bare", shouted], [])

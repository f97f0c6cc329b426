"""The command line, called as a user calls it."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gpbo
from gpbo.cli import StrategyName, app, main
from gpbo.strategies import STRATEGIES

runner = CliRunner()


def test_the_version_is_the_package_s() -> None:
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"gpbo {gpbo.__version__}\n"


def test_the_problems_are_listed_with_their_optima() -> None:
    result = runner.invoke(app, ["problems"])
    assert result.exit_code == 0
    listed = [row.split()[0] for row in result.output.splitlines() if row.strip()]
    assert set(gpbo.problems.names()) <= set(listed)
    assert "0.3978873577" in result.output


def test_a_problem_is_optimized_and_plotted(tmp_path: Path) -> None:
    plot, slices = tmp_path / "convergence.png", tmp_path / "slices.png"
    options = ["--strategy", "sobol", "--budget", "7", "--inference", "map", "--seed", "3"]
    files = ["--plot", str(plot), "--slices", str(slices)]
    result = runner.invoke(app, ["bench", "branin", *options, *files])
    assert result.exit_code == 0, result.output
    assert "7 trials (0 failed), the budget was used" in result.output
    assert "above the optimum 0.3978873577 by " in result.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert slices.read_bytes().startswith(b"\x89PNG")


def test_many_runs_of_a_problem_are_summed_up_plotted_and_saved(tmp_path: Path) -> None:
    plot, save = tmp_path / "regret.png", tmp_path / "runs.npz"
    options = ["--strategy", "sobol", "--budget", "7", "--runs", "3", "--seed", "5"]
    files = ["--plot", str(plot), "--save", str(save)]
    result = runner.invoke(app, ["bench", "branin", *options, *files])
    assert result.exit_code == 0, result.output
    assert "3 runs of sobol on branin, 21 trials on cpu, the budget was used" in result.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert gpbo.Replications.load(save).seeds == (5, 6, 7)


def test_every_named_strategy_can_be_asked_for() -> None:
    assert [name.value for name in StrategyName] == list(STRATEGIES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "bogus"], "gpbo: name='bogus': expected one of "),
        (["bench", "branin", "--budget", "0"], "gpbo: budget=0: expected a whole number, 1 or"),
        (["bench", "branin", "--dim", "7"], "gpbo: dim=7: expected 2 for 'branin'"),
        (["bench", "branin", "--strategy", "bogus"], "bogus"),
        (["bench", "branin", "--plot", "no/such.png"], "gpbo: --plot=no/such.png: expected a path"),
        (["bench", "branin", "--runs", "0"], "gpbo: runs=0: expected a whole number, 1 or more"),
        (["bench", "branin", "--save", "no/runs"], "gpbo: --save=no/runs: expected a path"),
        (["bench", "branin", "--runs", "2", "--slices", "x.png"], "gpbo: --slices=x.png: expected"),
        (["bench", "branin", "--slices", "no/x.png"], "gpbo: --slices=no/x.png: expected a path"),
        (["bogus"], "No such command 'bogus'"),
    ],
)
def test_mistakes_end_with_a_message_and_no_traceback(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpbo", *arguments])
    with pytest.raises(SystemExit) as exit_status:
        main()
    assert exit_status.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err

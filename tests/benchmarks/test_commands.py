"""The commands of `gpbo bench`, as a user calls them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gpbo.cli import app, main
from gpbo_benchmarks import commands, peers, runner, speed, table
from gpbo_benchmarks.methods import METHODS
from gpbo_benchmarks.peers import PEERS
from gpbo_benchmarks.trace import EXHAUSTED

MISTAKES = [
    (["smoke", "--method", "bogus"], "gpbo: --method=bogus: expected one of random, sobol, "),
    (["smoke", "--problem", "bogus"], "gpbo: problem='bogus': expected one of branin, "),
    (["smoke", "--seeds", "0"], "gpbo: --seeds=0: expected a whole number, 1 or more"),
    (["smoke", "--budget", "1"], "gpbo: --budget=1: expected a whole number, 2 or more"),
    (["smoke", "--processes", "0"], "gpbo: --processes=0: expected a whole number, 1 or more"),
    (["check", "--processes", "-1"], "gpbo: --processes=-1: expected a whole number, 1 or more"),
    (["smoke", "--output", __file__], "test_commands.py: expected a folder, "),
    (["check", "--output", f"{__file__}/x"], "/x: expected a folder, "),
    (["check", "--stored", __file__], "test_commands.py: expected a folder, "),
    (["keep", "x", "--stored", __file__], "test_commands.py: expected a folder, "),
    (["speed", "--output", __file__], "test_commands.py: expected a folder, "),
    (
        ["speed", "--case", "50"],
        "gpbo: --case=50: expected two whole numbers above 0, such as",
    ),
    (["speed", "--case", "0,6"], "gpbo: --case=0,6: expected two whole numbers above 0, such as"),
    (["speed", "--case", "²,6"], "gpbo: --case=²,6: expected two whole numbers above 0, such as"),
    (["speed", "--repeats", "0"], "gpbo: --repeats=0: expected a whole number, 1 or more"),
    (["report"], "gpbo: results, --readme: expected one of the two, and not both"),
    (
        ["report", "--readme", "x", "--output", "y"],
        "gpbo: --output=y: expected results instead of --readme",
    ),
    (
        ["report", "--readme", "x", "--reference", "y"],
        "gpbo: --reference=y: expected results instead of --readme",
    ),
    (
        ["report", "x", "--stored", "y"],
        "gpbo: --stored=y: expected --readme instead of results, which",
    ),
    (["report", "no.parquet"], "gpbo: no.parquet: expected results that `gpbo bench` wrote"),
    (["report", "--readme", "no.md"], "gpbo: --readme=no.md: expected a file that exists"),
    (["keep", "x", "--name", "a/b"], "gpbo: --name=a/b: expected letters, digits, hyphens and"),
    (["keep", "no.parquet"], "gpbo: no.parquet: expected results that `gpbo bench` wrote"),
    (["bogus"], "No such command 'bogus'"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_end_with_a_message(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpbo", "bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["keep", "x"], ["check", "--update"]])
def test_nothing_is_kept_in_an_installed_package(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gpbo_benchmarks.record.is_checkout", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpbo", "bench", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "gpbo: --stored: expected a folder" in capsys.readouterr().err


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(commands, "find_spec", lambda name: None if name == "pandas" else object())
    monkeypatch.setattr(sys, "argv", ["gpbo", "bench", "smoke"])
    with pytest.raises(SystemExit):
        main()
    assert "gpbo: pandas is not installed: run pip install 'gpbo[suite]'" in capsys.readouterr().err


def test_peers_that_are_not_installed_are_skipped_with_a_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[tuple[str, ...]] = []
    reason = "it is not installed: pip install cmaes"
    monkeypatch.setattr(
        "gpbo_benchmarks.peers.why_not", lambda peer: reason if peer.name == "cmaes" else None
    )
    monkeypatch.setattr(commands, "_measure", lambda run: ran.append(run.methods))
    options = ["bench", "smoke", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert f"skipped cmaes: {reason}" in done.output
    assert "cmaes" not in ran[0]
    assert {"ei-hmc", "optuna-gp"} <= set(ran[0])
    CliRunner().invoke(app, [*options, "--no-peers"])
    assert "optuna-gp" not in ran[1]
    asked = CliRunner().invoke(app, [*options, "--method", "cmaes"])
    assert str(asked.exception) == f"--method=cmaes: {reason}"


@pytest.mark.parametrize(
    ("suite", "peer", "reason", "able"),
    [
        (
            "constrained",
            "skopt",
            "it takes no constraints",
            {"botorch-ei", "ax", "optuna-gp", "optuna-tpe"},
        ),
        (
            "batches",
            "cmaes",
            "it proposes one point at a time",
            {name for name, peer in PEERS.items() if peer.batches},
        ),
    ],
)
def test_peers_that_are_not_able_to_take_part_are_not_asked_to(
    suite: str,
    peer: str,
    reason: str,
    able: set[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr("gpbo_benchmarks.peers.why_not", lambda peer: None)
    monkeypatch.setattr(commands, "_measure", lambda run: ran.append(run.methods))
    options = ["bench", suite, "--output", str(tmp_path)]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert f"skipped {peer}: {reason}" in done.output
    assert {*ran[0]} - {*METHODS} == able
    asked = CliRunner().invoke(app, [*options, "--method", peer])
    assert str(asked.exception) == f"--method={peer}: {reason}"


def test_what_is_asked_for_twice_is_run_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(commands, "_measure", ran.append)
    twice = ["--problem", "branin", "--method", "random"] * 2
    done = CliRunner().invoke(app, ["bench", "smoke", *twice, "--output", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert [case.name for case in ran[0].suite.cases] == ["branin"]
    assert ran[0].methods == ("random",)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """`gpbo bench smoke` on one problem, in this process."""
    monkeypatch.setattr(runner, "measured", lambda left, _: ((u, u.measure()) for u in left))
    short = ["--problem", "branin", "--seeds", "1", "--budget", "5", "--output", str(tmp_path)]

    def run(*methods: str, options: tuple[str, ...] = ()) -> Result:
        named = [part for method in methods for part in ("--method", method)]
        return CliRunner().invoke(app, ["bench", "smoke", *short, *named, *options])

    return run


def test_a_command_that_names_less_says_that_the_rest_is_not_in_its_report(
    bench: Callable[..., Result], tmp_path: Path
) -> None:
    both = bench("random", "sobol")
    assert both.exit_code == 0, both.output
    assert "not included" not in both.output
    assert f"not included: 1 unit in {tmp_path / 'smoke'}, not asked" in bench("sobol").output
    rows, _ = table.read(tmp_path / "smoke" / "trials.parquet")
    assert set(rows["method"]) == {"sobol"}
    again = bench("random", "sobol").output
    assert "branin random" not in again  # what was measured is there
    assert "not included" not in again


def test_a_run_of_which_everything_failed_ends_with_an_error(
    bench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its failures are told in a line each."""
    why = "RuntimeError: none left\nall of the traceback"
    monkeypatch.setattr(runner, "measured", lambda left, _: ((u, u.failed(why)) for u in left))
    failed = bench("random")
    assert failed.exit_code == 1
    assert failed.output.startswith("1/1 branin random: RuntimeError: none left\n")
    assert "all of the traceback" not in failed.output
    assert "every run failed: the report says why" in failed.output
    monkeypatch.setattr(
        runner,
        "measured",
        lambda left, _: ((u, u.failed(why) if u.method == "random" else u.measure()) for u in left),
    )
    some = bench("random", "sobol")
    assert some.exit_code == 1
    assert "every run of random failed: the report says why" in some.output
    monkeypatch.setattr(peers, "PEERS", {"random": peers.PEERS["cmaes"]})
    monkeypatch.setattr(peers, "why_not", lambda name: None)  # as if it were installed
    some = bench("random", "sobol")  # a peer's failure is no mistake of the user's
    assert some.exit_code == 0, some.output
    assert "1 of 2 runs failed: the report says why" in some.output
    assert "every run" not in some.output
    assert bench("random").exit_code == 1


def test_a_run_that_used_its_space_up_has_not_failed(
    bench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        runner, "measured", lambda left, _: ((u, u.failed(EXHAUSTED)) for u in left)
    )
    used_up = bench("random")
    assert used_up.exit_code == 0, used_up.output
    assert "every run" not in used_up.output
    assert "1/1" not in bench("random").output  # nor is it measured again


def test_an_interrupted_run_says_which_command_goes_on(
    bench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one without ``--fresh``, which would measure all anew."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "measured", interrupt)
    goes_on = "interrupted: run the same command to continue from here"
    assert goes_on in bench("random").output
    again = bench("random", options=("--fresh",))
    assert again.exit_code == 130
    assert goes_on.replace("command", "command without --fresh") in again.output


def test_a_folder_of_any_name_is_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A relative path with a colon would be a URI."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "measured", lambda left, _: ((u, u.measure()) for u in left))
    short = ["--problem", "branin", "--seeds", "1", "--budget", "5", "--output", "run:1"]
    done = CliRunner().invoke(app, ["bench", "smoke", *short, "--method", "random"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run:1" / "smoke" / "report.html").exists()


def test_speed_is_a_table_of_both_sides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def suggestion(n: int, d: int, repeats: int) -> dict[str, float]:
        return {"n": n, "d": d, "gpbo_s": 0.5, "botorch_map_s": 2.0, "ratio": 3.5}

    monkeypatch.setattr(speed, "suggestion", suggestion)
    monkeypatch.setattr(speed, "find_spec", lambda name: None)  # without NumPyro
    options = ["--case", "30,4", "--repeats", "1", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, ["bench", "speed", *options])
    assert done.exit_code == 0, done.output
    kept = json.loads((tmp_path / "speed" / "speed.json").read_text())
    assert kept["figures"] == {"suggestion": [suggestion(30, 4, 1)]}
    assert {"commit", "processor", "versions"} <= set(kept["machine"])
    markdown, page = (tmp_path / "speed" / name for name in ("report.md", "report.html"))
    text = markdown.read_text()
    assert text.startswith(
        "# Benchmark suite `speed`\n\n`gpbo bench speed --repeats 1 --case 30,4`"
    )
    assert "| one suggestion, warm, n=30, d=4 | 0.5 s | 2 s | 3.5 |" in text
    assert page.exists()

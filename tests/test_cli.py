"""The command line, called as a user calls it."""

import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

import gpbo
from gpbo.cli import StrategyName, app, main
from gpbo.strategies import STRATEGIES
from tests.processes import lives

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


def test_what_the_encoding_of_the_output_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a file, or to another program, on Windows."""
    output = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output, encoding="cp1251"))
    monkeypatch.setattr("sys.argv", ["gpbo", "problems"])
    with pytest.raises(SystemExit) as ended:
        main()
    sys.stdout.flush()
    assert ended.value.code == 0
    assert rb"Dixon & Szeg\xf6" in output.getvalue()


def test_slices_are_drawn_while_no_trial_meets_the_constraints(tmp_path: Path) -> None:
    slices = tmp_path / "slices.png"
    options = ["--strategy", "random", "--budget", "3", "--slices", str(slices)]
    result = runner.invoke(app, ["run", "speed_reducer", *options])
    assert result.exit_code == 0, result.output
    assert "best value" not in result.output
    assert slices.read_bytes().startswith(b"\x89PNG")


def test_a_problem_is_optimized_and_plotted(tmp_path: Path) -> None:
    plot, slices = tmp_path / "convergence.png", tmp_path / "slices.png"
    options = ["--strategy", "sobol", "--budget", "7", "--inference", "map", "--seed", "3"]
    files = ["--plot", str(plot), "--slices", str(slices)]
    result = runner.invoke(app, ["run", "branin", *options, *files])
    assert result.exit_code == 0, result.output
    assert "7 trials (0 failed), the budget was used up" in result.output
    best, above = (
        float(re.findall(words, result.output)[0])
        for words in (r"best value (\S+)", r"(\S+) above the optimum 0\.3978873577\n")
    )
    assert above == pytest.approx(best - 0.3978873577, rel=1e-2)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert slices.read_bytes().startswith(b"\x89PNG")


def test_many_runs_of_a_problem_are_summed_up_plotted_and_saved(tmp_path: Path) -> None:
    plot, save = tmp_path / "regret.png", tmp_path / "runs.npz"
    options = ["--strategy", "sobol", "--budget", "7", "--runs", "3", "--seed", "5"]
    files = ["--plot", str(plot), "--save", str(save)]
    result = runner.invoke(app, ["run", "branin", *options, *files])
    assert result.exit_code == 0, result.output
    assert "3 runs of sobol on branin, 21 trials on cpu, the budget was used up" in result.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert gpbo.Replications.load(save).seeds == (5, 6, 7)


def test_runs_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    file = ["--strategy", "sobol", "--checkpoint", str(tmp_path / "runs")]
    for budget in (4, 7):
        result = runner.invoke(app, ["run", "branin", "--budget", str(budget), *file])
        assert result.exit_code == 0, result.output
        assert f"1 runs of sobol on branin, {budget} trials on cpu" in result.output
    refused = runner.invoke(app, ["run", "hartmann3", *file])
    assert "problem='hartmann3': the checkpoint" in str(refused.exception)


@pytest.mark.parametrize("runs", [1, 2])
def test_a_problem_with_constraints_is_optimized_within_them(runs: int) -> None:
    options = ["--strategy", "sobol", "--budget", "9", "--seed", "3", "--runs", str(runs)]
    result = runner.invoke(app, ["run", "gramacy", *options])
    assert result.exit_code == 0, result.output
    made = gpbo.replicate("gramacy", strategy="sobol", budget=9, seed=3, runs=runs, progress=False)
    if runs == 1:
        above = float(re.findall(r"(\S+) above the optimum 0\.599788052\n", result.output)[0])
        assert above == pytest.approx(made.final_regret[0], rel=1e-2)
    else:
        assert "runs without a trial that meets the constraints, not counted: 0" in result.output


@pytest.mark.parametrize("runs", [1, 2])
def test_an_interrupted_problem_tells_what_there_is_and_ends_with_130(
    runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, function = iter(range(3)), gpbo.problems.get("branin").function

    def interrupted(x: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return function(x)

    cut = replace(gpbo.problems.get("branin"), function=interrupted)
    monkeypatch.setattr(gpbo.problems, "get", lambda *_: cut)
    options = ["--strategy", "sobol", "--budget", "7", "--runs", str(runs)]
    result = runner.invoke(app, ["run", "branin", *options])
    assert result.exit_code == 130
    assert "interrupted" in result.output


def test_every_named_strategy_can_be_asked_for() -> None:
    assert [name.value for name in StrategyName] == list(STRATEGIES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "bogus"], "gpbo: name='bogus': expected one of "),
        (["run", "branin", "--budget", "0"], "gpbo: budget=0: expected a whole number, 1 or"),
        (["run", "branin", "--dim", "7"], "gpbo: dim=7: expected 2 for 'branin'"),
        (["run", "branin", "--strategy", "bogus"], "bogus"),
        (
            ["run", "branin", "--strategy", "EI"],
            "gpbo: --strategy='EI': expected one of 'ei', 'pi'",
        ),
        (["run", "branin", "--budget", "abc"], "gpbo: --budget='abc': expected a whole number\n"),
        (["bench", "smoke", "--seeds", "2.5"], "gpbo: --seeds='2.5': expected a whole number\n"),
        (["run", "branin", "--budget"], "Option '--budget' requires an argument."),
        (
            ["run", "branin", "--plot", "no/such.png"],
            "gpbo: --plot='no/such.png': expected the path",
        ),
        (
            ["run", "branin", "--plot", "x.foo"],
            "gpbo: --plot='x.foo': expected a file name that ends in one of ",
        ),
        (["run", "branin", "--runs", "0"], "gpbo: runs=0: expected a whole number, 1 or more"),
        (["run", "branin", "--save", "no/runs"], "gpbo: --save='no/runs': expected the path"),
        (["run", "branin", "--runs", "2", "--slices", "x.png"], "gpbo: --slices=x.png: expected"),
        (["run", "branin", "--slices", "no/x.png"], "gpbo: --slices='no/x.png': expected"),
        (["run", "branin", "--checkpoint", "no/x"], "gpbo: --checkpoint='no/x': expected"),
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


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refused)
    arguments = ["bench", "smoke", "--method", "random", "--seeds", "1", "--problem", "branin"]
    monkeypatch.setattr(sys, "argv", ["gpbo", *arguments, "--output", str(tmp_path / "new")])
    with pytest.raises(SystemExit) as exit_status:
        main()
    assert exit_status.value.code == 2
    assert capsys.readouterr().err.startswith("gpbo: [Errno 13] Permission denied: ")


# --- tuning jobs

JOB = """
name = "bowl"
objective = "train:loss"
budget = 4
strategy = "sobol"
[space.x]
type = "real"
low = 0
high = 1
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("def loss(params):\n    return params['x'] ** 2\n")
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path / "job.toml"


def called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["gpbo", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_a_job_is_tuned_shown_and_resumed(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = called(monkeypatch, capsys, "tune", job)
    assert (code, "4 trials (0 failed), the budget was used up" in out) == (0, True)
    assert err.count("trial ") == 4
    code, out, _ = called(monkeypatch, capsys, "show", job)
    assert out.endswith("╯\n")
    assert "4 of 4 trials ended, 0 of them failed; the job ended: the budget was used up" in out
    code, out, _ = called(monkeypatch, capsys, "show", job.parent / "gpbo.db", "bowl", "--json")
    assert len(json.loads(out)["trials"]) == 4
    page = job.parent / "report.html"
    code, out, _ = called(monkeypatch, capsys, "show", job, "--html", page)
    assert (code, out) == (0, f"wrote {page}\n")
    assert "<title>gpbo: bowl</title>" in page.read_text()
    code, out, err = called(monkeypatch, capsys, "show", job, "--json", "--html", page)
    assert (code, len(json.loads(out)["trials"]), err) == (0, 4, f"wrote {page}\n")
    code, _, err = called(monkeypatch, capsys, "show", job, "--html", job.parent / "no" / "r.html")
    assert (code, "the path of a file in an existing folder" in err) == (2, True)
    code, _, err = called(monkeypatch, capsys, "tune", job)
    assert (code, "already has a job of this name" in err) == (2, True)
    job.write_text(JOB.replace("budget = 4", "budget = 6"))
    code, out, err = called(monkeypatch, capsys, "resume", job)
    assert "6 trials (0 failed)" in out
    assert err.count("trial ") == 2


def test_a_job_is_shown_and_stopped_by_its_file_without_the_tensor_stack(
    job: Path, tmp_path: Path
) -> None:
    """Whatever became of the rest of the file."""
    gpbo.Optimizer(
        gpbo.Space(gpbo.Real("x", 0, 1)), storage=job.parent / "gpbo.db", name="bowl"
    ).close()
    job.write_text(JOB.replace("budget = 4", "budget = 'many'"))
    script = """
import sys
from gpbo.cli import main
try:
    main()
except SystemExit as ended:
    print("ended with", ended.code, "torch" in sys.modules)
"""
    for command, code in (("show", 0), ("stop", 2)):  # no process drives it
        ran = subprocess.run(
            [sys.executable, "-c", script, command, job], capture_output=True, text=True, check=True
        )
        assert ran.stdout.endswith(f"ended with {code} False\n"), ran.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("name = 3", "name=3: expected a string"),
        ("", "name=None: expected a string"),
        ("name = 'bowl'\nstorage = ['a']", "storage=['a']: expected a string"),
    ],
)
def test_a_file_that_does_not_say_where_its_job_is_is_refused(
    line: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "job.toml").write_text(line)
    code, _, err = called(monkeypatch, capsys, "show", tmp_path / "job.toml")
    assert (code, message in err) == (2, True), err


def test_the_latest_job_of_a_storage_is_shown_unless_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "runs.db"
    for name in ("zebra", "yak", "ant"):
        gpbo.Optimizer(gpbo.Space(gpbo.Real("x", 0, 1)), storage=storage, name=name).close()
    for arguments, name in (([], "ant"), (["yak"], "yak")):
        _, out, _ = called(monkeypatch, capsys, "show", storage, *arguments, "--json")
        assert json.loads(out)["name"] == name
        assert json.loads(out)["folder"] == f"{storage}-trials/{name}"
        _, out, _ = called(monkeypatch, capsys, "show", storage, *arguments)
        others = ", ".join(n for n in ("zebra", "yak", "ant") if n != name)
        assert f"other jobs in this storage: {others}" in out


@pytest.mark.parametrize("option", [["--json"], ["--html", "page.html"]])
def test_what_shows_one_moment_is_not_watched(
    option: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = tmp_path / "runs.db"
    gpbo.Optimizer(gpbo.Space(gpbo.Real("x", 0, 1)), storage=storage, name="job").close()
    code, out, err = called(monkeypatch, capsys, "show", storage, "--watch", *option)
    assert (code, out) == (2, "")
    told = "cannot be combined with --json or --html, which show a single moment"
    assert err == f"gpbo: --watch: {told}\n"
    assert not (tmp_path / "page.html").exists()


def test_a_job_is_watched_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage, looks = tmp_path / "runs.db", iter(range(3))
    with gpbo.Optimizer(gpbo.Space(gpbo.Real("x", 0, 1)), storage=storage, name="job") as optimizer:
        assert optimizer.journal is not None
        write = optimizer.journal.write

        def sleep(seconds: float) -> None:
            if next(looks) == 2:
                write(ended="budget")

        monkeypatch.setattr("gpbo.cli.time", SimpleNamespace(sleep=sleep))
        _, out, _ = called(monkeypatch, capsys, "show", storage)
        assert "the job has not ended" in out
        _, out, _ = called(monkeypatch, capsys, "show", storage, "--watch")
    assert "the job ended: the budget was used up" in out
    assert next(looks, None) is None


def test_on_a_terminal_a_job_is_a_panel_and_no_lines(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Console(file=io.StringIO(), force_terminal=True, width=90)
    monkeypatch.setattr("gpbo.terminal.console", lambda: shown)
    code, out, _ = called(monkeypatch, capsys, "tune", job)
    assert (code, "4 trials (0 failed)" in out) == (0, True)
    assert isinstance(shown.file, io.StringIO)
    panel = shown.file.getvalue()
    assert "gpbo minimize bowl" in panel
    assert "4 trials ended, 0 of them failed; the job ended: the budget" in panel
    assert [line for line in panel.splitlines() if "trial 0: " in line and "│" not in line] == []


def make_long(job: Path) -> None:
    """So many trials, and so slow, that it has to be ended."""
    (job.parent / "train.py").write_text(
        "import time\ndef loss(params):\n    time.sleep(0.2)\n    return params['x']\n"
    )
    job.write_text(JOB.replace("budget = 4", "budget = 500"))


def driving(job: Path, **options: Any) -> "subprocess.Popen[str]":
    """Another process that tunes the job."""
    return subprocess.Popen(
        [sys.executable, "-c", "from gpbo.cli import main; main()", "tune", str(job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_job_is_stopped_from_another_process_and_goes_on(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_long(job)
    with driving(job) as driver:
        assert driver.stderr is not None
        assert driver.stderr.readline().startswith("trial 0: ")
        code, _, err = called(monkeypatch, capsys, "resume", job)
        assert (code, "a process is already running this job" in err) == (2, True)
        code, out, _ = called(monkeypatch, capsys, "stop", job)
        assert (code, out) == (0, "asked bowl to stop\n")
        out, _ = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "interrupted" in out
    done = int(out.split()[0])
    job.write_text(JOB.replace("budget = 4", f"budget = {done + 1}"))
    _, out, _ = called(monkeypatch, capsys, "resume", job)
    assert out.startswith(f"{done + 1} trials")


def test_what_is_not_there_is_said(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (("show", job.parent / "none.db"), "expected a job file or a storage that exists"),
        (("show", job), "expected a job file or a storage that exists"),
        (("show", job), f"this job has no storage yet, start it with `gpbo tune {job}`"),
        (("show", job.parent), "expected a job file or a storage that exists"),
        (("tune", job.parent), "expected a job file"),
        (("resume", job), "has no job of this name"),
        (("tune", job.parent / "none.toml"), "none.toml"),
    ):
        code, _, err = called(monkeypatch, capsys, *arguments)
        assert (code, message in err) == (2, True), err
        assert "Traceback" not in err


def test_a_job_that_is_not_there_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "runs.db"
    gpbo.Optimizer(gpbo.Space(gpbo.Real("x", 0, 1)), storage=storage, name="job").close()
    before = {*tmp_path.iterdir()}
    for command, name in itertools.product(("show", "stop"), ("none", "a/b")):
        code, out, err = called(monkeypatch, capsys, command, storage, name)
        assert (code, "has no job of this name; it has 'job'" in err) == (2, True)
        assert out == ""
    assert {*tmp_path.iterdir()} == before


def test_ctrl_c_ends_a_job_with_what_there_is_and_it_goes_on(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_long(job)
    with driving(job, start_new_session=True) as driver:
        assert driver.stderr is not None
        assert driver.stderr.readline().startswith("trial 0: ")
        # As a terminal does it: to the driver and its workers.
        os.killpg(driver.pid, signal.SIGINT)
        out, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, err
    assert "0 failed), interrupted" in out
    done = int(out.split()[0])
    job.write_text(JOB.replace("budget = 4", f"budget = {done + 2}"))
    _, out, _ = called(monkeypatch, capsys, "resume", job)
    assert out.startswith(f"{done + 2} trials (0 failed)")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_command_ends_with_the_driver_however_that_ends(
    number: signal.Signals,
    job: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With all that it started; and the job goes on."""
    (job.parent / "run.sh").write_text("sleep 300 & echo $$ $! > running; wait")
    command = 'command = "sh run.sh {x}"'
    job.write_text(JOB.replace('objective = "train:loss"', command))
    running = job.parent / "running"
    handled = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup` ignores, us included
    driver = driving(job, start_new_session=True)
    signal.signal(signal.SIGHUP, handled)
    with driver:
        until(lambda: running.exists() and running.read_text().endswith("\n"))
        commands = [psutil.Process(int(number)) for number in running.read_text().split()]
        if number is signal.SIGHUP:  # as a terminal that is closed: to the workers too, and twice
            os.killpg(driver.pid, number)
            os.killpg(driver.pid, number)
        else:
            driver.send_signal(number)
        out, _ = driver.communicate(timeout=60)
    killed = number is signal.SIGKILL
    if not killed:
        assert (driver.returncode, "interrupted" in out) == (130, True)
    until(lambda: not any(map(lives, commands)))
    ended = "interrupted"
    if killed:
        ended = "no process is running it (continue with `gpbo resume` or its script)"
    _, out, _ = called(monkeypatch, capsys, "show", job, "--watch")
    assert ended in " ".join(out.replace("│", "").split())
    _, out, _ = called(monkeypatch, capsys, "show", job, "--json")
    assert json.loads(out)["driven"] is False
    code, _, err = called(monkeypatch, capsys, "stop", job)
    assert (code, f"expected a running job, but this one ended: {ended}" in err) == (2, True)
    (job.parent / "run.sh").write_text("echo '{\"value\": 1}'")
    _, out, _ = called(monkeypatch, capsys, "resume", job)
    assert out.startswith("4 trials (0 failed)")


def until(done: Callable[[], bool]) -> None:
    """Wait for it, up to a minute."""
    for _ in range(600):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


def tuned_in(folder: Path) -> "subprocess.CompletedProcess[str]":
    """What a process of its own made of the job.toml of the folder."""
    return subprocess.run(
        [sys.executable, "-c", "from gpbo.cli import main; main()", "tune", "job.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_job_without_any_value_says_why_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        'name = "none"\nobjective = "math:no_such_function_of_this_module_at_all"\nbudget = 1\n'
        '[space]\nx = { type = "real", low = 0.0, high = 1.0 }\n'
    )
    driver = tuned_in(tmp_path)
    assert driver.returncode == 1
    assert "no trial has a value" in driver.stdout
    assert "no attribute 'no_such_function_of_this_module_at_all'" in driver.stderr


def test_a_job_that_one_failure_after_another_ends_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "flaky.py").write_text(
        "def run(params, trial):\n    if trial.id:\n        raise OSError('full')\n    return 1.0\n"
    )
    (tmp_path / "job.toml").write_text(
        'name = "flaky"\nobjective = "flaky:run"\nbudget = 9\nstrategy = "random"\n'
        '[space]\nx = { type = "real", low = 0.0, high = 1.0 }\n[completion]\nfailures = 3\n'
    )
    driver = tuned_in(tmp_path)
    assert driver.returncode == 1
    assert "4 trials (3 failed), too many trials failed in a row" in driver.stdout


def test_values_of_an_earlier_job_are_no_values_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def run(params):\n    return params['x']\ndef ends(params):\n    raise OSError('full')\n"
    )
    first = (
        'name = "first"\nobjective = "mine:run"\nbudget = 2\nstrategy = "sobol"\n'
        '[space]\nx = { type = "real", low = 0.0, high = 1.0 }\n'
    )
    (tmp_path / "job.toml").write_text(first)
    assert tuned_in(tmp_path).returncode == 0
    second = first.replace('"first"', '"second"').replace("mine:run", "mine:ends")
    (tmp_path / "job.toml").write_text(second + '[[warm_start]]\njob = "first"\n')
    driver = tuned_in(tmp_path)
    assert "2 failed" in driver.stdout
    assert driver.returncode == 1


def test_the_package_itself_is_the_command_line() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "gpbo", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout == f"gpbo {gpbo.__version__}\n"

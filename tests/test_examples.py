"""The examples run: those of the documents, each as it stands, and the demo on a short budget."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpbo.storage import SqliteStorage

ROOT = Path(__file__).parent.parent
CLI = "from gpbo.cli import main; main()"
DOCS = [
    pytest.param(code, id=f"{name}-{number}")
    for name in ("README.md", "GUIDE.md")
    for number, code in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    )
]


def run(arguments: list[str], folder: Path) -> str:
    command = [sys.executable, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("code", DOCS)
def test_an_example_of_the_docs_runs(code: str, tmp_path: Path) -> None:
    assert run(["-c", code], tmp_path)


def test_a_method_and_a_problem_of_ones_own_are_compared(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "compare.py").read_text()
    _, code = text.split('"""\n\n', 1)
    assert f"```python\n{code}```" in (ROOT / "BENCHMARKS.md").read_text()
    (tmp_path / "compare.py").write_text(text)
    command = ["bench", "compare:valley", "--method", "ei-map", "--method", "compare:lcb"]
    short = ["--seeds", "2", "--budget", "8", "--no-peers"]
    run(["-c", CLI, *command, *short], tmp_path)
    report = (tmp_path / "bench-results" / "compare-valley" / "report.md").read_text()
    assert report.startswith("# Benchmark suite `compare:valley`")
    assert "| problem | `ei-map` | `lcb-map` |" in report
    assert "None." in report.partition("## Runs that ended early")[2]


def test_the_rows_of_a_comparison_give_a_figure_tables_and_tests(tmp_path: Path) -> None:
    page = (ROOT / "BENCHMARKS.md").read_text()
    (code,) = re.findall(r"```python\n(import pandas.*?)```", page, re.DOTALL)
    code = code.replace("/synthetic/", "/smoke/").replace("ei-map", "sobol")
    options = ["--seeds", "2", "--budget", "7", "--problem", "branin", "--no-peers"]
    methods = [word for name in ("random", "sobol") for word in ("--method", name)]
    run(["-c", CLI, "bench", "smoke", *methods, *options], tmp_path)
    printed = run(["-c", code], tmp_path)
    assert (tmp_path / "regret.pdf").stat().st_size > 5_000
    assert "\\begin{tabular}" in printed
    assert "p_holm" in printed


def test_the_demo_runs_and_writes_its_plots(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "tune_svm.py")
    printed = run([script, "--budget", "6", "--no-progress", "--output", "plots"], tmp_path)
    assert "random search" in printed
    assert "R-hat" in printed
    for name in ("convergence.png", "surrogate.png"):
        assert (tmp_path / "plots" / name).stat().st_size > 10_000


def test_the_perceptron_is_tuned_reported_and_gone_on_with(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "tune_mlp.py")
    printed = run([script, "--budget", "3", "--output", "mlp"], tmp_path)
    assert printed.startswith("3 trials (0 failed), the budget was used up")
    page = (tmp_path / "mlp" / "report.html").read_text()
    assert "plot-curves" in page
    printed = run([script, "--budget", "4", "--output", "mlp"], tmp_path)
    assert printed.startswith("4 trials (")
    record = SqliteStorage(tmp_path / "mlp" / "jobs.db").read("mlp")
    assert {metric.step for metric in record.metrics} == set(range(20))
    assert all(trial.value is None or trial.value < 3 for trial in record.trials)


def test_the_shell_command_is_tuned(tmp_path: Path) -> None:
    for name in ("job.toml", "train.sh"):
        text = (ROOT / "examples" / "shell" / name).read_text()
        (tmp_path / name).write_text(text.replace("budget = 25", "budget = 7"))
    printed = run(["-c", CLI, "tune", "job.toml"], tmp_path)
    assert printed.startswith("7 trials (")
    record = SqliteStorage(tmp_path / "line.db").read("line")
    values = [trial.value for trial in record.trials if trial.value is not None]
    assert 0 < min(values) < 1.5
    assert {metric.step for metric in record.metrics} == set(range(10))

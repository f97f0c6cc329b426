"""The examples run: the README's, each as it stands, and the demo on a short budget."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def run(arguments: list[str], folder: Path) -> str:
    command = [sys.executable, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("number", range(len(README)))
def test_an_example_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    assert run(["-c", README[number]], tmp_path)


def test_the_demo_runs_and_writes_its_plots(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "tune_svm.py")
    printed = run([script, "--budget", "6", "--no-progress", "--output", "plots"], tmp_path)
    assert "random search" in printed
    assert "R-hat" in printed
    for name in ("convergence.png", "surrogate.png"):
        assert (tmp_path / "plots" / name).stat().st_size > 10_000

"""`benchmarks/gpu_check.sh` with a stand-in for Python that tells what it was to run."""

import subprocess
from pathlib import Path

import pytest

import gpbo_benchmarks

SCRIPT = Path(gpbo_benchmarks.__file__).parent.resolve() / "gpu_check.sh"
#: Fails in what has the word $BAD in its arguments.
STAND_IN = """#!/bin/sh
case $1 in -c) exit ;; -) exit ${NO_GPU:-0} ;; esac
echo "ran $*, jax on ${JAX_PLATFORMS:-any}"
case " $* " in *" $BAD "*) exit ${STATUS:-3} ;; esac
"""


def checked(folder: Path, *arguments: str, **environment: str) -> tuple[int, list[str], list[str]]:
    """The script's status, what it ran, and its summary."""
    python = folder / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "BAD": "-", **environment}
    done = subprocess.run(
        ["bash", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    summary = lines[lines.index("== summary") + 1 :] if "== summary" in lines else []
    return done.returncode, [line for line in lines if line.startswith("ran ")], summary


def test_every_figure_has_a_step_and_the_tests_come_first(tmp_path: Path) -> None:
    status, ran, summary = checked(tmp_path)
    assert status == 0
    tests = "tests on the GPU, tests marked gpu"
    figures = "updates, ascent, many runs, thompson, many functions, crossover, numpyro, one run"
    assert [line.rpartition(",")[0] for line in summary] == [
        f"ok      {name}" for name in f"{tests}, {figures}".split(", ")
    ]
    assert "-m unittest -v tests.test_gpu" in ran[0]
    assert "--problem hartmann6 --runs 64 --budget 100" in ran[4]
    assert [line.endswith("jax on cpu") for line in ran] == [i in (2, 9) for i in range(10)]


def test_quick_takes_small_cases(tmp_path: Path) -> None:
    status, ran, _ = checked(tmp_path, "--quick")
    assert (status, len(ran)) == (0, 6)
    assert "speed.py updates --device cuda --case 8,20,6 --repeats 1" in ran[2]


@pytest.mark.parametrize(
    ("bad", "expected"), [("tests.test_gpu", 1), ("gpu", 1), ("ascent", 0), ("none", 0)]
)
def test_only_tests_that_fail_fail_the_script(bad: str, expected: int, tmp_path: Path) -> None:
    status, ran, summary = checked(tmp_path, BAD=bad)
    assert (status, len(ran)) == (expected, 10)
    assert sum(line.startswith("FAILED") for line in summary) == (bad != "none")


def test_a_step_that_ran_out_of_its_time_is_told_as_cut_off(tmp_path: Path) -> None:
    status, _, summary = checked(tmp_path, "tests", BAD="tests.test_gpu", STATUS="124")
    assert (status, summary[0].split(",")[0]) == (1, "CUT OFF tests on the GPU")


def test_steps_that_are_asked_for_run_in_their_order(tmp_path: Path) -> None:
    status, ran, summary = checked(tmp_path, "ascent", "updates", "ascend")
    assert status == 0
    assert [line.split()[2] for line in ran] == ["ascent", "updates"]
    assert summary[-1] == "skipped ascend: there is no such step"


def test_with_a_budget_steps_are_limited_and_none_begins_without_time(tmp_path: Path) -> None:
    status, ran, summary = checked(tmp_path, "updates", "ascent", BUDGET_S="600")
    assert (status, len(ran)) == (0, 2)
    assert all(line.startswith("ok") for line in summary)
    status, ran, summary = checked(tmp_path, "updates", "ascent", BUDGET_S="5")
    assert (status, ran) == (0, [])
    assert summary == [f"skipped {name}: no time left" for name in ("updates", "ascent")]


def test_without_a_gpu_nothing_is_checked(tmp_path: Path) -> None:
    assert checked(tmp_path, NO_GPU="1") == (2, [], [])

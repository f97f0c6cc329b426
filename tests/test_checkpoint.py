"""A long computation goes on from a file, and makes the trials that it would have made."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gpbo import archive, checkpoint, fitting, lockstep, problems
from gpbo.candidates import Search
from gpbo.errors import InvalidData, InvalidOption
from gpbo.lockstep import replicate
from gpbo.problems import Problem
from gpbo.replications import Replications
from gpbo.simulation import Simulation, simulate
from gpbo.strategies import (
    ExpectedImprovement,
    Strategy,
    ThompsonSampling,
    TrustRegion,
)
from tests.changed_problems import changed, failing
from tests.monte_carlo import unchecked_shapes
from tests.noting import Noting

BRANIN = problems.get("branin")
QUICK = Search(raw=32, perturbed=8, restarts=3, iterations=12)
EI = ExpectedImprovement(QUICK)


def interrupted(problem: Problem, at: int) -> Problem:
    """Ctrl-C comes in the call of this number."""
    calls = 0

    def interrupt(x: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return y

    return changed(problem, interrupt)


def plain(value: Any) -> Iterator[tuple[str, Any]]:
    """Every field but the seconds, those of diagnostics included."""
    for field in fields(value):
        found = getattr(value, field.name)
        if field.name == "diagnostics":
            yield from plain(found)
        elif field.name != "seconds":
            yield field.name, found


def assert_equal(found: Replications | Simulation, expected: Replications | Simulation) -> None:
    for (name, own), (_, other) in zip(plain(found), plain(expected), strict=True):
        np.testing.assert_array_equal(own, other, err_msg=name)


OPTIONS: dict[str, Any] = {
    "strategy": EI,
    "runs": 3,
    "budget": 8,
    "initial": 4,
    "seed": 5,
    "progress": False,
}


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(
    ("problem", "strategy", "inference"),
    [
        (BRANIN, EI, "hmc"),
        (BRANIN, EI, "map"),
        (failing(BRANIN), EI, "hmc"),
        (problems.get("gramacy"), EI, "hmc"),
        (replace(BRANIN, noise=0.3), ThompsonSampling(QUICK, features=64), "hmc"),
        (BRANIN, ThompsonSampling(QUICK, features=64, region=TrustRegion()), "map"),
    ],
)
def test_runs_that_are_interrupted_again_and_again_are_those_that_were_not(
    problem: Problem, strategy: Strategy, inference: fitting.Inference, tmp_path: Path
) -> None:
    """Where trials fail the runs have parted, and with noise it has its place in its stream."""
    options = {**OPTIONS, "strategy": strategy, "inference": inference}
    whole = replicate(problem, **options)
    ended = []
    for _ in range(40):
        runs = replicate(interrupted(problem, at=3), checkpoint=tmp_path / "runs", **options)
        ended.append(int(runs.trials.sum()))
        if runs.stopped == "budget":
            break
    assert len(ended) > 2
    assert ended == sorted(set(ended))
    assert_equal(runs, whole)


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("inference", ["hmc", "map"])
def test_so_are_those_on_a_simulated_clock(
    mode: Any, inference: fitting.Inference, tmp_path: Path
) -> None:
    options = {**OPTIONS, "inference": inference, "mode": mode, "workers": 2, "refit_every": 2}
    whole = simulate(failing(BRANIN), **options)
    interruptions = 0
    for _ in range(40):
        problem = interrupted(failing(BRANIN), at=5)
        runs = simulate(problem, checkpoint=tmp_path / "runs", **options)
        if runs.stopped == "budget":
            break
        interruptions += 1
    assert interruptions > 1
    assert_equal(runs, whole)


def test_a_process_that_is_killed_loses_the_step_that_it_was_in(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    script = f"""
from dataclasses import replace
import torch
from gpbo import checkpoint, problems, replicate

torch.set_num_threads(1)
checkpoint._EVERY_S = -1.0  # after every step
branin = problems.get("branin")

def function(x):
    print("called", flush=True)
    return branin.function(x)

replicate(replace(branin, function=function), strategy="ei", runs=3, budget=10_000, initial=4,
          seed=5, inference="map", checkpoint={str(path)!r}, progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(4)] == 4 * ["called\n"]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    options = {**OPTIONS, "strategy": "ei", "inference": "map"}
    left = replicate("branin", checkpoint=path, **{**options, "budget": 1}).trials.tolist()
    assert min(left) == max(left) >= 6  # the design, and two trials
    budget = left[0] + 2
    found = replicate("branin", checkpoint=path, **{**options, "budget": budget})
    assert_equal(found, replicate("branin", **{**options, "budget": budget}))


def test_runs_that_are_done_go_on_with_a_larger_budget(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    options = {**OPTIONS, "inference": "map"}
    short = replicate(BRANIN, checkpoint=path, **{**options, "budget": 6})
    written = path.stat().st_ino
    unused = changed(BRANIN, lambda x, y: pytest.fail("evaluated again"))
    assert_equal(replicate(unused, checkpoint=path, **{**options, "budget": 6}), short)
    assert path.stat().st_ino == written  # nor is it written again
    longer = replicate(BRANIN, checkpoint=path, **options)
    assert_equal(longer, replicate(BRANIN, **options))
    assert longer.seconds["fit"] > short.seconds["fit"] > 0.0  # those of both calls


def test_the_seconds_of_runs_that_are_done_are_those_that_they_took(tmp_path: Path) -> None:
    options = {**OPTIONS, "strategy": "random", "checkpoint": tmp_path / "runs"}
    assert replicate(BRANIN, **options).seconds == replicate(BRANIN, **options).seconds


def test_a_larger_budget_goes_on_from_the_design_that_there_was(tmp_path: Path) -> None:
    options = {**OPTIONS, "inference": "map", "checkpoint": tmp_path / "runs", "initial": None}
    assert (replicate(BRANIN, **{**options, "budget": 6}).design == 3).all()
    longer = replicate(BRANIN, **{**options, "budget": 9})
    expected = replicate(BRANIN, **{**options, "budget": 9, "initial": 3, "checkpoint": None})
    assert_equal(longer, expected)
    with pytest.raises(InvalidOption, match=r"initial=4: the checkpoint '.*' has 3"):
        replicate(BRANIN, **{**options, "budget": 9, "initial": 4})


def test_a_larger_budget_goes_on_from_a_design_that_was_not_complete(tmp_path: Path) -> None:
    options = {**OPTIONS, "strategy": Noting(uses_model=True), "initial": None}
    path = tmp_path / "runs"
    cut = replicate(interrupted(failing(BRANIN), at=2), checkpoint=path, **{**options, "budget": 6})
    assert (cut.trials == 3).any()
    longer = replicate(failing(BRANIN), checkpoint=path, **{**options, "budget": 9})
    expected = replicate(failing(BRANIN), **{**options, "budget": 9, "initial": 3})
    assert_equal(longer, expected)


def test_an_exception_of_the_function_loses_nothing(tmp_path: Path) -> None:
    path, calls = tmp_path / "runs", 0

    def fail(x: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise ZeroDivisionError
        return y

    options = {**OPTIONS, "inference": "map"}
    with pytest.raises(ZeroDivisionError):
        replicate(changed(BRANIN, fail), checkpoint=path, **options)
    assert_equal(
        replicate(changed(BRANIN, fail), checkpoint=path, **options), replicate(BRANIN, **options)
    )
    assert calls == 4 + 8 - 6  # the design in one, then a call for each trial


def test_states_are_written_while_the_runs_advance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, there = tmp_path / "runs", []

    def look(x: Tensor, y: Tensor) -> Tensor:
        there.append(path.exists())
        return y

    options = {**OPTIONS, "strategy": "random", "budget": 3}
    replicate(changed(BRANIN, look), checkpoint=path, **options)
    assert there == [False, False, False]  # within seconds
    path.unlink()
    monkeypatch.setattr(checkpoint, "_EVERY_S", -1.0)
    replicate(changed(BRANIN, look), checkpoint=path, **options)
    assert there[3:] == [False, True, True]


def test_a_file_that_cannot_be_written_whole_leaves_the_last_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    options = {**OPTIONS, "strategy": "random"}
    replicate(BRANIN, checkpoint=path, **{**options, "budget": 3})
    before = path.read_bytes()

    def full(whole: object, file: Any) -> None:
        file.write(b"some of it")
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(OSError, match="no space left"):
            replicate(BRANIN, checkpoint=path, **options)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("option", "other", "message"),
    [
        ("runs", 2, r"runs=2: the checkpoint '.*runs' has 3; give the same value to continue it"),
        ("seed", 6, "seed=6: the checkpoint '.*' has 5; .*, or another file"),
        ("batch", 2, "batch=2: the checkpoint '.*' has 1; "),
        ("initial", 5, "initial=5: the checkpoint '.*' has 4; "),
        ("inference", "nuts", "inference='nuts': the checkpoint '.*' has 'map'; "),
        ("strategy", "ts", "strategy='ts': the checkpoint '.*' has {'name': 'ei', "),
        ("model", fitting.Model(nu=1.5), "model={'nu': 1.5}: the checkpoint '.*' has {'nu': 2.5}"),
        ("problem", "hartmann3", "problem='hartmann3': the checkpoint '.*' has 'branin'; "),
        ("problem", replace(BRANIN, noise=0.1), "noise=0.1: the checkpoint '.*' has 0.0"),
        ("problem", BRANIN.shifted(1), "shift='.*': the checkpoint '.*' has None"),
        ("problem", replace(BRANIN, bounds=2 * BRANIN.bounds), r"bounds=\[\[-10.0, 0.0\]"),
        ("problem", replace(BRANIN, constraints=(BRANIN.function,)), "constraints=1: .* has 0"),
    ],
)
def test_a_file_of_other_options_is_refused(
    option: str, other: Any, message: str, tmp_path: Path
) -> None:
    options = {**OPTIONS, "problem": BRANIN, "inference": "map", "budget": 4}
    options["checkpoint"] = tmp_path / "runs"
    replicate(**options)
    before = options["checkpoint"].read_bytes()
    with pytest.raises(InvalidOption, match=message):
        replicate(**{**options, option: other})
    assert options["checkpoint"].read_bytes() == before


@pytest.mark.parametrize(
    ("option", "other", "message"),
    [
        ("workers", 3, "workers=3: the checkpoint '.*' has 2"),
        ("mode", "sync", "mode='sync': the checkpoint '.*' has 'async'"),
        ("times", "uniform", "times='uniform': the checkpoint '.*' has 'exponential'"),
        ("latency", 0.5, "latency=0.5: the checkpoint '.*' has 0.0"),
        ("refit_every", 2, "refit_every=2: the checkpoint '.*' has 1"),
    ],
)
def test_so_is_one_of_other_workers(option: str, other: Any, message: str, tmp_path: Path) -> None:
    options = {**OPTIONS, "strategy": "random", "workers": 2, "checkpoint": tmp_path / "runs"}
    simulate(BRANIN, **options)
    with pytest.raises(InvalidOption, match=message):
        simulate(BRANIN, **{**options, option: other})


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    quiet = {**OPTIONS, "strategy": "random", "budget": 1}
    with pytest.raises(
        InvalidOption, match=r"checkpoint=.*: expected the path of a file in an existing folder"
    ):
        replicate(BRANIN, checkpoint=tmp_path / "missing" / "runs", **quiet)
    other = tmp_path / "other"
    other.write_text("something else")
    with pytest.raises(InvalidData, match=r"other.*: expected a file that an earlier call wrote"):
        replicate(BRANIN, checkpoint=other, **quiet)
    assert other.read_text() == "something else"
    runs = tmp_path / "runs.npz"
    replicate(BRANIN, **quiet).save(runs)
    with pytest.raises(InvalidData, match=r"npz.*: expected a file that an earlier call wrote"):
        replicate(BRANIN, checkpoint=runs, **quiet)
    simulated = tmp_path / "simulated"
    simulate(BRANIN, workers=1, checkpoint=simulated, **quiet)
    with pytest.raises(InvalidData, match=r"simulated.*: expected a file that an earlier call"):
        replicate(BRANIN, checkpoint=simulated, **quiet)


def test_so_is_one_of_a_version_whose_states_have_other_fields(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    quiet = {**OPTIONS, "strategy": "random", "budget": 1, "checkpoint": path}
    replicate(BRANIN, **quiet)
    with torch.serialization.safe_globals([lockstep._Runs, frozenset]):
        whole = torch.load(path, weights_only=True)
    whole["layout"]["_Runs"].remove("truth")
    torch.save(whole, path)
    with pytest.raises(InvalidData, match=r"checkpoint=.*: written by another version of gpbo"):
        replicate(BRANIN, **quiet)


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "run",)

    path = tmp_path / "planted"
    with archive.appearing(path) as file:
        torch.save({"layout": {}, "options": {}, "state": Planted()}, file)
    with pytest.raises(InvalidData, match="expected a file that an earlier call wrote"):
        replicate(BRANIN, strategy="random", runs=1, budget=1, checkpoint=path, progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("run", [replicate, simulate])
@unchecked_shapes()
def test_a_call_with_numbers_of_numpy_goes_on_too(run: Any, tmp_path: Path) -> None:
    own = {"workers": 2, "refit_every": 1} if run is simulate else {"batch": 2}
    numbers = {**own, "runs": 2, "budget": 4, "initial": 2, "seed": 5}
    options = {**OPTIONS, **numbers, "strategy": "sobol", "checkpoint": tmp_path / "runs"}
    first = run(BRANIN, **{**options, **{name: np.int64(numbers[name]) for name in numbers}})
    assert_equal(run(BRANIN, **options), first)

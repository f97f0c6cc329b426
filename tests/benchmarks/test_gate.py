"""The regression gate cries where there is a loss, and only there."""

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from gpbo import Optimizer, Trial
from gpbo.cli import app
from gpbo.data import Observations
from gpbo.errors import InvalidData
from gpbo_benchmarks import botorch_loop, gate, speed, table
from tests.benchmarks.results import case, header, rows, trace


def runs(worse: float, *, seeds: int = 12, shift: float = 0.0) -> pd.DataFrame:
    """A method whose regret is ``worse`` times what it was, give or take, and a random search."""
    rng = np.random.default_rng(int(100 * worse))
    found = []
    for seed in range(seeds):
        regret = worse * float(np.exp(0.3 * rng.normal()))
        found.append(trace("ei-hmc", seed, [9.0, 8.0, 1.0 + regret]))
        found.append(trace("random", seed, [9.0, 8.0, 5.0 + shift]))
    return rows(*found)


@pytest.mark.parametrize(("worse", "lost"), [(1.0, False), (0.5, False), (1.1, False), (2.0, True)])
def test_regret_is_lost_where_it_is_much_larger_and_surely(worse: float, lost: bool) -> None:
    findings = {f.name: f for f in gate.compare_regret(runs(worse), runs(1.0))}
    assert findings["regret of ei-hmc on smoke"].lost == lost
    assert findings["regret of ei-hmc on smoke"].found == pytest.approx(worse, rel=0.3)
    assert not findings["regret of random (same problems)"].lost


def test_the_same_results_are_no_loss() -> None:
    assert not any(finding.lost for finding in gate.compare_regret(runs(1.0), runs(1.0)))


def test_other_problems_than_those_stored_are_noticed() -> None:
    findings = {f.name: f.lost for f in gate.compare_regret(runs(1.0, shift=0.1), runs(1.0))}
    assert findings["regret of random (same problems)"]


def test_problems_and_seeds_that_are_gone_are_noticed() -> None:
    stored = runs(1.0)
    findings = {f.name: f.lost for f in gate.compare_regret(stored[stored["seed"] != 3], stored)}
    assert findings["regret of random (same problems)"]


def test_one_unlucky_seed_is_no_loss() -> None:
    stored = runs(1.0)
    now = stored.copy()
    last = (now["method"] == "ei-hmc") & (now["seed"] == 3) & (now["evaluation"] == 3)
    now.loc[last, ["value", "truth"]] = 7.0
    assert not any(finding.lost for finding in gate.compare_regret(now, stored))


def _with_regret(stored: pd.DataFrame, seeds: list[int], worse: float) -> pd.DataFrame:
    """The same runs, but in these seeds the regret of ``ei-hmc`` is so many times what it was."""
    now = stored.copy()
    last = (now["method"] == "ei-hmc") & now["seed"].isin(seeds) & (now["evaluation"] == 3)
    now.loc[last, ["value", "truth"]] = 1.0 + worse * (now.loc[last, ["value", "truth"]] - 1.0)
    return now


def test_what_may_be_chance_is_no_loss_however_much_worse_it_is_on_average() -> None:
    stored = runs(1.0)
    findings = gate.compare_regret(_with_regret(stored, [3, 5], 4.0), stored)
    assert findings[-1].found == pytest.approx(4.0 ** (2 / 12))
    assert findings[-1].found > gate.WORSE
    assert not any(finding.lost for finding in findings)


def test_a_small_loss_is_none_however_sure() -> None:
    stored = runs(1.0)
    findings = gate.compare_regret(_with_regret(stored, list(range(12)), 1.2), stored)
    assert not any(finding.lost for finding in findings)


def test_ratios_of_speed_are_of_ours_to_theirs_of_all_proposals_but_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def turns(n: int, dim: int, inference: str) -> Iterator[speed.Turn]:
        assert (n, dim, inference) == (30, 6, "map")
        yield speed.Turn(100.0, 100.0, 1.0, 1.0)
        yield from (speed.Turn(2.0 * theirs, 1.0, 4.0 * theirs, 1.0) for theirs in count(1.0))

    monkeypatch.setattr(speed, "turns", turns)
    assert gate._suggestions("map", 3) == [0.5] * 3


def test_both_sides_propose_of_the_same_results_with_nothing_pending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours: list[Observations] = []
    theirs: list[tuple[Tensor, Tensor]] = []

    def ask(optimizer: Optimizer) -> Trial:
        assert not optimizer.pending
        trials = optimizer.completed
        x = optimizer.space.encode([trial.params for trial in trials])
        y = torch.tensor([trial.value for trial in trials], dtype=torch.float64)
        ours.append(Observations.of(x[None], y[None]))
        return asked(optimizer)

    def suggest_with_map(x: Tensor, y: Tensor) -> botorch_loop.Suggestion:
        theirs.append((x, y))
        return botorch_loop.Suggestion(x[:1], 3.0, 5.0)

    asked = Optimizer.ask
    monkeypatch.setattr(Optimizer, "ask", ask)
    monkeypatch.setattr(botorch_loop, "suggest_with_map", suggest_with_map)
    made = list(islice(speed.turns(11, 3, "map"), 3))
    assert [(turn.botorch_s, turn.botorch_fit_s) for turn in made] == [(8.0, 3.0)] * 3
    assert [data.counts.item() for data in ours] == [11, 12, 13]
    for data, (x, y) in zip(ours, theirs[1:], strict=True):  # the first is for loading
        torch.testing.assert_close(x, data.x[0])
        torch.testing.assert_close(y, data.y[0])


@pytest.mark.parametrize(
    ("ratios", "lost"),
    [
        ([1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 1.0], False),  # as it was
        ([1.0, 1.1, 0.9, 1.0, 9.0, 9.0, 1.0], False),  # a busy machine
        ([1.0, 1.5, 0.9, 1.6, 9.0, 9.0, 1.1], False),  # and a busier one
        ([2.0, 2.1, 1.9, 2.0, 2.2, 1.8, 2.0], True),
        ([0.5] * 7, False),
    ],
)
def test_speed_is_lost_where_the_whole_interval_is_above(ratios: list[float], lost: bool) -> None:
    (finding,) = gate.compare_speed({"ask": ratios}, {"ask": 1.0})
    assert finding.lost == lost
    assert str(finding).startswith("LOSS" if lost else "ok")


def test_a_ratio_that_was_not_stored_is_no_loss() -> None:
    (finding,) = gate.compare_speed({"new": [3.0] * 5}, {})
    assert not finding.lost


def test_a_stored_ratio_that_is_not_measured_any_more_is_lost() -> None:
    _, gone = gate.compare_speed({"ask": [1.0] * 5}, {"ask": 1.0, "old": 2.0})
    assert str(gone) == "LOSS  old: nan, stored 2"


def test_a_run_without_a_value_hides_no_loss_of_the_others() -> None:
    def without(found: pd.DataFrame) -> pd.DataFrame:
        own = (found["method"] == "ei-hmc") & (found["seed"] == 3)
        return found.assign(value=found["value"].mask(own), truth=found["truth"].mask(own))

    stored, worse = without(runs(1.0)), without(runs(2.0))
    assert [f.name for f in gate.compare_regret(worse, stored) if f.lost] == [
        "regret of ei-hmc on smoke"
    ]
    assert not any(finding.lost for finding in gate.compare_regret(stored, stored))


def test_runs_that_ended_early_are_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "speed_ratios", lambda: {"ask": [1.0]})
    smoke, folder = tmp_path / "trials.parquet", tmp_path / "stored"
    good = [trace("random", seed, [9.0, 8.0, 5.0]) for seed in (0, 1)]
    ended = [trace("ei-hmc", 0, [9.0], budget=3, failure="none left")]
    table.write(smoke, table.rows("smoke", case(), good + ended), header(2))
    with pytest.raises(InvalidData, match=r"trials\.parquet: runs of ei-hmc ended early: expected"):
        gate.keep(smoke, folder)
    assert not folder.exists()
    table.write(smoke, table.rows("smoke", case(), good), header(2))
    gate.keep(smoke, folder)
    assert {path.name for path in folder.iterdir()} == {"check-speed.json", "check-smoke.parquet"}


@pytest.mark.parametrize("lost", [False, True])
def test_the_command_fails_on_a_loss_and_says_which(
    lost: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = gate.Finding("16 Thompson points / BoTorch", 1.0, 2.0, lost)
    monkeypatch.setattr("gpbo_benchmarks.gate.check", lambda smoke, stored: [found])
    monkeypatch.setattr("gpbo_benchmarks.runner.Run.execute", lambda run, show: run.results)
    done = CliRunner().invoke(app, ["bench", "check", "--output", str(tmp_path / "check")])
    assert done.exit_code == int(lost)
    assert "16 Thompson points / BoTorch: 2, stored 1" in done.output


def test_a_method_that_is_gone_or_fails_is_lost() -> None:
    stored = runs(1.0)
    now = stored.copy()
    now.loc[(now["method"] == "ei-hmc") & (now["seed"] == 3), "failure"] = "it crashed"
    lost = [str(f) for f in gate.compare_regret(now, stored) if f.lost]
    assert lost == ["LOSS  runs of ei-hmc that ended early: 1, stored 0"]
    gone = gate.compare_regret(stored[stored["method"] == "random"], stored)
    assert [f.name for f in gone if f.lost] == ["runs of ei-hmc that ended early"]
    assert not any(f.lost for f in gate.compare_regret(now, now))

"""How a stored job is shown."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gpbo.record import Attempt, Metric, Record
from gpbo.storage import SqliteStorage
from gpbo.trial import Trial
from gpbo.view import panel, plain, summary

SPEC = {"direction": "maximize", "space": {"rate": {"type": "real"}, "kind": {"type": "ordinal"}}}


def recorded(folder: Path, ended: str | None = None) -> Record:
    store = SqliteStorage(folder / "runs.db")
    journal = store.create("svm", SPEC)
    trials = [
        Trial(number, {"rate": number / 8, "kind": "a"}, origin="sobol") for number in (0, 1, 2)
    ]
    journal.write(
        trials=[
            trials[0].completed(0.25, 2.0),
            trials[1].failed("out of memory\n...", 3.0),
            trials[2],
        ],
        attempts=[Attempt(0, 1, 0, 1.0, 2.0, 0.25), Attempt(2, 1, 3, 4.0)],
        metrics=[Metric(2, 1, 6, 0.5), Metric(2, 1, 7, math.nan)],
        ended=ended,
    )
    return store.read("svm")


def text(record: Record, budget: int | None = None) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(panel(record, budget, now=34.0))
    return console.export_text()


def test_workers_and_trials_are_shown(tmp_path: Path) -> None:
    shown = text(recorded(tmp_path))
    assert "gpbo maximize svm" in shown
    assert "2 trials ended, 1 of them failed; the job has not ended" in shown
    assert "best 0.25 at trial 0: rate=0  kind=a" in shown
    rows = [line.strip("│ ").split() for line in shown.splitlines()]
    assert ["3", "2", "1", "30", "7", "nan"] in rows
    assert "failed: out of memory" in shown


def test_of_a_known_budget_is_told_how_much_is_spent(tmp_path: Path) -> None:
    """Which added results are no part of."""
    record = recorded(tmp_path)
    assert "2 of 9 trials ended, 1 of them failed; the job has not ended" in text(record, 9)
    added = replace(record.trials[0], origin="added")
    of_others = replace(record, trials=(added, *record.trials[1:]))
    assert "1 of 9 trials ended" in text(of_others, 9)
    assert "2 trials ended" in text(of_others)


def test_what_was_asked_and_no_worker_runs_is_told(tmp_path: Path) -> None:
    record = recorded(tmp_path)
    asked = replace(record, attempts=record.attempts[:1])
    assert "2 trials ended, 1 of them failed, 1 pending; the job has not ended" in text(asked)
    # A trial that failed is written down before its attempt has ended.
    failing = replace(record, attempts=(*record.attempts, Attempt(1, 1, 4, 2.5)))
    assert "2 trials ended, 1 of them failed; the job has not ended" in text(failing)
    left = replace(record, ended="interrupted")
    assert "2 trials ended, 1 of them failed, 1 pending; the job ended: interrupted" in text(left)


@pytest.mark.parametrize(
    ("reason", "counted"),
    [
        ("stopped early at step 2", "1 stopped early"),
        ("withdrawn: the oven was cold", "1 withdrawn"),
    ],
)
def test_what_did_not_fail_by_itself_is_counted_by_itself(
    reason: str, counted: str, tmp_path: Path
) -> None:
    record = recorded(tmp_path)
    another = replace(record.trials[1], id=3, reason=reason)
    trials, finished = (*record.trials[:2], another), (*record.finished, 3)
    shown = text(replace(record, trials=trials, finished=finished))
    assert f"3 trials ended, 1 of them failed, {counted}; the job has not ended" in shown


def test_what_violates_a_constraint_is_counted(tmp_path: Path) -> None:
    record = recorded(tmp_path)
    first, *others = record.trials
    beyond = replace(first, violated=("memory <= 16",))
    shown = text(replace(record, trials=(beyond, *others)))
    counted = "1 of them failed, 1 violating a constraint"
    assert f"2 trials ended, {counted}; the job has not ended" in shown


def test_an_added_trial_that_failed_is_none_of_the_budget_s(tmp_path: Path) -> None:
    record = recorded(tmp_path)
    added = replace(record.trials[1], origin="added")
    of_others = replace(record, trials=(record.trials[0], added, record.trials[2]))
    assert "1 of 9 trials ended, 0 of them failed; the job has not ended" in text(of_others, 9)
    assert "2 trials ended, 1 of them failed; the job has not ended" in text(of_others)


def test_a_job_that_ended_has_no_workers(tmp_path: Path) -> None:
    shown = text(recorded(tmp_path, "target"))
    assert "ended: the target was reached" in shown
    assert "nan" not in shown


def test_of_many_trials_the_latest_are_shown(tmp_path: Path) -> None:
    journal = SqliteStorage(tmp_path / "runs.db").create("long", SPEC)
    trials = [Trial(number, {"rate": 0.5, "kind": "a"}, origin="sobol") for number in range(17)]
    journal.write(trials=[trial.completed(1.0, 2.0) for trial in trials])
    rows = [line.strip("│ ").split() for line in text(journal.read()).splitlines()]
    assert [row[0] for row in rows if row[-1:] == ["sobol"]] == [str(n) for n in range(16, 4, -1)]


def test_all_is_there_as_json(tmp_path: Path) -> None:
    record = recorded(tmp_path)
    told = json.loads(json.dumps(plain(record), allow_nan=False))
    assert told["best"] == 0
    assert [trial["status"] for trial in told["trials"]] == ["completed", "failed", "pending"]
    assert told["metrics"][1]["value"] == "nan"
    assert told["attempts"][1]["ended_at"] is None


def test_brackets_are_no_markup_and_the_first_of_equals_is_the_best(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "runs.db")
    spec = {"direction": "minimize", "space": {"act[/b]": {"type": "categorical"}}}
    journal = store.create("odd", spec)
    first, second = (Trial(number, {"act[/b]": "[relu]"}) for number in (1, 0))
    third = Trial(2, {"act[/b]": "[tanh, x]"}).failed("ValueError: got [/tmp/x]", 3.0)
    for trial in (first.completed(0.5, 1.0), second.completed(0.5, 2.0), third):
        journal.write(trials=[trial])
    shown = text(store.read("odd"))
    for literal in ("act[/b]", "[relu]", "[tanh, x]", "got [/tmp/x]", "best 0.5 at trial 1"):
        assert literal in shown
    assert plain(store.read("odd"))["best"] == 1


def test_infinite_choices_are_text_in_json(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "runs.db")
    spec = SPEC | {"space": {"cap": {"type": "categorical", "choices": [math.inf, 1.0]}}}
    store.create("endless", spec).write(trials=[Trial(0, {"cap": math.inf})])
    told = json.loads(json.dumps(plain(store.read("endless")), allow_nan=False))
    assert told["spec"]["space"]["cap"]["choices"] == ["inf", 1.0]
    assert told["trials"][0]["params"] == {"cap": "inf"}


def test_without_a_value_there_is_no_best(tmp_path: Path) -> None:
    journal = SqliteStorage(tmp_path / "runs.db").create("empty", SPEC)
    assert (
        summary(journal.read())
        == "0 trials ended, 0 of them failed; the job has not ended\nno trial has a value"
    )

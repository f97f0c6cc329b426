"""Trials: plain values that finish once."""

import pickle
from dataclasses import FrozenInstanceError

import pytest

from gpbo.errors import InvalidResult, TrialAlreadyFinished
from gpbo.trial import Trial, TrialStatus


def pending() -> Trial:
    return Trial(id=3, params={"x": 0.5, "kind": "a"}, origin="design", asked_at=100.0)


def test_a_completed_trial_has_its_value_and_duration_and_keeps_the_rest() -> None:
    asked = pending()
    done = asked.completed(-1.5, at=107.0)
    assert (done.status, done.value, done.reason) == (TrialStatus.COMPLETED, -1.5, None)
    assert done.duration_s == 7.0
    assert (done.id, done.params, done.origin) == (3, {"x": 0.5, "kind": "a"}, "design")
    assert asked == pending(), "the earlier state must not change"


def test_a_failed_trial_has_its_reason_and_no_value() -> None:
    failed = pending().failed("out of memory", at=101.5)
    assert (failed.status, failed.value, failed.reason) == (
        TrialStatus.FAILED,
        None,
        "out of memory",
    )
    assert failed.duration_s == 1.5


@pytest.mark.parametrize("finished", [pending().completed(1.0, 1.0), pending().failed("no", 1.0)])
def test_a_finished_trial_does_not_finish_again(finished: Trial) -> None:
    with pytest.raises(TrialAlreadyFinished, match="trial 3 already has status"):
        finished.completed(2.0, at=2.0)
    with pytest.raises(TrialAlreadyFinished, match="trial 3 already has status"):
        finished.failed("again", at=2.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_must_be_finite(value: float) -> None:
    with pytest.raises(InvalidResult, match=r"trial 3: value=.*finite"):
        pending().completed(value, at=2.0)


def test_the_duration_is_unknown_without_both_times() -> None:
    assert pending().duration_s is None
    assert Trial(id=0, params={}).completed(1.0, at=5.0).duration_s is None
    assert pending().completed(1.0, at=None).duration_s is None


def test_a_trial_keeps_its_own_copy_of_the_configuration_and_of_what_was_measured() -> None:
    params, measured = {"x": 1}, {"memory": 7.0}
    trial = Trial(id=0, params=params).completed(0.5, 1.0, measured)
    params["x"], measured["memory"] = 2, 8.0
    assert (trial.params, trial.measured) == ({"x": 1}, {"memory": 7.0})


def test_a_trial_is_frozen_hashable_and_survives_pickling() -> None:
    done = pending().completed(2.0, at=200.0)
    with pytest.raises(FrozenInstanceError):
        done.value = 3.0  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(done)) == done
    assert len({done, pending(), pending()}) == 2


def test_a_status_is_its_own_text() -> None:
    assert [str(status) for status in TrialStatus] == ["pending", "completed", "failed"]
    assert TrialStatus("failed") is TrialStatus.FAILED

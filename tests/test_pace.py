"""How far ahead trials are chosen, and by how many draws."""

import pytest

from gpbo.pace import Pace


def pace(workers: int, trial_s: float, choice_s: float = 0.0, count: int = 1) -> Pace:
    made = Pace(workers)
    made.trial_took(trial_s)
    if choice_s:
        made.choice_took(choice_s, count)
    return made


@pytest.mark.parametrize(
    ("workers", "trial_s", "choice_s", "ahead"),
    [
        (1, 1.0, 0.5, 0),
        (8, 1.0, 0.01, 0),
        (8, 1.0, 0.011, 1),
        (8, 1.0, 0.125, 3),
        (8, 1.0, 0.5, 8),
        (8, 1.0, 5.0, 32),
        (3, 60.0, 1.0, 1),
    ],
)
def test_as_many_are_ready_as_may_end_during_a_choice(
    workers: int, trial_s: float, choice_s: float, ahead: int
) -> None:
    for count in (1, 5):  # a choice of several is one wait
        assert pace(workers, trial_s, choice_s, count).ahead == ahead


def test_before_a_trial_has_ended_nothing_is_chosen_ahead_and_every_wait_is_long() -> None:
    made = Pace(8)
    made.choice_took(3.0, 2)
    assert (made.ahead, made.thin) == (0, 1)
    assert made.is_long(0.0)


def test_a_wait_is_long_that_is_more_than_a_percent_of_the_latest_trials() -> None:
    made = Pace(8)
    for seconds in [1e6] * 5 + [2.0] * 20:
        made.trial_took(seconds)
    assert not made.is_long(0.02)
    assert made.is_long(0.021)


def test_choices_that_keep_workers_waiting_are_made_by_fewer_draws() -> None:
    """And by all of them again when there is time. Eight workers are free eight times a second."""
    made = pace(8, 1.0)
    thinned = []
    for choice_s in (0.05, 0.1, 0.11, 0.11, 0.11, 0.09, 0.04, 0.03, 0.03, 0.03):
        made.choice_took(5 * choice_s, 5)
        thinned.append(made.thin)
    assert thinned == [1, 1, 2, 4, 4, 4, 4, 2, 1, 1]


def test_trials_that_take_no_time_are_no_division_by_zero() -> None:
    assert pace(2, 0.0, 0.1).ahead == 8

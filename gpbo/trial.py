"""One evaluation of the objective, from ask to result: plain data."""

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from gpbo.errors import InvalidResult, TrialAlreadyFinished

Direction = Literal["minimize", "maximize"]
#: Whether a free worker gets its next trial at once, or waits for all others.
Mode = Literal["async", "sync"]

#: The reason of a trial that its job stopped early begins with this.
STOPPED_EARLY = "stopped early"
#: The reason of a trial that was not run as asked begins with this.
WITHDRAWN = "withdrawn"


class TrialStatus(StrEnum):
    """The status of a trial; it leaves PENDING once."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True)
class Trial:
    """A configuration and its result; a later state is a new `Trial`.

    Args:
        id: Its number within the run, from 0.
        params: The configuration in user units.
        status: Whether it is pending, completed or failed.
        value: The objective's value with the user's sign; None unless completed.
        reason: Why it failed; None unless failed.
        origin: What proposed it: ``"design"``, ``"model:ei"``, ``"random"``, ``"enqueued"``,
            ``"added"``, ...
        asked_at: When it was proposed, in seconds since the epoch; None if not known.
        finished_at: When its result came, likewise.
        measured: The quantities of the constraints, by name; empty unless completed.
        violated: The constraints that these violate, such as ``"memory <= 16"``.
    """

    id: int
    params: Mapping[str, Any] = field(hash=False)
    status: TrialStatus = TrialStatus.PENDING
    value: float | None = None
    reason: str | None = None
    origin: str = "added"
    asked_at: float | None = None
    finished_at: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict, hash=False)
    violated: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Copies: a caller who changes their own mapping later does not change history.
        object.__setattr__(self, "params", dict(self.params))
        object.__setattr__(self, "measured", dict(self.measured))

    @property
    def added(self) -> bool:
        """Whether its result came from elsewhere, so that it does not count towards a budget."""
        return self.origin == "added"

    @property
    def feasible(self) -> bool:
        """Whether it has a value and meets all constraints."""
        return self.value is not None and not self.violated

    @property
    def stopped_early(self) -> bool:
        """Whether it has no value because its job stopped it early."""
        return is_of_early_stop(self.reason)

    @property
    def withdrawn(self) -> bool:
        """Whether it has no value because it was not run as asked; nothing is learned from it."""
        return self.reason is not None and self.reason.partition(": ")[0] == WITHDRAWN

    @property
    def duration_s(self) -> float | None:
        """Seconds from ask to end; None if one of the two times is not known."""
        if self.asked_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.asked_at

    def completed(
        self,
        value: float,
        at: float | None,
        measured: Mapping[str, float] | None = None,
        violated: tuple[str, ...] = (),
    ) -> "Trial":
        """The trial with its value and the measured quantities.

        Raises:
            TrialAlreadyFinished: it was completed or failed before.
            InvalidResult: the value is NaN or infinite.
        """
        self._check_pending()
        if not math.isfinite(value):
            raise InvalidResult(f"trial {self.id}: value={value!r}: expected a finite number")
        return replace(
            self,
            status=TrialStatus.COMPLETED,
            value=float(value),
            finished_at=at,
            measured=measured or {},
            violated=violated,
        )

    def failed(self, reason: str, at: float | None) -> "Trial":
        """The trial without a value, and why.

        Raises:
            TrialAlreadyFinished: it was completed or failed before.
        """
        self._check_pending()
        return replace(self, status=TrialStatus.FAILED, reason=reason, finished_at=at)

    def _check_pending(self) -> None:
        if self.status is not TrialStatus.PENDING:
            result = self.reason if self.status is TrialStatus.FAILED else self.value
            raise TrialAlreadyFinished(
                f"trial {self.id} already has status {str(self.status)!r} ({result!r}): "
                "expected a pending trial"
            )


def is_of_early_stop(reason: str | None) -> bool:
    """Whether this is the reason of a trial, or an attempt, that a job stopped early."""
    return reason is not None and reason.startswith(STOPPED_EARLY)


def sign_of(direction: Direction) -> float:
    """The factor that turns values into ones to be minimised."""
    return 1.0 if direction == "minimize" else -1.0


def best_of(trials: Iterable[Trial], direction: Direction) -> Trial | None:
    """The trial with the best value among those that meet all constraints, the first in a tie;
    None if there is none.
    """
    return best_valued((trial for trial in trials if trial.feasible), direction)


def best_valued(trials: Iterable[Trial], direction: Direction) -> Trial | None:
    """The trial with the best value, constraints ignored; None if none has a value."""
    sign = sign_of(direction)
    valued = [(sign * trial.value, trial) for trial in trials if trial.value is not None]
    return min(valued, key=operator.itemgetter(0))[1] if valued else None


def best_shown(trials: Sequence[Trial], direction: Direction) -> Trial | None:
    """The best trial; as long as none meets the constraints, the one with the best value."""
    return best_of(trials, direction) or best_valued(trials, direction)


def incumbents(trials: Iterable[Trial], direction: Direction) -> Iterator[Trial | None]:
    """The best trial so far after each trial; None before the first that is feasible."""
    best: Trial | None = None
    for trial in trials:
        best = best_of([trial] if best is None else [best, trial], direction)
        yield best


def without_value(trials: Iterable[Trial]) -> tuple[list[Trial], list[Trial]]:
    """The trials that failed (withdrawn ones left out), and those that their job stopped early."""
    ended = [t for t in trials if t.status is TrialStatus.FAILED and not t.withdrawn]
    stopped = [trial for trial in ended if trial.stopped_early]
    return [trial for trial in ended if not trial.stopped_early], stopped


def measured_names(trials: Iterable[Trial]) -> list[str]:
    """The names of the quantities that were measured with the values."""
    return list(dict.fromkeys(name for trial in trials for name in trial.measured))


def design_end(trials: Sequence[Trial]) -> int:
    """The number of trials up to the last one of the initial design."""
    return max((i for i, t in enumerate(trials, 1) if t.origin == "design"), default=0)


def records(trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """Trials as plain values, one dict each: the configuration in columns ``params.<name>`` and,
    if quantities were measured, ``measured.<name>`` and ``feasible``.
    """
    trials = list(trials)
    constrained = any(trial.measured for trial in trials)
    return [
        {
            "id": trial.id,
            **{f"params.{name}": value for name, value in trial.params.items()},
            "value": trial.value,
            "status": str(trial.status),
            "reason": trial.reason,
            "origin": trial.origin,
            "asked_at": trial.asked_at,
            "finished_at": trial.finished_at,
            **{f"measured.{name}": number for name, number in trial.measured.items()},
            **({"feasible": trial.feasible} if constrained else {}),
        }
        for trial in trials
    ]

"""What a storage knows about a job, and the interface of storages.

A `Storage` holds jobs by name; the one process that drives a job writes it through its `Journal`,
and any process may read a `Record` of it at any time. Every write is one transaction, which is on
disk when the call returns. `gpbo.storage` has the storage that comes with gpbo.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gpbo.trial import Trial

#: Reasons of attempts that ended through no fault of their trial; the cause follows the last one.
JOB_ENDED, JOB_INTERRUPTED, NOT_RUN = "the job ended", "the job was interrupted", "not run: "


@dataclass(frozen=True)
class Attempt:
    """One execution of a trial.

    Attributes:
        trial: The trial's id.
        number: From 1 within the trial.
        worker: Which worker ran it, from 0.
        started_at: Seconds since the epoch.
        ended_at: The same; None while it runs.
        value: What it returned; None without a result.
        reason: Why there is no result.
        late: Whether it ended after its trial had been given up.
        measured: The quantities of the constraints, returned with the value.
    """

    trial: int
    number: int
    worker: int
    started_at: float
    ended_at: float | None = None
    value: float | None = None
    reason: str | None = None
    late: bool = False
    measured: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def interrupted(self) -> bool:
        """Whether it ended through no fault of its trial, which is tried again."""
        return (self.reason or "").startswith((JOB_ENDED, JOB_INTERRUPTED, NOT_RUN))


@dataclass(frozen=True)
class Metric:
    """An intermediate value that an attempt reported at a step; may be NaN or infinite."""

    trial: int
    attempt: int
    step: int
    value: float


@dataclass(frozen=True)
class FitSummary:
    """How a fit of the model went.

    Attributes:
        size: How many results it used, the first ones that came.
        at: When it was recorded, in seconds since the epoch.
        report: The `gpbo.FitReport` as plain values: a number for each diagnostic, None for NaN.
    """

    size: int
    at: float
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """All that a storage knows about a job.

    Attributes:
        name: The job's name.
        spec: How the job was made, as plain values.
        created_at: When, in seconds since the epoch.
        trials: In the order of ids.
        finished: Ids of the trials that ended, in the order in which they ended.
        queue: Configurations to be asked next.
        engine: What the last fit left for the next one.
        attempts: Ordered by trial and number.
        metrics: Ordered by trial, attempt and step.
        fits: Ordered by size; without those of older versions of gpbo, which did not record them.
        ended: Why the job ended, as in `gpbo.Result.stopped`; None if it has not.
    """

    name: str
    spec: dict[str, Any]
    created_at: float
    trials: tuple[Trial, ...]
    finished: tuple[int, ...]
    queue: tuple[dict[str, Any], ...]
    engine: bytes | None
    attempts: tuple[Attempt, ...]
    metrics: tuple[Metric, ...]
    fits: tuple[FitSummary, ...]
    ended: str | None

    @property
    def last_heard_at(self) -> float:
        """The latest time that was recorded for the job, in seconds since the epoch."""
        trials = (time for one in self.trials for time in (one.asked_at, one.finished_at))
        attempts = (time for one in self.attempts for time in (one.started_at, one.ended_at))
        times = [*trials, *attempts, *(fit.at for fit in self.fits)]
        return max((time for time in times if time is not None), default=self.created_at)

    def ended_attempts(self) -> tuple[Attempt, ...]:
        """The attempts of a job that no process drives: those without an end were interrupted.

        They are taken to have ended with their trial, if that has ended, else at the latest time
        that was recorded for the job, since nobody recorded when its driver was killed.
        """
        last, trials = self.last_heard_at, {trial.id: trial for trial in self.trials}

        def ended(attempt: Attempt) -> Attempt:
            trial = trials.get(attempt.trial)
            told = (None, None) if trial is None else (trial.finished_at, trial.reason)
            return replace(attempt, ended_at=told[0] or last, reason=told[1] or JOB_INTERRUPTED)

        return tuple(one if one.ended_at is not None else ended(one) for one in self.attempts)


@runtime_checkable
class Journal(Protocol):
    """The one writer of a job."""

    @property
    def name(self) -> str:
        """The job's name."""
        ...

    @property
    def folder(self) -> Path:
        """Where files that belong to the job may lie; it need not exist yet."""
        ...

    def read(self) -> Record:
        """The job as it is at this moment."""
        ...

    def write(
        self,
        *,
        trials: Iterable[Trial] = (),
        attempts: Iterable[Attempt] = (),
        metrics: Iterable[Metric] = (),
        fits: Iterable[FitSummary] = (),
        queue: Sequence[Mapping[str, Any]] | None = None,
        engine: bytes | None = None,
        spec: Mapping[str, Any] | None = None,
        ended: str | None = None,
    ) -> None:
        """Record all of this or, if the process dies, none of it.

        Existing entries (a trial, attempt, metric, or fit of the same size) are replaced. A trial
        takes its place in the order of ends when it is first written as ended.

        Args:
            queue: Everything that is enqueued now; None leaves it as it is.
            engine: What the last fit left for the next one; None leaves it, empty bytes delete it.
            spec: How the job was made; None leaves it as it is.
            ended: Why the job ended; None leaves it, an empty string deletes it. An end also
                settles a request to stop.
        """
        ...

    def stop_requested(self) -> bool:
        """Whether someone asked the job to stop since its journal was opened."""
        ...

    def close(self) -> None:
        """Release the job, so that another process may drive it."""
        ...


@runtime_checkable
class Storage(Protocol):
    """Jobs by name."""

    def create(self, name: str, spec: Mapping[str, Any]) -> Journal:
        """A new job, driven by this process until the journal is closed.

        Raises:
            StorageError: there is a job of this name.
            JobInUse: a process drives it.
        """
        ...

    def open(self, name: str) -> Journal:
        """Drive an existing job.

        Raises:
            UnknownJob: there is none of this name.
            JobInUse: another process drives it.
        """
        ...

    def read(self, name: str) -> Record:
        """A job as it is at this moment.

        Raises:
            UnknownJob: there is none of this name.
        """
        ...

    def names(self) -> list[str]:
        """The names of all jobs, the oldest first."""
        ...

    def request_stop(self, name: str) -> None:
        """Ask whoever drives the job to stop it.

        Raises:
            UnknownJob: there is none of this name.
        """
        ...

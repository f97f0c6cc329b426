"""Trials and engine state in a database: what was told is never lost, and a job can be resumed.

`SqliteStorage` is the `gpbo.record.Storage` that comes with gpbo: one file, written by Python's own
sqlite3 (a transaction takes half a millisecond, which is fast enough).
"""

import json
import math
import os
import re
import sqlite3
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import astuple
from pathlib import Path
from threading import RLock
from typing import Any

from filelock import FileLock, Timeout

from gpbo.constraints import Constraint, read_constraints, violated
from gpbo.database import Database
from gpbo.errors import InvalidOption, JobInUse, StorageError, UnknownJob
from gpbo.record import Attempt, FitSummary, Metric, Record, Storage
from gpbo.trial import Trial, TrialStatus

__all__ = [
    "SqliteJournal",
    "SqliteStorage",
    "Storage",
    "resolve_storage",
]

#: Seconds that a lock may outlive its killed process: in a forked child that has not yet started
#: its own program.
INHERITED_S = 1.0
#: A job's name is part of the name of a file.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class SqliteStorage:
    """Jobs in one SQLite file, which the first job creates; reading it changes nothing.

    The file has a write-ahead log. On a network file system, where this log would not be safe, it
    has a rollback journal instead, which is slower and makes readers and the writer wait for each
    other; a warning says so. One process at a time drives a job, and holds a lock file beside the
    database; the lock is released when the process ends, in whatever way. Threads may share a
    storage.

    Raises:
        StorageError: not the path of a file in an existing folder, the system denies access to it,
            or not a database that this version of gpbo can read.
    """

    def __init__(self, path: str | Path) -> None:
        self._database = Database(path)
        self.path: Path = self._database.path

    def create(self, name: str, spec: Mapping[str, Any]) -> "SqliteJournal":
        """A new job: see `Storage`.

        Raises:
            InvalidOption: the name is not up to 100 letters, digits, ``.``, ``_`` and ``-``, the
                first a letter or digit.
            JobInUse: a process drives a job of this name.
            StorageError: there is a job of this name, or of one that differs only in case, or the
                file cannot be written.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidOption(
                f"name={name!r}: expected 1 to 100 letters (A to Z, a to z), digits, '.', '_' or "
                "'-', beginning with a letter or digit"
            )
        for other in self.names():
            if other != name and other.lower() == name.lower():
                raise StorageError(
                    f"name={name!r}: {self.path} already has a job {other!r}, whose files are the "
                    "same on systems that ignore case, such as macOS and Windows; choose another "
                    "name"
                )
        values = (name, json.dumps(spec), time.time())
        try:
            return self._drive(
                name, "INSERT INTO job (name, spec, created_at) VALUES (?, ?, ?)", values
            )
        except sqlite3.IntegrityError as error:
            raise StorageError(
                f"name={name!r}: {self.path} already has a job of this name; choose another name, "
                "or continue that job (`gpbo resume`, `exist_ok=True`)"
            ) from error

    def open(self, name: str) -> "SqliteJournal":
        """Drive an existing job: see `Storage`.

        If this process already has a journal of it, as when a notebook cell is run again, that
        journal is closed.
        """
        self._check_known(name)
        if (before := _open.get((os.getpid(), self.path, name))) is not None:
            before.close()
        return self._drive(name, "UPDATE job SET stop_requested = 0 WHERE name = ?", (name,))

    def _drive(self, name: str, begin: str, values: tuple[Any, ...]) -> "SqliteJournal":
        with ExitStack() as undo:
            lock = self._lock(name)
            try:
                lock.acquire(timeout=INHERITED_S)
            except Timeout as error:
                raise JobInUse(
                    f"name={name!r}: a process is already running this job of {self.path}; wait "
                    "for it to end, stop it (`gpbo stop`), call close() of the optimizer that has "
                    "the job, or only look at the job (`Optimizer.of_record`)"
                ) from error
            except OSError as error:
                raise StorageError(f"storage={str(self.path)!r}: {error}") from error
            undo.callback(lock.release)
            connection = self._database.to_write()
            undo.callback(connection.close)
            with self._database.transaction(connection) as run:
                run.execute(begin, values)
            undo.pop_all()
        return SqliteJournal(self, self._database, connection, name, lock)

    def read(self, name: str, *, latest: bool = False) -> Record:
        """A job as it is at this moment: see `Storage`.

        Args:
            latest: Read only the last reported value of each attempt, which is fast enough to
                repeat often.
        """
        step, of = ("MAX(step)", " GROUP BY trial, attempt") if latest else ("step", "")
        with self._database.reading() as connection:
            job, spec, created_at, ended, engine = self._job(connection, name)

            def rows(query: str) -> list[Any]:
                return connection.execute(query, (job,)).fetchall()

            trials = rows(
                "SELECT number, params, status, value, reason, origin, asked_at, finished_at,"
                " measured FROM trial WHERE job = ? ORDER BY number"
            )
            finished = rows(
                "SELECT number FROM trial WHERE job = ? AND place IS NOT NULL ORDER BY place"
            )
            queue = rows("SELECT params FROM queue WHERE job = ? ORDER BY place")
            attempts = rows(
                "SELECT trial, number, worker, started_at, ended_at, value, reason, late, measured"
                " FROM attempt WHERE job = ? ORDER BY trial, number"
            )
            metrics = rows(
                f"SELECT trial, attempt, {step}, value FROM metric WHERE job = ?{of}"
                " ORDER BY trial, attempt, step"
            )
            fits = rows("SELECT size, at, report FROM fit WHERE job = ? ORDER BY size")
        made = json.loads(spec)
        constraints = read_constraints(made.get("constraints", ()))
        return Record(
            name=name,
            spec=made,
            created_at=created_at,
            trials=tuple(_trial(row, constraints) for row in trials),
            finished=tuple(number for (number,) in finished),
            queue=tuple(json.loads(params) for (params,) in queue),
            engine=engine,
            attempts=tuple(
                Attempt(
                    trial, number, worker, start, end, value, reason, bool(late), json.loads(told)
                )
                for trial, number, worker, start, end, value, reason, late, told in attempts
            ),
            # SQLite has no NaN: it is stored as NULL.
            metrics=tuple(
                Metric(trial, attempt, step, math.nan if value is None else value)
                for trial, attempt, step, value in metrics
            ),
            fits=tuple(FitSummary(size, at, json.loads(report)) for size, at, report in fits),
            ended=ended,
        )

    def names(self) -> list[str]:
        """The names of all jobs, the oldest first."""
        with self._database.reading() as connection:
            return [name for (name,) in connection.execute("SELECT name FROM job ORDER BY id")]

    def request_stop(self, name: str) -> None:
        """Ask whoever drives the job to stop it: see `Storage`."""
        self._check_known(name)
        with (
            closing(self._database.to_write()) as connection,
            self._database.transaction(connection) as run,
        ):
            run.execute("UPDATE job SET stop_requested = 1 WHERE name = ?", (name,))

    def folder(self, name: str) -> Path:
        """Where a `gpbo.Tuner` writes the logs of the job's trials, by default."""
        return self.path.with_name(f"{self.path.name}-trials") / name

    def is_driven(self, name: str) -> bool:
        """Whether a process drives the job now; True also if that cannot be determined."""
        lock = self._lock(name)
        try:
            if not Path(lock.lock_file).exists():  # locking would create it
                return False
            with lock.acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # in a folder where we may not write
            return _is_held(Path(lock.lock_file))

    def _lock(self, name: str) -> FileLock:
        # Any thread may drive a job that another thread opened.
        return FileLock(f"{self.path}-{name}.lock", thread_local=False)

    def _check_known(self, name: str) -> None:
        with self._database.reading() as connection:
            self._job(connection, name)

    def _job(self, connection: sqlite3.Connection, name: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = connection.execute(
            "SELECT id, spec, created_at, ended, engine FROM job WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            have = ", ".join(map(repr, self.names())) or "none"
            raise UnknownJob(f"name={name!r}: {self.path} has no job of this name; it has {have}")
        return row


def _is_held(lock: Path) -> bool:
    """Whether a process holds a lock that we may only read; True also if we cannot determine it."""
    try:
        import fcntl

        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return True
    return False


class SqliteJournal:
    """The one writer of a job in a SQLite file: see `Journal`."""

    def __init__(
        self,
        storage: SqliteStorage,
        database: Database,
        connection: sqlite3.Connection,
        name: str,
        lock: FileLock,
    ) -> None:
        self._storage = storage
        self._database = database
        self._connection = connection
        self._name = name
        self._lock = lock
        self._alone = RLock()  # closing a connection that another thread uses crashes the process
        self._file = database.identity()
        _open[os.getpid(), storage.path, name] = self
        weakref.finalize(self, _forget, connection, os.getpid())
        (self._job,) = connection.execute("SELECT id FROM job WHERE name = ?", (name,)).fetchone()

    @property
    def name(self) -> str:
        """The job's name."""
        return self._name

    @property
    def folder(self) -> Path:
        """Beside the database."""
        return self._storage.folder(self._name)

    def read(self) -> Record:
        """The job as it is at this moment."""
        return self._storage.read(self._name)

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
        """Record all of this or, if the process dies, none of it: see `Journal`."""
        if not self._lock.is_locked:
            raise StorageError(
                f"name={self._name!r}: the job was closed and can no longer be changed; continue "
                "it with Optimizer.resume"
            )
        if self._database.identity() != self._file:  # SQLite would write on to the removed file
            raise StorageError(
                f"storage={str(self._storage.path)!r}: the file was removed or replaced; "
                "nothing was written"
            )
        with self._alone, self._database.transaction(self._connection) as run:
            for trial in trials:
                run.execute(_PUT_TRIAL, {"job": self._job, **_trial_row(trial)})
            for attempt in attempts:
                run.execute(_PUT_ATTEMPT, (self._job, *_attempt_row(attempt)))
            for metric in metrics:
                run.execute(_PUT_METRIC, (self._job, *astuple(metric)))
            for fit in fits:
                run.execute(_PUT_FIT, (self._job, fit.size, fit.at, json.dumps(fit.report)))
            if queue is not None:
                run.execute("DELETE FROM queue WHERE job = ?", (self._job,))
                run.executemany(
                    "INSERT INTO queue VALUES (?, ?, ?)",
                    [(self._job, place, json.dumps(params)) for place, params in enumerate(queue)],
                )
            if engine is not None:
                run.execute("UPDATE job SET engine = ? WHERE id = ?", (engine or None, self._job))
            if spec is not None:
                run.execute("UPDATE job SET spec = ? WHERE id = ?", (json.dumps(spec), self._job))
            if ended is not None:
                run.execute("UPDATE job SET ended = ? WHERE id = ?", (ended or None, self._job))
            if ended:  # which settles the request
                run.execute("UPDATE job SET stop_requested = 0 WHERE id = ?", (self._job,))

    def stop_requested(self) -> bool:
        """Whether someone asked the job to stop since its journal was opened."""
        query = "SELECT EXISTS (SELECT 1 FROM job WHERE id = ? AND stop_requested)"
        with self._alone, self._database.errors_named():
            (wanted,) = self._connection.execute(query, (self._job,)).fetchone()
        return bool(wanted)

    def close(self) -> None:
        """Release the job, so that another process may drive it."""
        with self._alone:
            self._connection.close()
            self._lock.release()


#: The open journals by process, file and job: a forked child sees its parent's, and has none.
_open: weakref.WeakValueDictionary[tuple[int, Path, str], SqliteJournal]
_open = weakref.WeakValueDictionary()


def _forget(connection: sqlite3.Connection, process: int) -> None:
    """Close a connection that nobody closed, but not in a forked child."""
    if os.getpid() == process:
        connection.close()


_PUT_TRIAL = """
INSERT INTO trial VALUES (
    :job, :number, :params, :status, :value, :reason, :origin, :asked_at, :finished_at,
    CASE WHEN :pending THEN NULL
    ELSE (SELECT COALESCE(MAX(place), -1) + 1 FROM trial WHERE job = :job) END, :measured)
ON CONFLICT (job, number) DO UPDATE SET
    params = excluded.params, status = excluded.status, value = excluded.value,
    reason = excluded.reason, origin = excluded.origin, asked_at = excluded.asked_at,
    finished_at = excluded.finished_at, measured = excluded.measured,
    place = CASE WHEN :pending THEN NULL ELSE COALESCE(place, excluded.place) END
"""
_PUT_ATTEMPT = "INSERT OR REPLACE INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_METRIC = "INSERT OR REPLACE INTO metric VALUES (?, ?, ?, ?, ?)"
_PUT_FIT = "INSERT OR REPLACE INTO fit VALUES (?, ?, ?, ?)"


def resolve_storage(storage: object) -> Storage:
    """The storage at a path; a storage is returned as it is.

    Raises:
        InvalidOption: neither a path nor a storage.
        StorageError: the file cannot be used.
    """
    if isinstance(storage, str | Path):
        return SqliteStorage(storage)
    if isinstance(storage, Storage):
        return storage
    raise InvalidOption(f"storage={storage!r}: expected the path of a file, or a storage")


def _trial_row(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.id,
        "params": json.dumps(trial.params),
        "status": str(trial.status),
        "value": trial.value,
        "reason": trial.reason,
        "origin": trial.origin,
        "asked_at": trial.asked_at,
        "finished_at": trial.finished_at,
        "measured": json.dumps(trial.measured),
        "pending": trial.status is TrialStatus.PENDING,
    }


def _trial(row: Sequence[Any], constraints: Sequence[Constraint]) -> Trial:
    number, params, status, value, reason, origin, asked_at, finished_at, told = row
    measured = json.loads(told)
    return Trial(
        number,
        json.loads(params),
        TrialStatus(status),
        value,
        reason,
        origin,
        asked_at,
        finished_at,
        measured,
        violated(constraints, measured) if measured else (),
    )


def _attempt_row(attempt: Attempt) -> tuple[Any, ...]:
    *row, measured = astuple(attempt)
    return *row, json.dumps(measured)

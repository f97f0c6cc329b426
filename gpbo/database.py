"""The SQLite file of a storage: its schema, how it is opened, and its errors."""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import psutil

from gpbo.errors import StorageError

logger = logging.getLogger("gpbo")

#: Milliseconds that a reader or writer waits for another.
_PATIENCE_MS = 30_000
#: File systems over a network, where the shared memory that a write-ahead log needs does not exist.
_NETWORK = re.compile(
    r"(nfs\d*|cifs|smb\w*|9p|af[ps]\w*|ncpfs|lustre|beegfs|ceph|gpfs|pvfs2|glusterfs|webdav"
    r"|fuse\.(sshfs|glusterfs|ceph|s3fs|gcsfuse|rclone|juicefs|moosefs))"
)

#: ``MIGRATIONS[v]`` takes a file from schema version ``v`` to ``v + 1``.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE job (
            id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, spec TEXT NOT NULL,
            created_at REAL NOT NULL, ended TEXT, stop_requested INTEGER NOT NULL DEFAULT 0,
            engine BLOB)""",
        """CREATE TABLE trial (
            job INTEGER NOT NULL REFERENCES job, number INTEGER NOT NULL, params TEXT NOT NULL,
            status TEXT NOT NULL, value REAL, reason TEXT, origin TEXT NOT NULL, asked_at REAL,
            finished_at REAL, place INTEGER, PRIMARY KEY (job, number)) WITHOUT ROWID""",
        "CREATE UNIQUE INDEX trial_place ON trial (job, place)",
        """CREATE TABLE queue (
            job INTEGER NOT NULL REFERENCES job, place INTEGER NOT NULL, params TEXT NOT NULL,
            PRIMARY KEY (job, place)) WITHOUT ROWID""",
        """CREATE TABLE attempt (
            job INTEGER NOT NULL REFERENCES job, trial INTEGER NOT NULL, number INTEGER NOT NULL,
            worker INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL, value REAL,
            reason TEXT, late INTEGER NOT NULL, PRIMARY KEY (job, trial, number)) WITHOUT ROWID""",
        """CREATE TABLE metric (
            job INTEGER NOT NULL REFERENCES job, trial INTEGER NOT NULL, attempt INTEGER NOT NULL,
            step INTEGER NOT NULL, value REAL, PRIMARY KEY (job, trial, attempt, step))
            WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE fit (
            job INTEGER NOT NULL REFERENCES job, size INTEGER NOT NULL, at REAL NOT NULL,
            report TEXT NOT NULL, PRIMARY KEY (job, size)) WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE trial ADD COLUMN measured TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE attempt ADD COLUMN measured TEXT NOT NULL DEFAULT '{}'",
    ),
)

#: The tables that a database of any version of gpbo has.
_TABLES = {"job", "trial", "queue", "attempt", "metric"}


class Database:
    """A file that the first connection for writing creates; reading it changes nothing.

    It has a write-ahead log, or a rollback journal on a network file system, where SQLite's log
    would not be safe.

    Raises:
        StorageError: not the path of a file in an existing folder, the system denies access to it,
            or not a database that this version of gpbo can read.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | os.PathLike):
            raise StorageError(f"storage={path!r}: expected the path of a file")
        try:
            # Absolute, as the working directory may change; and a link means the same job and lock.
            self.path: Path = Path(path).resolve()
            is_folder, has_folder = self.path.is_dir(), self.path.parent.is_dir()
        except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, ...
            raise StorageError(
                f"storage={str(path)!r}: expected the path of a file: {error}"
            ) from error
        for is_so, expected in (
            (str(path) == ":memory:", "the path of a file, as data in memory would be lost"),
            ("://" in str(path), "the path of a file, not a URL"),
            (is_folder, "the path of a file, not of a folder"),
            (not has_folder, "the path of a file in an existing folder"),
            # A network path on Windows: a log would not be safe, and SQLite takes no such URI.
            (not self.path.as_uri().startswith("file:///"), "a path on a disk of this machine"),
        ):
            if is_so:
                raise StorageError(f"storage={str(path)!r}: expected {expected}")
        self._to_read().close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The file as it is at this moment."""
        with closing(self._to_read()) as connection, self.transaction(connection, "DEFERRED"):
            yield connection

    def identity(self) -> tuple[int, int] | None:
        """The identity of the file, whatever its name; None if it cannot be found."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def to_write(self) -> sqlite3.Connection:
        """A connection to the file, which is created if missing and migrated to this version."""
        connection = self._connect(create=True)
        with self.errors_named(), _closed_if_it_fails(connection):
            self._version(connection)
            self._set_journal_mode(connection)
            with self.transaction(connection):
                _migrate(connection, self._version(connection))
        return connection

    @contextmanager
    def transaction(
        self, connection: sqlite3.Connection, kind: Literal["DEFERRED", "IMMEDIATE"] = "IMMEDIATE"
    ) -> Iterator[sqlite3.Connection]:
        """A transaction: all of the block is written, or nothing.

        Raises:
            StorageError: the disk is full, another process holds the database for too long, or the
                file is damaged.
        """
        with self.errors_named("; nothing was written" if kind == "IMMEDIATE" else ""):
            try:
                connection.execute(f"BEGIN {kind}")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def errors_named(self, more: str = "") -> Iterator[None]:
        """Turn SQLite's errors into ones that name the file.

        Raises:
            IntegrityError: SQLite's own, unchanged; the caller knows better which name was taken.
            StorageError: whatever else went wrong.
        """
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise StorageError(f"storage={str(self.path)!r}: {error}{more}") from error

    def _to_read(self) -> sqlite3.Connection:
        """A connection to the file; if it is missing, empty or old, a migrated copy in memory."""
        connection = self._connect() if self.path.exists() else sqlite3.connect(":memory:")
        with self.errors_named(), _closed_if_it_fails(connection):
            version = self._version(connection)
            if version == len(MIGRATIONS):
                return connection
            copy = sqlite3.connect(":memory:", isolation_level=None)
            with _closed_if_it_fails(copy):
                connection.backup(copy)
                _migrate(copy, version)
        connection.close()
        return copy

    def _connect(self, *, create: bool = False) -> sqlite3.Connection:
        mode = "rwc" if create else "rw"
        if not (os.access(self.path.parent, os.W_OK) or self._log.exists()):
            # SQLite would create a log to share with writers, but there are none.
            mode = "ro&immutable=1"
        with self.errors_named():
            # A journal may be handed from thread to thread; SQLite itself serialises.
            connection = sqlite3.connect(
                f"{self.path.as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            with _closed_if_it_fails(connection):
                connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
        return connection

    @property
    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    def _version(self, connection: sqlite3.Connection) -> int:
        """The version of the schema; 0 for an empty file.

        Raises:
            StorageError: not a database of gpbo, or one of a newer version.
        """
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in rows}
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"storage={str(self.path)!r}: expected a database of gpbo: {error}"
            ) from error
        if (version, tables) != (0, set()) and not tables >= _TABLES:
            raise StorageError(
                f"storage={str(self.path)!r}: expected a database of gpbo, but another program "
                f"wrote this one; its tables: {', '.join(sorted(tables)[:5]) or 'none'}"
            )
        if version > len(MIGRATIONS):
            raise StorageError(
                f"storage={str(self.path)!r} was written by a newer gpbo, with schema version "
                f"{version}: expected at most {len(MIGRATIONS)}; upgrade gpbo to open it"
            )
        return int(version)

    def _set_journal_mode(self, connection: sqlite3.Connection) -> None:
        wanted = "DELETE" if is_on_network(self.path) else "WAL"
        (mode,) = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
        if mode.upper() != "WAL":
            logger.warning(
                "storage %s: SQLite's write-ahead log cannot be used here (a network file "
                "system?); using a rollback journal, which is slower",
                self.path,
            )


@contextmanager
def _closed_if_it_fails(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def is_on_network(path: Path) -> bool:
    """Whether the path is known to lie on a file system that other machines share."""
    place = path.resolve()
    try:
        disks = psutil.disk_partitions(all=True)
    except OSError:  # there is no /proc, or we may not read it
        return False
    mounts = {Path(disk.mountpoint): disk.fstype for disk in disks}
    mounted = next((folder for folder in (place, *place.parents) if folder in mounts), None)
    return mounted is not None and _NETWORK.fullmatch(mounts[mounted].lower()) is not None


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    for statement in (s for step in MIGRATIONS[version:] for s in step):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

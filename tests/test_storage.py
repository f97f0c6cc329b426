"""Storage: what is written is there after any end of the process, and nobody else writes it."""

import gc
import inspect
import logging
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from enum import IntEnum, StrEnum
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from gpbo import database
from gpbo.database import MIGRATIONS, Database, is_on_network
from gpbo.errors import InvalidOption, JobInUse, SpaceError, StorageError, UnknownJob
from gpbo.optimizer import Optimizer
from gpbo.record import Attempt, FitSummary, Metric
from gpbo.space import Categorical, Integer, Ordinal, Real, Space
from gpbo.spec import read_space, write_space
from gpbo.storage import SqliteStorage, resolve_storage
from gpbo.trial import Trial

LINE = Space(Real("x", 0, 1))
SPEC = {"space": {}, "note": "ä", "limits": [0.1, None, math.inf]}


@pytest.fixture
def store(tmp_path: Path) -> SqliteStorage:
    return SqliteStorage(tmp_path / "runs.db")


def test_a_new_job_is_empty_and_keeps_its_specification(store: SqliteStorage) -> None:
    store.create("first", SPEC).close()
    record = store.read("first")
    assert record.spec == SPEC
    assert (record.trials, record.finished, record.queue, record.attempts) == ((), (), (), ())
    assert (record.engine, record.ended) == (None, None)
    assert store.names() == ["first"]


def test_all_that_is_written_is_read_again(store: SqliteStorage) -> None:
    journal = store.create("job", SPEC)
    done = Trial(0, {"x": 0.1 + 0.2, "kind": None}, origin="design", asked_at=1.5)
    failed = Trial(1, {"x": 1e-300, "kind": True}, origin="added")
    waiting = Trial(2, {"x": -0.0, "kind": "ß\n"})
    journal.write(trials=[done, failed, waiting], queue=[{"x": 3}, {"x": 2}], engine=b"\0warm")
    journal.write(trials=[failed.failed("crashed", 2.5)], ended="budget")
    journal.write(trials=[done.completed(-1e300, 3.5)])
    attempts = (Attempt(0, 1, 4, 1.0, 2.0, reason="killed"), Attempt(0, 2, 4, 2.0, late=True))
    metrics = [Metric(0, 2, step, value) for step, value in enumerate((0.5, math.inf, math.nan))]
    fits = (FitSummary(2, 9.0, {"rhat": 1.25}), FitSummary(3, 10.0, {"rhat": None}))
    journal.write(attempts=attempts, metrics=metrics, fits=[fits[0], replace(fits[1], at=0.0)])
    journal.write(fits=[fits[1]])
    record = store.read("job")
    assert record.trials == (
        done.completed(-1e300, 3.5),
        failed.failed("crashed", 2.5),
        waiting,
    )
    assert record.finished == (1, 0)
    assert record.queue == ({"x": 3}, {"x": 2})
    assert (record.engine, record.ended) == (b"\0warm", "budget")
    assert record.attempts == attempts
    assert record.fits == fits
    assert record.metrics[:2] == tuple(metrics[:2])
    assert math.isnan(record.metrics[2].value)


def test_the_latest_that_each_attempt_reported_is_read_alone(store: SqliteStorage) -> None:
    journal, other = store.create("job", SPEC), store.create("other", SPEC)
    reported = [((0, 1), (3, 7, 5)), ((0, 2), (2,)), ((4, 1), (0, 1))]
    metrics = [Metric(*of, step, 10.0 * step) for of, steps in reported for step in steps]
    journal.write(metrics=metrics)
    other.write(metrics=[Metric(0, 1, 11, 0.0)])
    whole, latest = store.read("job"), store.read("job", latest=True)
    assert len(whole.metrics) == 6
    assert latest.metrics == (Metric(0, 1, 7, 70.0), Metric(0, 2, 2, 20.0), Metric(4, 1, 1, 10.0))
    assert replace(latest, metrics=whole.metrics) == whole


def test_a_job_was_last_heard_of_when_the_latest_of_all_that_has_a_time_was(
    store: SqliteStorage,
) -> None:
    journal = store.create("job", SPEC)
    assert store.read("job").last_heard_at == store.read("job").created_at
    later: list[dict[str, Any]] = [
        {"trials": [Trial(0, {"x": 0}, asked_at=1e10)]},
        {"attempts": [Attempt(0, 1, 0, 2e10)]},
        {"fits": [FitSummary(1, 3e10, {})]},
        {"attempts": [Attempt(0, 1, 0, 2e10, 4e10)]},
        {"trials": [Trial(0, {"x": 0}, asked_at=1e10).completed(1.0, 5e10)]},
    ]
    for number, written in enumerate(later, 1):
        journal.write(**written)
        assert store.read("job").last_heard_at == number * 1e10


def test_writing_the_same_again_changes_nothing(store: SqliteStorage) -> None:
    journal = store.create("job", SPEC)
    first, second = (Trial(number, {"x": number}).completed(1.0, None) for number in (0, 1))
    for _ in range(2):
        journal.write(trials=[first], attempts=[Attempt(0, 1, 0, 1.0, 2.0, 1.0)])
        journal.write(trials=[second])
    journal.write(trials=[first])  # whose place stays the first one
    record = store.read("job")
    assert record.trials == (first, second)
    assert record.finished == (0, 1)
    assert len(record.attempts) == 1


def test_a_write_that_fails_leaves_nothing_of_it(store: SqliteStorage) -> None:
    journal = store.create("job", SPEC)
    journal.write(trials=[Trial(0, {"x": 0})], queue=[{"x": 1}])
    before = store.read("job")
    with pytest.raises(TypeError):
        journal.write(trials=[Trial(1, {"x": 1}), Trial(2, {"x": object()})], queue=[])
    assert store.read("job") == before
    journal.write(trials=[Trial(1, {"x": 1})])
    assert len(store.read("job").trials) == 2


def test_a_writer_waits_for_another_one(store: SqliteStorage) -> None:
    journal = store.create("job", SPEC)
    with closing(
        sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        ends = threading.Timer(0.2, other.rollback)
        ends.start()
        try:
            journal.write(trials=[Trial(0, {"x": 0})])
        finally:
            ends.join()
    assert len(store.read("job").trials) == 1


def test_a_record_is_of_one_moment_whatever_is_written_meanwhile(
    store: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = store.create("job", SPEC)
    journal.write(queue=[{"x": 1}])

    class Meddled(sqlite3.Connection):
        def execute(self, query: str, *parameters: Any) -> sqlite3.Cursor:
            if "FROM queue" in query:  # the trials have been read
                journal.write(trials=[Trial(0, {"x": 1})], queue=[])
            return super().execute(query, *parameters)

    monkeypatch.setattr(sqlite3, "connect", Meddled)
    record = store.read("job")
    assert (record.trials, record.queue) == ((), ({"x": 1},))
    monkeypatch.undo()
    assert (len(store.read("job").trials), store.read("job").queue) == (1, ())


def test_jobs_of_one_file_do_not_see_each_other(store: SqliteStorage) -> None:
    one, other = store.create("one", SPEC), store.create("other", {"space": {"y": 1}})
    one.write(trials=[Trial(0, {"x": 0}).completed(1.0, None)], queue=[{"x": 5}])
    other.write(trials=[Trial(0, {"y": 0}).failed("no", None)], metrics=[Metric(0, 1, 2, 3.0)])
    assert [record.trials[0].params for record in map(store.read, store.names())] == [
        {"x": 0},
        {"y": 0},
    ]
    assert len(store.read("other").queue) == len(store.read("one").metrics) == 0


def test_a_stop_is_seen_by_the_driver_and_forgotten_by_the_next(store: SqliteStorage) -> None:
    journal = store.create("job", SPEC)
    assert not journal.stop_requested()
    SqliteStorage(store.path).request_stop("job")
    assert journal.stop_requested()
    journal.close()
    assert not store.open("job").stop_requested()


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a" * 101, "-x", "a b", "ä", 3])
def test_names_that_cannot_name_a_file_are_refused(store: SqliteStorage, name: Any) -> None:
    with pytest.raises(InvalidOption, match="name="):
        inspect.unwrap(SqliteStorage.create)(store, name, SPEC)


def test_mistakes_say_what_there_is(store: SqliteStorage, tmp_path: Path) -> None:
    store.create("mine", SPEC).close()
    with pytest.raises(StorageError, match="already has a job of this name"):
        store.create("mine", SPEC)
    for action in (store.open, store.read, store.request_stop):
        with pytest.raises(UnknownJob, match="it has 'mine'"):
            action("yours")
    with pytest.raises(StorageError, match="in an existing folder"):
        SqliteStorage(tmp_path / "none" / "runs.db")
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(StorageError, match="not a database"):
        SqliteStorage(tmp_path / "text.db")
    with pytest.raises(StorageError, match="':memory:': expected the path of a file"):
        SqliteStorage(":memory:")
    with pytest.raises(InvalidOption, match="storage=7"):
        resolve_storage(7)
    assert resolve_storage(store) is store


def test_a_path_that_the_system_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has too long a name, leads in circles, is no name, or may not be looked at."""
    (tmp_path / "circle").symlink_to("circle")
    for name in ("a" * 300, "circle/runs.db", "a\0b"):
        with pytest.raises(StorageError, match=r"storage='.*': "):
            Optimizer(LINE, "random", storage=tmp_path / name, name="x")

    def refused(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(StorageError, match=r"runs.db': expected the path of a file: .* denied"):
        SqliteStorage(tmp_path / "runs.db")


def test_whether_a_job_is_driven_is_found_out_and_no_file_is_made(store: SqliteStorage) -> None:
    store.create("job", SPEC).close()
    Path(store._lock("job").lock_file).unlink(missing_ok=True)
    before = {*store.path.parent.iterdir()}
    for name in ("job", "none", "a/b"):
        assert not store.is_driven(name)
    assert {*store.path.parent.iterdir()} == before


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_database_of_something_else_is_refused_and_left_alone(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE person (name TEXT)")
    before = path.read_bytes()
    for action in (SqliteStorage, lambda path: Optimizer(LINE, storage=path, name="job")):
        with pytest.raises(
            StorageError, match="another program wrote this one; its tables: person"
        ):
            action(path)
    assert path.read_bytes() == before


def test_what_only_reads_makes_no_file(tmp_path: Path) -> None:
    store = SqliteStorage(tmp_path / "typo.db")
    assert store.names() == []
    for action in (store.read, store.open, store.request_stop):
        with pytest.raises(UnknownJob, match="it has none"):
            action("job")
    with pytest.raises(UnknownJob):
        Optimizer.resume(tmp_path / "typo.db", "job")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    assert SqliteStorage(tmp_path / "empty.db").names() == []
    assert (tmp_path / "empty.db").stat().st_size == 0


def test_where_nothing_can_be_written_jobs_are_read_all_the_same(
    store: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("job", SPEC).close()
    opened: list[str] = []

    class Seen(sqlite3.Connection):
        def __init__(self, name: str, **options: Any) -> None:
            opened.append(name)
            super().__init__(name, **options)

    monkeypatch.setattr(sqlite3, "connect", Seen)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert SqliteStorage(store.path).read("job").spec == SPEC
    assert all(name.endswith("?mode=ro&immutable=1") for name in opened)
    with pytest.raises(StorageError, match="readonly database"):
        store.open("job")
    assert not store.is_driven("job")


def test_where_nothing_can_be_written_what_is_in_the_log_is_read_too(
    store: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = store.create("job", SPEC)
    journal.write(trials=[Trial(0, {"x": 0})])
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert len(SqliteStorage(store.path).read("job").trials) == 1


def test_a_file_of_a_newer_version_is_refused_and_left_alone(store: SqliteStorage) -> None:
    store.create("job", SPEC).close()
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match=f"version 99: expected at most {len(MIGRATIONS)}"):
        SqliteStorage(store.path)
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


def test_an_older_file_is_brought_up_to_date(
    store: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("job", SPEC).close()
    later = (*MIGRATIONS, ("ALTER TABLE job ADD COLUMN note TEXT DEFAULT 'new'",))
    monkeypatch.setattr(database, "MIGRATIONS", later)
    for _ in range(2):
        again = SqliteStorage(store.path)
        assert again.read("job").spec == SPEC
        again.open("job").close()
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("SELECT note FROM job").fetchall() == [("new",)]


def test_a_file_that_cannot_be_brought_up_to_date_stays_as_it_was(
    store: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("job", SPEC).close()
    steps = "ALTER TABLE job ADD COLUMN note TEXT", "ALTER TABLE lost ADD COLUMN note TEXT"
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, steps))
    with pytest.raises(StorageError, match="no such table: lost"):
        store.create("other", SPEC)
    monkeypatch.undo()
    store.open("job").close()
    with closing(sqlite3.connect(store.path)) as connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(job)")]
    assert "note" not in columns


def test_a_file_of_the_first_version_is_opened_and_its_job_goes_on(tmp_path: Path) -> None:
    """The text of a file that version 1 wrote: nothing of it is lost, and a second job fits in."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "storage_version_1.sql").read_text())
    before = path.read_bytes()
    record = SqliteStorage(path).read("old")
    assert path.read_bytes() == before
    assert [t.value for t in record.trials] == [0.0, None, 0.5, 0.75, 1.0, None]
    assert [str(t.status) for t in record.trials][1::4] == ["failed", "pending"]
    assert record.finished == (0, 1, 2, 3, 4)
    assert record.attempts[1] == Attempt(1, 1, 0, 11.0, 12.0, reason="crashed")
    assert record.metrics[4] == Metric(4, 1, 0, 1.5)
    assert (record.fits, record.ended) == ((), "interrupted")
    optimizer = Optimizer.resume(path, "old")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert [trial.id for trial in optimizer.pending] == [5]
    assert optimizer.fitted_size == 4
    enqueued, chosen = optimizer.ask(2)
    assert (enqueued.params, enqueued.origin) == ({"rate": 0.5, "kind": "b"}, "enqueued")
    assert chosen.origin == "model:ei"
    optimizer.tell(chosen, 0.125)
    optimizer.ask()
    optimizer.close()
    assert [fit.size for fit in SqliteStorage(path).read("old").fits] == [5]


def test_a_name_that_is_taken_leaves_the_job_to_its_driver(store: SqliteStorage) -> None:
    journal = store.create("job", SPEC)
    with pytest.raises(JobInUse):
        store.create("job", SPEC)
    journal.close()


def test_a_mode_that_a_file_system_refuses_falls_back_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file system that is not known to be a network's, and cannot do it all the same."""

    class Refusing(sqlite3.Connection):
        def execute(self, query: str, *parameters: Any) -> sqlite3.Cursor:
            return super().execute(query.replace("= WAL", "= TRUNCATE"), *parameters)

    monkeypatch.setattr(sqlite3, "connect", Refusing)
    with caplog.at_level(logging.WARNING, "gpbo"):
        store = SqliteStorage(tmp_path / "runs.db")
        journal = store.create("job", SPEC)
    assert "write-ahead log cannot be used here" in caplog.text
    journal.write(trials=[Trial(0, {"x": 0})])
    assert len(store.read("job").trials) == 1


def test_the_log_is_written_ahead_and_to_the_disk(store: SqliteStorage) -> None:
    journal = store.create("job", SPEC)
    connection = journal._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_network_file_system_gets_a_rollback_journal_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Mount:
        def __init__(self, mountpoint: Path, fstype: str) -> None:
            self.mountpoint, self.fstype = str(mountpoint), fstype

    mounts = [Mount(Path("/"), "ext4"), Mount(tmp_path, "nfs4"), Mount(tmp_path / "local", "xfs")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    assert is_on_network(tmp_path / "deep" / "runs.db")
    assert not is_on_network(tmp_path / "local" / "runs.db")
    assert not is_on_network(Path("/runs.db"))
    with caplog.at_level(logging.WARNING, "gpbo"):
        store = SqliteStorage(tmp_path / "runs.db")
        journal = store.create("job", SPEC)
    assert "network file system" in caplog.text
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    journal.write(trials=[Trial(0, {"x": 0})])
    assert len(store.read("job").trials) == 1


def test_a_network_drive_of_windows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its letter is: `resolve` gives it this path."""
    resolved = PureWindowsPath(r"\\server\share\runs.db")
    monkeypatch.setattr(Path, "as_uri", lambda self: resolved.as_uri())
    with pytest.raises(StorageError, match=r"runs.db': expected a path on a disk of this machine"):
        SqliteStorage(tmp_path / "runs.db")


def test_where_nobody_tells_what_is_mounted_the_log_is_written_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_partitions(all: bool) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/proc/self/mounts")

    monkeypatch.setattr(psutil, "disk_partitions", disk_partitions)
    journal = SqliteStorage(tmp_path / "runs.db").create("job", SPEC)
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("kind", ["afpfs", "smbfs", "nfs", "webdav"])
def test_file_systems_over_a_network_are_known_on_macos_too(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [SimpleNamespace(mountpoint=str(tmp_path), fstype=kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    assert is_on_network(tmp_path / "runs.db")


def test_a_job_has_one_driver_and_the_death_of_it_frees_the_job(store: SqliteStorage) -> None:
    script = f"""
import time
from gpbo.storage import SqliteStorage
journal = SqliteStorage({str(store.path)!r}).create("job", {{}})
print("mine", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"mine\n"
        with pytest.raises(JobInUse, match="name='job'"):
            store.open("job")
        assert store.is_driven("job")
        assert store.read("job").trials == ()
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert not store.is_driven("job")
    store.open("job").close()


def test_two_jobs_differ_in_more_than_case_as_their_files_may_have_to(
    store: SqliteStorage,
) -> None:
    store.create("Run", SPEC).close()
    with pytest.raises(StorageError, match=r"name='run': .* already has a job 'Run', whose files"):
        store.create("run", SPEC)
    store.create("runs", SPEC).close()
    assert store.names() == ["Run", "runs"]


def test_of_the_drivers_of_a_process_the_newest_has_the_job(store: SqliteStorage) -> None:
    """As in a notebook, whose cells are run again."""
    older = store.create("job", SPEC)
    newer = store.open("job")
    for late in (older.stop_requested, older.write):
        with pytest.raises(StorageError, match="closed"):
            late()
    older.close()
    assert store.is_driven("job")
    newer.write(trials=[Trial(0, {"x": 0})])
    newer.close()
    assert not store.is_driven("job")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_child_that_was_forked_does_not_take_its_parent_s_job_over(store: SqliteStorage) -> None:
    script = f"""
import os
from gpbo.errors import JobInUse
from gpbo.storage import SqliteStorage
store = SqliteStorage({str(store.path)!r})
journal = store.create("job", {{}})
if os.fork() == 0:
    try:
        store.open("job")
    except JobInUse:
        journal.stop_requested()  # an error if it was closed here
        os._exit(7)
print(os.waitstatus_to_exitcode(os.wait()[1]), store.is_driven("job"))
"""
    run = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    assert run.stdout == b"7 True\n"


def test_a_job_has_one_driver_by_whatever_link_its_file_is_reached(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to("runs.db")
    (tmp_path / "here").symlink_to(tmp_path)
    paths = [tmp_path / "runs.db", tmp_path / "link.db", tmp_path / "here" / "runs.db"]
    journal = SqliteStorage(paths[1]).create("job", SPEC)
    for store in map(SqliteStorage, paths):
        assert store.is_driven("job")
        assert store.folder("job") == paths[0].resolve().with_name("runs.db-trials") / "job"
        older, journal = journal, store.open("job")
        with pytest.raises(StorageError, match="closed"):
            older.write()
    journal.close()


def test_a_lock_that_a_fork_of_a_killed_driver_holds_for_a_moment_is_waited_for(
    store: SqliteStorage,
) -> None:
    store.create("job", {}).close()
    inherited = FileLock(f"{store.path}-job.lock", thread_local=False)
    inherited.acquire()
    threading.Timer(0.2, inherited.release).start()
    store.open("job").close()


# --- spaces as plain values

LISTED = st.one_of(
    st.text(max_size=3), st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()
)


@given(st.lists(LISTED, min_size=1, max_size=5), st.booleans())
def test_a_space_is_read_as_it_was_written(listed: list[Any], ordered: bool) -> None:
    import json

    kind = Ordinal if ordered else Categorical
    try:
        parameter = kind("listed", listed)
    except SpaceError:
        return
    space = Space(parameter, Real("rate", 0.1, 0.7, "reverse_log"), Integer("depth", 1, 9, "log"))
    again = read_space(json.loads(json.dumps(write_space(space))))
    assert again == space
    assert repr(again) == repr(space)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"x": {}}, "x: type=None: expected one of real, integer"),
        ({"x": {"type": "float"}}, "x: type='float'"),
        ({"x": {"type": []}}, r"x: type=\[\]"),
        ({"x": {"type": "real", "low": 0}}, "x: missing high"),
        ({"x": 5}, "x=5: expected a table"),
        (
            {"x": {"type": "real", "low": 0, "hi": 1}},
            "x: unknown 'hi': expected one of low, high, scale",
        ),
        ({"x": {"type": "real", "low": 2, "high": 1}}, "low < high"),
    ],
)
def test_a_wrong_specification_names_the_parameter(spec: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        read_space(spec)


def test_values_that_no_file_holds_are_refused_before_anything_is_stored(tmp_path: Path) -> None:
    space = Space(Categorical("kind", [(1, 2), "a"]))
    with pytest.raises(SpaceError, match=r"kind: choices has \(1, 2\)"):
        Optimizer(space, storage=tmp_path / "runs.db", name="job")
    assert SqliteStorage(tmp_path / "runs.db").names() == []


class Activation(StrEnum):
    RELU = "relu"


class Depth(IntEnum):
    ONE = 1


@pytest.mark.parametrize("member", [Activation.RELU, Depth.ONE])
def test_members_of_enumerations_would_come_back_as_others_and_are_refused(member: Any) -> None:
    with pytest.raises(
        SpaceError, match=r"kind: choices has <.*>, which cannot be stored: expected strings"
    ):
        write_space(Space(Categorical("kind", (member, "none"))))


def test_a_parameter_of_ones_own_type_is_refused() -> None:
    class Percent(Real):
        pass

    with pytest.raises(SpaceError, match="expected a parameter of type real, integer"):
        write_space(Space(Percent("share", 0.0, 100.0)))


def test_a_closed_job_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    optimizer = Optimizer(Space(Real("x", 0, 1)), "random", storage=tmp_path / "a.db", name="job")
    trial = optimizer.ask()
    optimizer.close()
    for call in (optimizer.ask, lambda: optimizer.tell(trial, 1.0)):
        with pytest.raises(StorageError, match=r"name='job': the job was closed.*resume"):
            call()
    assert optimizer.pending == [trial]


class Interrupted(sqlite3.Connection):
    """Ctrl-C comes when a transaction has begun."""

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        cursor = super().execute(sql, *args)
        if sql.startswith("BEGIN"):
            raise KeyboardInterrupt
        return cursor


def test_a_transaction_that_was_interrupted_as_it_began_is_none(tmp_path: Path) -> None:
    with closing(
        sqlite3.connect(tmp_path / "a.db", isolation_level=None, factory=Interrupted)
    ) as c:
        for _ in range(2):
            with (
                pytest.raises(KeyboardInterrupt),
                Database(tmp_path / "a.db").transaction(c),
            ):
                pass
            assert not c.in_transaction


def test_a_full_disk_is_told_and_what_was_not_written_may_be_told_again(tmp_path: Path) -> None:
    optimizer = Optimizer(LINE, "random", storage=tmp_path / "runs.db", name="job")
    trial = optimizer.ask()
    connection = optimizer.journal._connection  # type: ignore[union-attr]
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match=r"runs\.db': database or disk is full; nothing was"):
        optimizer.learn([({"x": 0.5}, float(number)) for number in range(2000)])
    assert len(optimizer.trials) == 1
    connection.execute(f"PRAGMA max_page_count = {pages + 100}")
    assert optimizer.tell(trial, 0.25).value == 0.25


def test_a_damaged_file_is_told_by_whatever_meets_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    journal = SqliteStorage(path).create("job", {})
    journal.write(trials=[Trial(number, {"x": 0.5}) for number in range(500)])
    connection = journal._connection
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    query = "SELECT rootpage FROM sqlite_master WHERE name = 'trial'"
    (root,) = connection.execute(query).fetchone()
    journal.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * page_size)
        file.write(bytes(range(1, 101)))
    again = SqliteStorage(path).open("job")
    later = [Trial(500, {"x": 0.5})]
    for call, end in ((again.read, "$"), (lambda: again.write(trials=later), "; nothing was")):
        with pytest.raises(StorageError, match=rf"runs\.db': database disk image .*{end}"):
            call()
    again.close()
    with pytest.raises(StorageError, match=r"runs\.db': .* closed"):
        again.stop_requested()


@pytest.mark.skipif(sys.platform == "win32", reason="keeps files that are open")
@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_was_removed_or_replaced_is_told(replaced: bool, tmp_path: Path) -> None:
    """SQLite would write on where nobody finds it, and say nothing."""
    optimizer = Optimizer(LINE, "random", storage=tmp_path / "runs.db", name="job")
    trial = optimizer.ask()
    path = tmp_path / "runs.db"
    if replaced:
        shutil.copy(path, tmp_path / "copy.db")
        (tmp_path / "copy.db").replace(path)
    else:
        path.unlink()
    with pytest.raises(StorageError, match=r"runs\.db': .* removed or replaced; nothing was wr"):
        optimizer.tell(trial, 0.5)
    assert optimizer.pending == [trial]


def test_to_a_job_that_was_deleted_nothing_is_added(tmp_path: Path) -> None:
    optimizer = Optimizer(LINE, "random", storage=tmp_path / "runs.db", name="job")
    with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as other:
        other.execute("DELETE FROM job")
    assert optimizer.journal is not None
    assert not optimizer.journal.stop_requested()
    with pytest.raises(UnknownJob, match="it has none"):
        optimizer.ask()


def test_whatever_else_is_done_to_a_file_it_is_written_on(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to("runs.db")
    journal = SqliteStorage(tmp_path / "link.db").create("job", SPEC)
    (tmp_path / "link.db").unlink()
    for number, statement in enumerate(["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"]):
        with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None)) as other:
            other.execute(statement)
        journal.write(trials=[Trial(number, {"x": 0.5})])
    assert len(journal.read().trials) == 2


def test_a_job_is_not_closed_while_another_thread_writes(store: SqliteStorage) -> None:
    journal = store.create("job", SPEC)
    closer = threading.Thread(target=journal.close)

    def told() -> Iterator[Trial]:
        closer.start()
        closer.join(0.5)
        yield Trial(0, {"x": 0})

    journal.write(trials=told())
    closer.join()
    assert len(store.read("job").trials) == 1
    with pytest.raises(StorageError, match="closed"):
        journal.stop_requested()


def test_what_nobody_closed_is_closed_when_it_goes(tmp_path: Path) -> None:
    journal = SqliteStorage(tmp_path / "runs.db").create("job", {})
    connection = journal._connection
    del journal
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_a_child_that_was_forked_closes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SqliteStorage(tmp_path / "runs.db").create("job", {})
    connection = journal._connection
    monkeypatch.setattr(os, "getpid", lambda: -1)
    del journal
    gc.collect()
    connection.execute("SELECT 1")
    connection.close()


@pytest.mark.skipif(sys.platform == "win32", reason="has other locks")
def test_whether_a_job_is_driven_is_found_out_where_nothing_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStorage(tmp_path / "runs.db")
    journal = store.create("job", {})

    def forbidden(self: FileLock, **options: Any) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(FileLock, "acquire", forbidden)
        assert store.is_driven("job")
    journal.close()
    lock = Path(store._lock("job").lock_file)
    for left in (True, False):
        lock.touch() if left else lock.unlink()
        with monkeypatch.context() as patched:
            patched.setattr(FileLock, "acquire", forbidden)
            assert not store.is_driven("job")

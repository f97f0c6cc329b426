"""Whatever becomes of the standard streams: results are not lost for a line that tells of them."""

import errno
import io
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

import gpbo
from gpbo.engine import Engine
from gpbo.executors import LocalWorkers
from gpbo.simulation import simulate
from gpbo.terminal import console, is_terminal
from gpbo.tuner import Execution
from gpbo.worker import NotStarted
from tests import objectives

LINE = gpbo.Space(gpbo.Real("x", 0, 1))


class Unwritable(io.StringIO):
    """A stream whose every write fails."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


class Plain:
    """What is commonly put in place of a stream."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "not there": lambda: None,
    "closed": closed,
    "only written to": Plain,
    "nobody reads": lambda: Unwritable(BrokenPipeError()),
    "full": lambda: Unwritable(OSError(errno.ENOSPC, "No space left on device")),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_runs_end_well_whatever_the_streams_are(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, STREAMS[kind]())
    result = gpbo.minimize(objectives.bowl, LINE, budget=3, strategy="sobol")
    assert len(result.trials) == 3
    assert gpbo.replicate("branin", strategy="sobol", runs=2, budget=3).stopped == "budget"
    assert simulate("branin", strategy="sobol", workers=2, budget=3).stopped == "budget"


def test_text_goes_to_the_stream_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = console()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    shown.print("größer")
    assert stream.getvalue() == "größer\n"
    assert not is_terminal(stream)


def test_in_a_notebook_text_goes_to_the_stream_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a kernel does
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    gpbo.minimize(objectives.bowl, LINE, budget=3, strategy="sobol")
    assert len(stream.getvalue().splitlines()) == 3


def _run(code: str, redirected: str) -> "subprocess.CompletedProcess[str]":
    command = ["bash", "-c", f'"$0" -c "$1" {redirected}', sys.executable, code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("closed", [">&- 2>&-", "2>&-"])
def test_a_job_runs_where_the_standard_streams_are_closed(closed: str, tmp_path: Path) -> None:
    code = f"""
import gpbo
from pathlib import Path
from tests import objectives
optimizer = gpbo.Optimizer(gpbo.Space(gpbo.Real("x", 0, 1)), "sobol")
result = gpbo.Tuner(optimizer, objectives.bowl, budget=3).run()
values = [trial.value for trial in result.trials if trial.value is not None]
Path({str(tmp_path / "told")!r}).write_text(f"{{len(values)}} {{result.stopped}}")
"""
    ended = _run(code, closed)
    assert (ended.returncode, (tmp_path / "told").read_text()) == (0, "3 budget")


def _in_a_process_without_children(told: Any) -> None:
    optimizer = gpbo.Optimizer(LINE, "sobol")
    result = gpbo.Tuner(optimizer, objectives.bowl, budget=3).run()
    told.put((result.stopped, len(result.trials), len(optimizer.pending)))


def test_a_job_whose_processes_cannot_start_ends_and_its_trials_are_pending() -> None:
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=_in_a_process_without_children, args=(told,), daemon=True)
    process.start()
    assert told.get(timeout=120) == ("broken", 0, 1)
    process.join()


def test_a_job_goes_on_once_its_processes_can_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*ignored: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    with gpbo.Optimizer(LINE, "sobol", storage=tmp_path / "runs.db", name="job") as optimizer:
        tuner = gpbo.Tuner(optimizer, objectives.bowl, budget=5, execution=Execution(workers=2))
        with monkeypatch.context() as patch:
            patch.setattr("loky.ProcessPoolExecutor.submit", refused)
            assert tuner.run().stopped == "broken"
        # A thread per worker starts its process: either may be refused first.
        refused_first = re.search(
            r"trial ([01]) was not run: no process could be started: OSError", caplog.text
        )
        assert refused_first is not None
        assert int(refused_first[1]) in [trial.id for trial in optimizer.pending]
        result = tuner.run()
    assert (result.stopped, len(result.trials)) == ("budget", 5)


def test_workers_that_cannot_start_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gpbo.worker import Task, evaluate

    def refused(*ignored: Any) -> Any:
        raise ValueError("no room")

    monkeypatch.setattr("loky.ProcessPoolExecutor.submit", refused)
    task = Task(objectives.bowl, 0, 1, {"x": 0.5}, tmp_path / "0", 0, None)
    with LocalWorkers(1) as workers:
        future = workers.submit(evaluate, task)
        with pytest.raises(NotStarted, match="no process could be started: ValueError: no room"):
            future.result()
    assert not (tmp_path / "0").exists()


def test_a_job_without_room_for_semaphores_ends_and_its_trials_are_pending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are files of a shared memory that a container may lack."""

    def refused(*ignored: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gpbo.executors.ProcessPoolExecutor", refused)
    optimizer = gpbo.Optimizer(LINE, "sobol")
    result = gpbo.Tuner(optimizer, objectives.bowl, budget=3).run()
    assert (result.stopped, result.trials, len(optimizer.pending)) == ("broken", (), 1)
    assert "no process could be started: OSError: [Errno 28] No space left" in caplog.text
    with Engine(apart=True) as engine:
        assert engine.fit(os.getpid).result() == os.getpid()


def test_a_process_that_nobody_can_wait_for_is_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit of processes, which counts threads, was reached between the two."""

    def refused(thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("loky.process_executor._ExecutorManagerThread.start", refused)
    before = psutil.Process().children()
    optimizer = gpbo.Optimizer(LINE, "sobol")
    result = gpbo.Tuner(optimizer, objectives.bowl, budget=3).run()
    assert (result.stopped, result.trials, len(optimizer.pending)) == ("broken", (), 1)
    assert "no process could be started: RuntimeError: can't start new thread" in caplog.text
    left = [child for child in psutil.Process().children() if child not in before]
    assert not any("popen_loky_posix" in " ".join(child.cmdline()) for child in left)


def test_a_job_whose_processes_die_before_any_trial_ends_and_its_trials_are_pending(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """An environment of which Python itself dies is no fault of a configuration."""
    execution = Execution(env={"PYTHONHOME": str(tmp_path)})
    optimizer = gpbo.Optimizer(LINE, "sobol")
    result = gpbo.Tuner(optimizer, objectives.bowl, budget=3, execution=execution).run()
    assert (result.stopped, result.trials, len(optimizer.pending)) == ("broken", (), 1)
    assert "no process could be started: it died at once: EXIT(1)" in caplog.text

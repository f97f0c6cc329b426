"""The runner's side of the protocol: a peer's process, its limits, and how it may end."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from gpbo.executors import ONE_THREAD

from .failure import PeerFailure

#: The most bytes of an answer, which is one line of a few numbers.
_LONGEST_ANSWER = 1 << 20
#: How many of the last lines that a peer printed, and of its traceback, a failure's text has.
_LAST_LINES = 12
#: Seconds that a process has to end when asked to.
_GRACE_S = 2.0


@dataclass(frozen=True)
class Limits:
    """Seconds after which a peer's process is killed, with all that it started.

    Attributes:
        start_s: For the imports, and whatever the peer sets up.
        ask_s: For one proposal, and for taking in one result.
        total_s: For everything but the evaluations.
        threads: How many threads a peer has.
    """

    start_s: float = 180.0
    ask_s: float = 300.0
    total_s: float = 7200.0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("start_s", "ask_s", "total_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a positive number")
        if self.threads < 1:
            raise ValueError(f"threads={self.threads!r}: expected 1 or more")


class Conversation:
    """A process that answers questions, a line each; it and its children end with the context."""

    def __init__(self, command: Sequence[str], limits: Limits) -> None:
        self._limits = limits
        self._left_s = limits.total_s
        self._buffer = b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed on exit
        # A peer's process ends without cleaning up.
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment(limits.threads) | {"TMPDIR": self._folder.name},
            start_new_session=True,  # a group of its own, to be killed as one
        )
        assert self._process.stdout is not None
        self._answers = selectors.DefaultSelector()
        self._answers.register(self._process.stdout, selectors.EVENT_READ)

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._stop()
        self._kill()
        for stream in (self._process.stdin, self._process.stdout, self._stderr, self._answers):
            if stream is not None:
                stream.close()
        self._folder.cleanup()

    def ask(self, do: str, **details: Any) -> Mapping[str, Any]:
        """The answer to a question.

        Raises:
            PeerFailure: The answer was an error, or missing, or late; the process must not be asked
                again.
        """
        limit_s = self._limits.start_s if do == "start" else self._limits.ask_s
        self._send({"do": do} | details)
        began = time.monotonic()
        line = self._line(do, min(limit_s, self._left_s), limit_s <= self._left_s)
        self._left_s -= time.monotonic() - began
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise self._failure(f"{do}: the answer {_shown(line)} is not JSON") from error
        if not isinstance(answer, dict):
            raise self._failure(f"{do}: the answer {_shown(line)} is no object")
        if "error" in answer:
            trace = _last_lines(str(answer.get("traceback", "")))
            raise PeerFailure(f"{do}: {answer['error']}\n{trace}".rstrip())
        return answer

    def _send(self, question: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure(f"{question['do']}: {self._how_it_ended()}") from error

    def _line(self, do: str, limit_s: float, of_one_step: bool) -> bytes:
        """The next line, waited for that long."""
        assert self._process.stdout is not None
        until = time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            if not self._answers.select(max(until - time.monotonic(), 0.0)):
                kind = "one step" if of_one_step else "the whole run"
                limit = limit_s if of_one_step else self._limits.total_s
                raise self._failure(f"{do}: no answer in time: the limit of {kind} is {limit:g} s")
            block = os.read(self._process.stdout.fileno(), 1 << 16)
            if not block:
                raise self._failure(f"{do}: {self._how_it_ended()}")
            self._buffer += block
            if len(self._buffer) > _LONGEST_ANSWER:
                raise self._failure(f"{do}: an endless answer, {_shown(self._buffer)}")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _failure(self, what: str) -> PeerFailure:
        """The failure, with the last lines that the peer printed."""
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - (1 << 14)))
        printed = _last_lines(self._stderr.read().decode(errors="replace"))
        return PeerFailure(f"{what}\nit printed:\n{printed}" if printed else what)

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return "the process closed its output"
        if code < 0:
            return f"the process was ended by {signal.Signals(-code).name}"
        return f"the process ended with exit code {code}"

    def _stop(self) -> None:
        """Let the process end by itself, if it does so at once."""
        try:
            self._send({"do": "stop"})
            self._process.wait(_GRACE_S)
        except (PeerFailure, subprocess.TimeoutExpired):
            return

    def _kill(self) -> None:
        """End the process and whatever it started that is still running."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def environment(threads: int) -> dict[str, str]:
    """The variables of a peer's process: its threads, and nothing of this interpreter's paths."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    pinned = dict.fromkeys(ONE_THREAD, str(threads))
    if threads == 1:
        pinned["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    # Without a fixed hash seed, iteration over sets differs from run to run.
    return kept | pinned | {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"}


def _last_lines(text: str) -> str:
    return "\n".join(text.rstrip().splitlines()[-_LAST_LINES:])


def _shown(raw: bytes) -> str:
    return repr(raw[:80].decode(errors="replace"))

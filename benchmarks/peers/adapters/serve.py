"""The peer's side of the protocol: a JSON object a line, a question in, an answer out.

Questions and their answers (every answer is ``{"error": ..., "traceback": ...}`` if that fails):

- ``start`` with ``adapter`` (file and class), ``space``, ``seed``, ``budget``, ``initial``,
  ``threads``, ``distributions`` and, if there are any, the number of ``constraints``: ``versions``.
- ``add`` with ``point``, ``value`` and, with constraints, ``excess`` (how far it is beyond each):
  nothing. A value of null is a failed evaluation.
- ``ask``, with ``count`` if there are to be several: ``points``, ``seconds`` (all since the last
  ask: results taken in included), and ``fit_s`` and ``acquisition_s``, which may be null.
- ``tell`` with ``value`` and ``excess``, for each of these points in turn: nothing.
- ``recommend``: ``point``, null if it is the best observed one.
- ``stop``: nothing, and the process ends. It also ends when its parent is gone.

What the peer prints, in Python or beneath it, goes to the standard error.
"""

import json
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, TextIO

from .base import Adapter, Task
from .space import Parameter, Point

_LOOK_S = 1.0


def main() -> None:
    """Answer questions until there are no more."""
    _die_with(os.getppid())
    questions, answers = _private_channels()
    session = Session()
    for line in questions:
        question = json.loads(line)
        try:
            answer = session.answer(question)
        except Exception as error:  # noqa: BLE001  whatever a peer raises is its answer
            what = f"{type(error).__name__}: {error}"
            answer = {"error": what, "traceback": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if question["do"] == "stop":
            break
    os._exit(0)  # a peer's threads and pools must not keep the process alive


class Session:
    """A run: the adapter, and the seconds that it has used since the last ask."""

    def __init__(self) -> None:
        self._adapter: Adapter | None = None
        self._used_s = 0.0

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What to answer.

        Raises:
            Exception: Whatever the peer raises.
        """
        do = question["do"]
        if do == "start":
            return self._start(question)
        if do == "stop":
            return {}
        adapter = self._adapter
        if adapter is None:
            raise ValueError(f"{do!r} before 'start'")
        if do in ("add", "tell"):
            adapter.excess = tuple(question.get("excess", ()))
        if do == "add":
            self._timed(lambda: adapter.add(question["point"], question["value"]))
            return {}
        if do == "tell":
            self._timed(lambda: adapter.tell(question["value"]))
            return {}
        if do == "ask":
            adapter.fit_s = adapter.acquisition_s = None
            count = question.get("count", 1)
            points = self._timed(lambda: adapter.asks(count) if count > 1 else [adapter.ask()])
            used, self._used_s = self._used_s, 0.0
            parts = {"fit_s": adapter.fit_s, "acquisition_s": adapter.acquisition_s}
            return {"points": [_plain(point) for point in points], "seconds": used, **parts}
        if do == "recommend":
            recommended = adapter.recommend()
            return {"point": None if recommended is None else _plain(recommended)}
        raise ValueError(f"do={do!r}: expected start, add, ask, tell, recommend or stop")

    def _start(self, question: Mapping[str, Any]) -> dict[str, Any]:
        task = Task(
            space=tuple(Parameter(**parameter) for parameter in question["space"]),
            seed=question["seed"],
            budget=question["budget"],
            initial=question["initial"],
            constraints=question.get("constraints", 0),
        )
        make = _load(question["adapter"])
        self._adapter = make(task)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(question["threads"])
        return {"versions": versions(question["distributions"])}

    def _timed(self, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            return work()
        finally:
            self._used_s += time.perf_counter() - began


def versions(distributions: list[str]) -> dict[str, str]:
    """Python's version and those of the distributions that are installed."""
    found = {"python": platform.python_version()}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plain(point: Point) -> dict[str, float]:
    """Python's own numbers, whatever kind of number the peer has."""
    return {name: float(value) for name, value in point.items()}


def _load(adapter: str) -> Callable[[Task], Adapter]:
    """The class of ``file.py:Class``; a file that is not absolute is one of this folder."""
    file, _, name = adapter.rpartition(":")
    path = Path(__file__).parent / file
    full_name = f"{__package__}.{path.stem}"
    spec = spec_from_file_location(full_name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"adapter={adapter!r}: expected a file of Python")
    module = sys.modules[full_name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[Task], Adapter] = getattr(module, name)
    return found


def _private_channels() -> tuple[TextIO, TextIO]:
    """The protocol's two ends, out of the peer's reach: it has no input, and prints to stderr."""
    sys.stdout.flush()
    questions = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return questions, answers


def _die_with(parent: int) -> None:
    """End this process when the one that started it is gone, even in the middle of an ask."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

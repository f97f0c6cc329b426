"""Runs a suite, unit by unit in processes of one thread; each is kept as soon as it is done.

Whatever ends the run, the same command continues with the units that are missing, and retries those
that failed, except peers that ran out of time.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from loky import ProcessPoolExecutor

from gpbo.errors import InvalidOption
from gpbo.executors import NO_LEAK_CHECK, ONE_THREAD
from gpbo.text import reason_of
from gpbo.worker import die_with

from . import paths, table
from .beside import elsewhere, place, places, runs_of
from .methods import METHODS, KandasamyMethod, find, label
from .record import machine
from .suites import Suite
from .trace import EXHAUSTED, Trace
from .units import OUT_OF_TIME, Unit, adopt_peer_traces, units

#: Called after every unit: how many are done, of how many, and which it was.
Show = Callable[[int, int, Unit, str], None]

_RESULTS, _UNITS, _PEERS = "trials.parquet", "units", "peer-traces"


@dataclass(frozen=True)
class Run:
    """A suite with the methods that are to be run, and where.

    Attributes:
        folder: Of this suite's results; peers' traces lie next to it.
        processes: How many units are measured at a time.
        peers_from: Results of an earlier run, whose traces of peers are reused.
        fresh: Whether to measure these units again, except for traces of peers. Nothing else in the
            folder is touched.
    """

    suite: Suite
    methods: tuple[str, ...]
    folder: Path
    processes: int = 1
    peers_from: Path | None = None
    fresh: bool = False

    @property
    def results(self) -> Path:
        """The file of all rows, once everything is done."""
        return self.folder / _RESULTS

    @property
    def units(self) -> list[Unit]:
        """All there is to do."""
        return list(units(self.suite, self.methods, self.folder.parent / _PEERS))

    @property
    def others(self) -> int:
        """How many units in the folder do not belong to this run."""
        own = {unit.file for unit in self.units}
        return sum(path.name not in own for path in (self.folder / _UNITS).glob("*.parquet"))

    def execute(self, show: Show) -> Path:
        """Measure the units that are missing or have failed, and write all to one file.

        A peer that ran out of time is not tried again, as that would take as long again; ``show``
        is told of it before anything is measured.

        Raises:
            InvalidOption: the folder has units of the suite from another commit or other versions.
            InvalidData: ``peers_from`` is not a file of results.
        """
        header = self._header()
        if self.peers_from is not None:
            self._adopt_peers(self.peers_from)
        every = self.units
        if self.fresh:
            for unit in every:
                self._path(unit).unlink(missing_ok=True)
        there = self._there(header)
        left = [unit for unit in every if unit not in there or _is_tried_again(there[unit])]
        done = len(every) - len(left)
        for unit, why in there.items():
            if OUT_OF_TIME.match(why):
                show(done, len(every), unit, f"not tried again: {why}")
        for unit, traces in measured(left, self.processes):
            found = table.rows(self.suite.name, unit.case, traces)
            kept = next((trace.measured for trace in traces if trace.measured), header)
            own = {**_header_of(unit, header), "measured": place(kept)}
            table.write(self._path(unit), found, own)
            done += 1
            show(done, len(every), unit, next((t.failure for t in traces if t.failure), ""))
        files = [table.read_table(self._path(unit)) for unit in every]
        measured_at = {run: own["measured"] for rows, own in files for run in runs_of(rows)}
        header["peers_from"] = elsewhere(measured_at, header)
        processes = {own["processes"] for _, own in files}
        header["processes"] = " or ".join(map(str, sorted(processes)))
        header["versions"] |= paths.versions(self.suite.name, *self.methods)
        table.write(self.results, pa.concat_tables([rows for rows, _ in files]), header)
        return self.results

    def _adopt_peers(self, results: Path) -> None:
        """Reuse the traces of peers, with a note of where they were measured."""
        rows, header = table.read_table(results)
        measured_at = places(header, runs_of(rows))
        wanted = [
            replace(trace, measured=measured_at[trace.method, trace.problem, trace.seed])
            for trace in table.traces(rows)
            if trace.method in self.methods
        ]
        adopt_peer_traces(self.suite, wanted, self.folder.parent / _PEERS)

    def _path(self, unit: Unit) -> Path:
        return self.folder / _UNITS / unit.file

    def _there(self, header: Mapping[str, Any]) -> dict[Unit, str]:
        """The units that were measured before, each with why it failed, empty if it did not.

        Raises:
            InvalidOption: one that is not to be tried again is from another commit or other
                versions.
        """
        found = {}
        for unit in self.units:
            if (path := self._path(unit)).exists():
                rows, other = table.read_table(path)
                reasons = rows["failure"].drop_null()
                found[unit] = reasons[0].as_py() if len(reasons) else ""
                if not _is_tried_again(found[unit]):
                    self._refuse_another(_header_of(unit, header), other)
        return found

    def _header(self) -> dict[str, Any]:
        where = machine()
        return {
            **where,
            "suite": self.suite.name,
            "seeds": list(range(self.suite.seeds)),
            "methods": [label(method) for method in self.methods],
            "processes": self.processes,
            "threads_per_process": 1,
        }

    def _refuse_another(self, header: Mapping[str, Any], other: Mapping[str, Any]) -> None:
        for name in ("commit", "versions"):
            there, here = other[name], header[name]
            if there != here:
                if name == "versions":  # only those that differ
                    there, here = (
                        dict(one.items() - another.items())
                        for one, another in ((there, here), (here, there))
                    )
                raise InvalidOption(
                    f"--output={self.folder.parent}: has results of {name} {there}, and this is "
                    f"{here}: expected another folder, or --fresh to measure everything again"
                )


def _header_of(unit: Unit, header: Mapping[str, Any]) -> dict[str, Any]:
    # Of a user's modules, only those that the unit needs: the others may change.
    return {**header, "versions": header["versions"] | unit.versions}


def _is_tried_again(failure: str) -> bool:
    """Whether another try is worth its time: the machine may have caused the failure."""
    return failure not in ("", EXHAUSTED) and not OUT_OF_TIME.match(failure)


def measured(work: Sequence[Unit], processes: int) -> Iterator[tuple[Unit, list[Trace]]]:
    """The units as they finish; one that raised, or killed its process, has traces that say so.

    A process that dies breaks its pool. The units that ran at the time are among the first without
    a result; these are tried once more, each alone, so that only the culprit fails.
    """
    left = list(work)
    while left:
        broken: set[Unit] = set()
        for unit, outcome in _attempt(left, processes):
            if isinstance(outcome, BrokenProcessPool):
                broken.add(unit)
            else:
                yield unit, outcome
        left = [unit for unit in left if unit in broken]
        suspects, left = left[: 2 * processes + 1], left[2 * processes + 1 :]
        for suspect in suspects:
            for unit, outcome in _attempt([suspect], 1):
                if isinstance(outcome, BrokenProcessPool):
                    outcome = unit.failed("its process died")
                yield unit, outcome


def _attempt(
    work: Sequence[Unit], processes: int
) -> Iterator[tuple[Unit, list[Trace] | BrokenProcessPool]]:
    if not work:
        return
    # One thread each: many small matrices gain nothing from more.
    pool = ProcessPoolExecutor(
        min(processes, len(work)),
        initializer=_begin,
        initargs=(os.getpid(),),
        env={**ONE_THREAD, **NO_LEAK_CHECK},
    )
    try:
        futures: dict[Future[list[Trace]], Unit] = {
            pool.submit(_measure, unit, unit.versions): unit for unit in work
        }
        for future in as_completed(futures):
            unit, error = futures[future], future.exception()
            if error is None:
                yield unit, future.result()
            elif isinstance(error, BrokenProcessPool):
                yield unit, error
            else:
                yield unit, unit.failed(f"{type(error).__name__}: {error}")
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def _begin(parent: int) -> None:
    die_with(parent)
    torch.set_num_threads(1)


def _measure(unit: Unit, versions: Mapping[str, str]) -> list[Trace]:
    try:
        if unit.versions != versions:
            return unit.failed("its module was changed after the command had begun")
        return unit.measure()
    except Exception as error:  # noqa: BLE001  a user's exception may not survive pickling
        return unit.failed(reason_of(error))


def chosen_methods(suite: Suite, wanted: Sequence[str], peers: Sequence[str]) -> tuple[str, ...]:
    """The names of the methods to run: those wanted, by default the suite's and then all peers.

    Raises:
        InvalidOption: there is no such method, it is one of another suite's problems, or it has
            several workers and a problem is run in batches; of a user's own, see `methods.find`,
            or two have the same name.
    """
    names = dict.fromkeys(wanted or [*suite.methods, *peers])
    own = [
        name
        for name, method in METHODS.items()
        if suite.name == "kandasamy" or not isinstance(method, KandasamyMethod)
    ]
    called: dict[str, str] = {}
    for name in names:
        if not paths.is_path(name) and name not in own and name not in peers:
            known = ", ".join([*own, *peers])
            raise InvalidOption(
                f"--method={name}: expected one of {known}, or your own as module:attribute"
            )
        if suite.batched and (method := find(name)) is not None and not method.alone:
            raise InvalidOption(
                f"--method={name}: it has several workers: expected a method with one worker for "
                f"{suite.name}, which is run in batches"
            )
        # On a system that ignores case, so do the names of the units' files.
        if (other := called.setdefault(label(name).casefold(), name)) != name:
            raise InvalidOption(
                f"--method={name}: expected another name than {label(name)!r}, which {other} has"
            )
    return tuple(names)

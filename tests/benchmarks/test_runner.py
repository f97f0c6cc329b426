"""A suite that is killed goes on; a unit that fails takes nothing with it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpbo.errors import InvalidData, InvalidOption
from gpbo_benchmarks import record, runner, suites, table, units
from gpbo_benchmarks.runner import Run, chosen_methods, measured
from gpbo_benchmarks.trace import Trace
from gpbo_benchmarks.units import Unit

SMOKE = replace(suites.get("smoke").with_budget(7), seeds=3)
OPTIONS = ["--seeds", "3", "--budget", "7", "--processes", "1", "--no-peers"]
METHODS = ["--method", "random", "--method", "ei-map"]


def command(output: Path) -> list[str]:
    code = "from gpbo.cli import main; main()"
    where = ["--output", str(output)]
    return [sys.executable, "-c", code, "bench", "smoke", *OPTIONS, *METHODS, *where]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1/8 branin random\n"
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    folder = tmp_path / "smoke" / "units"
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert 1 <= len(kept) < 8
    assert not (tmp_path / "smoke" / "trials.parquet").exists()
    deadline = time.monotonic() + 60
    while any(worker.is_running() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)  # they notice by themselves
    assert not any(worker.is_running() for worker in workers)

    done = subprocess.run(command(tmp_path), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(f"{len(kept) + 1}/8 ")
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    rows, header = table.read(tmp_path / "smoke" / "trials.parquet")
    assert header["methods"] == ["random", "ei-map"]
    assert {"commit", "processor", "versions", "seeds", "date"} <= set(header)
    for unit in Run(SMOKE, ("random", "ei-map"), tmp_path / "smoke").units:
        for trace in unit.measure():
            own = rows[(rows["problem"] == unit.problem) & (rows["method"] == unit.method)]
            found = own[own["seed"] == trace.seed].sort_values("evaluation")
            assert found["value"].tolist() == pytest.approx(list(trace.values), rel=1e-6)
    assert (tmp_path / "smoke" / "report.html").exists()


class Odd(Exception):
    """It is pickled, and cannot be unpickled."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


@dataclass(frozen=True)
class Trouble(Unit):
    """A unit that does what its method says."""

    def measure(self) -> list[Trace]:
        if self.method == "raises":
            raise ZeroDivisionError("nothing left")
        if self.method == "odd":
            raise Odd("nothing", "left")
        if self.method == "dies":
            os._exit(3)
        method = self.method.partition("-")[0]
        own = Unit(self.suite, self.problem, method, self.seeds, self.budget, self.peer_traces)
        return own.measure()


def test_a_unit_that_raises_or_dies_is_rows_and_the_others_are_measured(tmp_path: Path) -> None:
    methods = ["raises", "odd", "dies", "random", "sobol", "random-4", "random-5", "random-6"]
    work = [Trouble("smoke", "branin", method, (0, 1), 6, str(tmp_path)) for method in methods]
    found = {unit.method: traces for unit, traces in measured(work, 1)}
    assert len(found) == len(work)
    for name, why in (("raises", "ZeroDivisionError"), ("odd", f"{__name__}.Odd")):
        for trace in found[name]:
            told, *frames = str(trace.failure).splitlines()
            assert told == f"{why}: nothing left"
            assert frames[-1].strip().startswith("raise ")  # where it did
    assert [trace.failure for trace in found["dies"]] == ["its process died"] * 2
    for method in ("random", "sobol", "random-6"):
        assert [len(trace.params) for trace in found[method]] == [6, 6]
    rows = table.rows("smoke", work[0].case, found["dies"]).to_pandas()
    assert rows["status"].tolist() == ["missing"] * 12


def test_results_of_another_commit_are_not_mixed_in(tmp_path: Path) -> None:
    run = Run(SMOKE, ("sobol",), tmp_path / "smoke")
    unit = run.units[0]
    old = table.rows("smoke", unit.case, unit.measure())
    path = tmp_path / "smoke" / "units" / unit.file
    table.write(path, old, {"commit": "older"})
    with pytest.raises(InvalidOption, match="has results of commit older, and this is"):
        run.execute(lambda *_: None)
    now = record.machine()
    table.write(path, old, {**now, "versions": {**now["versions"], "torch": "1.0"}})
    with pytest.raises(InvalidOption, match=r"results of versions .*'torch': '1.0'.*expected"):
        run.execute(lambda *_: None)


def test_traces_of_peers_keep_where_they_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the way: out of kept results, through a folder of traces, into results that are fresh."""
    suite = replace(SMOKE, cases=SMOKE.cases[:1], seeds=2)
    case = suite.cases[0]
    old = tmp_path / "old.parquet"
    traces = [
        replace(trace, method="cmaes", versions={"cmaes": "9"})
        for trace in Unit("smoke", case.name, "random", (0, 1), 7, "").measure()
    ]
    there = {"commit": "old", "date": "2025", "processor": "two", "cores": 3, "peers_from": []}
    table.write(old, table.rows("smoke", case, traces), {**record.machine(), **there})
    monkeypatch.setattr(units, "installed", lambda peer: {"cmaes": "9"})
    monkeypatch.setattr(runner, "measured", lambda left, _: ((u, u.measure()) for u in left))

    def peers_from(**options: Any) -> list[dict[str, Any]]:
        run = Run(suite, ("random", "cmaes"), tmp_path / "out" / "smoke", **options)
        header = table.read(run.execute(lambda *_: None))[1]
        found: list[dict[str, Any]] = header["peers_from"]
        return found

    (place,) = peers_from(peers_from=old)
    assert (place["commit"], place["runs"]) == ("old", {"cmaes": {case.name: [0, 1]}})
    assert peers_from() == [place]
    assert peers_from(fresh=True) == [place]


def test_what_is_to_be_taken_over_is_read_before_anything_is_forgotten(tmp_path: Path) -> None:
    kept = tmp_path / "smoke" / "trials.parquet"
    kept.parent.mkdir()
    kept.write_text("results")
    run = Run(SMOKE, ("sobol",), kept.parent, peers_from=tmp_path / "typo.parquet", fresh=True)
    with pytest.raises(InvalidData, match=r"typo\.parquet: expected results"):
        run.execute(lambda *_: None)
    assert kept.read_text() == "results"


def test_fresh_forgets_the_units_of_the_command_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units that are not of the command may stay there from another commit."""
    made: list[str] = []

    def measured(left: Sequence[Unit], _: int) -> Iterator[tuple[Unit, list[Trace]]]:
        for unit in left:
            made.append(unit.method)
            yield unit, unit.measure()

    monkeypatch.setattr(runner, "measured", measured)
    suite = replace(SMOKE, cases=SMOKE.cases[:1])
    both = Run(suite, ("random", "sobol"), tmp_path / "smoke")
    both.execute(lambda *_: None)
    notes = tmp_path / "smoke" / "notes.txt"
    notes.write_text("mine")
    monkeypatch.setattr(runner, "machine", lambda: {**record.machine(), "commit": "newer"})
    one = replace(both, methods=("sobol",))
    with pytest.raises(InvalidOption, match="this is newer: expected another folder, or --fresh"):
        one.execute(lambda *_: None)
    replace(one, fresh=True).execute(lambda *_: None)
    assert made == ["random", "sobol", "sobol"]
    assert notes.read_text() == "mine"
    assert len([*(tmp_path / "smoke" / "units").iterdir()]) == 2
    with pytest.raises(InvalidOption, match="has results of commit "):
        both.execute(lambda *_: None)  # the units of random are still those of the older one


def test_units_that_failed_are_tried_again_but_not_peers_that_ran_out_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "cmaes: ask: no answer in time: the limit of the whole run is 7200 s"
    fails = {"random": "MemoryError: none left", "cmaes": slow}
    made: list[str] = []

    def measured(left: Sequence[Unit], _: int) -> Iterator[tuple[Unit, list[Trace]]]:
        for unit in left:
            made.append(unit.method)
            yield unit, unit.failed(fails[unit.method]) if fails else unit.measure()

    monkeypatch.setattr(runner, "measured", measured)
    suite = replace(SMOKE, cases=SMOKE.cases[:1], seeds=1)
    run = Run(suite, ("random", "cmaes"), tmp_path / "smoke")
    run.execute(lambda *_: None)
    assert sorted(made) == ["cmaes", "random"]
    made.clear()
    fails.clear()
    shown: list[tuple[Any, ...]] = []
    results = run.execute(lambda done, count, unit, why: shown.append((done, unit.method, why)))
    assert made == ["random"]
    assert shown == [(1, "cmaes", f"not tried again: {slow}"), (2, "random", "")]
    rows, _ = table.read(results)
    assert rows["failure"].dropna().unique().tolist() == [slow]


def test_methods_are_chosen_by_name() -> None:
    assert chosen_methods(SMOKE, [], ["ax"]) == (*SMOKE.methods, "ax")
    assert chosen_methods(SMOKE, ["sobol", "ax", "sobol"], ["ax"]) == ("sobol", "ax")
    with pytest.raises(InvalidOption, match="--method=bogus: expected one of random, sobol, "):
        chosen_methods(SMOKE, ["bogus"], [])
    with pytest.raises(InvalidOption, match="--method=asyTS: expected one of random, sobol, "):
        chosen_methods(SMOKE, ["asyTS"], [])  # it is one of other problems
    assert chosen_methods(suites.get("kandasamy"), ["asyTS"], []) == ("asyTS",)


def test_methods_with_several_workers_are_refused_where_there_are_batches() -> None:
    batches = suites.get("batches")
    assert chosen_methods(batches, ["ei-map", "ax"], ["ax"]) == ("ei-map", "ax")
    assert chosen_methods(SMOKE, ["ei-map-sync4"], []) == ("ei-map-sync4",)
    refused = "--method=ei-map-sync4: it has several workers: expected .* with one worker for batc"
    with pytest.raises(InvalidOption, match=refused):
        chosen_methods(batches, ["ei-map", "ei-map-sync4"], [])

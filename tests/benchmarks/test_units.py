"""Units of work, and the traces of peers, which are computed once."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import gpbo
from gpbo_benchmarks import table, units
from gpbo_benchmarks.suites import Case, Suite, noisy
from gpbo_benchmarks.trace import Evaluate, Params, Trace

BRANIN = Case("branin", gpbo.problems.get("branin"), budget=7)


class FakePeers:
    """Proposes the first point of the design again and again, and counts its runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[int] = []
        self.version = "1.0"
        self.starts = True
        self.failure: str | None = None
        monkeypatch.setattr(units, "run_peer", self.run)
        monkeypatch.setattr(units, "installed", lambda peer: {"cmaes": self.version})

    def run(
        self,
        name: str,
        *,
        evaluate: Evaluate,
        design: Sequence[Params],
        budget: int,
        seed: int,
        problem: str,
        **_: Any,
    ) -> Trace:
        self.runs.append(seed)
        trace = Trace(name, problem, seed, budget, len(design))
        if not self.starts:
            return replace(trace, failure="it does not start")
        params = (*design, *[design[0]] * (budget - len(design)))
        found = [evaluate(p, n) for n, p in enumerate(params)]
        return replace(
            trace,
            params=params,
            values=tuple(f.value for f in found),
            truth=tuple(f.truth for f in found),
            status=("completed",) * budget,
            ask_s=(0.0,) * budget,
            evaluation_s=(0.0,) * budget,
            versions={"cmaes": self.version},
            failure=self.failure,
        )


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> FakePeers:
    return FakePeers(monkeypatch)


def test_a_peer_s_trace_is_computed_once_and_is_the_same_again(
    peers: FakePeers, tmp_path: Path
) -> None:
    first = units.kept_peer_trace(BRANIN, "cmaes", 3, str(tmp_path))
    assert units.kept_peer_trace(BRANIN, "cmaes", 3, str(tmp_path)) == first
    assert peers.runs == [3]
    assert len(first.params) == 7
    names = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert names == ["seed-3.json"]


def test_a_peer_is_asked_as_the_case_says(
    peers: FakePeers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def run(name: str, **options: Any) -> Trace:
        asked.append([options[key] for key in ("batch", "constraints", "recommend_always")])
        return peers.run(name, **options)

    monkeypatch.setattr(units, "run_peer", run)
    limited = replace(BRANIN.problem, constraints=(lambda x: x.sum(-1),))
    for case in (replace(BRANIN, batch=3), replace(BRANIN, problem=limited), noisy(BRANIN, 0.1)):
        units.kept_peer_trace(case, "cmaes", 0, str(tmp_path))
    assert asked == [[3, 0, False], [1, 1, False], [1, 0, True]]


def test_anything_that_a_trace_depends_on_makes_a_new_one(peers: FakePeers, tmp_path: Path) -> None:
    def again(case: Case, seed: int = 3) -> None:
        units.kept_peer_trace(case, "cmaes", seed, str(tmp_path))

    again(BRANIN)
    for number, case in enumerate(
        [
            replace(BRANIN, budget=8),
            replace(BRANIN, batch=2),
            noisy(BRANIN, 0.1),
            replace(BRANIN, shifted=False),
            replace(BRANIN, problem=replace(BRANIN.problem, function=lambda x: x.sum(-1))),
            replace(BRANIN, problem=replace(BRANIN.problem, constraints=(lambda x: x.sum(-1),))),
            replace(BRANIN, problem=replace(BRANIN.problem, constraints=(lambda x: -x.sum(-1),))),
        ],
        start=2,
    ):
        again(case)
        assert len(peers.runs) == number
    again(BRANIN, seed=4)
    peers.version = "1.1"
    again(BRANIN)
    assert peers.runs[-2:] == [4, 3]


def test_a_trace_is_of_the_adapter_and_of_all_packages_that_it_was_made_with(
    peers: FakePeers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adapters = shutil.copytree(units._ADAPTERS, tmp_path / "adapters")
    monkeypatch.setattr(units, "_ADAPTERS", adapters)

    def runs() -> int:
        units.kept_peer_trace(BRANIN, "cmaes", 3, str(tmp_path / "kept"))
        return len(peers.runs)

    assert runs() == 1
    for number, name in enumerate(("cmaes.py", "base.py", "serve.py", "space.py"), start=2):
        (adapters / name).write_text("another")
        assert (runs(), runs()) == (number, number)
    (adapters / "smac.py").write_text("another")
    assert runs() == 5
    monkeypatch.setattr(units, "installed", lambda peer: {"cmaes": "1.0", "numpy": "9"})
    assert runs() == 6


def test_a_trace_that_was_measured_here_is_not_replaced_by_one_taken_over(
    peers: FakePeers, tmp_path: Path
) -> None:
    here = units.kept_peer_trace(BRANIN, "cmaes", 0, str(tmp_path))
    there = replace(here, params=({},) * 7, measured={"commit": "old"})
    units.adopt_peer_traces(Suite("smoke", (BRANIN,), seeds=1), [there], tmp_path)
    assert units.kept_peer_trace(BRANIN, "cmaes", 0, str(tmp_path)) == here
    assert peers.runs == [0]


def test_a_peer_that_does_not_start_is_tried_again(peers: FakePeers, tmp_path: Path) -> None:
    peers.starts = False
    assert units.kept_peer_trace(BRANIN, "cmaes", 3, str(tmp_path)).failure == "it does not start"
    peers.starts = True
    assert units.kept_peer_trace(BRANIN, "cmaes", 3, str(tmp_path)).failure is None
    assert peers.runs == [3, 3]


def test_a_peer_that_failed_is_tried_again(peers: FakePeers, tmp_path: Path) -> None:
    peers.failure = "no answer in time"
    assert units.kept_peer_trace(BRANIN, "cmaes", 3, str(tmp_path)).failure == peers.failure
    peers.failure = None
    assert units.kept_peer_trace(BRANIN, "cmaes", 3, str(tmp_path)).failure is None
    assert peers.runs == [3, 3]


def test_traces_are_taken_over_from_kept_results_where_the_problem_is_the_same(
    peers: FakePeers, tmp_path: Path
) -> None:
    other = replace(BRANIN, name="other", budget=8)
    suite = Suite("smoke", (BRANIN, other), seeds=2)
    made = [units.kept_peer_trace(BRANIN, "cmaes", seed, str(tmp_path / "a")) for seed in (0, 1)]
    made.append(units.kept_peer_trace(other, "cmaes", 1, str(tmp_path / "a")))
    peers.runs.clear()
    # On another machine the last digits of the values are other ones.
    elsewhere = tuple(value and value * (1 + 1e-14) for value in made[1].values)
    made[1] = replace(made[1], values=elsewhere)
    kept = table.slim(
        pa.concat_tables(
            [
                table.rows("smoke", case, [t])
                for case, t in zip((BRANIN, BRANIN, other), made, strict=True)
            ]
        )
    )
    moved = replace(suite, cases=(BRANIN, replace(other, shifted=False)))
    fewer = replace(moved, seeds=1)
    units.adopt_peer_traces(fewer, table.traces(kept), tmp_path / "c")
    assert len([*(tmp_path / "c").rglob("*.json")]) == 1
    place = {"commit": "old", "date": "2025", "processor": "two", "cores": 3}
    found = [replace(trace, measured=place) for trace in table.traces(kept)]
    units.adopt_peer_traces(moved, found, tmp_path / "b")
    assert len([*(tmp_path / "b").rglob("*.json")]) == 2
    for seed in (0, 1):
        again = units.kept_peer_trace(BRANIN, "cmaes", seed, str(tmp_path / "b"))
        assert again == replace(made[seed], params=({},) * 7, measured=place)
    assert peers.runs == []
    peers.version = "1.1"
    units.kept_peer_trace(BRANIN, "cmaes", 0, str(tmp_path / "b"))
    assert peers.runs == [0]
    units.kept_peer_trace(moved.case("other"), "cmaes", 1, str(tmp_path / "b"))
    assert peers.runs == [0, 1]


def test_peers_have_a_unit_for_every_seed_and_gpbo_one_for_all() -> None:
    suite = Suite("smoke", (BRANIN, replace(BRANIN, name="other", budget=9)), seeds=3)
    found = list(units.units(suite, ("sobol", "ei-hmc", "cmaes"), Path("kept")))
    assert len(found) == len({unit.file for unit in found}) == 2 * (1 + 1 + 3)
    assert {unit.seeds for unit in found if unit.method == "cmaes"} == {(0,), (1,), (2,)}
    assert {unit.seeds for unit in found if unit.method == "sobol"} == {(0, 1, 2)}
    # The long ones first: the larger budget, and within it what takes longer.
    assert [unit.problem for unit in found] == ["other"] * 5 + ["branin"] * 5
    assert [unit.method for unit in found[:5]] == ["cmaes"] * 3 + ["ei-hmc", "sobol"]


def test_what_another_version_of_a_peer_did_is_kept_apart(peers: FakePeers) -> None:
    unit = units.Unit("smoke", "branin", "cmaes", (0,), 7, "kept")
    before, peers.version = unit.file, "1.1"
    assert before == "branin--cmaes-1.0--7--0.parquet"
    assert unit.file == "branin--cmaes-1.1--7--0.parquet"


def test_a_unit_that_failed_says_so_for_every_seed() -> None:
    unit = units.Unit("smoke", "branin", "ei-hmc", (0, 1), 7, "kept")
    traces = unit.failed("out of memory")
    assert [(t.seed, t.failure, t.budget, t.design) for t in traces] == [
        (0, "out of memory", 7, 3),
        (1, "out of memory", 7, 3),
    ]

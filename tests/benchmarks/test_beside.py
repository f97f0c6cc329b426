"""Runs that were measured apart: together only if they are of the same designs."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gpbo.cli import app
from gpbo.errors import InvalidData
from gpbo_benchmarks import sections, table
from gpbo_benchmarks.beside import elsewhere, joined, places
from gpbo_benchmarks.trace import Trace
from tests.benchmarks.results import case, header, trace

START = (5.0, 4.0)


def written(
    path: Path,
    methods: dict[str, float],
    seeds: range,
    *,
    problems: tuple[str, ...] = ("branin", "levy"),
    start: tuple[float, ...] = START,
    **more: object,
) -> Path:
    """Runs that end at a value of their method's."""
    runs = [
        (problem, trace(method, seed, (*start, end), problem=problem))
        for problem in problems
        for method, end in methods.items()
        for seed in seeds
    ]
    parts = [table.rows("smoke", case(problem), [run]) for problem, run in runs]
    head = {**header(len(seeds)), "seeds": list(seeds), "methods": list(methods), **more}
    table.write(path, pa.concat_tables(parts), head)
    return path


def test_all_runs_are_there_of_the_problems_and_seeds_that_both_have(tmp_path: Path) -> None:
    runs = {"cmaes": {"branin": [*range(5)], "levy": [*range(5)]}}
    there = {"runs": runs, "commit": "old", "date": "2025", "processor": "two", "cores": 3}
    kept = written(
        tmp_path / "kept.parquet",
        {"ei-map": 1.5, "cmaes": 3},
        range(5),
        peers_from=[there],
    )
    other = written(
        tmp_path / "other.parquet",
        {"hebo": 2.0},
        range(2, 9),
        problems=("levy", "ackley"),
        commit="new",
    )
    arguments = ["bench", "keep", str(other), "--beside", str(kept), "--stored", str(tmp_path)]
    told = CliRunner().invoke(app, [*arguments, "--name", "all"])
    assert told.exit_code == 0, told.output
    rows, head = table.read(tmp_path / "all.parquet")
    assert set(zip(rows["problem"], rows["method"], rows["seed"], strict=True)) == {
        ("levy", method, seed) for method in ("ei-map", "cmaes", "hebo") for seed in (2, 3, 4)
    }
    assert (head["seeds"], head["methods"]) == ([2, 3, 4], ["ei-map", "cmaes", "hebo"])
    parts = sections.sections(sections.Findings.of(rows, head, (0.1,)))
    assert "Commit abc," in parts["Measured"][0]
    _, _, *others = parts["Other commits"][0].splitlines()
    assert others[0] == "| cmaes | 3 runs | old | 2025 | two, 3 cores |"
    assert others[1].startswith("| hebo | 3 runs | new | 2026-01-01 | one,")


def test_runs_with_several_workers_are_kept_beside_those_of_one(tmp_path: Path) -> None:
    """Their results come in another order: those of the design are not the first ones."""
    alone = written(tmp_path / "alone.parquet", {"random": 2.0}, range(2), problems=("branin",))
    runs = [
        trace("ei-map-async4", seed, (START[0], 3.0, START[1]), clock=(1.0, 2.0, 3.0))
        for seed in range(2)
    ]
    head = {**header(2), "methods": ["ei-map-async4"]}
    table.write(tmp_path / "several.parquet", table.rows("smoke", case(), runs), head)
    rows, _ = joined(alone, tmp_path / "several.parquet")
    assert {*rows["method"].to_pylist()} == {"random", "ei-map-async4"}


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    kept = written(tmp_path / "kept.parquet", {"ei-map": 1.5}, range(3))

    def refused(message: str, methods: dict[str, float], seeds: range, **options: object) -> None:
        other = written(tmp_path / "other.parquet", methods, seeds, **options)  # type: ignore[arg-type]
        with pytest.raises(InvalidData, match=message):
            joined(kept, other)

    refused("has ei-map, and so has", {"ei-map": 1.0}, range(3))
    refused("has no seed in common with", {"hebo": 1.0}, range(7, 9))
    refused("has no problem in common with", {"hebo": 1.0}, range(3), problems=("ackley",))
    refused("suite 'noisy', expected 'smoke'", {"hebo": 1.0}, range(3), suite="noisy")
    refused("branin, seed 0: another budget or init", {"hebo": 1.0}, range(3), start=(5.0, 4.5))
    refused("branin, seed 0: another budget or init", {"hebo": 1.0}, range(3), start=(*START, 3.0))
    joined(kept, written(tmp_path / "other.parquet", {"hebo": 1.0}, range(3), start=START))


def test_runs_that_ended_within_the_design_are_compared_as_far_as_they_came(
    tmp_path: Path,
) -> None:
    ended = [trace(m, 0, START[:n], budget=3, failure="x") for m, n in (("ax", 0), ("cmaes", 1))]

    def of(*runs: Trace) -> Path:
        path = tmp_path / f"{runs[0].method}.parquet"
        head = {**header(1), "methods": [run.method for run in runs]}
        table.write(path, table.rows("smoke", case(), runs), head)
        return path

    own = trace("ei-map", 0, (*START, 1.0))
    kept = of(*ended, own)
    rows, _ = joined(kept, of(trace("hebo", 0, (*START, 2.0))))
    assert len(rows) == 4 * 3
    with pytest.raises(InvalidData, match="branin, seed 0: another budget or initial design"):
        joined(kept, of(trace("hebo", 0, (5.0, 4.5, 2.0))))
    for run in ended:
        joined(of(own), of(run))
    with pytest.raises(InvalidData, match="branin, seed 0: another budget or initial design"):
        joined(of(own), of(replace(ended[0], budget=4)))


def test_every_run_is_told_as_from_where_it_was_measured() -> None:
    there = {"commit": "old", "date": "2025", "processor": "two", "cores": 3}
    head = {**header(5), "peers_from": [{**there, "runs": {"hebo": {"levy": [1, 2]}}}]}
    runs = [("hebo", "levy", 1), ("hebo", "levy", 3), ("hebo", "branin", 1), ("ax", "levy", 2)]
    found = places(head, runs)
    assert [found[run]["commit"] for run in runs] == ["old", "abc", "abc", "abc"]
    assert elsewhere(found, head) == [{**there, "runs": {"hebo": {"levy": [1]}}}]
    assert elsewhere(found, {**head, "date": "2027-01-01"}) == elsewhere(found, head)
    (new,) = elsewhere(found, {**head, **there})
    assert new["commit"] == "abc"
    assert new["runs"] == {"ax": {"levy": [2]}, "hebo": {"branin": [1], "levy": [3]}}

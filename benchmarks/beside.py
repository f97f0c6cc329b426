"""Methods that were measured separately, joined in one file if they are comparable."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gpbo.errors import InvalidData

from . import table

#: A run: method, problem, seed.
Run = tuple[str, str, int]
#: Where it was measured.
Place = Mapping[str, Any]

#: The parts of a header that say where runs were measured.
_WHERE = ("commit", "date", "processor", "cores")
#: Designs that differ by more are not the same. Processors round differently, which the training of
#: a perceptron has amplified to 3e-6.
_SAME = 1e-5


def place(header: Mapping[str, Any]) -> Place:
    """Where a file's own runs were measured; for runs of unknown origin, only that."""
    return {name: header.get(name, "unknown") for name in _WHERE}


def places(header: Mapping[str, Any], runs: Iterable[Run]) -> dict[Run, Place]:
    """Where each of these runs of a file was measured."""
    told = {
        (method, problem, seed): place(each)
        for each in header.get("peers_from", [])
        for method, problems in each["runs"].items()
        for problem, seeds in problems.items()
        for seed in seeds
    }
    return {run: told.get(run, place(header)) for run in runs}


def elsewhere(measured: Mapping[Run, Place], header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a header says of runs that were measured elsewhere; the day is ignored."""
    here, found = {**place(header), "date": None}, []
    for there, runs in _grouped(measured).items():
        if {**dict(there), "date": None} != here:
            methods: dict[str, dict[str, list[int]]] = {}
            for method, problem, seed in sorted(runs):
                methods.setdefault(method, {}).setdefault(problem, []).append(seed)
            found.append({**dict(there), "runs": methods})
    return found


def _grouped(measured: Mapping[Run, Place]) -> dict[tuple[tuple[str, Any], ...], list[Run]]:
    groups: dict[tuple[tuple[str, Any], ...], list[Run]] = {}
    for run, there in measured.items():
        groups.setdefault(tuple(there.items()), []).append(run)
    return groups


def joined(kept: Path, results: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The runs of both files on the problems and seeds that both have, and the kept file's header.

    The header says where the other file's runs were measured.

    Raises:
        InvalidData: there is no such file, the two are of different suites, have a method or no
            problem or seed in common, or differ in a budget or an initial design.
    """
    (ours, header), (theirs, other) = map(table.read_table, (kept, results))
    if header["suite"] != other["suite"]:
        raise InvalidData(
            f"{results}: suite {other['suite']!r}, expected {header['suite']!r} as in {kept}"
        )
    twice = sorted(set(header["methods"]) & set(other["methods"]))
    if twice:
        raise InvalidData(
            f"{results}: has {', '.join(twice)}, and so has {kept}: expected other methods"
        )
    shared = {name: _in_common(ours, theirs, name) for name in ("problem", "seed")}
    for name, values in shared.items():
        if not values:
            raise InvalidData(f"{results}: has no {name} in common with {kept}")
    ours, theirs = (_only(part, shared) for part in (ours, theirs))
    _refuse_other_designs(ours.to_pandas(), theirs.to_pandas(), results)
    both = pa.concat_tables([ours, theirs])
    measured = places(header, runs_of(ours)) | places(other, runs_of(theirs))
    return both, {
        **header,
        "seeds": shared["seed"],
        "methods": [*header["methods"], *other["methods"]],
        "versions": dict(sorted((other["versions"] | header["versions"]).items())),
        "peers_from": elsewhere(measured, header),
    }


def _in_common(ours: pa.Table, theirs: pa.Table, column: str) -> list[Any]:
    return sorted(set(ours[column].to_pylist()) & set(theirs[column].to_pylist()))


def _only(runs: pa.Table, shared: Mapping[str, list[Any]]) -> pa.Table:
    for column, values in shared.items():
        runs = runs.filter(pc.is_in(runs[column], pa.array(values, runs[column].type)))
    return runs


def runs_of(rows: pa.Table) -> list[Run]:
    """The runs of a file."""
    names = ["method", "problem", "seed"]
    every = rows.group_by(names).aggregate([]).select(names).to_pydict()
    return list(zip(*every.values(), strict=True))


def _refuse_other_designs(ours: pd.DataFrame, theirs: pd.DataFrame, results: Path) -> None:
    designs = _designs(theirs)
    for problem, expected in _designs(ours).items():
        found = designs.get(problem)
        if found is None or expected.keys() != found.keys():
            raise InvalidData(f"{results}: {problem}: other seeds: expected {sorted(expected)}")
        for seed, design in expected.items():
            both = min(len(design), len(found[seed]))  # shorter if all runs ended within it
            pair = design[:both], found[seed][:both]
            if not np.allclose(*pair, rtol=_SAME, atol=0, equal_nan=True):
                raise InvalidData(
                    f"{results}: {problem}, seed {seed}: another budget or initial design than in "
                    "the kept results: expected the same"
                )


def _designs(rows: pd.DataFrame) -> dict[str, dict[int, np.ndarray]]:
    """By problem and seed: budget, size of the initial design, and as many of its values as any
    method evaluated.
    """
    found: dict[str, dict[int, np.ndarray]] = {}
    for (problem, seed), run in rows.groupby(["problem", "seed"]):
        sizes = run[["budget", "design"]].iloc[0]
        # With several workers, results come in another order.
        told = (run["status"] != "missing") & run["clock"].isna()
        made = run[told].drop_duplicates("evaluation")
        values = made.sort_values("evaluation")["value"].iloc[: sizes["design"]]
        design = np.array([*sizes, *values], dtype=float)
        found.setdefault(str(problem), {})[int(seed)] = design
    return found

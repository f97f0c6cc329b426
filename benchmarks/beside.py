"""Methods that were measured apart, in one file: what they have in common makes them comparable."""

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gpbo.errors import InvalidData

from . import table

#: What the header says of where runs were measured.
_WHERE = ("commit", "date", "processor", "cores")
#: Designs that differ by more are not the same; another processor rounds in other places.
_SAME = 1e-9


def origin(header: Mapping[str, Any], methods: Iterable[str], count: int) -> dict[str, Any]:
    """So many runs of these methods, and where they were measured."""
    return {"methods": sorted(methods), "count": count} | {name: header[name] for name in _WHERE}


def origins(header: Mapping[str, Any], counts: Counter[str]) -> list[dict[str, Any]]:
    """Where these runs of a file, so many of each method, were measured: there, or elsewhere."""
    found, left = [], Counter(counts)
    for where in (
        *header.get("peers_from", []),
        {**header, "methods": counts, "count": counts.total()},
    ):
        methods = sorted(method for method in where["methods"] if left[method] > 0)
        taken = Counter[str]()
        for method in methods:
            taken[method] = min(left[method], where["count"] - taken.total())
        left -= taken
        found.append(origin(where, +taken, taken.total()))
    return [each for each in found if each["count"] > 0]


def joined(kept: Path, results: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The runs of both files on the problems and seeds that both have; the kept one's header.

    The header tells where the other file's runs were measured.

    Raises:
        InvalidData: there is no such file, the two are of different suites, have a method or no
            problem or seed in common, or differ in a budget or an initial design.
    """
    (ours, header), (theirs, other) = map(table.read_table, (kept, results))
    if header["suite"] != other["suite"]:
        raise InvalidData(f"{results}: suite {other['suite']!r}, expected {header['suite']!r}")
    twice = sorted(set(header["methods"]) & set(other["methods"]))
    if twice:
        raise InvalidData(f"{results}: has {', '.join(twice)}, and so has {kept}: expected others")
    shared = {name: _in_common(ours, theirs, name) for name in ("problem", "seed")}
    for name, values in shared.items():
        if not values:
            raise InvalidData(f"{results}: no {name} of {kept}")
    ours, theirs = (_only(part, shared) for part in (ours, theirs))
    _refuse_other_designs(ours.to_pandas(), theirs.to_pandas(), results)
    both = pa.concat_tables([ours, theirs])
    before = {method for each in header.get("peers_from", []) for method in each["methods"]}
    return both, {
        **header,
        "seeds": shared["seed"],
        "methods": [*header["methods"], *other["methods"]],
        "versions": dict(sorted((other["versions"] | header["versions"]).items())),
        "peers_from": [
            *origins(header, _runs(ours, before)),
            *origins(other, _runs(theirs, set(other["methods"]))),
        ],
    }


def _in_common(ours: pa.Table, theirs: pa.Table, column: str) -> list[Any]:
    return sorted(set(ours[column].to_pylist()) & set(theirs[column].to_pylist()))


def _only(runs: pa.Table, shared: Mapping[str, list[Any]]) -> pa.Table:
    for column, values in shared.items():
        runs = runs.filter(pc.is_in(runs[column], pa.array(values, runs[column].type)))
    return runs


def _runs(runs: pa.Table, methods: Set[str]) -> Counter[str]:
    """How many there are of each of these methods."""
    every = runs.group_by(["problem", "method", "seed"]).aggregate([])["method"].to_pylist()
    return Counter(method for method in every if method in methods)


def _refuse_other_designs(ours: pd.DataFrame, theirs: pd.DataFrame, results: Path) -> None:
    designs = _designs(theirs)
    for problem, expected in _designs(ours).items():
        found = designs.get(problem)
        if found is None or expected.keys() != found.keys():
            raise InvalidData(f"{results}: {problem}: other seeds, expected {sorted(expected)}")
        for seed, design in expected.items():
            same = design.shape == found[seed].shape
            if not (same and np.allclose(design, found[seed], rtol=_SAME, atol=0, equal_nan=True)):
                raise InvalidData(
                    f"{results}: {problem}, seed {seed}: another budget or initial design"
                )


def _designs(rows: pd.DataFrame) -> dict[str, dict[int, np.ndarray]]:
    """By problem and seed: budget, then the values of the initial design, of the first method."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for (problem, seed), run in rows.groupby(["problem", "seed"]):
        of_method = run[run["method"] == run["method"].iloc[0]].sort_values("evaluation")
        values = of_method["value"].iloc[: of_method["design"].iloc[0]]
        design = np.array([of_method["budget"].iloc[0], *values], dtype=float)
        found.setdefault(str(problem), {})[int(seed)] = design
    return found

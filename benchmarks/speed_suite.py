"""The suite ``speed``: what `speed` measures, as a tidy Parquet file and a report.

A row per figure: the work, its size, the measure and its value. Seconds are medians of several
repeats, the two sides taking turns in one process.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from . import report, table
from .record import machine
from .words import number, pipes, where

Case = tuple[int, int]
#: Results and dimensions.
CASES: tuple[Case, ...] = ((50, 6), (100, 20))

SCHEMA = pa.schema(
    [
        ("work", pa.string()),
        ("n", pa.int32()),
        ("d", pa.int32()),
        ("measure", pa.string()),
        ("value", pa.float64()),
    ]
)

#: What a row of the report shows: its name, and the measures of gpbo and of BoTorch.
_SIDES = {
    ("suggestion", "one suggestion over draws (warm); BoTorch: MAP"): ("gpbo_s", "botorch_map_s"),
    ("sampling", "hyperparameters drawn, cold; BoTorch by NUTS"): ("cold_s", "botorch_s"),
    ("sampling", "the same, warm; BoTorch has no warm start"): ("warm_s", "botorch_s"),
}


def execute(cases: tuple[Case, ...], repeats: int, folder: Path) -> Path:
    """Measure, and write ``speed.parquet`` and its report."""
    rows = [
        {"work": work, "n": n, "d": d, "measure": measure, "value": float(value)}
        for work, n, d, found in _figures(cases, repeats)
        for measure, value in found.items()
    ]
    results = folder / "speed.parquet"
    header = machine() | {"suite": "speed", "repeats": repeats}
    table.write(results, pa.Table.from_pylist(rows, schema=SCHEMA), header)
    write_report(results)
    return results


def _figures(cases: tuple[Case, ...], repeats: int) -> Iterator[tuple[str, int, int, Any]]:
    from . import speed

    works: dict[str, Callable[[int, int, int], dict[str, Any]]] = {"suggestion": speed.suggestion}
    if find_spec("numpyro") is not None:
        works["sampling"] = speed.sampling
    for work, measure in works.items():
        for n, d in cases:
            found = measure(n, d, repeats)
            yield work, n, d, {name: found[name] for name in found if name not in ("n", "d")}


def comparison(rows: pd.DataFrame, header: Mapping[str, Any]) -> str:
    """The table of seconds of both sides, and where they were measured."""
    figures = rows.set_index(["work", "n", "d", "measure"])["value"]
    lines = []
    for (work, name), (ours, theirs) in _SIDES.items():
        own = rows[rows["work"] == work]
        for n, d in own[["n", "d"]].drop_duplicates().itertuples(index=False):
            a, b = figures[work, n, d, ours], figures[work, n, d, theirs]
            lines.append([name, n, d, *map(number, (a, b, b / a))])
    columns = ["work, seconds", "results", "d", "gpbo", "BoTorch", "BoTorch / gpbo"]
    return f"{where(header)}\n\n{pipes(columns, lines)}"


def write_report(results: Path, folder: Path | None = None) -> tuple[Path, Path]:
    """Write ``report.md`` and ``report.html`` into a folder, by default beside the results.

    Raises:
        InvalidData: no such file.
    """
    rows, header = table.read(results)
    every = pipes(
        ["work", "results", "d", "measure", "value"],
        [[r.work, r.n, r.d, r.measure, number(r.value)] for r in rows.itertuples()],
    )
    sides = comparison(rows, header)
    text = f"# Benchmark suite `speed`\n\n{sides}\n\n## All figures\n\n{every}\n"
    return report.write_pages(text, folder or results.parent)

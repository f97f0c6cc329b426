"""Results as one tidy Parquet file: a row per evaluation, and where and with what it was measured.

A run that ended early has all of its rows: those that it did not make are ``"missing"``.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gpbo.archive import appearing
from gpbo.errors import InvalidData

from .suites import Case
from .trace import Trace

#: Version of the columns; a file of a later one is refused.
FORMAT = 1
#: The key of the header in the file's metadata.
_HEADER = b"gpbo_benchmarks"

#: The columns; `Trace` and `Case` say what each holds, if the name does not.
SCHEMA = pa.schema(
    [
        ("suite", pa.string()),
        ("problem", pa.string()),
        ("dim", pa.int32()),
        ("optimum", pa.float64()),
        ("noise", pa.float64()),
        ("budget", pa.int32()),
        ("design", pa.int32()),
        ("method", pa.string()),
        ("seed", pa.int64()),
        ("evaluation", pa.int32()),
        ("status", pa.string()),
        ("value", pa.float64()),
        ("truth", pa.float64()),
        ("recommended_truth", pa.float64()),
        ("ask_s", pa.float64()),
        ("fit_s", pa.float64()),
        ("acquisition_s", pa.float64()),
        ("evaluation_s", pa.float64()),
        ("clock", pa.float64()),
        ("together", pa.int32()),
        ("params", pa.string()),
        ("versions", pa.string()),
        ("failure", pa.string()),
    ]
)


def rows(suite: str, case: Case, traces: Iterable[Trace]) -> pa.Table:
    """The rows of some runs of a case, ``budget`` for each."""
    records = [record for trace in traces for record in _records(suite, case, trace)]
    return pa.Table.from_pylist(records, schema=SCHEMA)


def _records(suite: str, case: Case, trace: Trace) -> Iterable[dict[str, Any]]:
    problem = case.problem
    common = {
        "suite": suite,
        "problem": case.name,
        "dim": problem.dim,
        "optimum": problem.optimum if case.optimum_known else None,
        "noise": problem.noise,
        "budget": trace.budget,
        "design": case.design,
        "method": trace.method,
        "seed": trace.seed,
        "together": trace.together,
        "versions": json.dumps(dict(trace.versions), sort_keys=True),
        "failure": trace.failure,
    }
    columns: Mapping[str, tuple[Any, ...]] = {
        "status": trace.status,
        "value": trace.values,
        "truth": trace.truth,
        "recommended_truth": trace.recommended_truth,
        "ask_s": trace.ask_s,
        "fit_s": trace.fit_s,
        "acquisition_s": trace.acquisition_s,
        "evaluation_s": trace.evaluation_s,
        "clock": trace.clock,
        "params": tuple(json.dumps(params) for params in trace.params),
    }
    made = {name: column for name, column in columns.items() if column}
    for number in range(trace.budget):
        record = common | {"evaluation": number + 1, "status": "missing"}
        if number < len(trace.params):
            record |= {name: column[number] for name, column in made.items()}
        yield record


def traces(table: pa.Table) -> Iterator[Trace]:
    """The runs of a file that have not failed; configurations are empty if the file lacks them."""
    for _, run in table.to_pandas().groupby(["problem", "method", "seed"], sort=False):
        made = run[run["status"] != "missing"]
        if len(made) == len(run) and run["failure"].isna().all():
            yield _trace(made)


def _trace(run: pd.DataFrame) -> Trace:
    def column(name: str) -> tuple[Any, ...]:
        return tuple(None if pd.isna(entry) else entry for entry in run[name].tolist())

    def where_known(name: str) -> tuple[Any, ...]:
        return () if run[name].isna().all() else column(name)

    first = run.iloc[0]
    return Trace(
        method=first["method"],
        problem=first["problem"],
        seed=int(first["seed"]),
        budget=int(first["budget"]),
        design=int(first["design"]),
        params=tuple(json.loads(text) if text else {} for text in column("params")),
        values=column("value"),
        truth=column("truth"),
        status=column("status"),
        ask_s=column("ask_s"),
        fit_s=where_known("fit_s"),
        acquisition_s=where_known("acquisition_s"),
        evaluation_s=column("evaluation_s"),
        clock=where_known("clock"),
        recommended_truth=where_known("recommended_truth"),
        together=int(first["together"]),
        versions=json.loads(first["versions"]),
    )


def write(path: Path, table: pa.Table, header: Mapping[str, Any]) -> None:
    """Write a file, which appears when it is complete."""
    plain = json.dumps({"format": FORMAT, **header}, sort_keys=True).encode()
    table = table.replace_schema_metadata({_HEADER: plain})
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing(path) as file:
        pq.write_table(table, file, compression="zstd")


def read(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows and the header of a file.

    Raises:
        InvalidData: there is none, or it was written by something other than `write`, or by a later
            version of gpbo.
    """
    table, header = read_table(path)
    return table.to_pandas(), header


def read_table(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The same without pandas; raises likewise."""
    try:
        table = pq.read_table(path.absolute())  # a relative one with a colon would be a URI
        header: dict[str, Any] = json.loads(table.schema.metadata[_HEADER])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError) as error:
        raise InvalidData(f"{path}: expected results that `gpbo bench` wrote") from error
    if header["format"] > FORMAT:
        raise InvalidData(
            f"{path}: written by a newer gpbo: expected format {FORMAT} or earlier; upgrade gpbo "
            "to read it"
        )
    return table, header


def slim(table: pa.Table) -> pa.Table:
    """Without the configurations, which are most of it, to be kept in the repository."""
    place = table.schema.get_field_index("params")
    if place < 0:
        return table
    nothing = pa.nulls(len(table), pa.string())
    return table.set_column(place, table.schema.field(place), nothing)

"""Files of results: complete, self-describing, refused where they are not."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpbo.errors import InvalidData
from gpbo_benchmarks import table
from tests.benchmarks.results import case, trace


def test_rows_and_header_come_back(tmp_path: Path) -> None:
    made = table.rows("smoke", case(), [trace("a", 3, [5.0, None], budget=3, failure="stopped")])
    table.write(tmp_path / "new" / "trials.parquet", made, {"commit": "abc", "seeds": [3]})
    rows, header = table.read(tmp_path / "new" / "trials.parquet")
    assert header == {"commit": "abc", "seeds": [3], "format": table.FORMAT}
    assert rows["evaluation"].tolist() == [1, 2, 3]
    assert rows["status"].tolist() == ["completed", "failed", "missing"]
    assert rows["truth"].isna().tolist() == [False, True, True]
    assert rows["params"][0] == '{"x1": 1.0, "x2": 2.0}'
    assert set(rows["failure"]) == {"stopped"}
    assert pd.isna(rows["clock"]).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["trials.parquet"]


def test_runs_come_back_as_traces_but_failures() -> None:
    runs = [
        trace("a", 3, [5.0, None], values=[4.5, None]),
        trace("b", 3, [5.0, 4.0], clock=[0.5, 1.5], recommended=[5.0, 4.0]),
        trace("b", 4, [5.0], budget=2, failure="stopped"),
    ]
    runs[0] = replace(runs[0], status=("violated", "failed"))
    found = list(table.traces(table.rows("smoke", case(), runs)))
    assert found == runs[:2]


def test_slim_results_lack_the_configurations_and_nothing_else() -> None:
    made = table.rows("smoke", case(), [trace("a", 3, [5.0, 4.0])])
    less = table.slim(made)
    assert less.schema == made.schema
    assert less.drop(["params"]) == made.drop(["params"])
    assert less["params"].null_count == 2


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for write in (
        lambda: None,
        lambda: path.write_text("hello"),
        lambda: pq.write_table(pa.table({"a": [1]}), path),
    ):
        write()
        with pytest.raises(InvalidData, match=r"x\.parquet: expected results that `gpbo bench`"):
            table.read(path)
    table.write(path, pa.table({"a": [1]}), {"format": table.FORMAT + 1})
    with pytest.raises(
        InvalidData, match="written by a newer gpbo: expected format 1 or earlier; upgrade"
    ):
        table.read(path)

"""Tables of what scripts measured: from their files to Markdown."""

import json
import shutil
from pathlib import Path

import pytest

from gpbo.errors import InvalidData
from gpbo_benchmarks import readme, stored
from gpbo_benchmarks.record import RESULTS, machine

MEASURED = [
    name for name, table in stored.TABLES.items() if (RESULTS / f"{table.file}.json").exists()
]


@pytest.mark.parametrize("name", MEASURED)
def test_a_table_of_what_is_kept_has_a_cell_for_each_column(name: str) -> None:
    _, text = stored.markdown([name], RESULTS).split("\n\n")
    header, _, *lines = text.splitlines()
    assert lines
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == header.count("|") - 1
        assert all(cells)


def test_what_one_command_measured_is_said_once(tmp_path: Path) -> None:
    for name in ("speed", "updates-cpu"):
        shutil.copy(RESULTS / f"{name}.json", tmp_path)
    text = stored.markdown(["suggestions", "draws", "updates"], tmp_path)
    assert text.count("`python benchmarks/speed.py`. Commit") == 1
    assert text.count("`python benchmarks/speed.py updates`. Commit") == 1
    assert text.count("| :-- |") == 3


def test_the_command_is_the_one_that_was_given(tmp_path: Path) -> None:
    kept = json.loads((RESULTS / "storage.json").read_text())
    kept["machine"]["command"] = "python benchmarks/storage.py --trials 7"
    (tmp_path / "storage.json").write_text(json.dumps(kept))
    text = stored.markdown(["storage"], tmp_path)
    assert text.startswith("`python benchmarks/storage.py --trials 7`. Commit ")


def test_a_peer_that_was_not_there_is_told_of_in_its_place(tmp_path: Path) -> None:
    size = {"runs": 4, "n": 50, "d": 6}
    updates = size | {"updates_per_s": 3.5, "botorch_s": "needs jax"}
    numpyro = size | {"cold_ess_per_s": 1.5, "warm_ess_per_s": 2.5, "numpyro_s": "needs jax"}
    machine = json.loads((RESULTS / "storage.json").read_text())["machine"]
    for name, row in (("updates", updates), ("numpyro", numpyro)):
        kept = {"machine": machine, "figures": {name: [row]}}
        (tmp_path / f"{stored.TABLES[name].file}.json").write_text(json.dumps(kept))
    text = stored.markdown(["updates", "numpyro"], tmp_path)
    assert text.count("| needs jax |  |") == 3


def test_a_readme_holds_the_figures_of_the_files(tmp_path: Path) -> None:
    rows = [{"strategy": "random", "ms_per_trial": 1.23456, "kB_per_trial": 0.5}]
    kept = {"machine": machine(), "figures": rows}
    (tmp_path / "storage.json").write_text(json.dumps(kept))
    file = tmp_path / "README.md"
    file.write_text("<!-- gpbo bench stored: storage -->\nold\n<!-- gpbo bench end -->\n")
    assert readme.rewrite(file, tmp_path) == 1
    assert "| random | 1.23 | 0.5 |" in file.read_text()
    assert "old" not in file.read_text()


@pytest.mark.parametrize("file", ["README.md", "BENCHMARKS.md"])
def test_the_repositorys_tables_are_those_of_the_files(file: str) -> None:
    """Every place can be filled from what is kept; filled, it is what is there."""
    text = (Path(__file__).parents[2] / file).read_text()
    places = [one for one in readme.PLACE.finditer(text) if one["results"] == "stored"]
    assert places
    for place in places:
        names = [name.strip() for name in place["wanted"].split(",")]
        body = stored.markdown(names, RESULTS)
        assert place[0] == f"{place['begin']}{body}\n{place['end']}"


def test_the_regret_of_one_run_is_not_put_beside_the_median_of_many(tmp_path: Path) -> None:
    runs = [
        {"method": "gpbo, map", "runs": count, "seconds": 2.0, "regret": 0.5, "ratio": 4.0}
        for count in (4, 1)
    ]
    peer = {"method": "BoTorch, MAP", "runs": 4, "seconds": 8.0, "regret": 0.75}
    figures = {"case": {"problem": "branin", "budget": 30}, "gpbo": runs, "botorch": peer}
    kept = {"machine": machine(), "figures": figures}
    (tmp_path / "replications_branin-cpu.json").write_text(json.dumps(kept))
    many, one = stored.markdown(["replications"], tmp_path).splitlines()[-2:]
    assert "| 2 s, median regret 0.5 | 8 s, median regret 0.75 |" in many
    assert "| 2 s | 2 s |" in one


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidData, match="'bogus' of the stored tables: expected one of suggestions"
    ):
        stored.markdown(["bogus"], tmp_path)
    with pytest.raises(
        InvalidData,
        match=r"speed\.json: there is no such file: expected one that `python benchmarks/speed",
    ):
        stored.markdown(["draws"], tmp_path)

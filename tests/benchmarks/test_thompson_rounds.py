"""Rounds of a hundred points: where they begin, what they score, and what is kept of them."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpbo.situation import Situation
from gpbo_benchmarks import thompson_rounds
from gpbo_benchmarks.thompson_rounds import APART, BATCH, PROBLEMS, first_points

OPTIONS: dict[str, Any] = {"rounds": 2, "inference": "map", "last_fit": 0, "fresh": False}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_first_points_are_a_hundred_far_from_every_optimum_of_what_matters(name: str) -> None:
    build, effective = PROBLEMS[name]
    problem = build().shifted(3)
    points = first_points(problem, effective, 3)
    assert points.shape == (BATCH, problem.dim)
    for optimum in problem.minimizers[0]:
        assert ((points - optimum)[:, :effective].norm(dim=-1) > APART).all()
    assert torch.equal(points, first_points(problem, effective, 3))
    assert not torch.isclose(points, first_points(problem, effective, 4)).any()


class Told:
    """Proposes one point again and again."""

    name = "told"
    uses_model = False

    def __init__(self, point: Tensor) -> None:
        self.point = point

    def propose(self, situation: Situation, count: int) -> Tensor:
        return self.point.expand(1, count, -1)


def test_the_score_is_the_share_of_the_way_to_the_optimum_that_was_covered() -> None:
    build, effective = PROBLEMS["hartmann6"]
    problem = build().shifted(3)
    best, first = problem.minimizers[0, 0], first_points(problem, effective, 3)
    for point, score in ((best, 1.0), (first[problem(first).argmax()], 0.0)):
        found = thompson_rounds.run("hartmann6", Told(point), 3, Namespace(**OPTIONS))
        assert found["scores"] == pytest.approx([score] * 2, abs=1e-9)
        assert (found["problem"], found["seed"], len(found["seconds"])) == ("hartmann6", 3, 2)


def test_a_row_has_the_mean_and_the_ends_of_the_last_scores_beside_what_was_published() -> None:
    runs = [
        {
            "problem": name,
            "strategy": "cube",
            "seed": seed,
            "scores": [0.1, last],
            "seconds": [2, 3],
            "commit": commit,
        }
        for name, seed, last, commit in (
            ("hartmann6", 0, 0.5, "old"),
            ("hartmann6", 1, 0.8, "new"),
            ("embedded", 0, 0.25, "new"),
        )
    ]
    first, second = thompson_rounds.rows(runs, 2)
    assert (first["problem"], first["seeds"], first["seconds"]) == ("hartmann6", 2, 5)
    assert (first["commit"], second["commit"]) == ("old, new", "new")
    ends = first["least"], first["score"], first["greatest"]
    assert ends == (0.5, pytest.approx(0.65), 0.8)
    assert first["published_TS"] == 0.807
    assert (second["problem"], second["score"], second["published_TS"]) == ("embedded", 0.25, 0.554)


def test_runs_with_the_same_options_are_kept_and_others_are_an_error(tmp_path: Path) -> None:
    options = {**OPTIONS, "output": tmp_path}
    assert thompson_rounds.kept(Namespace(**options)) == {}
    made = {"problem": "hartmann6", "strategy": "cube", "seed": 3, "scores": [0.5, 0.75]}
    figures = {"options": OPTIONS, "runs": [made]}
    (tmp_path / "thompson-rounds.json").write_text(json.dumps({"figures": figures}))
    assert thompson_rounds.kept(Namespace(**options)) == {("hartmann6", "cube", 3): made}
    for name, other in {"rounds": 3, "inference": "hmc", "last_fit": 600}.items():
        with pytest.raises(SystemExit, match=f"'{name}': {OPTIONS[name]!r}.* expected .*{other!r}"):
            thompson_rounds.kept(Namespace(**{**options, name: other}))


def test_the_file_is_written_where_a_run_was_made_and_shown_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"problem": "hartmann6", "strategy": "default", "scores": [0.5, 0.75], "seconds": [1.0]}
    runs = [made | {"seed": seed, "commit": "old"} for seed in (0, 3)]
    path = tmp_path / "thompson-rounds.json"
    path.write_text(json.dumps({"figures": {"options": OPTIONS, "runs": runs}}))
    monkeypatch.setattr(
        thompson_rounds, "run", lambda *asked: made | {"seed": asked[2], "commit": "new"}
    )
    options = ["--problem=hartmann6", "--rounds=2", "--last-fit=0", f"--output={tmp_path}"]
    for more, commits, shown in (
        (["--seeds=1"], ["old", "old"], " old "),
        (["--seeds=2"], ["old", "new", "old"], " old, new "),
        # Only what is named is made again.
        (["--seeds=1", "--fresh"], ["new", "new", "old"], " new, old "),
    ):
        monkeypatch.setattr("sys.argv", ["thompson_rounds.py", *options, *more])
        thompson_rounds.main()
        stored = json.loads(path.read_text())
        assert [run["commit"] for run in stored["figures"]["runs"]] == commits
        assert shown in capsys.readouterr().out
    common = "--rounds=2 --inference=map --last-fit=0"
    assert stored["machine"]["command"] == f"python benchmarks/thompson_rounds.py {common}"

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


def test_runs_with_the_same_options_are_kept_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thompson_rounds, "RESULTS", tmp_path)
    assert thompson_rounds.kept(Namespace(**OPTIONS)) == {}
    made = {"problem": "hartmann6", "strategy": "cube", "seed": 3, "scores": [0.5, 0.75]}
    figures = {"options": OPTIONS, "runs": [made]}
    (tmp_path / "thompson-rounds.json").write_text(json.dumps({"figures": figures}))
    assert thompson_rounds.kept(Namespace(**OPTIONS)) == {("hartmann6", "cube", 3): made}
    for name, other in {"rounds": 3, "inference": "hmc", "last_fit": 600, "fresh": True}.items():
        assert thompson_rounds.kept(Namespace(**{**OPTIONS, name: other})) == {}


def test_the_file_is_written_where_a_run_was_made_and_shown_in_any_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"problem": "hartmann6", "strategy": "default", "scores": [0.5, 0.75], "seconds": [1.0]}
    stored = made | {"seed": 0, "commit": "old"}
    figures = {"options": OPTIONS, "runs": [stored]}
    (tmp_path / "thompson-rounds.json").write_text(json.dumps({"figures": figures}))
    saved: list[Any] = []
    monkeypatch.setattr(thompson_rounds, "RESULTS", tmp_path)
    monkeypatch.setattr(thompson_rounds, "save", lambda name, figures: saved.append(figures))
    monkeypatch.setattr(
        thompson_rounds, "run", lambda *asked: made | {"seed": asked[2], "commit": "new"}
    )
    options = ["rounds", "--problem=hartmann6", "--rounds=2", "--last-fit=0"]
    for seeds, commits, shown in ((1, [], " old "), (2, ["old", "new"], " old, new ")):
        monkeypatch.setattr("sys.argv", [*options, f"--seeds={seeds}"])
        thompson_rounds.main()
        assert [run["commit"] for one in saved for run in one["runs"]] == commits
        assert shown in capsys.readouterr().out

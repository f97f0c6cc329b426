"""The scripts of the folder: what cannot be measured is an error of the argument that asked."""

import json
import os
import sys
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

import gpbo
from gpbo_benchmarks import (
    crossover,
    replications,
    script,
    speed,
    stored,
    thompson,
    utilisation,
)
from tests.monte_carlo import unchecked_shapes

COUNT = "expected a whole number, 1 or more"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("speed --repeats 0", f"argument --repeats: '0': {COUNT}"),
        ("speed --case 50", "argument --case: expected n,d for suggestion"),
        ("speed --case 50,x", f"argument --case: 'x': {COUNT}"),
        ("speed updates --case 50,6", "argument --case: expected runs,n,d for updates"),
        (
            "speed thompson --case 1,50,6",
            "argument --case: thompson does not take it: expected one of su",
        ),
        (
            "speed --device cpu",
            "argument --device: suggestion does not take it: expected one of thompson",
        ),
        (
            "speed profile --device cpu",
            "argument --device: profile does not take it: expected one of th",
        ),
        (
            "speed updates --peer-runs 2",
            "argument --peer-runs: updates does not take it: expected one of",
        ),
        (
            "replications --problem gardner",
            "argument --problem: 'gardner': expected a problem without",
        ),
        ("thompson_rounds --seeds 0", f"argument --seeds: '0': {COUNT}"),
        ("thompson_rounds --first-seed -1", "'-1': expected a whole number, 0 or more"),
        ("utilisation --budget 0", f"argument --budget: '0': {COUNT}"),
        ("utilisation --budget 8", "argument --budget: 8: expected more than --workers"),
        ("utilisation --seconds nan", "'nan': expected a number, 0.0 or more"),
        ("utilisation --mode step", "argument --mode: invalid choice: 'step'"),
        ("crossover --repeats 0", COUNT),
        ("kandasamy --runs 0", COUNT),
        ("kandasamy --share 0", "expected a number, 0.01 or more"),
        ("kills --kills 0", COUNT),
        ("kandasamy --device tpu", "argument --device: device='tpu': expected 'auto', 'cpu'"),
        ("replications --device cuda:99", "argument --device: device='cuda:99':"),
        ("speed updates --device x", "argument --device: device='x':"),
        ("replications --budget x", COUNT),
        ("storage --trials 0", COUNT),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_by_name(
    command: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *_ = command.split()
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit, match="2"):
        import_module(f"gpbo_benchmarks.{name}").main()
    assert message in capsys.readouterr().err


def test_what_the_peer_lacks_is_said_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speed, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["speed"])
    with pytest.raises(SystemExit, match="2"):
        speed.main()
    assert "numpyro is not installed" in capsys.readouterr().err


def test_shares_are_of_the_time_of_all_workers() -> None:
    """Two workers; both have a trial from 1 on, and the last trial begins at 4."""
    steady, whole = utilisation.shares([[3.5, 6.0], [0.0, 4.0], [4.0, 5.0], [1.0, 3.0]], 2)
    assert steady == pytest.approx((3.0 + 2.0 + 0.5) / (2 * 3))
    assert whole == pytest.approx((4.0 + 2.0 + 2.5 + 1.0) / (2 * 6))


def test_a_crossover_has_the_fewest_runs_at_which_the_gpu_was_faster() -> None:
    """With 128 results no fewer than with 64, which the table says already; with 512 never."""
    faster = {(32, 16), (32, 32), (64, 8), (64, 16), (128, 8), (256, 2)}
    rows = [
        {
            "results": results,
            "runs": runs,
            "cpu_s": 2.0,
            "gpu_s": 3.0 - 2 * ((results, runs) in faster),
        }
        for results in (32, 64, 128, 256, 512)
        for runs in (1, 2, 4, 8, 16, 32)
    ]
    assert crossover.table(rows) == ((32, 16), (64, 8), (256, 2))
    assert crossover.table(rows[-6:]) == ()


def test_the_loading_of_a_peer_is_not_in_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpbo_benchmarks import botorch_loop, throughput

    seconds = iter([20.0, 6.0])
    data = throughput.data_of(2, 5, 2, torch.device("cpu"))
    fit = SimpleNamespace(report=SimpleNamespace(leapfrog_steps=torch.ones(2), status=["ok"] * 2))
    monkeypatch.setattr(throughput, "find_spec", lambda name: name)
    monkeypatch.setattr(throughput, "updating", lambda *case: (data, 1.0, lambda index: fit))
    monkeypatch.setattr(botorch_loop, "fully_bayesian_fit", lambda x, y: (next(seconds), x))
    assert throughput.updates(2, 5, 2, 1, torch.device("cpu"))["botorch_s"] == 6.0


def test_of_many_results_too_an_update_is_one_by_chains_that_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpbo_benchmarks import throughput

    monkeypatch.setattr("gpbo.warm_start.MANY", 1)
    with unchecked_shapes():
        _, _, update = throughput.updating(2, 7, 2, torch.device("cpu"))
        assert (update(0).report.leapfrog_steps > 0).all()


def test_both_sides_of_a_growing_run_have_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpbo_benchmarks import botorch_loop

    seen: list[torch.Tensor] = []

    def peer(x: torch.Tensor, y: torch.Tensor) -> Any:
        seen.append(x)
        return SimpleNamespace(fit_s=100.0, acquisition_s=50.0)

    monkeypatch.setattr(botorch_loop, "suggest_with_map", peer)
    with unchecked_shapes():
        row = speed.grown(7, 2, 3, "map")
    assert [len(x) for x in seen] == [5, 7, 8, 9, 10]
    assert torch.equal(seen[4][:9], seen[3])
    assert len(seen[4].unique(dim=0)) == 10
    assert (row["inference"], row["botorch_map_s"]) == ("map", 150.0)
    assert 0 < row["gpbo_fit_s"] < row["gpbo_s"] < 150.0
    assert row["ratio"] == pytest.approx(150.0 / row["gpbo_s"])


def test_a_suggestion_is_one_with_nothing_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpbo_benchmarks import botorch_loop

    pending: list[int] = []
    ask = gpbo.Optimizer.ask

    def noting(optimizer: gpbo.Optimizer, *asked: Any, **options: Any) -> Any:
        pending.append(len(optimizer.pending))
        return ask(optimizer, *asked, **options)

    peer = SimpleNamespace(fit_s=100.0, acquisition_s=50.0)
    monkeypatch.setattr(botorch_loop, "suggest_with_map", lambda x, y: peer)
    monkeypatch.setattr(gpbo.Optimizer, "ask", noting)
    with unchecked_shapes():
        row = speed.suggestion(7, 2, 3)
    assert pending == [0] * 4
    assert row["botorch_map_s"] == 150.0
    assert row["ratio"] == pytest.approx(150.0 / row["gpbo_s"])


def test_figures_are_kept_with_the_commit_at_which_their_measurement_began(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And with its command, but for the folders of what it keeps."""
    commits = iter(["first", "second"])
    monkeypatch.setattr(script, "machine", lambda: {"commit": next(commits)})
    folder = tmp_path / "new" / "folder"
    argv = ["a/speed.py", "growth", "--output", str(folder), "--case", "9,2", f"--keep={tmp_path}"]
    monkeypatch.setattr(sys, "argv", argv)
    keep = script.begin(folder)
    next(commits)
    keep("growth", {"ratio": 2.0})
    kept = json.loads((folder / "growth.json").read_text())
    command = "python benchmarks/speed.py growth --case 9,2"
    assert kept == {"machine": {"commit": "first", "command": command}, "figures": {"ratio": 2.0}}
    assert [path.name for path in folder.iterdir()] == ["growth.json"]
    assert str(folder / "growth.json") in capsys.readouterr().out


def test_the_loading_of_either_side_is_in_no_seconds_of_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpbo_benchmarks import botorch_loop

    info = SimpleNamespace(rhat=torch.ones(1), ess_bulk=torch.ones(1), ess_tail=torch.ones(1))
    ours = iter([50.0, 3.0, 2.0, 2.0, 2.0])
    theirs, kept = iter([20.0, 6.0]), torch.randn(16, 3)
    draws = SimpleNamespace(info=info)
    monkeypatch.setattr(speed, "timed_draws", lambda *asked: (next(ours), draws))
    monkeypatch.setattr(botorch_loop, "fully_bayesian_fit", lambda x, y: (next(theirs), kept))
    found = speed.sampling(7, 2, 1)
    assert (found["cold_s"], found["warm_s"], found["botorch_s"]) == (3.0, 2.0, 6.0)


def test_the_loading_of_the_peer_is_not_in_the_seconds_of_its_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gpbo_benchmarks import botorch_loop

    told: list[Any] = []

    class Noted(replications.Moment):
        def __init__(self) -> None:
            super().__init__()
            told.append("moment")

    def minimize(problem: Any, design: torch.Tensor, budget: int, seed: int) -> torch.Tensor:
        told.append((seed, budget))
        return problem(design)

    monkeypatch.setattr(replications, "Moment", Noted)
    monkeypatch.setattr(botorch_loop, "minimize_with_map", minimize)
    problem = gpbo.problems.get("branin")
    design = gpbo.replicate(problem, strategy="sobol", runs=3, budget=5, progress=False)
    replications.with_botorch(problem, design, 11, 2)
    assert told == [(0, 6), "moment", (0, 11), (1, 11), "moment"]


def test_many_runs_are_kept_by_the_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured on a GPU does not take the place of what is in the table."""
    saved: list[str] = []
    row = {"seconds": 1.0, "runs": 1}
    monkeypatch.setattr(gpbo, "replicate", lambda *_, **__: None)
    monkeypatch.setattr(replications, "with_gpbo", lambda *_, **__: dict(row))
    monkeypatch.setattr(replications, "with_botorch", lambda *_: dict(row))
    keep = lambda output: lambda name, figures: saved.append(name)  # noqa: E731
    monkeypatch.setattr(replications.script, "begin", keep)
    monkeypatch.setattr(sys, "argv", ["replications", "--device", "cpu"])
    replications.main()
    asked: list[Any] = []

    def resolve(device: str, **sizes: int) -> torch.device:
        asked.append((device, sizes))
        return torch.device("cuda")

    monkeypatch.setattr(replications.script, "known_device", str)
    monkeypatch.setattr(replications, "resolve_device", resolve)
    for device in ("cuda", "auto"):
        monkeypatch.setattr(sys, "argv", ["replications", "--device", device, "--runs", "7"])
        replications.main()
    assert saved == [stored.TABLES["replications"].file, *["replications_branin-cuda"] * 2]
    # "auto" decides by the sizes, as `gpbo.replicate` does.
    assert asked == [(device, {"runs": 7, "results": 30}) for device in ("cuda", "auto")]


def test_what_was_measured_of_many_runs_before_the_end_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever has no time for all of it, such as `gpu_check.sh`, ends the script."""

    def measured(*_: Any, inference: str, runs: int, **how: Any) -> dict[str, Any]:
        if inference == "map":
            raise KeyboardInterrupt
        return {"method": inference, "runs": runs}

    monkeypatch.setattr(gpbo, "replicate", lambda *_, **__: None)
    monkeypatch.setattr(replications, "with_gpbo", measured)
    monkeypatch.setattr(sys, "argv", ["replications", "--device", "cpu", "--runs", "7"])
    with pytest.raises(KeyboardInterrupt):
        replications.main()
    printed = capsys.readouterr().out
    assert "{'method': 'hmc', 'runs': 7}\n{'method': 'hmc', 'runs': 1}\n" in printed


def test_the_memory_of_a_gpu_is_what_was_taken_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What graphs keep for their replays is no tensor's; what the loading left is given back."""
    cuda = mock.MagicMock()
    taken = iter([3 * 2**20, 14 * 2**20])
    cuda.memory_reserved.side_effect = cuda.max_memory_reserved.side_effect = lambda: next(taken)
    monkeypatch.setattr(torch, "cuda", cuda)
    before = thompson._memory_begun("cuda")
    assert [call[0] for call in cuda.mock_calls[:2]] == ["empty_cache", "reset_peak_memory_stats"]
    assert thompson._most_memory("cuda") - before == 11


def test_a_process_that_dies_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thompson, "measure", os._exit)
    with pytest.raises(BrokenProcessPool):
        thompson._apart(3)


@pytest.mark.filterwarnings("ignore")  # the peer's, of values that it would have otherwise
def test_the_draws_of_the_peer_are_of_all_that_it_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpyro", reason="NumPyro is not installed: pip install 'gpbo[bench]'")
    from gpbo_benchmarks import botorch_loop

    drawn = {"lengthscale": torch.rand(5, 3) + 0.1, "noise": torch.rand(5) + 0.1}
    drawn["mean"] = torch.randn(5)
    found = {name: values.double() for name, values in drawn.items()}
    monkeypatch.setattr(
        "botorch.fit.fit_fully_bayesian_model_nuts",
        lambda model, **_: model.load_mcmc_samples(found),
    )
    _, kept = botorch_loop.fully_bayesian_fit(*speed.data(7, 3))
    lengthscales, noise, mean = kept.split([3, 1, 1], -1)
    assert torch.allclose(lengthscales.exp(), found["lengthscale"])
    assert torch.allclose(noise[:, 0].exp(), found["noise"])
    assert torch.equal(mean[:, 0], found["mean"])

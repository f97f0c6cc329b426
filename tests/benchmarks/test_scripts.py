"""The scripts of the folder: what cannot be measured is an error of the argument that asked."""

import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

from gpbo_benchmarks import crossover, utilisation

COUNT = "expected a whole number, 1 or more"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("speed --repeats 0", f"argument --repeats: '0': {COUNT}"),
        ("speed --case 50", "argument --case: expected n,d for suggestion"),
        ("speed --case 50,x", f"argument --case: 'x': {COUNT}"),
        ("speed updates --case 50,6", "argument --case: expected runs,n,d for updates"),
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
    from gpbo_benchmarks import speed

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

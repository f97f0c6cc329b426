"""The scripts of the folder: what cannot be measured is an error of the argument that asked."""

import sys
from importlib import import_module

import pytest

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

"""The catalogue of the peers, where each is installed, and what is said where it is not."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gpbo
import gpbo_benchmarks.peers.environments as environments
from gpbo_benchmarks.peers import PEERS, Peer, PeerFailure, installed, run_peer, why_not
from gpbo_benchmarks.peers.__main__ import app
from gpbo_benchmarks.trace import Evaluation

ROOT = Path(__file__).parents[2]
PINS = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;]+)$")


def pinned(environment: str) -> dict[str, str]:
    """Every line of a peer's requirements that is no comment, as name and version."""
    lines = [
        line
        for path in environments.REQUIREMENTS.glob(f"{environment}*.txt")
        if path.name in (f"{environment}.txt", f"{environment}.no-deps.txt")
        for line in path.read_text().splitlines()
        if not line.startswith("#")
    ]
    matches = [PINS.match(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return {match[1].lower(): match[2] for match in matches if match}


@pytest.mark.parametrize("peer", PEERS.values(), ids=list(PEERS))
def test_what_is_known_of_a_peer(peer: Peer) -> None:
    file, _, name = peer.adapter.partition(":")
    source = (environments.HERE / "adapters" / file).read_text()
    assert f"class {name}(" in source
    assert not re.search(r"^(import|from) gpbo", source, re.MULTILINE)
    assert PEERS[peer.name] is peer
    assert peer.citation
    assert peer.licence
    assert peer.settings
    assert set(peer.needs) <= set(peer.distributions)
    versions = pinned(peer.environment)
    assert {name.lower() for name in peer.distributions} <= set(versions)
    assert bool(peer.extra) != bool(peer.not_beside_gpbo)


def test_the_extras_name_the_versions_of_the_environments() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for peer in PEERS.values():
        if peer.extra is None:
            continue
        first = extras[peer.extra][0]
        name, _, version = first.partition("==")
        assert name.split("[")[0] == peer.distributions[0]
        assert version == pinned(peer.environment)[peer.distributions[0].lower()]
    listed = {peer.extra for peer in PEERS.values() if peer.extra} | {"peer-numpyro"}
    assert set(re.findall(r"peer-\w+", " ".join(extras["peers"]))) == listed


def test_torch_is_the_tests_own() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    for environment in environments.environments():
        if "torch" in pinned(environment):
            assert f"\ntorch=={pinned(environment)['torch']}\n" in constraints


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Python without any package, in the place of every environment."""
    monkeypatch.setenv("GPBO_PEERS", str(tmp_path))
    for environment in environments.environments():
        python = tmp_path / environment / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
        python.chmod(0o755)
    return tmp_path


@pytest.mark.usefixtures("nothing_installed")
def test_a_peer_that_is_not_installed_is_a_trace_that_says_how_to() -> None:
    peer = PEERS["smac-gp"]
    assert installed(peer) is None
    missing = (
        "smac is not installed: run python -m gpbo_benchmarks.peers install smac "
        "or pip install 'gpbo[peer-smac]'"
    )
    assert why_not(peer) == missing
    trace = run_peer(
        "smac-gp",
        space=gpbo.Space(gpbo.Real("x", 0.0, 1.0)),
        evaluate=lambda params, index: Evaluation(0.0, 0.0),
        design=[],
        budget=3,
        seed=0,
    )
    assert trace.failure == f"smac-gp: {missing}"
    assert trace.params == ()


@pytest.mark.usefixtures("nothing_installed")
def test_hebo_says_why_it_has_no_extra() -> None:
    missing = why_not(PEERS["hebo"])
    assert missing is not None
    assert "numpy < 1.25" in missing
    assert "pip install 'gpbo" not in missing
    assert missing.endswith("python -m gpbo_benchmarks.peers install hebo")


def test_botorch_beside_gpbo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPBO_PEERS", str(tmp_path / "none"))
    peer = PEERS["botorch-ei"]
    assert environments.interpreter(peer) == Path(sys.executable)
    versions = installed(peer)
    assert versions is not None
    assert versions["torch"] == version("torch")
    assert why_not(peer) is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"GPBO_PEERS": "/a"}, "/a"),
        ({"GPBO_PEERS": "", "XDG_CACHE_HOME": "/b"}, "/b/gpbo/peers"),
        ({"HOME": "/c"}, "/c/.cache/gpbo/peers"),
    ],
)
def test_where_the_environments_are(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("GPBO_PEERS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environments.folder() == Path(expected)


def test_whoever_has_no_home_has_the_peers_that_are_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("GPBO_PEERS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", none)
    assert environments.interpreter(PEERS["cmaes"]) == Path(sys.executable)
    assert environments.folder().is_relative_to(sys.prefix)


def test_an_environment_that_there_is_not() -> None:
    with pytest.raises(PeerFailure, match="'smak': expected one of ax, botorch, cmaes, hebo"):
        environments.install("smak")


@pytest.mark.usefixtures("nothing_installed")
def test_install_hands_pip_the_pinned_files(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert "PYTHONPATH" not in dict(options["env"])  # type: ignore[call-overload]
        calls.append(command[4:])
        return subprocess.CompletedProcess(command, returncode=int("ax.txt" in command[-1]))

    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.setattr(subprocess, "run", pip)
    environments.install("hebo")
    files = [environments.REQUIREMENTS / name for name in ("hebo.txt", "hebo.no-deps.txt")]
    assert calls == [
        ["--quiet", "-r", str(files[0])],
        ["--quiet", "--no-deps", "-r", str(files[1])],
    ]
    with pytest.raises(PeerFailure, match=r"pip could not install ax\.txt: exit code 1"):
        environments.install("ax")


@pytest.mark.usefixtures("nothing_installed")
def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    runner = CliRunner()
    table = runner.invoke(app, ["list"]).output
    assert all(name in table for name in PEERS)
    assert "pip install 'gpbo[peer-ax]'" in table
    about = runner.invoke(app, ["about", "trust-region"]).output
    assert "the authors' code, which is not for commercial use, was not used" in about
    assert runner.invoke(app, ["about", "turbo"]).exit_code == 2
    wrong = runner.invoke(app, ["install", "smak"])
    assert wrong.exit_code == 1
    assert "'smak'" in wrong.output

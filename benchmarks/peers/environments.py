"""Where a peer is installed: in an environment of its own, or with the running interpreter.

    python -m gpbo_benchmarks.peers install smac

makes an environment with the exact versions of ``requirements/smac.txt``, in the folder that
``GPBO_PEERS`` names (by default ``~/.cache/gpbo/peers``). If it exists, it is used; else the peer
must be installed alongside gpbo, with gpbo's extra for it.
"""

import json
import os
import subprocess
import sys
import venv
from functools import cache
from pathlib import Path

from .adapters.serve import versions
from .conversation import environment
from .failure import PeerFailure
from .peer import Peer

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements"

_LOOK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from adapters.serve import versions
print(json.dumps(versions(sys.argv[2:])))
"""


def folder() -> Path:
    """Where the peers' environments are."""
    given = os.environ.get("GPBO_PEERS")
    if given:
        return Path(given)
    try:
        cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # the user has no home, as in some containers
        cache_home = Path(sys.prefix) / ".cache"
    return cache_home / "gpbo" / "peers"


def environments() -> tuple[str, ...]:
    """The environments that `install` can make."""
    return tuple(
        sorted(path.stem for path in REQUIREMENTS.glob("*.txt") if "no-deps" not in path.name)
    )


def interpreter(peer: Peer) -> Path:
    """The Python that a peer runs in: of its own environment, if that was made."""
    own = folder() / peer.environment / "bin" / "python"
    return own if own.exists() else Path(sys.executable)


def installed(peer: Peer) -> dict[str, str] | None:
    """The versions of a peer's packages, where it would run; None if it is not installed there."""
    return None if _missing(peer) else dict(_versions(interpreter(peer), peer.distributions))


def why_not(peer: Peer) -> str | None:
    """Why a peer cannot run and what to do about it; None if it can."""
    if not hasattr(os, "killpg"):  # Windows, where what a peer starts would outlive it
        return "peers need a system with process groups, such as Linux or macOS"
    missing = _missing(peer)
    if not missing:
        return None
    ways = [f"python -m gpbo_benchmarks.peers install {peer.environment}"]
    if peer.extra:
        ways.append(f"pip install 'gpbo[{peer.extra}]'")
    reason = f" ({peer.not_beside_gpbo})" if peer.not_beside_gpbo else ""
    verb = "is" if len(missing) == 1 else "are"
    return f"{' and '.join(missing)} {verb} not installed{reason}: run {' or '.join(ways)}"


def install(name: str) -> Path:
    """Make an environment, or update it to the versions that its requirements name.

    Raises:
        PeerFailure: There is no such environment, or pip failed.
    """
    if name not in environments():
        raise PeerFailure(f"environment={name!r}: expected one of {', '.join(environments())}")
    home = folder() / name
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    _pip(python, REQUIREMENTS / f"{name}.txt")
    # Packages that pin versions needlessly: their dependencies are in the first file.
    alone = REQUIREMENTS / f"{name}.no-deps.txt"
    if alone.exists():
        _pip(python, alone, "--no-deps")
    _versions.cache_clear()
    return home


def _pip(python: Path, requirements: Path, *options: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", *options, "-r", str(requirements)]
    ran = subprocess.run(command, env=environment(1), check=False)
    if ran.returncode:
        raise PeerFailure(f"pip could not install {requirements.name}: exit code {ran.returncode}")


def _missing(peer: Peer) -> list[str]:
    """What a peer needs and lacks, where it would run."""
    found = _versions(interpreter(peer), peer.distributions)
    return [name for name in peer.needs if name not in found]


@cache
def _versions(python: Path, distributions: tuple[str, ...]) -> dict[str, str]:
    """What is installed for an interpreter."""
    if python == Path(sys.executable):
        return versions(list(distributions))
    command = [str(python), "-c", _LOOK, str(HERE), *distributions]
    ran = subprocess.run(command, env=environment(1), capture_output=True, text=True, check=False)
    found: dict[str, str] = json.loads(ran.stdout) if ran.returncode == 0 else {}
    return found

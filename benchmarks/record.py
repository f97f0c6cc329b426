"""Where and with what a figure was measured, saved beside the figure."""

import datetime
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gpbo.archive import write_text

PACKAGES = ("gpbo", "torch", "gpytorch", "botorch", "numpyro", "jax")
RESULTS = Path(__file__).resolve().parent / "results"
_ROOT = RESULTS.parent.parent


def machine() -> dict[str, Any]:
    """Processor, cores and threads, device, versions, commit."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
    }


def is_checkout() -> bool:
    """Whether this file is in the repository, and not in an installed package."""
    return (_ROOT / "pyproject.toml").exists()


def save(name: str, figures: Any, where: Mapping[str, Any], folder: Path) -> Path:
    """Write ``<name>.json``, which appears when it is complete.

    Args:
        where: What `machine` returned before anything was measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_text(path, json.dumps({"machine": where, "figures": figures}, indent=1) + "\n")
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    """The commit of this file's checkout, with a hash of changes and additions to the code since.

    An installed package has none.
    """
    if not is_checkout():
        return "unknown"
    found = _git(_ROOT, "describe", "--always").strip() or "unknown"
    code = ("gpbo/*.py", "benchmarks/*.py", "pyproject.toml")
    changed = _git(_ROOT, "diff", "HEAD", "--", *code)
    added = _git(_ROOT, "ls-files", "-z", "--others", "--exclude-standard", "--", *code)
    changed += "".join(name + (_ROOT / name).read_text() for name in added.split("\0") if name)
    return f"{found}-dirty-{hashlib.sha256(changed.encode()).hexdigest()[:6]}" if changed else found


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:  # there is no git
        return ""

"""What `benchmarks/gpu_check.sh` runs has to start where only torch, gpytorch and botorch are."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CODE = """
import runpy, sys
class Bare:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *where):
        return None if name in lacking else self.finder.find_spec(name, *where)
lacking = set(sys.argv[2:]) - {"jaxtyping"}  # the folder has one
sys.meta_path[:] = map(Bare, sys.meta_path)
sys.path[:0] = ["benchmarks/bare", ".", sys.argv[1]]
import tests.test_gpu
for script in ("crossover", "replications", "speed"):
    runpy.run_path(f"benchmarks/{script}.py", run_name="started")
try:
    import gpbo_benchmarks.numpyro_sampler
except ModuleNotFoundError as error:
    assert error.name in ("jax", "numpyro"), error  # which may be all that is lacking
"""


def closure(*names: str) -> set[str]:
    """These distributions and all that they cannot do without."""
    found, left = set[str](), list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        try:
            needed = [Requirement(need) for need in requires(name) or []]
        except PackageNotFoundError:
            continue
        found.add(name)
        plain = {"extra": ""}
        left += [need.name for need in needed if not need.marker or need.marker.evaluate(plain)]
    return found


def test_the_gpu_tests_and_the_scripts_start_on_a_bare_machine(tmp_path: Path) -> None:
    there = closure("torch", "gpytorch", "botorch")
    lacking = [
        module
        for module, owners in packages_distributions().items()
        if there.isdisjoint(map(canonicalize_name, owners))
        and module.isidentifier()
        and module not in ("gpbo", "gpbo_benchmarks", "tests", "benchmarks")
        and not module.startswith("_")
    ]
    assert {"jaxtyping", "typer", "pandas", "rich", "psutil", "pytest"} <= set(lacking)
    (tmp_path / "gpbo_benchmarks").symlink_to(ROOT / "benchmarks")
    command = [sys.executable, "-c", CODE, str(tmp_path), *lacking]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

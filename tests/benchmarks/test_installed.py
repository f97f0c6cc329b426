"""`gpbo bench` from a wheel, far from the checkout."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with gpbo and nothing else in it, installed from a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "site"
    source.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in ("gpbo", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    build = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-q"]
    subprocess.run([*build, "-w", ".", "./source"], check=True, cwd=folder, capture_output=True)
    (wheel,) = folder.glob("gpbo-*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "-q", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, cwd=folder, capture_output=True)
    return target


def test_suites_are_there_from_an_installed_package(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import gpbo_benchmarks.suites as suites\n"
        "from gpbo.cli import main\n"
        "assert suites.__file__.startswith(sys.path[0]), suites.__file__\n"
        "main()"
    )
    command = [sys.executable, "-P", "-c", code, str(installed), "bench", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "synthetic" in done.stdout


def test_everything_of_both_packages_is_in_the_wheel(installed: Path) -> None:
    for name, folder in (("gpbo", "gpbo"), ("gpbo_benchmarks", "benchmarks")):
        ours = {
            path.relative_to(ROOT / folder)
            for path in (ROOT / folder).rglob("*.py")
            if "bare" not in path.parts
        }
        theirs = {path.relative_to(installed / name) for path in (installed / name).rglob("*.py")}
        assert theirs == ours
    stored = {path.name for path in (ROOT / "benchmarks" / "results").iterdir() if path.is_file()}
    there = installed / "gpbo_benchmarks" / "results"
    assert {path.name for path in there.iterdir()} == stored
    assert not (installed / "benchmarks").exists()
    assert not (installed / "tests").exists()


def test_the_packages_are_all_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join([name, *path.parent.relative_to(ROOT / folder).parts])
        for name, folder in (("gpbo", "gpbo"), ("gpbo_benchmarks", "benchmarks"))
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(listed) == found

"""Where a figure was measured: the commit tells one state of the code from another."""

import subprocess
from pathlib import Path

import pytest

from gpbo_benchmarks import record


def test_code_that_was_changed_or_added_since_the_commit_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_ROOT", tmp_path)

    def written(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return record._commit()

    written("pyproject.toml", "")
    written(".gitignore", "ignored.py")
    written("gpbo/old.py", "1")
    written("tests/old.py", "2")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    clean = record._commit()
    assert "dirty" not in clean
    for name in ("gpbo/ignored.py", "notes.py", "benchmarks/notes.txt", "tests/old.py"):
        assert written(name, "1") == clean
    states = [
        written("gpbo/old.py", "2"),
        written("gpbo/mcmc/new.py", "1"),
        written("gpbo/mcmc/new.py", "2"),
        written("benchmarks/new.py", "1"),
    ]
    assert all(state.startswith(f"{clean}-dirty-") for state in states)
    assert len(set(states)) == 4

"""Where the time of an update goes: every second of it is somewhere."""

import pytest
import torch

from gpbo import memory, parallel
from gpbo_benchmarks.shares import shares

PARTS = ("factors", "inverses", "products", "kernel", "other", "python")


def test_the_shares_are_of_the_whole_time() -> None:
    row = shares(runs=2, n=7, dim=3, repeats=1)
    assert all(row[part] > 0 for part in PARTS)
    assert sum(row[part] for part in PARTS) == pytest.approx(1)
    assert row["steps"] > 0


def test_all_of_the_time_is_that_of_the_thread_that_is_profiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In several parts, which others would take."""
    monkeypatch.setattr(memory, "_CPU_BYTES", 1000)
    monkeypatch.setattr(parallel, "_pool", pytest.fail)
    torch.set_num_threads(3)
    row = shares(runs=1, n=7, dim=3, repeats=1)
    assert sum(row[part] for part in PARTS) == pytest.approx(1)

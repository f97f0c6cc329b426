"""Where the time of an update goes: every second of it is somewhere."""

import pytest

from gpbo_benchmarks.shares import shares

PARTS = ("factors", "inverses", "products", "kernel", "other", "python")


def test_the_shares_are_of_the_whole_time() -> None:
    row = shares(runs=2, n=7, dim=3, repeats=1)
    assert all(row[part] > 0 for part in PARTS)
    assert sum(row[part] for part in PARTS) == pytest.approx(1)
    assert row["steps"] > 0

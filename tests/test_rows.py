"""Rows of records of tensors, by number."""

import pytest
import torch

from gpbo.rows import bucket, room_for

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_cpu_computes_the_rows_chosen_and_no_other() -> None:
    rows, count = bucket(torch.tensor([False, True, True, False, True]))
    assert (rows.tolist(), count) == ([1, 2, 4], 3)


@pytest.mark.parametrize(("chosen", "rows"), [([1, 2, 4], [1, 2, 4, 4]), ([3], [3])])
def test_the_last_row_fills_the_bucket(
    monkeypatch: pytest.MonkeyPatch, chosen: list[int], rows: list[int]
) -> None:
    monkeypatch.setattr("gpbo.rows.room_for", lambda count, device: room_for(count, GPU))
    which = torch.zeros(7, dtype=torch.bool)
    which[chosen] = True
    found, count = bucket(which)
    assert (found.tolist(), count) == (rows, len(chosen))


def test_a_bucket_has_no_more_rows_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpbo.rows.room_for", lambda count, device: room_for(count, GPU))
    found, count = bucket(torch.ones(5, dtype=torch.bool))
    assert (found.tolist(), count) == ([0, 1, 2, 3, 4], 5)


def test_a_gpu_has_few_sizes() -> None:
    assert {room_for(count, GPU) for count in range(1, 65)} == {1, 2, 4, 8, 16, 32, 64}
    assert all(room_for(count, CPU) == count for count in range(1, 65))

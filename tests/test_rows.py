"""Rows of records of tensors, by number."""

from typing import Any

import numpy as np
import pytest
import torch

from gpbo.lockstep import replicate
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


def test_a_run_of_a_padded_batch_is_the_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated rows take no random numbers of the run that they repeat."""
    options: dict[str, Any] = {"budget": 13, "initial": 5, "progress": False}
    alone = replicate("branin", runs=1, seed=4, **options)
    monkeypatch.setattr("gpbo.rows.room_for", lambda count, device: room_for(count, GPU))
    batch = replicate("branin", runs=5, **options)
    np.testing.assert_allclose(batch.values[4], alone.values[0], rtol=1e-6)

"""The iterative tree against the recursive one, and masks that must not leak."""

import pytest
import torch

from gpbo.backend import DTYPE, Streams
from gpbo.mcmc.nuts import checkpoint_table
from gpbo.mcmc.sampling import Schedule, Warmth, sample


def recursive_pairs(first: int, depth: int) -> set[tuple[int, int]]:
    """First and last leaf of every subtree of two leaves or more."""
    if depth == 0:
        return set()
    half = 2 ** (depth - 1)
    pairs = recursive_pairs(first, depth - 1) | recursive_pairs(first + half, depth - 1)
    return pairs | {(first, first + 2 * half - 1)}


@pytest.mark.parametrize("depth", range(1, 9))
def test_the_checkpoints_compare_what_the_recursion_compares(depth: int) -> None:
    stored, compared = checkpoint_table(depth + 1, torch.device("cpu")).unbind(1)
    slots: dict[int, int] = {}
    pairs = set()
    for leaf in range(2**depth):
        pairs |= {(slots[int(slot)], leaf) for slot in compared[leaf].nonzero()}
        for slot in stored[leaf].nonzero():
            slots[int(slot)] = leaf
        assert int(stored[leaf].sum()) == (leaf + 1) % 2, "just the even leaves are stored"
    assert pairs == recursive_pairs(0, depth)


def normal(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return -0.5 * u.square().sum(-1), -u


def warmth(runs: int, chains: int, dim: int, step: float = 0.5) -> Warmth:
    return Warmth(
        position=Streams.named(3, "start", runs=runs).normal(chains, dim),
        step_size=torch.full((runs,), step, dtype=DTYPE),
        scale=torch.eye(dim, dtype=DTYPE).expand(runs, dim, dim),
    )


def test_a_run_in_a_batch_draws_what_it_draws_alone() -> None:
    schedule = Schedule(windows=(5,), settle=3, draws=7)
    batch = sample(normal, warmth(3, 2, 5), schedule, Streams.named(0, "nuts", runs=3))
    alone = warmth(3, 2, 5)
    for run in range(3):
        start = Warmth(alone.position[[run]], alone.step_size[[run]], alone.scale[[run]])
        streams = Streams.named(0, "nuts", runs=3).select([run])
        single = sample(normal, start, schedule, streams)
        torch.testing.assert_close(single.position[0], batch.position[run], rtol=0, atol=1e-9)
        torch.testing.assert_close(single.steps[0], batch.steps[run])


def test_a_region_without_a_density_is_rejected_and_harms_no_other_chain() -> None:
    def walled(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, slope = normal(u)
        beyond = u[:, 0] > 0.7
        return value.masked_fill(beyond, torch.nan), slope.masked_fill(beyond[:, None], torch.nan)

    start = warmth(1, 5, 2)
    start.position[0, :, 0] = torch.tensor([0.5, 0.2, -1.0, -5.0, 0.1], dtype=DTYPE)
    draws = sample(walled, start, Schedule(windows=(), settle=0, draws=200), Streams([0]))
    assert bool(torch.isfinite(draws.position).all())
    assert float(draws.position[..., 0].max()) <= 0.7
    assert float(draws.diverged.sum()) > 0
    # A normal cut off at 0.7 has mean -phi(0.7) / Phi(0.7).
    assert float(draws.position[..., 0].mean()) == pytest.approx(-0.412, abs=0.12)


def test_every_chain_has_its_number_of_draws_and_a_limited_depth() -> None:
    schedule = Schedule(windows=(), settle=0, draws=11, max_depth=3)
    draws = sample(normal, warmth(2, 3, 5, step=1e-3), schedule, Streams([0, 1]))
    assert draws.position.shape == (2, 3, 11, 5)
    assert bool((draws.steps == 7).all()), "steps too small to turn fill the tree"
    assert bool((draws.saturated == 1).all())

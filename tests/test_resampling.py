"""Weights of the last chains, and resampling by them: shares of modes, and what stays in place."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpbo.backend import DTYPE, Streams
from gpbo.evidence import LogPosterior
from gpbo.mcmc.sampling import Warmth
from gpbo.resampling import has_moved, resampled, weighed
from tests.monte_carlo import random_normal, random_uniform, unchecked_shapes

RUNS, CHAINS, DIM = 3, 7, 2


@pytest.fixture(autouse=True)
def _unchecked() -> Iterator[None]:
    """The densities are plain functions."""
    with unchecked_shapes():
        yield


def warmth(runs: int = RUNS, chains: int = CHAINS) -> Warmth:
    position = random_normal(0, runs, chains, DIM)
    return Warmth(
        position,
        -0.5 * position.square().sum(-1),
        torch.ones(runs, dtype=DTYPE),
        torch.eye(DIM, dtype=DTYPE).expand(runs, -1, -1),
    )


def streams(seed: int = 0, runs: int = RUNS) -> Streams:
    return Streams.named(seed, "resampling", runs=runs)


def slots(before: Warmth, after: Warmth) -> Tensor:
    """Where every chain came from."""
    same = (after.position[:, :, None] == before.position[:, None]).all(-1)
    assert (same.sum(-1) == 1).all()
    return same.long().argmax(-1)


def density(shift: float) -> LogPosterior:
    """A standard normal whose mean has moved along the first axis."""

    def value(u: Tensor) -> tuple[Tensor, Tensor]:
        offset = u - torch.tensor([shift, 0.0], dtype=DTYPE)
        return -0.5 * offset.square().sum(-1), -offset

    return value  # type: ignore[return-value]


def test_weights_are_the_ratio_of_the_densities() -> None:
    chains = warmth()
    weight = weighed(chains, density(0.5))
    expected = torch.softmax(0.5 * chains.position[..., 0], -1)
    torch.testing.assert_close(weight, expected)
    assert not has_moved(weighed(chains, density(0.0))).any()
    assert has_moved(weighed(chains, density(9.0))).all()


def test_chains_without_a_density_weigh_nothing_and_a_run_of_them_has_moved() -> None:
    chains = warmth()
    chains.position[0, 3] = math.inf
    chains.position[1] = math.inf
    chains.value[2, 4] = -math.inf
    weight = weighed(chains, density(0.0))
    assert weight[0, 3] == 0
    assert weight[1].isnan().all()
    torch.testing.assert_close(weight[2], torch.full((CHAINS,), 1 / CHAINS, dtype=DTYPE))
    assert has_moved(weight).tolist() == [False, True, False]
    after = resampled(chains, weight, streams())
    assert torch.isfinite(after.position[0]).all()
    assert torch.equal(after.position[1:], chains.position[1:])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), chains=st.integers(1, 19), spread=st.floats(0.0, 2.0))
def test_numbers_are_proportional_to_weights_and_survivors_stay(
    seed: int, chains: int, spread: float
) -> None:
    before = warmth(chains=chains)
    weight = torch.softmax(spread * random_normal(seed, RUNS, chains), -1)
    after = resampled(before, weight, streams(seed))
    parent = slots(before, after)
    copies = torch.nn.functional.one_hot(parent, chains).sum(1)
    collapsed = 1 / weight.square().sum(-1) <= min(2.0, 0.5 * chains)
    assert torch.equal(parent[collapsed], torch.arange(chains).expand_as(parent)[collapsed])
    off = (copies - chains * weight)[~collapsed]
    assert (off.abs() < 1 + 1e-9).all()
    survived = copies > 0
    own = torch.arange(chains).expand_as(parent)
    assert torch.equal(parent[survived], own[survived])
    torch.testing.assert_close(after.value, before.value.gather(1, parent))


def test_the_numbers_are_the_weights_on_average() -> None:
    chains, many = 5, 4000
    before = warmth(runs=1, chains=chains)
    weight = torch.tensor([[0.02, 0.35, 0.13, 0.3, 0.2]], dtype=DTYPE)
    # One run of each seed: a batch of them, all with the same chains.
    copied = Warmth(*(part.expand(many, *part.shape[1:]) for part in vars(before).values()))
    own = Streams.per_seed(range(many), "resampling")
    parent = slots(copied, resampled(copied, weight.expand(many, -1), own))
    mean = torch.nn.functional.one_hot(parent, chains).to(DTYPE).mean((0, 1))
    torch.testing.assert_close(
        mean[None], weight, atol=4 * 0.5 / (chains * math.sqrt(many)), rtol=0
    )


def test_equal_weights_change_nothing() -> None:
    before = warmth()
    after = resampled(before, torch.full((RUNS, CHAINS), 1 / CHAINS, dtype=DTYPE), streams())
    assert torch.equal(after.position, before.position)


def test_a_run_alone_is_resampled_as_in_a_batch() -> None:
    before, weight = warmth(), torch.softmax(random_uniform(3, RUNS, CHAINS), -1)
    together = resampled(before, weight, streams())
    own = Warmth(*(part[2:] for part in vars(before).values()))
    alone = resampled(own, weight[2:], streams().select([2]))
    assert torch.equal(alone.position[0], together.position[2])


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_modes_keep_the_shares_that_they_have_by_now(share: float) -> None:
    """Half of the chains are in each of two modes; a new observation speaks for one of them."""
    chains, many = 16, 500
    position = random_normal(4, many, chains, 1)
    position[:, ::2] += 100.0
    start = Warmth(
        position,
        torch.zeros(many, chains, dtype=DTYPE),
        torch.ones(many, dtype=DTYPE),
        torch.eye(1, dtype=DTYPE).expand(many, -1, -1),
    )

    def observed(u: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.where(u[:, 0] > 50, math.log(share), math.log(1 - share))
        return value, torch.zeros_like(u)

    weight = weighed(start, observed)  # type: ignore[arg-type]
    after = resampled(start, weight, Streams.per_seed(range(many), "modes"))
    found = (after.position[..., 0] > 50).to(DTYPE).mean(-1)
    assert abs(float(found.mean()) - share) < 0.01
    assert float((found - share).abs().max()) <= 1 / chains + 1e-9

"""NumPyro samples the density that gpbo samples, and draws the same from it."""

import math
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpbo.backend import DTYPE
from gpbo.evidence import LogPosterior, Model
from gpbo.inference import sample_hyperparameters
from tests.monte_carlo import random_normal, random_uniform

jax = pytest.importorskip("jax", reason="jax is not installed: pip install 'gpbo[peer-numpyro]'")
pytest.importorskip("numpyro", reason="NumPyro is not installed: pip install 'gpbo[peer-numpyro]'")
numpyro_sampler = pytest.importorskip("gpbo_benchmarks.numpyro_sampler")

R, N, D, POINTS = 2, 7, 3, 5


def gpbos_density(x: torch.Tensor, y: torch.Tensor) -> LogPosterior:
    return Model().log_posterior(x, y, torch.ones_like(y, dtype=torch.bool))


@cache
def numpyros_density() -> Any:
    """Values and gradients at ``u[r,k,p]``, compiled once."""
    of_one = jax.value_and_grad(numpyro_sampler.log_density)
    return jax.jit(jax.vmap(jax.vmap(of_one, in_axes=(0, None, None))))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), spread=st.sampled_from([0.3, 1.0, 2.0]))
def test_the_density_is_gpbos_up_to_a_constant(seed: int, spread: float) -> None:
    x, y = random_uniform(seed, R, N, D), random_normal(seed + 1, R, N)
    u = spread * random_normal(seed + 2, R, POINTS, D + 3)
    expected, gradient = gpbos_density(x, y)(u.flatten(0, 1))
    with jax.enable_x64(True):
        value, slope = numpyros_density()(*(jax.numpy.asarray(t.numpy()) for t in (u, x, y)))
        assert value.dtype == "float64"
    difference = torch.tensor(value.tolist(), dtype=DTYPE) - expected.reshape(R, POINTS)
    constant = 0.5 * N * math.log(2 * math.pi) + _prior_constant(D)
    torch.testing.assert_close(difference, torch.full_like(difference, constant), rtol=0, atol=1e-8)
    torch.testing.assert_close(
        torch.tensor(slope.tolist(), dtype=DTYPE).flatten(0, 1), gradient, rtol=1e-7, atol=1e-7
    )


def _prior_constant(dim: int) -> float:
    """What normal densities have besides their squares."""
    return math.log(2) + 0.5 * (dim + 3) * math.log(2 * math.pi)


def test_a_short_run() -> None:
    x, y = random_uniform(0, R, N, D), random_normal(1, R, N)
    run, again = (
        numpyro_sampler.sample(x, y, chains=3, warmup=20, draws=31, seed=5) for _ in range(2)
    )
    assert run.position.shape == (R, 3, 31, D + 3)
    assert torch.equal(run.position, again.position)
    assert bool((run.leapfrog_steps >= 31).all())
    assert run.position.flatten(1, 2).var(1).min() > 0
    # Of BoTorch's fits in the same process the precision stays what it is by default.
    assert jax.numpy.zeros(()).dtype == "float32"


@pytest.mark.long
def test_both_samplers_draw_the_same() -> None:
    """Means and variances of every coordinate, in Monte-Carlo errors."""
    x, y = random_uniform(3, R, N, D), random_normal(4, R, N)
    theirs = numpyro_sampler.sample(x, y, chains=11, warmup=300, draws=500, seed=0)
    assert theirs.position.shape == (R, 11, 500, D + 3)
    assert bool((theirs.rhat < 1.05).all())
    ours = sample_hyperparameters(x, y, chains=64, draws=300, seed=1)
    position = ours.unconstrained.reshape(R, 64, 300, D + 3)
    for power in (1, 2):
        a, b = theirs.position**power, position**power
        error = (a.mean(2).var(1) / a.shape[1] + b.mean(2).var(1) / b.shape[1]).sqrt()
        assert bool(((a.mean((1, 2)) - b.mean((1, 2))).abs() < 5 * error).all())
    again = numpyro_sampler.sample(x, y, chains=11, warmup=300, draws=500, seed=0)
    assert torch.equal(again.position, theirs.position)

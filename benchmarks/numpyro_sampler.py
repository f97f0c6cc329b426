"""NumPyro's NUTS on the density that gpbo samples: the sampler alone, at its fastest.

Not a peer with ask and tell: it runs in this process, on jax, in double precision. All chains of
all runs are one vectorised program, compiled once for a shape; every chain adapts by itself, as
NumPyro does (Phan, Pradhan, Jankowiak 2019, arXiv:1912.11554).
"""

import math
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Float
from numpyro.infer.hmc import hmc
from torch import Tensor

from gpbo.inference import convergence

#: Prior draws from the best of which a chain starts, as gpbo's chains do.
_CANDIDATES = 8
_NOISE_FLOOR = 1e-6


@dataclass(frozen=True)
class NumpyroRun:
    """Draws, and how long they took.

    Attributes:
        position: In gpbo's unconstrained coordinates: log lengthscales, log outputscale, log noise
            variance above its floor, mean.
        ess_bulk, rhat: The worst over the coordinates, by gpbo's own diagnostics.
        divergences: Of every run, after the warm-up.
        leapfrog_steps: Per chain, after the warm-up.
        compile_s: Of the first call for a shape; 0 after that.
        sample_s: Warm-up and draws.
    """

    position: Float[Tensor, "r c t p"]
    ess_bulk: Float[Tensor, "r"]
    rhat: Float[Tensor, "r"]
    divergences: Float[Tensor, "r"]
    leapfrog_steps: Float[Tensor, "r"]
    compile_s: float
    sample_s: float

    @property
    def ess_per_s(self) -> float:
        """Effective draws of all runs per second of sampling; compilation is left out."""
        return float(self.ess_bulk.sum()) / self.sample_s


def sample(
    x: Float[Tensor, "r n d"],
    y: Float[Tensor, "r n"],
    *,
    chains: int = 16,
    warmup: int = 256,
    draws: int = 256,
    seed: int = 0,
) -> NumpyroRun:
    """Draw the hyperparameters of every run by NumPyro's NUTS at its defaults.

    Args:
        x: Points in the unit cube.
        y: Values, standardised.
        chains: Of every run.
        warmup, draws: Transitions of a chain.
        seed: Of all.
    """
    with jax.enable_x64(True):
        began = time.perf_counter()
        program = _compiled(*x.shape, chains, warmup, draws)
        compiled = time.perf_counter()
        key = jax.random.PRNGKey(seed)
        result = jax.block_until_ready(program(key, jnp.asarray(x.numpy()), jnp.asarray(y.numpy())))
        sampled = time.perf_counter()
        position, steps, diverged = (torch.from_numpy(np.array(part)) for part in result)
    rhat, ess_bulk, _ = convergence(position)
    return NumpyroRun(
        position=position,
        ess_bulk=ess_bulk,
        rhat=rhat,
        divergences=diverged.double().sum((1, 2)),
        leapfrog_steps=steps.double().sum(-1).mean(-1),
        compile_s=compiled - began,
        sample_s=sampled - compiled,
    )


def log_density(u: Any, x: Any, y: Any) -> Any:
    """Log posterior of ``u[p]`` given ``x[n,d]`` and ``y[n]``, up to a constant; jax arrays.

    Matern-5/2 with the dimension-scaled priors, all Gaussian in ``u``.
    """
    n, dim = x.shape
    lengthscale, scale, noise, mean = (
        jnp.exp(u[:dim]),
        jnp.exp(u[dim]),
        jnp.exp(u[dim + 1]) + _NOISE_FLOOR,
        u[dim + 2],
    )
    z = (x - 0.5) / lengthscale
    norms = (z * z).sum(-1)
    # At 0 the square root has no slope; the covariance here is that of distance 0.
    squared = jnp.maximum(norms[:, None] + norms[None, :] - 2 * z @ z.T, 1e-30)
    scaled = jnp.sqrt(5 * squared)
    correlation = (1 + scaled + scaled * scaled / 3) * jnp.exp(-scaled)
    factor = jnp.linalg.cholesky(scale * correlation + noise * jnp.eye(n))
    whitened = jax.scipy.linalg.solve_triangular(factor, y - mean, lower=True)
    likelihood = -0.5 * whitened @ whitened - jnp.log(jnp.diagonal(factor)).sum()
    location, deviation = _prior(dim)
    return likelihood - 0.5 * (((u - location) / deviation) ** 2).sum()


def _prior(dim: int) -> tuple[Any, Any]:
    """Mean and standard deviation of every coordinate."""
    location = [-1.0 + 0.5 * math.log(dim)] * dim + [0.0, -8.0, 0.0]
    deviation = [1.0] * dim + [1.0, 2.0, 1.0]
    return jnp.array(location), jnp.array(deviation)


@cache
def _compiled(runs: int, n: int, dim: int, chains: int, warmup: int, draws: int) -> Any:
    """From a key, ``x[r,n,d]`` and ``y[r,n]`` to positions, steps and divergences."""
    begin, move = hmc(potential_fn_gen=lambda x, y: lambda u: -log_density(u, x, y), algo="NUTS")

    def chain(key: Any, x: Any, y: Any) -> Any:
        first, rest = jax.random.split(key)
        start = _start(first, x, y)
        state = begin(start, warmup, model_args=(x, y), rng_key=rest)

        def transition(state: Any, _: Any) -> Any:
            state = move(state, (x, y))
            return state, (state.z, state.num_steps, state.diverging)

        # One loop, so that the transition is compiled once; draws of the warm-up are dropped.
        _, moves = jax.lax.scan(transition, state, length=warmup + draws)
        return jax.tree.map(lambda part: part[warmup:], moves)

    def program(key: Any, x: Any, y: Any) -> Any:
        keys = jax.random.split(key, (runs, chains))
        over_chains = jax.vmap(chain, in_axes=(0, None, None))
        return jax.vmap(over_chains)(keys, x, y)

    shapes = [jax.ShapeDtypeStruct(shape, float) for shape in ((runs, n, dim), (runs, n))]
    return jax.jit(program).lower(jax.random.PRNGKey(0), *shapes).compile()


def _start(key: Any, x: Any, y: Any) -> Any:
    """The best of a few draws from the prior."""
    location, deviation = _prior(x.shape[1])
    draws = location + deviation * jax.random.normal(key, (_CANDIDATES, len(location)))
    value = jax.vmap(log_density, in_axes=(0, None, None))(draws, x, y)
    return draws[jnp.argmax(jnp.where(jnp.isnan(value), -jnp.inf, value))]

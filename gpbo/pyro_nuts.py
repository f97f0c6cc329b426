"""The same posterior through Pyro's NUTS: an independent implementation to check ours against.

Slow: one tree at a time in Python, one run after the other. Nothing else in gpbo uses Pyro's
samplers.
"""

from typing import Any

import torch
from jaxtyping import Float
from pyro.infer.mcmc import MCMC, NUTS
from torch import Tensor

from gpbo.backend import Streams
from gpbo.evidence import LogPosterior
from gpbo.inference import HyperparameterDraws, constrained, promising_starts
from gpbo.mcmc.sampling import Draws, Warmth

#: The initial step size of another sampler that continues from here.
_STEP_SIZE = 0.1


class _Potential(torch.autograd.Function):
    """Minus the log posterior, with its closed-form gradient."""

    @staticmethod
    def forward(ctx: Any, u: Float[Tensor, "p"], log_posterior: LogPosterior) -> Float[Tensor, ""]:
        value, gradient = log_posterior(u.detach()[None])
        ctx.save_for_backward(gradient[0])
        return -value[0]

    @staticmethod
    def backward(ctx: Any, *pull: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return -pull[0] * gradient, None


def draw_with_pyro(
    log_posterior: LogPosterior, streams: Streams, *, warmup: int = 256, draws: int = 256
) -> HyperparameterDraws:
    """One chain per run through ``pyro.infer.NUTS``, on the same density and parametrization."""
    seeds = streams.integers(2**31, 1)[:, 0].tolist()
    starts = promising_starts(log_posterior, streams, 1)
    possible = log_posterior(starts[:, 0])[0].isfinite()
    chains = [
        _one_run(log_posterior.select(slice(run, run + 1)), start[0], seed, warmup, draws)
        if possible[run]
        else _stuck(start, draws)
        for run, (start, seed) in enumerate(zip(starts, seeds, strict=True))
    ]
    position, diverged = (torch.stack(part)[:, None] for part in zip(*chains, strict=True))
    value = log_posterior(position.flatten(0, 2))[0].reshape(diverged.shape)
    unknown = torch.full_like(diverged, torch.nan)
    runs, _, _, dim = position.shape
    return constrained(
        log_posterior,
        Draws(
            position=position,
            value=value,
            acceptance=unknown,
            steps=unknown,
            diverged=diverged,
            saturated=unknown,
            warmth=Warmth(
                position[:, :, -1],
                value[:, :, -1],
                torch.full_like(unknown[:, 0, 0], _STEP_SIZE),
                torch.eye(dim, dtype=position.dtype, device=position.device).expand(runs, -1, -1),
            ),
            warmup_steps=unknown[:, 0, 0],
        ),
    )


def _stuck(
    start: Float[Tensor, "1 p"], draws: int
) -> tuple[Float[Tensor, "t p"], Float[Tensor, "t"]]:
    """A chain without a finite density: it stays at its start, and every transition diverges."""
    return start.expand(draws, -1), start.new_ones(draws)


def _one_run(
    log_posterior: LogPosterior, start: Float[Tensor, "p"], seed: int, warmup: int, draws: int
) -> tuple[Float[Tensor, "t p"], Float[Tensor, "t"]]:
    def potential(params: dict[str, Tensor]) -> Tensor:
        result: Tensor = _Potential.apply(params["u"], log_posterior)
        return result

    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)  # without seeding GPUs
        kernel = NUTS(potential_fn=potential, full_mass=False, max_tree_depth=8)
        chain = MCMC(
            kernel,
            num_samples=draws,
            warmup_steps=warmup,
            initial_params={"u": start.clone()},
            disable_progbar=True,
        )
        with torch.enable_grad():
            chain.run()
    finally:
        torch.set_rng_state(state)
    diverged = torch.zeros(draws, dtype=start.dtype, device=start.device)
    diverged[chain.diagnostics()["divergences"]["chain 0"]] = 1.0
    return chain.get_samples()["u"], diverged

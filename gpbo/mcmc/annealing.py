"""Chains that start in every mode of a posterior in proportion to its mass.

A chain that climbs from a draw of the prior ends in the mode on whose slope it began, whatever that
mode's mass, and rarely leaves it. A sequential Monte Carlo sampler (Del Moral, Doucet and Jasra
2006, section 3.3) brings in the likelihood gradually, ``prior * likelihood^temperature``: at each
temperature the particles are weighted by the growth of the density, resampled by weight, and moved
by Hamiltonian Monte Carlo. Temperatures are chosen for every run by itself, so that the weights
stay even (Jasra, Stephens, Doucet and Tsagaris 2011). The proportions hold for many particles: of
few, too few find a mode that is much narrower than another.
"""

from dataclasses import dataclass
from itertools import cycle, islice
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.backend import Streams
from gpbo.graphs import replayed
from gpbo.mcmc.adaptation import TARGET, fisher_scale
from gpbo.mcmc.hmc import LENGTHS, transition
from gpbo.mcmc.nuts import ACCEPTANCE, Point
from gpbo.mcmc.sampling import Warmth

#: The least effective sample size after a step, as a share of the particles.
_LEAST_ESS = 0.5
#: Transitions after every step.
_MOVES = 3
#: The most steps; the last one goes to temperature 1.
_MOST_STEPS = 40
_BISECTIONS = 30
_BARELY = 1e-9
_FIRST_STEP_SIZE, _PACE = 0.4, 0.8


@runtime_checkable
class Annealable(Protocol):
    """A density for ``r`` runs that is a product of a prior and a likelihood."""

    def parts(
        self, u: Float[Tensor, "k p"]
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k p"], Float[Tensor, "k"], Float[Tensor, "k p"]]:
        """Log prior and log likelihood, each with its gradient; only the likelihood may be -inf."""
        ...


@dataclass(frozen=True)
class _Tempered:
    """The log-density at a temperature per run."""

    density: Annealable
    temperature: Float[Tensor, "r"]

    def __call__(self, u: Float[Tensor, "k p"]) -> tuple[Float[Tensor, "k"], Float[Tensor, "k p"]]:
        return _joined(self.temperature, *self.density.parts(u))


@dataclass(frozen=True)
class _Particles:
    """Where a run's particles are, their temperature, and how they move."""

    position: Float[Tensor, "r c p"]
    temperature: Float[Tensor, "r"]
    step_size: Float[Tensor, "r"]
    scale: Float[Tensor, "r p p"]


def anneal(
    density: Annealable, position: Float[Tensor, "r c p"], streams: Streams
) -> tuple[Warmth, Float[Tensor, "r"]]:
    """Particles brought from the prior to the posterior, and the leapfrog steps of each.

    A run whose likelihood cannot be computed at any of its particles stays where it is.

    Args:
        density: Prior and likelihood.
        position: Draws from the prior.
        streams: One per run.
    """
    with torch.inference_mode():
        runs, count, dim = position.shape
        ones = torch.ones(runs, dtype=position.dtype, device=position.device)
        identity = torch.eye(dim, dtype=position.dtype, device=position.device)
        particles = _Particles(
            position, 0 * ones, _FIRST_STEP_SIZE * ones, identity.expand(runs, dim, dim)
        )
        steps = torch.zeros_like(ones)
        # The number of steps depends on the slowest run; what a run draws must not.
        streams = streams.spawn()
        for number in range(_MOST_STEPS):
            under_way = particles.temperature < 1
            if not bool(under_way.any()):
                break
            moved = _advanced(density, particles, streams, last=number == _MOST_STEPS - 1)
            particles = _chosen(under_way, moved, particles)
            steps += under_way * sum(islice(cycle(LENGTHS), _MOVES))
        value, gradient = _Tempered(density, ones)(particles.position.flatten(0, 1))
        value, gradient = value.reshape(runs, count), gradient.reshape(runs, count, dim)
    return Warmth(
        particles.position.clone(),
        value.clone(),
        particles.step_size.clone(),
        particles.scale.clone(),
        gradient.clone(),
    ), steps.clone()


def resampled(log_weight: Float[Tensor, "r c"], uniform: Float[Tensor, "r"]) -> Int[Tensor, "r c"]:
    """As many ancestors as particles, each as often as its weight says: systematic resampling.

    With equal weights, each is chosen once (Carpenter, Clifford and Fearnhead 1999).
    """
    count = log_weight.shape[1]
    cumulative = torch.softmax(log_weight, -1).cumsum(-1)
    places = (torch.arange(count, device=uniform.device) + uniform[:, None]) / count
    return torch.searchsorted(cumulative, places).clamp_max(count - 1)


def effective_sample_size(log_weight: Float[Tensor, "r c"]) -> Float[Tensor, "r"]:
    """How many draws of equal weight the weighted ones are worth (Kish 1965)."""
    return 1 / torch.softmax(log_weight, -1).square().sum(-1)


def _advanced(
    density: Annealable, before: _Particles, streams: Streams, *, last: bool
) -> _Particles:
    """The particles of all runs at their next temperature."""
    runs, count, dim = before.position.shape
    parts = density.parts(before.position.flatten(0, 1))
    likelihood = parts[2].reshape(runs, count)
    usable = torch.isfinite(likelihood)
    rise = 1 - before.temperature if last else _rise(likelihood, usable, before.temperature)
    # A run has arrived if it is within a rounding of 1, or has no finite likelihood at all.
    temperature = before.temperature + rise
    arrived = (temperature > 1 - _BARELY) | ~usable.any(-1)
    temperature = torch.where(arrived, 1.0, temperature)
    # A run without any finite likelihood keeps its particles.
    usable = usable | ~usable.any(-1, keepdim=True)
    log_weight = torch.where(usable, likelihood * rise[:, None], -torch.inf).nan_to_num(
        nan=0.0, neginf=-torch.inf
    )
    ancestors = resampled(log_weight, streams.uniform(1)[:, 0])
    first = count * torch.arange(runs, device=ancestors.device)[:, None]
    chosen = (first + ancestors).flatten()
    position = before.position.flatten(0, 1)[chosen]
    value, gradient = _joined(temperature, *(part[chosen] for part in parts))
    scale = fisher_scale(
        position.reshape(runs, 1, count, dim), gradient.reshape(runs, 1, count, dim)
    )
    whitened = (gradient.reshape(runs, count, dim) @ scale).reshape(position.shape)
    point, step_size = Point(position, whitened, value), before.step_size
    tempered = _Tempered(density, temperature)
    with replayed(_move, position.device) as move:
        for length in islice(cycle(LENGTHS), _MOVES):
            momentum = streams.normal(count, dim).flatten(0, 1)
            log_uniform = streams.uniform(count).flatten().log()
            (point, step_size), _ = move(
                (point, step_size), tempered, scale, momentum, log_uniform, length
            )
        after = point.position.reshape(runs, count, dim).clone()
        return _Particles(after, temperature, step_size.clone(), scale)


def _move(
    state: tuple[Point, Float[Tensor, "r"]],
    density: _Tempered,
    scale: Float[Tensor, "r p p"],
    momentum: Float[Tensor, "k p"],
    log_uniform: Float[Tensor, "k"],
    length: int,
) -> tuple[tuple[Point, Float[Tensor, "r"]], None]:
    """A transition, and the step size corrected for how often it was accepted."""
    point, step_size = state
    point, record = transition(point, density, step_size, scale, momentum, log_uniform, length)
    acceptance = record[:, ACCEPTANCE].reshape(len(step_size), -1).mean(-1)
    return (point, step_size * (_PACE * (acceptance - TARGET)).exp()), None


def _rise(
    likelihood: Float[Tensor, "r c"], usable: Bool[Tensor, "r c"], temperature: Float[Tensor, "r"]
) -> Float[Tensor, "r"]:
    """How far the temperature may rise for the effective sample size to suffice, by bisection."""
    height = torch.where(usable, likelihood, -torch.inf)
    least = _LEAST_ESS * usable.sum(-1).to(likelihood)
    high = 1 - temperature
    low, whole = torch.zeros_like(high), high
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        enough = effective_sample_size(height * middle[:, None]) >= least
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return torch.where(effective_sample_size(height * whole[:, None]) >= least, whole, low)


def _joined(
    temperature: Float[Tensor, "r"],
    prior: Float[Tensor, "k"],
    prior_slope: Float[Tensor, "k p"],
    likelihood: Float[Tensor, "k"],
    slope: Float[Tensor, "k p"],
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k p"]]:
    share = temperature.repeat_interleave(len(prior) // len(temperature))
    value = torch.where(torch.isneginf(likelihood), likelihood, prior + share * likelihood)
    return value, torch.addcmul(prior_slope, share[:, None], slope)


def _chosen(first: Bool[Tensor, "r"], one: _Particles, other: _Particles) -> _Particles:
    """``one`` for these runs, ``other`` for the rest."""

    def chosen(part: Tensor, rest: Tensor) -> Tensor:
        return torch.where(first.view(-1, *[1] * (part.ndim - 1)), part, rest)

    return _Particles(
        **{name: chosen(part, getattr(other, name)) for name, part in vars(one).items()}
    )

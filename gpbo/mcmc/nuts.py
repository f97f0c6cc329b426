"""The No-U-Turn sampler as a state machine: one tick is one leapfrog step of every chain.

Multinomial NUTS (Hoffman and Gelman 2014; Betancourt 2017) with iterative doubling (Phan, Pradhan
and Jankowiak 2019). Chains do not wait for each other: one that ends its trajectory starts the
next one in the same tick (Dance, Glaser, Orbanz and Adams 2025). Control flow is arithmetic on
masks, so a tick never waits for the device and has static shapes.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.mcmc.leapfrog import LogDensity, leapfrog

#: A leaf whose log-weight relative to the start is below this ends its trajectory.
DIVERGENCE = -1000.0


@dataclass(frozen=True)
class Point:
    """Where a chain is: what the next trajectory needs. The gradient is whitened."""

    position: Float[Tensor, "k p"]
    gradient: Float[Tensor, "k p"]
    value: Float[Tensor, "k"]


@dataclass(frozen=True)
class Noise:
    """The randomness of one tick."""

    momentum: Float[Tensor, "k p"]
    log_uniform: Float[Tensor, "k two"]
    side: Int[Tensor, "k"]


@dataclass(frozen=True)
class Trajectory:
    """A chain's trajectory under construction.

    Attributes:
        edges: Left and right end, each with its position, momentum and gradient.
        momentum_sum: Sum of the momenta of all leaves.
        checkpoints: Momentum and anchor (see ``_turned_within``) of the first leaves of the
            subtrees that are still open; the last slot takes the writes that are not needed.
        proposal: Position, gradient and value of the trajectory's proposal, packed.
        subtree_proposal: The same of the subtree under construction.
        initial: Log joint density at the start.
        log_weight: Log sum of the weights of the leaves, relative to the start.
        subtree_log_weight: The same of the subtree.
        size: Leaves that the subtree will have, ``2^depth``.
        leaf: Leaves that it has.
        side: Which end it grows from, 0 left and 1 right.
        acceptance: Sum of the leaves' Metropolis acceptance probabilities.
        steps: Leapfrog steps taken.
    """

    edges: Float[Tensor, "k 2 3 p"]
    momentum_sum: Float[Tensor, "k p"]
    checkpoints: Float[Tensor, "k slots 2 p"]
    proposal: Float[Tensor, "k packed"]
    subtree_proposal: Float[Tensor, "k packed"]
    initial: Float[Tensor, "k"]
    log_weight: Float[Tensor, "k"]
    subtree_log_weight: Float[Tensor, "k"]
    size: Int[Tensor, "k"]
    leaf: Int[Tensor, "k"]
    side: Int[Tensor, "k"]
    acceptance: Float[Tensor, "k"]
    steps: Float[Tensor, "k"]


@dataclass(frozen=True)
class Transition:
    """What a tick finished; everything but ``done`` is meaningful only where ``done``.

    Attributes:
        done: Chains that ended a trajectory in this tick.
        record: Position, gradient and value of the new point; then the mean acceptance
            probability, the leapfrog steps, and whether it diverged and whether it was cut off
            at the maximal depth, as 0 or 1.
    """

    done: Bool[Tensor, "k"]
    record: Float[Tensor, "k packed+4"]


@lru_cache
def checkpoint_tables(
    max_depth: int, device: torch.device
) -> tuple[Int[Tensor, "leaves"], Bool[Tensor, "leaves slots"]]:
    """Where leaf ``i`` of a subtree is stored, and which checkpoints it is compared with.

    An even leaf begins subtrees and is stored at slot ``popcount(i >> 1)``; an odd leaf ends as
    many subtrees as it has trailing ones, whose first leaves are in the slots up to that one.
    Odd leaves are sent to the spare slot ``max_depth``.
    """
    slots, compared = [], []
    for leaf in range(2**max_depth):
        top = (leaf >> 1).bit_count()
        ended = (~leaf & (leaf + 1)).bit_length() - 1
        slots.append(max_depth if leaf % 2 else top)
        compared.append([top - ended < slot <= top for slot in range(max_depth)])
    return torch.tensor(slots, device=device), torch.tensor(compared, device=device)


def begin(point: Point, noise: Noise, max_depth: int) -> Trajectory:
    """A new trajectory of every chain."""
    chains, dim = point.position.shape
    proposal = torch.cat([point.position, point.gradient, point.value[:, None]], dim=-1)
    zeros = torch.zeros_like(point.value)
    end = torch.stack([point.position, noise.momentum, point.gradient], dim=1)
    return Trajectory(
        edges=torch.stack([end, end], dim=1),
        momentum_sum=noise.momentum,
        checkpoints=point.position.new_zeros(chains, max_depth + 1, 2, dim),
        proposal=proposal,
        subtree_proposal=proposal,
        initial=point.value - 0.5 * noise.momentum.square().sum(-1),
        log_weight=zeros,
        subtree_log_weight=torch.full_like(zeros, -torch.inf),
        size=torch.ones_like(noise.side),
        leaf=torch.zeros_like(noise.side),
        side=noise.side,
        acceptance=zeros,
        steps=zeros,
    )


def tick(
    log_density: LogDensity,
    state: Trajectory,
    step: Float[Tensor, "k"],
    scale: Float[Tensor, "r p p"],
    noise: Noise,
) -> tuple[Trajectory, Transition]:
    """One leapfrog step of every chain and the bookkeeping that follows from it.

    Args:
        step: Step size; must not change within a trajectory.
        scale: ``A`` of every run, where ``A A'`` is the inverse mass matrix.
        noise: A fresh momentum and direction for the chains that need one, and two logarithms
            of uniform numbers.
    """
    state, leaf_log_weight = _extend(log_density, state, step, scale, noise)
    diverged = leaf_log_weight < DIVERGENCE
    stopped = diverged | _turned_within(state)
    leaf = state.leaf + 1
    full = leaf == state.size
    grown = full & ~stopped
    accepted = grown & (noise.log_uniform[:, 1] < state.subtree_log_weight - state.log_weight)
    proposal = torch.where(accepted[:, None], state.subtree_proposal, state.proposal)
    turned = _turned_whole(state)
    at_limit = state.size == 2 ** (state.checkpoints.shape[1] - 2)
    done = stopped | (full & (turned | at_limit))
    steps = state.steps + 1
    saturated = grown & at_limit & ~turned
    outcome = [state.acceptance / steps, steps, diverged.to(steps), saturated.to(steps)]
    transition = Transition(done, torch.cat([proposal, torch.stack(outcome, dim=1)], dim=-1))
    grown_log_weight = torch.logaddexp(state.log_weight, state.subtree_log_weight)
    continued = replace(
        state,
        proposal=proposal,
        log_weight=torch.where(grown, grown_log_weight, state.log_weight),
        subtree_log_weight=state.subtree_log_weight.masked_fill(full, -torch.inf),
        size=torch.where(full, 2 * state.size, state.size),
        leaf=leaf.masked_fill(full, 0),
        side=torch.where(full, noise.side, state.side),
        steps=steps,
    )
    return _restart(continued, done, noise), transition


def _extend(
    log_density: LogDensity,
    state: Trajectory,
    step: Float[Tensor, "k"],
    scale: Float[Tensor, "r p p"],
    noise: Noise,
) -> tuple[Trajectory, Float[Tensor, "k"]]:
    """Add a leaf to the subtree; the leaf's log-weight comes beside the new state."""
    max_depth = state.checkpoints.shape[1] - 1
    chain = torch.arange(len(state.side), device=state.side.device)
    slots, _ = checkpoint_tables(max_depth, state.side.device)
    end = state.edges[chain, state.side]
    position, momentum, value, gradient = leapfrog(
        log_density, end[:, 0], end[:, 1], end[:, 2], (2 * state.side - 1) * step, scale
    )
    log_weight = value - 0.5 * momentum.square().sum(-1) - state.initial
    log_weight = log_weight.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
    total = torch.logaddexp(state.subtree_log_weight, log_weight)
    taken = noise.log_uniform[:, 0] < log_weight - total
    leaf = torch.cat([position, gradient, value[:, None]], dim=-1)
    momentum_sum = state.momentum_sum + momentum
    anchor = torch.sub(momentum_sum, momentum, alpha=0.5)
    extended = replace(
        state,
        edges=state.edges.index_put(
            (chain, state.side), torch.stack([position, momentum, gradient], dim=1)
        ),
        momentum_sum=momentum_sum,
        checkpoints=state.checkpoints.index_put(
            (chain, slots[state.leaf]), torch.stack([momentum, anchor], dim=1)
        ),
        subtree_proposal=torch.where(taken[:, None], leaf, state.subtree_proposal),
        subtree_log_weight=total,
        acceptance=state.acceptance + log_weight.exp().clamp_max(1.0),
    )
    return extended, log_weight


def _turned_within(state: Trajectory) -> Bool[Tensor, "k"]:
    """Whether one of the subtrees that end at the newest leaf makes a U-turn.

    The generalised criterion: with ``S`` the sum of the momenta from leaf a to leaf b, less half
    of either end's, the subtree has turned if ``r_a . S <= 0`` or ``r_b . S <= 0``. Let R be the
    running sum of momenta; then ``S = (R_b - r_b/2) - (R_a - r_a/2)``, a difference of anchors.
    """
    max_depth = state.checkpoints.shape[1] - 1
    _, compared = checkpoint_tables(max_depth, state.side.device)
    chain = torch.arange(len(state.side), device=state.side.device)
    momentum = state.edges[chain, state.side, 1]
    anchor = torch.sub(state.momentum_sum, momentum, alpha=0.5)
    first = state.checkpoints[:, :max_depth]
    span = anchor[:, None] - first[:, :, 1]
    alignment = torch.minimum((span * first[:, :, 0]).sum(-1), (span @ momentum[..., None])[..., 0])
    return ((alignment <= 0) & compared[state.leaf]).any(-1)


def _turned_whole(state: Trajectory) -> Bool[Tensor, "k"]:
    """The same criterion between the two ends of the whole trajectory."""
    ends = state.edges[:, :, 1]
    span = torch.sub(state.momentum_sum, ends.sum(1), alpha=0.5)
    return (ends @ span[..., None] <= 0).any(1)[:, 0]


def _restart(state: Trajectory, done: Bool[Tensor, "k"], noise: Noise) -> Trajectory:
    """A new trajectory from its proposal for every chain that is done."""
    position, gradient, value = unpack(state.proposal)
    end = torch.stack([position, noise.momentum, gradient], dim=1)[:, None]
    initial = value - 0.5 * noise.momentum.square().sum(-1)
    return replace(
        state,
        edges=torch.where(done[:, None, None, None], end, state.edges),
        momentum_sum=torch.where(done[:, None], noise.momentum, state.momentum_sum),
        initial=torch.where(done, initial, state.initial),
        log_weight=state.log_weight.masked_fill(done, 0.0),
        subtree_log_weight=state.subtree_log_weight.masked_fill(done, -torch.inf),
        size=state.size.masked_fill(done, 1),
        leaf=state.leaf.masked_fill(done, 0),
        side=torch.where(done, noise.side, state.side),
        acceptance=state.acceptance.masked_fill(done, 0.0),
        steps=state.steps.masked_fill(done, 0.0),
    )


def unpack(
    packed: Float[Tensor, "*b packed"],
) -> tuple[Float[Tensor, "*b p"], Float[Tensor, "*b p"], Float[Tensor, "*b"]]:
    """Position, gradient and value from a packed proposal."""
    dim = packed.shape[-1] // 2
    return packed[..., :dim], packed[..., dim : 2 * dim], packed[..., 2 * dim]

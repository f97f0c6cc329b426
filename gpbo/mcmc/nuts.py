"""The No-U-Turn sampler as a state machine: one tick is one leapfrog step of every chain.

Multinomial NUTS (Hoffman and Gelman 2014; Betancourt 2017) with iterative doubling (Phan, Pradhan
and Jankowiak 2019). Chains do not wait for each other: one that ends its trajectory starts the
next one in the same tick (Dance, Glaser, Orbanz and Adams 2025). Control flow is arithmetic on
masks, so a tick never waits for the device and has static shapes.
"""

from dataclasses import dataclass, replace
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.mcmc.leapfrog import LogDensity, leapfrog

#: A leaf whose log-weight relative to the start is below this ends its trajectory.
DIVERGENCE = -1000.0
#: Columns of a transition's record, from its end; what comes before these is for `unpack`.
ACCEPTANCE, STEPS = -4, -3


@dataclass(frozen=True)
class Point:
    """Where a chain is: what the next trajectory needs. The gradient is whitened."""

    position: Float[Tensor, "k p"]
    gradient: Float[Tensor, "k p"]
    value: Float[Tensor, "k"]


@dataclass(frozen=True)
class Noise:
    """The randomness of one tick.

    Attributes:
        momentum: Standard normal.
        kinetic: Half the squared norm of the momentum.
        log_uniform: Logarithms of two uniform numbers.
        growing: One-hot, which end a trajectory grows from: left or right.
    """

    momentum: Float[Tensor, "k p"]
    kinetic: Float[Tensor, "k"]
    log_uniform: Float[Tensor, "two k"]
    growing: Bool[Tensor, "k two"]


@dataclass(frozen=True)
class Trajectory:
    """A chain's trajectory under construction; packed, since small operations cost most.

    Attributes:
        edges: Left and right end, each its position, momentum and gradient in one row.
        momentum_sum: Sum of the momenta of all leaves.
        checkpoints: Momentum and anchor (see ``_turned_within``) of the first leaves of the
            subtrees that are still open.
        proposal: Position, gradient and value of the trajectory's proposal.
        subtree_proposal: The same of the subtree under construction.
        initial: Log joint density at the start.
        log_weight: Log sum of the weights of the leaves, relative to the start.
        subtree_log_weight: The same of the subtree.
        acceptance: Sum of the leaves' Metropolis acceptance probabilities.
        steps: Leapfrog steps taken.
        size: Leaves that the subtree will have, ``2^depth``.
        leaf: Leaves that it has.
        growing: One-hot, which end it grows from.
    """

    edges: Float[Tensor, "k 2 three_p"]
    momentum_sum: Float[Tensor, "k p"]
    checkpoints: Float[Tensor, "k slots two_p"]
    proposal: Float[Tensor, "k packed"]
    subtree_proposal: Float[Tensor, "k packed"]
    initial: Float[Tensor, "k"]
    log_weight: Float[Tensor, "k"]
    subtree_log_weight: Float[Tensor, "k"]
    acceptance: Float[Tensor, "k"]
    steps: Float[Tensor, "k"]
    size: Int[Tensor, "k"]
    leaf: Int[Tensor, "k"]
    growing: Bool[Tensor, "k two"]


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
    record: Float[Tensor, "k recorded"]


@cache
def checkpoint_table(max_depth: int, device: torch.device) -> Bool[Tensor, "leaves 2 slots"]:
    """For leaf ``i`` of a subtree: where it is stored, and what it is compared with.

    An even leaf begins subtrees and is stored at slot ``popcount(i >> 1)``; an odd leaf ends as
    many subtrees as it has trailing ones, whose first leaves are in the slots up to that one.
    """
    table = torch.zeros(2 ** (max_depth - 1), 2, max_depth, dtype=torch.bool, device="cpu")
    for leaf in range(len(table)):
        top = (leaf >> 1).bit_count()
        ended = (~leaf & (leaf + 1)).bit_length() - 1
        table[leaf, 0, top] = leaf % 2 == 0
        table[leaf, 1, top - ended + 1 : top + 1] = True
    return table.to(device)


def begin(point: Point, noise: Noise, max_depth: int) -> Trajectory:
    """A new trajectory of every chain."""
    chains, dim = point.position.shape
    proposal = torch.cat([point.position, point.gradient, point.value[:, None]], dim=-1)
    zeros = torch.zeros_like(point.value)
    end = torch.cat([point.position, noise.momentum, point.gradient], dim=1)
    return Trajectory(
        edges=torch.stack([end, end], dim=1),
        momentum_sum=noise.momentum,
        checkpoints=point.position.new_zeros(chains, max_depth, 2 * dim),
        proposal=proposal,
        subtree_proposal=proposal,
        initial=point.value - noise.kinetic,
        log_weight=zeros,
        subtree_log_weight=torch.full_like(zeros, -torch.inf),
        acceptance=zeros,
        steps=zeros,
        size=torch.ones(chains, dtype=torch.long, device=zeros.device),
        leaf=torch.zeros(chains, dtype=torch.long, device=zeros.device),
        growing=noise.growing,
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
    state, turned_within, leaf_log_weight = _extend(log_density, state, step, scale, noise)
    diverged = leaf_log_weight < DIVERGENCE
    stopped = diverged | turned_within
    full = state.leaf == state.size
    grown = full & ~stopped
    accepted = grown & (noise.log_uniform[1] < state.subtree_log_weight - state.log_weight)
    proposal = torch.where(accepted[:, None], state.subtree_proposal, state.proposal)
    turned = _turned_whole(state)
    at_limit = state.size == 2 ** (state.checkpoints.shape[1] - 1)
    saturated = grown & at_limit & ~turned
    done = stopped | (full & (turned | at_limit))
    outcome = [state.acceptance / state.steps, state.steps, diverged, saturated]
    transition = Transition(done, torch.cat([proposal, torch.stack(outcome, dim=1)], dim=-1))
    log_weight = torch.logaddexp(state.log_weight, state.subtree_log_weight)
    continued = replace(
        state,
        proposal=proposal,
        log_weight=torch.where(grown, log_weight, state.log_weight),
        size=torch.where(full, 2 * state.size, state.size),
    )
    return _renew(continued, done, full | done, noise), transition


def _extend(
    log_density: LogDensity,
    state: Trajectory,
    step: Float[Tensor, "k"],
    scale: Float[Tensor, "r p p"],
    noise: Noise,
) -> tuple[Trajectory, Bool[Tensor, "k"], Float[Tensor, "k"]]:
    """Add a leaf to the subtree; whether that made a U-turn, and the leaf's log-weight."""
    left, right = state.edges.unbind(1)
    to_right = state.growing[:, 1]
    end = torch.where(to_right[:, None], right, left)
    position, momentum, gradient = end.tensor_split(3, dim=1)
    signed_step = torch.where(to_right, step, -step)
    position, momentum, value, gradient = leapfrog(
        log_density, position, momentum, gradient, signed_step, scale
    )
    energy = torch.sub(value, momentum.square().sum(-1), alpha=0.5)
    log_weight = (energy - state.initial).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    total = torch.logaddexp(state.subtree_log_weight, log_weight)
    taken = noise.log_uniform[0] < log_weight - total
    leaf = torch.cat([position, gradient, value[:, None]], dim=-1)
    momentum_sum = state.momentum_sum + momentum
    anchor = torch.sub(momentum_sum, momentum, alpha=0.5)
    table = checkpoint_table(state.checkpoints.shape[1], step.device)
    stored, compared = table[state.leaf].unbind(1)
    turned = _turned_within(state.checkpoints, momentum, anchor, compared)
    extended = replace(
        state,
        edges=torch.where(
            state.growing[:, :, None],
            torch.cat([position, momentum, gradient], dim=1)[:, None],
            state.edges,
        ),
        momentum_sum=momentum_sum,
        checkpoints=torch.where(
            stored[:, :, None], torch.cat([momentum, anchor], dim=1)[:, None], state.checkpoints
        ),
        subtree_proposal=torch.where(taken[:, None], leaf, state.subtree_proposal),
        subtree_log_weight=total,
        acceptance=state.acceptance + log_weight.exp().clamp_max(1.0),
        steps=state.steps + 1,
        leaf=state.leaf + 1,
    )
    return extended, turned, log_weight


def _turned_within(
    checkpoints: Float[Tensor, "k slots two_p"],
    momentum: Float[Tensor, "k p"],
    anchor: Float[Tensor, "k p"],
    compared: Bool[Tensor, "k slots"],
) -> Bool[Tensor, "k"]:
    """Whether one of the subtrees that end at the newest leaf makes a U-turn.

    The generalised criterion: with ``S`` the sum of the momenta from leaf a to leaf b, less half
    of either end's, the subtree has turned if ``r_a . S <= 0`` or ``r_b . S <= 0``. Let R be the
    running sum of momenta; then ``S = (R_b - r_b/2) - (R_a - r_a/2)``, a difference of anchors.
    """
    first_momentum, first_anchor = checkpoints.tensor_split(2, dim=2)
    span = anchor[:, None] - first_anchor
    at_first = (span * first_momentum).sum(-1)
    at_last = torch.bmm(span, momentum[:, :, None])[:, :, 0]
    return ((torch.minimum(at_first, at_last) <= 0) & compared).any(-1)


def _turned_whole(state: Trajectory) -> Bool[Tensor, "k"]:
    """The same criterion between the two ends of the whole trajectory."""
    dim = state.momentum_sum.shape[1]
    ends = state.edges[:, :, dim : 2 * dim]
    span = torch.sub(state.momentum_sum, ends.sum(1), alpha=0.5)
    return (torch.bmm(ends, span[:, :, None]) <= 0).any(1)[:, 0]


def _renew(
    state: Trajectory, done: Bool[Tensor, "k"], ended: Bool[Tensor, "k"], noise: Noise
) -> Trajectory:
    """A new subtree where one ended, and a new trajectory where it was the last."""
    position, gradient, value = unpack(state.proposal)
    end = torch.cat([position, noise.momentum, gradient], dim=1)
    return replace(
        state,
        edges=torch.where(done[:, None, None], end[:, None], state.edges),
        momentum_sum=torch.where(done[:, None], noise.momentum, state.momentum_sum),
        initial=torch.where(done, value - noise.kinetic, state.initial),
        log_weight=state.log_weight.masked_fill(done, 0.0),
        subtree_log_weight=state.subtree_log_weight.masked_fill(ended, -torch.inf),
        acceptance=state.acceptance.masked_fill(done, 0.0),
        steps=state.steps.masked_fill(done, 0.0),
        size=state.size.masked_fill(done, 1),
        leaf=state.leaf.masked_fill(ended, 0),
        growing=torch.where(ended[:, None], noise.growing, state.growing),
    )


def unpack(
    packed: Float[Tensor, "*b packed"],
) -> tuple[Float[Tensor, "*b p"], Float[Tensor, "*b p"], Float[Tensor, "*b"]]:
    """Position, gradient and value from a packed proposal, or what a record begins with."""
    dim = packed.shape[-1] // 2
    return packed[..., :dim], packed[..., dim : 2 * dim], packed[..., 2 * dim]

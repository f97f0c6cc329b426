"""The state machine against a recursive sampler written on its own, and chain by chain."""

import math
from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.mcmc.leapfrog import LogDensity
from gpbo.mcmc.nuts import (
    DIVERGENCE,
    Noise,
    Point,
    Trajectory,
    Transition,
    begin,
    checkpoint_table,
    tick,
    unpack,
)
from tests.monte_carlo import quartic, random_normal, random_uniform, unchecked_shapes

RUNS, CHAINS, DIM = 2, 5, 3
ROWS = RUNS * CHAINS


def _pairs(first: int, size: int) -> list[tuple[int, int]]:
    """First and last leaf of a subtree and of all subtrees within it, by recursion."""
    if size == 1:
        return []
    half = size // 2
    return [*_pairs(first, half), *_pairs(first + half, half), (first, first + size - 1)]


@pytest.mark.parametrize("depth", range(1, 9))
@pytest.mark.parametrize("deeper", [0, 1, 4])
def test_the_checkpoints_compare_what_the_recursion_compares(depth: int, deeper: int) -> None:
    table = checkpoint_table(depth + 1 + deeper, torch.device("cpu"))
    stored: dict[int, int] = {}
    pairs: list[tuple[int, int]] = []
    for leaf in range(2**depth):
        to_store, to_compare = (torch.nonzero(row)[:, 0].tolist() for row in table[leaf])
        pairs += [(stored[slot], leaf) for slot in to_compare]
        stored.update(dict.fromkeys(to_store, leaf))
        assert len(to_store) == (leaf + 1) % 2
    assert sorted(pairs) == sorted(_pairs(0, 2**depth))


# The machine, driven by hand.


def _noise(seed: int, ticks: int, rows: int = ROWS, dim: int = DIM) -> list[Noise]:
    momentum = random_normal(seed, ticks, rows, dim)
    log_uniform = random_uniform(seed + 1000, ticks, rows, 2).log()
    right = random_uniform(seed + 2000, ticks, rows) < 0.5
    return [
        Noise(
            momentum=momentum[row],
            kinetic=0.5 * momentum[row].square().sum(-1),
            log_uniform=log_uniform[row].mT,
            growing=torch.stack([~right[row], right[row]], dim=-1),
        )
        for row in range(ticks)
    ]


def _scale() -> Tensor:
    return 0.3 * random_normal(0, RUNS, DIM, DIM) + 0.7 * torch.eye(DIM, dtype=DTYPE)


def _point(density: LogDensity, position: Tensor, scale: Tensor) -> Point:
    value, gradient = density(position)
    whitened = (gradient.reshape(len(scale), -1, gradient.shape[-1]) @ scale).flatten(0, 1)
    return Point(position, whitened, value)


def _drive(
    density: LogDensity,
    position: Tensor,
    step: Tensor,
    scale: Tensor,
    noise: list[Noise],
    max_depth: int,
) -> tuple[list[Transition], list[Trajectory]]:
    state = begin(_point(density, position, scale), noise[0], max_depth)
    transitions, states = [], [state]
    for fresh in noise[1:]:
        state, transition = tick(density, state, step, scale, fresh)
        transitions.append(transition)
        states.append(state)
    return transitions, states


def _of_chains(noise: Noise, chains: Tensor) -> Noise:
    return Noise(
        noise.momentum[chains],
        noise.kinetic[chains],
        noise.log_uniform[:, chains],
        noise.growing[chains],
    )


# The same sampler for one chain, as the papers write it: recursive, no running sums.


@dataclass(frozen=True)
class Leaf:
    position: Tensor
    momentum: Tensor
    gradient: Tensor
    value: float
    log_weight: float


@dataclass(frozen=True)
class Outcome:
    position: Tensor
    value: float
    acceptance: float
    steps: int
    diverged: bool
    saturated: bool


def _turns(leaves: list[Leaf]) -> bool:
    """The generalised criterion over leaves in the order of time."""
    momenta = torch.stack([leaf.momentum for leaf in leaves])
    span = momenta.sum(0) - 0.5 * (momenta[0] + momenta[-1])
    return bool(momenta[0] @ span <= 0) or bool(momenta[-1] @ span <= 0)


class _Recursive:
    """One chain; takes leaf ``i``'s random numbers from ``noise[i + 1]``."""

    def __init__(
        self, density: LogDensity, step: float, scale: Tensor, noise: list[Noise], max_depth: int
    ) -> None:
        self.density, self.step, self.scale = density, step, scale
        self.noise, self.max_depth = noise, max_depth
        self.ticks = 0

    def leaf(self, start: Leaf, side: int, joint: float) -> Leaf:
        step = self.step if side else -self.step
        halfway = start.momentum + 0.5 * step * start.gradient
        position = start.position + step * (self.scale @ halfway)
        value, slope = self.density(position[None])
        gradient = self.scale.T @ slope[0]
        momentum = halfway + 0.5 * step * gradient
        log_weight = float(value) - 0.5 * float(momentum @ momentum) - joint
        log_weight = log_weight if math.isfinite(log_weight) else -math.inf
        self.ticks += 1
        return Leaf(position, momentum, gradient, float(value), log_weight)

    def build(
        self, start: Leaf, side: int, depth: int, joint: float, seen: list[Leaf]
    ) -> tuple[list[Leaf], bool]:
        """Leaves of a subtree in the order they are made, and whether it is of use."""
        if depth == 0:
            leaf = self.leaf(start, side, joint)
            seen.append(leaf)
            return [leaf], leaf.log_weight >= DIVERGENCE
        first, good = self.build(start, side, depth - 1, joint, seen)
        if not good:
            return first, False
        second, good = self.build(first[-1], side, depth - 1, joint, seen)
        both = first + second
        return both, good and not _turns(both if side else both[::-1])

    def chosen(self, leaves: list[Leaf], first_tick: int) -> tuple[Leaf | None, float]:
        """Progressive sampling: every leaf replaces the choice with its share of the weight."""
        choice, total = None, -math.inf
        for number, leaf in enumerate(leaves):
            total = float(torch.logaddexp(torch.tensor(total), torch.tensor(leaf.log_weight)))
            if float(self.noise[first_tick + number + 1].log_uniform[0]) < (
                leaf.log_weight - total
            ):
                choice = leaf
        return choice, total

    def transition(self, start: Leaf) -> Outcome:
        first = self.noise[self.ticks]
        momentum, side = first.momentum[0], int(first.growing[0, 1])
        joint = start.value - 0.5 * float(momentum @ momentum)
        here = Leaf(start.position, momentum, start.gradient, start.value, 0.0)
        tree, proposal, log_weight, began = [here], here, 0.0, self.ticks
        seen: list[Leaf] = []
        diverged = turned = False
        for depth in range(self.max_depth):
            subtree_began = self.ticks
            leaves, good = self.build(tree[-1] if side else tree[0], side, depth, joint, seen)
            diverged = seen[-1].log_weight < DIVERGENCE
            if not good:
                turned = True
                break
            choice, total = self.chosen(leaves, subtree_began)
            last = self.noise[self.ticks]
            if choice is not None and float(last.log_uniform[1]) < total - log_weight:
                proposal = choice
            log_weight = math.log(math.exp(log_weight) + math.exp(total))
            tree = tree + leaves if side else leaves[::-1] + tree
            side = int(last.growing[0, 1])
            turned = _turns(tree)
            if turned:
                break
        steps = self.ticks - began
        acceptance = sum(min(1.0, math.exp(leaf.log_weight)) for leaf in seen) / steps
        return Outcome(proposal.position, proposal.value, acceptance, steps, diverged, not turned)


def _cliff(u: Tensor) -> tuple[Tensor, Tensor]:
    """Falls off beyond a plane so that trajectories diverge, and is not there beyond another."""
    beyond = (u[:, 0] - 0.8).clamp_min(0.0)
    gradient = -u.clone()
    gradient[:, 0] -= 8000.0 * beyond
    value = -0.5 * u.square().sum(-1) - 4000.0 * beyond**2
    return value.masked_fill(u[:, 1] > 1.5, torch.nan), gradient


@pytest.mark.parametrize(
    ("density", "step", "max_depth", "reaches"),
    [
        (quartic, 0.05, 8, 31),  # long trajectories
        (quartic, 0.3, 8, 4),
        (quartic, 0.05, 3, 7),  # cut off
        (quartic, 0.3, 1, 1),
        (_cliff, 0.25, 6, 4),  # divergences, and a region without a density
    ],
)
@unchecked_shapes()
def test_every_chain_makes_the_transitions_of_the_recursive_sampler(
    density: LogDensity, step: float, max_depth: int, reaches: int
) -> None:
    ticks = 250
    noise = _noise(1, ticks + 1)
    position = 0.5 * random_normal(2, ROWS, DIM)
    steps = step * (0.7 + 0.6 * random_uniform(3, ROWS))
    scale = _scale()
    transitions, _ = _drive(density, position, steps, scale, noise, max_depth)
    seen: list[Outcome] = []
    for chain in range(ROWS):
        own = scale[chain // CHAINS]
        alone = [_of_chains(each, torch.tensor([chain])) for each in noise]
        reference = _Recursive(density, float(steps[chain]), own, alone, max_depth)
        point = _point(density, position[[chain]], own[None])
        value = float(point.value)
        start = Leaf(point.position[0], point.position[0], point.gradient[0], value, 0.0)
        finished = [each.record[chain] for each in transitions if bool(each.done[chain])]
        # Rounding grows along a trajectory and from one to the next: twelve are compared.
        for record in finished[:12]:
            expected = reference.transition(start)
            found, gradient, value_found = unpack(record[:-4])
            torch.testing.assert_close(found, expected.position, rtol=1e-8, atol=1e-8)
            assert float(value_found) == pytest.approx(expected.value, rel=1e-8, abs=1e-8)
            acceptance, taken, diverged, saturated = record[-4:].tolist()
            assert acceptance == pytest.approx(expected.acceptance, rel=1e-6)
            assert (int(taken), bool(diverged)) == (expected.steps, expected.diverged)
            assert bool(saturated) == expected.saturated
            start = Leaf(found, found, gradient, float(value_found), 0.0)
            seen.append(expected)
    assert max(outcome.steps for outcome in seen) >= reaches
    assert any(outcome.diverged for outcome in seen) == (density is _cliff)
    assert max_depth > 3 or any(outcome.saturated for outcome in seen)
    assert len(seen) >= 2 * ROWS


@unchecked_shapes()
def test_a_chain_alone_makes_the_same_steps_as_in_the_batch() -> None:
    noise, scale = _noise(4, 151), _scale()
    position, step = random_normal(5, ROWS, DIM), 0.1 + 0.3 * random_uniform(6, ROWS)
    together, states = _drive(quartic, position, step, scale, noise, 5)
    for chain in (0, 4, 7):
        own = torch.tensor([chain])
        alone, own_states = _drive(
            quartic,
            position[own],
            step[own],
            scale[own // CHAINS],
            [_of_chains(each, own) for each in noise],
            5,
        )
        for ours, batched in zip(alone, together, strict=True):
            assert torch.equal(ours.done, batched.done[own])
            if bool(ours.done):
                torch.testing.assert_close(ours.record, batched.record[own], rtol=1e-9, atol=1e-9)
        for field in fields(Trajectory):
            ours, batched = (getattr(each[-1], field.name) for each in (own_states, states))
            torch.testing.assert_close(ours, batched[own], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("value", [-math.inf, math.inf, math.nan])
@unchecked_shapes()
def test_a_chain_rejects_where_there_is_no_density_and_harms_no_other(value: float) -> None:
    sick = 3

    def walled(u: Tensor) -> tuple[Tensor, Tensor]:
        density, gradient = quartic(u)
        outside = (u[:, 0] > -0.3) & (torch.arange(ROWS) == sick)
        return density.masked_fill(outside, value), gradient.masked_fill(outside[:, None], value)

    noise, scale = _noise(7, 251), _scale()
    position = random_normal(8, ROWS, DIM)
    position[sick, 0] = -0.5
    step = torch.full((ROWS,), 0.5, dtype=DTYPE)
    transitions, states = _drive(walled, position, step, scale, noise, 5)
    expected, clean = _drive(quartic, position, step, scale, noise, 5)
    others = torch.arange(ROWS) != sick
    for ours, theirs in zip(transitions, expected, strict=True):
        assert torch.equal(ours.done[others], theirs.done[others])
        assert torch.equal(ours.record[others & ours.done], theirs.record[others & ours.done])
    assert torch.equal(states[-1].edges[others], clean[-1].edges[others])
    records = torch.stack([each.record[sick] for each in transitions if bool(each.done[sick])])
    assert torch.isfinite(records).all()
    assert (records[:, 0] <= -0.3).all()
    assert records[:, -2].sum() >= 3
    assert len(torch.unique(records[:, 0])) > 5
    # Where it has no density, it has nothing to accept.
    assert (records[records[:, -2] == 1, -4] < 1).all()


@unchecked_shapes()
def test_a_transition_has_at_most_the_leaves_of_the_deepest_tree() -> None:
    for max_depth in (1, 2, 4):
        noise, scale = _noise(9, 101), _scale()
        step = torch.full((ROWS,), 1e-3, dtype=DTYPE)
        position = random_normal(10, ROWS, DIM)
        transitions, _ = _drive(quartic, position, step, scale, noise, max_depth)
        records = torch.stack([each.record for each in transitions])
        done = torch.stack([each.done for each in transitions])
        assert done.any(0).all()
        assert (records[done][:, -3] == 2**max_depth - 1).all()
        assert (records[done][:, -1] == 1).all()


@unchecked_shapes()
def test_records_hold_the_density_and_the_whitened_gradient_at_their_position() -> None:
    noise, scale = _noise(11, 151), _scale()
    step = torch.full((ROWS,), 0.25, dtype=DTYPE)
    transitions, _ = _drive(quartic, random_normal(12, ROWS, DIM), step, scale, noise, 6)
    counted = 0
    for transition in transitions:
        position, gradient, value = unpack(transition.record[:, :-4])
        expected = _point(quartic, position, scale)
        torch.testing.assert_close(value, expected.value, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, expected.gradient, rtol=1e-12, atol=1e-12)
        counted += int(transition.done.sum())
    assert counted > 5 * ROWS

"""Chains from dispersed points: lost modes are found again, and nothing else changes."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gpbo import fitting
from gpbo.backend import DTYPE, Streams
from gpbo.data import standardised
from gpbo.evidence import LogPosterior
from gpbo.fitting import Sampling, WarmState, fit
from gpbo.kept import Kept
from gpbo.mcmc.sampling import Warmth
from gpbo.restarts import is_due, restarted
from tests.monte_carlo import random_normal, random_uniform, unchecked_shapes

RUNS, CHAINS, DIM = 3, 16, 5
APART = 8.0


class TwoModes:
    """A normal at 0 and, ``APART`` along the first axis, another that is lower by ``drop``.

    The prior, from which chains disperse, covers both.
    """

    size = DIM

    def __init__(self, drop: list[float]) -> None:
        self.drop = torch.tensor(drop, dtype=DTYPE)
        self.runs = len(drop)
        self.parametrization = self

    def sample(self, streams: Streams, count: int) -> Tensor:
        return 4.0 * streams.normal(count, DIM) + 0.5 * APART

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor]:
        there = torch.zeros(DIM, dtype=DTYPE)
        there[0] = APART
        drop = self.drop.repeat_interleave(len(u) // self.runs)
        near, far = -0.5 * u.square().sum(-1), -0.5 * (u - there).square().sum(-1) - drop
        value = torch.logaddexp(near, far)
        share = (far - value).exp()[:, None]
        return value, -u * (1 - share) - (u - there) * share


def density(drop: list[float]) -> LogPosterior:
    return TwoModes(drop)  # type: ignore[return-value]


def at_home(of: LogPosterior, runs: int = RUNS) -> Warmth:
    """All chains in the mode at 0, of whose values an observation took 1 since."""
    position = random_normal(0, runs, CHAINS, DIM)
    value = of(position.flatten(0, 1))[0].reshape(runs, CHAINS) + 1.0
    step_size = torch.full((runs,), 0.7, dtype=DTYPE)
    return Warmth(position, value, step_size, torch.eye(DIM, dtype=DTYPE).expand(runs, -1, -1))


def streams(seed: int = 0, runs: int = RUNS) -> Streams:
    return Streams.named(seed, "restarts", runs=runs)


def away(warmth: Warmth) -> Tensor:
    """How many chains of each run are in the other mode."""
    return (warmth.position[..., 0] > 0.5 * APART).sum(-1)


@unchecked_shapes()
def test_a_mode_that_all_chains_left_is_found_again_if_it_has_mass() -> None:
    """Without restarts no chain would cross; a mode of a thousandth of the mass stays empty."""
    of = density([0.0, math.log(3), math.log(1000)])
    warmth = at_home(of)
    for fits in range(10, 50, 10):
        warmth, _ = restarted(warmth, of, streams(fits), fits)
    found = away(warmth)
    assert (found[:2] >= 1).all()
    assert found[2] == 0
    # Newcomers may arrive in the mode that is known, too.
    assert (found[:2] <= 7).all()


@unchecked_shapes()
def test_two_of_sixteen_take_their_turn_and_the_others_stay() -> None:
    of = density([0.0] * RUNS)
    warmth = at_home(of)
    for fits, turn in ((10, {0, 1}), (20, {2, 3}), (80, {14, 15}), (90, {0, 1})):
        after, steps = restarted(warmth, of, streams(fits), fits)
        changed = (after.position != warmth.position).any(-1)
        assert {int(chain) for chain in changed.any(0).nonzero()} <= turn
        assert changed.any(1).all()
        assert (steps > 24).all()
        for name in ("step_size", "scale"):
            assert torch.equal(getattr(after, name), getattr(warmth, name))


@unchecked_shapes()
def test_a_newcomer_weighs_what_the_chain_that_it_replaces_did() -> None:
    """Otherwise a restart would look like a posterior that has moved."""
    of = density([0.0] * RUNS)
    warmth = at_home(of)
    after, _ = restarted(warmth, of, streams(), 10)
    weight = [
        of(there.position.flatten(0, 1))[0].reshape(RUNS, -1) - there.value
        for there in (warmth, after)
    ]
    torch.testing.assert_close(weight[0], weight[1])
    assert (after.position != warmth.position).any()


@unchecked_shapes()
def test_a_run_alone_restarts_as_in_a_batch() -> None:
    drop = [0.0, 1.0, 2.0]
    together, steps = restarted(at_home(density(drop)), density(drop), streams(), 10)
    whole = at_home(density(drop))
    own = Warmth(*(part[2:] for part in vars(whole).values()))
    alone, own_steps = restarted(own, density(drop[2:]), streams().select([2]), 10)
    torch.testing.assert_close(alone.position[0], together.position[2])
    torch.testing.assert_close(alone.value[0], together.value[2])
    torch.testing.assert_close(own_steps[0], steps[2])


@pytest.mark.parametrize("chains", [1, 3, 24])
@unchecked_shapes()
def test_any_number_of_chains_has_an_eighth_or_one_to_restart(chains: int) -> None:
    of = density([0.0])
    position = random_normal(1, 1, chains, DIM)
    value = of(position[0])[0][None]
    one = torch.ones(1, dtype=DTYPE)
    warmth = Warmth(position, value, one, torch.eye(DIM, dtype=DTYPE)[None])
    after, _ = restarted(warmth, of, streams(runs=1), 30)
    assert int((after.position != position).any(-1).sum()) <= max(1, chains // 8)


@unchecked_shapes()
def test_chains_without_a_density_welcome_anyone() -> None:
    of = density([0.0] * RUNS)
    lost = replace(at_home(of), position=torch.full((RUNS, CHAINS, DIM), 1e200, dtype=DTYPE))
    after, _ = restarted(lost, of, streams(), 10)
    assert torch.isfinite(of(after.position[:, :2].flatten(0, 1))[0]).all()


# --- in fits


def test_every_tenth_fit_and_no_other_restarts_and_says_what_it_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def recording(
        warmth: Warmth, log_posterior: LogPosterior, own: Streams, fits: int
    ) -> tuple[Warmth, Tensor]:
        calls.append(fits)
        return warmth, torch.full((2,), 1000.0, dtype=DTYPE)

    monkeypatch.setattr(fitting, "restarted", recording)
    x = random_uniform(0, 2, 7, 2)
    data = standardised(x, x.sum(-1))
    brief = Sampling(chains=2, warmup=8, draws=2, warm_draws=1, kept=2)
    warm: WarmState | None = None
    with unchecked_shapes():
        for number in range(22):
            found = fit(data, sampling=brief, warm=warm, streams=streams(number, 2))
            assert (found.report.leapfrog_steps >= 1000).all() == (number in (10, 20))
            warm = found.warm
            assert warm is not None
            assert warm.fits == number + 1
    assert calls == [10, 20]
    assert [fits for fits in range(31) if is_due(fits)] == [10, 20, 30]


def test_what_is_stored_of_a_fit_knows_when_the_next_restart_is_due() -> None:
    x = random_uniform(0, 1, 5, 2)
    data = standardised(x, x.sum(-1))
    brief = Sampling(chains=2, warmup=8, draws=2, warm_draws=1, kept=2)
    warm = fit(data, sampling=brief, streams=streams(runs=1)).warm
    assert warm is not None
    tenth = fit(data, sampling=brief, warm=replace(warm, fits=9), streams=streams(1, 1))
    kept = Kept.from_bytes(Kept.of(tenth, data, 5).to_bytes(), torch.device("cpu"))
    assert kept.warm is not None
    assert kept.warm.fits == 10
    again, ours = (
        fit(data, sampling=brief, warm=state, streams=streams(2, 1))
        for state in (kept.warm, tenth.warm)
    )
    assert torch.equal(again.surrogate.lengthscale, ours.surrogate.lengthscale)

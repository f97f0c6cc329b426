"""Units: monotone, inverse to each other, affine where there is no reason not to be."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.spatial
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from gpbo import units
from gpbo.backend import DTYPE
from gpbo.data import Observations
from gpbo.units import Units, centred, in_own_units
from tests.monte_carlo import ragged, random_normal, random_uniform
from tests.penalties import without_penalties

FINITE = st.floats(-1e150, 1e150, allow_nan=False, allow_subnormal=True)


def by_decades(runs: int = 3, count: int = 41) -> Float[Tensor, "r n"]:
    """Values whose distances to the best are lognormal, over many decades."""
    return (
        5.0
        - 2.0 * torch.arange(runs, dtype=DTYPE)[:, None]
        + (4.0 * random_normal(3, runs, count)).exp()
    )


def all_of(
    values: Float[Tensor, "r n"], x: Float[Tensor, "r n d"] | None = None
) -> tuple[Float[Tensor, "r n"], Units]:
    x = random_uniform(4, *values.shape, 2) if x is None else x
    return in_own_units(x, values, torch.ones_like(values, dtype=torch.bool))


def bend(power: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on values are bent by this power, whatever they are."""
    monkeypatch.setattr(units, "_POWERS", (1.0, power))
    monkeypatch.setattr(units, "_RELUCTANCE", -1e9)


def bowl(
    exponent: float, runs: int = 3, count: int = 29
) -> tuple[Float[Tensor, "r n"], Float[Tensor, "r n 2"]]:
    """Values of a power of a smooth function, and where."""
    x = random_uniform(6, runs, count, 2)
    return (0.05 + 3 * (x - 0.4).square().sum(-1) + 0.3 * torch.sin(5 * x[..., 0])) ** exponent, x


def test_the_power_undoes_that_of_a_smooth_function_and_others_are_seen_as_they_are() -> None:
    assert all_of(*bowl(12.0))[1].power.tolist() == [0.0] * 3
    values, x = bowl(12.0)
    waves = torch.sin(5 * x[..., 0]) + torch.cos(4 * x[..., 1])
    assert all_of(waves, x)[1].power.tolist() == [1.0] * 3
    assert all_of(-values, x)[1].power.tolist() == [1.0] * 3
    assert all_of(random_normal(7, 5, 41))[1].power.tolist() == [1.0] * 5


def test_noise_keeps_values_from_being_bent_as_they_would_be_without_it() -> None:
    """Far above the best they are as skewed as before; near it they have little but noise."""
    values, x = bowl(1.5, runs=5, count=41)
    noise = 0.2 * values.std(-1, keepdim=True) * random_normal(8, 5, 41)
    assert all_of(values, x)[1].power.tolist() == [0.0] * 5
    assert (all_of(values + noise, x)[1].power > 0).all()


def test_few_values_are_seen_as_they_are() -> None:
    values, x = bowl(3.0)
    assert (all_of(values, x)[1].power < 1).all()
    assert all_of(values[:, :5], x[:, :5])[1].power.tolist() == [1.0] * 3


def test_the_evidence_is_the_likelihood_averaged_over_lengthscale_and_noise() -> None:
    """Each term from scipy, at the outputscale that scipy finds the most likely."""
    values, x = bowl(3.0, runs=2, count=11)
    mask = torch.arange(11) < torch.tensor([[11], [7]])
    y, _, _ = centred(
        values[:, None] ** torch.tensor([[1.0], [0.5]], dtype=DTYPE),
        mask[:, None].expand(-1, 2, -1),
    )
    found = units._log_evidence(x, y, mask)
    differences = []
    for run, count in enumerate((11, 7)):
        here = x[run, :count].numpy()
        for row in y[run, :, :count].numpy():
            terms = []
            for log_lengthscale in units._LENGTHSCALES:
                scale = math.exp(log_lengthscale) * math.sqrt(2)
                a = math.sqrt(5) * scipy.spatial.distance.cdist(here, here) / scale
                correlation = (1 + a + a**2 / 3) * np.exp(-a)
                for log_noise in units._NOISES:
                    covariance = correlation + math.exp(log_noise) * np.eye(count)
                    best = scipy.optimize.minimize_scalar(
                        lambda log_scale, row=row, covariance=covariance: (
                            -scipy.stats.multivariate_normal.logpdf(
                                row, cov=math.exp(log_scale) * covariance, allow_singular=True
                            )
                        ),
                        bounds=(-20, 20),
                        method="bounded",
                    )
                    prior = scipy.stats.norm.logpdf(
                        log_lengthscale, *units._LENGTHSCALE
                    ) + scipy.stats.norm.logpdf(log_noise, *units._NOISE)
                    terms.append(prior - best.fun)
            differences.append(scipy.special.logsumexp(terms))
    expected = torch.tensor(differences, dtype=DTYPE).reshape(2, 2)
    # What does not depend on the values is left out.
    torch.testing.assert_close(found.diff(dim=1), expected.diff(dim=1), rtol=1e-6, atol=1e-6)


def test_a_power_has_to_be_as_much_more_probable_as_the_reluctance_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its likelihood is that of the bent values times the slopes of the bend (equation 6)."""
    values, x = bowl(12.0, runs=1)
    _, found = all_of(values, x)
    above, unit = values - values.amin(), found.unit * found.scale
    mask = torch.ones_like(values, dtype=torch.bool)
    both = torch.stack([above, unit * (above / unit).log1p()], 1)
    bent, _, _ = centred(both, torch.ones_like(both, dtype=torch.bool))
    slopes = -(above / unit).log1p().sum()
    gain = (units._log_evidence(x, bent, mask)[0].diff() + slopes).item()
    assert gain > 6
    monkeypatch.setattr(units, "_POWERS", (1.0, 0.0))
    for share, expected in ((1.001, 1.0), (0.999, 0.0)):
        monkeypatch.setattr(units, "_RELUCTANCE", share * gain)
        assert all_of(values, x)[1].power.item() == expected


def test_the_least_power_that_is_probable_enough_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The farther from 1, the more probable it has to be: by 3 for a root, by 6 for a logarithm."""
    rows = [[0, 3.1, 5.9], [0, 2.9, 5.9], [0, 3.1, 6.1], [0, 2.9, 6.1], [0, math.nan, -9]]
    evidence = 7.0 + torch.tensor(rows, dtype=DTYPE)
    monkeypatch.setattr(units, "_log_evidence", lambda x, y, mask: evidence)
    above, mask = torch.zeros(5, 3, dtype=DTYPE), torch.ones(5, 3, dtype=torch.bool)
    power = units._power(random_uniform(3, 5, 3, 2), above, torch.ones(5, dtype=DTYPE), mask)
    assert power.tolist() == [0.5, 1.0, 0.0, 0.0, 1.0]


def test_values_too_noisy_for_logarithms_are_seen_as_their_roots() -> None:
    smooth, x = bowl(1.0, runs=20, count=53)
    noisy = smooth + 0.2 * smooth.std(-1, keepdim=True) * random_normal(1, 20, 53)
    root = 1 + noisy - noisy.amin(-1, keepdim=True)
    assert (all_of(root**2, x)[1].power == 0.5).sum() >= 10


def test_values_are_bent_from_an_order_statistic_on() -> None:
    values, counts = 10 * random_uniform(5, 4, 41), torch.tensor([41, 30, 7, 2])
    mask = torch.arange(41) < counts[:, None]
    found = units._bent_from(torch.where(mask, values, 0.0), mask)
    for run, count in enumerate(counts.tolist()):
        own = values[run, :count].numpy()
        quantile = np.quantile(own, units._BENT_FROM, method="nearest")
        assert found[run].item() == max(quantile, units._LEAST_UNIT * own.std())


def test_a_power_of_one_bends_nothing_not_even_by_a_rounding() -> None:
    above = 7 * random_uniform(5, 3, 41)
    power, unit = torch.tensor([[1.0], [0.5], [1.0]], dtype=DTYPE), 0.3 * random_uniform(6, 3, 1)
    bent = units._bent(above, power, unit)
    assert (bent == above).all(-1).tolist() == [True, False, True]


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
def test_values_map_to_y_and_back(power: float, monkeypatch: pytest.MonkeyPatch) -> None:
    bend(power, monkeypatch)
    values = by_decades()
    y, own = all_of(values)
    torch.testing.assert_close(y.mean(-1), torch.zeros(3, dtype=DTYPE), rtol=0, atol=1e-13)
    torch.testing.assert_close(y.square().mean(-1), torch.ones(3, dtype=DTYPE))
    torch.testing.assert_close(own(values), y, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(own.back(y), values, rtol=1e-9, atol=0)
    # Below the best and beyond the worst too, and with any axes in between.
    wide = torch.cat([values - values.amin(-1, keepdim=True) - 7, 3 * values], -1)
    many = wide[:, None].expand(-1, 2, -1)
    torch.testing.assert_close(own.back(own(many)), many, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
def test_the_scale_has_no_jump_and_no_bend_at_the_best_and_the_worst(
    power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    bend(power, monkeypatch)
    values = by_decades()
    _, own = all_of(values)
    for edge in (values.amin(-1), values.amax(-1)):
        step = 1e-6 * own.scale * own.unit
        at = edge[:, None] + step[:, None] * torch.tensor([-1.0, 0.0, 1.0], dtype=DTYPE)
        below, above = own(at).diff(dim=-1).unbind(-1)
        torch.testing.assert_close(below, above, rtol=2e-3, atol=0)
        assert (below > 0).all()


def test_a_bent_value_is_that_of_box_and_cox(monkeypatch: pytest.MonkeyPatch) -> None:
    values = by_decades()
    for power in (0.5, 0.0):
        bend(power, monkeypatch)
        y, own = all_of(values)
        ordered = torch.sort(values - values.amin(-1, keepdim=True), -1).values
        deviation = ordered.std(-1, correction=0)
        unit = ordered[:, 10].maximum(units._LEAST_UNIT * deviation)[:, None]  # a quarter of 40
        for run in range(3):
            expected = scipy.stats.boxcox(
                (1 + (values - values.amin(-1, keepdim=True)) / unit)[run].numpy(), lmbda=power
            )
            standard = scipy.stats.zscore(expected)
            torch.testing.assert_close(y[run], torch.from_numpy(standard), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close((own.unit * own.scale)[:, None], unit)


@given(st.lists(FINITE, min_size=1, max_size=29))
@settings(max_examples=100, deadline=None)
def test_any_values_keep_their_order_and_map_back(values: list[float]) -> None:
    y, own = all_of(torch.tensor([values], dtype=DTYPE))
    seen = torch.tensor([without_penalties(values)], dtype=DTYPE)
    assert torch.isfinite(y).all()
    assert y.abs().max().item() <= math.sqrt(len(values)) * (1 + 1e-12)
    assert (y[0, torch.argsort(seen[0])].diff() >= 0).all()
    largest = seen.abs().max().item()
    assert (own.back(y) - seen).abs().max().item() <= 1e-9 * largest + 1e-306


@pytest.mark.parametrize("penalty", [1e9, 1e30, 1e300])
def test_penalties_count_as_the_worst_of_the_other_values(penalty: float) -> None:
    """They leave the values and the units as they would be with the worst value in their place."""
    x = random_uniform(5, 3, 23, 2)
    values = 5.0 - bowl(12.0, count=23)[0] / 10
    places = torch.tensor([[2, 3], [5, 7], [11, 13]])
    rest = values.scatter(1, places, -torch.inf).amax(-1, keepdim=True).expand(-1, 2)
    expected, known = all_of(values.scatter(1, places, rest), x)
    penalised = values.scatter(1, places, penalty)
    y, own = all_of(penalised, x)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    assert own.equals(known).all()
    torch.testing.assert_close(own(penalised), y, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "penalised"),
    [
        ([0.0, 1.0, 2.0, 3.1e4], False),
        ([0.0, 1.0, 2.0, 3.0, 3.1e4], True),
        ([0.0, 1.0, 2.0, 3.0, 2.9e4], False),
        ([0.0, 1.0, 2.0, 3.0, *[1e9] * 4], True),
        ([0.0, 1.0, 2.0, 3.0, *[1e9] * 5], False),
        ([7.0, *[1e9] * 5], False),
        ([0.3, 0.3, 0.3, 0.3, 0.3, 0.1 + 0.2, 0.5, 0.6, 0.55], False),  # a plateau
        ([0.1, 0.2, 0.3, 0.1 + 0.2, 0.5, 1e4], True),
        ([1e9, 1e9 + 3, 1e9 + 1, 1e9 + 2, 2e9], False),
        ([1.0, 1 + 15e-7, 1 + 5e-7, 1 + 1e-6, 2.0], True),
    ],
)
def test_the_rest_is_four_values_and_half_of_all_that_differ(
    values: list[float], penalised: bool
) -> None:
    _, own = all_of(torch.tensor([values], dtype=DTYPE))
    scale = (max(without_penalties(values)) if penalised else max(values)) - min(values)
    assert (own.worst * own.scale).item() == pytest.approx(scale)


@given(st.lists(st.lists(FINITE, max_size=29), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_run_of_a_ragged_batch_has_the_units_that_it_has_alone(runs: list[list[float]]) -> None:
    x = [torch.full((len(values), 2), 0.5, dtype=DTYPE) for values in runs]
    values = [torch.tensor(row, dtype=DTYPE) for row in runs]
    together = ragged(x, values)
    for row, count in enumerate(map(len, runs)):
        alone = ragged(x[row : row + 1], values[row : row + 1])
        torch.testing.assert_close(together.y[row, :count], alone.y[0], rtol=1e-12, atol=1e-14)
        for field in dataclasses.fields(Units):
            torch.testing.assert_close(
                getattr(together.units, field.name)[row], getattr(alone.units, field.name)[0]
            )


def test_affine_units_are_location_and_scale() -> None:
    location, scale = random_normal(11, 3), random_uniform(12, 3) + 0.5
    own, y = Units.affine(location, scale), random_normal(13, 3, 7)
    values = location[:, None] + scale[:, None] * y
    torch.testing.assert_close(own(values), y)
    torch.testing.assert_close(own.back(y), values)


def test_units_of_affine_values_move_by_an_exact_shift_and_factor() -> None:
    x, values = random_uniform(14, 3, 11, 2), random_normal(15, 3, 11)
    old, new = Observations.of(x[:, :7], values[:, :7]), Observations.of(x, values)
    assert new.units.power.tolist() == [1.0] * 3
    shift, factor = new.rescaling(old.units)
    torch.testing.assert_close(factor[:, None] * new.y + shift[:, None], old.units(values))
    torch.testing.assert_close(factor, new.units.scale / old.units.scale)
    shift, factor = new.rescaling(new.units)
    assert (shift.tolist(), factor.tolist()) == ([0.0] * 3, [1.0] * 3)


def test_units_of_other_powers_move_by_the_nearest_shift_and_factor() -> None:
    """The moved values have the mean and the spread that they have in the last units."""
    values = by_decades()
    data = Observations.of(random_uniform(16, 3, 41, 2), values)
    last = Observations.of(data.x[:, :3], values[:, :3]).units
    assert last.power.tolist() == [1.0] * 3
    assert data.units.power.tolist() == [0.0] * 3
    shift, factor = data.rescaling(last)
    seen = last(values)
    torch.testing.assert_close(shift, seen.mean(-1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(factor, seen.std(-1, correction=0), rtol=1e-9, atol=0)


def test_a_run_of_one_value_moves_nowhere() -> None:
    data = Observations.of(torch.full((1, 3, 2), 0.5, dtype=DTYPE), torch.full((1, 3), 7.0))
    shift, factor = data.rescaling(Observations.of(data.x[:, :1], data.values[:, :1]).units)
    assert (shift.item(), factor.item()) == (0.0, 1.0)


def test_what_was_seen_of_equal_values_serves_in_any_units() -> None:
    """Values that are all the same have no scale, so what is inferred from them needs no change."""
    x, values = random_uniform(18, 1, 7, 2), 1e6 * random_normal(19, 1, 7)
    equal = Observations.of(x[:, :3], torch.full((1, 3), 7.0))
    shift, factor = Observations.of(x, values).rescaling(equal.units)
    assert (shift.item(), factor.item()) == (0.0, 1.0)


def test_ties_at_the_best_do_not_buy_a_power() -> None:
    """Counts that have nothing to do with the points, most of them the least."""
    values = torch.tensor([[0.0] * 8 + [1.0, 2.0, 2.0, 3.0, 3.0]], dtype=DTYPE).expand(7, -1)
    order = random_uniform(3, 7, 13).argsort(-1)
    _, found = all_of(values.gather(-1, order), random_uniform(4, 7, 13, 2))
    assert found.power.tolist() == [1.0] * 7
    assert (units._bent_from(values, torch.ones_like(values, dtype=torch.bool)) >= 1.0).all()


@pytest.mark.parametrize("ties", [2, 5, 9])
def test_values_that_tie_but_for_a_rounding_tie(ties: int) -> None:
    """As means do that are summed in another order."""
    x, values = random_uniform(3, 29, 17, 2), 0.31 + 0.1 * random_uniform(4, 29, 17)
    values[:, :ties] = 0.3
    rounded = values.clone()
    rounded[:, 1:ties:2] += 2.0**-54
    assert ((rounded == rounded.amin(-1, keepdim=True)).sum(-1) < ties).all()
    exactly, expected = all_of(values, x)
    nearly, found = all_of(rounded, x)
    assert found.power.tolist() == expected.power.tolist()
    assert (found.power == 1.0).sum() > 20
    torch.testing.assert_close(nearly, exactly, rtol=0, atol=1e-12)


def test_a_limited_quantity_that_was_always_the_same_has_its_size_for_a_scale() -> None:
    """But a distance of 0 from the limit is none; and there is no worst one without a scale."""
    values = torch.tensor([-3.0, 0.0, 7.0, 7.0], dtype=DTYPE)[:, None].expand(-1, 5)
    straight = torch.tensor([True, True, True, False])
    mask = torch.ones_like(values, dtype=torch.bool)
    y, own = in_own_units(random_uniform(5, 4, 5, 2), values, mask, straight)
    assert (y == 0).all()
    assert own.scale.tolist() == [3.0, 1.0, 7.0, 1.0]
    assert own.worst.tolist() == [0.0] * 4


def test_how_far_a_quantity_is_beyond_its_limit_is_not_bent() -> None:
    values, x = bowl(12.0)
    straight = torch.tensor([False, True, False])
    _, own = in_own_units(x, values, torch.ones_like(values, dtype=torch.bool), straight)
    assert own.power.tolist() == [0.0, 1.0, 0.0]


def test_no_distance_beyond_a_limit_is_a_penalty() -> None:
    """Neither one that was measured, nor the limit itself, far from quantities that agree."""
    values = torch.tensor([[0.0, 1.0, 2.0, 3.0, 1e9], [-1, -1 + 1e-7, -1 + 2e-7, -1, -1 + 3e-7]])
    values, mask = values.to(DTYPE), torch.ones(2, 5, dtype=torch.bool)
    y, own = in_own_units(random_uniform(5, 2, 5, 2), values, mask, torch.tensor([True, True]))
    torch.testing.assert_close(y, torch.from_numpy(scipy.stats.zscore(values.numpy(), axis=-1)))
    location, scale = values.mean(-1), values.std(-1, correction=0)
    torch.testing.assert_close(own(0 * values[:, :1]), -(location / scale)[:, None])


def test_units_are_the_same_if_all_that_they_say_is() -> None:
    _, own = all_of(by_decades())
    assert own.equals(dataclasses.replace(own)).tolist() == [True] * 3
    one = torch.tensor([False, True, False])
    for field in dataclasses.fields(Units):
        other = torch.where(one, getattr(own, field.name) + 1, getattr(own, field.name))
        changed = dataclasses.replace(own, **{field.name: other})
        assert own.equals(changed).tolist() == [True, False, True]


def test_how_far_values_are_from_0_does_not_change_their_power() -> None:
    values, x = bowl(6.0)
    assert all_of(values, x)[1].power.tolist() == all_of(1e6 + values, x)[1].power.tolist()
    assert (all_of(values, x)[1].power < 1).all()


def test_the_largest_numbers_there_are_have_a_scale() -> None:
    values = torch.tensor([[1.7e308, -1.7e308, 1e308, 0.0, -1e308]], dtype=DTYPE)
    y, own = all_of(values)
    torch.testing.assert_close(y, (values / 1e308 / (values / 1e308).std(correction=0)))
    torch.testing.assert_close(own(values), y)
    torch.testing.assert_close(own.back(y), values)


def test_values_that_differ_by_roundings_only_are_seen_as_they_are() -> None:
    values = 0.3 + 2.0**-54 * (torch.arange(11, dtype=DTYPE) % 3).expand(2, -1)
    assert len(values.unique()) > 1
    y, found = all_of(values, random_uniform(5, 2, 11, 2))
    assert found.power.tolist() == [1.0, 1.0]
    torch.testing.assert_close(y.std(-1, correction=0), torch.ones(2, dtype=DTYPE))


def test_two_values_are_the_same_under_every_power_and_buy_none() -> None:
    """Passed or not, of what has nothing to do with the points."""
    values = (random_uniform(3, 40, 80) < 0.3).to(DTYPE)
    assert all_of(values, random_uniform(4, 40, 80, 3))[1].power.tolist() == [1.0] * 40


def test_counts_that_are_often_the_least_are_seen_as_they_are() -> None:
    values = scipy.stats.poisson.ppf(random_uniform(3, 100, 40).numpy(), 0.7)
    assert ((values == values.min(axis=-1, keepdims=True)).sum(axis=-1) > 1).all()
    _, found = all_of(torch.from_numpy(values), random_uniform(4, 100, 40, 3))
    assert (found.power == 1.0).sum() >= 90


def test_values_without_ties_at_the_best_pay_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, beside others that tie; two that tie elsewhere, or all of them, do not."""
    values, x = bowl(12.0, runs=5)
    values[1] = (values[1] > values[1].median()).to(DTYPE)
    values[2, 3:5] = values[2].amax()
    values[3] = 7.0
    mask = torch.arange(29) < torch.tensor([[29], [29], [29], [29], [1]])
    values = torch.where(mask, values, 0.0)
    y, found = in_own_units(x, values, mask)
    ties, _ = units._ties(values - values.amin(-1, keepdim=True), mask)
    assert (ties > 0).tolist() == [False, True, False, False, False]
    monkeypatch.setattr(units, "_ties", lambda above, mask: (torch.zeros(len(above)), above[:, 0]))
    without, known = in_own_units(x, values, mask)
    assert found.equals(known).tolist() == [True, False, True, True, True]
    others = [0, 2, 3, 4]
    assert torch.equal(y[others], without[others])


@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("exponent", [-323, -319, -315, -311, -307, -303])
def test_values_that_differ_by_subnormal_numbers_map_back(exponent: int, straight: bool) -> None:
    values = torch.tensor([[0.0, 1.0, 2.0, 5.0, 3.0]], dtype=DTYPE) * 10.0**exponent
    mask = torch.ones_like(values, dtype=torch.bool)
    y, own = in_own_units(random_uniform(3, 1, 5, 2), values, mask, torch.tensor([straight]))
    smallest = 2.0**-1074
    relative = 1e-15 + smallest / own.scale.item()  # what a digit of the scale is
    torch.testing.assert_close(own(values), y, rtol=0, atol=8 * relative)
    torch.testing.assert_close(own.back(y), values, rtol=8 * relative, atol=3 * smallest)


def test_the_least_number_there_is_has_a_scale_to_divide_by() -> None:
    values, mask = torch.full((1, 3), 5e-324, dtype=DTYPE), torch.ones(1, 3, dtype=torch.bool)
    y, own = in_own_units(random_uniform(3, 1, 3, 2), values, mask, torch.tensor([True]))
    assert torch.equal(own(values), y)
    assert own(torch.zeros_like(values)).isfinite().all()


@pytest.mark.parametrize("new", [-1e160, -1e300])
def test_values_beyond_measure_leave_the_scale_alone(new: float) -> None:
    """Draws are carried over as they are, and not to scales of 0 or infinity."""
    x, values = random_uniform(3, 2, 7, 2), random_uniform(4, 2, 7)
    before = Observations.of(x[:, :6], values[:, :6])
    values[0, 6] = new
    shift, factor = Observations.of(x, values).rescaling(before.units)
    assert (float(shift[0]), float(factor[0])) == (0.0, 1.0)
    alone = Observations.of(x[1:], values[1:])
    own = alone.rescaling(Observations.of(x[1:, :6], values[1:, :6]).units)
    torch.testing.assert_close((shift[1:], factor[1:]), own)
    assert 0.5 < float(factor[1]) < 2.0
    assert float(factor[1]) != 1.0

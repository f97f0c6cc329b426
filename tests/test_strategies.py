"""Every strategy keeps one contract; then what each of them is for."""

import inspect
import math
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import pytest
import torch

from gpbo import design, strategies
from gpbo.backend import DTYPE, Streams
from gpbo.candidates import Search
from gpbo.data import Observations
from gpbo.errors import InvalidOption, SpaceExhausted
from gpbo.fitting import Fit, Model, fit
from gpbo.fixed import with_fixed
from gpbo.lockstep import replicate
from gpbo.model_free import _any_left
from gpbo.optimizer import Optimizer
from gpbo.paths import Numbered, Paths, draw_paths
from gpbo.simulation import simulate
from gpbo.situation import Lazy, Situation, Strategy, points_and_keys, proposed
from gpbo.space import Categorical, Integer, Ordinal, Real, Space
from gpbo.strategies import (
    STRATEGIES,
    CustomAcquisition,
    ExpectedImprovement,
    GridSearch,
    Incumbent,
    ProbabilityOfImprovement,
    RandomSearch,
    SobolSearch,
    ThompsonSampling,
    _best_points,
    resolve_strategy,
)
from gpbo.surrogate import Surrogate
from tests.monte_carlo import ragged, random_uniform, unchecked_shapes

MIXED = Space(
    Real("rate", 1e-4, 1.0, "log"), Integer("depth", 1, 5), Categorical("kind", ("a", "b", "c"))
)
FINITE = Space(Integer("depth", 1, 3), Ordinal("width", (8, 32)), Categorical("kind", ("a", "b")))
BY_NAME = pytest.mark.parametrize("name", STRATEGIES)


def situation(
    space: Space, counts: list[int], *, pending: int = 0, seed: int = 11, first_run: int = 0
) -> Situation:
    """Runs with these numbers of results, at points that depend on the run's own number only."""
    seeds = tuple(range(seed + first_run, seed + first_run + len(counts)))
    x, values, waiting, taken = [], [], [], []
    for run, count in enumerate(counts, start=first_run):
        points = space.snap(design.sobol(count + pending, space.dim, Streams([run]))[0])
        x.append(points[:count])
        values.append((points[:count] - 0.3).square().sum(-1))
        waiting.append(points[count:])
        taken.append(frozenset(space.key(params) for params in space.decode(points)))
    data = ragged(x, values, waiting)

    def model() -> Fit:
        streams = Streams.per_seed(seeds, "fit")
        return fit(data, Model(), inference="map", streams=streams)

    none = torch.zeros(len(counts), 0, space.dim, dtype=DTYPE)
    return Situation(
        space=space,
        data=data,
        failed=none,
        failed_mask=torch.zeros(len(counts), 0, dtype=torch.bool),
        taken=tuple(taken),
        seeds=seeds,
        index=max(counts) + pending,
        fit=model,
    )


def quick(name: str) -> Strategy:
    """The strategy of this name; with a model, one that does not search hard."""
    search = Search(raw=32, perturbed=8, restarts=2, iterations=8)
    if name == "ei":
        return ExpectedImprovement(search)
    if name == "ts":
        return ThompsonSampling(search, features=64)
    return ProbabilityOfImprovement(search) if name == "pi" else resolve_strategy(name)


def check_singles(strategy: Strategy, now: Situation, batch: torch.Tensor) -> None:
    """What is proposed one after another, each pending for the next, is the batch."""
    for expected in batch.unbind(1):
        single = strategy.propose(now, 1)[:, 0]
        torch.testing.assert_close(single, expected, rtol=0, atol=0)
        now = now.after(single)


def keys(space: Space, points: torch.Tensor) -> list[Hashable]:
    return [space.key(params) for params in space.decode(points)]


@pytest.mark.parametrize("strategy", [*STRATEGIES.values(), CustomAcquisition])
def test_pyright_takes_it_for_a_strategy(strategy: type[Strategy]) -> None:
    """To it a `ClassVar` is no property of a protocol."""
    declared = [inspect.get_annotations(one) for one in strategy.__mro__]
    assert not [
        name
        for own in declared
        for name in ("name", "uses_model")
        if "ClassVar" in str(own.get(name))
    ]


@BY_NAME
@pytest.mark.parametrize("space", [MIXED, FINITE])
def test_a_batch_is_snapped_new_and_distinct(name: str, space: Space) -> None:
    now = situation(space, [5, 3], pending=2)
    points = quick(name).propose(now, 3)
    assert points.shape == (2, 3, space.dim)
    torch.testing.assert_close(space.snap(points), points, rtol=0, atol=0)
    for run in range(2):
        proposed = keys(space, points[run])
        assert len(set(proposed)) == 3
        assert now.taken[run].isdisjoint(proposed)


@BY_NAME
def test_a_batch_is_what_single_proposals_are(name: str) -> None:
    now = situation(MIXED, [5], pending=1)
    strategy = quick(name)
    batch = strategy.propose(now, 3)
    assert batch.shape[1] == 3
    check_singles(strategy, now, batch)


@BY_NAME
def test_a_run_in_a_batch_is_proposed_what_it_is_alone(name: str) -> None:
    strategy = quick(name)
    together = strategy.propose(replace(situation(MIXED, [6, 3]), index=6), 2)
    for run, count in enumerate([6, 3]):
        alone = strategy.propose(replace(situation(MIXED, [count], first_run=run), index=6), 2)
        torch.testing.assert_close(together[run : run + 1], alone, rtol=0, atol=1e-7)
    assert not torch.equal(together[0], together[1])


@BY_NAME
def test_the_seed_decides_the_proposal(name: str) -> None:
    strategy = quick(name)
    first = strategy.propose(situation(MIXED, [5]), 1)
    torch.testing.assert_close(first, strategy.propose(situation(MIXED, [5]), 1), rtol=0, atol=0)
    if name not in ("ei", "pi"):  # where two seeds may well lead to the same maximum
        assert not torch.equal(first, strategy.propose(situation(MIXED, [5], seed=12), 1))


@BY_NAME
def test_a_used_up_space_gives_what_is_left_and_then_says_so(name: str) -> None:
    strategy = quick(name)
    now = situation(FINITE, [4])
    left = 12 - len(now.taken[0])
    points = strategy.propose(now, 20)
    assert points.shape[1] == left
    for j in range(left):
        now = now.after(points[:, j])
    assert len(now.taken[0]) == 12
    with pytest.raises(SpaceExhausted):
        strategy.propose(now, 1)


def test_after_makes_the_point_pending_and_taken_and_counts_on() -> None:
    now = situation(MIXED, [3, 5], pending=1)
    points = MIXED.snap(random_uniform(1, 2, MIXED.dim))
    later = now.after(points)
    assert later.index == now.index + 1
    torch.testing.assert_close(later.data.pending[:, -1], points)
    for run, key in enumerate(keys(MIXED, points)):
        assert later.taken[run] == now.taken[run] | {key}


def test_points_become_those_of_the_configurations_they_mean_with_the_keys_of_each_run() -> None:
    points = random_uniform(3, 2, 5, MIXED.dim)
    x, found = points_and_keys(MIXED, points)
    assert torch.equal(x, MIXED.encode(MIXED.decode(points.flatten(0, 1))).view(2, 5, -1))
    assert found == [frozenset(keys(MIXED, row)) for row in points]


def test_what_is_lazy_is_made_once_and_not_before_it_is_asked_for() -> None:
    made: list[int] = []

    def make() -> list[int]:
        made.append(len(made))
        return made

    lazy = Lazy(make)
    assert (made, lazy.made) == ([], None)
    assert lazy() is lazy() is lazy.made
    assert made == [0]


def searched(strategy: ThompsonSampling, now: Situation, count: int = 1) -> dict[str, Any]:
    """What Thompson sampling draws functions with, and searches their minima with."""
    given: dict[str, Any] = {}

    def drawing(surrogate: Surrogate, count: int, **options: Any) -> Paths:
        given.update(options)
        return draw_paths(surrogate, count, **options)

    def searching(*_: Any, **options: Any) -> torch.Tensor:
        given.update(options)
        return given["raw"][:, :count]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies, "draw_paths", drawing)
        patch.setattr(strategies, "minima", searching)
        strategy.propose(now, count)
    return given


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_in_few_dimensions_functions_are_exact_at_the_raw_points_near_the_best(dim: int) -> None:
    now = situation(Space([Real(f"x{i}", 0, 1) for i in range(dim)]), [5])
    strategy = ThompsonSampling(Search(raw=401, perturbed=17), features=2, region=None)
    given = searched(strategy, now)
    if dim > 3:
        assert given["anchors"] is None
    else:
        assert torch.equal(given["anchors"], given["raw"][:, -384:])


def test_functions_are_searched_in_boxes_by_their_number_and_by_how_many_run_before_them() -> None:
    now = situation(MIXED, [5, 3], pending=2)
    mask = torch.tensor([[True, True], [True, False]])
    now = replace(now, data=replace(now.data, pending_mask=mask), index=11)
    confined = searched(ThompsonSampling(features=2), now, 3)["confined"]
    assert confined.numbers.tolist() == [[11, 12, 13], [11, 12, 13]]
    assert confined.pending.tolist() == [[2, 3, 4], [1, 2, 3]]


def test_waves_are_the_same_until_another_result_comes() -> None:
    def waves(now: Situation) -> torch.Tensor:
        shared: Numbered = searched(ThompsonSampling(features=2), now)["shared"]
        return shared(3).uniform(7)

    first = waves(situation(MIXED, [5, 3]))
    assert torch.equal(waves(situation(MIXED, [5, 3], pending=2)), first)
    more = waves(situation(MIXED, [5, 4]))
    assert torch.equal(more[0], first[0])
    assert not torch.equal(more[1], first[1])


def test_random_search_covers_every_choice_about_equally() -> None:
    now = situation(MIXED, [0])
    points = torch.cat([RandomSearch().propose(now, 1)[0] for now in _trials(now, 300)])
    shares = [params["kind"] for params in MIXED.decode(points)]
    assert all(70 <= shares.count(kind) <= 130 for kind in "abc")
    below = sum(params["rate"] < 1e-2 for params in MIXED.decode(points))
    assert 115 <= below <= 185


def _trials(now: Situation, count: int) -> list[Situation]:
    return [replace(now, index=index) for index in range(count)]


def test_sobol_search_walks_one_scrambled_sequence_that_avoids_the_centre() -> None:
    space = Space(Real("a", 0, 1), Real("b", 0, 1))
    points = SobolSearch().propose(situation(space, [0]), 16)[0]
    sequence = design.sobol(16, 2, Streams.named(11, "sobol"))[0]
    torch.testing.assert_close(points, sequence, rtol=0, atol=0)
    # A (0, 4, 2)-net: one point in each of the 16 elementary intervals of every shape.
    for rows in (1, 2, 4, 8, 16):
        cells = {(int(a * rows), int(b * (16 // rows))) for a, b in points.tolist()}
        assert len(cells) == 16
    assert ((points - 0.5).abs().amax(-1) > 1e-3).all()


def test_sobol_search_gives_a_trial_the_point_of_its_number() -> None:
    space = Space(Real("a", 0, 1), Real("b", 0, 1))
    point = SobolSearch().propose(replace(situation(space, [0]), index=5), 1)[0]
    sequence = design.sobol(6, 2, Streams.named(11, "sobol"))[0]
    torch.testing.assert_close(point, sequence[5:], rtol=0, atol=0)


def test_in_a_nearly_used_up_space_any_of_what_is_left_is_found() -> None:
    space = Space(Ordinal("n", tuple(range(13))))
    taken = frozenset(space.key({"n": n}) for n in range(13) if n not in (2, 3, 11))
    found = [_any_left(space, taken, rank).unsqueeze(0) for rank in (0.0, 0.34, 0.99)]
    assert space.decode(torch.cat(found)) == [{"n": 2}, {"n": 3}, {"n": 11}]
    last = _any_left(space, frozenset(), 0.99).unsqueeze(0)
    assert space.decode(last) == [{"n": 12}]


def test_sobol_search_goes_on_with_the_next_point_where_one_is_taken() -> None:
    space = Space(Integer("a", 0, 1), Integer("b", 0, 1))
    points = SobolSearch().propose(situation(space, [0]), 4)[0]
    assert len(set(keys(space, points))) == 4


@pytest.mark.parametrize("shuffle", [True, False])
def test_grid_search_visits_every_point_of_the_grid_once(shuffle: bool) -> None:
    strategy = GridSearch(points_per_real=3, shuffle=shuffle)
    now = situation(MIXED, [0])
    points = strategy.propose(now, 1000)[0]
    expected = [MIXED.key(params) for params in MIXED.grid(3)]
    visited = keys(MIXED, points)
    assert len(visited) == len(expected) == 3 * 3 * 3
    assert set(visited) == set(expected)
    assert (visited == expected) is not shuffle


def test_grid_search_knows_its_points_again_whatever_their_rounding() -> None:
    """The second level of this range differs from what it is after a way through the cube."""
    space = Space(Real("a", 8.201446844510496, 2.0**40, "log"))
    levels = space.parameters[0].grid(5)
    assert space.round_trip({"a": levels[1]}) != {"a": levels[1]}
    optimizer = Optimizer(space, "grid")
    assert len({trial.params["a"] for trial in optimizer.ask(9)}) == 5
    with pytest.raises(SpaceExhausted):
        optimizer.ask()
    known = Optimizer(space, "grid")
    known.add({"a": levels[1]}, 1.0)
    assert len(known.ask(9)) == 4


def test_grid_search_skips_what_was_tried_before() -> None:
    strategy = GridSearch(shuffle=False)
    now = situation(FINITE, [0]).after(FINITE.encode([next(FINITE.grid(2))]))
    point = strategy.propose(now, 1)[0]
    assert FINITE.decode(point) == [list(FINITE.grid(2))[1]]


def test_a_grid_too_large_to_shuffle_is_refused_and_runs_in_order() -> None:
    space = Space([Real(f"x{i}", 0, 1) for i in range(12)])
    with pytest.raises(InvalidOption, match="points_per_real=5: the grid has 244140625 points"):
        GridSearch().propose(situation(space, [0]), 1)
    point = GridSearch(shuffle=False).propose(situation(space, [0]), 1)
    assert point.abs().max().item() == 0.0


def test_a_grid_as_large_as_may_be_is_shuffled(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, now = GridSearch(points_per_real=3), situation(MIXED, [0])
    monkeypatch.setattr("gpbo.model_free._LARGEST_GRID", 3 * 3 * 3)
    assert len({*keys(MIXED, strategy.propose(now, 1000)[0])}) == 27
    monkeypatch.setattr("gpbo.model_free._LARGEST_GRID", 26)
    with pytest.raises(InvalidOption, match="has 27 points, expected at most 26"):
        strategy.propose(now, 1)


def test_a_grid_of_one_point_is_refused() -> None:
    with pytest.raises(InvalidOption, match="points_per_real=1"):
        GridSearch(points_per_real=1)


@pytest.mark.parametrize(
    ("kind", "option", "wrong"),
    [
        (ExpectedImprovement, "margin", "x"),
        (ProbabilityOfImprovement, "search", "hard"),
        (ThompsonSampling, "search", {"raw": 64}),
        (ThompsonSampling, "features", 63),
        (ThompsonSampling, "features", 64.0),
        (GridSearch, "points_per_real", 2.5),
    ],
)
def test_options_are_judged_when_they_are_given(kind: Any, option: str, wrong: Any) -> None:
    with unchecked_shapes(), pytest.raises(InvalidOption, match=f"{option}={wrong!r}: expected"):
        kind(**{option: wrong})


@pytest.mark.parametrize(
    "strategy", [ExpectedImprovement(), ProbabilityOfImprovement(), ThompsonSampling()]
)
def test_strategies_with_a_model_go_where_the_objective_is_low(strategy: Strategy) -> None:
    """A clear quadratic bowl with its minimum at 0.3: the proposal is closer than the data."""
    space = Space(Real("a", 0, 1), Real("b", 0, 1))
    now = situation(space, [13, 17])
    proposed = strategy.propose(now, 1)[:, 0]
    distance = (proposed - 0.3).square().sum(-1).sqrt()
    assert (distance < 0.15).all()


def test_pending_points_push_the_next_one_away() -> None:
    space = Space(Real("a", 0, 1))
    now = situation(space, [3])
    first, second = ExpectedImprovement().propose(now, 2)[0, :, 0].tolist()
    assert abs(first - second) > 1e-3


def flat_but_for_a_hole() -> Situation:
    """A hole with a hundred results, which the prior believes to be the only one."""
    x = torch.cat([torch.linspace(0.4, 0.6, 101, dtype=DTYPE), torch.tensor([0.05, 0.95])])
    x = x[None, :, None]
    y = -2 * (-0.5 * ((x[..., 0] - 0.5) / 0.05) ** 2).exp()
    data = Observations.of(x, y)
    ones = torch.ones(1, 1, dtype=DTYPE)
    surrogate = Surrogate.condition(
        data.x, y, data.mask, 0.05 * ones[..., None], 0.36 * ones, 1e-6 * ones, 0 * ones
    )
    now = situation(Space(Real("a", 0, 1)), [103])
    return replace(now, data=data, fit=lambda: replace(now.fit(), surrogate=surrogate))


@pytest.mark.parametrize("kind", [ExpectedImprovement, ProbabilityOfImprovement])
def test_less_than_the_margin_is_no_improvement(
    kind: type[ExpectedImprovement] | type[ProbabilityOfImprovement],
) -> None:
    """Without a margin the bottom of the hole is searched on."""
    refining = flat_but_for_a_hole()
    now = replace(refining, index=104)
    again = kind(margin=0.0).propose(now, 1).item()
    assert abs(again - 0.5) < 0.05
    assert abs(kind().propose(now, 1).item() - 0.5) > 0.1
    assert abs(kind(refine=4).propose(refining, 1).item() - 0.5) < 0.05


@pytest.mark.parametrize("incumbent", ["mean", "observed"])
@pytest.mark.parametrize("kind", [ExpectedImprovement, ProbabilityOfImprovement])
def test_an_improvement_is_on_the_mean_or_on_what_was_observed(
    kind: type[ExpectedImprovement] | type[ProbabilityOfImprovement], incumbent: Incumbent
) -> None:
    """By noise, the least of these results lies far below the mean."""
    now = flat_but_for_a_hole()
    known = now.fit()
    surrogate = known.surrogate
    noisy = Surrogate.condition(
        surrogate.x,
        surrogate.y[:, 0] - 1.0 * (surrogate.x[..., 0] == surrogate.x[:, 50]),
        surrogate.mask,
        surrogate.lengthscale,
        surrogate.outputscale,
        torch.full_like(surrogate.noise_variance, 0.09),
        surrogate.mean,
    )
    now = replace(now, fit=lambda: replace(known, surrogate=noisy))
    least = noisy.least_observed if incumbent == "observed" else noisy.incumbent
    grid = torch.linspace(0, 1, 20_001, dtype=DTYPE)[None, :, None]
    utility = kind._acquisition(noisy, best=least - kind().margin)(grid)[0]
    best = float(grid[0, int(utility.argmax()), 0])
    proposed = kind(incumbent=incumbent).propose(now, 1).item()
    assert abs(proposed - best) < 1e-3
    assert (abs(best - 0.5) < 0.1) == (incumbent == "mean")


@pytest.mark.parametrize("kind", [ExpectedImprovement, ProbabilityOfImprovement])
def test_an_improvement_is_on_samples_of_the_results_without_noise(
    kind: type[ExpectedImprovement] | type[ProbabilityOfImprovement],
) -> None:
    """Every draw has its own, and one that is alone has sixteen; nothing else is known."""
    now = situation(Space(Real("a", 0, 1), Real("b", 0, 1)), [13, 7], pending=2)
    now = with_noise(now, [math.sqrt(0.2)])
    surrogate, data, searched = now.fit().surrogate, now.data, []

    class Noting(kind):  # type: ignore[valid-type, misc]
        def _utility(self, surrogate: Surrogate, situation: Situation) -> Any:
            searched.append((surrogate, super()._utility(surrogate, situation)))
            return searched[-1][1]

    for refine in (0, 1):
        Noting(margin=0.0, incumbent="sampled", refine=refine).propose(now, 1)
    (seen, utility), (refining, _) = searched
    expected = surrogate.sampled(now.streams("values"), times=16)
    assert seen.draws == 16
    assert torch.equal(seen.y[..., :13], expected.y)
    fantasies = seen.y[..., 13:].masked_fill(~data.pending_mask[:, None], torch.inf)
    least = expected.y.masked_fill(~surrogate.mask[:, None], torch.inf).amin(-1)
    least = torch.minimum(least, fantasies.amin(-1))
    torch.testing.assert_close(utility.best, least, rtol=0, atol=1e-3)
    assert least.std() > 0.1
    # What refines the best minimum does so from the mean.
    assert torch.equal(refining.y[..., :13], surrogate.y)


def with_noise(now: Situation, deviations: list[float]) -> Situation:
    """With a draw for each of these deviations of the noise, else the first one that was fitted."""
    fitted = now.fit()
    given = fitted.surrogate.of_draws(torch.zeros(len(deviations), dtype=torch.int64))
    noise = torch.tensor(deviations, dtype=torch.float64).square().expand_as(given.mean)
    noisy = Surrogate.condition(
        given.x, given.y[:, 0], given.mask,
        given.lengthscale, given.outputscale, noise, given.mean,
    )  # fmt: skip
    return replace(now, fit=lambda: replace(fitted, surrogate=noisy))


def test_by_default_an_improvement_is_on_samples_of_noisy_draws() -> None:
    """Draws that take the results for exact, by a deviation below 0.02, keep their values."""
    results = situation(Space(Real("a", 0, 1), Real("b", 0, 1)), [13, 7])
    noise = [0.019, 0.021, 0.3, 0.001, 0.1]
    now, single, exact = (with_noise(results, each) for each in (noise, [0.3], [0.001]))
    given, alone, certain = (each.fit().surrogate for each in (now, single, exact))
    kinds: tuple[Incumbent, ...] = ("sampled", "mean")
    sampled, mean = (ExpectedImprovement(incumbent=each, refine=0) for each in kinds)
    assert sampled == ExpectedImprovement(refine=0)
    assert ProbabilityOfImprovement() == ProbabilityOfImprovement(incumbent="mean")
    assert mean._seen(given, now) is given
    assert mean._seen(alone, single) is alone
    seen = sampled._seen(given, now)
    assert seen.draws == 5
    for draw, deviation in enumerate(noise):
        values, there = given.y[:, draw], given.mask
        same = (seen.y[:, draw] == values)[there]
        assert same.all() if deviation < 0.02 else not same.any()
        kept = seen.noise_variance[:, draw] == given.noise_variance[:, draw]
        assert bool(kept.all()) == (deviation < 0.02)
    assert sampled._seen(alone, single).draws == 16
    assert sampled._seen(certain, exact) is certain


def test_an_incumbent_is_one_of_three() -> None:
    refused = r"incumbent='best': expected one of \('mean', 'observed', 'sampled'\)"
    for kind in (ExpectedImprovement, ProbabilityOfImprovement):
        with unchecked_shapes(), pytest.raises(InvalidOption, match=refused):
            kind(incumbent="best")  # type: ignore[arg-type]


@pytest.mark.parametrize("margin", [-0.5, math.inf, math.nan])
@pytest.mark.parametrize("kind", [ExpectedImprovement, ProbabilityOfImprovement])
def test_a_margin_is_finite_and_not_negative(
    kind: type[ExpectedImprovement] | type[ProbabilityOfImprovement], margin: float
) -> None:
    with pytest.raises(InvalidOption, match=f"margin={margin}: expected"):
        kind(margin=margin)


@pytest.mark.parametrize("refine", [-1, 2.5])
def test_refine_is_a_whole_number_and_not_negative(refine: Any) -> None:
    for kind in (ExpectedImprovement, ProbabilityOfImprovement):
        with unchecked_shapes(), pytest.raises(InvalidOption, match=f"refine={refine}: expected"):
            kind(refine=refine)


def test_a_model_is_fitted_only_by_the_strategies_that_use_one() -> None:
    def never() -> Fit:
        raise AssertionError("fitted")

    now = situation(MIXED, [4])
    blind = replace(now, fit=never)
    for kind in STRATEGIES.values():
        strategy = kind()
        if strategy.uses_model:
            with pytest.raises(AssertionError, match="fitted"):
                strategy.propose(blind, 1)
        else:
            strategy.propose(blind, 1)


class Own:
    """A strategy of a user's own, with this answer."""

    name = "own"
    uses_model = False

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def propose(self, situation: Situation, count: int) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "given"),
    [
        (None, "NoneType"),
        ([[[0.5, 0.5]]], "list"),
        (torch.zeros(1, 2), r"torch.float32 of shape \(1, 2\)"),
        (torch.zeros(1, 0, 2), r"torch.float32 of shape \(1, 0, 2\)"),
        (torch.zeros(1, 4, 2), r"torch.float32 of shape \(1, 4, 2\)"),
        (torch.zeros(2, 1, 2), r"torch.float32 of shape \(2, 1, 2\)"),
        (torch.zeros(1, 1, 3), r"torch.float32 of shape \(1, 1, 3\)"),
        (torch.zeros(1, 1, 2).long(), r"torch.int64 of shape \(1, 1, 2\)"),
        (torch.tensor([[[0.5, 1.1]]]), r"values from 0.5 to 1\.1\d*"),
        (torch.tensor([[[-3.0, 0.5]]]), "values from -3.0 to 0.5"),
        (torch.full((1, 1, 2), math.nan), "values from nan to nan"),
    ],
)
def test_an_answer_that_is_no_points_is_refused(answer: Any, given: str) -> None:
    expected = r"expected a float tensor of shape \(1, q, 2\), q from 1 to 3, of points in the unit"
    message = f"strategy='own': proposed {given}: {expected}"
    many: dict[str, Any] = {"budget": 3, "runs": 1, "progress": False}
    with unchecked_shapes():
        with pytest.raises(InvalidOption, match=message):
            replicate("branin", strategy=Own(answer), batch=3, **many)
        with pytest.raises(InvalidOption, match=message):
            simulate("branin", strategy=Own(answer), workers=3, mode="sync", **many)


def test_points_in_single_precision_become_doubles_and_may_be_fewer() -> None:
    """A rounding may have taken them out of the cube."""
    space = Space(Real("x1", 0, 1), Real("x2", 0, 1))
    points = torch.tensor([[[0.25, 1.0 + 1e-7]]])
    answer = proposed(Own(points), situation(space, [2]), 3)
    assert answer.dtype == DTYPE
    assert torch.equal(answer, points.double())


def test_more_than_a_rounding_outside_the_cube_is_refused() -> None:
    space = Space(Real("x1", 0, 1), Real("x2", 0, 1))
    points = torch.tensor([[[0.25, 1.0 + 1e-5]]])
    with pytest.raises(InvalidOption, match=r"values from 0\.25 to 1\.00001"):
        proposed(Own(points), situation(space, [2]), 3)


def test_what_failed_in_one_run_is_not_closed_in_another() -> None:
    x = MIXED.snap(random_uniform(3, 2, 3, MIXED.dim))
    succeeded = torch.tensor([[True, False, True], [False, True, True]])
    rows = Observations.of(x, torch.zeros(2, 3, dtype=DTYPE), succeeded)
    taken = (frozenset[Hashable](), frozenset[Hashable]())
    now = Situation.of_trials(
        MIXED, x, succeeded, rows, lambda: pytest.fail("fitted"), taken=taken, seeds=(4, 5), index=3
    )
    first, second = x[0, 1:2], x[1, :1]
    assert now.closed(repeats=True) == tuple(frozenset(keys(MIXED, row)) for row in (first, second))


def test_names_and_objects_resolve_and_others_are_refused_with_the_names() -> None:
    assert resolve_strategy("ei") == ExpectedImprovement()
    mine = GridSearch(points_per_real=7)
    assert resolve_strategy(mine) is mine
    for wrong in ("EI", "bogus", None, 3, ExpectedImprovement):
        with pytest.raises(InvalidOption, match="expected one of 'ei', 'pi', 'ts', 'random'"):
            resolve_strategy(wrong)


@pytest.mark.parametrize("strategy", [ExpectedImprovement(), ProbabilityOfImprovement()])
def test_a_failed_point_makes_its_neighbourhood_less_attractive_and_padding_does_not(
    strategy: Strategy,
) -> None:
    space = Space(Real("a", 0, 1), Real("b", 0, 1))
    now = situation(space, [13, 13])
    first = strategy.propose(now, 1)
    masks = torch.tensor([[True], [False]])
    second = strategy.propose(replace(now, failed=first, failed_mask=masks), 1)
    moved = (second - first).square().sum(-1).sqrt()[:, 0]
    assert moved[0].item() > 0.02
    assert moved[1].item() < 1e-6


def test_where_a_trial_failed_the_model_is_certain_of_what_it_expects() -> None:
    space = Space(Real("a", 0, 1), Real("b", 0, 1))
    now = situation(space, [13])
    seen: list[Surrogate] = []

    def acquisition(surrogate: Surrogate) -> Any:
        seen.append(surrogate)
        return lambda x: -surrogate.moments(x)[0].mean(1)

    strategy = CustomAcquisition("mean", acquisition)
    best = strategy.propose(now, 1)
    failed = replace(now, failed=best, failed_mask=torch.ones(1, 1, dtype=torch.bool))
    strategy.propose(failed, 1)
    (mean, variance), (warned_mean, warned_variance) = (each.moments(best) for each in seen)
    torch.testing.assert_close(warned_mean, mean, rtol=0, atol=1e-8)
    assert (warned_variance < variance).all()
    assert (warned_variance <= 1.01 * seen[0].noise_variance[..., None]).all()


def test_what_failed_is_no_incumbent() -> None:
    """The model expects the least where a trial failed; improvement is on what has a value."""
    space = Space(Real("a", 0, 1), Real("b", 0, 1))
    now = situation(space, [13])
    known = now.fit().surrogate
    best = ExpectedImprovement().propose(now, 1)
    assert (known.moments(best)[0] < known.incumbent[..., None]).all()
    warned = known.hallucinate(best, torch.ones(1, 1, dtype=torch.bool))
    for strategy, value in (
        (ExpectedImprovement(margin=0.0), known.incumbent),
        (ExpectedImprovement(margin=0.0, incumbent="observed"), known.least_observed),
    ):
        utility: Any = strategy._utility(warned, now)
        assert torch.equal(utility.best, value)


def test_the_search_starts_from_the_best_results_and_never_from_padding() -> None:
    """The surrogate expects the centre, where padding lies, to be best of all."""
    x = torch.tensor([[[0.1], [0.9], [0.2]], [[0.3], [0.0], [0.0]]], dtype=DTYPE)
    y = torch.tensor([[1.0, 3.0, 0.5], [2.0, 0.0, 0.0]], dtype=DTYPE)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    one = torch.ones(2, 1, dtype=DTYPE)
    data = Observations.of(x, y, mask)
    surrogate = Surrogate.condition(
        data.x, data.y, mask, 0.1 * one.unsqueeze(-1), one, 1e-6 * one, -5 * one
    )
    found = _best_points(surrogate, data, Space(Real("x", 0, 1)))[..., 0]
    assert found.tolist() == [[0.2, 0.1, 0.9, 0.2, 0.1], [0.3] * 5]


def test_the_search_starts_from_results_that_violate_a_constraint_before_padding() -> None:
    x = torch.tensor([[[0.5], [0.1], [0.2], [0.3]]], dtype=DTYPE)
    mask = torch.tensor([[False, True, True, True]])  # the first one failed
    eligible = torch.tensor([[False, True, False, False]])
    data = Observations.of(x, x[..., 0], mask, eligible=eligible)
    one = torch.ones(1, 1, dtype=DTYPE)
    surrogate = Surrogate.condition(
        data.x, data.y, mask, 0.1 * one.unsqueeze(-1), one, 1e-6 * one, one, eligible=eligible
    )
    found = _best_points(surrogate, data, Space(Real("x", 0, 1)))[0, :, 0]
    assert found.tolist() == [0.1, 0.2, 0.3, 0.1, 0.2]


@pytest.mark.parametrize("refine", [0, 1, 3, 4])
def test_slices_that_take_turns_have_their_share_of_trials_that_refine(refine: int) -> None:
    now = situation(with_fixed(MIXED, {"kind": "b"}), [5])
    share, turns = 1 / refine if refine else 0, 60
    for slices in range(1, 9):
        for own in range(slices):
            numbers = range(own, slices * turns, slices)
            refining = sum(
                ExpectedImprovement(refine=refine)._refines(replace(now, index=number))
                for number in numbers
            )
            assert abs(refining - share * turns) <= (5 if share % 1 else 0)


def test_one_trial_in_so_many_refines_and_the_others_ask_for_the_margin() -> None:
    now = situation(MIXED, [5])
    known = now.fit().surrogate

    def margins(strategy: ExpectedImprovement | ProbabilityOfImprovement) -> list[float]:
        utilities: list[Any] = [
            strategy._utility(known, replace(now, index=index)) for index in range(5, 12)
        ]
        return [float((known.incumbent - each.best).mean()) for each in utilities]

    refining = [0.1, 0.1, 0.1, 1e-5, 0.1, 0.1, 0.1]
    assert margins(ExpectedImprovement(margin=0.1, refine=3)) == pytest.approx(
        [1e-5, 0.1, 0.1, 1e-5, 0.1, 0.1, 1e-5]
    )
    assert margins(ProbabilityOfImprovement(margin=0.1, refine=9)) == pytest.approx(refining)
    assert margins(ExpectedImprovement(margin=0.1, refine=0)) == pytest.approx([0.1] * 7)
    assert margins(ExpectedImprovement(margin=0.0, refine=3)) == pytest.approx([0.0] * 7)
    for kind, margin in ((ExpectedImprovement, 3e-3), (ProbabilityOfImprovement, 0.03)):
        assert margins(kind()) == pytest.approx([*[margin, margin, 1e-5, margin] * 2][:7])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "own"}, "has no uses_model"),
        ({}, "has no name and no uses_model"),
        ({"name": None, "uses_model": True}, "name=None: expected a string"),
        ({"name": "own", "uses_model": "no"}, "uses_model='no': expected True or False"),
    ],
)
def test_what_a_strategy_lacks_is_named(given: dict[str, Any], message: str) -> None:
    strategy = type("Mine", (), {"propose": lambda self, situation, count: None, **given})()
    with pytest.raises(InvalidOption, match=message):
        resolve_strategy(strategy)

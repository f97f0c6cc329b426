"""The search over a space: against brute force, against BoTorch, and its laws."""

import itertools
import logging
from collections.abc import Callable, Hashable
from typing import Any

import pytest
import torch
from botorch.acquisition import AcquisitionFunction
from botorch.optim import optimize_acqf
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from gpbo import candidates
from gpbo.acquisition import LogExpectedImprovement
from gpbo.backend import DTYPE, Streams, stream_seed
from gpbo.candidates import (
    _COLDNESS,
    Ranked,
    Search,
    _around_taken,
    _first_free,
    _improved,
    _pick_starts,
    _rescaled,
    _try_neighbours,
    first_free,
    maxima,
    propose,
    raw_points,
)
from gpbo.errors import InvalidOption, SpaceExhausted
from gpbo.kernels import matern, squared_distances
from gpbo.space import Categorical, Integer, Real, Space
from gpbo.surrogate import Surrogate
from tests.monte_carlo import unchecked_shapes

Function = Callable[[Float[Tensor, "r b d"]], Float[Tensor, "r b"]]

REALS = Space(Real("a", 0, 1), Real("b", 1e-3, 10, "log"), Real("c", -2, 5))
MIXED = Space(
    Real("rate", 1e-4, 1, "log"),
    Integer("depth", 1, 7),
    Categorical("kernel", ["linear", "rbf", "poly"]),
    Real("share", 0, 1),
    Integer("width", 8, 512, "log"),
)
FINITE = Space(Integer("i", 0, 4), Categorical("c", ["x", "y", "z"]))


class _Known:
    """A utility with a formula; its gradient by autograd. Remembers where it was asked."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.seen: list[Tensor] = []

    def __call__(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
        self.seen.append(x.flatten(0, 1))
        return self.function(x)

    def value_and_gradient(
        self, x: Float[Tensor, "r b d"]
    ) -> tuple[Float[Tensor, "r b"], Float[Tensor, "r b d"]]:
        self.seen.append(x.flatten(0, 1))
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self.function(x)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient


def _streams(runs: int = 1, index: int = 0) -> Streams:
    return Streams.named(0, "ascent", index, runs=runs)


def _nothing_known(space: Space, runs: int = 1) -> Tensor:
    return torch.zeros(runs, 0, space.dim, dtype=DTYPE)


def _propose(
    function: Function,
    space: Space,
    *,
    runs: int = 1,
    taken: list[set[Hashable]] | None = None,
    index: int = 0,
    search: Search | None = None,
) -> Tensor:
    return propose(
        _Known(function),
        space,
        _streams(runs, index),
        best_x=_nothing_known(space, runs),
        taken=taken or [set()] * runs,
        search=search,
    )


def _peak(*at: float) -> Function:
    return lambda x: -(x - torch.tensor(at, dtype=DTYPE)).square().sum(-1)


def _bumps(space: Space, seed: int) -> Function:
    """A smooth random function of the cube: waves of random directions."""
    generator = torch.Generator().manual_seed(seed)
    waves = 4.0 * torch.randn(5, space.dim, generator=generator, dtype=DTYPE)
    shift = 6.0 * torch.rand(5, generator=generator, dtype=DTYPE)
    return lambda x: torch.sin(x @ waves.T + shift).sum(-1)


def _noted() -> tuple[Callable[..., Ranked], list[tuple[Any, Tensor, int, Ranked]]]:
    """`candidates._ascend`, and what it was given and answered: utility, starts, iterations."""
    ascend, made = candidates._ascend, list[tuple[Any, Tensor, int, Ranked]]()

    def noting(utility: Any, starts: Tensor, movable: Tensor, most: int, *others: Any) -> Ranked:
        ends = ascend(utility, starts, movable, most, *others)
        made.append((utility, starts, most, ends))
        return ends

    return noting, made


def _every(space: Space) -> Tensor:
    return space.encode(list(space.grid(9)))


def _surrogate(seed: int, draws: int) -> Surrogate:
    """A posterior of a function drawn from a random prior: 1 to 8 columns, 3 to 49 points."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=DTYPE)

    d = int(torch.randint(1, 9, (1,), generator=generator))
    n = int(torch.randint(3, 50, (1,), generator=generator))
    x, lengthscale = uniform(1, n, d), (0.15 + 0.6 * uniform(1, 1, d)) * d**0.5
    z = x / lengthscale
    covariance = matern(squared_distances(z, z), 2.5) + 1e-4 * torch.eye(n, dtype=DTYPE)
    noise = torch.randn(n, generator=generator, dtype=DTYPE)
    return Surrogate.condition(
        x,
        torch.linalg.cholesky(covariance) @ noise,
        torch.ones(1, n, dtype=torch.bool),
        lengthscale=lengthscale * (0.7 + 0.6 * uniform(1, draws, d)),
        outputscale=0.5 + uniform(1, draws),
        noise_variance=10.0 ** (-4.0 + 2.0 * uniform(1, draws)),
        mean=uniform(1, draws) - 0.5,
    )


class _ForBotorch(AcquisitionFunction):
    """Our acquisition as BoTorch's optimiser wants it, so that only the optimisers differ."""

    def __init__(self, utility: LogExpectedImprovement) -> None:
        super().__init__(model=None)
        self.utility = utility

    def forward(self, x: Tensor) -> Tensor:
        return self.utility(x.squeeze(-2).unsqueeze(0)).squeeze(0)


def _beats_botorch(seed: int) -> bool:
    surrogate = _surrogate(seed, draws=(1, 4, 16)[seed % 3])
    utility, d = LogExpectedImprovement(surrogate, surrogate.incumbent), surrogate.dim
    order = surrogate.y[:, 0].argsort(-1)[:, :5, None].expand(-1, -1, d)
    ours = propose(
        utility,
        Space([Real(f"x{column}", 0, 1) for column in range(d)]),
        _streams(index=seed),
        best_x=surrogate.x.gather(1, order),
        taken=[set()],
    )
    bounds = torch.tensor([[0.0] * d, [1.0] * d], dtype=DTYPE)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        theirs, _ = optimize_acqf(
            _ForBotorch(utility), bounds, q=1, num_restarts=10, raw_samples=512
        )
    return bool(utility(ours[:, None]) >= utility(theirs[None]) - 1e-6)


@pytest.mark.filterwarnings("ignore")
def test_it_finds_at_least_what_botorch_finds_on_random_surrogates() -> None:
    assert sum(_beats_botorch(seed) for seed in range(20)) >= 19


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_it_finds_at_least_what_botorch_finds_on_95_of_100_random_surrogates() -> None:
    assert sum(_beats_botorch(1000 + seed) for seed in range(100)) >= 95


def test_it_finds_a_peak_between_the_raw_points() -> None:
    found = _propose(_peak(0.123, 0.777, 1.4), REALS)
    torch.testing.assert_close(
        found, torch.tensor([[0.123, 0.777, 1.0]], dtype=DTYPE), atol=1e-4, rtol=0.0
    )


@pytest.mark.parametrize("seed", range(5))
def test_in_a_mixed_space_it_finds_what_brute_force_finds(seed: int) -> None:
    function = _bumps(MIXED, seed)
    steps, kernel = torch.linspace(0.0, 1.0, 15, dtype=DTYPE), torch.eye(3, dtype=DTYPE)
    rate, depth, share, width = torch.cartesian_prod(steps, steps, steps, steps).unbind(-1)
    columns = [
        torch.column_stack([rate, depth, row.expand(len(rate), 3), share, width]) for row in kernel
    ]
    every = MIXED.snap(torch.cat(columns))
    best = float(function(every.unsqueeze(0)).max())
    found = _propose(function, MIXED, index=seed)
    assert float(function(found.unsqueeze(1))) >= best - 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_in_a_finite_space_it_finds_the_very_best(seed: int) -> None:
    function, every = _bumps(FINITE, seed), _every(FINITE)
    best = every[function(every.unsqueeze(0)).argmax()]
    torch.testing.assert_close(_propose(function, FINITE)[0], best, atol=1e-12, rtol=0.0)


def test_a_step_to_a_neighbour_repairs_what_snapping_spoils() -> None:
    # A narrow ridge a = b: the relaxed optimum (0.5, 0.5) lies between the values of b, and
    # snapping b alone falls off the ridge, where a cannot follow without the polish.
    space = Space(Real("a", 0, 1), Integer("b", 0, 1))

    def ridge(x: Tensor) -> Tensor:
        return -1e4 * (x[..., 0] - x[..., 1]).square() - (x - 0.48).square().sum(-1)

    found = _propose(ridge, space, search=Search(raw=8, restarts=2))
    assert float(found[0, 1]) == pytest.approx(0.25)
    assert float(found[0, 0]) == pytest.approx(0.25, abs=1e-3)


def test_a_raw_point_moves_to_its_neighbours_where_ascents_end_at_worse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As they may, snapped."""
    space, peak = Space(Integer("i", 0, 10), Integer("j", 0, 12)), _peak(0.4, 0.6)

    def function(x: Tensor) -> Tensor:
        return peak(x) + 0.4 * (x > 0.92).all(-1)

    def astray(utility: Any, starts: Tensor, *others: Any) -> Ranked:
        ends = torch.ones_like(starts)
        return Ranked(ends, utility(ends))

    monkeypatch.setattr(candidates, "_ascend", astray)
    found = _propose(function, space, search=Search(raw=8, restarts=2))
    assert space.decode(found) == [{"i": 4, "j": 7}]


def test_the_best_raw_point_is_next_where_ascents_end_at_what_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Among reals, too, where no end of an ascent is moved on."""
    corner, peak = REALS.key(REALS.decode(torch.ones(1, 3, dtype=DTYPE))[0]), _peak(0.7, 0.6, 0.8)

    def astray(utility: Any, starts: Tensor, *others: Any) -> Ranked:
        ends = torch.ones_like(starts)
        return Ranked(ends, utility(ends) + 1.0)

    monkeypatch.setattr(candidates, "_ascend", astray)
    search = Search(raw=17, restarts=2)
    raw = raw_points(REALS, _streams(), _nothing_known(REALS), search)
    found = _propose(peak, REALS, taken=[{corner}], search=search)
    assert torch.equal(found[0], raw[0, peak(raw)[0].argmax()])


def test_a_point_goes_on_while_it_gains_though_others_of_its_run_do_not() -> None:
    """It must be polished before a step pays, and polished again after it."""
    space = Space(Real("a", 0, 1), Integer("b", 0, 1))

    def function(x: Tensor) -> Tensor:
        a, high = x[..., 0], x[..., 1] > 0.5
        return -(a - 0.6).square() + torch.where(high, a - 0.5, 0.0)

    best = space.encode([{"a": 1.0, "b": 1}])[0]
    points = torch.stack([best, space.encode([{"a": 0.0, "b": 0}])[0], best])[None]
    moved = _improved(_Known(function), space, Ranked(points, function(points)), Search(), None)
    torch.testing.assert_close(moved.x, best.expand_as(moved.x), rtol=0, atol=1e-6)


def test_a_run_that_gains_next_to_nothing_is_left_though_another_one_goes_on() -> None:
    """The ten moves of the first round are made in both, those of the second in one."""
    space = Space(Integer("i", 0, 96))
    slope = torch.tensor([[1e-7], [1.0]], dtype=DTYPE)
    function = lambda x: slope * x[..., 0]  # noqa: E731
    starts = space.encode([{"i": 2}, {"i": 3}, {"i": 7}]).expand(2, -1, -1)
    ranked = Ranked(starts, function(starts))
    moved = _improved(_Known(function), space, ranked, Search(), None)
    ends = [params["i"] for params in space.decode(moved.x.flatten(0, 1))]
    assert ends == [12, 13, 17, 22, 23, 27]


def test_moves_between_neighbours_find_the_best_of_many_categories() -> None:
    # 4^7 configurations, 32 raw points, and no gradient to follow: only the moves can do it.
    space = Space([Categorical(f"c{index}", ["w", "x", "y", "z"]) for index in range(7)])
    worth = torch.randn(space.dim, generator=torch.Generator().manual_seed(0), dtype=DTYPE)
    found = propose(
        _Known(lambda x: x @ worth),
        space,
        _streams(),
        best_x=_nothing_known(space),
        taken=[set()],
        search=Search(raw=32, restarts=4),
    )
    best = worth.view(7, 4).argmax(-1)
    assert torch.equal(found.view(7, 4).argmax(-1), best)


def test_parameters_with_one_value_only_are_no_obstacle() -> None:
    space = Space(Categorical("c", ["only"]), Real("a", 0, 1), Integer("i", 3, 3))
    found = _propose(lambda x: -(x[..., 1] - 0.3).square(), space)
    assert space.decode(found)[0]["a"] == pytest.approx(0.3, abs=1e-4)


def test_the_ascents_start_at_the_best_points_and_at_others_drawn_among_the_good() -> None:
    function = _bumps(REALS, 1)
    utility = _Known(function)
    options = Search(raw=256, restarts=20, perturbed=0)
    propose(utility, REALS, _streams(), best_x=_nothing_known(REALS), taken=[set()], search=options)
    seen = torch.cat(utility.seen)
    screened, starts = seen[:256], seen[256 : 256 + 20]
    assert len(starts.unique(dim=0)) == 20
    values, chosen = function(screened[None])[0], function(starts[None])[0]
    best = values.sort(descending=True).values
    torch.testing.assert_close(chosen[:10], best[:10])
    assert (chosen[10:] < best[9]).all()
    assert chosen[10:].mean() > values.mean() + 0.5 * values.std()


def test_starts_are_drawn_with_a_probability_that_falls_with_the_gap_to_the_best() -> None:
    """One start is the best point; the gap between best and median is the unit."""
    runs, heights = 4000, [0.0, -0.06, -0.08, -0.07, -0.09, -0.1, -0.1, -0.11, -5.0, -6.0, -7.0]
    value = torch.tensor(heights, dtype=DTYPE)
    x = torch.arange(11.0, dtype=DTYPE).expand(runs, 11)[..., None]
    starts = _pick_starts(Ranked(x, value.expand(runs, 11)), 2, _streams(runs))
    assert (starts.x[:, 0, 0] == 0).all()
    share = torch.softmax(_COLDNESS * value[1:] / 0.1, -1)
    drawn = torch.stack([starts.x[:, 1, 0] == each for each in range(1, 11)]).double().mean(1)
    assert ((drawn - share).abs() <= 4 * (share * (1 - share) / runs).sqrt()).all()


def test_points_without_a_value_are_no_starts_while_others_have_one() -> None:
    value = torch.full((2, 13), -torch.inf, dtype=DTYPE)
    value[:, 3:8] = torch.arange(5.0, dtype=DTYPE)
    starts = _pick_starts(Ranked(torch.zeros(2, 13, 1, dtype=DTYPE), value), 5, _streams(2))
    assert torch.equal(starts.value.sort(1).values, torch.arange(5.0, dtype=DTYPE).expand(2, 5))


def test_a_quarter_of_the_scouts_goes_on_by_the_rough_utility_and_the_best_of_them_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = Search(raw=64, perturbed=0, restarts=3, iterations=17, scouts=44)
    exact, rough, ascend, made = _Known(_bumps(REALS, 1)), _Known(_bumps(REALS, 1)), *_noted()
    monkeypatch.setattr(candidates, "_ascend", ascend)
    raw = raw_points(REALS, _streams(2), _nothing_known(REALS, 2), search)
    ranked = Ranked(raw, exact(raw))
    maxima(exact, REALS, _streams(2), ranked, search, rough=rough)
    expected = [(rough, (2, 44), 10), (rough, (2, 11), 17), (exact, (2, 3), 17)]
    assert [(utility, starts.shape[:2], most) for utility, starts, most, _ in made] == expected
    for (_, _, _, ends), (_, starts, _, _) in itertools.pairwise(made):
        assert torch.equal(starts, ends.top(starts.shape[1]).x)


def _ridge(steepness: float) -> _Known:
    """Low values of the first coordinate are better and those of the second a little, beside a
    curved limit that costs the more the steeper it is; best where it meets the second one's end."""

    def function(x: Tensor) -> Tensor:
        beyond = (0.5 - 0.2 * torch.cos(5 * x[..., 1]) - x[..., 0]).clamp(min=0.0)
        return -x[..., 0] - 0.05 * x[..., 1] - (steepness * beyond).square() / 2

    return _Known(function)


def test_an_ascent_along_a_steep_ridge_ends_where_easier_ones_have_led_it() -> None:
    raw = torch.tensor([[[0.8, 0.55, 0.5], [0.75, 0.5, 0.4]]], dtype=DTYPE)
    upper = torch.tensor([[1.0, 0.6, 1.0]], dtype=DTYPE)
    steep, bounds = _ridge(3000.0), (torch.zeros_like(upper), upper)
    search = Search(raw=2, restarts=2, iterations=25)
    starts = Ranked(raw, steep(raw))
    alone = maxima(steep, REALS, _streams(), starts, search, bounds).top(1)
    easier = [_ridge(steepness) for steepness in (30.0, 100.0, 1000.0)]
    led = maxima(steep, REALS, _streams(), starts, search, bounds, easier=easier).top(1)
    best = torch.tensor([0.3, 0.0], dtype=DTYPE)
    torch.testing.assert_close(led.x[0, 0, :2], best, rtol=0, atol=1e-3)
    assert alone.value < led.value - 0.01


def test_easier_ascents_that_lead_astray_lose_nothing() -> None:
    high, low = _peak(0.2, 0.9, 0.4), _peak(0.9, 0.1, 0.9)
    utility = _Known(lambda x: torch.maximum(high(x), low(x) - 0.1))
    search = Search(raw=64, perturbed=0, restarts=2, scouts=16)
    raw = raw_points(REALS, _streams(), _nothing_known(REALS), search)
    starts = Ranked(raw, utility(raw))
    alone = maxima(utility, REALS, _streams(), starts, search).top(1)
    led = maxima(utility, REALS, _streams(), starts, search, easier=[_Known(low)]).top(1)
    torch.testing.assert_close(led.value, alone.value, rtol=0, atol=1e-9)


def test_no_fewer_scouts_go_on_than_there_are_restarts_and_none_leaves_its_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search = Search(raw=64, perturbed=0, restarts=3, iterations=17, scouts=7)
    utility, ascend, made = _Known(_peak(0.2, 0.9, 0.4)), *_noted()
    monkeypatch.setattr(candidates, "_ascend", ascend)
    lower = torch.tensor([[0.4, 0.1, 0.5], [0.3, 0.2, 0.6]], dtype=DTYPE)
    raw = (lower + 0.3)[:, None] * raw_points(REALS, _streams(2), _nothing_known(REALS, 2), search)
    raw = raw.maximum(lower[:, None])
    maxima(utility, REALS, _streams(2), Ranked(raw, utility(raw)), search, (lower, lower + 0.3))
    assert [starts.shape[:2] for _, starts, _, _ in made] == [(2, 7), (2, 3), (2, 3)]
    for _, _, _, ends in made:
        assert ((ends.x >= lower[:, None]) & (ends.x <= lower[:, None] + 0.3)).all()


@pytest.mark.parametrize("space", [REALS, MIXED, FINITE])
def test_what_it_proposes_is_legal_and_means_one_configuration(space: Space) -> None:
    found = _propose(_bumps(space, 2), space, runs=3)
    assert found.shape == (3, space.dim)
    assert torch.equal(space.snap(found), found)
    assert ((found >= 0) & (found <= 1)).all()
    for params in space.decode(found):
        assert space.validate(params) == params


def test_a_categorical_column_is_never_asked_between_its_choices() -> None:
    utility = _Known(_bumps(MIXED, 4))
    best_x = torch.rand(1, 2, MIXED.dim, generator=torch.Generator().manual_seed(0), dtype=DTYPE)
    propose(utility, MIXED, _streams(), best_x=MIXED.snap(best_x), taken=[set()])
    seen = torch.cat(utility.seen)
    one_hot = seen[:, [kind == "categorical" for kind in MIXED.kinds]]
    assert ((one_hot == 0) | (one_hot == 1)).all()
    assert (one_hot.sum(-1) == 1).all()
    assert ((seen >= 0) & (seen <= 1)).all()


def test_points_near_the_best_ones_are_screened() -> None:
    utility = _Known(_peak(0.5, 0.5, 0.5))
    best_x = torch.tensor([[[0.2, 0.4, 0.9], [0.6, 0.1, 0.3]]], dtype=DTYPE)
    options = Search(raw=16, restarts=2, perturbed=32)
    propose(utility, REALS, _streams(), best_x=best_x, taken=[set()], search=options)
    screened = torch.cat(utility.seen)[: 16 + 32]
    distance = torch.cdist(screened, best_x[0]).sort(dim=0).values
    assert (distance[15] < 0.3).all()
    assert (distance[3] < 0.05).all()
    assert (distance[0] > 0.0).all()


def test_points_near_the_best_ones_lie_in_all_directions_at_distances_of_all_magnitudes() -> None:
    """Normal, of a standard deviation that is log-uniform from 0.001 to 0.1; in turn around each
    of the best. The coordinates of a point, of which there are many, tell its deviation."""
    space = Space([Real(f"x{i}", 0, 1) for i in range(211)])
    best_x = torch.tensor([0.45, 0.5, 0.55], dtype=DTYPE)[None, :, None].expand(1, 3, 211)
    search = Search(raw=2, restarts=1, perturbed=301)
    near = raw_points(space, _streams(), best_x, search)[0, 2:]
    offset = near - best_x[0, torch.arange(301) % 3]
    deviation = offset.square().mean(1, keepdim=True).sqrt()
    assert stats.kstest((deviation.log10() + 3).flatten() / 2, "uniform").pvalue > 0.01
    assert stats.kstest((offset / deviation).flatten(), "norm").pvalue > 0.01


@pytest.mark.parametrize("space", [REALS, MIXED])
def test_a_run_of_a_batch_proposes_what_it_proposes_alone(space: Space) -> None:
    runs, n, s, d = 3, 11, 2, space.dim
    generator = torch.Generator().manual_seed(1)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=DTYPE)

    x, lengthscale = space.snap(uniform(runs, n, d)), 0.5 + uniform(runs, s, d)
    y = torch.sin(7.0 * x.sum(-1))

    def rows(which: slice) -> LogExpectedImprovement:
        surrogate = Surrogate.condition(
            x[which],
            y[which],
            torch.ones_like(y[which], dtype=torch.bool),
            lengthscale[which],
            torch.ones_like(lengthscale[which, :, 0]),
            torch.full_like(lengthscale[which, :, 0], 1e-2),
            torch.zeros_like(lengthscale[which, :, 0]),
        )
        return LogExpectedImprovement(surrogate, surrogate.incumbent)

    taken: list[set[Hashable]] = [set(), set(), set()]
    together = propose(rows(slice(None)), space, _streams(runs), best_x=x[:, :5], taken=taken)
    # The second run must look elsewhere; the others must not notice.
    taken[1].add(space.key(space.decode(together[1:2])[0]))
    again = propose(rows(slice(None)), space, _streams(runs), best_x=x[:, :5], taken=taken)
    assert torch.equal(again[0], together[0])
    assert torch.equal(again[2], together[2])
    assert not torch.equal(again[1], together[1])
    for run in range(runs):
        alone = propose(
            rows(slice(run, run + 1)),
            space,
            Streams([stream_seed(0, f"ascent@{run}", 0)]),
            best_x=x[run : run + 1, :5],
            taken=taken[run : run + 1],
        )
        torch.testing.assert_close(alone[0], again[run], atol=1e-5, rtol=0.0)


def test_what_is_taken_is_not_proposed_again_and_the_next_best_is() -> None:
    function, every = _bumps(FINITE, 1), _every(FINITE)
    order = every[function(every.unsqueeze(0))[0].argsort(descending=True)]
    taken: set[Hashable] = set()
    for expected in order:
        found = _propose(function, FINITE, taken=[taken])
        torch.testing.assert_close(found[0], expected, atol=1e-12, rtol=0.0)
        taken.add(FINITE.key(FINITE.decode(found)[0]))
    assert len(taken) == FINITE.size
    with pytest.raises(SpaceExhausted, match="15 configurations"):
        _propose(function, FINITE, taken=[taken])


def test_the_last_free_configuration_of_a_large_finite_space_is_found() -> None:
    space, free = Space(Integer("i", 0, 2999)), {"i": 1234}
    taken = {space.key({"i": i}) for i in range(3000) if i != 1234}
    found = _propose(_peak(0.1), space, taken=[taken])
    assert space.decode(found) == [free]


@pytest.mark.parametrize(
    ("space", "values"),
    [(Space(Integer("i", 0, 9)), [0, 9]), (Space(Real("x", 1.7, 31.0)), [1.7, 16.35])],
)
def test_where_all_that_was_drawn_is_taken_a_grid_has_a_configuration_that_is_free(
    space: Space, values: list[float]
) -> None:
    """Of one point more than there are taken. They are taken as the cube has them: in the second
    space the middle of the grid is another number than the one that its point means."""
    choices = space.encode([{space.names[0]: value} for value in values])
    taken = {space.key(params) for params in space.decode(choices)}
    found = _first_free(choices, space, taken)
    assert space.key(space.decode(found[None])[0]) not in taken


def test_what_a_run_looks_for_beside_what_is_taken_is_not_seen_by_the_others() -> None:
    """One is not at its best neighbour. The other one looks around what is taken and around the
    best that is free, and no further.
    """
    space = Space(Integer("i", 0, 96))
    utility = _Known(_peak(42.5 / 97))
    points = space.encode([{"i": 41}, {"i": 40}]).expand(2, -1, -1)
    ranked = Ranked(points, utility(points))
    utility.seen.clear()
    found = _around_taken(utility, space, ranked, [set(), {space.key({"i": 41})}]).top(1)
    assert [params["i"] for params in space.decode(found.x[:, 0])] == [41, 42]
    assert len(utility.seen) == 2


def test_rescaled_values_have_0_at_the_best_point_and_at_most_minus_1_at_the_median() -> None:
    """Where all are the same, or none is a number, they have no scale."""
    low = -torch.inf
    rows = [[3.0, 3.0, 3.0], [low, low, low], [5.0, -95.0, -100.0], [2e-3, 1e-3, 0.0]]
    value = torch.tensor(rows, dtype=DTYPE)
    x = torch.zeros(4, 3, 1, dtype=DTYPE)
    _, raw = _rescaled(_Known(lambda x: x.sum(-1)), Ranked(x, value))
    expected = [[0.0, 0.0, 0.0], [low, low, low], [0.0, -100.0, -105.0], [0.0, -1.0, -2.0]]
    torch.testing.assert_close(raw.value, torch.tensor(expected, dtype=DTYPE))


def test_a_huge_finite_space_is_not_counted_through() -> None:
    space = Space(Integer("i", 1, 2**40))
    function = _peak(1.0)
    first = _propose(function, space)
    assert space.decode(first) == [{"i": 2**40}]
    second = _propose(function, space, taken=[{space.key({"i": 2**40})}])
    assert space.decode(second) != [{"i": 2**40}]


@pytest.mark.parametrize("broken", [torch.nan, -torch.inf])
def test_a_utility_without_a_value_still_yields_a_legal_point(broken: float) -> None:
    def nowhere(x: Tensor) -> Tensor:
        return x.sum(-1) * broken

    found = _propose(nowhere, MIXED, runs=2)
    assert torch.equal(MIXED.snap(found), found)
    assert torch.isfinite(found).all()


def test_points_without_a_value_are_never_preferred() -> None:
    def half(x: Tensor) -> Tensor:
        return torch.where(x[..., 0] < 0.5, torch.nan, -5.0 - x[..., 1])

    found = _propose(half, MIXED)
    assert float(found[0, 0]) >= 0.5
    assert float(found[0, 1]) == float(MIXED.encode([MIXED.decode(found)[0] | {"depth": 1}])[0, 1])


def test_a_run_without_values_harms_no_other() -> None:
    function = _bumps(REALS, 3)

    def half_broken(x: Tensor) -> Tensor:
        value = function(x)
        return torch.stack([value[0], value[1] * torch.nan, value[2]])

    found, clean = _propose(half_broken, REALS, runs=3), _propose(function, REALS, runs=3)
    assert torch.equal(found[0], clean[0])
    assert torch.equal(found[2], clean[2])
    assert torch.isfinite(found).all()


def test_a_run_without_values_is_reported_also_beside_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def half_broken(x: Tensor) -> Tensor:
        value = x.sum(-1)
        return torch.cat([value[:1], value[1:] * torch.nan])

    with caplog.at_level(logging.WARNING, "gpbo"):
        _propose(lambda x: x.sum(-1), REALS, runs=2)
        assert not caplog.records
        _propose(half_broken, REALS, runs=2)
    (record,) = caplog.records
    assert "NaN or -inf at all 512 points tried" in record.getMessage()


def test_no_point_moves_to_a_neighbour_that_is_no_better() -> None:
    x = MIXED.snap(torch.rand(2, 5, MIXED.dim, generator=torch.Generator().manual_seed(3)).double())
    flat = Ranked(x, torch.zeros(2, 5, dtype=DTYPE))
    assert _try_neighbours(_Known(lambda x: 0.0 * x.sum(-1)), MIXED, flat) is flat


def test_no_column_leaves_the_bounds_of_its_row() -> None:
    """Neither when it first climbs nor when it is polished after moves between choices."""
    space = Space(Real("a", 0, 1), Categorical("c", ["x", "y", "z"]), Real("b", 0, 1))
    search = Search(raw=16, perturbed=0, restarts=5)
    raw = raw_points(space, _streams(2), _nothing_known(space, 2), search)
    lower = torch.tensor([[0.2, 0, 0, 0, 0.1], [0.4, 0, 0, 0, 0.6]], dtype=DTYPE)
    upper = torch.tensor([[0.3, 1, 1, 1, 0.5], [0.7, 1, 1, 1, 0.9]], dtype=DTYPE)
    function = _peak(1.0, 0.0, 1.0, 0.0, 1.0)
    starts = raw.clamp(lower[:, None], upper[:, None])
    ranked = Ranked(starts, function(starts))
    found = maxima(_Known(function), space, _streams(2), ranked, search, (lower, upper))
    assert ((found.x >= lower[:, None]) & (found.x <= upper[:, None])).all()
    best = torch.stack([upper[:, 0], *torch.tensor([[0.0, 1.0, 0.0]] * 2).unbind(1), upper[:, 4]])
    torch.testing.assert_close(found.top(1).x[:, 0], best.mT, rtol=0, atol=1e-5)


def test_spare_points_are_those_of_their_own_row_and_come_after_the_ranked_with_a_value() -> None:
    space = Space(Integer("i", 0, 6))
    points = space.encode([{"i": i} for i in range(7)])
    value = torch.tensor([[2.0, -torch.inf, 1.0]] * 2).double()
    ranked = Ranked(points[None, [0, 6, 1]].expand(2, -1, -1), value)
    last = torch.tensor([[-torch.inf, 3.0, 4.0]]).double()
    spare = [Ranked(points[None, chosen], last) for chosen in ([6, 3, 2], [6, 5, 4])]
    keys = [space.key({"i": i}) for i in range(7)]
    for known, expected in (([0], [1, 1]), ([0, 1], [2, 4]), ([0, 1, 2, 4], [3, 5])):
        taken = [{keys[i] for i in known}] * 2
        found = first_free(ranked, space, _streams(2), taken, spare)
        assert [params["i"] for params in space.decode(found)] == expected


def test_a_flat_utility_draws_different_points_for_different_trials() -> None:
    def flat(x: Tensor) -> Tensor:
        return 0.0 * x.sum(-1)

    first, second = (_propose(flat, REALS, index=index) for index in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, _propose(flat, REALS, index=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restarts": 0}, "restarts=0"),
        ({"raw": 0}, "raw=0: expected a whole number, 1 or more"),
        ({"raw": 4, "restarts": 5}, "restarts=5.*raw=4"),
        ({"raw": 17, "scouts": 19}, "scouts=19: expected at most raw=17"),
        ({"perturbed": -1}, "perturbed=-1"),
        ({"iterations": -3}, "iterations=-3"),
        ({"raw": 100.0}, "raw=100.0: expected a whole number"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, int], message: str) -> None:
    with unchecked_shapes(), pytest.raises(InvalidOption, match=message):
        Search(**options)


@pytest.mark.parametrize(
    "space",
    [
        Space(Categorical(f"c{i}", ["w", "x", "y", "z"]) for i in range(7)),
        Space(Integer("i", 0, 9999)),
    ],
)
def test_the_next_best_of_a_large_finite_space_is_looked_for_beside_what_is_taken(
    space: Space,
) -> None:
    slope = torch.randn(space.dim, generator=torch.Generator().manual_seed(0), dtype=DTYPE)
    function = lambda x: x @ slope  # noqa: E731
    values = function(space.encode(list(space.grid(10_000)))).sort(descending=True).values
    taken: list[set[Hashable]] = [set(), set()]
    for expected in values[:13]:
        # One run took nothing; it must not notice what the other one looks at.
        found = _propose(function, space, runs=2, taken=taken)
        assert float(function(found[0])) == pytest.approx(float(values[0]), abs=1e-12)
        assert float(function(found[1])) == pytest.approx(float(expected), abs=1e-12)
        taken[1].add(space.key(space.decode(found[1:])[0]))

"""Paths are draws of the posterior: their moments, their distribution, their independence."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpbo import paths
from gpbo.backend import DTYPE, Streams
from gpbo.errors import InvalidOption
from gpbo.kernels import NUS, matern, squared_distances
from gpbo.parallel import parallel_parts
from gpbo.paths import Paths, draw_paths
from gpbo.surrogate import Surrogate
from tests.monte_carlo import random_uniform

#: Waves at shared points are summed in single precision; the paths have a spread of about 1.
SINGLE = 1e-5


class Allocations(TorchDispatchMode):
    """The largest storage, in bytes, that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return result


def posterior(
    dim: int, count: int, *, runs: int = 1, draws: int = 1, noise: float = 1e-2, nu: float = 2.5
) -> Surrogate:
    x = random_uniform(1, runs, count, dim)
    y = torch.sin(5 * x).sum(-1)
    one = torch.ones(runs, draws, dtype=DTYPE)
    return Surrogate.condition(
        x,
        y,
        torch.ones(runs, count, dtype=torch.bool),
        0.3 * dim**0.5 * (1 + 0.2 * random_uniform(2, runs, draws, dim)),
        1.7 * one,
        noise * one,
        0.4 * one,
        nu,
    )


def streams(seed: int, purpose: str, runs: int = 1) -> Callable[[int], Streams]:
    return lambda number: Streams.named(seed, purpose, number, runs=runs)


def drawn(surrogate: Surrogate, count: int, *, seed: int = 3, **options: object) -> Paths:
    own, shared = streams(seed, "own", surrogate.runs), streams(seed, "shared", surrogate.runs)
    return draw_paths(surrogate, count, own=own, shared=shared, **options)  # type: ignore[arg-type]


def covariance(surrogate: Surrogate, x: Tensor) -> Tensor:
    """Of the latent function at points of run 0, by the textbook formula."""
    lengthscale, scale = surrogate.lengthscale[0, 0], surrogate.outputscale[0, 0]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        q = squared_distances((a / lengthscale)[None], (b / lengthscale)[None])
        return scale * matern(q, surrogate.nu)[0]

    known = surrogate.x[0]
    noisy = kernel(known, known) + surrogate.noise_variance[0, 0] * torch.eye(len(known))
    cross = kernel(x, known)
    return kernel(x, x) - cross @ torch.linalg.solve(noisy, cross.mT)


@pytest.mark.parametrize(
    ("dim", "count", "noise", "nu"),
    [(4, 29, 1e-2, 2.5), (7, 41, 1e-4, 2.5), (5, 23, 1e-3, 1.5), (5, 23, 1e-3, 0.5)],
)
def test_mean_and_spread_of_many_paths_are_those_of_the_posterior(
    dim: int, count: int, noise: float, nu: float
) -> None:
    surrogate = posterior(dim, count, noise=noise, nu=nu)
    x = random_uniform(4, 1, 11, dim)
    values = drawn(surrogate, 3000, features=1024).at(x)[0]
    mean, variance = (moment[0, 0] for moment in surrogate.moments(x))
    error = (values.mean(0) - mean) / variance.sqrt()
    assert error.abs().max() < 4 / 3000**0.5 < 0.075
    assert error.square().mean().sqrt() < 0.05
    ratio = values.std(0) / variance.sqrt()
    assert (ratio - 1).square().mean().sqrt() < 0.05
    assert (ratio - 1).abs().max() < 0.1


def test_the_covariance_of_two_points_is_that_of_the_posterior() -> None:
    surrogate = posterior(4, 29)
    x = random_uniform(4, 1, 5, 4)
    x[:, 1] = x[:, 0] + 0.03
    values = drawn(surrogate, 3000, features=1024).at(x)[0]
    exact = covariance(surrogate, x[0])
    scale = exact.diagonal().sqrt()
    error = (torch.cov(values.mT) - exact) / (scale[:, None] * scale)
    assert error.abs().max() < 4 * (2 / 3000) ** 0.5


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_at_anchors_the_draws_are_exact_however_few_the_waves_and_dense_the_data(dim: int) -> None:
    surrogate = posterior(dim, 53, noise=1e-4)
    anchors = random_uniform(5, 1, 7, dim)
    values = drawn(surrogate, 3000, features=8, anchors=anchors).at(anchors)[0]
    mean, variance = (moment[0, 0] for moment in surrogate.moments(anchors))
    error = (values.mean(0) - mean) / variance.sqrt()
    assert error.abs().max() < 4 / 3000**0.5
    exact = covariance(surrogate, anchors[0])
    scale = exact.diagonal().sqrt()
    error = (torch.cov(values.mT) - exact) / (scale[:, None] * scale)
    assert error.abs().max() < 4 * (2 / 3000) ** 0.5


@pytest.mark.parametrize(("dim", "anchored"), [(2, True), (6, False)])
def test_values_of_paths_are_normal(dim: int, anchored: bool) -> None:
    surrogate = posterior(dim, 31)
    x = random_uniform(6, 1, 3, dim)
    anchors = random_uniform(7, 1, 211, dim) if anchored else None
    values = drawn(surrogate, 1500, features=1024, anchors=anchors).at(x)[0]
    mean, variance = (moment[0, 0] for moment in surrogate.moments(x))
    for column in ((values - mean) / variance.sqrt()).unbind(-1):
        assert kstest(column.numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize(("dim", "anchored"), [(2, True), (5, False)])
def test_one_path_of_each_of_many_seeds_is_normal_too(dim: int, anchored: bool) -> None:
    """Nothing is shared here but the data: every path has frequencies of its own."""
    surrogate = posterior(dim, 17, noise=1e-3)
    x = random_uniform(6, 1, 3, dim)
    anchors = torch.cat([random_uniform(7, 1, 31, dim), x], 1) if anchored else None
    values = torch.stack(
        [drawn(surrogate, 1, seed=seed, features=256, anchors=anchors).at(x) for seed in range(400)]
    )
    mean, variance = (moment[0, 0] for moment in surrogate.moments(x))
    for column in ((values[:, 0, 0] - mean) / variance.sqrt()).unbind(-1):
        assert kstest(column.numpy(), "norm").pvalue > 1e-3


@pytest.mark.long
@pytest.mark.parametrize(("dim", "count"), [(4, 200), (6, 200), (20, 100)])
def test_with_the_default_waves_the_moments_of_dense_data_are_those_of_the_posterior(
    dim: int, count: int
) -> None:
    surrogate = posterior(dim, count, noise=1e-4)
    x = random_uniform(4, 1, 101, dim)
    values = drawn(surrogate, 8000).at(x)[0]
    mean, variance = (moment[0, 0] for moment in surrogate.moments(x))
    assert ((values.mean(0) - mean) / variance.sqrt()).square().mean().sqrt() < 0.05
    assert (values.std(0) / variance.sqrt() - 1).square().mean().sqrt() < 0.05


@pytest.mark.parametrize("nu", NUS)
def test_frequencies_have_the_spectrum_of_the_matern_kernel(nu: float) -> None:
    surrogate = posterior(3, 5, nu=nu)
    frequencies = paths._frequencies(40_000, surrogate, Streams([8]))[0]
    apart = torch.tensor([[0.3, 0.0, 0.0], [0.5, -0.4, 0.2], [1.0, 1.0, -1.0]], dtype=DTYPE)
    kernel = (apart @ frequencies.mT).cos().mean(-1)
    exact = matern(apart.square().sum(-1), nu)
    assert (kernel - exact).abs().max() < 4 / 40_000**0.5


def test_paths_of_a_batch_are_uncorrelated() -> None:
    """Paths 0 and 16 share their frequencies, 0 and 1 do not."""
    surrogate = posterior(4, 13)
    x = random_uniform(4, 1, 2, 4)
    values = torch.stack(
        [drawn(surrogate, 17, seed=seed, features=64).at(x)[0, (0, 1, 16)] for seed in range(250)]
    )
    centred = values - values.mean(0)
    together = torch.einsum("tib,tjc->ijbc", centred, centred)
    spread = torch.einsum("iibb->ib", together).sqrt()
    correlation = together / (spread[:, None, :, None] * spread[None, :, None, :])
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert correlation[first, second].abs().max() < 4 / 250**0.5


def test_every_path_has_its_own_hyperparameter_draw() -> None:
    surrogate = posterior(2, 3, draws=5)
    far = torch.arange(5, dtype=DTYPE)[None] * 100
    surrogate = Surrogate.condition(
        surrogate.x[:, :0],
        surrogate.y[:, 0, :0],
        surrogate.mask[:, :0],
        surrogate.lengthscale,
        surrogate.outputscale,
        surrogate.noise_variance,
        far,
    )
    values = drawn(surrogate, 23, first=2, features=64).at(random_uniform(1, 1, 1, 2))[0, :, 0]
    assert (values / 100).round().tolist() == [(2 + j) % 5 for j in range(23)]


@pytest.mark.parametrize("anchored", [False, True])
def test_a_path_is_what_its_hyperparameter_draw_alone_gives(anchored: bool) -> None:
    known = posterior(2, 11, runs=2)
    lengthscale = 0.2 + random_uniform(12, 2, 3, 2)
    scale, noise, mean = 0.3 + random_uniform(11, 3, 2, 3)

    def of(draws: slice) -> Surrogate:
        return Surrogate.condition(
            known.x,
            known.y[:, 0],
            known.mask,
            lengthscale[:, draws],
            scale[:, draws],
            noise[:, draws],
            mean[:, draws],
        )

    x = random_uniform(9, 2, 7, 2)
    anchors = random_uniform(5, 2, 5, 2) if anchored else None
    batch = drawn(of(slice(None)), 5, features=32, anchors=anchors).at(x)
    for number in range(5):
        draw = number % 3
        only = of(slice(draw, draw + 1))
        alone = drawn(only, 1, first=number, features=32, anchors=anchors).at(x)
        torch.testing.assert_close(alone[:, 0], batch[:, number])


def test_anchors_that_come_twice_or_where_the_data_are_harm_nobody() -> None:
    surrogate = posterior(2, 11, noise=1e-10)
    other = random_uniform(5, 1, 3, 2)
    anchors = torch.cat([other, surrogate.x[:, :5], other], 1)
    functions = drawn(surrogate, 7, features=32, anchors=anchors)
    values = functions.at(anchors)
    most = 10 * (surrogate.outputscale.max() / paths._ANCHOR_JITTER).sqrt()
    assert functions.coefficients.abs().max() < most
    torch.testing.assert_close(values[..., :3], values[..., 8:], rtol=0, atol=1e-3)
    known = surrogate.y[..., :5].expand(-1, 7, -1)
    torch.testing.assert_close(values[..., 3:8], known, rtol=0, atol=1e-3)


def test_a_corner_of_the_sobol_cube_gives_a_frequency_too(monkeypatch: pytest.MonkeyPatch) -> None:
    corners = torch.tensor([[[0.0] * 3, [1.0] * 3, [0.0, 1.0, 0.0]]], dtype=DTYPE)
    monkeypatch.setattr(paths, "sobol", lambda *_: corners)
    assert torch.isfinite(paths._frequencies(3, posterior(2, 5), Streams([8]))).all()


def test_values_at_shared_and_at_own_points_agree() -> None:
    surrogate = posterior(3, 11, runs=2, draws=5)
    functions = drawn(surrogate, 23, features=64, anchors=random_uniform(5, 2, 7, 3))
    x = random_uniform(9, 2, 13, 3)
    own = functions(x[:, None].expand(-1, 23, -1, -1))
    torch.testing.assert_close(functions.at(x), own, rtol=0, atol=SINGLE)


@pytest.mark.parametrize("nu", NUS)
def test_gradients_are_those_of_finite_differences(nu: float) -> None:
    functions = drawn(posterior(3, 11, runs=2, draws=3, nu=nu), 5, features=32)
    x = random_uniform(9, 2, 5, 2, 3)
    gradient = functions.value_and_gradient(x)[1]
    for j in range(3):
        step = 1e-6 * torch.eye(3, dtype=DTYPE)[j]
        slope = (functions(x + step) - functions(x - step)) / 2e-6
        torch.testing.assert_close(gradient[..., j], slope, rtol=1e-5, atol=1e-5)


def test_a_path_goes_through_data_without_noise() -> None:
    surrogate = posterior(4, 19, noise=1e-10)
    values = drawn(surrogate, 3, features=64).at(surrogate.x)
    torch.testing.assert_close(values, surrogate.y.expand_as(values), rtol=0, atol=1e-3)


def test_a_path_is_the_same_in_every_batch_and_every_run_alone() -> None:
    surrogate = posterior(2, 11, runs=3, draws=5)
    x = random_uniform(9, 3, 7, 2)
    anchors = random_uniform(5, 3, 3, 2)
    batch = drawn(surrogate, 37, features=32, anchors=anchors).at(x)
    for number in (0, 4, 16, 36):
        alone = drawn(surrogate, 1, first=number, features=32, anchors=anchors).at(x)
        torch.testing.assert_close(alone[:, 0], batch[:, number])
    one_run = posterior(2, 11, runs=3, draws=5)
    one_run = Surrogate.condition(
        one_run.x[:1],
        one_run.y[:1, 0],
        one_run.mask[:1],
        one_run.lengthscale[:1],
        one_run.outputscale[:1],
        one_run.noise_variance[:1],
        one_run.mean[:1],
    )
    alone = drawn(one_run, 37, features=32, anchors=anchors[:1]).at(x[:1])
    torch.testing.assert_close(alone, batch[:1])


@pytest.mark.parametrize("padding", [1, 54, 60])
def test_padding_changes_nothing(padding: int) -> None:
    surrogate = posterior(2, 11)
    padded = Surrogate.condition(
        torch.cat([surrogate.x, torch.full((1, padding, 2), 0.5, dtype=DTYPE)], 1),
        torch.cat([surrogate.y[:, 0], torch.zeros(1, padding, dtype=DTYPE)], 1),
        torch.arange(11 + padding)[None] < 11,
        surrogate.lengthscale,
        surrogate.outputscale,
        surrogate.noise_variance,
        surrogate.mean,
    )
    x = random_uniform(9, 1, 7, 2)
    for anchors in (None, random_uniform(5, 1, 3, 2)):
        expected = drawn(surrogate, 5, features=32, anchors=anchors).at(x)
        found = drawn(padded, 5, features=32, anchors=anchors).at(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=SINGLE)


def test_padding_between_results_and_pending_points_changes_nothing() -> None:
    x, y = random_uniform(1, 2, 11, 2), random_uniform(2, 2, 11)
    mask = torch.arange(11) < torch.tensor([[11], [7]])
    one = torch.ones(2, 1, dtype=DTYPE)
    pending, waiting = random_uniform(3, 2, 3, 2), torch.ones(2, 3, dtype=torch.bool)

    def paths(run: slice, count: int) -> Tensor:
        known = x[run, :count], y[run, :count], mask[run, :count]
        rows = 0.3 * one[run, :, None].expand(-1, -1, 2), one[run], 0.1 * one[run], 0 * one[run]
        sure = Surrogate.condition(*known, *rows).hallucinate(pending[run], waiting[run])
        own = lambda number: Streams([number] * sure.runs)  # noqa: E731
        return draw_paths(sure, 5, own=own, shared=own, features=32).at(x[run])

    alone = paths(slice(1, 2), 7)
    torch.testing.assert_close(paths(slice(0, 2), 11)[1:], alone, rtol=0, atol=SINGLE)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = drawn(posterior(3, 11, runs=2, draws=5), 23, features=64)
    x, own = random_uniform(9, 2, 13, 3), random_uniform(10, 2, 23, 3, 3)
    whole = functions.at(x), *functions.value_and_gradient(own)
    for limit in (1, 1000, 5000):
        monkeypatch.setattr(paths, "_CPU_CHUNK", limit)
        for part, all_of_it in zip(
            (functions.at(x), *functions.value_and_gradient(own)), whole, strict=True
        ):
            torch.testing.assert_close(part, all_of_it, rtol=0, atol=SINGLE)


def test_no_set_of_frequencies_is_drawn_for_no_path() -> None:
    surrogate = posterior(2, 11, draws=5)
    sets = [drawn(surrogate, count, features=32).frequencies.shape[1] for count in (1, 7, 20, 23)]
    assert sets == [1, 7, 20, 20]


def test_no_chunk_has_more_numbers_than_fit_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    functions, members, points = drawn(posterior(3, 11, draws=5), 23, features=64), 7, 13
    waves, sets = functions.frequencies.shape[2], functions.mean.shape[1]
    for limit in (1000, 20_000):
        monkeypatch.setattr(paths, "_CPU_CHUNK", limit)
        chunks = functions._chunks(members * points, points)
        sizes = [
            len(range(sets)[some]) * members * len(range(points)[of_each])
            for some, of_each in chunks
        ]
        assert sum(sizes) == sets * members * points
        assert limit / 2 < waves * max(sizes) <= limit


@pytest.mark.parametrize("draws", [1, 5])
@pytest.mark.parametrize("anchored", [False, True])
def test_on_several_threads_paths_and_their_values_are_the_same(
    draws: int, anchored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last digit; in several parts."""
    monkeypatch.setattr(paths, "_CPU_CHUNK", 1000)
    surrogate = posterior(3, 11, runs=2, draws=draws)
    anchors = random_uniform(8, 2, 7, 3) if anchored else None
    x, own = random_uniform(9, 2, 13, 3), random_uniform(10, 2, 23, 3, 3)

    def numbers() -> list[Tensor]:
        functions = drawn(surrogate, 23, features=64, anchors=anchors)
        made = functions.frequencies, functions.amplitudes, functions.coefficients
        return [*made, functions.at(x), *functions.value_and_gradient(own)]

    alone = numbers()
    torch.set_num_threads(3)
    with parallel_parts(), torch.no_grad():
        several = numbers()
    for one, other in zip(several, alone, strict=True):
        assert torch.equal(one, other)


def test_a_draw_that_failed_gives_a_path_of_its_prior_and_harms_no_other() -> None:
    healthy = posterior(2, 11, draws=2)
    noise = healthy.noise_variance.clone()
    noise[0, 1] = torch.nan
    broken = Surrogate.condition(
        healthy.x,
        healthy.y[:, 0],
        healthy.mask,
        healthy.lengthscale,
        healthy.outputscale,
        noise,
        healthy.mean,
    )
    x = random_uniform(9, 1, 7, 2)
    for anchors in (None, random_uniform(5, 1, 3, 2)):
        values = drawn(broken, 2, features=32, anchors=anchors).at(x)
        expected = drawn(healthy, 2, features=32, anchors=anchors).at(x)
        torch.testing.assert_close(values[:, 0], expected[:, 0])
        assert torch.isfinite(values).all()


def test_no_path_has_a_matrix_of_the_data_to_itself() -> None:
    """Drawing 1000 paths of 10,000 results must not take 1000 matrices of them.

    The largest tensor is a matrix of the results, or what the paths are made of; the waves and
    kernels at points are computed in parts.
    """
    count, known, features = 101, 211, 64
    surrogate = posterior(5, known)
    with Allocations() as drawing:
        functions = drawn(surrogate, count, features=features)
    assert drawing.largest <= 8 * known * max(known, -(-count // 16))
    with Allocations() as evaluating:
        functions.at(random_uniform(3, 1, 1024, 5))
        functions.value_and_gradient(random_uniform(4, 1, count, 16, 5))
    padded = 16 * -(-count // 16)
    assert evaluating.largest <= 8 * max(paths._CPU_CHUNK, 1024 * padded)
    assert max(drawing.largest, evaluating.largest) < 8 * count * known**2 / 4


@pytest.mark.parametrize(
    ("option", "value"), [("count", 0), ("features", 0), ("features", 7), ("features", -2)]
)
def test_what_counts_nothing_is_refused(option: str, value: int) -> None:
    options = {"count": 3, option: value}
    with pytest.raises(InvalidOption, match=f"{option}={value}"):
        drawn(posterior(2, 3), **options)

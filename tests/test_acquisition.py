"""Log EI and log PI against numbers worked by hand, 50-digit arithmetic, BoTorch and autograd."""

import math
from dataclasses import dataclass

import mpmath  # type: ignore[import-untyped]
import pytest
import torch
from botorch.acquisition.analytic import (
    LogExpectedImprovement as BotorchLogEI,
)
from botorch.acquisition.analytic import (
    LogProbabilityOfImprovement as BotorchLogPI,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from gpbo.acquisition import (
    LogExpectedImprovement,
    LogProbabilityOfImprovement,
    log_h,
)
from gpbo.backend import DTYPE, Streams
from gpbo.surrogate import Surrogate

Utility = type[LogExpectedImprovement] | type[LogProbabilityOfImprovement]
UTILITIES: list[Utility] = [LogExpectedImprovement, LogProbabilityOfImprovement]
TAILS = [-1e6, -1e4, -301.0, -299.0, -100.0, -37.5, -5.0, -1.0, -0.1]
CENTRE = [0.0, 0.3, 0.9, 1.0, 4.0, 5.1, 9.99, 10.01, 38.0, 1e5]


@dataclass(frozen=True)
class _FixedMoments:
    """A posterior with the same moments everywhere, or linear ones along the first coordinate."""

    mean: Float[Tensor, "r s"]
    variance: Float[Tensor, "r s"]
    mean_slope: float = 0.0

    def moments(
        self, candidates: Float[Tensor, "r q d"]
    ) -> tuple[Float[Tensor, "r s q"], Float[Tensor, "r s q"]]:
        flat = torch.zeros_like(candidates[:, None, :, 0])
        slope = self.mean_slope * candidates[:, None, :, 0]
        return self.mean[..., None] + slope, self.variance[..., None] + flat

    def moments_and_gradients(
        self, candidates: Float[Tensor, "r q d"]
    ) -> tuple[
        Float[Tensor, "r s q"],
        Float[Tensor, "r s q"],
        Float[Tensor, "r s q d"],
        Float[Tensor, "r s q d"],
    ]:
        mean, variance = self.moments(candidates)
        variance_gradient = torch.zeros((*mean.shape, candidates.shape[-1]), dtype=DTYPE)
        mean_gradient = variance_gradient.clone()
        mean_gradient[..., 0] = self.mean_slope
        return mean, variance, mean_gradient, variance_gradient


def _tensor(*values: float) -> Tensor:
    return torch.tensor([values], dtype=DTYPE)


def _surrogate(seed: int = 0, r: int = 2, s: int = 5, n: int = 7, d: int = 3) -> Surrogate:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=DTYPE)

    x = uniform(r, n, d)
    y = torch.sin(6.0 * x.sum(-1))
    mask = torch.ones(r, n, dtype=torch.bool)
    mask[-1, -2:] = False
    return Surrogate.condition(
        x,
        y,
        mask,
        lengthscale=0.2 + uniform(r, s, d),
        outputscale=0.5 + uniform(r, s),
        noise_variance=1e-4 + 0.1 * uniform(r, s),
        mean=uniform(r, s) - 0.5,
    )


def _points(surrogate: Surrogate, b: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (surrogate.runs, b, surrogate.dim)
    return torch.rand(shape, generator=generator, dtype=DTYPE)


def test_expected_improvement_is_the_number_worked_by_hand() -> None:
    # u = (1 - 0) / 2 = 0.5: EI = 2 (phi(0.5) + 0.5 Phi(0.5)) = 2 (0.352065 + 0.345731).
    posterior = _FixedMoments(_tensor(0.0), _tensor(4.0))
    point = torch.full((1, 1, 1), 0.5, dtype=DTYPE)
    ei = LogExpectedImprovement(posterior, best=_tensor(1.0))(point)
    pi = LogProbabilityOfImprovement(posterior, best=_tensor(1.0))(point)
    assert float(ei.exp()) == pytest.approx(1.3955931148026121, rel=1e-12)
    assert float(pi.exp()) == pytest.approx(0.6914624612740131, rel=1e-12)


def test_draws_are_averaged_before_the_logarithm_is_taken() -> None:
    posterior = _FixedMoments(_tensor(0.0, 3.0), _tensor(4.0, 1.0))
    point = torch.full((1, 1, 1), 0.5, dtype=DTYPE)
    best = _tensor(1.0, 1.0)
    # The second draw: u = -2, EI = phi(2) - 2 Phi(-2) = 0.0539910 - 0.0455003.
    expected = 0.5 * (1.3955931148026121 + 0.008490702616785082)
    value = LogExpectedImprovement(posterior, best=best)(point)
    assert float(value) == pytest.approx(math.log(expected), abs=1e-10)
    mean_of_logs = 0.5 * (math.log(1.3955931148026121) + math.log(0.008490702616785082))
    assert abs(float(value) - mean_of_logs) > 1.0


def test_a_value_that_is_easier_to_improve_on_is_improved_on_by_more() -> None:
    surrogate = _surrogate()
    x = _points(surrogate, 3)
    for utility in UTILITIES:
        lower, higher = (utility(surrogate, surrogate.incumbent + shift) for shift in (0.0, 1.0))
        assert (higher(x) > lower(x)).all()


@pytest.mark.parametrize("u", TAILS + CENTRE)
def test_log_h_and_its_derivative_are_right_to_the_last_digits(u: float) -> None:
    with mpmath.workdps(80):  # some 12 digits of phi + u Phi cancel at the far end
        exact = mpmath.mpf(u)
        phi, cdf = mpmath.npdf(exact), mpmath.erfc(-exact / mpmath.sqrt(2)) / 2
        log_of_h, slope = mpmath.log(phi + exact * cdf), cdf / (phi + exact * cdf)
    value, derivative = log_h(torch.tensor([u], dtype=DTYPE))
    assert float(value) == pytest.approx(float(log_of_h), rel=1e-13, abs=2e-11)
    assert float(derivative) == pytest.approx(float(slope), rel=2e-11)


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e150, 1e300))
def test_log_h_is_finite_and_increasing_for_every_number(u: float) -> None:
    value, slope = log_h(torch.tensor([u], dtype=DTYPE))
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()
    assert (slope > 0).all()


def test_autograd_gives_the_derivative_of_log_h_in_every_range() -> None:
    """At 0, too, where the series for numbers far below it is infinite: it is not taken there."""
    u = torch.tensor([*TAILS, *CENTRE], dtype=DTYPE, requires_grad=True)
    value, slope = log_h(u)
    (gradient,) = torch.autograd.grad(value.sum(), u)
    torch.testing.assert_close(gradient, slope.detach(), rtol=1e-5, atol=0)


def test_log_h_has_no_step_where_its_ranges_meet() -> None:
    for edge in (-300.0, 10.0):
        below, above = (
            math.nextafter(edge, -math.inf),
            math.nextafter(edge, math.inf),
        )
        value, slope = log_h(torch.tensor([below, above], dtype=DTYPE))
        torch.testing.assert_close(value[0], value[1], rtol=1e-12, atol=1e-10)
        torch.testing.assert_close(slope[0], slope[1], rtol=1e-10, atol=0.0)


@pytest.mark.filterwarnings("ignore::botorch.exceptions.warnings.InputDataWarning")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shift", [0.0, -1.0, -5.0, -40.0, 3.0])
def test_both_agree_with_botorch_on_the_same_hyperparameters(seed: int, shift: float) -> None:
    surrogate = _surrogate(seed)
    x = _points(surrogate, 11, seed)
    best = surrogate.incumbent + shift
    for ours, botorchs in (
        (LogExpectedImprovement, BotorchLogEI),
        (LogProbabilityOfImprovement, BotorchLogPI),
    ):
        value = ours(surrogate, best=best)(x)
        for run in range(surrogate.runs):
            peer = botorchs(surrogate.to_botorch(run), best_f=best[run, :, None], maximize=False)
            per_draw = peer(x[run, :, None, None].expand(-1, surrogate.draws, -1, -1))
            expected = per_draw.logsumexp(-1) - math.log(surrogate.draws)
            torch.testing.assert_close(value[run], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("utility", UTILITIES)
@pytest.mark.parametrize("shift", [0.0, -2.0, -30.0, -1000.0, 5.0, 500.0])
def test_the_closed_form_gradient_is_that_of_autograd(utility: Utility, shift: float) -> None:
    surrogate = _surrogate(3)
    acquisition = utility(surrogate, best=surrogate.incumbent + shift)
    x = _points(surrogate, 13).requires_grad_()
    value, gradient = acquisition.value_and_gradient(x)
    by_autograd = acquisition(x)
    (expected,) = torch.autograd.grad(by_autograd.sum(), x)
    torch.testing.assert_close(value, by_autograd.detach(), rtol=1e-12, atol=1e-12)
    scale = float(expected.abs().max())
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-8 * max(scale, 1e-280))


@pytest.mark.parametrize("utility", UTILITIES)
def test_the_gradient_is_that_of_finite_differences(utility: Utility) -> None:
    surrogate = _surrogate(4)
    acquisition = utility(surrogate, surrogate.incumbent)
    x, step = _points(surrogate, 5), 1e-5
    gradient = acquisition.value_and_gradient(x)[1]
    for column in range(surrogate.dim):
        offset = torch.zeros(surrogate.dim, dtype=DTYPE)
        offset[column] = step

        def change(width: float, offset: Tensor = offset) -> Tensor:
            return (acquisition(x + width * offset) - acquisition(x - width * offset)) / step

        difference = (8.0 * change(1.0) - change(2.0)) / 12.0
        torch.testing.assert_close(gradient[..., column], difference, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("utility", UTILITIES)
@pytest.mark.parametrize("variance", [1e-300, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("mean", [-7.0, 0.0, 7.0])
def test_tiny_and_huge_variances_yield_finite_values_and_gradients(
    utility: Utility, variance: float, mean: float
) -> None:
    posterior = _FixedMoments(_tensor(mean), _tensor(variance), mean_slope=1e-3)
    x = torch.full((1, 2, 3), 0.5, dtype=DTYPE)
    value, gradient = utility(posterior, _tensor(0.0)).value_and_gradient(x)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert (gradient[..., 0] <= 0).all()


@pytest.mark.parametrize("utility", UTILITIES)
def test_at_an_observed_point_without_noise_all_stays_finite(utility: Utility) -> None:
    surrogate = _surrogate()
    surrogate = Surrogate.condition(
        surrogate.x,
        surrogate.y[:, 0],
        surrogate.mask,
        surrogate.lengthscale,
        surrogate.outputscale,
        torch.full_like(surrogate.noise_variance, 1e-12),
        surrogate.mean,
    )
    value, gradient = utility(surrogate, surrogate.incumbent).value_and_gradient(surrogate.x)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("utility", UTILITIES)
def test_a_run_of_a_batch_is_the_run_alone_and_a_point_the_point_alone(utility: Utility) -> None:
    surrogate = _surrogate(5, r=3)
    x = _points(surrogate, 7)
    value, gradient = utility(surrogate, surrogate.incumbent).value_and_gradient(x)
    for run in range(3):
        alone = Surrogate.condition(
            surrogate.x[run : run + 1],
            surrogate.y[run : run + 1, 0],
            surrogate.mask[run : run + 1],
            surrogate.lengthscale[run : run + 1],
            surrogate.outputscale[run : run + 1],
            surrogate.noise_variance[run : run + 1],
            surrogate.mean[run : run + 1],
        )
        for point in range(7):
            one = utility(alone, alone.incumbent).value_and_gradient(
                x[run : run + 1, point : point + 1]
            )
            torch.testing.assert_close(value[run, point], one[0][0, 0], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(gradient[run, point], one[1][0, 0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("utility", UTILITIES)
def test_a_point_that_is_not_a_number_spoils_no_other(utility: Utility) -> None:
    surrogate = _surrogate(6)
    x = _points(surrogate, 3)
    clean = utility(surrogate, surrogate.incumbent).value_and_gradient(x)
    x[0, 1, 2] = torch.nan
    value, gradient = utility(surrogate, surrogate.incumbent).value_and_gradient(x)
    assert torch.isnan(value[0, 1])
    others = torch.tensor([[True, False, True], [True, True, True]])
    torch.testing.assert_close(value[others], clean[0][others])
    torch.testing.assert_close(gradient[others], clean[1][others])


def test_pending_points_lower_the_utility_of_their_neighbourhood() -> None:
    surrogate = _surrogate(7, r=1, s=31)
    point = _points(surrogate, 1, seed=2)
    streams = Streams.named(0, "fantasies")
    fantasised = surrogate.fantasize(point, torch.ones(1, 1, dtype=torch.bool), streams)
    before = LogExpectedImprovement(surrogate, surrogate.incumbent)(point)
    after = LogExpectedImprovement(fantasised, fantasised.incumbent)(point)
    assert (after < before).all()

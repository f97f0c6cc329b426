"""The named priors, the layout of the coordinates, and gradients through the transforms."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro.distributions as pyrod
import pytest
import torch
from botorch.models import fully_bayesian
from gpytorch import priors as gp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from torch import Tensor
from torch import distributions as td

from gpbo.backend import DTYPE, Streams
from gpbo.errors import InvalidOption
from gpbo.evidence import LogPosterior, Model
from gpbo.hyperparameters import (
    PRIORS,
    HyperparameterPrior,
    Hyperparameters,
    Parametrization,
    resolve_prior,
)
from gpbo.inference import sample_hyperparameters
from gpbo.priors import Fixed, Gamma, HalfCauchy, Horseshoe, LogNormal, Normal, Saas, Uniform
from tests.monte_carlo import random_normal

K, D = 3, 5


def custom(**changes: Any) -> HyperparameterPrior:
    priors: dict[str, Any] = {
        "lengthscale": Gamma(3.0, 6.0),
        "outputscale": HalfCauchy(1.0),
        "noise_variance": LogNormal(-4.0, 1.0),
        "mean": Normal(0.0, 1.0),
    }
    return HyperparameterPrior(**{**priors, **changes})


def all_priors() -> dict[str, HyperparameterPrior]:
    return {
        **{name: make() for name, make in PRIORS.items()},
        "all fixed but the mean": custom(
            lengthscale=Fixed(0.7), outputscale=Fixed(2.0), noise_variance=Fixed(0.0)
        ),
        "fixed mean": custom(mean=Fixed(-0.3)),
        "bounded": custom(
            lengthscale=Uniform(0.1, 3.0),
            outputscale=Uniform(0.0, 9.0),
            noise_variance=Uniform(0.0, 0.5),
        ),
        "user's": custom(
            lengthscale=gp.GammaPrior(3.0, 6.0),
            outputscale=pyrod.InverseGamma(3.0, 2.0),
            noise_variance=gp.SmoothedBoxPrior(1e-3, 0.5, 0.1),
            mean=gp.UniformPrior(-1.0, 2.0),
        ),
    }


EVERY = sorted(all_priors())


def parametrization_of(name: str, dim: int = D) -> Parametrization:
    return Parametrization(all_priors()[name], dim)


def fields(natural: Hyperparameters) -> list[Tensor]:
    return [natural.lengthscale, natural.outputscale, natural.noise_variance, natural.mean]


# --- the named priors


def test_the_named_priors_are_these() -> None:
    assert resolve_prior("dimension-scaled") == HyperparameterPrior(
        lengthscale=LogNormal(-1.0, 1.0, scaled_by_dim=True),
        outputscale=LogNormal(0.0, 1.0),
        noise_variance=LogNormal(-8.0, 2.0),
        mean=Normal(0.0, 1.0),
        noise_floor=1e-6,
    )
    assert resolve_prior("botorch") == HyperparameterPrior(
        lengthscale=LogNormal(math.sqrt(2), math.sqrt(3), scaled_by_dim=True),
        outputscale=Fixed(1.0),
        noise_variance=Gamma(0.9, 10.0),
        mean=Normal(0.0, 1.0),
        noise_floor=1e-4,
    )
    assert resolve_prior("saas") == HyperparameterPrior(
        lengthscale=Saas(0.1),
        outputscale=Gamma(2.0, 0.15),
        noise_variance=Gamma(0.9, 10.0),
        mean=Normal(0.0, 1.0),
        noise_floor=1e-4,
    )
    assert resolve_prior("spearmint") == HyperparameterPrior(
        lengthscale=Uniform(0.0, 2.0),
        outputscale=LogNormal(4.0, 2.0),
        noise_variance=Horseshoe(0.1),
        mean=Normal(0.0, 1.0),
        noise_floor=1e-6,
    )
    assert set(PRIORS) == {"dimension-scaled", "botorch", "saas", "spearmint"}


class _Botorch:
    """BoTorch's own model code, run with the natural values that we give it.

    It asks for one value after the other by name, with a distribution; the log density of what it
    was given adds up.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, values: dict[str, Tensor]) -> None:
        self.log_density = torch.zeros((), dtype=DTYPE)
        self.asked: list[str] = []

        def sample(name: str, distribution: td.Distribution) -> Any:
            self.asked.append(name)
            value = values[name]
            self.log_density = self.log_density + distribution.log_prob(value).sum()
            return value.numpy()

        def distribution_of(kind: Any) -> Any:
            return lambda *args, **named: kind(
                *(torch.as_tensor(each, dtype=DTYPE) for each in args),
                **{key: torch.as_tensor(each, dtype=DTYPE) for key, each in named.items()},
            )

        kinds = ("LogNormal", "Gamma", "HalfCauchy", "Normal")
        fakes = {
            "jnp": np,
            "numpyro": SimpleNamespace(sample=sample, deterministic=lambda _, value: value),
            "numpyro_dist": SimpleNamespace(
                **{kind: distribution_of(getattr(td, kind)) for kind in kinds}
            ),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(fully_bayesian, name, fake, raising=False)


@pytest.mark.skipif(not hasattr(fully_bayesian, "_HAS_JAX"), reason="BoTorch before its NumPyro")
@pytest.mark.parametrize("name", ["botorch", "saas"])
def test_botorch_s_own_model_code_has_the_same_priors(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = parametrization_of(name)
    u = random_normal(0, 1, space.size)
    natural = space.constrain(u)
    noise = natural.noise_variance - fully_bayesian.MIN_INFERRED_NOISE_LEVEL
    values = {"mean": natural.mean[0], "noise": noise[0], "outputscale": natural.outputscale[0]}
    values["lengthscale"] = natural.lengthscale[0]
    values["kernel_tausq"], values["_kernel_inv_length_sq"] = u[0, 0].exp(), u[0, 1 : D + 1].exp()
    theirs = _Botorch(monkeypatch, values)
    models = {"botorch": "MaternPyroModel", "saas": "SaasPyroModel"}
    model = getattr(fully_bayesian, models[name])()
    model.train_Yvar_jax = None

    outputscale = model.sample_outputscale(
        model._outputscale_prior_concentration, model._outputscale_prior_rate
    )
    model.sample_mean()
    noise_variance = model.sample_noise()
    lengthscale = model.sample_lengthscale(dim=D)

    assert np.asarray(outputscale).item() == pytest.approx(float(natural.outputscale), rel=1e-14)
    assert float(noise_variance) == pytest.approx(float(natural.noise_variance), rel=1e-14)
    assert lengthscale == pytest.approx(natural.lengthscale[0].numpy(), rel=1e-14)
    # All coordinates but the mean are logarithms, so the log-Jacobian is their sum.
    log_jacobian = float(u[0, :-1].sum())
    expected = float(theirs.log_density) + log_jacobian
    assert len(theirs.asked) == {"botorch": 3, "saas": 5}[name]
    assert float(space.log_prior(u)[0]) == pytest.approx(expected, rel=1e-12)


def test_spearmint_s_prior_is_the_one_in_its_code() -> None:
    # Spearmint's log priors up to a constant: log(log(1 + (0.1 / noise)^2)) of the noise,
    # -(log sqrt(amplitude))^2 / 2 of the amplitude, a top hat on (0, 2) of the lengthscales.
    space, u = parametrization_of("spearmint"), random_normal(0, K, D + 3)
    lengthscale, amplitude = 2 * torch.sigmoid(u[:, :D]), u[:, D].exp()
    noise, mean = u[:, D + 1].exp(), u[:, D + 2]
    expected = torch.log(torch.log(1 + (0.1 / noise) ** 2))
    expected = expected - 0.5 * amplitude.sqrt().log() ** 2 - 0.5 * mean**2
    # And the log-Jacobians of the coordinates.
    expected = expected + u[:, D] + u[:, D + 1]
    expected = expected + (lengthscale / 2 * (1 - lengthscale / 2)).log().sum(-1)
    value, _ = space.log_prior(u)
    torch.testing.assert_close(value - value[0], expected - expected[0], rtol=1e-12, atol=1e-12)


def test_the_default_lengthscales_centre_above_the_mode_published_nearer_than_the_median() -> None:
    published = stats.lognorm(math.sqrt(3), scale=math.exp(math.sqrt(2)) * math.sqrt(D))
    mode = optimize.minimize_scalar(lambda x: -published.pdf(x), bounds=(1e-3, 5), method="bounded")
    centre = Parametrization(PRIORS["dimension-scaled"](), D)._location[0].exp()
    assert mode.x < float(centre) < math.sqrt(mode.x * published.median())


def test_the_dimension_scaled_prior_grows_with_the_root_of_the_dimension() -> None:
    median = [
        float(Parametrization(PRIORS["dimension-scaled"](), dim)._location[0].exp())
        for dim in (1, 7, 49)
    ]
    assert median[0] == pytest.approx(math.exp(-1.0), rel=1e-14)
    assert [each / median[0] for each in median] == pytest.approx([1, math.sqrt(7), 7], rel=1e-14)


# --- the layout


SIZES = {
    "dimension-scaled": D + 3,
    "botorch": D + 2,
    "saas": D + 4,
    "spearmint": D + 3,
    "all fixed but the mean": 1,
    "fixed mean": D + 2,
    "bounded": D + 3,
    "user's": D + 3,
}


@pytest.mark.parametrize("name", EVERY)
def test_a_fixed_hyperparameter_has_no_coordinate(name: str) -> None:
    assert parametrization_of(name).size == SIZES[name]


@pytest.mark.parametrize("name", EVERY)
def test_natural_values_have_their_shapes_and_signs(name: str) -> None:
    space = parametrization_of(name)
    natural = space.constrain(3 * random_normal(0, K, space.size))
    assert natural.lengthscale.shape == (K, D)
    assert natural.outputscale.shape == natural.noise_variance.shape == natural.mean.shape == (K,)
    assert bool((natural.lengthscale > 0).all())
    assert bool((natural.outputscale > 0).all())
    assert bool((natural.noise_variance >= space.prior.noise_floor).all())


def test_the_coordinates_are_lengthscales_outputscale_noise_variance_and_mean() -> None:
    u = random_normal(0, K, D + 3)
    natural = parametrization_of("dimension-scaled").constrain(u)
    torch.testing.assert_close(natural.lengthscale, u[:, :D].exp(), rtol=1e-15, atol=0)
    torch.testing.assert_close(natural.outputscale, u[:, D].exp(), rtol=1e-15, atol=0)
    torch.testing.assert_close(natural.noise_variance, u[:, D + 1].exp() + 1e-6, rtol=1e-15, atol=0)
    torch.testing.assert_close(natural.mean, u[:, D + 2], rtol=0, atol=0)


def test_a_distribution_that_has_one_value_fixes_it() -> None:
    """Its density is one number and infinite elsewhere: chains would never move."""
    certain = HyperparameterPrior(
        LogNormal(0.0, 1.0),
        pyrod.Delta(torch.tensor(2.0)),
        td.Gamma(2.0, 0.15),
        pyrod.Delta(torch.tensor(0.25)),
    )
    assert certain.outputscale == Fixed(2.0)
    assert certain.mean == Fixed(0.25)
    assert not isinstance(certain.noise_variance, Fixed)
    with pytest.raises(InvalidOption, match=r"noise_variance=.*expected a positive value"):
        replace(certain, noise_variance=pyrod.Delta(torch.tensor(-1.0)))


def test_fixed_values_are_the_natural_values() -> None:
    natural = parametrization_of("all fixed but the mean").constrain(random_normal(0, K, 1))
    assert natural.lengthscale.tolist() == [[0.7] * D] * K
    assert natural.outputscale.tolist() == [2.0] * K
    assert natural.noise_variance.tolist() == [1e-6] * K
    fixed = parametrization_of("fixed mean")
    assert fixed.constrain(random_normal(0, K, fixed.size)).mean.tolist() == [-0.3] * K


# --- densities and gradients


@pytest.mark.parametrize("name", EVERY)
def test_the_log_prior_is_the_sum_over_the_hyperparameters(name: str) -> None:
    space, prior = parametrization_of(name), all_priors()[name]
    u = random_normal(0, K, space.size)
    value, gradient = torch.zeros(K, dtype=DTYPE), []
    start = 0
    for field, count in (
        ("lengthscale", D),
        ("outputscale", 1),
        ("noise_variance", 1),
        ("mean", 1),
    ):
        block = getattr(prior, field).at(D)
        stop = start + block.size(count)
        if stop > start:
            block_value, block_gradient = block.log_density(u[:, start:stop])
            value += block_value
            gradient.append(block_gradient)
        start = stop
    ours, our_gradient = space.log_prior(u)
    torch.testing.assert_close(ours, value, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(our_gradient, torch.cat(gradient, -1), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_gradients_are_pulled_back_as_autograd_does(name: str, seed: int) -> None:
    space = parametrization_of(name)
    u = random_normal(seed, K, space.size).requires_grad_()
    natural = space.constrain(u)
    weights = [random_normal(seed + i, *each.shape) for i, each in enumerate(fields(natural), 1)]
    targets = [natural.lengthscale.log(), natural.outputscale.log()]
    targets += [natural.noise_variance, natural.mean]
    total = torch.stack([(w * t).sum() for w, t in zip(weights, targets, strict=True)]).sum()
    (expected,) = torch.autograd.grad(total, u)
    detached = Hyperparameters(*(each.detach() for each in fields(natural)))
    pulled = space.pull_back(u.detach(), detached, Hyperparameters(*weights))
    torch.testing.assert_close(pulled, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_a_chain_has_the_density_it_has_alone(name: str) -> None:
    space = parametrization_of(name)
    u = random_normal(0, 7, space.size)
    value, gradient = space.log_prior(u)
    alone, alone_gradient = space.log_prior(u[4:5])
    torch.testing.assert_close(value[4:5], alone, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(gradient[4:5], alone_gradient, rtol=1e-14, atol=1e-14)


# --- draws


@pytest.mark.parametrize("name", EVERY)
def test_draws_of_a_run_are_those_it_has_alone(name: str) -> None:
    space = parametrization_of(name)
    batch = space.sample(Streams.named(3, "prior", runs=2), 11)
    assert batch.shape == (2, 11, space.size)
    assert bool(batch.isfinite().all())
    alone = space.sample(Streams.named(3, "prior"), 11)
    torch.testing.assert_close(batch[:1], alone, rtol=1e-14, atol=1e-14)
    value, gradient = space.log_prior(batch.flatten(0, 1))
    assert bool(value.isfinite().all())
    assert bool(gradient.isfinite().all())


def test_draws_of_different_hyperparameters_are_unrelated() -> None:
    space = parametrization_of("spearmint")
    draws = space.sample(Streams.named(3, "prior"), 2003)[0].argsort(0).argsort(0).to(DTYPE)
    correlation = torch.corrcoef(draws.T) - torch.eye(space.size, dtype=DTYPE)
    assert float(correlation.abs().max()) < 4.5 / math.sqrt(2003)


def test_a_posterior_with_priors_of_the_user_can_be_sampled() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 7, 2, generator=generator, dtype=DTYPE), random_normal(0, 2, 7)
    model = Model(prior=all_priors()["user's"])
    draws = sample_hyperparameters(x, y, chains=2, draws=3, warmup=8, model=model)
    for each in (draws.lengthscale, draws.outputscale, draws.noise_variance, draws.mean):
        assert each.shape[:2] == (2, 6)
        assert bool(each.isfinite().all())


# --- another standardisation of the values


@pytest.mark.parametrize("name", ["dimension-scaled", "spearmint"])
def test_rescaled_hyperparameters_are_the_same_functions(name: str) -> None:
    # log N(y; m, K) = log N((y - b) / f; (m - b) / f, K / f^2) - n log f.
    r, c, n = 2, K, 11
    named = all_priors()[name]
    prior = custom(lengthscale=named.lengthscale, noise_variance=HalfCauchy(0.1), noise_floor=1e-30)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(r, n, D, generator=generator, dtype=DTYPE), random_normal(0, r, n)
    mask = torch.ones(r, n, dtype=torch.bool)
    shift, factor = torch.tensor([0.7, -3.0], dtype=DTYPE), torch.tensor([0.2, 7.0], dtype=DTYPE)
    before = LogPosterior(x, y, mask, prior)
    after = LogPosterior(x, (y - shift[:, None]) / factor[:, None], mask, prior)
    space = before.parametrization
    u = random_normal(0, r, c, space.size)
    moved = space.rescaled(u, shift, factor)
    likelihood, _ = before.log_likelihood(space.constrain(u.flatten(0, 1)))
    transported, _ = after.log_likelihood(space.constrain(moved.flatten(0, 1)))
    expected = transported - n * factor.log().repeat_interleave(c)
    torch.testing.assert_close(likelihood, expected, rtol=1e-10, atol=1e-10)


def test_coordinates_that_are_no_logarithms_are_not_rescaled() -> None:
    for name in ("bounded", "user's", "all fixed but the mean"):
        space = parametrization_of(name)
        u, one = random_normal(0, 2, K, space.size), torch.ones(2, dtype=DTYPE)
        moved = space.rescaled(u, 0.5 * one, 2 * one)
        moves_mean = name != "user's"
        last = -1 if moves_mean else space.size
        assert torch.equal(moved[..., :last], u[..., :last])
        if moves_mean:
            torch.testing.assert_close(moved[..., -1], (u[..., -1] - 0.5) / 2)


# --- options


@pytest.mark.parametrize("name", PRIORS)
def test_a_name_and_what_it_names_resolve_to_the_same(name: str) -> None:
    assert resolve_prior(resolve_prior(name)) == PRIORS[name]()


def test_an_unknown_name_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(InvalidOption, match=r"prior='flat'.*'botorch', 'dimension-scaled'"):
        resolve_prior("flat")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"noise_floor": 0.0}, "noise_floor=0.0: expected a positive number"),
        ({"noise_floor": math.nan}, "noise_floor=nan"),
        ({"lengthscale": Normal()}, "lengthscale=Normal.*on positive numbers"),
        ({"mean": Gamma(1.0, 1.0)}, "mean=Gamma.*on all real numbers"),
        ({"outputscale": Saas()}, "outputscale=Saas.*prior for lengthscale only"),
        ({"outputscale": Fixed(0.0)}, "outputscale=Fixed.*positive value"),
        ({"lengthscale": Fixed(-1.0)}, "lengthscale=Fixed.*positive value"),
        ({"noise_variance": Fixed(-1e-9)}, "noise_variance=Fixed.*positive value"),
        ({"noise_variance": td.Poisson(3.0)}, "noise_variance=Poisson.*biject_to"),
        ({"lengthscale": gp.UniformPrior(-1.0, 1.0)}, "lengthscale=Uniform.*positive numbers"),
    ],
)
def test_a_prior_that_does_not_fit_is_an_error_that_names_it(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidOption, match=says):
        custom(**changes)


def test_a_mean_may_have_a_prior_on_a_part_of_the_real_numbers() -> None:
    space = Parametrization(custom(mean=gp.GammaPrior(2.0, 3.0)), D)
    assert bool((space.constrain(random_normal(0, K, space.size)).mean > 0).all())

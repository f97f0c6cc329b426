"""BoTorch as its authors set it up: fully Bayesian fits, and loops with MAP and log EI."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from botorch import fit_gpytorch_mll
from botorch.acquisition import LogExpectedImprovement
from botorch.exceptions import BotorchWarning
from botorch.models import SingleTaskGP
from botorch.models.transforms import Standardize
from botorch.optim import optimize_acqf
from gpytorch.mlls import ExactMarginalLogLikelihood
from jaxtyping import Float
from torch import Tensor

warnings.filterwarnings("ignore", category=BotorchWarning)


@dataclass(frozen=True)
class Suggestion:
    """A point of the unit cube and the seconds that its two parts took."""

    x: Float[Tensor, "one d"]
    fit_s: float
    acquisition_s: float


def suggest_with_map(x: Float[Tensor, "n d"], y: Float[Tensor, "n"]) -> Suggestion:
    """One suggestion of BoTorch's default loop, to minimise ``y``.

    ``SingleTaskGP`` with its default priors, ``fit_gpytorch_mll``, log expected improvement, and
    ``optimize_acqf`` with 10 restarts from 512 raw samples.
    """
    began = time.perf_counter()
    model = SingleTaskGP(x, -y[:, None], outcome_transform=Standardize(1))
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    fitted = time.perf_counter()
    candidate, _ = optimize_acqf(
        LogExpectedImprovement(model, best_f=-y.min()),
        bounds=torch.stack([torch.zeros(x.shape[1]), torch.ones(x.shape[1])]).to(x),
        q=1,
        num_restarts=10,
        raw_samples=512,
    )
    return Suggestion(candidate, fitted - began, time.perf_counter() - fitted)


def fully_bayesian_fit(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n"]
) -> tuple[float, Float[Tensor, "s p"]]:
    """Seconds and draws of BoTorch's NUTS at its defaults; ``y`` standardised.

    The draws are of everything sampled: the logs of lengthscales and noise, and the mean.
    """
    from botorch.fit import fit_fully_bayesian_model_nuts
    from botorch.models.fully_bayesian import FullyBayesianSingleTaskGP

    began = time.perf_counter()
    model = FullyBayesianSingleTaskGP(x, y[:, None])
    fit_fully_bayesian_model_nuts(model, disable_progbar=True)
    seconds = time.perf_counter() - began
    lengthscales, noise = model.covar_module.lengthscale[:, 0], model.likelihood.noise
    draws = [lengthscales.log(), noise.log(), model.mean_module.constant[:, None]]
    return seconds, torch.cat(draws, -1).detach()


def minimize_with_map(
    problem: Callable[[Float[Tensor, "q d"]], Float[Tensor, "q"]],
    design: Float[Tensor, "n d"],
    budget: int,
    seed: int,
) -> Float[Tensor, "t"]:
    """The values that BoTorch's loop observes, the design's first."""
    torch.manual_seed(seed)
    x, y = design, problem(design)
    while len(y) < budget:
        point = suggest_with_map(x, y).x
        x, y = torch.cat([x, point]), torch.cat([y, problem(point)])
    return y

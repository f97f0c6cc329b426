"""A fitted surrogate as a BoTorch model."""

from typing import TYPE_CHECKING, Any

import torch
from botorch.models.fully_bayesian import MCMC_DIM
from botorch.models.gp_regression import SingleTaskGP
from botorch.posteriors.fully_bayesian import GaussianMixturePosterior
from gpytorch.constraints import Positive
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from torch import Tensor

if TYPE_CHECKING:
    from gpbo.surrogate import Surrogate


class Ensemble(SingleTaskGP):
    """A model per hyperparameter draw; BoTorch's acquisition functions average over them."""

    _is_ensemble = True
    _supports_batched_models = False

    def posterior(self, X: Tensor, *args: Any, **kwargs: Any) -> GaussianMixturePosterior:
        """The mixture, over the draws, of their posteriors at points ``X[...,q,d]``."""
        posterior = super().posterior(X.unsqueeze(MCMC_DIM), *args, **kwargs)
        return GaussianMixturePosterior(distribution=posterior.distribution)


def surrogate_to_botorch(surrogate: "Surrogate", run: int, *, ensemble: bool) -> SingleTaskGP:
    """A ``SingleTaskGP`` with batch shape ``[s]`` that has the surrogate's hyperparameters.

    Its values are on the surrogate's scale: standardised, lower is better.
    """
    kind = Ensemble if ensemble else SingleTaskGP
    kept = surrogate.mask[run]
    draws, dim = surrogate.draws, surrogate.dim
    batch = torch.Size([draws])
    x = surrogate.x[run, kept].expand(draws, -1, dim)
    y = surrogate.y[run][:, kept, None]
    likelihood = GaussianLikelihood(batch_shape=batch, noise_constraint=Positive())
    kernel = ScaleKernel(
        MaternKernel(nu=surrogate.nu, ard_num_dims=dim, batch_shape=batch), batch_shape=batch
    )
    model = kind(x, y, likelihood=likelihood, covar_module=kernel, outcome_transform=None).to(x)
    model.mean_module.constant.data.copy_(surrogate.mean[run])
    model.covar_module.outputscale = surrogate.outputscale[run]
    model.covar_module.base_kernel.lengthscale = surrogate.lengthscale[run][:, None]
    model.likelihood.noise = surrogate.noise_variance[run][:, None]
    return model.eval()

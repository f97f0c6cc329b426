"""A fitted surrogate as a BoTorch model."""

from typing import TYPE_CHECKING

import torch
from botorch.models.gp_regression import SingleTaskGP
from gpytorch.constraints import Positive
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood

if TYPE_CHECKING:
    from gpbo.surrogate import Surrogate


def surrogate_to_botorch(surrogate: "Surrogate", run: int = 0) -> SingleTaskGP:
    """A ``SingleTaskGP`` with batch shape ``[s]`` that has the surrogate's hyperparameters.

    Its values are on the surrogate's scale: standardised, lower is better.
    """
    kept = surrogate.mask[run]
    draws, dim = surrogate.draws, surrogate.dim
    batch = torch.Size([draws])
    x = surrogate.x[run, kept].expand(draws, -1, dim)
    y = surrogate.y[run][:, kept, None]
    likelihood = GaussianLikelihood(batch_shape=batch, noise_constraint=Positive())
    kernel = ScaleKernel(
        MaternKernel(nu=surrogate.nu, ard_num_dims=dim, batch_shape=batch), batch_shape=batch
    )
    model = SingleTaskGP(
        x, y, likelihood=likelihood, covar_module=kernel, outcome_transform=None
    ).to(x)
    model.mean_module.constant.data.copy_(surrogate.mean[run])
    model.covar_module.outputscale = surrogate.outputscale[run]
    model.covar_module.base_kernel.lengthscale = surrogate.lengthscale[run][:, None]
    model.likelihood.noise = surrogate.noise_variance[run][:, None]
    return model.eval()

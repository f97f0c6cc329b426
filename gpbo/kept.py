"""What is kept of a fit: enough to continue it exactly, on other data or in another process."""

import io
import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.backend import settings_for
from gpbo.data import Observations
from gpbo.evidence import Model
from gpbo.fitting import Fit, FitReport, WarmState
from gpbo.hyperparameters import NAMES
from gpbo.mcmc.sampling import Warmth
from gpbo.record import FitSummary
from gpbo.surrogate import Surrogate
from gpbo.units import Units


@dataclass(frozen=True)
class Kept:
    """A fit without its factorisations: some kilobytes, whatever the number of results.

    Attributes:
        size: How many results it was fitted to, the first ones that came; the most of any run.
        lengthscale, outputscale, noise_variance, mean: The draws of its surrogate; NaN where the
            factorisation failed.
        units: The units of the values that the draws belong to.
        report: The report of the fit.
        warm: What the next fit starts from; None without chains.
        density: Without chains, the log posterior at the origin of the sampler's coordinates, by
            which the model is recognised; None in old files, and if it is not needed.
    """

    size: int
    lengthscale: Float[Tensor, "r s d"]
    outputscale: Float[Tensor, "r s"]
    noise_variance: Float[Tensor, "r s"]
    mean: Float[Tensor, "r s"]
    units: Units
    report: FitReport
    warm: WarmState | None
    density: Float[Tensor, "r"] | None = None

    @classmethod
    def of(cls, fit: Fit, data: Observations, model: Model | None = None) -> "Kept":
        """What to keep of a fit to these observations.

        Args:
            model: The model, if `has_density_of` must recognise it.
        """
        surrogate = fit.surrogate
        failed = ~surrogate.succeeded
        return cls(
            size=int(data.counts.max()),
            lengthscale=surrogate.lengthscale.masked_fill(failed[..., None], torch.nan),
            outputscale=surrogate.outputscale.masked_fill(failed, torch.nan),
            noise_variance=surrogate.noise_variance.masked_fill(failed, torch.nan),
            mean=surrogate.mean.masked_fill(failed, torch.nan),
            units=data.units,
            report=fit.report,
            warm=fit.warm,
            density=None if model is None or fit.warm is not None else _at_zero(model, data),
        )

    def has_density_of(self, data: Observations, model: Model) -> bool:
        """Whether hyperparameters have the density under this model that they had in the fit.

        Args:
            data: The observations of the fit.
        """
        if self.warm is None:
            return self.density is not None and _alike(_at_zero(model, data), self.density)
        log_posterior = model.log_posterior(data.x, data.y, data.mask)
        position, value = self.warm.warmth.position, self.warm.warmth.value
        if position.shape[-1] != log_posterior.parametrization.size:
            return False
        now = log_posterior(position.flatten(0, 1))[0].view_as(value)
        return _alike(now, value)

    def thinned(self, every: int, first: int) -> "Kept":
        """With only every ``every``-th of the draws, but at least one.

        Consecutive values of ``first`` select different draws, but not in step with `gpbo.paths`,
        where functions take the draws in turn: else all would come from the same few.
        """
        draws = self.outputscale.shape[1]
        every = min(every, draws)
        first += first // draws
        some = slice(first % every, None, every)
        return replace(self, **{name: getattr(self, name)[:, some] for name in NAMES})

    def condition(self, data: Observations, nu: float) -> Fit:
        """On the observations of the fit, exactly the fit; on others, their posterior with the same
        draws, in the units to which their values are standardised.

        With more observations, ``y`` becomes about ``(y - shift) / factor``, and variances of ``y``
        are divided by ``factor`` squared.
        """
        shift, factor = (each[:, None] for each in data.rescaling(self.units))
        with settings_for(data.x.device):
            surrogate = Surrogate.condition(
                data.x,
                data.y,
                data.mask,
                self.lengthscale,
                self.outputscale / factor.square(),
                self.noise_variance / factor.square(),
                (self.mean - shift) / factor,
                nu,
                data.eligible,
            )
        return Fit(surrogate, self.report, self.warm, draws=None)

    def summary(self, at: float) -> FitSummary:
        """The report in the form that is stored, for the one run of an optimizer."""

        def plain(value: Any) -> Any:
            first = value[0] if isinstance(value, tuple | Tensor) else value
            number = first.item() if isinstance(first, Tensor) else first
            return None if isinstance(number, float) and math.isnan(number) else number

        report = {name: plain(value) for name, value in vars(self.report).items()}
        return FitSummary(self.size, at, report)

    def to_bytes(self) -> bytes:
        """The tensors, from any device, and plain values, as written by `torch.save`."""
        written = io.BytesIO()
        torch.save(_plain(self), written)
        return written.getvalue()

    @classmethod
    def from_bytes(cls, written: bytes, device: torch.device) -> "Kept":
        """Read what `to_bytes` wrote, also before units had powers; no code in it is run."""
        stored = torch.load(io.BytesIO(written), map_location="cpu", weights_only=True)
        plain: dict[str, Any] = _on(stored, device)
        plain["report"] = FitReport(**plain["report"])
        plain["units"] = _units(plain)
        if plain["warm"] is not None:
            warm = {"moved": plain["warm"]["afresh"]} | plain["warm"]
            warmth, units = Warmth(**warm.pop("warmth")), _units(warm)
            plain["warm"] = WarmState(**warm | {"warmth": warmth, "units": units})
        return cls(**plain)


#: The dataclasses that consist of tensors, plain values and one another.
PLAIN = (Kept, FitReport, WarmState, Warmth, Units)


def _at_zero(model: Model, data: Observations) -> Float[Tensor, "r"]:
    """The log posterior density of every run at the origin of the sampler's coordinates."""
    log_posterior = model.log_posterior(data.x, data.y, data.mask)
    return log_posterior(data.y.new_zeros(data.runs, log_posterior.parametrization.size))[0]


def _alike(now: Tensor, then: Tensor) -> bool:
    return torch.allclose(now, then, rtol=1e-6, atol=1e-6, equal_nan=True)


def _units(plain: dict[str, Any]) -> Units:
    """The stored units, removed from ``plain``; old files have affine ones."""
    if "units" in plain:
        return Units(**plain.pop("units"))
    return Units.affine(plain.pop("location"), plain.pop("scale"))


def _plain(value: Any) -> Any:
    """A dataclass as a dictionary, at any depth, with its tensors on the CPU."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value.cpu() if isinstance(value, Tensor) else value


def _on(value: Any, device: torch.device) -> Any:
    """Plain values with their tensors on this device."""
    if isinstance(value, dict):
        return {name: _on(part, device) for name, part in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value

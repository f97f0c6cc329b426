"""The scale on which a run's values are seen: a power of how far they lie above the best.

Values that fall by decades on the way to a minimum, as those of most smooth functions do, look like
no draw of a stationary Gaussian process: the worst set the scale, on which the best are all the
same. A power makes them look like one (Box and Cox 1964, "An analysis of transformations", JRSS B
26; Cowen-Rivers et al. 2022, "HEBO", JAIR 74, transform the values of Bayesian optimization
likewise), and as it is monotone, where the minimum lies does not change.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.backend import DTYPE

#: Values as they are, their square roots, their logarithms. With more powers to choose from, chains
#: that are carried from fit to fit are in other units more often, and start afresh.
_POWERS = (1.0, 0.5, 0.0)
#: So much less is the logarithm's prior log density than that of power 1. Near the best, where a
#: power below 1 looks closest, values with noise have little but noise.
_RELUCTANCE = 8.0
#: Values are bent from this quantile of their distances to the best on, or from so many of their
#: standard deviations where that is more.
_BENT_FROM, _LEAST_UNIT = 0.25, 0.01
# Values are divided by a power of two near their largest magnitude before they are squared, so
# that neither 1e300 nor 1e-300 leaves the range of a double. 2**1000 and 2**-1000 are both normal.
_LARGEST_EXPONENT = 1000


@dataclass(frozen=True)
class Units:
    """How each run's values, minimised and in its own units, become the engine's ``y``, and back.

    With ``a = (value - best) / scale``, ``y = bent(a) - centre`` where
    ``bent(a) = unit ((1 + a / unit)^power - 1) / power``, which is ``a`` for power 1. Below the
    best ``bent`` is ``a`` too, and beyond the worst value it goes on straight.

    Attributes:
        power: 1, 1/2, or 0, which is the logarithm.
        best: The least value.
        scale: The standard deviation of the bent values, in the run's own units.
        centre: Their mean above the best, divided by ``scale``.
        unit: From where on values are bent, likewise.
        worst: The distance ``a`` of the greatest value.
    """

    power: Float[Tensor, " r"]
    best: Float[Tensor, " r"]
    scale: Float[Tensor, " r"]
    centre: Float[Tensor, " r"]
    unit: Float[Tensor, " r"]
    worst: Float[Tensor, " r"]

    @classmethod
    def affine(cls, location: Float[Tensor, " r"], scale: Float[Tensor, " r"]) -> "Units":
        """``value = location + scale * y``."""
        ones, zeros = torch.ones_like(scale), torch.zeros_like(scale)
        return cls(power=ones, best=location, scale=scale, centre=zeros, unit=ones, worst=zeros)

    def __call__(self, values: Float[Tensor, "r *any"]) -> Float[Tensor, "r *any"]:
        """Values in the run's own units on the scale of ``y``."""
        power, best, scale, centre, unit, worst = self._like(values)
        above = (values / 2 - best / 2) / (scale / 2)  # the difference may leave a double's range
        inside = above.clamp(min=0).minimum(worst)
        slope = (1 + inside / unit) ** (power - 1)
        return _bent(inside, power, unit) + slope * (above - inside) - centre

    def back(self, y: Float[Tensor, "r *any"]) -> Float[Tensor, "r *any"]:
        """The inverse: ``y`` in the run's own units."""
        power, best, scale, centre, unit, worst = self._like(y)
        bent = y + centre
        inside = bent.clamp(min=0).minimum(_bent(worst, power, unit))
        stretched = (power * inside / unit).log1p() / power.clamp(min=0.5)
        above = unit * torch.where(power == 0, inside / unit, stretched).expm1()
        above = torch.where(power == 1, inside, above)
        slope = (1 + above / unit) ** (1 - power)
        return 2 * (best / 2 + scale / 2 * (above + slope * (bent - inside)))

    def equals(self, other: "Units") -> Bool[Tensor, " r"]:
        """Of which runs the units are the same to the last bit."""
        same = [getattr(self, f.name) == getattr(other, f.name) for f in fields(self)]
        return torch.stack(same).all(0)

    def _like(self, values: Float[Tensor, "r *any"]) -> tuple[Tensor, ...]:
        shape = (-1, *[1] * (values.ndim - 1))
        return tuple(getattr(self, f.name).view(shape) for f in fields(self))


def in_own_units(
    values: Float[Tensor, "r n"], mask: Bool[Tensor, "r n"]
) -> tuple[Float[Tensor, "r n"], Units]:
    """``y``, of mean 0 and population standard deviation 1 over the unmasked rows, and its units.

    The power is the most probable one under a prior that favours 1, if the bent values are normal
    (Box and Cox, equation 8). A run whose values are all the same (or that has one, or none) has
    power and ``scale`` 1 and ``y`` 0.

    Args:
        values: Finite; 0 where masked.
    """
    if values.shape[1] == 0:
        zeros = values.new_zeros(values.shape[0])
        return values, Units.affine(zeros, torch.ones_like(zeros))
    exponent = torch.frexp(values.abs().amax(-1)).exponent
    magnitude = torch.exp2(exponent.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT).to(DTYPE))
    scaled = values / magnitude.unsqueeze(-1)
    # Deviations from the smallest value are exact when the values are close together, where
    # deviations from a rounded mean would be rounding errors.
    empty = ~mask.any(-1)
    best = torch.where(mask, scaled, torch.inf).amin(-1).masked_fill(empty, 0.0)
    above = torch.where(mask, scaled - best.unsqueeze(-1), 0.0)
    worst = above.amax(-1)
    unit = _bent_from(above, mask)
    power = _most_probable(above, unit, mask)
    y, mean, deviation = centred(_bent(above, power[:, None], unit[:, None]), mask)
    constant = worst == 0.0
    divisor = deviation.masked_fill(constant, 1.0)
    tiny = torch.finfo(DTYPE).tiny
    return (y / divisor.unsqueeze(-1)).masked_fill(constant.unsqueeze(-1), 0.0), Units(
        power=power,
        best=best * magnitude,
        scale=(deviation * magnitude).clamp(min=tiny).masked_fill(constant, 1.0),
        centre=mean / divisor,
        unit=unit / divisor,
        worst=worst / divisor,
    )


def _bent(above: Float[Tensor, "*any"], power: Tensor, unit: Tensor) -> Float[Tensor, "*any"]:
    """Box and Cox's transform of ``1 + above / unit``, with slope 1 at 0."""
    growth = (above / unit).log1p()
    bent = unit * torch.where(power == 0, growth, (power * growth).expm1() / power)
    return torch.where(power == 1, above, bent)


def _bent_from(above: Float[Tensor, "r n"], mask: Bool[Tensor, "r n"]) -> Float[Tensor, " r"]:
    """From where on values are bent; 1 where all are the same."""
    place = ((mask.sum(-1) - 1).clamp(min=0) * _BENT_FROM).round().long()
    ordered = torch.where(mask, above, torch.inf).sort(-1).values
    quantile = ordered.gather(-1, place[:, None])[:, 0]
    _, _, deviation = centred(above, mask)
    unit = torch.where(mask.any(-1), quantile, 0.0).maximum(_LEAST_UNIT * deviation)
    return torch.where(unit > 0, unit, 1.0)


def _most_probable(
    above: Float[Tensor, "r n"], unit: Float[Tensor, " r"], mask: Bool[Tensor, "r n"]
) -> Float[Tensor, " r"]:
    powers = torch.tensor(_POWERS, dtype=DTYPE, device=above.device)
    each, known = (tensor[:, None].expand(-1, len(powers), -1) for tensor in (above, mask))
    _, _, deviation = centred(_bent(each, powers[None, :, None], unit[:, None, None]), known)
    bending = torch.where(mask, (above / unit[:, None]).log1p(), 0.0).sum(-1, keepdim=True)
    likelihood = (powers - 1) * bending - mask.sum(-1, keepdim=True) * deviation.log()
    probable = likelihood + _RELUCTANCE * powers
    return powers[torch.where(deviation > 0, probable, -torch.inf).argmax(-1)]


def centred(
    values: Float[Tensor, "*r n"], mask: Bool[Tensor, "*r n"]
) -> tuple[Float[Tensor, "*r n"], Float[Tensor, "*r"], Float[Tensor, "*r"]]:
    """Unmasked values less their mean, 0 elsewhere; the mean; the population standard deviation."""
    count = mask.sum(-1).clamp(min=1).to(DTYPE)
    mean = torch.where(mask, values, 0.0).sum(-1) / count
    centred = torch.where(mask, values - mean.unsqueeze(-1), 0.0)
    return centred, mean, (centred.square().sum(-1) / count).sqrt()

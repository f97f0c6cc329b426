"""The scale on which a run's values are seen: a power of how far they lie above the best.

Values that fall by decades on the way to a minimum, as those of most smooth functions do, do not
look like a draw of a stationary Gaussian process: the worst set the scale, on which the best are
all the same. A power transform makes them look like one (Box and Cox 1964, "An analysis of
transformations", JRSS B 26; Cowen-Rivers et al. 2022, "HEBO", JAIR 74, transform the values of
Bayesian optimization likewise), and as it is monotone, the minimum stays where it is. The marginal
likelihood tells which power makes them most like a Gaussian process (Snelson, Rasmussen and
Ghahramani 2003, "Warped Gaussian processes", NeurIPS 16): the distribution of the values alone
cannot tell decades of a smooth function from noise.
"""

import math
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpbo.backend import DTYPE, settings_for
from gpbo.kernels import matern, squared_distances
from gpbo.linalg import add_diagonal, cholesky
from gpbo.memory import in_parts

#: Values as they are, which come first, their square roots, their logarithms. With more powers to
#: choose from, the units of chains that continue from fit to fit change more often, and the chains
#: start anew.
_POWERS = (1.0, 0.5, 0.0)
#: By how much the log likelihood of the logarithms must exceed that of the values as they are; for
#: the roots it is half as much. Transformed values have their noise in other places.
_RELUCTANCE = 6.0
#: Logarithms of the lengthscales, in units of the cube's diagonal, and of the ratios of noise
#: variance to outputscale that a likelihood is averaged over; mean and standard deviation of their
#: priors, those of the default model with an outputscale of 1.
_LENGTHSCALES, _LENGTHSCALE = (-2.5, -1.75, -1.0, -0.25, 0.5), (-1.0, 1.0)
_NOISES, _NOISE = (-11.0, -8.0, -5.0, -3.0, -1.0), (-8.0, 2.0)
#: The unit of the transform is this quantile of the distances to the best value, or this many of
#: their standard deviations if that is more.
_BENT_FROM, _LEAST_UNIT = 0.25, 0.01
#: A value this many times as far above the best as all the rest is a penalty: it says that nothing
#: is to be found there, and nothing about the scale of the rest. The rest is at least this share of
#: all and at least this many values, and they differ by at least this share of their size: a search
#: whose best results are the same up to rounding has found a plateau, not penalties.
_PENALTY, _LEAST_SHARE, _LEAST_REST, _LEAST_SPREAD = 1e4, 0.5, 4, 1e-6
#: Values at most this far above the best, as a share of its size, tie with it up to rounding: a
#: mean is not the same to the last bit when it is summed in another order.
_TIED = 1e-12
# Values are divided by a power of two near their largest magnitude before they are squared, so
# that neither 1e300 nor 1e-300 leaves the range of a double. 2**1000 and 2**-1000 are both normal.
_LARGEST_EXPONENT = 1000
#: The least positive number that can be halved.
_LEAST_SCALE = 2 * math.ulp(0.0)


@dataclass(frozen=True)
class Units:
    """How each run's values, minimised and in its own units, become the engine's ``y``, and back.

    With ``a = (value - best) / scale``, ``y = bent(a) - centre`` where
    ``bent(a) = unit ((1 + a / unit)^power - 1) / power``, which is ``a`` for power 1. Below the
    best value ``bent`` is ``a`` too, and beyond the worst it continues linearly, up to penalties,
    which count as the worst value.

    Attributes:
        power: 1, 1/2, or 0, which is the logarithm.
        best: The least value.
        scale: The standard deviation of the bent values, in the run's own units.
        centre: Their mean above the best, divided by ``scale``.
        unit: The distance from which on values are bent, divided by ``scale`` too.
        worst: The distance ``a`` of the greatest value that is not a penalty; 0 if all values are
            the same and so say nothing about a scale.
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
        anything = torch.full_like(scale, torch.inf)
        return cls(power=ones, best=location, scale=scale, centre=zeros, unit=ones, worst=anything)

    def __call__(self, values: Float[Tensor, "r *any"]) -> Float[Tensor, "r *any"]:
        """Values in the run's own units on the scale of ``y``."""
        power, best, scale, centre, unit, worst = self._like(values)
        above = (values / 2 - best / 2) / (scale / 2)  # the difference may leave a double's range
        above = torch.where(_is_penalty(above, worst), worst, above)
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
        """The runs whose units are the same to the last bit."""
        same = [getattr(self, f.name) == getattr(other, f.name) for f in fields(self)]
        return torch.stack(same).all(0)

    def _like(self, values: Float[Tensor, "r *any"]) -> tuple[Tensor, ...]:
        shape = (-1, *[1] * (values.ndim - 1))
        return tuple(getattr(self, f.name).view(shape) for f in fields(self))


def in_own_units(
    x: Float[Tensor, "r n d"],
    values: Float[Tensor, "r n"],
    mask: Bool[Tensor, "r n"],
    straight: Bool[Tensor, " r"] | None = None,
) -> tuple[Float[Tensor, "r n"], Units]:
    """``y``, of mean 0 and population standard deviation 1 over the unmasked rows, and its units.

    Penalties, values more than ten thousand times as far above the best as all the others, which
    are at least half of all, count as the worst of the others. The power is the least one under
    which the values are much more probable than as they are, with the Jacobian (Snelson et al.,
    equation 6). A run whose values are all the same (or that has one, or none) has power and
    ``scale`` 1 and ``y`` 0; if it is straight, ``scale`` is how far the quantity is from its limit.

    Args:
        x: The points of the values, in the unit cube; anything finite where masked.
        values: Finite; 0 where masked.
        straight: Runs whose values are not bent and have no penalties; by default none.
    """
    if straight is None:
        straight = torch.zeros_like(mask[:, :1].any(-1))
    if values.shape[1] == 0:
        zeros = values.new_zeros(values.shape[0])
        return values, replace(Units.affine(zeros, torch.ones_like(zeros)), worst=zeros)
    values = torch.where(straight[:, None], values, _without_penalties(values, mask))
    exponent = torch.frexp(values.abs().amax(-1)).exponent
    magnitude = torch.exp2(exponent.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT).to(DTYPE))
    scaled = values / magnitude.unsqueeze(-1)
    # Deviations from the smallest value are exact when the values are close together, where
    # deviations from a rounded mean would be rounding errors.
    empty = ~mask.any(-1)
    best = torch.where(mask, scaled, torch.inf).amin(-1).masked_fill(empty, 0.0)
    above = torch.where(mask, scaled - best.unsqueeze(-1), 0.0)
    worst = above.amax(-1)
    told = torch.where(above > _TIED * best.abs().unsqueeze(-1), above, 0.0)
    unit = _bent_from(told, mask)
    bendable = torch.nonzero(~straight)[:, 0]
    likeliest = _power(*(part[bendable] for part in (x, told, unit, mask)))
    power = torch.ones_like(unit).index_copy(0, bendable, likeliest)
    y, mean, deviation = centred(_bent(above, power[:, None], unit[:, None]), mask)
    constant = worst == 0.0
    divisor = deviation.masked_fill(constant, 1.0)
    # A limited quantity that was always the same is known by how far it is from its limit, 0.
    alone = torch.where(straight & (best != 0.0), (best * magnitude).abs(), 1.0)
    return (y / divisor.unsqueeze(-1)).masked_fill(constant.unsqueeze(-1), 0.0), Units(
        power=power,
        best=best * magnitude,
        scale=torch.where(constant, alone, deviation * magnitude).clamp(min=_LEAST_SCALE),
        centre=mean / divisor,
        unit=unit / divisor,
        worst=torch.where(straight & ~constant, torch.inf, worst / divisor),
    )


def _bent(above: Float[Tensor, "*any"], power: Tensor, unit: Tensor) -> Float[Tensor, "*any"]:
    """Box and Cox's transform of ``1 + above / unit``, with slope 1 at 0."""
    growth = (above / unit).log1p()
    bent = unit * torch.where(power == 0, growth, (power * growth).expm1() / power)
    return torch.where(power == 1, above, bent)


def _is_penalty(
    above: Float[Tensor, "*any"], worst: Float[Tensor, "*some"]
) -> Bool[Tensor, "*any"]:
    """Whether values ``above`` the best are penalties, if the rest are at most ``worst`` above."""
    return (worst > 0) & (above > _PENALTY * worst)


def _without_penalties(
    values: Float[Tensor, "r n"], mask: Bool[Tensor, "r n"]
) -> Float[Tensor, "r n"]:
    """The values, with penalties replaced by the worst of the rest."""
    ordered = torch.where(mask, values, torch.inf).sort(-1).values
    above = ordered / 2 - ordered[:, :1] / 2  # the difference may leave a double's range
    following = torch.nn.functional.pad(above[:, 1:], (0, 1), value=torch.inf)
    counted = torch.arange(1, values.shape[1] + 1, device=values.device)
    least = (_LEAST_SHARE * mask.sum(-1, keepdim=True).to(values)).clamp(min=_LEAST_REST)
    size = ordered.abs() / 2
    differ = above >= _LEAST_SPREAD * size
    last = (counted >= least) & differ & _is_penalty(following, above)
    worst = torch.where(last, ordered, torch.inf).amin(-1, keepdim=True)
    return values.minimum(worst)


def _bent_from(above: Float[Tensor, "r n"], mask: Bool[Tensor, "r n"]) -> Float[Tensor, " r"]:
    """The distance from the best value from which on values are bent; 1 if all are the same.

    If several values tie for the best, it is at least the distance to the next best: the Jacobian
    is 1 at the best, so the ties would favour any power.
    """
    place = ((mask.sum(-1) - 1).clamp(min=0).to(above) * _BENT_FROM).round().long()
    ordered = torch.where(mask, above, torch.inf).sort(-1).values
    quantile = ordered.gather(-1, place[:, None])[:, 0]
    _, _, deviation = centred(above, mask)
    unit = torch.where(mask.any(-1), quantile, 0.0).maximum(_LEAST_UNIT * deviation)
    ties, second = _ties(above, mask)
    unit = torch.where(ties > 0, unit.maximum(second), unit)
    return torch.where(unit > 0, unit, 1.0)


def _ties(
    above: Float[Tensor, "r n"], mask: Bool[Tensor, "r n"]
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"]]:
    """How many values tie for the best, 0 if only one or all do; how far above is the next one."""
    best = (mask & (above == 0)).sum(-1)
    second = torch.where(mask & (above > 0), above, torch.inf).amin(-1)
    return torch.where((best > 1) & second.isfinite(), best, 0).to(above), second


def _power(
    x: Float[Tensor, "r n d"],
    above: Float[Tensor, "r n"],
    unit: Float[Tensor, " r"],
    mask: Bool[Tensor, "r n"],
) -> Float[Tensor, " r"]:
    """The least power that is enough more probable than 1 (`_RELUCTANCE`).

    Args:
        above: How far values are above the best; 0 where masked.
    """
    powers = torch.tensor(_POWERS, dtype=DTYPE, device=x.device)
    each, known = (row[:, None].expand(-1, len(powers), -1) for row in (above, mask))
    bent, _, _ = centred(_bent(each, powers[:, None], unit[:, None, None]), known)
    bending = (above / unit[:, None]).log1p().sum(-1, keepdim=True)
    evidence = _log_evidence(x, bent, mask) + (powers - 1) * bending
    # The slope is 1 at the best, so values that tie there would favour any power: they count with
    # the slope of the chord to the next value, by which that distance shrinks.
    ties, second = (each[:, None].expand_as(evidence) for each in _ties(above, mask))
    chord = (_bent(second, powers, unit[:, None]) / second).log()
    evidence = evidence + torch.where(ties > 0, ties * chord, 0.0)
    gain = (evidence - evidence[:, :1]).nan_to_num(nan=-torch.inf)
    return torch.where(gain >= _RELUCTANCE * (1 - powers), powers, 1.0).amin(-1)


def _log_evidence(
    x: Float[Tensor, "r n d"], y: Float[Tensor, "r w n"], mask: Bool[Tensor, "r n"]
) -> Float[Tensor, "r w"]:
    """Log marginal likelihood of centred values as a Gaussian process, up to a constant.

    One lengthscale for all dimensions and one ratio of the noise variance to the outputscale are
    averaged over, with the weights of their priors; the outputscale is the most likely one.
    """
    log_lengthscale, log_noise = (
        torch.tensor(axis, dtype=DTYPE, device=x.device) for axis in (_LENGTHSCALES, _NOISES)
    )
    lengthscale, noise = log_lengthscale.exp(), log_noise.exp()
    weight = _log_normal(log_lengthscale, *_LENGTHSCALE)[:, None] + _log_normal(log_noise, *_NOISE)
    squared = squared_distances(*[(x - 0.5) / math.sqrt(x.shape[-1])] * 2)
    count = mask.sum(-1).to(DTYPE)[:, None, None, None]
    diagonal = torch.where(mask[:, None, None], noise[:, None], 1.0)

    def part(runs: slice, some: slice) -> tuple[Tensor]:
        present, residual = mask[runs, None], y[runs, None, None].mT
        scaled = squared[runs, None] / lengthscale[some, None, None].square()
        correlation = matern(scaled, 2.5) * (present[..., None] & present[..., None, :])
        each = correlation[:, :, None].expand(-1, -1, len(noise), -1, -1)
        factor, succeeded = cholesky(add_diagonal(each, diagonal[runs]))
        whitened = torch.linalg.solve_triangular(factor, residual, upper=False)
        outputscale = whitened.square().sum(-2) / count[runs]
        log_determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        fit = -0.5 * count[runs] * outputscale.log() - log_determinant[..., None]
        return (torch.where(succeeded[..., None], fit, -torch.inf),)

    matrix_bytes = len(noise) * x.shape[1] ** 2 * x.element_size()
    with settings_for(x.device):
        (each,) = in_parts(part, x.shape[0], len(lengthscale), matrix_bytes, x.device)
    return (each + weight[..., None]).logsumexp((-3, -2))


def _log_normal(u: Float[Tensor, " j"], mean: float, deviation: float) -> Float[Tensor, " j"]:
    """The log density of a normal number, up to a constant."""
    return -0.5 * ((u - mean) / deviation).square()


def centred(
    values: Float[Tensor, "*r n"], mask: Bool[Tensor, "*r n"]
) -> tuple[Float[Tensor, "*r n"], Float[Tensor, "*r"], Float[Tensor, "*r"]]:
    """Unmasked values less their mean, 0 elsewhere; the mean; the population standard deviation."""
    count = mask.sum(-1).clamp(min=1).to(DTYPE)
    mean = torch.where(mask, values, 0.0).sum(-1) / count
    centred = torch.where(mask, values - mean.unsqueeze(-1), 0.0)
    return centred, mean, (centred.square().sum(-1) / count).sqrt()

"""Convergence of chains: rank-normalised split R-hat, bulk and tail effective sample sizes.

Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021), "Rank-normalization, folding, and
localization: an improved R-hat"; equation numbers are theirs. Everything is batched: draws
``[*b, c, t]`` of ``c`` chains with ``t`` draws give one number for each of ``*b``.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def rank_rhat(draws: Float[Tensor, "*b c t"]) -> Float[Tensor, "*b"]:
    """The larger of the bulk and the folded R-hat of rank-normalised split chains (section 4).

    1 at convergence. NaN where chains are too short to be split (``t < 4``); 1 where all draws
    are the same.
    """
    if draws.shape[-1] < 4:
        return draws.new_full(draws.shape[:-2], torch.nan)
    split = _split(draws)
    ordered = split.flatten(-2).sort(dim=-1).values
    middle = ordered.shape[-1] // 2
    median = 0.5 * (ordered[..., middle - 1] + ordered[..., middle])[..., None, None]
    folded = (split - median).abs()
    return torch.maximum(_rhat(_normal_scores(split)), _rhat(_normal_scores(folded)))


def bulk_ess(draws: Float[Tensor, "*b c t"]) -> Float[Tensor, "*b"]:
    """Effective sample size of the rank-normalised draws: for means and medians.

    NaN, like `tail_ess`, if half a chain is too short for it (``t < 6``).
    """
    return _ess(_normal_scores(_split(draws)))


def tail_ess(draws: Float[Tensor, "*b c t"]) -> Float[Tensor, "*b"]:
    """The smaller effective sample size of the 5 % and 95 % quantiles."""
    flat = draws.flatten(-2)
    quantiles = torch.tensor([0.05, 0.95], dtype=draws.dtype, device=draws.device)
    low, high = torch.quantile(flat, quantiles, dim=-1)[..., None, None]
    below = (draws <= low).to(draws)
    above = (draws <= high).to(draws)
    return torch.minimum(_ess(_split(below)), _ess(_split(above)))


def _split(draws: Float[Tensor, "*b c t"]) -> Float[Tensor, "*b c2 half"]:
    """Every chain cut in two; the middle draw of an odd number is left out."""
    half = draws.shape[-1] // 2
    return torch.cat([draws[..., :half], draws[..., draws.shape[-1] - half :]], dim=-2)


def _normal_scores(draws: Float[Tensor, "*b c t"]) -> Float[Tensor, "*b c t"]:
    """Normal quantiles of the fractional ranks (equation 14); ties share their mean rank."""
    flat = draws.flatten(-2)
    ordered = flat.sort(dim=-1).values.contiguous()
    below = torch.searchsorted(ordered, flat.contiguous(), right=False)
    up_to = torch.searchsorted(ordered, flat.contiguous(), right=True)
    rank = 0.5 * (below + up_to + 1).to(draws)
    scores = torch.special.ndtri((rank - 0.375) / (flat.shape[-1] + 0.25))
    return scores.reshape(draws.shape)


def _rhat(draws: Float[Tensor, "*b c t"]) -> Float[Tensor, "*b"]:
    """Equations 1 to 4."""
    count = draws.shape[-1]
    between = draws.mean(-1).var(-1)
    within = draws.var(-1).mean(-1)
    ratio = torch.sqrt((count - 1) / count + between / within)
    return torch.where((within <= 0) & (between <= 0), 1.0, ratio)


def _ess(draws: Float[Tensor, "*b c t"]) -> Float[Tensor, "*b"]:
    """Equations 10 to 13: Geyer's initial monotone sequence on the combined autocorrelation."""
    chains, count = draws.shape[-2:]
    total = chains * count
    if count < 3:
        return draws.new_full(draws.shape[:-2], torch.nan)
    covariance = _autocovariance(draws)
    within = (covariance[..., 0] * count / (count - 1)).mean(-1)
    between = draws.mean(-1).var(-1)
    pooled = within * (count - 1) / count + between
    correlation = 1 - (within[..., None] - covariance.mean(-2)) / pooled[..., None]
    correlation[..., 0] = 1.0
    # Sums of neighbouring lags are positive and decrease for a reversible chain; the last two
    # lags have hardly any data and are not used.
    pairs = correlation[..., : 2 * ((count - 1) // 2)].unflatten(-1, (-1, 2))
    sums = pairs.sum(-1)
    positive = (sums > 0).cumprod(-1)
    first_out = positive.sum(-1, keepdim=True).clamp_max(sums.shape[-1] - 1)
    kept = torch.arange(sums.shape[-1], device=draws.device) < first_out
    monotone = torch.cummin(sums, dim=-1).values * kept
    # Of the first pair left out, the even lag counts once: where it is positive, or where the pair
    # is only left out because the chain ends there.
    even = pairs[..., 0].gather(-1, first_out)[..., 0]
    at_end = sums.gather(-1, first_out)[..., 0] >= 0
    rest = torch.where(at_end, even, even.clamp_min(0.0))
    time = (-1 + 2 * monotone.sum(-1) + rest).clamp_min(1 / math.log10(total))
    ess = total / time
    return torch.where(pooled <= 0, float(total), ess)


def _autocovariance(draws: Float[Tensor, "*b c t"]) -> Float[Tensor, "*b c t"]:
    """Biased autocovariance of every chain at all lags, by the fast Fourier transform."""
    count = draws.shape[-1]
    centered = draws - draws.mean(-1, keepdim=True)
    spectrum = torch.fft.rfft(centered, n=2 * count, dim=-1)
    power = spectrum.real.square() + spectrum.imag.square()
    return torch.fft.irfft(power, n=2 * count, dim=-1)[..., :count] / count

"""Batched factorisations whose failures stay in their own row."""

from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

#: Jitters tried in turn, relative to the mean diagonal of the matrix.
JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)
#: Columns of a product with a triangular matrix that are computed at once: the smaller the blocks,
#: the fewer products with zeros, and the slower each of them.
_BLOCK = 256


def cholesky(
    matrix: Float[Tensor, "*b n n"],
) -> tuple[Float[Tensor, "*b n n"], Bool[Tensor, "*b"]]:
    """Lower factors, and which rows have one; no jitter and no exception.

    The factor of a failed row is meaningless, but its diagonal is NaN: an exact 0 there would make
    ``cholesky_inverse`` raise for the whole batch. Nothing here waits for the device.
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    # On CUDA the matrix may be NaN, and info 0 (https://github.com/pytorch/pytorch/issues/64818).
    failed = (info != 0) | ~diagonal.isfinite().all(-1)
    diagonal.masked_fill_(failed[..., None], torch.nan)
    return factor, ~failed


def jittered_cholesky(
    matrix: Float[Tensor, "*b n n"],
) -> tuple[Float[Tensor, "*b n n"], Float[Tensor, "*b"], Bool[Tensor, "*b"]]:
    """Lower factors with the least of ``JITTERS`` that lets each row succeed.

    Returns:
        The factors, the absolute jitter added to each row's diagonal, and which rows succeeded;
        a row fails only where its matrix is not finite or far from positive definite.
    """
    scale = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)
    jitter = torch.zeros_like(scale)
    factor, succeeded = cholesky(matrix)
    for relative in JITTERS[1:]:
        if bool(succeeded.all()):
            break
        jitter = torch.where(succeeded, jitter, relative * scale)
        factor, succeeded = cholesky(add_diagonal(matrix, jitter[..., None]))
    return factor, torch.where(succeeded, jitter, torch.nan), succeeded


def add_diagonal(
    matrix: Float[Tensor, "*b n n"], values: Float[Tensor, "*#b #n"]
) -> Float[Tensor, "*b n n"]:
    """A copy of ``matrix`` with ``values`` added to its diagonal."""
    result = matrix.clone()
    result.diagonal(dim1=-2, dim2=-1).add_(values)
    return result


def inverse_lower(factor: Float[Tensor, "*b n n"]) -> Float[Tensor, "*b n n"]:
    """The inverse of a lower triangular factor.

    One triangular solve against the identity; products with the result are then plain batched
    matrix products, which is many times faster on a GPU than ``cholesky_inverse`` and solves.
    """
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)


def inverse_from_factor(factor: Float[Tensor, "k n n"]) -> Float[Tensor, "k n n"]:
    """``(L L')^-1`` from ``L``.

    LAPACK's ``potri`` does least work on a CPU; on a GPU it runs one matrix after the other,
    and a batched triangular solve and product are several times faster.
    """
    if factor.device.type == "cpu":
        return torch.cholesky_inverse(factor)
    inverse = inverse_lower(factor)
    return torch.bmm(inverse.mT, inverse)


def times_lower(
    rows: Float[Tensor, "*b q n"], lower: Float[Tensor, "*b n n"]
) -> Float[Tensor, "*b q n"]:
    """``rows @ lower``, without most of the products with the zeros above the diagonal."""
    products = [rows[..., a:] @ lower[..., a:, a:b] for a, b in _blocks(lower.shape[-1])]
    return products[0] if len(products) == 1 else torch.cat(products, dim=-1)


def times_lower_transposed(
    rows: Float[Tensor, "*b q n"], lower: Float[Tensor, "*b n n"]
) -> Float[Tensor, "*b q n"]:
    """``rows @ lower.mT``, likewise."""
    products = [rows[..., :b] @ lower[..., a:b, :b].mT for a, b in _blocks(lower.shape[-1])]
    return products[0] if len(products) == 1 else torch.cat(products, dim=-1)


def _blocks(size: int) -> list[tuple[int, int]]:
    """Where the equal blocks of this many columns begin and end."""
    count = max(1, -(-size // _BLOCK))
    edges = [size * block // count for block in range(count + 1)]
    return list(pairwise(edges))


def append_inverse_lower(
    inverse: Float[Tensor, "*b n n"],
    cross: Float[Tensor, "*b m n"],
    corner: Float[Tensor, "*b m m"],
) -> Float[Tensor, "*b n+m n+m"]:
    """The inverse factor of a matrix bordered by ``m`` rows, from that of its leading block.

    With ``[[A, B'], [B, C]] = L L'``: ``L21 = B L11^-T``, ``L22 = chol(C - L21 L21')``, so the
    inverse of ``L`` is ``[[L11^-1, 0], [-L22^-1 L21 L11^-1, L22^-1]]``.

    Args:
        inverse: ``L11^-1``.
        cross: ``B``.
        corner: ``C``.
    """
    off_diagonal = times_lower_transposed(cross, inverse)
    factor, _, succeeded = jittered_cholesky(corner - off_diagonal @ off_diagonal.mT)
    corner_inverse = torch.where(succeeded[..., None, None], inverse_lower(factor), 0.0)
    below = times_lower(-corner_inverse @ off_diagonal, inverse)
    lower = torch.cat([below, corner_inverse], dim=-1)
    upper = torch.cat([inverse, torch.zeros_like(cross).mT], dim=-1)
    return torch.cat([upper, lower], dim=-2)

"""Batched factorisations against dense linear algebra; failures stay in their row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.linalg import (
    JITTERS,
    add_diagonal,
    append_inverse_lower,
    cholesky,
    inverse_from_factor,
    inverse_lower,
    jittered_cholesky,
    times_lower,
    times_lower_transposed,
)
from tests.monte_carlo import random_normal

N, M = 7, 3


def positive_definite(*shape: int, seed: int = 0) -> Tensor:
    """Random covariances with eigenvalues of at least 0.1."""
    root = random_normal(seed, *shape, shape[-1])
    return root @ root.mT + 0.1 * torch.eye(shape[-1], dtype=DTYPE)


def with_smallest_eigenvalue(value: float, size: int = N) -> Tensor:
    """A matrix with eigenvalues 1, ..., 1 and ``value``."""
    basis, _ = torch.linalg.qr(random_normal(5, size, size))
    eigenvalues = torch.ones(size, dtype=DTYPE)
    eigenvalues[0] = value
    return (basis * eigenvalues) @ basis.mT


# --- plain factors


def test_factors_are_lower_and_multiply_to_the_matrix() -> None:
    matrix = positive_definite(2, 5, N)
    factor, succeeded = cholesky(matrix)
    assert succeeded.shape == (2, 5)
    assert bool(succeeded.all())
    assert torch.equal(factor, factor.tril())
    torch.testing.assert_close(factor @ factor.mT, matrix, rtol=1e-13, atol=1e-13)


def bad_matrices() -> dict[str, Tensor]:
    poisoned, late = torch.eye(N, dtype=DTYPE), torch.eye(N, dtype=DTYPE)
    poisoned[:] = torch.nan
    late[-1, -1] = torch.nan
    return {
        "nan": poisoned,
        "late nan": late,
        "infinite": torch.full((N, N), torch.inf, dtype=DTYPE),
        "negative": -torch.eye(N, dtype=DTYPE),
        "singular": torch.zeros(N, N, dtype=DTYPE),
    }


@pytest.mark.parametrize("kind", ["nan", "late nan"])
def test_a_matrix_of_nan_fails_where_the_library_says_nothing_of_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA: a factor of NaN, and no sign of it."""
    factorise = torch.linalg.cholesky_ex

    def silent(matrix: Tensor) -> tuple[Tensor, Tensor]:
        factor, info = factorise(matrix)
        return torch.where(info[..., None, None] > 0, torch.nan, factor), torch.zeros_like(info)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", silent)
    matrix = torch.stack([torch.eye(N, dtype=DTYPE), bad_matrices()[kind]])
    assert cholesky(matrix)[1].tolist() == [True, False]


@pytest.mark.parametrize("kind", bad_matrices())
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_matrix_without_factor_fails_alone(kind: str, place: int) -> None:
    good = positive_definite(2, N)
    matrix = torch.stack([*good[:place], bad_matrices()[kind], *good[place:]])
    factor, succeeded = cholesky(matrix)
    others = [row for row in range(3) if row != place]
    assert succeeded.tolist() == [row != place for row in range(3)]
    torch.testing.assert_close(factor[others], torch.linalg.cholesky(good), rtol=0, atol=1e-13)
    # Whatever a failed factor holds, what comes next must not raise for the whole batch.
    for invert in (inverse_lower, inverse_from_factor):
        inverse, alone = invert(factor), invert(torch.linalg.cholesky(good))
        torch.testing.assert_close(inverse[others], alone, rtol=0, atol=1e-11)


# --- the ladder of jitters


def test_a_positive_definite_matrix_gets_no_jitter() -> None:
    matrix = positive_definite(2, 5, N)
    factor, jitter, succeeded = jittered_cholesky(matrix)
    assert torch.equal(factor, torch.linalg.cholesky(matrix))
    assert jitter.tolist() == [[0.0] * 5] * 2
    assert bool(succeeded.all())


@pytest.mark.parametrize("step", range(1, len(JITTERS)))
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e12])
def test_the_least_jitter_that_helps_is_added(step: int, scale: float) -> None:
    # The eigenvalue is between the last jitter that is too small and the one that is enough.
    deficit = (JITTERS[step - 1] or 1e-13) * 3
    matrix = scale * with_smallest_eigenvalue(-deficit)
    factor, jitter, succeeded = jittered_cholesky(matrix)
    assert bool(succeeded)
    mean_diagonal = float(matrix.diagonal().mean())
    assert float(jitter) == pytest.approx(JITTERS[step] * mean_diagonal, rel=1e-12, abs=0)
    expected = matrix + jitter * torch.eye(N, dtype=DTYPE)
    torch.testing.assert_close(factor @ factor.mT, expected, rtol=0, atol=1e-14 * scale)


def test_every_row_climbs_its_own_ladder() -> None:
    rows = [
        with_smallest_eigenvalue(-3e-9),
        with_smallest_eigenvalue(0.5),
        1e6 * with_smallest_eigenvalue(-3e-7),
        with_smallest_eigenvalue(-0.5),
        torch.full((N, N), torch.nan, dtype=DTYPE),
    ]
    factor, jitter, succeeded = jittered_cholesky(torch.stack(rows))
    assert succeeded.tolist() == [True, True, True, False, False]
    for row, matrix in enumerate(rows):
        alone_factor, alone_jitter, _ = jittered_cholesky(matrix)
        if succeeded[row]:
            assert torch.equal(factor[row], alone_factor)
        torch.testing.assert_close(jitter[row], alone_jitter, rtol=0, atol=0, equal_nan=True)
    assert jitter.isnan().tolist() == [False, False, False, True, True]


def test_the_ladder_leaves_its_argument_alone() -> None:
    matrix = with_smallest_eigenvalue(-3e-9)
    before = matrix.clone()
    jittered_cholesky(matrix)
    add_diagonal(matrix, torch.ones(N, dtype=DTYPE))
    assert torch.equal(matrix, before)


@pytest.mark.parametrize("shape", [(2, 5, N), (2, 5, 1), (2, 1, N), (1, 1, 1)])
def test_a_diagonal_is_added_to_every_row(shape: tuple[int, ...]) -> None:
    matrix, values = random_normal(0, 2, 5, N, N), random_normal(1, *shape)
    expected = matrix + torch.diag_embed(values.expand(2, 5, N))
    torch.testing.assert_close(add_diagonal(matrix, values), expected, rtol=0, atol=0)


# --- inverses


def test_the_inverse_of_a_factor() -> None:
    factor = torch.linalg.cholesky(positive_definite(2, 5, N))
    inverse = inverse_lower(factor)
    assert torch.equal(inverse, inverse.tril())
    identity = torch.eye(N, dtype=DTYPE).expand_as(factor)
    torch.testing.assert_close(inverse @ factor, identity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [0, 1, 7, 255, 256, 257, 512, 769])
def test_products_with_a_triangular_matrix(size: int) -> None:
    rows, lower = random_normal(1, 2, 5, 3, size), random_normal(2, 2, 5, size, size).tril()
    product, transposed = times_lower(rows, lower), times_lower_transposed(rows, lower)
    torch.testing.assert_close(product, rows @ lower, rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(transposed, rows @ lower.mT, rtol=1e-12, atol=1e-11)


def test_little_of_what_is_above_the_diagonal_is_multiplied() -> None:
    lower = torch.ones(1024, 1024, dtype=DTYPE).tril()
    lower[:256, 256:], lower[512:768, 768:] = torch.nan, torch.nan
    rows = torch.ones(3, 1024, dtype=DTYPE)
    assert torch.equal(times_lower(rows, lower), rows @ lower.nan_to_num())
    assert torch.equal(times_lower_transposed(rows, lower), rows @ lower.nan_to_num().mT)


def test_the_inverse_of_a_matrix_from_its_factor() -> None:
    matrix = positive_definite(5, N)
    inverse = inverse_from_factor(torch.linalg.cholesky(matrix))
    torch.testing.assert_close(inverse, torch.linalg.inv(matrix), rtol=1e-11, atol=1e-11)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(0, 7), m=st.integers(0, 3), seed=st.integers(0, 2**32))
def test_appended_rows_give_the_factor_of_the_whole(n: int, m: int, seed: int) -> None:
    matrix = positive_definite(2, 5, n + m, seed=seed)
    inverse = inverse_lower(torch.linalg.cholesky(matrix[..., :n, :n]))
    appended = append_inverse_lower(inverse, matrix[..., n:, :n], matrix[..., n:, n:])
    whole = inverse_lower(torch.linalg.cholesky(matrix))
    torch.testing.assert_close(appended, whole, rtol=1e-10, atol=1e-10)


def test_appended_rows_that_repeat_known_ones_get_a_jitter() -> None:
    matrix = positive_definite(N)
    inverse = inverse_lower(torch.linalg.cholesky(matrix))
    appended = append_inverse_lower(inverse, matrix[:M], matrix[:M, :M])
    assert bool(appended.isfinite().all())
    torch.testing.assert_close(appended[:N, :N], inverse, rtol=0, atol=0)


def test_a_border_that_fails_says_nothing_and_fails_alone() -> None:
    matrix = positive_definite(2, N + M)
    corner = matrix[:, N:, N:].clone()
    corner[1] = -corner[1]
    inverse = inverse_lower(torch.linalg.cholesky(matrix[:, :N, :N]))
    appended = append_inverse_lower(inverse, matrix[:, N:, :N], corner)
    alone = append_inverse_lower(inverse[:1], matrix[:1, N:, :N], corner[:1])
    torch.testing.assert_close(appended[:1], alone, rtol=1e-14, atol=1e-14)
    assert torch.equal(appended[1, :N, :N], inverse[1])
    assert not bool(appended[1, N:].any())

"""That types and shapes are checked, of what is defined anew with every call too."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from gpbo.kernels import squared_distances
from tests.typechecker import checked


def weighted(weights: Tensor) -> Callable[[Tensor, int], object]:
    """Defined anew with every call."""

    @jaxtyped(typechecker=checked)
    def inner(x: Float[Tensor, "b d"], times: int) -> Float[Tensor, "b"]:
        return x @ weights if times else None  # type: ignore[return-value]

    return inner


@pytest.mark.parametrize("again", range(2))
def test_arguments_and_results_are_checked_in_every_definition(again: int) -> None:
    assert weighted(torch.ones(3))(torch.ones(2, 3), 1) is not None
    for weights, x, times in (
        (torch.ones(3), torch.ones(3), 1),
        (torch.ones(3), torch.ones(2, 3), "1"),
        (torch.ones(3), torch.ones(2, 3), 0),
        (torch.ones(3, 2), torch.ones(2, 3), 1),
        (torch.ones(3), torch.ones(2, 3, dtype=torch.int64), 1),
    ):
        with pytest.raises(TypeCheckError):
            weighted(weights)(x, times)  # type: ignore[arg-type]


def test_a_result_has_the_axes_of_the_arguments() -> None:
    @jaxtyped(typechecker=checked)
    def cut(x: Float[Tensor, "b d"], count: int) -> Float[Tensor, "b d"]:
        return x[:count]

    assert cut(torch.ones(5, 3), 5).shape == (5, 3)
    with pytest.raises(TypeCheckError):
        cut(torch.ones(5, 3), 4)


def test_the_package_is_checked() -> None:
    with pytest.raises(TypeCheckError):
        squared_distances(torch.ones(2, 3), [1.0])  # type: ignore[arg-type]

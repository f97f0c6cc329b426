"""That types and shapes are checked, of what is defined anew with every call too."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from gpbo.kernels import squared_distances
from tests.typechecker import EVERY, FIRST, checked, sparingly, start_anew


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


def test_of_many_calls_the_first_are_checked_and_some_of_the_others() -> None:
    @sparingly(typechecker=checked)
    def doubled(x: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        return 2 * x

    def refused(calls: int) -> int:
        count = 0
        for _ in range(calls):
            try:
                doubled(torch.ones(2, 3))
            except TypeCheckError:
                count += 1
        return count

    assert refused(FIRST) == FIRST
    assert refused(2 * EVERY) == 2
    start_anew()
    assert refused(FIRST) == FIRST


def test_all_definitions_of_a_nested_function_are_counted_together() -> None:
    def checks() -> int:
        @sparingly(typechecker=noted)
        def inner(x: Float[Tensor, "b"]) -> None:
            pass

        before = len(seen)
        inner(torch.ones(2))
        return len(seen) - before

    seen = []

    def noted(function: Callable[..., object]) -> Callable[..., object]:
        seen.append(function)
        return checked(function)

    assert all(checks() for _ in range(FIRST))
    assert not any(checks() for _ in range(EVERY - FIRST - 1))
    assert checks()

"""Stands in for jaxtyping on a machine without it: shapes are said, and nothing checks them."""

from typing import Any


class Shaped:
    """``Float[Tensor, "r n"]`` is ``Tensor``."""

    def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
        return item[0]


Bool = Float = Int = Num = Shaped

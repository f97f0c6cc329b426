"""What values are penalties, in words of one value at a time."""

from collections.abc import Sequence
from itertools import pairwise


def without_penalties(values: Sequence[float]) -> list[float]:
    """Penalties replaced by the worst value that is none."""
    best, ordered = min(values), sorted(values)
    for count, (last, following) in enumerate(pairwise(ordered), start=1):
        gap = last - best
        is_enough = count >= max(4, len(values) / 2)
        is_spread = 0 < gap >= 1e-6 * max(abs(best), abs(last))
        if is_enough and is_spread and following - best > 1e4 * gap:
            return [min(value, last) for value in values]
    return list(values)

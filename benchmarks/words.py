"""Figures, tables and machines in words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def pipes(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A Markdown table; columns that begin with a digit or a sign are aligned to the right."""
    cells = [[str(cell) for cell in line] for line in lines]
    columns = zip(*cells, strict=True) if cells else [()] * len(header)
    rule = ["--:" if all(map(_is_figure, column)) else ":--" for column in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *cells])


def _is_figure(cell: str) -> bool:
    return not cell or cell.lstrip("*-")[:1] in "0123456789∞"


def number(value: float) -> str:
    """A number to three digits; infinite ones are written as such, unknown ones left empty."""
    if np.isnan(value):
        return ""
    return "∞" if np.isinf(value) else f"{value:.3g}"


def counted(count: int, name: str) -> str:
    """A count of these: ``1 seed``, ``2 seeds``."""
    return f"{count} {name}{'' if count == 1 else 's'}"


def beaten(least: float, optimum: float) -> str:
    """The note on a problem with values below its stated optimum."""
    return f"a value of {least:.6g} is below optimum={optimum:.6g}, so its regret is wrong"


def where(header: Mapping[str, Any]) -> str:
    """Commit, machine and versions."""
    versions = ", ".join(f"{name} {found}" for name, found in header["versions"].items())
    return (
        f"Commit {header['commit']}, {header['date']}; {header['processor']}, {header['cores']} "
        f"cores, {header['gpu'] or 'no GPU'}; Python {header['python']}, {versions}."
    )

"""Benchmark problems whose values are other ones, or that fail."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from gpbo.problems import Problem


def changed(problem: Problem, change: Callable[[Tensor, Tensor], Tensor]) -> Problem:
    """The problem with other values, from the points in user units and its own values."""
    function = problem.function
    return replace(problem, function=lambda x: change(x, function(x)))


def failing(problem: Problem) -> Problem:
    """A third of the box has no value."""
    return changed(problem, lambda x, y: torch.where(x[..., 0] < 0.3, math.nan, y))

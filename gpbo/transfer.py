"""Warm start: what finished jobs teach a new one."""

from typing import Literal, get_args

from gpbo.errors import InvalidData, InvalidOption, InvalidParams
from gpbo.optimizer import Optimizer, best_of
from gpbo.storage import Record

Kind = Literal["same", "transfer"]

#: The most jobs that a new one starts from.
LARGEST_START = 5


def warm_start(optimizer: Optimizer, parent: Record, kind: Kind = "same") -> int:
    """Let an optimizer that has asked nothing yet learn from a finished job.

    Args:
        parent: A stored job; values that its space does not share are left out.
        kind: ``"same"``: it measured the same, so its results are results; ``"transfer"``: it
            measured something related, so its values say nothing but its best configuration
            is the first that is asked.

    Returns:
        How many of its configurations are used.

    Raises:
        InvalidOption: another kind.
        InvalidData: the parent has no result, or none in this space.
    """
    if kind not in get_args(Kind):
        raise InvalidOption(f"kind={kind!r}: expected 'same' or 'transfer'")
    usable = []
    for trial in parent.trials:
        try:
            params = optimizer.space.validate(trial.params)
        except InvalidParams:
            continue
        if trial.value is not None:
            usable.append((trial, params))
    if not usable:
        raise InvalidData(f"job {parent.name!r} has no result in this space: expected one or more")
    if kind == "same":
        for trial, params in usable:
            optimizer.add(params, trial.value)
        return len(usable)
    best = best_of([trial for trial, _ in usable], parent.spec["direction"])
    optimizer.enqueue(next(params for trial, params in usable if trial is best))
    return 1

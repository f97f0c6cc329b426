"""Warm start: what finished jobs teach a new one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from gpbo.checks import one_of
from gpbo.constraints import quantities
from gpbo.errors import InvalidData, InvalidOption, InvalidParams
from gpbo.optimizer import Optimizer
from gpbo.record import Record
from gpbo.space import Space
from gpbo.trial import Trial, best_of

Kind = Literal["same", "transfer"]

#: The most jobs that a new one starts from.
LARGEST_START = 5


def warm_start(optimizer: Optimizer, parents: Sequence[tuple[Record, Kind]]) -> int:
    """Let an optimizer that has asked nothing yet learn from finished jobs, from all or from none.

    Args:
        parents: Up to five stored jobs, each with its kind. ``"same"``: it measured the same, so
            its results are added as they are. ``"transfer"``: it measured something related, so
            its values are not used, but its best configuration is asked first. Trials that are not
            in the optimizer's space, have no value, or, of the first kind, lack a quantity of its
            constraints are left out.

    Returns:
        How many of their configurations are used.

    Raises:
        InvalidOption: a kind is neither of these, or there are more than five jobs.
        InvalidData: a job has no such trial.
    """
    if len(parents) > LARGEST_START:
        raise InvalidOption(f"{len(parents)} jobs to start from: expected {LARGEST_START} or fewer")
    results: list[Sequence[Any]] = []
    queue: list[dict[str, Any]] = []
    for parent, kind in parents:
        one_of("kind", kind, get_args(Kind))
        usable = _usable(optimizer.space, parent)
        if kind == "same":
            results += _results(usable, optimizer, parent.name)
        else:
            best = best_of(usable, parent.spec["direction"])
            queue += [] if best is None else [dict(best.params)]
    optimizer.learn(results, queue)
    return len(results) + len(queue)


def _results(trials: Sequence[Trial], optimizer: Optimizer, parent: str) -> list[Sequence[Any]]:
    """What these trials tell an optimizer, with the quantities of its constraints."""
    names = quantities(optimizer.constraints)
    measured = [trial for trial in trials if trial.measured.keys() >= {*names}]
    if not measured:
        raise InvalidData(
            f"job {parent!r} has no result with {', '.join(map(repr, names))}: expected "
            "one or more, for the constraints"
        )
    return [(t.params, t.value, {name: t.measured[name] for name in names}) for t in measured]


def started_from(record: Record, space: Space, parent: Record, kind: Kind) -> bool:
    """Whether a stored job holds anything that `warm_start` would have had from this parent.

    The parent may have gone on since: it has what it had then, and may have more.
    """
    try:
        usable = _usable(space, parent)
    except InvalidData:
        return False
    if kind == "same":
        added = {(space.key(t.params), t.value) for t in record.trials if t.origin == "added"}
        return any((space.key(trial.params), trial.value) in added for trial in usable)
    enqueued = [trial.params for trial in record.trials if trial.origin == "enqueued"]
    asked = {*map(space.key, [*enqueued, *record.queue])}
    return any(space.key(trial.params) in asked for trial in usable)


def _usable(space: Space, parent: Record) -> list[Trial]:
    """The trials of a job that have a value and a configuration of this space."""
    usable = []
    for trial in parent.trials:
        try:
            params = space.validate(trial.params)
        except InvalidParams:
            continue
        if trial.value is not None:
            usable.append(replace(trial, params=params))
    if not usable:
        raise InvalidData(f"job {parent.name!r} has no result in this space: expected one or more")
    return usable

"""Warm start: let a new job learn from finished ones."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, get_args

from gpbo.checks import one_of
from gpbo.constraints import quantities
from gpbo.errors import InvalidData, InvalidOption, InvalidParams
from gpbo.optimizer import Optimizer
from gpbo.record import Record
from gpbo.space import Space
from gpbo.trial import Trial, best_shown

StartKind = Literal["same", "transfer"]

#: The most jobs that a new one starts from.
LARGEST_START = 5


def warm_start(
    optimizer: Optimizer,
    parents: Sequence[tuple[Record, StartKind]],
    queue: Sequence[Mapping[str, Any]] = (),
) -> int:
    """Let an optimizer that has asked nothing yet learn from finished jobs: from all, or none.

    Args:
        parents: Up to five stored jobs, each with its kind. ``"same"``: it measured the same, so
            its results are added as they are. ``"transfer"``: it measured something related, so
            its values are not used, but its best configuration is asked first (the one with the
            best value if none meets the constraints). Trials are left out if they are not in the
            optimizer's space, have no value or, with ``"same"``, lack a quantity of its
            constraints. Results that several jobs share because one started from another count
            once, and each configuration is asked once.
        queue: Configurations to ask before those of the jobs; see `gpbo.Optimizer.enqueue`.

    Returns:
        How many of the jobs' configurations are used.

    Raises:
        InvalidOption: a kind is neither of these, or there are more than five jobs.
        InvalidData: a job has no such trial.
    """
    if len(parents) > LARGEST_START:
        raise InvalidOption(f"{len(parents)} jobs to start from: expected at most {LARGEST_START}")
    space, names = optimizer.space, quantities(optimizer.constraints)
    measured: list[list[Trial]] = []
    best_of_jobs: dict[Hashable, dict[str, Any]] = {}
    for parent, kind in parents:
        one_of("kind", kind, get_args(StartKind))
        usable = _usable(space, parent)
        if kind == "same":
            measured.append(_measured(usable, names, parent.name))
        elif best := best_shown(usable, parent.spec["direction"]):
            best_of_jobs.setdefault(space.key(best.params), dict(best.params))
    results = [
        (trial.params, trial.value, {name: trial.measured[name] for name in names})
        for trial in _counted_once(space, measured)
    ]
    optimizer.learn(results, [*queue, *best_of_jobs.values()])
    return len(results) + len(best_of_jobs)


def _measured(trials: Sequence[Trial], names: Sequence[str], parent: str) -> list[Trial]:
    """The job's trials that have the quantities of the constraints."""
    measured = [trial for trial in trials if trial.measured.keys() >= {*names}]
    if not measured:
        raise InvalidData(
            f"job {parent!r} has no result with {', '.join(map(repr, names))}, which the "
            "constraints limit: expected at least one"
        )
    return measured


def _counted_once(space: Space, jobs: Sequence[Sequence[Trial]]) -> list[Trial]:
    """The trials of all jobs, without results that one of them has from another."""
    results = [
        (number, trial, (space.key(trial.params), trial.value))
        for number, trials in enumerate(jobs)
        for trial in trials
    ]
    sources: dict[Hashable, int] = {}
    for number, _, result in sorted(results, key=lambda one: one[1].added):
        sources.setdefault(result, number)  # the job that measured it before one that was told
    return [
        trial for number, trial, result in results if not trial.added or sources[result] == number
    ]


def started_from(record: Record, space: Space, parent: Record, kind: StartKind) -> bool:
    """Whether a stored job holds anything that `warm_start` would have taken from this parent.

    The parent may have continued since: it has what it had then, and may have more.
    """
    try:
        usable = _usable(space, parent)
    except InvalidData:
        return False
    if kind == "same":
        added = {(space.key(t.params), t.value) for t in record.trials if t.added}
        return any((space.key(trial.params), trial.value) in added for trial in usable)
    enqueued = ever_enqueued(record.trials, record.queue)
    asked = {space.key(params) for params in enqueued if len(params) == len(space.names)}
    if any(space.key(trial.params) in asked for trial in usable):
        return True
    # If no trial of the parent met its constraints, earlier versions took nothing from it.
    return not any(trial.feasible for trial in usable)


def ever_enqueued(
    trials: Sequence[Trial], queue: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """What was ever enqueued: asked entries as whole configurations, waiting ones as they are."""
    return [*(trial.params for trial in trials if trial.origin == "enqueued"), *queue]


def _usable(space: Space, parent: Record) -> list[Trial]:
    """The trials of a job that have a value and a configuration of this space."""
    usable = []
    for trial in parent.trials:
        try:
            space.validate(trial.params)
        except InvalidParams:
            continue
        if trial.value is not None:
            usable.append(trial)
    if not usable:
        raise InvalidData(f"job {parent.name!r} has no result in this space: expected at least one")
    return usable

"""The trials of one optimization: what was asked, told and failed, and in which order."""

import numbers
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.errors import UnknownTrial
from gpbo.fixed import holds, is_slice
from gpbo.space import Space
from gpbo.trial import Trial, TrialStatus


class History:
    """All trials, with their points, and the configurations to be asked next.

    It returns its own trials, not copies. One thread changes it at a time; others may read
    meanwhile, each list in one step.

    Attributes:
        queue: The configurations to be asked next, the first one first; parameters that one leaves
            out are chosen when it is asked.
        taken: The `Space.key` of every configuration that was asked or added, except those whose
            trials were all withdrawn.
    """

    def __init__(self, space: Space, device: torch.device) -> None:
        self._space, self._device = space, device
        self.queue: list[dict[str, Any]] = []
        self.taken: set[Hashable] = set()
        self._trials: dict[int, Trial] = {}
        self._points: dict[int, Tensor] = {}  # in the unit cube, on the device
        self._ended: dict[int, None] = {}  # in the order in which they ended

    def copy(self) -> "History":
        """The same trials, for another optimizer to continue from."""
        twin = History(self._space, self._device)
        for name in ("queue", "taken", "_trials", "_points", "_ended"):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    def __len__(self) -> int:
        return len(self._trials)

    @property
    def trials(self) -> list[Trial]:
        """All trials, by id."""
        return list(self._trials.values())

    @property
    def pending(self) -> list[Trial]:
        """The trials without a result, by id."""
        return [trial for trial in self.trials if trial.status is TrialStatus.PENDING]

    @property
    def ended(self) -> list[Trial]:
        """The trials that were completed or failed, in the order in which they ended."""
        found = [self._trials.get(number) for number in list(self._ended)]
        return [each for each in found if each and each.status is not TrialStatus.PENDING]

    def ended_since(self, count: int) -> list[Trial]:
        """Copies of the trials that ended after the first ``count``."""
        return [replace(trial) for trial in self.ended[count:]]

    @property
    def completed(self) -> list[Trial]:
        """The trials that have a value, in the order in which the values came."""
        return [trial for trial in self.ended if trial.value is not None]

    def results(self, count: int | None = None) -> list[Trial]:
        """The first ``count`` completed trials, or all, sorted by id: so the model of the same
        results is the same to the last digit, in whatever order they came.
        """
        return sorted(self.completed[:count], key=attrgetter("id"))

    @property
    def failed(self) -> list[Trial]:
        """The trials that were run and ended without a value, by id."""
        trials = self._not_withdrawn
        return [trial for trial in trials if trial.status is TrialStatus.FAILED]

    @property
    def _not_withdrawn(self) -> list[Trial]:
        return [trial for trial in self.trials if not trial.withdrawn]

    def taken_in(self, space: Space) -> frozenset[Hashable]:
        """The taken configurations in this space, which may be a slice of the trials' space."""
        if not is_slice(space):
            return frozenset(self.taken)
        here = (each for each in self._not_withdrawn if holds(space, each.params))
        return frozenset(space.key(each.params) for each in here)

    def remember(self, trial: Trial) -> None:
        """Add a new trial, or the new state of a known one."""
        if trial.id not in self._trials:
            self._points[trial.id] = self._space.encode([trial.params])[0].to(self._device)
            self.taken.add(self._space.key(trial.params))
        if trial.status is not TrialStatus.PENDING:
            self._ended[trial.id] = None  # first: if Ctrl-C comes between, it can be told again
        self._trials[trial.id] = replace(trial)
        if trial.withdrawn and all(each.params != trial.params for each in self._not_withdrawn):
            self.taken.discard(self._space.key(trial.params))

    def restore(
        self, trials: Iterable[Trial], ended: Iterable[int], queue: Iterable[Mapping[str, Any]]
    ) -> None:
        """Start from these trials, the order in which they ended, and this queue."""
        for trial in trials:
            self.remember(trial)
        self._ended = dict.fromkeys(ended)
        self.queue = [self._space.validate(params, whole=False) for params in queue]

    def find(self, trial: object) -> Trial:
        """The known trial that corresponds to a trial, or has this id.

        Raises:
            UnknownTrial: there is none, or it has another configuration.
        """
        number = trial.id if isinstance(trial, Trial) else trial
        known = None
        if isinstance(number, numbers.Integral) and not isinstance(number, bool):
            known = self._trials.get(int(number))
        if known is None:
            raise UnknownTrial(
                f"trial={trial!r}: expected a trial of this optimizer, or its id "
                f"(it has {len(self)} trials)"
            )
        if isinstance(trial, Trial) and not _equal(trial.params, known.params):
            raise UnknownTrial(
                f"trial={trial!r}: expected a trial of this optimizer, whose trial {known.id} has "
                f"params={known.params!r}"
            )
        return known

    def points(self, trials: Sequence[Trial]) -> Float[Tensor, "n d"]:
        """The points of these trials."""
        if not trials:
            return torch.zeros(0, self._space.dim, dtype=DTYPE, device=self._device)
        return torch.stack([self._points[trial.id] for trial in trials])


def _equal(one: object, other: object) -> bool:
    """Whether these are equal; False for objects without one answer, such as an array."""
    try:
        return bool(one == other)
    except (TypeError, ValueError, RuntimeError):
        return False

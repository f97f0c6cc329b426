"""When a tuning job is done, and when a trial is not worth going on with."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gpbo.errors import InvalidOption
from gpbo.trial import Trial

Reason = Literal["runtime", "target", "no improvement"]


@dataclass(frozen=True)
class Completion:
    """What ends a job before its budget of trials is used.

    Args:
        runtime_s: Seconds since the job was first started, pauses included.
        target: A value that is good enough.
        patience: So many trials in a row, failed ones included, without an improvement.
        tolerance: Improvements by less than this share of the distance from the median value to
            the best one do not count, so that with 0.01 say the job ends when it has converged.

    Raises:
        InvalidOption: one of them is out of range.
    """

    runtime_s: float | None = None
    target: float | None = None
    patience: int | None = None
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.runtime_s is not None and not self.runtime_s > 0:
            raise InvalidOption(f"runtime_s={self.runtime_s!r}: expected a positive number")
        if self.target is not None and not math.isfinite(self.target):
            raise InvalidOption(f"target={self.target!r}: expected a finite number")
        if self.patience is not None and self.patience < 1:
            raise InvalidOption(f"patience={self.patience!r}: expected 1 or more")
        if not 0 <= self.tolerance < 1:
            raise InvalidOption(f"tolerance={self.tolerance!r}: expected 0 or more, below 1")

    def reached(self, finished: Sequence[Trial], sign: float, elapsed_s: float) -> Reason | None:
        """Which criterion is met, if one is.

        Args:
            finished: Trials in the order in which they ended.
            sign: 1 where values are minimised, -1 where they are maximised.
            elapsed_s: Seconds since the job was first started.
        """
        values = [None if t.value is None else sign * t.value for t in finished]
        valued = [value for value in values if value is not None]
        if self.target is not None and valued and min(valued) <= sign * self.target:
            return "target"
        if self.runtime_s is not None and elapsed_s >= self.runtime_s:
            return "runtime"
        if self.patience is not None and self._is_stuck(values, valued):
            return "no improvement"
        return None

    def _is_stuck(self, values: list[float | None], valued: list[float]) -> bool:
        assert self.patience is not None
        before = [value for value in values[: -self.patience] if value is not None]
        if not before:
            return False
        enough = self.tolerance * (statistics.median(valued) - min(valued))
        return not min(before) - min(valued) > enough


@dataclass(frozen=True)
class MedianRule:
    """Stop a trial whose best value so far is worse than the median of the others' averages.

    The average is that of the values that another trial reported up to the same step, of trials
    that ran to their end (Golovin et al. 2017, Google Vizier, section 3.2.2).

    Args:
        trials: So many others must have got that far.
        steps: No trial is stopped before it has reported so often.

    Raises:
        InvalidOption: one of them is below 1.
    """

    trials: int = 5
    steps: int = 1

    def __post_init__(self) -> None:
        for name in ("trials", "steps"):
            if getattr(self, name) < 1:
                raise InvalidOption(f"{name}={getattr(self, name)!r}: expected 1 or more")

    def verdict(
        self,
        curve: Mapping[int, float],
        others: Sequence[Mapping[int, float]],
        sign: float,
    ) -> str | None:
        """Why the trial with this curve, of values by step, should stop; None if it should not.

        Args:
            others: The curves of the trials that were completed.
            sign: 1 where values are minimised, -1 where they are maximised.
        """
        finite = {step: sign * v for step, v in curve.items() if math.isfinite(v)}
        if not finite or len(curve) < self.steps:
            return None
        last = max(curve)
        averages = []
        for other in others:
            upto = [sign * v for step, v in other.items() if step <= last and math.isfinite(v)]
            if upto and max(other) >= last:
                averages.append(statistics.fmean(upto))
        if len(averages) < self.trials:
            return None
        best, median = min(finite.values()), statistics.median(averages)
        if best <= median:
            return None
        return (
            f"stopped early at step {last}: its best value is {sign * best:.4g}, "
            f"the median of the others' averages {sign * median:.4g}"
        )

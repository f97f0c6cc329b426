"""When a loop or a tuning job ends, and when a trial is stopped early."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gpbo.checks import positive_number, real_number, whole_number
from gpbo.errors import InvalidOption
from gpbo.trial import STOPPED_EARLY, Trial

#: Which criterion of a `Completion` is met.
Reason = Literal["runtime", "target", "failures", "no improvement"]

#: Why a loop or a job ended.
Stopped = Literal["budget", "exhausted", "interrupted", "broken"] | Reason

#: The same in words.
STOPPED: Mapping[str, str] = {
    "budget": "the budget was used up",
    "exhausted": "nothing was left to try",
    "interrupted": "interrupted",
    "broken": "trials could not be run",
    "runtime": "the time was used up",
    "target": "the target was reached",
    "failures": "too many trials failed in a row",
    "no improvement": "no further improvement",
}


@dataclass(frozen=True)
class Completion:
    """What ends a loop or a job before its budget of trials is used.

    A rule of your own is a subclass that overrides `reached` and returns one of the reasons.

    Args:
        runtime_s: Seconds since the job was created, pauses included, or since the loop began.
        target: A value that is good enough: the job ends when a trial that meets the constraints,
            and is not an added result, has this value or a better one.
        patience: Trials in a row, failed ones included, without an improvement. Added results, such
            as those of a warm start, do not count as trials, but must be improved on. Trials that
            still run are waited for, since one of them may be an improvement. The count starts with
            the first value that meets the constraints.
        tolerance: Improvements by no more than this share of the distance from the median value
            to the best one do not count: with 0.01, say, the job ends when it has converged.
        failures: Failed trials in a row since the job was started or resumed, once no trial that
            began before the first of these failures still runs. Something is then wrong that would
            cost the rest of the budget, such as a mistake in the objective or a full disk. A trial
            that is stopped early ends the row. None for no limit.

    Raises:
        InvalidOption: an argument is out of range, or ``tolerance`` comes without ``patience``.
    """

    runtime_s: float | None = None
    target: float | None = None
    patience: int | None = None
    tolerance: float = 0.0
    failures: int | None = 20

    def __post_init__(self) -> None:
        if self.runtime_s is not None:
            positive_number("runtime_s", self.runtime_s)
        if self.target is not None:
            real_number("target", self.target)
        for name in ("patience", "failures"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), least=1)
        if not real_number("tolerance", self.tolerance, least=0.0) < 1:
            raise InvalidOption(f"tolerance={self.tolerance!r}: expected at least 0 and below 1")
        if self.tolerance and self.patience is None:
            raise InvalidOption(
                f"tolerance={self.tolerance!r}, patience=None: a tolerance has an effect only with "
                "patience; set both or neither"
            )

    def reached(
        self, finished: Sequence[Trial], sign: float, elapsed_s: float, failed: int = 0
    ) -> Reason | None:
        """Which criterion is met, if one is.

        Args:
            finished: Trials in the order in which they ended.
            sign: 1 if values are minimised, -1 if they are maximised.
            elapsed_s: Seconds so far, as ``runtime_s`` counts them.
            failed: How many trials have failed in a row.
        """
        own = [trial for trial in finished if not trial.added]
        target = None if self.target is None else sign * self.target
        if target is not None and any(value <= target for value in _values(own, sign)):
            return "target"
        if self.runtime_s is not None and elapsed_s >= self.runtime_s:
            return "runtime"
        if self.failures is not None and failed >= self.failures:
            return "failures"
        if self.patience is not None and len(own) >= self.patience:
            last = finished.index(own[-self.patience])
            if self._is_stuck(_values(finished[:last], sign), _values(finished, sign)):
                return "no improvement"
        return None

    def _is_stuck(self, before: list[float], values: list[float]) -> bool:
        """Whether the values before the last ``patience`` trials are as good as all values."""
        if not before:
            return False
        earlier, best = min(before), min(values)
        if not self.tolerance:
            return earlier <= best
        # In halves: the distance between two values may exceed the largest float.
        enough = self.tolerance * (_median(values) / 2 - best / 2)
        return earlier / 2 - best / 2 <= enough


def _values(trials: Sequence[Trial], sign: float) -> list[float]:
    """The values, times ``sign``, of the trials that meet the constraints."""
    return [sign * trial.value for trial in trials if trial.value is not None and trial.feasible]


def _mean(values: Sequence[float]) -> float:
    """The mean of finite values, even if their sum exceeds the largest float."""
    try:
        return statistics.fmean(values)
    except OverflowError:
        return float(statistics.mean(values))  # exact, and slow


def _median(values: Sequence[float]) -> float:
    """The median, likewise."""
    return _mean([statistics.median_low(values), statistics.median_high(values)])


@dataclass
class Streak:
    """Trials that fail in a row.

    Attributes:
        count: How many there are.
        since: When the first of them failed, on any increasing clock.
    """

    count: int = 0
    since: float = 0.0

    def fail(self, now: float) -> None:
        """One more has failed."""
        if self.count == 0:
            self.since = now
        self.count += 1

    def end(self) -> None:
        """A trial did not fail."""
        self.count = 0

    def in_vain(self, running: Iterable[float]) -> int:
        """The count; 0 while a trial still runs that began before the first of them failed.

        Args:
            running: When each of the running trials began.
        """
        return 0 if any(began < self.since for began in running) else self.count


@dataclass(frozen=True)
class MedianRule:
    """Stop a trial whose best value so far is worse than the median of the others' averages.

    The others are trials that were completed; each average is over the values that the trial
    reported up to the same step (Golovin et al. 2017, "Google Vizier", KDD, section 3.2.2). Values
    that are NaN or infinite do not count.

    Args:
        trials: How many other trials must have reached the step.
        steps: How many steps a trial must have reported before it can be stopped.

    Raises:
        InvalidOption: one of them is not a whole number, 1 or more.
    """

    trials: int = 5
    steps: int = 1

    def __post_init__(self) -> None:
        for name in ("trials", "steps"):
            whole_number(name, getattr(self, name), least=1)

    def verdict(
        self,
        curve: Mapping[int, float],
        others: Sequence[Mapping[int, float]],
        sign: float,
    ) -> str | None:
        """Why the trial should stop; None if it should not.

        Args:
            curve: What the trial reported, values by step.
            others: The curves of the completed trials.
            sign: 1 if values are minimised, -1 if they are maximised.
        """
        finite = {step: sign * v for step, v in curve.items() if math.isfinite(v)}
        if not finite or len(curve) < self.steps:
            return None
        last = max(curve)
        averages = []
        for other in others:
            upto = [sign * v for step, v in other.items() if step <= last and math.isfinite(v)]
            if upto and max(other) >= last:
                averages.append(_mean(upto))
        if len(averages) < self.trials:
            return None
        best, median = min(finite.values()), _median(averages)
        if best <= median:
            return None
        return (
            f"{STOPPED_EARLY} at step {last}: its best value is {sign * best:.4g}, "
            f"the median of the others' averages {sign * median:.4g}"
        )

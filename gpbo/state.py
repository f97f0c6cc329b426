"""Where a running optimization stands, for whoever shows it."""

from dataclasses import dataclass

from gpbo.trial import Trial


@dataclass(frozen=True)
class State:
    """Where an optimization stands.

    Attributes:
        title: What is optimized, and how.
        budget: How many trials there will be.
        done: How many ended, the failed ones included.
        failed: How many failed.
        best: The best trial so far.
        running: The trials being evaluated.
        objective_s: Seconds spent in the objective so far, or in waiting for the workers.
        engine_s: Seconds spent in choosing what to try so far.
        current_s: Seconds since the loop began to wait for results, or to choose what to try.
    """

    title: str
    budget: int
    done: int
    failed: int
    best: Trial | None
    running: tuple[Trial, ...]
    objective_s: float
    engine_s: float
    current_s: float

    @property
    def left(self) -> int:
        """How many trials are left, the running ones included."""
        return self.budget - self.done

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self.objective_s + self.engine_s

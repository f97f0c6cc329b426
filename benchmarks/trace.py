"""One run of a method on a problem: a frozen value, plain enough for JSON."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

#: The outcome of an evaluation. ``"violated"``: its value does not count, as it does not meet the
#: constraints; ``"missing"``: the method had stopped or crashed before it.
Status = Literal["completed", "violated", "failed", "missing"]

Params = Mapping[str, Any]

#: The reason of a run that ended early because it had evaluated all configurations; not an error.
EXHAUSTED = "the space was exhausted"


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one configuration.

    Attributes:
        value: As observed, to be minimised; None if the evaluation failed.
        truth: The same without noise; None if it failed.
        seconds: The seconds that it took.
        excess: How far it is beyond each constraint; empty if it failed.
    """

    value: float | None
    truth: float | None
    seconds: float = 0.0
    excess: tuple[float, ...] = ()

    @property
    def status(self) -> Status:
        """Its outcome."""
        if self.value is None:
            return "failed"
        return "violated" if any(each > 0 for each in self.excess) else "completed"


#: From a configuration in user units, and the number of the evaluation (from 0), which the noise
#: belongs to, so that every method of a seed sees the same noise.
Evaluate = Callable[[Params, int], Evaluation]


@dataclass(frozen=True)
class Trace:
    """One run, an entry per evaluation in the order in which the results came.

    Attributes:
        method, problem, seed: What was run.
        budget: How many evaluations there should be; a run that ended early has fewer entries.
        design: How many of the first ones are the initial design, given to every method.
        params: In user units.
        values: As observed, to be minimised; None where an evaluation failed.
        truth: Without noise; likewise. The same as ``values`` where the problem has no noise.
        status: Of every evaluation.
        ask_s: Seconds from the end of the last evaluation to the proposal: all that the method
            does, including the tell of the last result; 0 in the design. Of runs in one batch, each
            has an equal share of the batch's seconds.
        fit_s, acquisition_s: The parts of ``ask_s`` that went into the model and into the search
            of the acquisition; None where unknown. The rest is bookkeeping.
        evaluation_s: Seconds in the objective.
        clock: When the results came, on a simulated clock; empty where there is none.
        recommended: What the method would recommend after this evaluation; None if it was not
            asked; the best value observed then counts as its recommendation.
        recommended_truth: The noiseless values there; None likewise.
        together: How many runs advanced in one batch.
        versions: Of the method's packages.
        measured: Commit, date and machine of a kept run; empty if the same as for the others.
        failure: Why the run ended early; None if it did not.
    """

    method: str
    problem: str
    seed: int
    budget: int
    design: int
    params: tuple[Params, ...] = ()
    values: tuple[float | None, ...] = ()
    truth: tuple[float | None, ...] = ()
    status: tuple[Status, ...] = ()
    ask_s: tuple[float, ...] = ()
    fit_s: tuple[float | None, ...] = ()
    acquisition_s: tuple[float | None, ...] = ()
    evaluation_s: tuple[float, ...] = ()
    clock: tuple[float, ...] = ()
    recommended: tuple[Params | None, ...] = ()
    recommended_truth: tuple[float | None, ...] = ()
    together: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None

    def __post_init__(self) -> None:
        entries = len(self.params)
        if entries > self.budget:
            raise ValueError(f"params: {entries} entries: expected at most budget={self.budget}")
        for name in ("values", "truth", "status", "ask_s", "evaluation_s"):
            if len(getattr(self, name)) != entries:
                raise ValueError(
                    f"{name}: {len(getattr(self, name))} entries: params has {entries}"
                )
        for name in ("fit_s", "acquisition_s", "clock", "recommended", "recommended_truth"):
            if len(getattr(self, name)) not in (0, entries):
                raise ValueError(
                    f"{name}: {len(getattr(self, name))} entries: expected none or {entries}"
                )

    def to_plain(self) -> dict[str, Any]:
        """Everything as dictionaries, tuples, numbers and strings, for ``json.dumps``."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Trace":
        """The inverse of `to_plain`, also after a round trip through JSON.

        Raises:
            ValueError: entries of different lengths, or a key that a trace does not have.
        """
        known = {field.name for field in fields(cls)}
        if unknown := set(plain) - known:
            raise ValueError(f"{', '.join(sorted(unknown))}: expected keys of a Trace")
        own: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in plain.items()
        }
        return cls(**own)

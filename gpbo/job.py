"""A tuning job in a TOML file: read and checked; every mistake is reported with its key."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.dataclasses import dataclass as checked

from gpbo.command import Command
from gpbo.completion import Completion, MedianRule
from gpbo.constraints import read_constraints
from gpbo.design import resolve_initial
from gpbo.errors import InvalidJob, InvalidParams, SpaceError, StorageError, UnknownJob
from gpbo.execution import Execution
from gpbo.fitting import Inference
from gpbo.job_file import STORAGE, read_file
from gpbo.objectives import check_command, check_is_here
from gpbo.optimizer import Optimizer
from gpbo.options import read_model, read_strategy
from gpbo.record import Record
from gpbo.spec import check_same, read_space, write_space
from gpbo.storage import SqliteStorage
from gpbo.transfer import LARGEST_START, StartKind, ever_enqueued, started_from, warm_start
from gpbo.trial import Direction
from gpbo.tuner import Tuner
from gpbo.worker import Imported

_STRICT = ConfigDict(extra="forbid", strict=True)


@checked(frozen=True, config=_STRICT)
class _EarlyStopping(MedianRule):
    """`MedianRule` in a file."""


@checked(frozen=True, config=_STRICT)
class _Completion(Completion):
    """`Completion` in a file."""


@checked(frozen=True, config=_STRICT)
class _Execution(Execution):
    """`Execution` in a file."""

    early_stopping: _EarlyStopping | None = None
    gpus: list[str] = Field(default_factory=list)
    env: dict[str, str] = Field(default_factory=dict)


class _Start(BaseModel):
    """A finished job to learn from."""

    model_config = _STRICT
    job: str
    storage: str | None = None
    kind: StartKind = "same"


class Job(BaseModel):
    """What a job file says.

    Attributes:
        name: The job's name in its storage.
        space: Parameters by name, each a table of its ``type`` (``"real"``, ``"integer"``,
            ``"categorical"`` or ``"ordinal"``) and the arguments of its class.
        objective: ``"module:function"``, looked for first in the folder of the job file; the
            alternative to ``command``.
        command: A command line with ``{name}`` for a parameter; see `gpbo.worker.Command`.
        metric: A regular expression for the value in what the command prints; likewise.
        budget: The number of trials, failed ones included.
        storage: The file of the database; like all paths, relative to the job file.
        constraints: Limits of other quantities, such as ``"memory <= 16"``: see `gpbo.Optimizer`.
        strategy: Its name, or a table of its ``name`` and the options of its class.
        model: A table of the model's ``nu`` and ``prior``: a named prior, or a table of
            hyperparameters, each with a prior's ``name`` and the arguments of its class. When a job
            is resumed, the default is the stored model.
        execution: See `gpbo.tuner.Execution`.
        completion: See `gpbo.completion.Completion`.
        queue: Configurations to run first, each a table of values by name; see
            `gpbo.Optimizer.enqueue`. When a job is resumed, those that are new in the file are
            enqueued.
        warm_start: Up to five stored jobs to learn from, each a table of ``job``, its name;
            ``storage``, if that is another one; and ``kind``, ``"same"`` (the default) or
            ``"transfer"``: see `gpbo.transfer.warm_start`.

    The other attributes are those of `gpbo.Optimizer`; by default the initial design takes at most
    half of the budget.
    """

    model_config = _STRICT
    name: str
    space: dict[str, dict[str, Any]]
    objective: str | None = None
    command: str | None = None
    metric: str | None = None
    direction: Direction = "minimize"
    strategy: Any = "ei"
    model: Any = None
    budget: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    initial: int | None = Field(default=None, ge=1)
    constraints: list[str] = []
    inference: Inference = "hmc"
    device: str = "auto"
    storage: str = STORAGE
    execution: _Execution = Field(default_factory=_Execution)
    completion: _Completion = Field(default_factory=_Completion)
    queue: list[dict[str, Any]] = []
    warm_start: list[_Start] = Field(default=[], max_length=LARGEST_START)

    @field_validator("space")
    @classmethod
    def _is_a_space(cls, space: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        mistakes = []
        for name, parameter in space.items():
            try:
                read_space({name: parameter})
            except SpaceError as error:
                lost = [key for key in parameter if key in Job.model_fields]
                hint = f"; {lost[0]} {_whose('')}" if lost else ""
                mistakes.append(f"space.{error}{hint}")
        if mistakes or not space:
            raise ValueError("; ".join(mistakes) or "space = {}: expected at least one parameter")
        return space

    @field_validator("constraints")
    @classmethod
    def _are_constraints(cls, constraints: list[str]) -> list[str]:
        read_constraints(constraints)
        return constraints

    @field_validator("strategy")
    @classmethod
    def _is_a_strategy(cls, strategy: object) -> object:
        read_strategy(strategy)
        return strategy

    @field_validator("model")
    @classmethod
    def _is_a_model(cls, model: object) -> object:
        if model is not None:
            read_model(model)
        return model

    @model_validator(mode="after")
    def _queue_is_of_the_space(self) -> "Job":
        space = read_space(self.space)
        for place, params in enumerate(self.queue):
            try:
                space.validate(params, whole=False)
            except InvalidParams as error:
                keys = [repr(key) for key in params if key in Job.model_fields]
                hint = f"; keys of the job, such as {keys[0]}, go above [[queue]]" if keys else ""
                raise ValueError(f"queue[{place}]: {error}{hint}") from error
        return self

    @model_validator(mode="after")
    def _has_one_objective(self) -> "Job":
        if (self.objective is None) == (self.command is None):
            raise ValueError("expected either objective = 'module:function' or command = '...'")
        if self.metric is not None and self.command is None:
            raise ValueError(f"metric = {self.metric!r}: expected only together with a command")
        self.target()
        return self

    def target(self, folder: Path | None = None) -> Imported | Command:
        """What a trial runs; commands run in this folder."""
        if self.objective is not None:
            return Imported(self.objective, folder)
        command = Command(self.command or "", self.metric, folder)
        check_command(command, read_space(self.space))
        return command

    def tuner(self, folder: Path, *, resume: bool, **options: Any) -> Tuner:
        """The job, to be run.

        Args:
            folder: The folder of the job file, where commands run.
            resume: Whether to continue the stored job of this name, or to begin one.
            options: Further options of the `Tuner`, such as ``callbacks``.

        Raises:
            StorageError: a job of this name is stored already and ``resume`` is False, or the
                storage cannot be used.
            UnknownJob: ``resume`` is True and there is no such job; or a job in ``warm_start`` does
                not exist (which no longer matters once this job has begun).
            JobInUse: a process drives it.
            InvalidJob: the stored job has another space, direction, seed, inference, initial
                design or constraints, or did not start from a job that is now in ``warm_start``.
            InvalidOption: the program of the command, or the function's module, cannot be found;
                or ``name`` or ``device`` is not allowed.
            InvalidData: a job to start from has no result in this space.
        """
        target = self.target(folder.resolve())
        check_is_here(target, self.execution.env)
        strategy = read_strategy(self.strategy)
        model = None if self.model is None else read_model(self.model)
        store = SqliteStorage(folder / self.storage)
        record = store.read(self.name) if resume else None
        begun = record is not None and bool(record.trials or record.queue)
        parents = self._parents(folder, store, may_be_gone=begun)
        if record is not None:
            self._check_same(record, parents if begun else ())
            optimizer = Optimizer.resume(
                store, self.name, strategy=strategy, model=model, device=self.device
            )
        else:
            space = read_space(self.space)
            # Finds mistakes in the warm start before the job exists.
            warm_start(
                Optimizer(space, direction=self.direction, constraints=self.constraints), parents
            )
            optimizer = Optimizer(
                space,
                strategy,
                direction=self.direction,
                seed=self.seed,
                initial=resolve_initial(self.initial, space, self.budget),
                constraints=self.constraints,
                inference=self.inference,
                model=model,
                device=self.device,
                storage=store,
                name=self.name,
            )
        if not (optimizer.trials or optimizer.queue):  # new, or killed before its warm start
            warm_start(optimizer, parents, self.queue)
        else:
            optimizer.learn(queue=self._not_enqueued_yet(optimizer))
        return Tuner(
            optimizer,
            target,
            budget=self.budget,
            execution=self.execution,
            completion=self.completion,
            **options,
        )

    def _not_enqueued_yet(self, optimizer: Optimizer) -> list[dict[str, Any]]:
        """The entries of the file's queue that are new since the job began.

        Each configuration that was enqueued matches one entry; whole ones are matched before parts.
        """
        known = [each.items() for each in ever_enqueued(optimizer.trials, optimizer.queue)]
        given = [optimizer.space.validate(params, whole=False) for params in self.queue]
        new = []
        for place in sorted(range(len(given)), key=lambda place: -len(given[place])):
            own = next((each for each in known if given[place].items() <= each), None)
            if own is None:
                new.append(place)
            else:
                known.remove(own)
        return [given[place] for place in sorted(new)]

    def _parents(
        self, folder: Path, store: SqliteStorage, *, may_be_gone: bool
    ) -> list[tuple[Record, StartKind]]:
        parents = []
        for start in self.warm_start:
            try:
                own = store if start.storage is None else SqliteStorage(folder / start.storage)
                parents.append((own.read(start.job), start.kind))
            except (StorageError, UnknownJob):
                if not may_be_gone:
                    raise
        return parents

    def _check_same(self, record: Record, parents: Sequence[tuple[Record, StartKind]]) -> None:
        space = read_space(self.space)
        now = {
            "space": write_space(space),
            "direction": self.direction,
            "seed": self.seed,
            "inference": self.inference,
            "constraints": list(map(str, read_constraints(self.constraints))),
            # The default depends on the budget, which may have grown.
            "initial": record.spec["initial"] if self.initial is None else self.initial,
        }
        check_same(now, record, InvalidJob)
        for parent, kind in parents:
            if not started_from(record, space, parent, kind):
                raise InvalidJob(
                    f"warm_start: the stored job {self.name!r} did not start from {parent.name!r} "
                    f"with kind = {kind!r}; to resume it, list only jobs that it started from, or "
                    "none"
                )


def read_job(path: str | Path) -> Job:
    """The job in a TOML file.

    Raises:
        InvalidJob: no such file, not TOML, or it has mistakes: a line for each wrong key or table.
    """
    return check_job(read_file(path), str(path))


def check_job(content: Mapping[str, Any], where: str = "job") -> Job:
    """The job that these values describe.

    Raises:
        InvalidJob: there are mistakes: a line for each wrong key or table.
    """
    try:
        # As JSON, since strict validation of JSON accepts a table for an object of its class.
        return Job.model_validate_json(json.dumps(dict(content), default=str))
    except ValidationError as error:
        mistakes = [_explained(dict(detail)) for detail in error.errors()]
        raise InvalidJob("\n".join(f"{where}: {mistake}" for mistake in mistakes)) from error


#: The keys that a section of the file may have.
_KEYS: dict[str, list[str]] = {
    "": list(Job.model_fields),
    "execution": [field.name for field in fields(Execution)],
    "execution.early_stopping": [field.name for field in fields(MedianRule)],
    "completion": [field.name for field in fields(Completion)],
    "warm_start": list(_Start.model_fields),
}


#: What is allowed, by pydantic's name of the mistake, with placeholders for its numbers.
_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "greater_than_equal": "a whole number, {ge} or more",
    "float_type": "a number",
    "literal_error": "{expected}",
    "list_type": "a list",
    "too_long": "at most {max_length} items",
    "dict_type": "a table",
    "dataclass_type": "a table of its options",
    "model_type": "a table of its options",
}


def _whose(section: str) -> str:
    """Where a misplaced key belongs: TOML assigns it to the last table before it."""
    if not section:
        return "is a key of the job itself and belongs above the first [table]"
    table = "[[warm_start]]" if section == "warm_start" else f"[{section}]"
    return f"belongs in {table}"


def _explained(detail: dict[str, Any]) -> str:
    """A mistake that pydantic found, in the words of our other errors."""
    *section, key = [str(part) for part in detail["loc"] if not isinstance(part, int)] or [""]
    name = ".".join([*section, key])
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    shown = "".join(parts).removeprefix(".")
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        at_home = [home for home, keys in _KEYS.items() if key in keys]
        hint = f"; {key} {_whose(at_home[0])}" if at_home else ""
        expected = ", ".join(_KEYS[".".join(section)])
        return f"{shown}: unknown key: expected one of {expected}{hint}"
    if detail["type"] in ("missing", "missing_argument"):
        return f"{shown}: missing"
    if detail["type"] == "value_error":  # one of our errors, which says what is wrong
        table = f"{name}." if name and name in _KEYS else ""
        return f"{table}{detail['ctx']['error']}"
    allowed = _EXPECTED.get(detail["type"])
    why = f"expected {allowed.format(**detail.get('ctx', {}))}" if allowed else detail["msg"]
    return f"{shown} = {detail['input']!r}: {why}" if name else why

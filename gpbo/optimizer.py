"""Ask and tell: the state of one optimization; evaluating trials is left to the caller."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, get_args, overload

import torch

from gpbo import fitting
from gpbo.backend import DTYPE, resolve_device
from gpbo.checks import each_of, instance_of, is_among, legible, one_of, truth_value, whole_number
from gpbo.constraints import Constraint, Told, read_constraints, result_told, violated
from gpbo.data import Observations, with_room
from gpbo.design import resolve_initial
from gpbo.errors import InvalidOption, InvalidParams, InvalidResult, StorageError
from gpbo.fixed import is_slice, with_fixed
from gpbo.history import History
from gpbo.kept import Kept
from gpbo.options import read_model, read_strategy, write_model, write_strategy
from gpbo.plans import ChoicePlan, Chosen, FitPlan, Fitted, Queued
from gpbo.posterior import Posterior, Recommendation
from gpbo.situation import Lazy, Situation
from gpbo.space import Space
from gpbo.spec import check_same, read_space, write_space
from gpbo.strategies import Strategy, resolve_strategy
from gpbo.trial import WITHDRAWN, Direction, Trial, TrialStatus, best_of, records, sign_of

if TYPE_CHECKING:
    from gpbo.record import Journal, Record, Storage

logger = logging.getLogger("gpbo")

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _one_at_a_time(
    method: Callable[Concatenate["Optimizer", _P], _T],
) -> Callable[Concatenate["Optimizer", _P], _T]:
    """The method, which waits while another thread runs one of these methods.

    A caller's `torch.inference_mode` is switched off: gradients of the results may be needed.
    """

    @wraps(method)
    def waiting(self: "Optimizer", /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with self._lock, torch.inference_mode(False), self._in_agreement():
            return method(self, *args, **kwargs)

    return waiting


class Optimizer:
    """Proposes configurations (`ask`) and learns from their results (`tell`).

    Any number of trials may be pending, and results may come in any order: they are matched by
    trial id. `tell` only records; the next `ask` fits the model, and only if results came since the
    last fit. The same seed and the same calls in the same order give the same proposals; the order
    of the results between two fits does not matter. Threads may share an optimizer: calls that
    change it run one at a time, so they wait while another thread asks (but not while it runs a
    `plan`). A copy, pickled or not, has the same trials and model, but no storage.

    Args:
        space: Where to search.
        strategy: ``"ei"``, ``"pi"``, ``"ts"``, ``"random"``, ``"grid"``, ``"sobol"``,
            or a strategy object.
        direction: ``"minimize"`` or ``"maximize"`` the told values.
        seed: The seed of all randomness, 0 or more.
        initial: Size of the initial design of a strategy with a model, 1 or more: `ask` gives
            scrambled Sobol points until this many trials were asked or added, failed ones not
            counted, and one of them has a value. By default two per parameter with several values,
            at least 5, at most 20.
        constraints: Limits of other quantities, such as ``"memory <= 16"``: the name of a quantity
            that is measured and told with every value, ``<=`` or ``>=``, and a number. Each
            constraint has a model, fitted to the measured quantity; the improvement that a
            configuration may bring is weighted by the probability that it meets all constraints.
        inference: How the hyperparameters are treated: ``"hmc"`` integrates them out by
            Hamiltonian Monte Carlo with short trajectories, ``"nuts"`` with trajectories of
            adaptive length, ``"map"`` takes the posterior mode, ``"pyro"`` runs Pyro's NUTS,
            slowly, as a check.
        model: Kernel and priors; by default `gpbo.Model()`.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:<index>"``, or ``"auto"``: for a single run the CPU.
        storage: Where to record every trial and result as they come: the path of a SQLite file, or
            a `gpbo.record.Storage`. `Optimizer.resume` continues from there, and proposes exactly
            what this optimizer would have proposed.
        name: The job's name in the storage; in a SQLite file, up to 100 letters, digits, ``.``,
            ``_`` and ``-``, the first a letter or digit.
        exist_ok: Whether to continue the stored job of this name, if there is one, as `resume`
            does, so that a script or a notebook cell can be run again. An earlier optimizer of the
            job in this process is closed.

    Raises:
        InvalidOption: an option has a value that is not allowed, or the stored job has another
            space, direction, seed, inference, initial design or constraints.
        SpaceError: the space has listed values that cannot be stored.
        StorageError: the storage has a job of this name (and ``exist_ok`` is False), or cannot be
            used.
        JobInUse: another process drives the stored job.
    """

    def __init__(
        self,
        space: Space,
        strategy: str | Strategy = "ei",
        *,
        direction: Direction = "minimize",
        seed: int = 0,
        initial: int | None = None,
        constraints: Sequence[str] = (),
        inference: fitting.Inference = "hmc",
        model: fitting.Model | None = None,
        device: str = "auto",
        storage: "Storage | str | Path | None" = None,
        name: str | None = None,
        exist_ok: bool = False,
    ) -> None:
        self.initial: int = resolve_initial(initial, space)
        one_of("direction", direction, get_args(Direction))
        self.space = space
        self._strategy = resolve_strategy(strategy)
        self.direction: Direction = direction  # pyright would infer a str
        self.seed: int = whole_number("seed", seed, least=0)
        self.constraints: tuple[Constraint, ...] = read_constraints(constraints)
        self.inference: fitting.Inference = fitting.check_inference(inference)
        self.model: fitting.Model = fitting.resolve_model(model)
        self.device: torch.device = resolve_device(device)
        self._sign = sign_of(direction)
        self._lock = RLock()  # for changes; readers copy in one step, and do not wait
        self._history = History(space, self.device)
        self._fitted: Fitted | None = None
        self._looked: dict[tuple[bool, int, int], Fitted] = {}  # the last model looked at
        self._ahead = False  # whether the journal may have more than what is remembered here
        if (storage is None) != (name is None):
            raise InvalidOption(f"storage={storage!r}, name={name!r}: expected both or neither")
        self._journal: Journal | None = None
        truth_value("exist_ok", exist_ok)
        if storage is not None and name is not None:
            self._store(storage, name, exist_ok)

    @classmethod
    def resume(
        cls,
        storage: "Storage | str | Path",
        name: str,
        *,
        strategy: str | Strategy | None = None,
        model: fitting.Model | None = None,
        device: str = "auto",
    ) -> "Optimizer":
        """Continue a stored optimization, in the state after its last complete call.

        An earlier optimizer of the job in this process is closed.

        Args:
            strategy: By default the stored one; one of your own is not stored and must be given
                again. Another strategy continues with the same trials, and replaces the stored one.
            model: Likewise; a model whose prior is not from `gpbo.priors` is one of your own. With
                another model the last fit is forgotten.

        Raises:
            UnknownJob: the storage has no job of this name.
            JobInUse: another process drives it.
            StorageError: the storage cannot be used.
            InvalidOption: a strategy or model is neither stored nor given.
        """
        from gpbo.storage import resolve_storage

        with _driven(resolve_storage(storage), name) as journal:
            record = journal.read()
            optimizer = cls.of_record(record, strategy, model, device)
            optimizer._go_on(journal, record)
        return optimizer

    @classmethod
    def of_record(
        cls,
        record: "Record",
        strategy: str | Strategy | None = None,
        model: fitting.Model | None = None,
        device: str = "auto",
    ) -> "Optimizer":
        """A stored optimization to look at, even while a process drives it.

        Nothing is written to its storage.

        Raises:
            InvalidOption: a strategy or model is neither stored nor given; see `resume`.
        """
        spec, given = record.spec, {"strategy": strategy, "model": model}
        for option, value in given.items():
            if value is None and spec[option] is None:
                raise InvalidOption(
                    f"{option}=None: expected the {option} of this job, which is not stored: it is "
                    "one of your own, or an older gpbo did not store its options"
                )
        optimizer = cls(
            read_space(spec["space"]),
            read_strategy(spec["strategy"]) if strategy is None else strategy,
            direction=spec["direction"],
            seed=spec["seed"],
            initial=spec["initial"],
            constraints=spec.get("constraints", ()),  # which older versions did not have
            inference=spec["inference"],
            model=read_model(spec["model"]) if model is None else model,
            device=device,
        )
        optimizer._restore(record)
        return optimizer

    def __getstate__(self) -> dict[str, Any]:
        own = ("_lock", "_journal", "_ahead", "_looked")
        with self._lock:
            state = {name: part for name, part in vars(self).items() if name not in own}
            return {**state, "_history": self._history.copy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=RLock(), _journal=None, _ahead=False, _looked={})

    def __enter__(self) -> "Optimizer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the stored job, if there is one, so that another process may drive it.

        Calls that would change this optimizer then raise a `StorageError`.
        """
        if self._journal is not None:
            self._journal.close()

    @property
    def journal(self) -> "Journal | None":
        """Where everything is recorded; None without a storage."""
        return self._journal

    def __repr__(self) -> str:
        best = self.best
        lacking = "no trial that meets the constraints" if self.completed else "no value yet"
        found = lacking if best is None else f"best {best.value:.10g} at trial {best.id}"
        ended, pending = len(self._history.ended), len(self._history.pending)
        return f"<Optimizer {self.strategy.name!r}: {ended} trials, {pending} pending, {found}>"

    @property
    def strategy(self) -> Strategy:
        """The strategy that proposes trials."""
        return self._strategy

    @property
    def history(self) -> History:
        """The originals of which `trials`, `finished` and so on are copies: for gpbo's own modules,
        which read often, and copying thousands of trials takes long.
        """
        return self._history

    @property
    def trials(self) -> list[Trial]:
        """All trials, in the order of their ids."""
        return _copies(self._history.trials)

    @property
    def pending(self) -> list[Trial]:
        """The trials without a result, in the order of their ids."""
        return _copies(self._history.pending)

    @property
    def finished(self) -> list[Trial]:
        """The trials that were completed or failed, in the order in which they ended."""
        return _copies(self._history.ended)

    @property
    def queue(self) -> list[dict[str, Any]]:
        """The configurations to be asked next, as they were enqueued."""
        return list(map(dict, self._history.queue))

    @property
    def completed(self) -> list[Trial]:
        """The trials that have a value, in the order in which the values came."""
        return _copies(self._history.completed)

    @property
    def best(self) -> Trial | None:
        """The completed trial with the best value among those that meet the constraints, the
        earliest in a tie; None before there is one.
        """
        best = best_of(self._history.completed, self.direction)
        return None if best is None else replace(best)

    def records(self) -> list[dict[str, Any]]:
        """All trials as plain values, one dict each, as `pandas.DataFrame` takes them.

        The columns are those of a `Trial` except ``violated``, with the configuration in
        ``params.<name>``. If quantities were measured, they are in ``measured.<name>``, and
        ``feasible`` is a column too.
        """
        return records(self._history.trials)

    @property
    def fit_report(self) -> fitting.FitReport | None:
        """The report of the last fit that a proposal came from; None before there is one. Its first
        run is the model of the values, the others are the models of the constraints.
        """
        return None if self._fitted is None else self._fitted.fit.report

    @property
    def fitted_size(self) -> int:
        """How many results that fit used, the first ones that came; 0 before any fit."""
        return 0 if self._fitted is None else self._fitted.kept.size

    @overload
    def ask(
        self, n: None = None, *, refit: bool = True, fixed: Mapping[str, Any] | None = None
    ) -> Trial: ...
    @overload
    def ask(
        self, n: int, *, refit: bool = True, fixed: Mapping[str, Any] | None = None
    ) -> list[Trial]: ...
    def ask(
        self, n: Any = None, *, refit: bool = True, fixed: Mapping[str, Any] | None = None
    ) -> Trial | list[Trial]:
        """The next trial to run; with ``n``, a list of ``n`` trials.

        Enqueued configurations come first. The points of a batch are chosen one after another,
        each knowing that those before it are pending (``"ts"`` chooses all at once). If the space,
        or a grid, has fewer than ``n`` points left, the list is shorter.

        Args:
            n: How many; None for a single trial that is not in a list.
            refit: As in `plan`.
            fixed: As in `plan`.

        Raises:
            SpaceExhausted: every configuration, or every point of a grid, was asked or added (or
                has failed, if the strategy ``repeats``).
            InvalidParams: ``fixed`` has a name or a value that the space does not have.
            InvalidOption: ``n`` is not a positive whole number, a grid is too large to shuffle, or
                a strategy of your own proposed something other than points.
        """
        count = 1 if n is None else whole_number("n", n, least=1)
        with self._lock:
            asked = self.register(self.plan(count, refit=refit, fixed=fixed)())
        return asked[0] if n is None else asked

    @_one_at_a_time
    def plan(
        self,
        count: int,
        *,
        refit: bool = True,
        thin: int = 1,
        fixed: Mapping[str, Any] | None = None,
    ) -> Callable[[], Chosen]:
        """The choice of the next ``count`` trials, as a function that any thread may run.

        It uses what is known now and changes nothing; `register` makes trials of what it returns.

        Args:
            refit: Whether to fit the model if results came since the last fit. Otherwise the draws
                of the last fit are used, conditioned on all results; if there is no fit yet, one
                is made.
            thin: Without a refit, average over only every ``thin``-th of these draws, to save time;
                which ones changes from trial to trial.
            fixed: Values of some parameters, by name: to fit the machine that is free, or the task
                at hand if a parameter names it. The model learns from all results; improvement is
                measured from the best value that it expects with these values. Enqueued
                configurations are not asked, and wait.

        Raises:
            InvalidParams: ``fixed`` has a name or a value that the space does not have.
            InvalidOption: ``count`` or ``thin`` is not a whole number, 1 or more, or ``refit`` is
                neither True nor False. The function raises what `ask` does.
        """
        whole_number("count", count, least=1)
        whole_number("thin", thin, least=1)
        fitted = Lazy(self._plan_model(refit, thin))
        history = self._history
        space = self.space if fixed is None else with_fixed(self.space, fixed)
        failed = history.points(history.failed).unsqueeze(0)
        situation = Situation(
            space=space,
            data=self.observations(),
            failed=failed,
            failed_mask=torch.ones(failed.shape[:2], dtype=torch.bool, device=self.device),
            taken=(history.taken_in(space),),
            seeds=(self.seed,),
            index=len(history),
            fit=lambda: fitted().fit,
            limits=lambda: fitted().limits,
        )
        queued = [] if is_slice(space) else [self._queued(params) for params in self.queue[:count]]
        design = self._design_left(count)
        return ChoicePlan(situation, self.strategy, queued, design, count, fitted)

    def _queued(self, params: dict[str, Any]) -> Queued:
        within = with_fixed(self.space, params)
        return Queued(params, within, self._history.taken_in(within))

    @_one_at_a_time
    def register(self, chosen: Chosen) -> list[Trial]:
        """Make pending trials of what a `plan` chose.

        Raises:
            InvalidOption: ``chosen`` does not come from a plan, trials were asked or added since
                the plan, or it was chosen by a model of another optimizer.
            InvalidParams: its configurations belong to another space.
        """
        instance_of("chosen", chosen, Chosen)
        history = self._history
        if chosen.index != len(history):
            raise InvalidOption(
                f"chosen.index={chosen.index}: expected {len(history)}: no trial may be asked or "
                "added between `plan` and `register`"
            )
        if chosen.fitted is not None:
            self._check_own("chosen.fitted", chosen.fitted)
        validate = self.space.validate
        configurations = [(validate(params), origin) for params, origin in chosen.configurations]
        asked = [
            Trial(chosen.index + i, params, origin=origin, asked_at=time.time())
            for i, (params, origin) in enumerate(configurations)
        ]
        queue = history.queue[chosen.queued :]
        newer = chosen.fitted if self._is_newer(chosen.fitted) else None
        with self._written(newer, trials=asked, queue=queue if chosen.queued else None):
            for trial in asked:
                history.remember(trial)
            history.queue = queue
            self._fitted = newer or self._fitted
        return asked

    @_one_at_a_time
    def plan_fit(self) -> Callable[[], Fitted]:
        """A fit to the results so far, as a function that any thread may run; `adopt` its result.

        The function raises:
            InvalidData: there is no result yet.
        """
        size, last = len(self._history.completed), self._fitted
        known = self._looked.get((True, self.fitted_size, size), last)
        if known is not None and known.kept.size == size:
            return lambda: known
        self._looked = {}  # frees memory: this fit replaces it, and is as large
        warm = None if last is None else last.kept.warm
        data = self._observations()
        return FitPlan(data, self.model, self.inference, warm, self.seed)

    @_one_at_a_time
    def adopt(self, fitted: Fitted) -> None:
        """Use this fit of a `plan_fit` from now on, if it has more results than the last one.

        Raises:
            InvalidOption: ``fitted`` is not a fit, or one of another optimizer.
        """
        self._check_own("fitted", fitted)
        if self._is_newer(fitted):
            with self._written(fitted):
                self._fitted = fitted

    @_one_at_a_time
    def tell(
        self, trial: object, value: object, measured: Mapping[str, float] | None = None
    ) -> Trial:
        """Record a trial's value; returns the updated trial.

        A number that is NaN or infinite makes it a failed trial, whose configuration is not
        proposed again. Telling the same result twice changes nothing, so it is safe to tell again
        what may not have been recorded. A result that comes after its trial has failed can be kept
        with `add`. A wrong result cannot be corrected: make a new optimizer, and have it `learn`
        the right ones, ``(trial.params, trial.value, trial.measured)`` of each trial.

        Args:
            trial: A trial of this optimizer, or its id.
            value: A real number, of Python, or of numpy or torch with one element.
            measured: The quantities of the constraints, by name, likewise.

        Raises:
            InvalidResult: the value or a measured quantity is not one real number, or ``measured``
                has other names than the constraints; the trial stays pending.
            UnknownTrial: not a trial of this optimizer.
            TrialAlreadyFinished: it already has another result.
        """
        known = self._history.find(trial)
        where = f"trial {known.id}: "
        return self._end(known, result_told(where, self.constraints, value, measured))

    @_one_at_a_time
    def fail(self, trial: object, reason: str | None = None) -> Trial:
        """Record that a trial has no value; returns the updated trial.

        Args:
            trial: A trial of this optimizer, or its id.
            reason: Why; "failed" by default.

        Raises:
            UnknownTrial: not a trial of this optimizer.
            TrialAlreadyFinished: it has a value, or failed for another reason.
        """
        why = "failed" if reason is None else legible(str(reason)) or "failed"
        return self._end(self._history.find(trial), Told(None, reason=why))

    def withdraw(self, trial: object, reason: str | None = None) -> Trial:
        """Record that a trial was not run as asked; returns the updated trial.

        Unlike a failure, this says nothing about the configuration, which may be proposed again.
        `add` records what was run instead.

        Args:
            trial: A trial of this optimizer, or its id.
            reason: Why.

        Raises:
            UnknownTrial, TrialAlreadyFinished: as in `fail`.
        """
        return self.fail(trial, WITHDRAWN if reason is None else f"{WITHDRAWN}: {reason}")

    def add(
        self,
        params: Mapping[str, Any],
        value: object,
        measured: Mapping[str, float] | None = None,
    ) -> Trial:
        """Record a result that was not asked for; its configuration may have been tried already.

        A number that is NaN or infinite is recorded as a failed trial.

        Args:
            params: The configuration.
            value: As in `tell`.
            measured: As in `tell`.

        Raises:
            InvalidParams: not a configuration of the space; nothing is recorded.
            InvalidResult: as in `tell`; nothing is recorded.
        """
        return self.learn([(params, value, measured)])[0]

    def enqueue(self, params: Mapping[str, Any]) -> None:
        """Have this configuration asked next, after those already enqueued, even if it was tried.

        Parameters that it leaves out are chosen when it is asked, as by `ask` with these values
        ``fixed``; if all such configurations were tried, one of them is asked again.

        Raises:
            InvalidParams: it has no value, or a name or a value that the space does not have.
        """
        self.learn(queue=[params])

    @_one_at_a_time
    def learn(
        self,
        results: Iterable[Sequence[Any]] = (),
        queue: Iterable[Mapping[str, Any]] = (),
    ) -> list[Trial]:
        """`add` these results and `enqueue` these configurations: all of them, or none.

        Args:
            results: A pair of configuration and value each, or a triple with the measured
                quantities.
            queue: Configurations, which may leave out parameters.

        Raises:
            InvalidParams: not a list, or not a configuration of the space; nothing is recorded.
            InvalidResult: not a list, not such a pair or triple, or as in `tell`; nothing is
                recorded.
        """
        if not isinstance(results, Iterable):
            raise InvalidResult(
                f"results={results!r}: expected a list of pairs (configuration, value)"
            )
        if isinstance(queue, Mapping) or not isinstance(queue, Iterable):
            raise InvalidParams(f"queue={queue!r}: expected a list of configurations")
        now = time.time()
        added = [
            self._ended(Trial(number, params, origin="added", asked_at=now), told, now)
            for number, (params, told) in enumerate(
                each_of("results", results, self._checked), start=len(self._history)
            )
        ]
        checked = each_of("queue", queue, partial(self.space.validate, whole=False))
        queued = [*self._history.queue, *checked]
        with self._written(trials=added, queue=queued if checked else None):
            for trial in added:
                self._history.remember(trial)
            self._history.queue = queued
        return added

    def _checked(self, result: Sequence[Any]) -> tuple[dict[str, Any], Told]:
        """A result of `learn`: its configuration, and its value or failure."""
        if not isinstance(result, list | tuple) or len(result) not in (2, 3):
            raise InvalidResult(
                f"result={result!r}: expected (configuration, value), or (configuration, value, "
                "measured)"
            )
        params, value, measured = (*result, None)[:3]
        valid = self.space.validate(params)
        return valid, result_told("", self.constraints, value, measured)

    def observations(self) -> Observations:
        """The results and the pending points as the engine sees them: one run, to be minimised."""
        return self._observations().of_values

    def _observations(self, count: int | None = None) -> Observations:
        """The first ``count`` results, or all; the constrained quantities are further runs."""
        results = self._history.results(count)
        values = [self._sign * trial.value for trial in results if trial.value is not None]
        excess = [
            [one.excess(trial.measured[one.name]) for one in self.constraints] for trial in results
        ]
        shape = 1, len(results), len(self.constraints)
        return with_room(
            self._history.points(results).unsqueeze(0),
            torch.tensor([values], dtype=DTYPE, device=self.device),
            pending=self._history.points(self._history.pending).unsqueeze(0),
            excess=torch.tensor(excess, dtype=DTYPE, device=self.device).view(shape),
        )

    def fit(self, *, refit: bool = True) -> fitting.Fit:
        """The model of all results so far. Looking at it does not change what is proposed.

        Args:
            refit: As in `plan`: if False, the draws of the last fit are used, if there is one.

        Raises:
            InvalidData: there is no result yet.
        """
        return self._look(refit).fit

    def posterior(self, *, refit: bool = True) -> Posterior:
        """What the model predicts now, in the units of the told values.

        Args:
            refit: As in `fit`.

        Raises:
            InvalidData: there is no result yet.
        """
        fitted = self._look(refit)
        # Results may have come since; the fit knows the first ones.
        known = _copies(self._history.results(int(fitted.fit.surrogate.mask.sum())))
        return Posterior(
            fitted.fit.surrogate, fitted.units, self.space, self.direction, known, fitted.limits
        )

    def recommend(
        self, *, refit: bool = True, fixed: Mapping[str, Any] | None = None
    ) -> Recommendation:
        """The tried configuration that the model expects to be the best, and what it predicts.

        With noisy values it is mostly better than that of `best`, whose value is a lucky one.

        Args:
            refit: As in `fit`.
            fixed: Values of some parameters, by name, as in `ask`: only configurations that were
                tried with them are compared.

        Raises:
            InvalidData: there is no result yet, or none with these values that meets the
                constraints.
            InvalidParams: ``fixed`` has a name or a value that the space does not have.
        """
        return self.posterior(refit=refit).recommend(fixed=fixed)

    def _look(self, refit: bool) -> Fitted:
        """The model of all results so far, kept for repeated looks."""
        key = truth_value("refit", refit), self.fitted_size, len(self._history.completed)
        looked = self._looked
        if key not in looked:
            with torch.inference_mode(False):  # as in `_one_at_a_time`: it is kept for later looks
                self._looked = looked = {key: self._plan_model(refit)()}
        return looked[key]

    def _check_own(self, name: str, fitted: Fitted) -> None:
        """Raise if this cannot be a fit to results of this optimizer."""
        instance_of(name, fitted, Fitted)
        size, (outputs, _, dim) = fitted.kept.size, fitted.kept.lengthscale.shape
        most, limited = len(self._history.completed), len(self.constraints)
        if size > most or (outputs, dim) != (1 + limited, self.space.dim):
            raise InvalidOption(
                f"{name}: expected a fit to at most {most} results, with {limited} constraints, in "
                f"{self.space.dim} dimensions; this one is to {size}, with {outputs - 1}, in {dim}"
            )

    def _is_newer(self, fitted: Fitted | None) -> bool:
        return fitted is not None and fitted.kept.size > self.fitted_size

    def _plan_model(self, refit: bool, thin: int = 1) -> Callable[[], Fitted]:
        """A fit, or (some of) the draws of the last one conditioned on all results so far."""
        truth_value("refit", refit)
        last = self._fitted
        knows_all = self.fitted_size == len(self._history.completed)
        if refit or last is None or (knows_all and thin == 1):
            return self.plan_fit()
        kept = last.kept.thinned(thin, len(self._history))
        data, nu = self._observations(), self.model.nu
        return lambda: Fitted.of(kept.condition(data, nu), data, last.kept)

    def _design_left(self, wanted: int) -> int:
        """How many of the ``wanted`` points belong to the initial design, enqueued ones included.

        A failed trial adds no data to the model, so the design replaces it; and without any result
        there is nothing to fit to.
        """
        if not self.strategy.uses_model:
            return 0
        results = len(self._history.completed)
        if results == 0:
            return wanted
        informative = results + len(self._history.pending)
        return min(wanted, max(0, self.initial - informative))

    def _end(self, known: Trial, told: Told) -> Trial:
        repeated = known.status is not TrialStatus.PENDING
        if repeated and Told(known.value, known.measured, known.reason) == told:
            return replace(known)
        trial = self._ended(known, told, time.time())
        with self._written(trials=[trial]):
            self._history.remember(trial)
        return trial

    def _ended(self, trial: Trial, told: Told, at: float) -> Trial:
        if told.value is None:
            return trial.failed(told.reason or "failed", at)
        broken = violated(self.constraints, told.measured)
        return trial.completed(told.value, at, told.measured, broken)

    @contextmanager
    def _written(self, fitted: Fitted | None = None, **written: Any) -> Iterator[None]:
        """Write this to the journal, then let the block remember it."""
        if self._journal is not None:
            self._ahead = True
            try:
                self._journal.write(**written, **_as_written(fitted))
            except StorageError:
                self._ahead = False  # nothing was written
                raise
        yield
        self._ahead = False

    @contextmanager
    def _in_agreement(self) -> Iterator[None]:
        """If Ctrl-C comes between writing to the journal and remembering, what was written counts,
        as if the process had been killed."""
        self._catch_up()
        try:
            yield
        finally:
            self._catch_up()

    def _catch_up(self) -> None:
        if self._ahead and self._journal is not None:
            self._restore(self._journal.read())
            self._ahead = False

    def _spec(self) -> dict[str, Any]:
        """How this optimizer was made, as plain values; None for what cannot be stored."""
        return {
            "space": write_space(self.space),
            "strategy": write_strategy(self.strategy),
            "direction": self.direction,
            "seed": self.seed,
            "initial": self.initial,
            "constraints": list(map(str, self.constraints)),
            "inference": self.inference,
            "model": write_model(self.model),
        }

    def _store(self, storage: "Storage | str | Path", name: str, exist_ok: bool) -> None:
        """Begin a stored job, or continue the existing one."""
        from gpbo.storage import resolve_storage

        store = resolve_storage(storage)

        def goes_on() -> bool:
            return exist_ok and is_among(name, store.names())

        if not goes_on():
            try:
                self._journal = store.create(name, self._spec())
                return
            except StorageError:
                if not goes_on():  # it does if another process was faster
                    raise
        check_same(self._spec(), store.read(name))  # before an earlier optimizer is closed
        with _driven(store, name) as journal:
            record = journal.read()
            self._restore(record)
            self._go_on(journal, record)

    def _go_on(self, journal: "Journal", record: "Record") -> None:
        """Drive the stored job from now on, with this optimizer's strategy and model."""
        spec = self._spec()
        if spec != record.spec:
            journal.write(spec=spec, engine=b"" if self._fitted is None else None)
        self._journal = journal

    def _restore(self, record: "Record") -> None:
        self._history.restore(record.trials, record.finished, record.queue)
        model = write_model(self.model)
        if record.engine is None or model != record.spec["model"]:
            return
        try:
            kept = Kept.from_bytes(record.engine, self.device)
        except Exception as error:  # noqa: BLE001  whatever is wrong with it, the trials are there
            why = type(error).__name__  # torch's message advises to run whatever code is in it
            logger.warning(
                "job %r: its last fit cannot be read and is ignored: %s", record.name, why
            )
            return
        data = self._observations(kept.size)
        # A model of the user's own is recognised only by its density.
        if model is not None or kept.has_density_of(data, self.model):
            self._fitted = Fitted.of(kept.condition(data, self.model.nu), data, kept)


@contextmanager
def _driven(store: "Storage", name: str) -> "Iterator[Journal]":
    """A stored job, which is released again if the block fails."""
    journal = store.open(name)
    try:
        yield journal
    except BaseException:
        journal.close()
        raise


def _copies(trials: Iterable[Trial]) -> list[Trial]:
    """Trials to hand out: changing the configuration of one does not change history."""
    return [replace(trial) for trial in trials]


def _as_written(fitted: Fitted | None) -> dict[str, Any]:
    """What the journal keeps of a fit."""
    if fitted is None:
        return {}
    kept = fitted.kept
    return {"engine": kept.to_bytes(), "fits": [kept.summary(time.time())]}

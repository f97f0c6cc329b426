"""The exception tree: one base class catches everything that gpbo raises on purpose."""

import inspect
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gpbo import errors, plots, problems
from gpbo.backend import DTYPE, resolve_device
from gpbo.command import Command
from gpbo.errors import (
    GpboError,
    InvalidData,
    InvalidOption,
    InvalidParams,
    InvalidResult,
    SpaceError,
    StorageError,
    TrialAlreadyFinished,
    UnknownTrial,
)
from gpbo.evidence import Model
from gpbo.fitting import Sampling
from gpbo.lockstep import replicate
from gpbo.loop import minimize
from gpbo.model_free import GridSearch
from gpbo.optimizer import Optimizer
from gpbo.priors import Fixed, Gamma, Normal, Uniform
from gpbo.replications import Replications
from gpbo.simulation import pareto, simulate
from gpbo.space import Integer, Real, Space
from gpbo.storage import SqliteStorage
from gpbo.strategies import ThompsonSampling
from gpbo.trust_region import NestedBoxes, TrustRegion
from gpbo.tuner import Tuner
from tests.monte_carlo import unchecked_shapes

CLASSES: dict[str, type[Exception]] = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, Exception)
}
ALSO_BUILTIN = {
    "SpaceError": ValueError,
    "InvalidParams": ValueError,
    "InvalidOption": ValueError,
    "InvalidData": ValueError,
    "InvalidResult": ValueError,
    "UnknownTrial": KeyError,
    "UnknownJob": KeyError,
    "InvalidJob": ValueError,
}


def test_every_error_is_caught_as_a_gpbo_error() -> None:
    assert len(CLASSES) > 5
    for error in CLASSES.values():
        assert issubclass(error, GpboError)


@pytest.mark.parametrize("name", ALSO_BUILTIN)
def test_errors_that_have_a_builtin_kind_are_of_that_kind_too(name: str) -> None:
    with pytest.raises(ALSO_BUILTIN[name], match="what went wrong"):
        raise CLASSES[name]("what went wrong")


def test_no_other_error_is_a_builtin_kind() -> None:
    for name in set(CLASSES) - set(ALSO_BUILTIN):
        assert not issubclass(CLASSES[name], (ValueError, KeyError, TypeError, RuntimeError))


def test_the_drawn_tree_names_every_class_and_its_builtin_kind() -> None:
    documentation = errors.__doc__ or ""
    for name in CLASSES:
        (line,) = re.findall(rf"^.*\b{name}\b.*$", documentation, re.MULTILINE)
        drawn = re.search(r"\(also (\w+)\)", line)
        builtin = ALSO_BUILTIN.get(name)
        assert (drawn.group(1) if drawn else None) == (builtin.__name__ if builtin else None)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_reads_as_its_message(name: str) -> None:
    # A plain KeyError would show its message in quotes.
    assert str(CLASSES[name]("no trial has id 7")) == "no trial has id 7"


def test_an_error_without_a_message_reads_as_nothing() -> None:
    assert str(UnknownTrial()) == str(TrialAlreadyFinished()) == ""


def _model_on_infinity() -> object:
    x = torch.full((1, 1, 1), torch.inf, dtype=DTYPE)
    return Model().log_posterior(x, torch.zeros(1, 1, dtype=DTYPE), torch.ones(1, 1).bool())


@pytest.mark.parametrize(
    ("mistake", "kind", "says"),
    [
        (lambda: resolve_device("quantum"), InvalidOption, "device='quantum'"),
        (lambda: Model(nu=2.0), InvalidOption, "nu=2.0"),
        (lambda: Model(prior="flat"), InvalidOption, "prior='flat'"),
        (lambda: Gamma(0.0, 1.0), InvalidOption, "concentration=0.0"),
        (lambda: Real("rate", 1.0, 0.0), SpaceError, "rate"),
        (_model_on_infinity, InvalidData, "finite"),
    ],
)
def test_a_mistake_raises_a_gpbo_error_that_names_it(
    mistake: Callable[[], object], kind: type[GpboError], says: str
) -> None:
    with pytest.raises(GpboError, match=re.escape(says)) as caught:
        mistake()
    assert type(caught.value) is kind


BRANIN = problems.get("branin")
UNIT = Space(Real("x", 0, 1))
UNIT_OPTIMIZER = Optimizer(UNIT)


def another_branin(**changes: Any) -> problems.Problem:
    return replace(BRANIN, **changes)


COUNT, POSITIVE = "expected a whole number", "expected a positive number"


@pytest.mark.parametrize(
    ("call", "wrong", "kind", "says"),
    [
        (problems.get, {"name": ["a"]}, InvalidOption, "name=['a']: expected one of branin"),
        (problems.get, {"shift_seed": 1.5}, InvalidOption, f"shift_seed=1.5: {COUNT}"),
        (problems.get, {"shift_seed": "a"}, InvalidOption, f"shift_seed='a': {COUNT}"),
        (problems.get, {"shift_seed": -1}, InvalidOption, f"shift_seed=-1: {COUNT}"),
        (problems.get, {"shift_seed": [1, "a"]}, InvalidOption, f"shift_seed='a': {COUNT}"),
        (problems.get, {"shift_seed": [[1], [2, 3]]}, InvalidOption, f"shift_seed=[1]: {COUNT}"),
        (problems.get, {"noise": 10**400}, InvalidOption, "expected a finite number, 0 or more"),
        (lambda seed: BRANIN.shifted(seed), {"seed": 1.5}, InvalidOption, f"seeds=1.5: {COUNT}"),
        (BRANIN, {"x": [0.1, 0.2]}, InvalidData, "x has type list: expected a tensor"),
        (BRANIN, {"x": torch.tensor(0.1)}, InvalidData, "x has shape (): expected (..., 2)"),
        (simulate, {"times": 3}, InvalidOption, "times=3: expected one of constant"),
        (pareto, {"shape": "a"}, InvalidOption, "shape='a': expected a finite number"),
        (
            NestedBoxes,
            {"lengths": "a"},
            InvalidOption,
            "lengths='a': expected a tuple of one or more",
        ),
        (
            NestedBoxes,
            {"lengths": 0.4},
            InvalidOption,
            "lengths=0.4: expected a tuple of one or more",
        ),
        (NestedBoxes, {"lengths": ("a",)}, InvalidOption, f"lengths='a': {POSITIVE}"),
        (TrustRegion, {"batch": 1.5}, InvalidOption, f"batch=1.5: {COUNT}"),
        (TrustRegion, {"successes": None}, InvalidOption, f"successes=None: {COUNT}"),
        (TrustRegion, {"failures": "a"}, InvalidOption, f"failures='a': {COUNT}"),
        (TrustRegion, {"length": "a"}, InvalidOption, f"length='a': {POSITIVE}"),
        (NestedBoxes, {"others": -1}, InvalidOption, "others=-1"),
        (ThompsonSampling, {"region": NestedBoxes}, InvalidOption, "expected NestedBoxes(), "),
        (Sampling, {"chains": "a"}, InvalidOption, f"chains='a': {COUNT}"),
        (Sampling, {"warmup": -1}, InvalidOption, f"warmup=-1: {COUNT}"),
        (Normal, {"loc": "a"}, InvalidOption, "Normal: loc='a' is out of range"),
        (Gamma, {"concentration": None, "rate": 1}, InvalidOption, "concentration=None is out of"),
        (Uniform, {"low": 0, "high": "a"}, InvalidOption, "Uniform: high='a' is out of range"),
        (Fixed, {"value": "a"}, InvalidOption, "Fixed: value='a' is out of range"),
        (UNIT.encode, {"configurations": 3}, InvalidParams, "configurations=3: expected a list"),
        (UNIT.encode, {"configurations": {"x": 1}}, InvalidParams, "configurations={'x': 1}: expe"),
        (UNIT.decode, {"x": [[0.5]]}, InvalidData, "x has type list: expected a tensor"),
        (
            UNIT_OPTIMIZER.learn,
            {"results": [{"x": 1}]},
            InvalidResult,
            "expected (configuration, value), ",
        ),
        (UNIT_OPTIMIZER.learn, {"results": 5}, InvalidResult, "results=5: expected a list of p"),
        (UNIT_OPTIMIZER.learn, {"queue": {"x": 1}}, InvalidParams, "queue={'x': 1}: expected a l"),
        (UNIT.encode, {"configurations": ["x"]}, InvalidParams, "expected a list of mappings, not"),
        (Real, {"scale": np.array(["log", "x"])}, SpaceError, "expected 'linear', 'log' or 'rev"),
        (Integer, {"scale": np.array(["log", "x"])}, SpaceError, "expected 'linear' or 'log'"),
        (Optimizer, {"direction": np.array(["a", "b"])}, InvalidOption, "'minimize' or 'max"),
        (resolve_device, {"device": np.array(["a", "b"])}, InvalidOption, "expected 'auto', 'cpu'"),
        (
            simulate,
            {"latency": np.array([1.0, 2.0])},
            InvalidOption,
            "expected 'measured' or a finite n",
        ),
        (simulate, {"progress": "no"}, InvalidOption, "progress='no': expected True or False"),
        (replicate, {"progress": 3}, InvalidOption, "progress=3: expected True or False"),
        (minimize, {"progress": "no"}, InvalidOption, "progress='no': expected True or False"),
        (minimize, {"callbacks": print}, InvalidOption, "expected a list of gpbo.callbacks.Callb"),
        (
            minimize,
            {"callbacks": [print]},
            InvalidOption,
            "a class that inherits from it and overrides `ended",
        ),
        (minimize, {"callbacks": [print]}, InvalidOption, "callbacks=[<built-in function print>]"),
        (Command, {"metric": "("}, InvalidOption, "metric='(': expected a regular expression"),
        (Tuner, {"folder": 3}, InvalidOption, "folder=3: expected an instance of str or Path"),
        (
            Replications.load,
            {"path": "no.npz"},
            InvalidData,
            "there is no such file: expected a file that Replications.save wrote",
        ),
        (SqliteStorage, {"path": "sqlite:///a.db"}, StorageError, "of a file, not a URL"),
        (SqliteStorage, {"path": "."}, StorageError, "storage='.': expected the path of a file,"),
        (GridSearch, {"shuffle": "no"}, InvalidOption, "shuffle='no': expected True or False"),
        (ThompsonSampling, {"hallucinate": 1}, InvalidOption, "hallucinate=1: expected True or "),
        (
            another_branin,
            {"bounds": [[0, 0], [1, 1]]},
            InvalidData,
            "bounds has type list: expected a te",
        ),
        (
            another_branin,
            {"bounds": torch.zeros(3, 2)},
            InvalidData,
            "shape (3, 2): expected (2, 2)",
        ),
        (
            another_branin,
            {"unshifted_minimizers": torch.zeros(2)},
            InvalidData,
            "(2,): expected (any, 2)",
        ),
        (another_branin, {"dim": 3}, InvalidData, "bounds has shape (2, 2): expected (2, 3)"),
        (plots.convergence, {"results": 3}, InvalidOption, "results=3: expected a gpbo"),
        (plots.regret, {"runs": {"a": 3}}, InvalidOption, "runs={'a': 3}: expected a gpbo.Re"),
        (plots.slices, {"source": None}, InvalidOption, "source has type NoneType: expected a gp"),
        (plots.check_path, {"name": "path", "path": 3}, InvalidOption, "path=3: expected a path"),
        (plots.check_path, {"name": "path", "path": "\0.png"}, InvalidOption, "path of a file in"),
    ],
)
def test_what_is_of_a_wrong_kind_is_refused_by_name(
    call: Callable[..., object], wrong: dict[str, Any], kind: type[GpboError], says: str
) -> None:
    needed: dict[Any, dict[str, Any]] = {
        problems.get: {"name": "branin"},
        simulate: {"problem": BRANIN, "workers": 1, "budget": 1},
        replicate: {"problem": BRANIN, "runs": 1, "budget": 1},
        minimize: {"objective": float, "space": UNIT, "budget": 1},
        Optimizer: {"space": UNIT},
        Real: {"name": "x", "low": 1, "high": 2},
        Integer: {"name": "x", "low": 1, "high": 2},
        Command: {"template": "echo"},
        Tuner: {"optimizer": UNIT_OPTIMIZER, "objective": float, "budget": 1},
    }
    with unchecked_shapes(), pytest.raises(kind, match=re.escape(says)):
        call(**{**needed.get(call, {}), **wrong})


@pytest.mark.parametrize(
    ("read", "library", "gap"),
    [
        (lambda: json.loads("nothing"), f"json{os.sep}", False),  # three frames deep
        (lambda: re.compile("("), f"re{os.sep}", True),  # and six
    ],
    ids=["json", "re"],
)
def test_a_reason_has_the_line_of_the_user_s_code_however_deep_the_library(
    read: Callable[[], object], library: str, gap: bool
) -> None:
    def objective(params: Any) -> float:
        read()
        return 0.0

    space = Space(Real("x", 0.0, 1.0))
    (trial,) = minimize(objective, space, budget=1, progress=False).trials
    told, own, *lines = str(trial.reason).splitlines()
    assert "Error" in told or told.startswith("re.error")
    assert own.startswith(f'  File "{__file__}", line ')
    frames = [line for line in lines if "File " in line]
    assert len(frames) == 3
    assert all(library in line for line in frames)
    assert ("  …" in lines) == gap


def test_a_reason_has_no_frame_twice() -> None:
    def objective(params: Any) -> float:
        raise ValueError("no")

    space = Space(Real("x", 0.0, 1.0))
    (trial,) = minimize(objective, space, budget=1, progress=False).trials
    assert str(trial.reason).count("in objective") == 1
    assert "…" not in str(trial.reason)

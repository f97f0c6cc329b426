"""The exception tree: one base class catches everything that gpbo raises on purpose."""

import inspect
import re
from collections.abc import Callable

import pytest
import torch

from gpbo import errors
from gpbo.backend import DTYPE, resolve_device
from gpbo.errors import (
    GpboError,
    InvalidData,
    InvalidOption,
    SpaceError,
    TrialAlreadyFinished,
    UnknownTrial,
)
from gpbo.evidence import Model
from gpbo.priors import Gamma
from gpbo.space import Real

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

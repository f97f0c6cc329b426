"""torch's default precision and device are the user's: the engine names its own everywhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import gpbo
from gpbo.simulation import simulate

SPACE = gpbo.Space(
    gpbo.Real("x", 0, 1), gpbo.Integer("depth", 1, 5), gpbo.Categorical("kind", ["a", "b"])
)


def objective(params: dict[str, Any]) -> float:
    return (params["x"] - 0.3) ** 2 + params["depth"] + (params["kind"] == "b")


def trials(**options: Any) -> list[Any]:
    result = gpbo.minimize(objective, SPACE, budget=10, progress=False, **options)
    return [trial.params for trial in result.trials]


def replicated(**options: Any) -> Any:
    return gpbo.replicate("branin", runs=2, budget=8, progress=False, **options).points.tolist()


def simulated() -> Any:
    return simulate("branin", workers=2, budget=8, progress=False).points.tolist()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


WORK: dict[str, Callable[[], Any]] = {
    "hmc": trials,
    "nuts": lambda: trials(inference="nuts"),
    "saas": lambda: trials(model=gpbo.Model(prior="saas")),
    "pi, map": lambda: trials(strategy="pi", inference="map"),
    "ts": lambda: trials(strategy="ts"),
    "trust region": lambda: trials(
        strategy=gpbo.ThompsonSampling(region=gpbo.TrustRegion()), inference="map"
    ),
    "random": lambda: trials(strategy="random"),
    "sobol": lambda: trials(strategy="sobol"),
    "replicate": replicated,
    "simulate": simulated,
}


@pytest.mark.parametrize("what", WORK)
def test_the_users_defaults_change_nothing(what: str) -> None:
    expected = WORK[what]()
    with default_dtype(torch.float16):
        assert WORK[what]() == expected
    with torch.device("meta"):
        assert WORK[what]() == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert WORK[what]() == expected

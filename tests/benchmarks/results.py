"""Results made by hand, for the tests of what is made of results."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

import gpbo
from gpbo_benchmarks import table
from gpbo_benchmarks.suites import Case
from gpbo_benchmarks.trace import Trace

Values = Sequence[float | None]


def trace(
    method: str,
    seed: int,
    truth: Values,
    *,
    problem: str = "branin",
    values: Values | None = None,
    recommended: Values = (),
    seconds: Sequence[float] | None = None,
    clock: Sequence[float] = (),
    budget: int | None = None,
    failure: str | None = None,
) -> Trace:
    count = len(truth)
    seen = truth if values is None else values
    spent = tuple(0.5 for _ in truth) if seconds is None else tuple(seconds)
    return Trace(
        method,
        problem,
        seed,
        count if budget is None else budget,
        2,
        params=tuple({"x1": 1.0, "x2": 2.0} for _ in truth),
        values=tuple(seen),
        truth=tuple(truth),
        status=tuple("failed" if value is None else "completed" for value in seen),
        ask_s=spent,
        fit_s=tuple(0.5 * s for s in spent),
        acquisition_s=tuple(0.25 * s for s in spent),
        evaluation_s=tuple(1.0 for _ in truth),
        clock=tuple(clock),
        recommended_truth=tuple(recommended),
        versions={"gpbo": "9"},
        failure=failure,
    )


def case(name: str = "branin", *, known: bool = True, noise: float = 0.0) -> Case:
    """A case of two dimensions, a design of two and an optimum that is easy to subtract."""
    optimum = 1.0 if known else math.nan
    problem = replace(gpbo.problems.get("branin"), optimum=optimum, noise=noise)
    return Case(name, problem, budget=4)


def rows(*traces: Trace, known: bool = True, noise: float = 0.0) -> pd.DataFrame:
    """The rows of these traces, whose cases have the optimum 1."""
    cases = [case(trace.problem, known=known, noise=noise) for trace in traces]
    parts = [
        table.rows("smoke", one, [trace]).to_pandas()
        for one, trace in zip(cases, traces, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def header(seeds: int) -> Mapping[str, object]:
    """What a file of results says of itself."""
    return {
        "suite": "smoke",
        "seeds": list(range(seeds)),
        "commit": "abc",
        "date": "2026-01-01",
        "processor": "one",
        "cores": 2,
        "gpu": None,
        "python": "3.11",
        "processes": 1,
        "versions": {"gpbo": "9"},
    }

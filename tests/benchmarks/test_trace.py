"""Traces survive JSON and refuse what does not fit together."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpbo_benchmarks.trace import Trace

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(st.none(), NUMBERS)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    count = draw(st.integers(0, 5))

    def column(kind: st.SearchStrategy) -> tuple[Any, ...]:
        return tuple(draw(st.lists(kind, min_size=count, max_size=count)))

    params = st.fixed_dictionaries({"x": NUMBERS, "layers": st.integers(), "kind": st.text()})
    optional = count if draw(st.booleans()) else 0
    return Trace(
        method=draw(st.text()),
        problem="branin",
        seed=draw(st.integers(0)),
        budget=count + draw(st.integers(0, 3)),
        design=draw(st.integers(0, 5)),
        params=column(params),
        values=column(VALUES),
        truth=column(VALUES),
        status=column(st.sampled_from(["completed", "failed"])),
        ask_s=column(NUMBERS),
        fit_s=column(VALUES)[:optional],
        evaluation_s=column(NUMBERS),
        recommended=column(st.one_of(st.none(), params))[:optional],
        versions=draw(st.dictionaries(st.text(), st.text(), max_size=2)),
        failure=draw(st.one_of(st.none(), st.text())),
    )


@given(trace=traces())
def test_a_trace_is_the_same_after_json(trace: Trace) -> None:
    assert Trace.from_plain(json.loads(json.dumps(trace.to_plain()))) == trace


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"params": ({"x": 1.0},) * 3}, "params: 3 entries: expected at most budget=2"),
        ({"values": (1.0,)}, "values: 1 entries: params has 0"),
        ({"clock": (1.0,)}, "clock: 1 entries: expected none or 0"),
    ],
)
def test_columns_of_different_lengths_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Trace("ei", "branin", 0, 2, 1, **options)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="colour: expected keys of a Trace"):
        Trace.from_plain({**Trace("ei", "branin", 0, 2, 1).to_plain(), "colour": "red"})

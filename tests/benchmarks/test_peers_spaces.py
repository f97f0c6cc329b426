"""Configurations cross to every peer and back unharmed, in the peer's own kinds of parameters."""

import itertools
import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gpbo
from gpbo_benchmarks.peers.adapters.space import Parameter
from gpbo_benchmarks.peers.failure import PeerFailure
from gpbo_benchmarks.peers.spaces import SearchedSpace

SPACE = gpbo.Space(
    gpbo.Real("width", -3.0, 5.0),
    gpbo.Real("rate", 1e-5, 0.1, "log"),
    gpbo.Real("momentum", 0.0, 0.9999, "reverse_log"),
    gpbo.Integer("depth", -2, 4),
    gpbo.Integer("units", 1, 512, "log"),
    gpbo.Ordinal("batch", (16, 32, 64)),
    gpbo.Categorical("kind", ("b", None, True, 2.5)),
    gpbo.Categorical("only", ("one",)),
    gpbo.Integer("always", 3, 3),
)
SEARCHED = SearchedSpace(SPACE)


def test_what_crosses() -> None:
    assert SEARCHED.parameters == (
        Parameter("p0", "real", -3.0, 5.0),
        Parameter("p1", "real", 1e-5, 0.1, log=True),
        Parameter("p2", "real", 0.0, pytest.approx(math.log(1e4), rel=1e-9)),
        Parameter("p3", "integer", -2, 4),
        Parameter("p4", "integer", 1, 512, log=True),
        Parameter("p5", "ordinal", 0, 2),
        Parameter("p6", "categorical", 0, 3),
    )


def test_a_reverse_log_scale_crosses_as_equal_steps_of_its_logarithm() -> None:
    numbers = [SEARCHED.encode(_params(m))["p2"] for m in (0.9, 0.99, 0.999)]
    assert numbers[1] - numbers[0] == pytest.approx(math.log(10), rel=1e-12)
    assert numbers[2] - numbers[1] == pytest.approx(math.log(10), rel=1e-12)


def _params(momentum: float) -> dict[str, Any]:
    return {
        "width": 0.0, "rate": 1e-3, "momentum": momentum, "depth": 0, "units": 8,
        "batch": 32, "kind": None, "only": "one", "always": 3,
    }  # fmt: skip


@st.composite
def reals(draw: st.DrawFn, name: str) -> gpbo.Real:
    scale = draw(st.sampled_from(["linear", "log", "reverse_log"]))
    if scale == "reverse_log":
        low = draw(st.floats(0, 0.5))
        return gpbo.Real(name, low, draw(st.floats(low + 0.1, 0.99999)), "reverse_log")
    if scale == "log":
        low = draw(st.floats(1e-8, 1e3))
        return gpbo.Real(name, low, low * draw(st.floats(1.5, 1e6)), "log")
    low = draw(st.floats(-1e6, 1e6))
    return gpbo.Real(name, low, low + draw(st.floats(1e-2, 1e6)))


@st.composite
def integers(draw: st.DrawFn, name: str) -> gpbo.Integer:
    if draw(st.booleans()):
        low = draw(st.integers(1, 1000))
        return gpbo.Integer(name, low, low + draw(st.integers(0, 5000)), "log")
    low = draw(st.integers(-1000, 1000))
    return gpbo.Integer(name, low, low + draw(st.integers(0, 5000)))


ANYTHING = st.one_of(st.text(max_size=3), st.integers())
LISTED = st.lists(ANYTHING, min_size=1, max_size=5, unique=True)
KINDS = st.sampled_from(["real", "integer", "ordinal", "categorical"])


@st.composite
def spaces(draw: st.DrawFn) -> gpbo.Space:
    parameters: list[Any] = []
    for index, kind in enumerate(draw(st.lists(KINDS, min_size=1, max_size=5))):
        name = f"{kind} {index}"
        if kind == "real":
            parameters.append(draw(reals(name)))
        elif kind == "integer":
            parameters.append(draw(integers(name)))
        elif kind == "ordinal":
            parameters.append(gpbo.Ordinal(name, draw(LISTED)))
        else:
            parameters.append(gpbo.Categorical(name, draw(LISTED)))
    return gpbo.Space(parameters)


@given(space=spaces(), data=st.data())
def test_every_configuration_crosses_and_comes_back(space: gpbo.Space, data: st.DataObject) -> None:
    if space.size == 1:
        with pytest.raises(PeerFailure, match="one configuration only"):
            SearchedSpace(space)
        return
    searched = SearchedSpace(space)
    x = [data.draw(st.floats(0, 1)) for _ in range(space.dim)]
    (params,) = space.decode(torch.tensor([x], dtype=torch.double))
    point = json.loads(json.dumps(searched.encode(params)))
    back = searched.decode(point)
    assert list(back) == list(space.names)
    for parameter in space.parameters:
        value, expected = back[parameter.name], params[parameter.name]
        if not isinstance(parameter, gpbo.Real):
            assert value == expected
            assert type(value) is type(expected)
        elif parameter.scale == "reverse_log":
            assert 1 - value == pytest.approx(1 - expected, rel=1e-12)
        else:
            assert value == expected


@given(space=spaces(), data=st.data())
def test_every_point_that_a_peer_may_propose_is_a_configuration(
    space: gpbo.Space, data: st.DataObject
) -> None:
    if space.size == 1:
        return
    searched = SearchedSpace(space)
    point = {}
    for parameter in searched.parameters:
        coordinate = data.draw(st.floats(-0.1, 1.1))
        value = parameter.from_unit(coordinate)
        assert parameter.low <= value <= parameter.high
        if parameter.kind != "real":
            assert value == round(value)
            assert parameter.from_unit(parameter.to_unit(value)) == value
        else:
            again = parameter.from_unit(parameter.to_unit(value))
            width = parameter.high - parameter.low
            assert again == pytest.approx(value, rel=1e-9, abs=1e-9 * width)
        point[parameter.name] = value
    params = searched.decode(point)
    assert space.validate(params) == params


@given(name=st.sampled_from(["p0", "p1", "p2"]), share=st.floats(-9e-6, 1 + 9e-6))
def test_a_rounding_beyond_a_bound_is_the_bound(name: str, share: float) -> None:
    parameter = next(p for p in SEARCHED.parameters if p.name == name)
    point = SEARCHED.encode(_params(0.5)) | {
        name: parameter.low + share * (parameter.high - parameter.low)
    }
    assert SPACE.validate(SEARCHED.decode(point))


@pytest.mark.parametrize("share", [-2e-5, 1 + 2e-5, math.nan, math.inf])
def test_more_than_a_rounding_beyond_a_bound_is_a_failure(share: float) -> None:
    point = SEARCHED.encode(_params(0.5)) | {"p0": -3.0 + share * 8.0}
    with pytest.raises(PeerFailure, match="out of range"):
        SEARCHED.decode(point)


def test_the_cells_of_a_discrete_parameter_are_equally_wide() -> None:
    parameter = Parameter("p0", "integer", -2, 4)
    edges = [i / 7 for i in range(8)]
    inside = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    assert [parameter.from_unit(x) for x in inside] == [-2, -1, 0, 1, 2, 3, 4]
    assert [parameter.to_unit(v) for v in range(-2, 5)] == pytest.approx(inside)

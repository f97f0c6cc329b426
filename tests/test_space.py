"""Spaces: every cube point is a legal configuration, and going there and back changes nothing."""

import itertools
import math
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.errors import InvalidData, InvalidOption, InvalidParams, SpaceError
from gpbo.parameters import FEW_VALUES, LARGEST_INTEGER
from gpbo.space import Categorical, Integer, Ordinal, Parameter, Real, Space
from tests.monte_carlo import unchecked_shapes

MIXED = Space(
    Real("rate", 1e-6, 10.0, "log"),
    Integer("depth", 1, 50),
    Categorical("activation", ["sigmoid", "relu", "tanh"]),
    Real("momentum", 0.0, 0.999, "reverse_log"),
    Ordinal("width", (16, 32, 64, 128, 256)),
    Integer("trees", 1, 1000, "log"),
    Real("shift", -2.0, 3.0),
)


def values(minimum: float, maximum: float) -> st.SearchStrategy[float]:
    return st.floats(minimum, maximum, allow_nan=False, allow_infinity=False)


def ordered_pair(one: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
    return (
        st.lists(one, min_size=2, max_size=2)
        .map(sorted)
        .filter(lambda pair: pair[1] - pair[0] > 1e-3 * max(map(abs, pair)))
    )


@st.composite
def a_parameter(draw: st.DrawFn, name: str) -> Parameter:
    kind = draw(st.sampled_from(["linear", "log", "reverse", "integer", "log-integer", "listed"]))
    if kind == "linear":
        low, high = draw(ordered_pair(values(-1e12, 1e12)))
        return Real(name, low, high)
    if kind == "log":
        low, high = draw(ordered_pair(values(1e-300, 1e300)))
        return Real(name, low, high, "log")
    if kind == "reverse":
        low, high = draw(ordered_pair(values(0.0, 1 - 1e-6)))
        return Real(name, low, high, "reverse_log")
    if kind == "integer":
        bound = st.integers(-LARGEST_INTEGER, LARGEST_INTEGER) | st.integers(-5, 5)
        low, high = sorted(draw(st.lists(bound, min_size=2, max_size=2)))
        return Integer(name, low, high)
    if kind == "log-integer":
        bound = st.integers(1, LARGEST_INTEGER) | st.integers(1, 9)
        low, high = sorted(draw(st.lists(bound, min_size=2, max_size=2)))
        return Integer(name, low, high, "log")
    choices = draw(st.lists(st.integers(-9, 9) | st.text(max_size=3), min_size=1, unique=True))
    return draw(st.sampled_from([Categorical, Ordinal]))(name, choices)


@st.composite
def a_space(draw: st.DrawFn) -> Space:
    return Space([draw(a_parameter(f"p{i}")) for i in range(draw(st.integers(1, 5)))])


@st.composite
def a_space_and_points(draw: st.DrawFn) -> tuple[Space, Tensor]:
    space = draw(a_space())
    coordinate = values(0.0, 1.0) | st.sampled_from([0.0, 0.5, 1.0])
    row = st.lists(coordinate, min_size=space.dim, max_size=space.dim)
    return space, torch.tensor(draw(st.lists(row, min_size=1, max_size=3)), dtype=DTYPE)


def a_configuration(space: Space) -> st.SearchStrategy[dict[str, Any]]:
    def legal(parameter: Parameter) -> st.SearchStrategy[Any]:
        match parameter:
            case Real(low=low, high=high):
                return values(low, high)
            case Integer(low=low, high=high):
                return st.integers(low, high)
            case Categorical(choices=listed) | Ordinal(values=listed):
                return st.sampled_from(listed)
        raise AssertionError(parameter)

    return st.fixed_dictionaries({p.name: legal(p) for p in space.parameters})


def points(space: Space, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, space.dim, generator=generator, dtype=DTYPE)


#: A value near 1e12 in a range a thousandth as wide, or near 1 on the reverse-log scale, has few
#: digits left for its place in the range; hypothesis finds such spaces.
LOSSY = 1e-6


def apart(space: Space, one: dict[str, Any], two: dict[str, Any]) -> float:
    """The largest difference of two configurations, in cube units."""
    return float((space.encode([one]) - space.encode([two])).abs().max())


@pytest.mark.parametrize("shape", [(3,), (2, 99), (2, 1), (1, 2, 3)])
def test_points_of_another_dimension_are_refused(shape: tuple[int, ...]) -> None:
    with unchecked_shapes(), pytest.raises(InvalidData, match=r"x has shape .*: expected \(n, 3\)"):
        Space([Real(name, 0.0, 1.0) for name in "abc"]).decode(torch.zeros(shape))


@given(st.data())
@settings(deadline=None)
def test_decoding_an_encoded_configuration_gives_it_back(data: st.DataObject) -> None:
    space = data.draw(a_space())
    params = data.draw(a_configuration(space))
    x = space.encode([params])
    assert bool(((x >= 0) & (x <= 1)).all())
    [back] = space.decode(x)
    for parameter in space.parameters:
        before, after = params[parameter.name], back[parameter.name]
        if isinstance(parameter, Real):
            at_bound = before in (parameter.low, parameter.high)
            assert after == before or not at_bound, "bounds are exact"
        else:
            assert (after, type(after)) == (before, type(before))
    assert apart(space, params, back) <= LOSSY


@given(a_configuration(MIXED))
@settings(deadline=None)
def test_decoding_an_encoded_configuration_is_exact_to_rounding(params: dict[str, Any]) -> None:
    [back] = MIXED.decode(MIXED.encode([params]))
    assert back == params | {name: back[name] for name in ("rate", "momentum", "shift")}
    assert back["rate"] == pytest.approx(params["rate"], rel=1e-13)
    assert back["momentum"] == pytest.approx(params["momentum"], rel=0, abs=1e-15)
    assert back["shift"] == pytest.approx(params["shift"], rel=0, abs=2e-15)


@given(a_space_and_points())
@settings(deadline=None)
def test_every_cube_point_decodes_to_a_legal_configuration(
    space_and_points: tuple[Space, Tensor],
) -> None:
    space, x = space_and_points
    for params in space.decode(x):
        assert space.validate(params) == params


@given(a_space_and_points())
@settings(deadline=None)
def test_snapping_keeps_the_configuration_and_is_encoding_what_was_decoded(
    space_and_points: tuple[Space, Tensor],
) -> None:
    space, x = space_and_points
    snapped = space.snap(x)
    assert space.decode(snapped) == space.decode(x)
    assert torch.equal(space.snap(snapped), snapped)
    assert torch.equal(snapped[:, space.continuous], x[:, space.continuous])
    torch.testing.assert_close(space.encode(space.decode(x)), snapped, atol=LOSSY, rtol=0)


@given(a_space_and_points())
@settings(deadline=None)
def test_points_in_single_precision_are_snapped_as_they_are_decoded(
    space_and_points: tuple[Space, Tensor],
) -> None:
    space, x = space_and_points
    rough = x.to(torch.float32)
    assert space.decode(space.snap(rough)) == space.decode(rough)


@given(a_space_and_points())
@settings(deadline=None)
def test_keys_are_equal_exactly_for_equal_configurations(
    space_and_points: tuple[Space, Tensor],
) -> None:
    space, x = space_and_points
    configurations = space.decode(x)
    for one, two in itertools.product(configurations, repeat=2):
        assert (space.key(one) == space.key(two)) == (one == two)


@given(a_space_and_points())
@settings(deadline=None)
def test_neighbours_differ_in_exactly_one_discrete_parameter_and_in_distinct_ways(
    space_and_points: tuple[Space, Tensor],
) -> None:
    space, x = space_and_points
    [here] = space.decode(x[:1])
    neighbours = space.neighbours(x[0])
    assert torch.equal(space.snap(neighbours), neighbours)
    reals = neighbours[:, space.continuous]
    assert torch.equal(reals, x[:1, space.continuous].expand_as(reals))
    decoded = space.decode(neighbours)
    for params in decoded:
        [changed] = [name for name in space.names if params[name] != here[name]]
        assert not isinstance(space.parameters[space.names.index(changed)], Real)
    assert len({space.key(params) for params in decoded}) == len(decoded)
    assert torch.equal(space.neighbours(x)[0], neighbours), "a row is the same point alone"


@given(a_space(), st.integers(2, 4))
@settings(deadline=None, max_examples=50)
def test_a_grid_has_distinct_legal_configurations_and_reaches_the_bounds(
    space: Space, points_per_real: int
) -> None:
    first = list(itertools.islice(space.grid(points_per_real), 500))
    assert all(space.validate(params) == params for params in first)
    assert len({space.key(params) for params in first}) == len(first)
    for parameter in space.parameters:
        axis = [params[parameter.name] for params in Space(parameter).grid(points_per_real)]
        if isinstance(parameter, Real | Integer):
            assert (axis[0], axis[-1]) == (parameter.low, parameter.high)
            assert len(axis) == min(points_per_real, parameter.size or points_per_real)
        else:
            assert len(axis) == parameter.size


def test_a_mixed_space_lays_its_parameters_side_by_side() -> None:
    assert MIXED.dim == 9
    assert MIXED.names[2] == "activation"
    assert MIXED.slices[2] == slice(2, 5)
    assert MIXED.kinds[2:5] == ("categorical",) * 3
    assert MIXED.kinds[:3] == ("continuous", "ordered", "categorical")
    assert MIXED.continuous.tolist() == [True, False, *[False] * 3, True, False, False, True]
    assert MIXED.movable.tolist() == [True, True, *[False] * 3, *[True] * 4]
    assert MIXED.size is None
    assert Space(MIXED.parameters[1], MIXED.parameters[2]).size == 150


def test_encoding_puts_known_values_at_known_places() -> None:
    params = {
        "rate": 10 ** (-2.5),
        "depth": 1,
        "activation": "relu",
        "momentum": 1 - math.sqrt(0.001),
        "width": 64,
        "trees": 1000,
        "shift": -0.75,
    }
    top = math.log(1000 / 0.5) / math.log(1000.5 / 0.5)
    expected = [[0.5, 0.01, 0.0, 1.0, 0.0, 0.5, 0.5, top, 0.25]]
    torch.testing.assert_close(MIXED.encode([params]), torch.tensor(expected, dtype=DTYPE))


def test_no_configurations_encode_to_no_points_and_back() -> None:
    assert MIXED.encode([]).shape == (0, 9)
    assert MIXED.decode(torch.zeros(0, 9, dtype=DTYPE)) == []


@pytest.mark.parametrize(
    "parameter",
    [
        Integer("i", -3, 3),
        Ordinal("i", ("s", "m", "l")),
        Categorical("i", [False, True, None, "x", 2.5]),
    ],
)
def test_uniform_points_give_every_discrete_value_an_equal_share(parameter: Parameter) -> None:
    space = Space(parameter)
    assert space.size is not None
    total = 7000
    counts: dict[Any, int] = {}
    for params in space.decode(points(space, total)):
        counts[params["i"]] = counts.get(params["i"], 0) + 1
    share = total / space.size
    assert len(counts) == space.size
    assert all(abs(count - share) < 4.5 * math.sqrt(share) for count in counts.values())


def test_every_integer_of_a_log_scale_is_reached_and_has_its_share_of_the_logarithm() -> None:
    space = Space(Integer("i", 1, 7, "log"))
    x = torch.linspace(0, 1, 10001, dtype=DTYPE).unsqueeze(-1)
    decoded = [params["i"] for params in space.decode(x)]
    assert decoded == sorted(decoded)
    for value in range(1, 8):
        share = math.log((value + 0.5) / (value - 0.5)) / math.log(7.5 / 0.5)
        assert decoded.count(value) / 10001 == pytest.approx(share, abs=2e-4)


def test_points_outside_the_cube_count_as_the_nearest_inside() -> None:
    outside = torch.tensor(
        [[-1e-17, 1.0 + 1e-9, 2.0, 3.0, -5.0, 7.0, 1.0, -1.0, -0.1]], dtype=DTYPE
    )
    assert MIXED.decode(outside) == MIXED.decode(outside.clamp(0, 1))
    assert torch.equal(MIXED.snap(outside), MIXED.snap(outside.clamp(0, 1)))


def test_a_nan_stays_in_its_point_and_its_parameter() -> None:
    x = points(MIXED, 3)
    snapped = MIXED.snap(x)
    x[1] = math.nan
    broken = MIXED.snap(x)
    assert torch.equal(broken[::2], snapped[::2])
    assert torch.equal(broken[1].isnan(), MIXED.continuous)
    legal = torch.where(broken[1].isnan(), 0.5, broken[1])
    assert torch.equal(MIXED.snap(legal), legal)
    with pytest.raises(InvalidData, match="finite cube coordinates"):
        MIXED.decode(x)


def test_snapping_works_on_any_leading_axes_and_leaves_its_argument_alone() -> None:
    x = points(MIXED, 30).view(2, 3, 5, 9)
    before = x.clone()
    snapped = MIXED.snap(x)
    assert torch.equal(x, before)
    assert torch.equal(snapped[1, 2, 3], MIXED.snap(x[1, 2, 3]))
    assert MIXED.neighbours(x).shape == (2, 3, 5, 2 + 2 + 4 + 2, 9)


def test_ordered_neighbours_are_one_step_away_and_few_values_are_all_neighbours() -> None:
    def around(parameter: Parameter, value: Any) -> list[Any]:
        space = Space(parameter)
        x = space.encode([{"i": value}])[0]
        return sorted(params["i"] for params in space.decode(space.neighbours(x)))

    many = Integer("i", 1, FEW_VALUES + 1)
    assert around(many, 4) == [3, 5]
    assert around(many, 1) == [2, 3]
    assert around(many, 9) == [7, 8]
    assert around(Integer("i", 1, FEW_VALUES), 4) == [1, 2, 3, 5, 6, 7, 8]
    assert around(Categorical("i", list(range(20))), 4) == [i for i in range(20) if i != 4]
    assert around(Integer("i", 5, 5), 5) == []


def test_a_space_of_reals_has_no_neighbours() -> None:
    space = Space(Real("a", 0, 1), Real("b", 0, 1))
    assert space.neighbours(points(space, 1)[0]).shape == (0, 2)


def test_a_grid_runs_through_all_combinations_last_parameter_fastest() -> None:
    space = Space(Real("r", 0.01, 1, "log"), Categorical("c", ["ab", "b"]))
    grid = [(params["r"], params["c"]) for params in space.grid(3)]
    expected = [(0.01, "ab"), (0.01, "b"), (0.1, "ab"), (0.1, "b"), (1.0, "ab"), (1.0, "b")]
    assert [c for _, c in grid] == [c for _, c in expected]
    assert [r for r, _ in grid] == pytest.approx([r for r, _ in expected])


def test_many_integers_are_thinned_to_distinct_ones_on_their_scale() -> None:
    def axis(parameter: Parameter, count: int) -> list[int]:
        return [params["i"] for params in Space(parameter).grid(count)]

    assert axis(Integer("i", 0, 100), 5) == [0, 25, 50, 75, 100]
    assert axis(Integer("i", 1, 1000, "log"), 4) == [1, 10, 100, 1000]
    assert axis(Integer("i", 1, 10, "log"), 9) == [1, 2, 3, 4, 5, 6, 7, 8, 10]


def test_the_thinned_integers_end_at_the_bounds_whatever_their_size() -> None:
    lot = random.Random(0)
    for trial in range(1000):
        low = lot.randint(1, 10 ** lot.randint(1, 9))
        high = low + lot.randint(5, 10 ** lot.randint(1, 12))
        points = lot.randint(2, 7)
        grid = Integer("i", low, high, "log" if trial % 2 else "linear").grid(points)
        assert (grid[0], grid[-1]) == (low, high)
        assert all(a < b for a, b in itertools.pairwise(grid))
        assert len(grid) == min(points, high - low + 1)


def test_a_grid_needs_two_points_per_real() -> None:
    with pytest.raises(InvalidOption, match="points_per_real=1: expected a whole number, 2"):
        MIXED.grid(1)


def test_points_of_another_space_are_not_snapped() -> None:
    with pytest.raises(InvalidData, match=rf"x has shape \(5, 1\): expected \(..., {MIXED.dim}\)"):
        MIXED.snap(torch.zeros(5, 1, dtype=DTYPE))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Real("", 0, 1), "name must be a non-empty string"),
        (lambda: Real("x", 1, 0), r"Real\('x'\): low=1.0, high=0.0: expected low < high"),
        (lambda: Real("x", 1, 1), "expected low < high"),
        (lambda: Real("x", 0, math.inf), "high=inf: expected a finite number"),
        (lambda: Real("x", math.nan, 1), "low=nan: expected a finite number"),
        (lambda: Real("x", "0", 1), "low='0': expected a finite number"),  # type: ignore[arg-type]
        (lambda: Real("x", False, 1), "low=False: expected a finite number"),
        (lambda: Real("x", 0, 10**400), "expected a finite number"),
        (lambda: Real("x", 0, 1, "log"), "low=0.0: scale='log' needs low > 0"),
        (lambda: Real("x", -1, 1, "log"), "low=-1.0: scale='log' needs low > 0"),
        (lambda: Real("x", 0, 1, "reverse_log"), "scale='reverse_log' needs"),
        (lambda: Real("x", -0.1, 0.5, "reverse_log"), "scale='reverse_log' needs"),
        (lambda: Real("x", 1, 2, "logit"), "scale='logit': expected 'linear'"),  # type: ignore[arg-type]
        (lambda: Real("x", -1.7e308, 1.7e308), "too narrow or too wide"),
        (lambda: Real("x", 1e300, math.nextafter(1e300, 2e300), "log"), "too narrow"),
        (lambda: Integer("i", 3, 2), r"Integer\('i'\): low=3, high=2: expected low <= high"),
        (lambda: Integer("i", 0.5, 2), "low=0.5: expected an integer"),  # type: ignore[arg-type]
        (lambda: Integer("i", 0, True), "high=True: expected an integer"),
        (lambda: Integer("i", 0, 2**41), "expected an integer from"),
        (lambda: Integer("i", 0, 9, "log"), "low=0: scale='log' needs low >= 1"),
        (lambda: Integer("i", 1, 9, "reverse_log"), "expected 'linear' or 'log'"),  # type: ignore[arg-type]
        (lambda: Categorical("c", []), r"Categorical\('c'\): choices=\[\]: expected at least one"),
        (lambda: Categorical("c", "abc"), "choices='abc': expected a list or a tuple"),
        (lambda: Categorical("c", {1, 2}), "expected a list or a tuple"),  # type: ignore[arg-type]
        (lambda: Categorical("c", [1, 2, 1]), "has 1 and 1, which are equal"),
        (lambda: Categorical("c", [1, True]), "has 1 and True, which are equal"),
        (lambda: Categorical("c", [1, 1.0]), "has 1 and 1.0, which are equal"),
        (lambda: Categorical("c", [[1], [2]]), r"has \[1\], which is not hashable"),
        (lambda: Categorical("c", [torch.ones(2)]), r"has tensor\(\[1., 1.\]\), which is not hash"),
        (lambda: Ordinal("o", [math.nan]), "has nan, which does not equal itself"),
        (lambda: Space(), "at least one parameter"),
        (lambda: Space([]), "at least one parameter"),
        (lambda: Space(Real("x", 0, 1), Integer("x", 0, 1)), "two parameters have the name 'x'"),
        (lambda: Space("x"), "'x' is not a parameter"),  # type: ignore[arg-type]
        (lambda: Space({"x": 1}), "'x' is not a parameter"),  # type: ignore[dict-item]
    ],
)
def test_a_bad_definition_is_refused_with_the_name_and_what_is_allowed(
    make: Any, message: str
) -> None:
    with pytest.raises(SpaceError, match=message):
        make()


def legal() -> dict[str, Any]:
    return MIXED.decode(points(MIXED, 1))[0]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("rate", 0.0, r"rate=0.0: expected a real number from 1e-06 to 10.0"),
        ("rate", math.nan, "rate=nan: expected a real number"),
        ("rate", "0.1", "rate='0.1': expected a real number"),
        ("rate", True, "rate=True: expected a real number"),
        ("rate", None, "rate=None: expected a real number"),
        ("depth", 51, "depth=51: expected an integer from 1 to 50"),
        ("depth", 2.5, "depth=2.5: expected an integer"),
        ("depth", True, "depth=True: expected an integer"),
        ("activation", "gelu", "activation='gelu': expected one of 'sigmoid', 'relu', 'tanh'"),
        ("activation", ["relu"], r"activation=\['relu'\]: expected one of"),
        ("width", 48, "width=48: expected one of 16, 32, 64, 128, 256"),
    ],
)
def test_an_illegal_value_is_refused_with_its_name_and_what_is_allowed(
    name: str, value: Any, allowed: str
) -> None:
    wrong = legal() | {name: value}
    for act in (MIXED.validate, MIXED.key, lambda params: MIXED.encode([params])):
        with pytest.raises(InvalidParams, match=allowed):
            act(wrong)


def test_missing_and_unknown_names_are_refused() -> None:
    missing = legal()
    del missing["rate"], missing["depth"]
    with pytest.raises(InvalidParams, match="missing 'rate', 'depth': expected the names 'rate'"):
        MIXED.validate(missing)
    with pytest.raises(InvalidParams, match="unknown 'dept', 3: expected the names"):
        MIXED.validate(legal() | {"dept": 3, 3: 4})
    with pytest.raises(InvalidParams, match=r"params=\[1\]: expected a mapping"):
        MIXED.validate([1])


def test_values_become_plain_python_values() -> None:
    space = Space(
        Real("r", np.float32(0), 2),  # type: ignore[arg-type]
        Integer("i", 0, np.int64(9)),  # type: ignore[arg-type]
        Categorical("c", [np.int64(1), 2]),
    )
    params = {"r": np.float64(1.5), "i": np.int32(3), "c": np.float32(2)}
    valid = space.validate(params)
    assert valid == {"r": 1.5, "i": 3, "c": 2}
    assert [type(value) for value in valid.values()] == [float, int, int]
    assert space.validate({"r": 1, "i": 4.0, "c": 1}) == {"r": 1.0, "i": 4, "c": 1}
    assert space.key(params) == space.key(valid)


@pytest.mark.parametrize("kind", [Categorical, Ordinal])
def test_listed_values_become_plain_python_values_too(
    kind: type[Categorical] | type[Ordinal],
) -> None:
    space = Space(kind("c", [np.int64(8), np.float64(0.5), np.str_("many"), np.bool_(False)]))
    decoded = [params["c"] for params in space.grid(4)]
    assert decoded == [8, 0.5, "many", False]
    assert [type(value) for value in decoded] == [int, float, str, bool]


@pytest.mark.parametrize("kind", [Categorical, Ordinal])
def test_bytes_are_no_list_of_values(kind: type[Categorical] | type[Ordinal]) -> None:
    with pytest.raises(SpaceError, match="=b'abc': expected a list or a tuple"):
        kind("c", b"abc")


def test_true_is_not_one() -> None:
    flags, numbers = Space(Categorical("c", [False, True])), Space(Categorical("c", [0, 1]))
    assert flags.validate({"c": np.bool_(True)}) == {"c": True}
    assert flags.validate({"c": True})["c"] is True
    with pytest.raises(InvalidParams, match="c=1: expected one of False, True"):
        flags.validate({"c": 1})
    with pytest.raises(InvalidParams, match="c=True: expected one of 0, 1"):
        numbers.validate({"c": True})


@pytest.mark.parametrize("kind", [Categorical, Ordinal])
def test_a_nan_of_a_pandas_table_is_the_none_that_is_listed(
    kind: type[Categorical] | type[Ordinal],
) -> None:
    space = Space(kind("c", [2, None]))
    for nan in (math.nan, np.float64("nan")):
        assert space.validate({"c": nan}) == {"c": None}
        with pytest.raises(InvalidParams, match=r"c=.*nan.*: expected one of 2, 3"):
            Space(kind("c", [2, 3])).validate({"c": nan})


def test_a_space_is_a_value() -> None:
    again = Space(list(MIXED.parameters))
    assert again == MIXED
    assert hash(again) == hash(MIXED)
    assert Space(*MIXED.parameters[1:]) != MIXED
    assert MIXED.snap(points(MIXED, 1)).shape == (1, 9)
    copy = pickle.loads(pickle.dumps(MIXED))
    assert copy == MIXED
    assert copy.decode(points(MIXED, 2)) == MIXED.decode(points(MIXED, 2))
    assert repr(Space(Real("x", 0, 1))) == (
        "Space(Real(name='x', low=0.0, high=1.0, scale='linear'))"
    )


@pytest.mark.gpu
def test_snapping_and_neighbours_are_the_same_on_a_gpu() -> None:
    x = points(MIXED, 101)
    assert MIXED.snap(x.cuda()).device.type == "cuda"
    torch.testing.assert_close(MIXED.snap(x.cuda()).cpu(), MIXED.snap(x))
    torch.testing.assert_close(MIXED.neighbours(x.cuda()).cpu(), MIXED.neighbours(x))
    assert MIXED.decode(MIXED.snap(x.cuda())) == MIXED.decode(MIXED.snap(x))


def test_a_parameter_of_one_value_is_nowhere_to_go() -> None:
    space = Space(
        Integer("a", 3, 3), Integer("b", 3, 4), Ordinal("c", [7]), Categorical("d", ["x", "y"])
    )
    assert space.movable.tolist() == [False, True, False, False, False]
    assert space.kinds[:3] == ("ordered",) * 3


def test_of_many_configurations_the_wrong_one_is_named() -> None:
    space = Space(Real("x", 0, 1))
    with pytest.raises(InvalidParams, match=r"^configurations\[1\]: x=1.5: expected a real number"):
        space.encode([{"x": 0.5}, {"x": 1.5}])
    with pytest.raises(InvalidParams, match=r"^x=1.5: expected a real number"):
        space.encode([{"x": 1.5}])

"""Regret, ranks and tests against numbers worked out by hand and by other packages."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gpbo_benchmarks import analysis
from tests.benchmarks.results import rows, trace


def column(found: pd.DataFrame, name: str, method: str = "a", seed: int = 0) -> list[Any]:
    own = found[(found["method"] == method) & (found["seed"] == seed)]
    return own[name].tolist()


def test_regret_is_counted_from_the_optimum_and_never_grows() -> None:
    found = analysis.regrets(rows(trace("a", 0, [5.0, 3.0, 4.0, 1.0])))
    assert column(found, "simple") == [4.0, 2.0, 2.0, 0.0]
    assert column(found, "inference") == [4.0, 2.0, 2.0, 0.0]
    assert column(found, "scale") == [2.0] * 4
    assert column(found, "overhead_s") == [0.5, 1.0, 1.5, 2.0]
    assert column(found, "wall_s") == [1.5, 3.0, 4.5, 6.0]


def test_with_noise_the_best_looking_one_is_recommended_or_what_the_method_says() -> None:
    lucky = trace("a", 0, [5.0, 3.0, 4.0], values=[5.0, 6.0, 2.0])
    told = trace("b", 0, [5.0, 3.0, 4.0], values=[5.0, 6.0, 2.0], recommended=[None, 5.0, 3.0])
    found = analysis.regrets(rows(lucky, told, noise=0.1))
    assert column(found, "simple") == [4.0, 2.0, 2.0]
    assert column(found, "inference") == [4.0, 4.0, 3.0]
    assert column(found, "inference", "b") == [4.0, 4.0, 2.0]


def test_without_noise_the_best_observed_one_counts_whatever_is_recommended() -> None:
    told = trace("a", 0, [5.0, 3.0, 4.0], recommended=[None, 5.0, 4.0])
    assert column(analysis.regrets(rows(told)), "inference") == [4.0, 2.0, 2.0]


def test_a_run_that_ended_early_still_recommends_what_it_did() -> None:
    """Not the lucky one, which looks best."""
    seen: Any = {"values": [5.0, 6.0, 2.0], "recommended": [5.0, 5.0, 3.0]}
    part = trace("a", 0, [5.0, 3.0, 4.0], budget=5, failure="it crashed", **seen)
    assert column(analysis.regrets(rows(part, noise=0.1)), "inference") == [4.0, 4.0, 2.0, 2.0, 2.0]


def test_failures_and_missing_evaluations_are_rows_that_stay_where_they_were() -> None:
    part = trace("a", 0, [None, 3.0], budget=4, failure="it crashed")
    nothing = trace("b", 0, [], budget=4, failure="not there")
    whole = trace("c", 0, [5.0, 4.0, 2.0, 2.0])
    found = analysis.regrets(rows(part, nothing, whole))
    assert column(found, "status") == ["failed", "completed", "missing", "missing"]
    assert column(found, "simple") == [np.inf, 2.0, 2.0, 2.0]
    assert column(found, "inference") == [np.inf, 2.0, 2.0, 2.0]
    assert column(found, "simple", "b") == [np.inf] * 4
    assert column(found, "overhead_s") == [0.5, 1.0, 1.0, 1.0]
    assert column(found, "overhead_s", "b") == column(found, "wall_s", "b") == [0.0] * 4
    assert analysis.summary(found).set_index("method")["failed"].to_dict() == {
        "a": 1,
        "b": 1,
        "c": 0,
    }
    # A run without a value is the worst, and the design's regret is known from the others.
    assert analysis.ranks(found).loc["branin"].to_dict() == {"a": 2.0, "b": 3.0, "c": 1.0}


def test_what_violates_a_constraint_has_no_value() -> None:
    """Where the design has none that counts, regret is a share of the largest that there was."""
    late = replace(
        trace("a", 0, [5.0, 0.5, 4.0, 2.0]),
        status=("violated", "violated", "completed", "completed"),
    )
    later = replace(
        trace("b", 0, [5.0, 0.5, 1.5, 3.0]),
        status=("violated", "violated", "violated", "completed"),
    )
    never = replace(trace("c", 0, [5.0, 0.5, 1.0, 1.0]), status=("violated",) * 4)
    runs = rows(late, later, never)
    found = analysis.regrets(runs)
    assert column(found, "simple") == [np.inf, np.inf, 3.0, 1.0]
    assert column(found, "inference") == [np.inf, np.inf, 3.0, 1.0]
    assert column(found, "simple", "b") == [np.inf] * 3 + [2.0]
    assert column(found, "simple", "c") == column(found, "inference", "c") == [np.inf] * 4
    assert {*found["scale"]} == {3.0}
    assert analysis.ranks(found).loc["branin"].to_dict() == {"a": 1.0, "b": 2.0, "c": 3.0}
    reached = analysis.to_target(found, [0.5]).set_index("method")["evaluations"]
    assert reached.to_dict() == {"a": 4.0, "b": np.inf, "c": np.inf}
    assert runs["value"].notna().all(), "the rows themselves are as they were"


def test_an_unknown_optimum_is_the_best_value_that_anyone_found() -> None:
    found = analysis.regrets(
        rows(trace("a", 0, [5.0, 3.0]), trace("b", 1, [4.0, 2.5]), known=False)
    )
    assert column(found, "simple") == [2.5, 0.5]
    assert column(found, "simple", "b", 1) == [1.5, 0.0]


def test_an_optimum_that_is_none_is_found() -> None:
    """By more than a rounding, and by what meets the constraints."""
    below = [trace("a", seed, [5.0, 3.0, least]) for seed, least in ((0, 1.5), (1, 0.25))]
    assert analysis.beaten_optima(rows(*below)) == {"branin": (0.25, 1.0)}
    assert analysis.beaten_optima(rows(*below, known=False)) == {}
    assert analysis.beaten_optima(rows(trace("a", 0, [5.0, 1.0 - 1e-12]))) == {}
    violated = replace(below[1], status=("completed", "completed", "violated"))
    assert analysis.beaten_optima(rows(violated)) == {}


def test_negligible_regret_is_a_tie() -> None:
    found = analysis.regrets(
        rows(trace("a", 0, [5.0, 3.0, 1.0 + 1e-9]), trace("b", 0, [5.0, 3.0, 1.0 + 1e-12]))
    )
    assert analysis.ranks(found).loc["branin"].tolist() == [1.5, 1.5]


def paired(seeds: int = 12) -> tuple[pd.DataFrame, np.ndarray]:
    """Methods b and c are worse than a by known factors, seed by seed."""
    rng = np.random.default_rng(1)
    gain = rng.normal(0.8, 1.0, seeds)
    traces = []
    for seed in range(seeds):
        traces.append(trace("a", seed, [9.0, 5.0, 2.0]))
        traces.append(trace("b", seed, [9.0, 5.0, 1.0 + float(np.exp(gain[seed]))]))
        traces.append(trace("c", seed, [9.0, 5.0, 1.0 + float(np.exp(abs(gain[seed]) + 0.1))]))
    return analysis.regrets(rows(*traces)), gain


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_no_conclusion_depends_on_the_units_of_the_values(scale: float) -> None:
    found, _ = paired(7)
    beaten = rows(
        trace("a", 0, [5.0, 3.0, 1.0 - 1e-7]), trace("a", 1, [5.0, 1.0 - 1e-12], problem="levy-8")
    )

    def scaled(plain: pd.DataFrame) -> pd.DataFrame:
        columns = ["value", "truth", "recommended_truth", "optimum"]
        return plain.assign(**{name: scale * plain[name] for name in columns})

    assert list(analysis.beaten_optima(beaten)) == ["branin"]
    assert list(analysis.beaten_optima(scaled(beaten))) == ["branin"]
    other = analysis.regrets(scaled(found))
    assert column(other, "simple", "b") == [scale * each for each in column(found, "simple", "b")]
    for conclusion in (
        analysis.ranks,
        analysis.relative,
        lambda table: analysis.compared(table, "a"),
        lambda table: analysis.to_target(table, [0.3]),
    ):
        pd.testing.assert_frame_equal(conclusion(other), conclusion(found), rtol=1e-9)


def test_the_paired_test_is_scipy_s_and_holm_s_correction_is_by_the_book() -> None:
    found, gain = paired()
    table = analysis.compared(found, "a").set_index("method")
    assert table.loc["b", "p"] == pytest.approx(stats.wilcoxon(gain).pvalue)
    assert table.loc["b", "won"] == (gain > 0).sum()
    assert table.loc["b", "lost"] == (gain < 0).sum()
    place = stats.rankdata(np.abs(gain))
    favour = (place[gain > 0].sum() - place[gain < 0].sum()) / place.sum()
    assert table.loc["b", "effect"] == pytest.approx(favour)
    assert table.loc["c", "effect"] == 1.0
    low, high = sorted(table["p"])
    assert sorted(table["p_holm"]) == pytest.approx([min(1, 2 * low), max(2 * low, high)])


def test_equal_methods_are_told_to_be_equal() -> None:
    same = [trace(name, seed, [9.0, 2.0]) for name in "ab" for seed in range(3)]
    table = analysis.compared(analysis.regrets(rows(*same)), "a")
    assert table[["won", "lost", "effect", "p", "p_holm"]].iloc[0].tolist() == [0, 0, 0, 1, 1]


def test_two_methods_without_any_value_are_equal() -> None:
    none = [trace(name, 0, [], budget=2, failure="x") for name in "ab"]
    found = analysis.regrets(rows(*none, trace("c", 0, [9.0, 2.0])))
    table = analysis.compared(found, "a").set_index("method")
    assert table.loc["b", ["won", "lost", "effect", "p"]].tolist() == [0, 0, 0, 1]
    assert table.loc["c", ["won", "lost"]].tolist() == [0, 1]


def test_the_critical_difference_is_that_of_demšar_s_example() -> None:
    # Demšar 2006, section 3.2.2: 4 classifiers, 14 data sets, 2.569 sqrt(4 5 / (6 14)) = 1.25.
    assert analysis.critical_difference(14, 4) == pytest.approx(1.25, abs=0.005)


def test_friedman_s_test_is_scipy_s() -> None:
    table = pd.DataFrame(np.random.default_rng(0).random((7, 4)), columns=list("abcd"))
    expected = stats.friedmanchisquare(*(table[name] for name in table)).pvalue
    assert analysis.friedman(table) == pytest.approx(expected)
    assert np.isnan(analysis.friedman(table[["a", "b"]]))
    assert analysis.friedman(pd.DataFrame(np.ones((3, 3)))) == 1.0
    pairs = analysis.nemenyi(table)
    assert (np.diag(pairs) == 1).all()


@pytest.mark.parametrize(("problems", "methods"), [(2, 3), (2, 5), (3, 7), (5, 3)])
def test_methods_in_the_same_order_on_every_problem_have_the_greatest_statistic(
    problems: int, methods: int
) -> None:
    """It is the number of problems times one less than that of methods (Friedman 1937, JASA 32)."""
    table = pd.DataFrame(np.arange(problems)[:, None] + np.arange(methods) / methods)
    degrees = methods - 1
    expected = stats.chi2.sf(problems * degrees, degrees)
    assert analysis.friedman(table) == pytest.approx(expected)


def test_pairs_are_told_apart_where_their_ranks_differ_by_the_critical_difference() -> None:
    ranks = pd.DataFrame(np.random.default_rng(0).random((7, 4)) * 4, columns=list("abcd"))
    ranks["a"] = ranks["b"] - analysis.critical_difference(7, 4)
    assert analysis.nemenyi(ranks).loc["a", "b"] == pytest.approx(0.05)


def test_where_the_design_has_the_best_value_all_are_tied() -> None:
    """With an unknown optimum that is the best value that is known: no regret is left to share."""
    found = analysis.regrets(
        rows(
            *[trace(name, 0, [2.0, 5.0, 4.0]) for name in "abc"],
            *[trace(name, 1, [9.0, 5.0, end]) for name, end in zip("abc", (3, 2, 4), strict=True)],
            known=False,
        )
    )
    assert analysis.relative(found).loc[("branin", 0)].tolist() == [analysis.NEGLIGIBLE] * 3
    assert analysis.ranks(found).loc["branin"].tolist() == [2.0, 1.5, 2.5]


def test_a_problem_on_which_all_methods_failed_has_no_ranks() -> None:
    none = [trace(name, 0, [], problem="levy", budget=2, failure="x") for name in "ab"]
    found = analysis.regrets(rows(*none, trace("a", 0, [9.0, 2.0]), trace("b", 0, [9.0, 3.0])))
    assert analysis.ranks(found).index.tolist() == ["branin"]


def test_what_the_design_leaves_is_told_by_methods_without_a_clock() -> None:
    """With several workers the first results may be others' than the design's."""
    slow = trace("c", 0, [20.0, 5.0, 2.0], clock=[1.0, 2.0, 3.0])
    found = analysis.regrets(rows(trace("a", 0, [9.0, 8.0, 2.0]), slow))
    assert found["scale"].unique().tolist() == [7.0]


def test_the_interval_covers_the_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        low, high = analysis.interval(rng.exponential(size=20))
        hits += low <= np.log(2) <= high
    # 95 % nominal; the percentile bootstrap of a median of 20 is a little short or long.
    assert 0.90 <= hits / 200 <= 0.99
    assert all(np.isnan(analysis.interval(np.arange(4.0))))
    assert analysis.interval(np.full(5, 2.0)) == (2.0, 2.0)


def test_the_ends_of_the_interval_do_not_depend_on_chance() -> None:
    """Of ten draws at least five are of the two high values with chance 0.033, six with 0.006."""
    for high in itertools.combinations(range(10), 2):
        values = np.zeros(10)
        values[[*high]] = 5.0
        assert analysis.interval(values) == (0.0, 2.5)


@pytest.mark.parametrize("count", [5, 6])
def test_the_ends_of_the_interval_are_those_of_all_resamples_there_are(count: int) -> None:
    rng = np.random.default_rng(1)
    resamples = np.array([*itertools.product(range(count), repeat=count)])
    for values in (*rng.exponential(size=(10, count)), np.arange(count) // 3.0):
        medians = np.median(values[resamples], axis=1)
        ends = np.quantile(medians, [0.025, 0.975], method="inverted_cdf")
        assert analysis.interval(values) == pytest.approx(tuple(ends))


@pytest.mark.parametrize("count", [9, 20])
def test_the_chances_of_the_middle_are_those_of_many_resamples(count: int) -> None:
    resamples = np.random.default_rng(2).integers(0, count, (100_000, count))
    resamples.sort(axis=1)
    found = np.zeros((count, count))
    np.add.at(found, (resamples[:, (count - 1) // 2], resamples[:, count // 2]), 1e-5)
    chances = analysis._chances_of_middle(count)
    assert chances.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(found, chances, atol=5 * np.sqrt(0.25 / 100_000))


def test_a_summary_has_the_quartiles_and_the_interval_of_what_the_seeds_ended_with() -> None:
    ends = np.array([2.0, 9.0, 4.0, 3.0, 6.0, 8.0, 5.0])
    found = analysis.regrets(
        rows(*(trace("a", seed, [9.5, e + 1.0]) for seed, e in enumerate(ends)))
    )
    summary = analysis.summary(found).iloc[0]
    assert tuple(summary[["q1", "median", "q3"]]) == analysis.quartiles(ends) == (3.5, 5.0, 7.0)
    low, high = summary["low"], summary["high"]
    assert (low, high) == analysis.interval(ends)
    assert low < 5.0 < high
    assert (summary["runs"], summary["failed"]) == (7, 0)
    assert (summary["overhead_s"], summary["evaluation_s"]) == (1.0, 2.0)


def test_quartiles_with_infinite_values_are_values() -> None:
    assert analysis.quartiles(np.array([1.0, 2.0, 3.0])) == (1.5, 2.0, 2.5)
    assert analysis.quartiles(np.array([1.0, 2.0, np.inf, np.inf]))[1:] == (np.inf, np.inf)


def test_time_to_target_is_the_first_time_and_infinite_if_never() -> None:
    found = analysis.regrets(
        rows(trace("a", 0, [9.0, 5.0, 3.0, 1.1]), trace("b", 0, [9.0, 5.0, 4.0, 4.0]))
    )
    reached = analysis.to_target(found, [0.5, 0.1]).set_index(["method", "target"])
    assert reached.loc[("a", 0.5), ["evaluations", "seconds"]].tolist() == [3, 1.5]
    assert reached.loc[("a", 0.1), ["evaluations", "seconds"]].tolist() == [4, 2.0]
    assert np.isinf(reached.loc[("b", 0.5), "evaluations"])


def test_a_data_profile_counts_groups_of_d_plus_one() -> None:
    found = analysis.regrets(
        rows(trace("a", 0, [9.0, 5.0, 1.0, 1.0]), trace("a", 1, [9.0, 5.0, 5.0, 1.0]))
    )
    profile = analysis.data_profile(found, 0.1, np.array([0.9, 1.0, 4 / 3]))
    assert profile["a"].tolist() == [0.0, 0.5, 1.0]  # d = 2: three evaluations are one group


def test_the_regret_at_a_time_is_that_of_the_last_result_before_it() -> None:
    found = analysis.regrets(rows(trace("a", 0, [5.0, 3.0, 2.0], clock=[1.0, 2.0, 4.0])))
    at = analysis.at_time(found, np.array([0.5, 1.0, 3.0, 4.0]), "clock")
    assert at.loc[("branin", "a", 0)].tolist() == [np.inf, 4.0, 2.0, 1.0]


def test_overhead_is_split_into_parts_that_add_up() -> None:
    found = analysis.overhead(analysis.regrets(rows(trace("a", 0, [5.0, 3.0, 2.0]))))
    row = found.iloc[0]
    assert (row["ask"], row["fit"], row["acquisition"], row["other"]) == (0.5, 0.25, 0.125, 0.125)


def test_a_proposal_without_a_model_has_neither_of_the_parts_that_the_others_have() -> None:
    split = trace("a", 0, [5.0, 3.0, 2.0], seconds=[0.5, 0.1, 0.5])
    split = replace(split, fit_s=(0.25, None, 0.25), acquisition_s=(0.125, None, 0.125))
    unknown = replace(trace("b", 0, [5.0, 3.0, 2.0]), fit_s=(), acquisition_s=())
    found = analysis.overhead(analysis.regrets(rows(split, unknown))).set_index("method")
    parts = found[["fit", "acquisition", "other"]]
    assert parts.loc["a"].sum() == pytest.approx(found.loc["a", "ask"])
    assert parts.loc["b"].isna().all()

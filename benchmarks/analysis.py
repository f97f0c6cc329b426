"""What the rows say: regret, ranks, tests, time to target, and where the time went.

Everything is paired: the runs of a seed have the same problem, noise and initial design, so methods
are compared seed by seed. All functions take the rows that `regrets` made.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from gpbo import replications

#: The columns that identify a run.
RUN = ["problem", "method", "seed"]
#: Regret below this share of what the initial design leaves counts as none, and is a tie.
NEGLIGIBLE = 1e-6
#: The confidence of intervals, and of the family of tests.
CONFIDENCE = 0.95


def regrets(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with their regret so far, and the seconds so far, in new columns.

    A configuration that does not meet the constraints has no value. ``simple``: the least noiseless
    value so far above the optimum, or above the best known value where the optimum is not known.
    ``inference``: that of the configuration that the method recommends, which is that of the best
    observed value where it recommends none, and wherever there is no noise. A run that ended early
    keeps its last regret; one without a value has infinite regret. ``scale``: the regret that the
    initial design leaves, the same for every method of a seed; if that has no value, the largest
    regret of any method. ``overhead_s``: seconds in the method so far; ``wall_s``: with those in
    the objective.
    """
    rows = rows.sort_values([*RUN, "evaluation"], ignore_index=True)
    violated = rows["status"] == "violated"
    rows = rows.assign(**{name: rows[name].mask(violated) for name in ("value", "truth")})
    known = rows.groupby("problem")["truth"].transform("min")
    optimum = rows["optimum"].fillna(known)
    runs = rows.groupby(RUN, sort=False)
    best = rows["truth"].fillna(np.inf).groupby([rows[name] for name in RUN], sort=False).cummin()
    best_seen = _truth_of_best_observed(rows).mask(rows["status"] == "missing")
    recommended = rows["recommended_truth"].where(rows["noise"] > 0).fillna(best_seen)
    # Missing or failed rows at the end recommend what was recommended before.
    recommended = recommended.groupby([rows[name] for name in RUN], sort=False).ffill()
    found = rows.assign(
        simple=(best - optimum).clip(lower=0.0),
        inference=(recommended.fillna(np.inf) - optimum).clip(lower=0.0),
        overhead_s=runs["ask_s"].cumsum(),
        evaluated_s=runs["evaluation_s"].cumsum(),
    )
    filled = found.groupby(RUN, sort=False)[["overhead_s", "evaluated_s"]].ffill().fillna(0.0)
    found[["overhead_s", "evaluated_s"]] = filled
    # With several workers some results of other proposals come before the design is complete.
    alone = found["clock"].isna()
    start = (found["evaluation"] == found["design"]) & (alone | ~alone.any())
    finite = found.replace({"simple": {np.inf: np.nan}})
    left, largest = (
        own.groupby(["problem", "seed"])["simple"].max() for own in (finite[start], finite)
    )
    scale = left.fillna(largest)
    keys = pd.MultiIndex.from_frame(found[["problem", "seed"]])
    return found.assign(
        scale=scale.reindex(keys).to_numpy(), wall_s=found["overhead_s"] + found["evaluated_s"]
    )


def beaten_optima(rows: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """The least noiseless value and the stated optimum of each problem where the optimum is greater
    by more than rounding: regret then means nothing.
    """
    met = rows[rows["status"] == "completed"]
    found = met.groupby("problem").agg(
        least=("truth", "min"), most=("truth", "max"), optimum=("optimum", "first")
    )
    gap = found["optimum"] - found["least"]
    beaten = found[gap > replications.ROUNDING * (found["most"] - found["least"])]
    return {str(name): (row["least"], row["optimum"]) for name, row in beaten.iterrows()}


def _truth_of_best_observed(rows: pd.DataFrame) -> pd.Series:
    """The noiseless value of the configuration with the best observed value so far."""
    values = rows["value"].fillna(np.inf)
    groups = [rows[name] for name in RUN]
    improved = values < values.groupby(groups, sort=False).cummin().groupby(groups).shift(
        fill_value=np.inf
    )
    return rows["truth"].where(improved).groupby(groups, sort=False).ffill()


def final(rows: pd.DataFrame, measure: str = "simple") -> pd.DataFrame:
    """The regret of every run at the end: a row per problem and seed, a column per method."""
    last = rows.loc[rows.groupby(RUN, sort=False)["evaluation"].idxmax()]
    return last.pivot(index=["problem", "seed"], columns="method", values=measure)


def summary(rows: pd.DataFrame, measure: str = "simple") -> pd.DataFrame:
    """Per problem and method: median, quartiles, interval of the median, failed runs, seconds.

    The interval, from ``low`` to ``high``, is that of the percentile bootstrap over the seeds
    (Efron 1979, Ann. Stat. 7), of infinitely many resamples, with at least five seeds.
    """
    records = []
    for (problem, method), runs in rows.groupby(["problem", "method"]):
        last = runs.loc[runs.groupby("seed")["evaluation"].idxmax()]
        values = last[measure].to_numpy()
        low, median, high = quartiles(values)
        ends = interval(values)
        records.append(
            {
                "problem": problem,
                "method": method,
                "runs": len(values),
                "failed": int(last["failure"].notna().sum()),
                "median": median,
                "q1": low,
                "q3": high,
                "low": ends[0],
                "high": ends[1],
                "overhead_s": last["overhead_s"].median(),
                "evaluation_s": last["evaluated_s"].median(),
            }
        )
    return pd.DataFrame(records)


def quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """`gpbo.replications.quartiles` of one number for each run."""
    low, median, high = map(float, replications.quartiles(values))
    return low, median, high


def interval(values: np.ndarray) -> tuple[float, float]:
    """The ends of the bootstrap interval of the median; NaN for fewer than five values."""
    if len(values) < 5 or not np.isfinite(values).all():
        return np.nan, np.nan
    ordered = np.sort(values)
    medians = ordered / 2 + ordered[:, None] / 2
    order = np.argsort(medians, axis=None)
    below = np.cumsum(_chances_of_middle(len(values)).ravel()[order])
    tail = (1 - CONFIDENCE) / 2
    low, high = medians.ravel()[order][np.searchsorted(below, [tail, 1 - tail])]
    return float(low), float(high)


def _chances_of_middle(count: int) -> np.ndarray:
    """The probability that two of ``count`` ordered values are the middle of a resample.

    The lower value has the row and the higher one the column; for an odd number the middle value is
    both. The probabilities of the lower one alone are binomial (Maritz & Jarrett 1978, JASA 73).
    """
    share = np.arange(count + 1) / count
    half = count // 2
    lower = np.diff(stats.binom.sf((count - 1) // 2, count, share))
    apart = np.zeros((count, count))
    if count % 2 == 0:
        # The largest of one half of the draws is one value, the least of the other a higher one.
        # Shares are doubled, which the coefficient makes up for: it would overflow by itself.
        largest = np.diff((2 * share) ** half)
        apart = np.triu(stats.binom.pmf(half, count, 0.5) * np.outer(largest, largest[::-1]), 1)
    return apart + np.diag(lower - apart.sum(1))


def relative(rows: pd.DataFrame, measure: str = "simple") -> pd.DataFrame:
    """`final` as a share of what the initial design leaves, no smaller than `NEGLIGIBLE`.

    If the design has the best value that is known, every method has it.
    """
    scale = rows.groupby(["problem", "seed"])["scale"].first()
    table = final(rows, measure)
    share = table.div(scale.reindex(table.index), axis=0)
    return share.mask(table == 0, NEGLIGIBLE).clip(lower=NEGLIGIBLE)


def compared(rows: pd.DataFrame, reference: str, measure: str = "simple") -> pd.DataFrame:
    """Every method against a reference, problem by problem, seed by seed.

    The paired signed-rank test of Wilcoxon (1945, Biometrics Bull. 1), two-sided; ``p_holm`` is
    corrected by Holm (1979, Scand. J. Stat. 6) for all tests of the table. ``effect``: the
    matched-pairs rank-biserial correlation (Kerby 2014, Compr. Psychol. 3), 1 where the reference
    is better for every seed and -1 where it is worse. ``won``, ``lost``: seeds.
    """
    from statsmodels.stats.multitest import multipletests

    table = np.log(relative(rows, measure))
    records = []
    for problem, runs in table.groupby(level="problem"):
        for method in table.columns.drop(reference):
            gain = (runs[method] - runs[reference]).to_numpy()
            p, effect = _signed_ranks(gain)
            records.append(
                {
                    "problem": problem,
                    "method": method,
                    "seeds": len(gain),
                    "won": int((gain > 0).sum()),
                    "lost": int((gain < 0).sum()),
                    "effect": effect,
                    "p": p,
                }
            )
    found = pd.DataFrame(
        records, columns=["problem", "method", "seeds", "won", "lost", "effect", "p"]
    )
    tested = found["p"].notna()
    found["p_holm"] = np.nan
    if tested.any():
        found.loc[tested, "p_holm"] = multipletests(found.loc[tested, "p"], method="holm")[1]
    return found


def _signed_ranks(gain: np.ndarray) -> tuple[float, float]:
    """The p-value of the signed-rank test of paired differences, and their rank correlation."""
    gain = np.nan_to_num(gain, nan=0.0, posinf=1e300, neginf=-1e300)  # NaN: both have no value
    moved = gain[gain != 0]
    if len(moved) == 0:
        return (1.0, 0.0) if len(gain) else (np.nan, np.nan)
    ranks = stats.rankdata(np.abs(moved))
    return float(stats.wilcoxon(moved).pvalue), float(np.sign(moved) @ ranks / ranks.sum())


def ranks(rows: pd.DataFrame, measure: str = "simple") -> pd.DataFrame:
    """The rank of every method on every problem, 1 the best: a row per problem.

    Ranks are taken among the methods for every seed, ties shared, and averaged over the seeds.
    """
    ranked = relative(rows, measure).rank(axis=1).groupby(level="problem").mean()
    return ranked.dropna(how="all")  # no method has a value there


def critical_difference(problems: int, methods: int) -> float:
    """Average ranks that differ by less are not told apart (Nemenyi; Demšar 2006, JMLR 7)."""
    spread = stats.studentized_range.ppf(CONFIDENCE, methods, np.inf)
    return float(spread * _rank_error(problems, methods))


def _rank_error(problems: int, methods: int) -> float:
    """The standard error of an average rank, by which the studentized range is scaled."""
    return math.sqrt(methods * (methods + 1) / (12 * problems))


def friedman(table: pd.DataFrame) -> float:
    """The p-value of Friedman's test that all methods are alike; NaN with too few to say."""
    if len(table) < 2 or table.shape[1] < 3:
        return np.nan
    ranked = table.rank(axis=1)
    if (ranked.nunique(axis=1) == 1).all():
        return 1.0
    return float(stats.friedmanchisquare(*(table[name] for name in table)).pvalue)


def nemenyi(table: pd.DataFrame) -> pd.DataFrame:
    """The p-values of Nemenyi's test of every pair of methods, from a table of `ranks`.

    They are computed from these ranks, whose differences are compared with the critical one.
    """
    average = table.mean().to_numpy()
    apart = np.abs(average[:, None] - average) / _rank_error(*table.shape)
    p = stats.studentized_range.sf(apart, table.shape[1], np.inf)
    return pd.DataFrame(p, table.columns, table.columns)


def to_target(rows: pd.DataFrame, targets: Sequence[float]) -> pd.DataFrame:
    """When every run first reached a share of the regret that the initial design leaves.

    A row per run and target; ``evaluations`` and ``seconds`` (in the method) are infinite where it
    never did.
    """
    records = []
    for share in targets:
        reached = rows[rows["simple"] <= share * rows["scale"]]
        first = reached.groupby(RUN)[["evaluation", "overhead_s"]].first()
        every = pd.MultiIndex.from_frame(rows[RUN].drop_duplicates())
        found = first.reindex(every).fillna(np.inf).reset_index().assign(target=share)
        records.append(found.rename(columns={"evaluation": "evaluations", "overhead_s": "seconds"}))
    return pd.concat(records, ignore_index=True)


def at_time(rows: pd.DataFrame, times: np.ndarray, clock: str) -> pd.DataFrame:
    """The simple regret of every run at some times of a clock, a column of the rows.

    Infinite before the first value. A row per run, a column per time.
    """
    found = {}
    for run, own in rows.groupby(RUN):
        made = own[own["status"] != "missing"].sort_values(clock, kind="stable")
        place = np.searchsorted(made[clock].to_numpy(), times, side="right")
        found[run] = np.concatenate([[np.inf], made["simple"].cummin().to_numpy()])[place]
    index = pd.MultiIndex.from_tuples(found, names=RUN)
    return pd.DataFrame(np.array(list(found.values())), index=index, columns=times)


def data_profile(rows: pd.DataFrame, share: float, steps: np.ndarray) -> pd.DataFrame:
    """The share of runs that reached a target, by evaluations per parameter.

    Data profiles (Moré & Wild 2009, SIAM J. Optim. 20): evaluations are counted in groups of
    ``d + 1``, a simplex. A row per step, a column per method.
    """
    dims = rows.groupby("problem")["dim"].first()
    found = to_target(rows, [share])
    groups = found["evaluations"] / (found["problem"].map(dims) + 1)
    return pd.DataFrame(
        {
            method: [(own.to_numpy() <= step).mean() for step in steps]
            for method, own in groups.groupby(found["method"])
        },
        index=pd.Index(steps, name="groups of d + 1 evaluations"),
    )


def overhead(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds of one proposal, and of its parts; a row per method and problem.

    ``other`` is what is neither fit nor acquisition; parts that are not known are NaN. Each of
    ``together`` runs in one batch has an equal share of the seconds.
    """
    asked = rows[(rows["status"] != "missing") & (rows["ask_s"] > 0)].copy()
    # A proposal made without a model, as when a search starts again, has neither part.
    for part in ("fit_s", "acquisition_s"):
        split = asked[part].notna().groupby(asked["method"]).transform("any")
        asked[part] = asked[part].mask(split & asked[part].isna(), 0.0)
    asked = asked.assign(other_s=asked["ask_s"] - asked["fit_s"] - asked["acquisition_s"])
    columns = {"ask_s": "ask", "fit_s": "fit", "acquisition_s": "acquisition", "other_s": "other"}
    groups = asked.groupby(["method", "problem"])
    found = groups[list(columns)].mean().rename(columns=columns)
    return found.assign(together=groups["together"].max()).reset_index()

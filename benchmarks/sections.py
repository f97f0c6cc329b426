"""The sections of a suite's report."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gpbo.checks import one_of
from gpbo.errors import InvalidOption

from . import analysis, figures
from .methods import METHODS
from .suites import DEFAULT, Case
from .words import counted, number, pipes, where


@dataclass(frozen=True)
class Findings:
    """The rows of a suite with their regret, and where they were measured.

    Attributes:
        sequential: The rows of the methods that ask for one point at a time.
        parallel: The rows of those with several workers on a simulated clock.
        chosen: The method that was chosen as the reference.
    """

    header: Mapping[str, Any]
    sequential: pd.DataFrame
    parallel: pd.DataFrame
    targets: tuple[float, ...]
    chosen: str | None = None

    @classmethod
    def of(
        cls,
        rows: pd.DataFrame,
        header: Mapping[str, Any],
        targets: Sequence[float],
        chosen: str | None = None,
    ) -> "Findings":
        """From the rows of a file.

        Raises:
            InvalidOption: the method that was chosen has no value.
        """
        rows = analysis.regrets(rows)
        # Nothing is known of a user's own methods but their rows.
        clocked = {name for name, method in METHODS.items() if method.clocked}
        several = rows["method"].isin(clocked | {*rows.loc[rows["clock"].notna(), "method"]})
        sequential, parallel = rows[~several], rows[several]
        findings = cls(header, sequential, parallel, tuple(targets), chosen)
        if chosen is not None:
            if not findings.valued:
                raise InvalidOption(
                    f"reference={chosen!r}: expected none: methods with workers on a simulated "
                    "clock are not tested against one, and no other method has a value here"
                )
            one_of("reference", chosen, findings.valued)
        return findings

    @property
    def rows(self) -> pd.DataFrame:
        """Of all methods."""
        return pd.concat([self.sequential, self.parallel])

    @property
    def noisy(self) -> bool:
        """Whether the methods recommend something other than the best that they saw."""
        return bool((self.sequential["noise"] > 0).any())

    @property
    def measure(self) -> str:
        """The regret that methods are ranked by: with noise, that of what they recommend."""
        return "inference" if self.noisy else "simple"

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """The rank of every method on every problem."""
        return analysis.ranks(self.sequential, self.measure)

    @property
    def valued(self) -> list[str]:
        """The methods, of those that ask for one point at a time, that have a value."""
        return sorted(self.sequential.loc[self.sequential["truth"].notna(), "method"].unique())

    @property
    def reference(self) -> str:
        """The method that the others are tested against: gpbo's default, if it has a value.

        Otherwise it is the method of best average rank among those that have a value.
        """
        if self.chosen is not None:
            return self.chosen
        valued = self.valued
        return DEFAULT if DEFAULT in valued else str(self.ranks[valued].mean().idxmin())


#: A part of a report: its text, and its figures by name.
Section = tuple[str, dict[str, Figure]]


def measured_where(findings: Findings) -> Section:
    """Machine, versions, seeds: the first lines of every report."""
    header = findings.header
    others = "; for runs of other commits this is not known" * bool(header.get("peers_from"))
    return (
        f"{where(header)}\n\n"
        f"{counted(len(header['seeds']), 'seed')}. For each seed, all methods have the same "
        "problem, noise and initial design. Runs of this commit were made "
        f"{header['processes']} at a time, with one thread each{others}. Seconds of gpbo's own "
        "methods are those of a batch of runs, divided by the number of runs; every run of a peer "
        "has a process of its own."
    ), {}


def other_commits(findings: Findings) -> Section:
    """The runs that were measured at another commit or on another machine."""
    lines = []
    for earlier in findings.header["peers_from"]:
        count = sum(len(seeds) for one in earlier["runs"].values() for seeds in one.values())
        methods = ", ".join(earlier["runs"])
        machine = f"{earlier['processor']}, {earlier['cores']} cores"
        when = (earlier["commit"], earlier["date"])
        lines.append([methods, counted(count, "run"), *when, machine])
    return pipes(
        ["methods from other commits, with their seconds", "runs", "commit", "date", "machine"],
        lines,
    ), {}


def verdict(findings: Findings) -> Section:
    """Where the reference stands by average rank, and on which problems it is not the best."""
    table = findings.ranks
    average = table.mean().sort_values()
    gap = analysis.critical_difference(*table.shape)
    best, own = average.index[0], findings.reference
    if np.isclose(average[own], average.iloc[0]):
        place = "first"
    elif average[own] - average.iloc[0] < gap:
        place = f"not significantly different from the first, {best},"
    else:
        place = f"behind {best}"
    beaten = [
        f"{problem} ({row.idxmin()} {row.min():.2g}, {own} {row[own]:.2g})"
        for problem, row in table.iterrows()
        if row[own] > row.min()
    ]
    if np.isnan(gap):
        apart = ""
    elif gap > len(average) - 1:  # more than the first and the last can differ by
        apart = "; with so few of both, no difference in rank can be significant"
    else:
        apart = f"; differences in rank below {gap:.2f} are not significant"
    text = (
        f"`{own}` is {place} by average rank ({average[own]:.2f}, with "
        f"{counted(len(average), 'method')} on {counted(len(table), 'problem')}{apart})."
    )
    others = "; ".join(beaten) if beaten else "none"
    parts = [text, f"Problems on which another method has a better rank: {others}."]
    ended = findings.sequential.groupby("method")["failure"].agg(lambda runs: runs.notna().all())
    if ended.any():
        names = ", ".join(f"`{method}`" for method in ended[ended].index)
        parts.append(f"All runs of {names} ended early.")
    return "\n\n".join(parts), {}


def rank_section(findings: Findings) -> Section:
    """Average ranks with Friedman's and Nemenyi's tests."""
    table = findings.ranks
    relative = analysis.relative(findings.sequential, findings.measure)
    typical = np.exp(np.log(relative.groupby(level="problem").median()).mean())
    lines = [
        [f"`{method}`", f"{rank:.2f}", number(typical[method])]
        for method, rank in table.mean().sort_values().items()
    ]
    p, gap = analysis.friedman(table), analysis.critical_difference(*table.shape)
    # Averages vary less than the ranks of single runs, for which the critical difference is made.
    averaged = ", or less, as ranks are averages over seeds" * (len(findings.header["seeds"]) > 1)
    tests = [
        (p, f"Friedman: p = {number(p)}. "),
        (gap, f"Critical difference (Nemenyi, {analysis.CONFIDENCE:.0%}): {gap:.2f}{averaged}. "),
    ]
    text = pipes(["method", "average rank", "regret / design's regret"], lines)
    note = (
        f"For every seed, methods are ranked by {findings.measure} regret at the end (1 is the "
        f"best); ranks are averaged over {counted(len(findings.header['seeds']), 'seed')} and then "
        f"over {counted(len(table), 'problem')}. "
        + "".join(said for figure, said in tests if not np.isnan(figure))
        + "The last column is the geometric mean over the problems of the median over the seeds; "
        f"regrets below {analysis.NEGLIGIBLE:g} of the design's count as equal."
    )
    drawn = {"ranks": figures.critical_difference(table)} if _tests(table) else {}
    return f"{text}\n\n{note}", drawn


def _tests(table: pd.DataFrame) -> bool:
    return len(table) >= 2 and table.shape[1] >= 3


def regret_section(findings: Findings) -> Section:
    """Medians and quartiles at the end, the least of each problem in bold."""
    parts = []
    seeds = counted(len(findings.header["seeds"]), "seed")
    for measure in ["simple", "inference"] if findings.noisy else ["simple"]:
        found = analysis.summary(findings.sequential, measure)
        methods = list(findings.sequential["method"].unique())
        lines = []
        for problem, own in found.groupby("problem", sort=False):
            own = own.set_index("method")
            least = own["median"].min()
            cells = [_cell(own.loc[method], least) for method in methods]
            lines.append([problem, *cells])
        header = ["problem", *[f"`{method}`" for method in methods]]
        caption = f"Median {measure} regret at the end over {seeds} (quartiles), the least in bold:"
        parts.append(f"{caption}\n\n{pipes(header, lines)}")
    drawn = {"regret": figures.against_evaluations(findings.sequential, findings.measure)}
    drawn["seconds"] = figures.against_seconds(findings.sequential)
    if not findings.sequential["optimum"].notna().all():  # real objectives, which take time
        drawn["wall"] = figures.against_seconds(findings.sequential, "wall_s")
    return "\n\n".join(parts), drawn


def _cell(row: pd.Series, least: float) -> str:
    median = number(row["median"])
    bold = f"**{median}**" if row["median"] <= least else median
    failed = f", {row['failed']} failed" if row["failed"] else ""
    return f"{bold} ({number(row['q1'])}, {number(row['q3'])}{failed})"


def interval_section(findings: Findings) -> Section:
    """Bootstrap intervals of the medians."""
    found = analysis.summary(findings.sequential, findings.measure)
    lines = [
        [r.problem, f"`{r.method}`", r.runs, number(r.median), number(r.low), number(r.high)]
        for r in found.itertuples()
    ]
    header = ["problem", "method", "runs", "median", "from", "to"]
    note = "95 % bootstrap intervals of the median, where there are five seeds or more."
    return f"{note}\n\n{pipes(header, lines)}", {}


def test_section(findings: Findings) -> Section:
    """Paired tests against the reference."""
    found = analysis.compared(findings.sequential, findings.reference, findings.measure)
    lines = [
        [
            r.problem,
            f"`{r.method}`",
            f"{r.won} : {r.lost}",
            number(r.effect),
            number(r.p),
            number(r.p_holm),
            "" if not r.p_holm < 1 - analysis.CONFIDENCE else "better" if r.effect > 0 else "worse",
        ]
        for r in found.itertuples()
    ]
    header = ["problem", f"`{findings.reference}` against", "won : lost", "effect", "p", "p (Holm)"]
    seeds = len(findings.header["seeds"])
    least = 2 / 2**seeds
    note = (
        "Paired Wilcoxon signed-rank tests over the seeds, with Holm's correction for all tests of "
        f"this table; effect: rank-biserial correlation. With {counted(seeds, 'seed')} no p is "
        f"below {least:.2g}."
    )
    return f"{note}\n\n{pipes([*header, 'verdict'], lines)}", {}


def target_section(findings: Findings) -> Section:
    """Time to target and data profiles."""
    found = analysis.to_target(findings.sequential, findings.targets)
    lines = []
    for method, own in found.groupby("method", sort=False):
        cells: list[str] = []
        for share in findings.targets:
            runs = own[own["target"] == share]
            reached = np.isfinite(runs["evaluations"])
            median = analysis.quartiles(runs["evaluations"].to_numpy())[1]
            seconds = analysis.quartiles(runs["seconds"].to_numpy())[1]
            cells += [f"{reached.mean():.0%}", number(median), number(seconds)]
        lines.append([f"`{method}`", *cells])
    header = ["method"]
    for share in findings.targets:
        header += [f"reached {share:g}", "evaluations", "seconds"]
    note = (
        "Share of runs that reached a fraction of the initial design's regret; evaluations and "
        "seconds until then are medians over all runs, ∞ where most runs did not reach it."
    )
    drawn = {"profile": figures.data_profile(findings.sequential, findings.targets)}
    return f"{note}\n\n{pipes(header, lines)}", drawn


def overhead_section(findings: Findings) -> Section:
    """Seconds of a proposal and its parts."""
    rows = findings.rows
    found = analysis.overhead(rows)
    if found.empty:
        return "No proposal was made.", {}
    means = found.groupby("method")[["ask", "fit", "acquisition", "other"]].mean()
    together = found.groupby("method")["together"].max()
    lines = [
        [f"`{method}`", *map(number, row), int(together[method])]
        for method, row in means.sort_values("ask").iterrows()
    ]
    header = ["method", "seconds of a proposal", "fit", "acquisition", "other", "runs together"]
    note = (
        "Means over all proposals and problems; seconds of a batch of runs are divided by the "
        "number of runs."
    )
    return f"{note}\n\n{pipes(header, lines)}", {"overhead": figures.overhead(found)}


def parallel_section(findings: Findings) -> Section:
    """Methods with several workers: regret at equal times and at equal evaluations."""
    rows = findings.parallel
    lines = []
    for problem, own in rows.groupby("problem", sort=False):
        runs = own.groupby(["method", "seed"])
        time = runs["clock"].max().min()
        made = own[own["status"] != "missing"].groupby(["method", "seed"]).size()
        if made.empty:  # all failed
            continue
        # A single worker makes few evaluations beyond the design in that time, and hides the rest.
        single = [name for name, _ in made.index if name in METHODS and METHODS[name].alone]
        several = made.drop(single, level="method")
        fewest = int((made if several.empty else several).min())
        short = made.groupby("method").min() < fewest
        at = analysis.at_time(own, np.array([time]), "clock")[time].groupby("method").median()
        even = own[own["evaluation"] == fewest].groupby("method")["simple"].median()
        by_then = (own["clock"] <= time).groupby([own["method"], own["seed"]]).sum()
        done = by_then.groupby("method").mean()
        for method in own["method"].unique():
            after = "" if short.get(method, False) else number(even.get(method, np.inf))
            lines.append(
                [problem, f"`{method}`", number(time), number(done[method]),
                 number(at[method]), fewest, after]
            )  # fmt: skip
    header = ["problem", "method", "time", "evaluations by then", "median regret then"]
    header += ["evaluations", "median regret after these"]
    note = (
        "Workers on a simulated clock, on which an evaluation takes 1 on average and a proposal "
        "takes no time. Methods are compared at the time when the first of them had used its "
        "budget, and after equally many evaluations, unless a single worker made fewer."
    )
    return f"{note}\n\n{pipes(header, lines)}", {"clock": figures.against_clock(rows)}


def failure_section(findings: Findings) -> Section:
    """Runs that ended early."""
    rows = findings.rows
    ended = rows[rows["failure"].notna()].drop_duplicates(analysis.RUN)
    grouped = ended.groupby(["method", "problem", "failure"])["seed"].count().reset_index()
    if grouped.empty:
        return "None.", {}
    lines = [
        [f"`{r.method}`", r.problem, r.seed, r.failure.replace("\n", " ").replace("|", "/")]
        for r in grouped.itertuples()
    ]
    return pipes(["method", "problem", "runs", "why"], lines), {}


def version_section(findings: Findings) -> Section:
    """The versions of everything that was compared."""
    rows = findings.rows
    # A failed run may have no versions, "{}", which is sorted after all others.
    lines = [
        [f"`{method}`", ", ".join(f"{n} {v}" for n, v in json.loads(found).items())]
        for method, found in rows.groupby("method", sort=False)["versions"].min().items()
    ]
    return pipes(["method", "versions"], lines), {}


_ALONE: dict[str, Callable[[Findings], Section]] = {
    "Verdict": verdict,
    "Ranks": rank_section,
    "Regret": regret_section,
    "Intervals": interval_section,
    "Tests": test_section,
    "Time to target": target_section,
}


def sections(findings: Findings) -> dict[str, Section]:
    """All parts of a report, by title."""
    makers: dict[str, Callable[[Findings], Section]] = {"Measured": measured_where}
    if findings.header.get("peers_from"):
        makers["Other commits"] = other_commits
    if findings.sequential["truth"].notna().any():
        makers |= _ALONE
    if findings.parallel["truth"].notna().any():
        makers["Several workers"] = parallel_section
    makers |= {
        "Overhead": overhead_section,
        "Runs that ended early": failure_section,
        "Versions": version_section,
    }
    return {title: make(findings) for title, make in makers.items()}


def problem_section(cases: Sequence[Case]) -> str:
    """The problems that were run, with the evaluations of each run."""
    lines = [
        [case.name, case.problem.dim, case.budget, number(case.problem.noise),
         f"{case.problem.optimum:.15g}" if case.optimum_known else "unknown", case.problem.citation]
        for case in cases
    ]  # fmt: skip
    return pipes(["problem", "d", "budget", "noise", "optimum", "from"], lines)

"""Reports and READMEs from results made by hand."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.colors import to_rgb
from typer.testing import CliRunner

from gpbo.cli import app
from gpbo.errors import InvalidData, InvalidOption
from gpbo_benchmarks import figures, readme, record, report, sections, suites, table, words
from gpbo_benchmarks.peers import PEERS
from gpbo_benchmarks.trace import Trace
from tests.benchmarks.results import case, header, trace

SEEDS = 6


def traces(problem: str) -> list[Trace]:
    rng = np.random.default_rng(len(problem))
    found = []
    for seed in range(SEEDS):
        design = [9.0, 8.0]
        for method, power in (("ei-hmc", 3.0), ("ei-map", 2.0), ("random", 1.0)):
            truth = [*design, *(1 + rng.random(4) ** power)]
            found.append(trace(method, seed, truth, problem=problem))
        truth = [*design, *(1 + rng.random(4))]
        found.append(
            trace("ts-map-async4", seed, truth, problem=problem, clock=[1, 1, 2, 2, 3, 3.5])
        )
        found.append(trace("optuna-gp", seed, design, problem=problem, budget=6, failure="a | b"))
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "smoke" / "trials.parquet"
    parts = [table.rows("smoke", case(name), traces(name)) for name in ("branin", "hartmann3")]
    table.write(path, pa.concat_tables(parts), header(SEEDS))
    return path


def test_a_report_has_all_its_parts_in_markdown_and_in_one_page(results: Path) -> None:
    markdown, page = report.write(*table.read(results), suites.get("smoke"), results.parent)
    text, html = markdown.read_text(), page.read_text()
    for title in ("Verdict", "Ranks", "Regret", "Tests", "Several workers", "Overhead", "Versions"):
        assert f"\n## {title}\n" in text
        assert f"<h2>{title}</h2>" in html
    assert "`ei-hmc` is first by average rank" in text
    assert "| `optuna-gp` | branin | 6 | a / b |" in text
    pictures = sorted(path.stem for path in (results.parent / "figures").iterdir())
    assert pictures == ["clock", "overhead", "profile", "ranks", "regret", "seconds"]
    assert html.count('src="data:image/png;base64,') == len(pictures)
    assert 'src="figures' not in html
    assert "<table>" in html


def test_the_typical_regret_is_made_of_the_medians_that_are_shown() -> None:
    runs = [trace("ei-hmc", seed, [11.0, 11.0, end]) for seed, end in enumerate((1.02, 5.0))]
    rows = table.rows("smoke", case(), runs).to_pandas()
    findings = sections.Findings.of(rows, header(2), (0.1,))
    median = (0.02 + 4) / 2
    assert (
        "regret at the end over 2 seeds (quartiles), the least in bold:"
        in sections.regret_section(findings)[0]
    )
    assert f"| **{median:.3g}** (" in sections.regret_section(findings)[0]
    assert f"| `ei-hmc` | 1.00 | {median / 10:.3g} |" in sections.rank_section(findings)[0]


@pytest.mark.parametrize(("end", "verdict"), [(5.0, "better"), (1.25, "worse")])
def test_tables_tell_who_won_and_when_targets_were_reached(end: float, verdict: str) -> None:
    """The reference wins all of six pairs of runs, or none; the optimum is 1."""
    ends = {"ei-hmc": 1.5, "random": end}
    runs = [
        trace(method, seed, [11.0, 11.0, 6.0, last])
        for method, last in ends.items()
        for seed in range(6)
    ]
    rows = table.rows("smoke", case(), runs).to_pandas()
    parts = sections.sections(sections.Findings.of(rows, header(6), (0.05,)))
    won = {"better": "6 : 0 | 1", "worse": "0 : 6 | -1"}[verdict]
    assert f"| branin | `random` | {won} | 0.0312 | 0.0312 | {verdict} |" in parts["Tests"][0]
    reached = {"better": "0% | ∞ | ∞", "worse": "100% | 4 | 2"}[verdict]
    assert "| `ei-hmc` | 100% | 4 | 2 |" in parts["Time to target"][0]
    assert f"| `random` | {reached} |" in parts["Time to target"][0]
    assert "| branin | `ei-hmc` | 6 | 0.5 | 0.5 | 0.5 |" in parts["Intervals"][0]
    assert "| `random` | 0.5 | 0.25 | 0.125 | 0.125 | 1 |" in parts["Overhead"][0]
    assert "| `ei-hmc` | gpbo 9 |" in parts["Versions"][0]


def test_the_others_are_tested_against_the_method_that_was_chosen() -> None:
    runs = [
        trace(method, seed, [11.0, 11.0, 6.0, last])
        for method, last in {"ei-hmc": 5.0, "random": 1.5, "ts-map-async4": 1.25}.items()
        for seed in range(6)
    ]
    runs += [trace("lost", seed, [], budget=4, failure="no memory") for seed in range(6)]
    rows = table.rows("smoke", case(), runs).to_pandas()
    parts = sections.sections(sections.Findings.of(rows, header(6), (0.05,), "random"))
    assert "| branin | `ei-hmc` | 6 : 0 | 1 | 0.0312 | 0.0625 |  |" in parts["Tests"][0]
    for wrong in ("lost", "ts-map-async4", "ts"):
        told = rf"reference='{wrong}': expected 'ei-hmc' or 'random'"
        with pytest.raises(InvalidOption, match=told):
            sections.Findings.of(rows, header(6), (0.05,), wrong)


@pytest.mark.parametrize(
    ("method", "values"), [("ts-map-async4", [11.0, 11.0, 6.0, 1.25]), ("lost", [])]
)
def test_no_reference_can_be_chosen_where_there_are_no_tests(
    method: str, values: list[float]
) -> None:
    """Of methods with several workers there are none, nor of methods without a value."""
    failure = None if values else "no memory"
    run = trace(method, 0, values, budget=4, failure=failure)
    rows = table.rows("smoke", case(), [run]).to_pandas()
    told = "reference='ei-hmc': expected none: .* no other method has a value here"
    with pytest.raises(InvalidOption, match=told):
        sections.Findings.of(rows, header(1), (0.05,), "ei-hmc")


def test_a_report_is_written_anew_with_the_reference_that_is_named(results: Path) -> None:
    for options, reference in (([], "ei-hmc"), (["--reference", "random"], "random")):
        done = CliRunner().invoke(app, ["bench", "report", str(results), *options])
        assert done.exit_code == 0, done.output
        assert f"| `{reference}` against |" in (results.parent / "report.md").read_text()


def test_a_figure_has_the_medians_and_quartiles_of_its_methods() -> None:
    """Of five seeds, from the end of the design on; an ask takes half a second."""
    runs = [
        trace(method, seed, [11.0, 9.0, 5.0 + seed, 1.0 + least * seed])
        for method, least in (("ei-hmc", 1.0), ("ei-map-sync4", 2.0))
        for seed in range(5)
    ]
    rows = sections.Findings.of(
        table.rows("smoke", case(), runs).to_pandas(), header(5), ()
    ).sequential
    (axes,) = figures.against_evaluations(rows).axes
    (line,), (band,) = axes.lines, axes.collections
    assert line.get_xydata() == pytest.approx(np.array([[2, 8], [3, 6], [4, 2]]))
    (outline,) = band.get_paths()
    assert (outline.get_extents().ymin, outline.get_extents().ymax) == (1.0, 8.0)
    (axes,) = figures.against_seconds(rows).axes
    when, regret = axes.lines[0].get_xydata().T
    assert when.max() == pytest.approx(2.0)
    assert [regret[when < 1.0].max(), regret[-1]] == pytest.approx([10.0, 2.0])


@pytest.mark.parametrize(
    ("methods", "bands", "named"), [(8, 8, "median and quartiles"), (9, 0, "median")]
)
def test_bands_of_many_methods_do_not_hide_their_medians(
    methods: int, bands: int, named: str
) -> None:
    runs = [
        trace(f"method{number}", seed, [9.0, 8.0, 3.0 + number, 1.0 + seed])
        for number in range(methods)
        for seed in range(3)
    ]
    found = table.rows("smoke", case(), runs).to_pandas()
    rows = sections.Findings.of(found, header(3), ()).sequential
    figure = figures.against_evaluations(rows)
    (axes,) = figure.axes
    assert (len(axes.lines), len(axes.collections)) == (methods, bands)
    assert figure.get_supylabel() == f"simple regret, {named}"


@pytest.mark.parametrize("scale", [1e-30, 1.0])
def test_however_small_values_are_their_regret_is_drawn(scale: float) -> None:
    """None is drawn as a trillionth of what the design leaves."""
    truth = [1.0 + scale * regret for regret in (10.0, 8.0, 2.0, 0.0)]
    found = table.rows("smoke", case(), [trace("ei-hmc", 0, truth)]).to_pandas()
    found["optimum"] = 0.0
    found["truth"] = found["value"] = [scale * regret for regret in (10.0, 8.0, 2.0, 0.0)]
    rows = sections.Findings.of(found, header(1), ()).sequential
    (axes,) = figures.against_evaluations(rows).axes
    drawn = axes.lines[0].get_ydata()
    assert drawn == pytest.approx(np.array([8.0, 2.0, 8e-12]) * scale)


@pytest.mark.parametrize("problems", [1, 3])
def test_the_names_of_methods_lie_within_the_figure(problems: int) -> None:
    runs = [
        trace(f"a-method-of-a-long-name-{number}", 0, [9.0, 8.0, 2.0], problem=f"p{problem}")
        for problem in range(problems)
        for number in range(9)
    ]
    rows = pd.concat([table.rows("smoke", case(run.problem), [run]).to_pandas() for run in runs])
    found = sections.Findings.of(rows.reset_index(drop=True), header(1), (0.1, 0.01)).sequential
    for figure in (figures.against_evaluations(found), figures.data_profile(found, (0.1,))):
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("methods", [2, 7])
def test_the_names_of_the_parts_lie_beside_the_bars(methods: int) -> None:
    seconds = {"fit": 0.3, "acquisition": 0.5, "other": 0.02, "ask": 0.82}
    overhead = pd.DataFrame([{"method": f"m{number}", **seconds} for number in range(methods)])
    figure = figures.overhead(overhead)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    legend = axes.get_legend() or figure.legends[0]
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_a_data_profile_ends_with_the_budget() -> None:
    """Of ten evaluations in two dimensions: not a whole number of groups of three."""
    run = trace("ei-hmc", 0, [9.0] * 9 + [1.5])
    rows = table.rows("smoke", case(), [run]).to_pandas()
    found = sections.Findings.of(rows, header(1), (0.1,)).sequential
    (axes,) = figures.data_profile(found, (0.1,)).axes
    when, share = axes.lines[0].get_data()
    assert (when[-1], share[-1]) == (pytest.approx(10 / 3), 1.0)


def test_gpbos_own_methods_look_the_same_in_every_figure_and_only_random_ones_are_grey() -> None:
    own = ["ei-hmc", "ei-map"]
    few, many = figures.style([*own, "cmaes"]), figures.style([*PEERS, "random", *own])
    assert [few[name] for name in own] == [many[name] for name in own]
    colours = [to_rgb(look["color"]) for name, look in many.items() if name != "random"]
    assert len(set(colours)) == len(colours)
    assert all(max(colour) - min(colour) > 0.1 for colour in colours)


def test_an_optimum_that_is_none_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "trials.parquet"
    runs = [trace("ei-hmc", 0, [9.0, 8.0, 0.5])]
    table.write(path, table.rows("smoke", case(), runs), header(1))
    markdown, _ = report.write(*table.read(path), suites.get("smoke"), tmp_path)
    told = "**branin: a value of 0.5 is below optimum=1, so its regret is wrong.**"
    assert told in markdown.read_text()


def test_a_report_without_parallel_methods_or_with_nothing_else(results: Path) -> None:
    rows, head = table.read(results)
    several = rows["method"] == "ts-map-async4"
    alone = sections.Findings.of(rows[~several], head, (0.1,))
    assert "Several workers" not in sections.sections(alone)
    together = sections.sections(sections.Findings.of(rows[several], head, (0.1,)))
    assert "Ranks" not in together
    # Nobody waits: all six evaluations are there at time 3.5.
    assert "| branin | `ts-map-async4` | 3.5 | 6 |" in together["Several workers"][0]


def test_equally_many_evaluations_are_those_of_several_workers() -> None:
    """A single worker makes fewer in the same time, unless it is alone in the report."""
    ends = {"seqTS": [9.0, 8.0, 3.0], "asyTS": [9.0, 8.0, 7.0, 6.0, 5.0, 4.0]}
    ends["synTS"] = [*ends["asyTS"][:4], 2.0]
    runs = [
        trace(method, seed, truth, clock=range(1, len(truth) + 1), budget=6)
        for method, truth in ends.items()
        for seed in range(2)
    ]

    def lines(kept: list[Trace]) -> list[str]:
        rows = table.rows("kandasamy", case(), kept).to_pandas()
        text, _ = sections.parallel_section(sections.Findings.of(rows, header(2), ()))
        return text.splitlines()[-len(kept) // 2 :]

    assert lines(runs) == [
        "| branin | `asyTS` | 3 | 3 | 6 | 5 | 4 |",
        "| branin | `seqTS` | 3 | 3 | 2 | 5 |  |",
        "| branin | `synTS` | 3 | 3 | 6 | 5 | 1 |",
    ]
    assert lines(runs[:2]) == ["| branin | `seqTS` | 3 | 3 | 2 | 3 | 2 |"]


def test_a_method_that_failed_beside_others_that_did_more_is_in_the_table() -> None:
    """On a clock the others may have made more evaluations than its budget."""
    whole = trace("asyTS", 0, [5.0, 3.0, 2.0, 1.5], clock=range(1, 5))
    failed = trace("asyEI", 0, [], budget=3, failure="x")
    found = table.rows("kandasamy", case(), [whole]).to_pandas()
    other = table.rows("kandasamy", case(), [failed]).to_pandas()
    rows = pd.concat([found, other], ignore_index=True)
    text, _ = sections.parallel_section(sections.Findings.of(rows, header(1), ()))
    *_, line, own = text.splitlines()
    assert line == "| branin | `asyEI` | 4 | 0 | ∞ | 4 | ∞ |"
    assert own == "| branin | `asyTS` | 4 | 4 | 0.5 | 4 | 0.5 |"


def test_versions_are_those_of_a_run_that_did_not_fail() -> None:
    failed = replace(trace("a", 0, [], budget=4, failure="x"), versions={})
    rows = table.rows("smoke", case(), [failed, trace("a", 1, [5.0, 4.0, 3.0, 2.0])]).to_pandas()
    text, _ = sections.version_section(sections.Findings.of(rows, header(2), (0.1,)))
    assert "| `a` | gpbo 9 |" in text


def test_a_run_without_an_evaluation_by_then_counts_as_none() -> None:
    runs = [
        trace("asyTS", 0, [9.0, 8.0, 7.0], clock=[1, 2, 3]),
        trace("asyTS", 1, [9.0, 8.0, 7.0], clock=[4, 5, 6]),
    ]
    rows = table.rows("kandasamy", case(), runs).to_pandas()
    text, _ = sections.parallel_section(sections.Findings.of(rows, header(2), ()))
    assert "| branin | `asyTS` | 3 | 1.5 |" in text


def test_the_verdict_names_the_problems_that_were_lost(results: Path) -> None:
    rows, head = table.read(results)
    swapped = rows.assign(method=rows["method"].replace({"ei-hmc": "random", "random": "ei-hmc"}))
    text, _ = sections.verdict(sections.Findings.of(swapped, head, (0.1,)))
    assert "`ei-hmc` is first" not in text
    assert "branin (random " in text


@pytest.mark.parametrize("default", ["ei-hmc", "fails", "is not there"])
def test_the_reference_has_values_and_else_is_the_first_by_rank(
    default: str, results: Path
) -> None:
    rows, head = table.read(results)
    own, failed = rows["method"] == "ei-hmc", rows[rows["method"] == "optuna-gp"]
    others = rows[~own & (rows["method"] != "optuna-gp")]
    kept = {
        "ei-hmc": [rows[own], others, failed.assign(method="ax", truth=np.nan)],
        "fails": [failed.assign(method="ei-hmc", truth=np.nan), others],
        "is not there": [failed.assign(method="ax", truth=np.nan), others],
    }
    findings = sections.Findings.of(pd.concat(kept[default]), head, (0.1,))
    text, _ = sections.verdict(findings)
    best = "ei-hmc" if default == "ei-hmc" else "ei-map"
    assert findings.reference == best
    assert text.startswith(f"`{best}` is first by average rank")
    ended = "ei-hmc" if default == "fails" else "ax"
    assert text.endswith(f"All runs of `{ended}` ended early.")
    assert f"| `{best}` against |" in sections.test_section(findings)[0]


def test_the_critical_difference_of_averages_over_seeds_is_said_to_be_too_large() -> None:
    few = [trace(name, 0, [9.0, end]) for name, end in (("ei-hmc", 1.2), ("random", 5.0))]
    many = [*few, *[trace(name, 1, [9.0, end]) for name, end in (("ei-hmc", 2.0), ("random", 3.0))]]
    said = []
    for runs, seeds in ((few, 1), (many, 2)):
        rows = table.rows("smoke", case(), runs).to_pandas()
        findings = sections.Findings.of(rows, header(seeds), (0.1,))
        said.append(
            "or less, as ranks are averages over seeds" in sections.rank_section(findings)[0]
        )
    assert said == [False, True]


@pytest.mark.parametrize("methods", [["ei-hmc"], ["ei-hmc", "random"]])
def test_with_too_few_methods_for_a_test_nothing_is_said_of_it(
    methods: list[str], results: Path
) -> None:
    rows, head = table.read(results)
    findings = sections.Findings.of(rows[rows["method"].isin(methods)], head, (0.1,))
    text = sections.verdict(findings)[0] + sections.rank_section(findings)[0]
    assert "Friedman" not in text
    assert "nan" not in text
    assert ("Critical difference" in text) == ("significant" in text) == (len(methods) == 2)


@pytest.mark.parametrize(
    ("problems", "methods", "said"),
    [
        (["branin"], ["ei-hmc"], "with 1 method on 1 problem)"),
        (
            ["branin"],
            ["ei-hmc", "random"],
            "with 2 methods on 1 problem; with so few of both, no difference in rank can be",
        ),
        (
            ["branin", "hartmann3"],
            ["ei-hmc", "ei-map", "random", "optuna-gp"],  # 3.32, and at most 3 apart
            "with 4 methods on 2 problems; with so few of both, no difference in rank can be",
        ),
        (
            ["branin", "hartmann3", "third"],
            ["ei-hmc", "ei-map", "random", "optuna-gp"],
            "with 4 methods on 3 problems; differences in rank below 2.71 are not significant)",
        ),
    ],
)
def test_differences_in_rank_are_significant_only_where_they_can_be(
    problems: list[str], methods: list[str], said: str, results: Path
) -> None:
    rows, head = table.read(results)
    third = rows[rows["problem"] == "branin"].assign(problem="third")
    rows = pd.concat([rows, third])
    kept = rows[rows["method"].isin(methods) & rows["problem"].isin(problems)]
    assert said in sections.verdict(sections.Findings.of(kept, head, (0.1,)))[0]


def test_one_seed_and_one_problem_are_named_as_one(results: Path) -> None:
    rows, head = table.read(results)
    kept = rows[(rows["seed"] == 0) & (rows["problem"] == "branin")]
    place = {"commit": "a", "date": "b", "processor": "c", "cores": 2}
    runs = [{**place, "runs": {"ax": {"branin": [0]}}}]
    findings = sections.Findings.of(kept, {**head, "seeds": [0], "peers_from": runs}, (0.1,))
    text = "\n".join(text for text, _ in sections.sections(findings).values())
    assert "\n1 seed. For each seed, all" in text
    assert "\n| ax | 1 run | a | b | c, 2 cores |" in text
    assert "over 1 problem." in text
    assert "With 1 seed no p" in text


@pytest.fixture
def stored(results: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "stored"
    kept = CliRunner().invoke(app, ["bench", "keep", str(results), "--stored", str(folder)])
    assert kept.exit_code == 0, kept.output
    figures = {"suggestion": [{"n": 50, "d": 6, "gpbo_s": 2, "botorch_map_s": 1, "ratio": 0.5}]}
    record.save("speed", figures, record.machine(), folder)
    return folder


def test_methods_that_fail_everywhere_are_told_of(tmp_path: Path) -> None:
    """One with several workers stays one of these, though it has no clock."""
    found = [
        *[trace("ei-hmc", seed, [9.0, 8.0, 2.0]) for seed in range(2)],
        *[
            trace(name, s, [], budget=3, failure="<b>")
            for name in ("ei-map-async4", "ax")
            for s in (0, 1)
        ],
    ]
    for kept in (found, found[2:], found[2:4]):
        path = tmp_path / "trials.parquet"
        table.write(path, table.rows("smoke", case(), kept), header(2))
        markdown, page = report.write(*table.read(path), suites.get("smoke"), tmp_path)
        alone = markdown.read_text().partition("## Overhead")[0]
        assert "ei-map-async4" not in alone
        assert "| `ei-map-async4` | branin | 2 | <b> |" in markdown.read_text()
        assert "<b>" not in page.read_text()
        assert "| branin | 2 | 3 | 0 |" in markdown.read_text()


def test_reports_of_kept_results_lie_apart(stored: Path, tmp_path: Path) -> None:
    """A report beside each, by the name that it is kept by, or where it was asked for."""
    (stored / "smoke.parquet").rename(stored / "both.parquet")
    shutil.copy(stored / "both.parquet", stored / "fast.parquet")
    apart = tmp_path / "a" / "b"
    for name, folder, options in [
        ("both", stored / "both-report", []),
        ("fast", stored / "fast-report", []),
        ("fast", apart, ["--output", str(apart)]),
    ]:
        done = CliRunner().invoke(
            app, ["bench", "report", str(stored / f"{name}.parquet"), *options]
        )
        assert done.exit_code == 0, done.output
        assert (folder / "report.md").read_text().startswith("# Benchmark suite `smoke`")
        assert (folder / "report.html").exists()
    assert (stored / "both-report" / "figures" / "regret.png").exists()
    names = {path.name for path in stored.iterdir()}
    assert names == {"both.parquet", "fast.parquet", "both-report", "fast-report", "speed.json"}


PLACES = """# A package
<!-- gpbo bench smoke: measured, ranks, figure regret -->
old
<!-- gpbo bench end -->
between
<!-- gpbo bench stored: suggestions -->
<!-- gpbo bench end -->
after
"""


def test_a_readme_is_filled_and_filled_again_to_the_same(stored: Path, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(PLACES)
    options = ["bench", "report", "--readme", str(file), "--stored", str(stored)]
    for _ in range(2):
        done = CliRunner().invoke(app, options)
        assert done.exit_code == 0, done.output
        text = file.read_text()
        assert "old" not in text
        assert text.startswith("# A package\n<!-- gpbo bench smoke: measured, ranks, figure reg")
        assert text.endswith("<!-- gpbo bench end -->\nafter\n")
        assert "\nbetween\n" in text
        assert text.count("| `ei-hmc` |") == 1
        assert "![regret of smoke](stored/figures/smoke-regret.png)" in text
        assert "| one suggestion, warm, n=50, d=6 | 2 s | 1 s | 0.5 |" in text
    assert (stored / "figures" / "smoke-regret.png").read_bytes().startswith(b"\x89PNG")


def test_a_place_that_asks_for_what_is_not_there_is_named(stored: Path, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("<!-- gpbo bench smoke: figure bogus -->\n<!-- gpbo bench end -->\n")
    with pytest.raises(InvalidData, match="'figure bogus' of the results 'smoke': expected one of"):
        readme.rewrite(file, stored)
    file.write_text("<!-- gpbo bench noisy: ranks -->\n<!-- gpbo bench end -->\n")
    with pytest.raises(InvalidData, match=r"noisy\.parquet: expected results"):
        readme.rewrite(file, stored)


@pytest.mark.parametrize(
    "place",
    [
        "<!-- gpbo bench smoke: ranks -->\nold\n",
        "<!-- gpbo bench smoke: ranks --> old\n<!-- gpbo bench end -->\n",
        "<!-- gpbo bench smoke: ranks -->\n<!-- gpbo bench stored: suggestions -->\n"
        "<!-- gpbo bench end -->\n",
    ],
)
def test_a_place_without_an_end_is_named(place: str, stored: Path, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(PLACES + place)
    said = r"README\.md: <!-- gpbo bench smoke: ranks -->: expected a line of its own, and"
    with pytest.raises(InvalidData, match=said):
        readme.rewrite(file, stored)
    assert file.read_text() == PLACES + place


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (np.inf, "∞"), (np.nan, ""), (0.0, "0")]
)
def test_numbers_in_tables(value: float, text: str) -> None:
    assert words.number(value) == text


def test_columns_of_figures_are_aligned_to_the_right() -> None:
    text = words.pipes(["name", "value"], [["a", "**1.5** (1, 2)"], ["b", ""]])
    assert text.splitlines()[1] == "| :-- | --: |"


def test_results_are_kept_by_another_name_than_that_of_their_suite(
    stored: Path, tmp_path: Path
) -> None:
    results = str(stored / "smoke.parquet")
    again = ["bench", "keep", results, "--stored", str(stored), "--name", "smoke-again"]
    assert CliRunner().invoke(app, again).exit_code == 0
    file = tmp_path / "README.md"
    file.write_text("<!-- gpbo bench smoke-again: ranks -->\n<!-- gpbo bench end -->\n")
    assert readme.rewrite(file, stored) == 1
    assert "| `ei-hmc` |" in file.read_text()

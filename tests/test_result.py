"""What a result says of its trials."""

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gpbo.completion import Completion
from gpbo.errors import InvalidOption
from gpbo.loop import minimize
from gpbo.result import Result
from gpbo.space import Categorical, Real, Space
from gpbo.text import cut_within, outcome, parameter_cells, parameter_headings, short, short_params
from gpbo.trial import Trial
from tests.monte_carlo import unchecked_shapes

SPACE = Space(Real("rate", 1e-4, 1.0, "log"), Categorical("kind", ("a", "b", "c")))


def result(values: list[Any], direction: Any = "minimize") -> Result:
    left = iter(values)
    return minimize(
        lambda params: next(left),
        SPACE,
        budget=len(values),
        strategy="random",
        direction=direction,
        progress=False,
    )


def ids(result: Result) -> list[int | None]:
    return [None if trial is None else trial.id for trial in result.incumbents]


def test_the_incumbents_are_the_best_so_far_after_each_trial() -> None:
    values = [None, 3.0, 5.0, 1.0, None, 1.0, 0.5]
    assert ids(result(values)) == [None, 1, 1, 3, 3, 3, 6]
    assert ids(result(values, "maximize")) == [None, 1, 2, 2, 2, 2, 2]


def test_the_best_trial_is_the_first_of_the_best() -> None:
    best = result([2.0, 1.0, 1.0]).best
    assert best is not None
    assert best.id == 1


def test_a_rule_of_one_s_own_may_end_it_with_a_word_of_its_own() -> None:
    class Enough(Completion):
        def reached(self, *_: Any, **__: Any) -> Any:
            return "enough of it"

    with unchecked_shapes():
        ended = minimize(
            lambda params: 1.0, SPACE, budget=3, strategy="random", progress=False,
            completion=Enough(),
        )  # fmt: skip
    assert str(ended).startswith("0 trials (0 failed), enough of it\n")


@pytest.mark.parametrize("name", ["a" * 300, "b"])
def test_a_path_that_the_system_refuses_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has too long a name, or is in a folder that may not be entered."""
    ended = result([1.0])
    if name == "b":
        refused = PermissionError(13, "Permission denied")
        monkeypatch.setattr(Path, "is_dir", lambda *_: (_ for _ in ()).throw(refused))
    with pytest.raises(
        InvalidOption, match=rf"path='.*{name}.png': expected the path of a file in"
    ):
        ended.plot(tmp_path / f"{name}.png")


def test_the_table_has_a_row_per_trial_and_can_be_cut() -> None:
    table = result([2.0, None, 0.123456789]).table()
    assert [row.style for row in table.rows] == [None, "dim", "bold"]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    lines = [line.split() for line in capture.get().splitlines() if line.strip()]
    assert lines[0] == ["trial", "value", "rate", "kind", "origin", "s"]
    assert [line[:2] for line in lines[2:]] == [["0", "2"], ["1", "failed"], ["2", "0.1235"]]
    rows = [result([2.0, None, 1.0]).table(last=last).row_count for last in (0, 2, 5)]
    assert rows == [0, 2, 3]
    with pytest.raises(InvalidOption, match="last=-1: expected a whole number, 0 or more"):
        result([2.0]).table(last=-1)


def test_many_parameters_share_a_column() -> None:
    space = Space(*(Real(f"rate{i}", 0, 1) for i in range(23)))
    found = minimize(lambda p: p["rate3"], space, budget=2, strategy="random", progress=False)
    table = found.table()
    assert [str(column.header) for column in table.columns] == [
        "trial", "value", "configuration", "origin", "s",
    ]  # fmt: skip
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    printed = console.export_text()
    assert all(f"rate{i}=" in "".join(printed.split()) for i in range(23))
    best = found.best
    assert best is not None
    assert f"best value {best.value:.10g} at trial {best.id}" in str(found)


def test_a_result_prints_what_a_person_wants_to_know() -> None:
    text = str(result([2.0, None, 0.25]))
    lines = text.splitlines()
    assert lines[0] == "3 trials (1 failed), the budget was used up"
    assert lines[1] == "failed: value=None has type NoneType: expected one real number"
    assert lines[2] == "best value 0.25 at trial 2:"
    assert lines[3].startswith("    rate = 0.")
    assert lines[4].startswith("    kind = '")
    assert lines[5].startswith("time: 0.0 s objective, ")
    assert repr(result([2.0])).startswith("1 trials (0 failed)")


def test_a_result_tells_the_commonest_reason_of_failures() -> None:
    lines = str(result(["a", None, None])).splitlines()
    often = "failed: value=None has type NoneType: expected one real number (2 times)"
    assert lines[1] == f"{often}, and 1 for other reasons"
    assert lines[2] == "no trial has a value"


def test_reasons_that_differ_in_numbers_are_one() -> None:
    def crash(params: dict[str, Any]) -> float:
        if params["rate"] < 1e-3:
            raise MemoryError
        raise ValueError(f"rate {params['rate']} of <object at {hex(id(params))}> is too large")

    found = minimize(crash, SPACE, budget=7, strategy="sobol", progress=False)
    reasons = [str(trial.reason).splitlines()[0] for trial in found.trials]
    large = [reason for reason in reasons if "too large" in reason]
    assert len({*large}) == len(large) > 3
    others = f", and {7 - len(large)} for other reasons" * (len(large) < 7)
    assert str(found).splitlines()[1] == f"failed: {large[0]} ({len(large)} times){others}"


def test_reasons_that_differ_in_a_shortened_address_are_one() -> None:
    functions = [lambda: 1.0 for _ in range(9)]
    found = result(functions)
    assert "at 0x" not in str(found.trials[0].reason)
    assert str(found).splitlines()[1].endswith("expected one real number (9 times)")


def test_what_is_cut_within_keeps_both_ends() -> None:
    assert cut_within("a rather long one", 12) == "a rath…g one"
    assert cut_within("a rather long two", 12) == "a rath…g two"
    assert cut_within("twelve chars", 12) == "twelve chars"
    assert [cut_within("long", most) for most in (1, 2, 3)] == ["…", "l…", "l…g"]


def test_added_results_are_counted_by_themselves() -> None:
    done = result([2.0, None])
    added = Trial(7, {}, origin="added").completed(0.5, None)
    lines = str(replace(done, trials=(added, *done.trials))).splitlines()
    assert lines[0] == "2 trials (1 failed) and 1 added result, the budget was used up"
    lines = str(replace(done, trials=(added, *done.trials, added))).splitlines()
    assert lines[0] == "2 trials (1 failed) and 2 added results, the budget was used up"


def test_what_was_stopped_early_has_not_failed() -> None:
    done = result([2.0])
    ended = [
        Trial(1, {}, origin="random").failed("ValueError: stopped early", 1.0),
        Trial(2, {}, origin="random").failed("stopped early at step 3: worse", 1.0),
        Trial(3, {}, origin="random").failed("stopped early at step 5: worse", 1.0),
    ]
    lines = str(replace(done, trials=(*done.trials, *ended))).splitlines()
    assert lines[0] == "4 trials (1 failed, 2 stopped early), the budget was used up"
    assert lines[1] == "failed: ValueError: stopped early"
    assert outcome(ended[1]) == "stopped early at step 3: worse"
    assert outcome(ended[1], 29) == "stopped early at step 3"


def test_what_was_withdrawn_is_counted_and_has_not_failed() -> None:
    done, withdrawn = result([2.0]), Trial(1, {}, origin="random").failed("withdrawn: cold", 1.0)
    lines = str(replace(done, trials=(*done.trials, withdrawn))).splitlines()
    assert lines[0] == "2 trials (0 failed, 1 withdrawn), the budget was used up"
    assert lines[1].startswith("best value 2 ")


def test_trials_are_plain_values_for_other_programs() -> None:
    done = result([2.0, None])
    first, second = json.loads(json.dumps(done.records()))
    trial = done.trials[0]
    assert (first["id"], first["value"], first["status"]) == (0, 2.0, "completed")
    assert {name: first[f"params.{name}"] for name in SPACE.names} == trial.params
    assert (first["origin"], first["finished_at"]) == ("random", trial.finished_at)
    assert (second["value"], second["status"]) == (None, "failed")
    assert "NoneType" in second["reason"]


def test_an_optimizer_has_its_pending_trials_as_plain_values_too() -> None:
    done = result([2.0, None])
    pending = done.optimizer.ask()
    *ended, last = done.optimizer.records()
    assert ended == done.records()
    assert (last["id"], last["status"], last["finished_at"]) == (pending.id, "pending", None)


def test_the_convergence_plot_is_written(tmp_path: Path) -> None:
    path = tmp_path / "convergence.svg"
    figure = result([2.0, None, 1.0]).plot(path)
    assert len(figure.axes) == 1
    assert path.read_text().count("initial design") == 0
    assert "<svg" in path.read_text()


def test_values_and_configurations_are_short_for_people() -> None:
    assert [short(value) for value in (1 / 3, 12345678.9, 3, "a", True, "\udce9")] == [
        "0.3333",
        "1.235e+07",
        "3",
        "a",
        "True",
        r"\udce9",  # of a name of a file that is no text, which can be printed
    ]
    assert short_params({"rate": 1 / 3, "kind": "a"}) == "rate=0.3333  kind=a"


def test_an_outcome_is_a_value_or_the_start_of_a_reason() -> None:
    trial = Trial(0, {"rate": 1.0})
    assert outcome(trial) == "pending"
    assert outcome(trial.completed(1 / 3, None)) == "0.3333"
    assert outcome(trial.failed("ValueError: no\n  File", None)) == "failed: ValueError: no"
    assert outcome(trial.failed("x" * 99, None)) == "failed: " + "x" * 39 + "…"
    assert outcome(trial.failed("x" * 40, None)) == "failed: " + "x" * 40
    assert outcome(trial.failed("", None)) == "failed: "


def test_no_number_loses_its_end_in_a_narrow_table() -> None:
    space = Space(*(Real(f"rate{i}", 1e-9, 1.0, "log") for i in range(7)))
    found = minimize(lambda p: 8.461e-08, space, budget=2, strategy="random", progress=False)

    def characters(width: int) -> Counter[str]:
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(found.table())
        return Counter(console.export_text()) - Counter({" ": 10**6, "\n": 10**6, "─": 10**6})

    assert characters(60) == characters(400)


@pytest.mark.parametrize(("columns", "apart"), [(79, False), (80, True), (200, True)])
def test_parameters_have_columns_where_the_terminal_has_room(
    columns: int, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 characters are for other columns, 10 for each short name and its distance to the next."""
    monkeypatch.setenv("COLUMNS", str(columns))
    names = ["a", "b", "c", "nineteen_characters"]
    assert parameter_headings(names) == (names if apart else ["configuration"])
    cells = parameter_cells(names, dict.fromkeys(names, 0.5))
    assert cells == (["0.5"] * 4 if apart else [short_params(dict.fromkeys(names, 0.5))])

"""What runs in a worker: commands, their output, reports; and workers that outlive their trials."""

import functools
import inspect
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from gpbo import executors
from gpbo.attempt import LOG, METRICS, PROCESS
from gpbo.command import _running, end_left
from gpbo.errors import InvalidOption
from gpbo.executors import LocalWorkers, _awaited, end, pool_of_one, raised_there, start
from gpbo.objectives import check_is_here
from gpbo.worker import (
    Command,
    Imported,
    NotStarted,
    Task,
    die_with,
    evaluate,
    evaluate_in_own_process,
)
from tests import objectives
from tests.monte_carlo import unchecked_shapes
from tests.processes import lives

NO_VALUE = 'the command printed no value: expected a line such as {"value": 0.25}'


def task(objective: Any, folder: Path, **options: Any) -> Task:
    return Task(objective, 0, 1, **{"params": {"x": 0.5}, "folder": folder / "0", **options})


def wait_for(mark: Path, maker: Future[Any] | subprocess.Popen[bytes]) -> None:
    """Until the trial, or the process, that is to make this file has made it."""
    while not mark.exists():
        assert not (maker.done() if isinstance(maker, Future) else maker.poll() is not None)
        time.sleep(0.02)


def comes_true(condition: Callable[[], bool]) -> bool:
    """Whether it does within a minute."""
    until = time.monotonic() + 60
    while not condition() and time.monotonic() < until:
        time.sleep(0.1)
    return condition()


def endless(saved: Path, ready: Path, first: str = "") -> str:
    """A script for ``sh`` that marks when it is under way, and that it was asked to end."""
    return f"""
trap "touch {saved}; exit" TERM
{first}
touch {ready}
while true; do sleep 0.05; done
"""


def reported(folder: Path) -> list[tuple[int, float]]:
    lines = (folder / "0" / METRICS).read_text().splitlines()
    return [(told["step"], told["value"]) for told in map(json.loads, lines)]


# --- commands


@pytest.mark.parametrize(
    ("metric", "line", "reading"),
    [
        (None, '{"value": 0.5}', (None, 0.5)),
        (None, '{"value": 2, "step": 3}', (3, 2.0)),
        (None, '{"loss": 2}', None),
        (None, '{"value": true}', None),
        (None, '{"value": "high"}', None),
        (None, "[1, 2]", None),
        (None, "loss 0.5", None),
        (None, '{"value": NaN}', (None, "nan")),
        (None, '{"value": null}', (None, "nan")),
        (None, ' 20%|##    | 1/5 [00:00<00:00]{"step": 1, "value": 0.5}', (1, 0.5)),
        (None, 'INFO: {"value": 2}', (None, 2.0)),
        (None, '{"value": 2} was read', None),
        (None, 'with {rate}: {"value": 0.25}', (None, 0.25)),
        (None, '{"value": 0.25} {"value": 3}', (None, 3.0)),
        (None, "{'rate': {}}, { }: { \"value\": 0.25}", (None, 0.25)),
        (None, '{"value": 3} \r', (None, 3.0)),
        (None, "{" * 5000 + '"value": 3}', (None, 3.0)),
        (None, '{"step": 3, "value": null}', (3, "nan")),
        (r"loss=(\S+)", "epoch 3 loss=0.25 ok", (None, 0.25)),
        (r"loss=(\S+)", "loss=none", None),
        (r"(?P<step>\d+): (?P<value>\S+)", "12: -1e-3", (12, -1e-3)),
        (r"acc (?P<value>\d+)%|final (\d+)", "acc 93%", (None, 93.0)),
        (r"epoch (?P<step>\d+) loss (\S+)", "epoch 3 loss 0.25", (3, 0.25)),
        (None, '{"step": 1e30, "value": 1}', None),
        (None, '{"step": Infinity, "value": 1}', None),
        (None, '{"step": 3.0, "value": 1}', (3, 1.0)),
        (None, '{"step": 1.5, "value": 1}', None),
        (None, '{"step": "3", "value": 1}', None),
        (None, '{"step": -9223372036854775807, "value": 1}', (-(2**63) + 1, 1.0)),
        (None, f'{{"value": 1{"0" * 400}}}', None),
    ],
)
def test_a_line_of_output_is_read(metric: str | None, line: str, reading: Any) -> None:
    found = Command("true", metric).reading(line)
    if reading is not None and reading[1] == "nan":
        assert found is not None
        assert found[0] == reading[0]
        assert found[1] != found[1]
    else:
        assert found == reading


@pytest.mark.parametrize(
    ("template", "metric", "message"),
    [
        ("train '", None, "No closing quotation"),
        ("", None, "expected a program"),
        ("train", "loss=(", "metric="),
        ("train", "loss", "expected a group"),
        ("train", r"(?P<step>\d+)", "expected a group"),
        (
            "train {lr} > out.json",
            None,
            "no shell runs the command, so '>' has no special meaning: put it in quotes, or",
        ),
        ("train 2>&1", None, "no shell runs the command, so '2>&1'"),
        ("train | tail", None, r"no shell runs the command, so '\|'"),
        ("cd a && train", None, "no shell runs the command, so '&&'"),
        (3, None, "command=3: expected a string"),
        ("train", 3, "metric=3: expected a string"),
    ],
)
def test_a_command_that_cannot_work_is_refused(template: Any, metric: Any, message: str) -> None:
    with unchecked_shapes(), pytest.raises(InvalidOption, match=message):
        Command(template, metric)


@pytest.mark.parametrize(
    "template",
    ["a '>' \">\" \\> x>y", r'sh -c "a \"b\" | c"', "sh -c 'a > b; c'", r"a \'b '| c'"],
)
def test_what_is_quoted_is_no_operator_of_a_shell(template: str) -> None:
    assert Command(template).arguments({}) == shlex.split(template)


def test_where_no_command_can_be_ended_none_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    check_is_here(Command("true"), {})
    monkeypatch.delattr("os.killpg")
    with pytest.raises(
        InvalidOption, match="command='true': commands run only on systems with process groups"
    ):
        check_is_here(Command("true"), {})


def test_a_worker_that_could_not_end_a_command_does_not_begin_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = tmp_path / "begun"
    monkeypatch.delattr("os.killpg")
    outcome = evaluate(task(Command(f"touch {begun}"), tmp_path))
    assert "commands run only on systems with process groups" in str(outcome.reason)
    assert not begun.exists()


def test_parameters_are_filled_in_and_never_seen_by_a_shell() -> None:
    command = Command("train --lr {lr} --name '{kind} model' --raw {{x}}")
    params = {"lr": 1e-05, "kind": "$(rm -rf /); a"}
    assert command.arguments(params) == [
        "train", "--lr", "1e-05", "--name", "$(rm -rf /); a model", "--raw", "{x}",
    ]  # fmt: skip
    with pytest.raises(InvalidOption, match=r"'depth': expected in braces one of lr, kind"):
        Command("train {depth}").arguments(params)


def test_a_parameter_may_have_a_name_that_reads_as_a_part_of_another() -> None:
    params = {"opt.lr": 0.5, "opt": 2.0, "kind[0]": "a", "width": 6}
    command = Command("train lr={opt.lr:{width}.2f} {kind[0]!r} {opt.real:g} {opt}")
    assert command.arguments(params) == ["train", "lr=  0.50", "'a'", "2", "2.0"]


@pytest.mark.parametrize(
    ("template", "params", "message"),
    [
        ("echo {c:d}", {"c": None}, "unsupported format string passed to NoneType"),
        ("echo {lr[0]}", {"lr": 0.5}, "'float' object is not subscriptable"),
        ("echo {lr.x}", {"lr": 0.5}, "'float' object has no attribute 'x'"),
        ("echo {lr:d}", {"lr": 0.5}, "Unknown format code 'd'"),
        ("echo {}", {"lr": 0.5}, "out of range"),
        ("echo {0}", {"lr": 0.5}, "out of range"),
        ("echo {lr", {"lr": 0.5}, "expected '}'"),
    ],
)
def test_a_template_that_does_not_fit_a_value_is_named(
    template: str, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOption, match=f"command='{re.escape(template)}': .*{message}"):
        Command(template).arguments(params)


def shell(script: str) -> Command:
    return Command(f"bash -c '{script}'")


def test_the_last_value_that_a_command_prints_is_its_result(tmp_path: Path) -> None:
    script = r"echo noise; for i in 1 2; do echo {{\"step\": $i, \"value\": $i.5}}; done"
    outcome = evaluate(task(shell(script), tmp_path))
    assert (outcome.value, outcome.reason) == (2.5, None)
    assert reported(tmp_path) == [(1, 1.5), (2, 2.5)]
    assert (tmp_path / "0" / "log.txt").read_text().startswith("noise\n")
    assert not _running  # or another process that has its number by then would be ended for it


def test_a_value_without_a_step_counts_more_than_those_with(tmp_path: Path) -> None:
    script = r"echo {{\"value\": 7}}; echo {{\"step\": 3, \"value\": 9}}"
    assert evaluate(task(shell(script), tmp_path)).value == 7


def test_a_last_line_without_an_end_is_read_too(tmp_path: Path) -> None:
    command = Command("""printf '{{"value": 1}}\\n{{"value": %s}}' {x}""")
    assert evaluate(task(command, tmp_path)).value == 0.5


def test_a_command_that_runs_again_in_its_folder_is_not_read_twice(tmp_path: Path) -> None:
    """As an executor does it that lost the worker of an attempt."""
    assert evaluate(task(shell(r"echo {{\"value\": 7}}"), tmp_path)).value == 7
    assert evaluate(task(shell("true"), tmp_path)).reason == NO_VALUE


def test_a_long_log_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between which the time is looked at, and lines that lie across two of them are whole."""
    monkeypatch.setattr("gpbo.command._CHUNK_BYTES", 7)
    script = r"for i in 1 2 3; do echo {{\"step\": $i, \"value\": $i.5}}; done; echo; echo end"
    assert evaluate(task(shell(script), tmp_path)).value == 3.5
    assert reported(tmp_path) == [(1, 1.5), (2, 2.5), (3, 3.5)]
    outcome = evaluate(task(shell("while :; do echo noise; done"), tmp_path, time_limit_s=0.3))
    assert outcome.reason == "the time limit of 0.3 s was reached"


def test_only_lines_that_may_tell_a_value_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(Command, "reading", lambda self, line: seen.append(line))
    evaluate(task(shell(r"echo noise; echo {{\"value\": 1}}; echo noise"), tmp_path))
    assert seen == ['{"value": 1}']


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo oh no; exit 4", "the command ended with 4: oh no"),
        ("kill -9 $$", "the command ended with -9"),
        ("echo done", f"{NO_VALUE}; its last line was 'done'"),
        ("true", NO_VALUE),
    ],
)
def test_a_command_without_a_result_says_why(script: str, reason: str, tmp_path: Path) -> None:
    outcome = evaluate(task(shell(script), tmp_path))
    assert (outcome.value, outcome.reason) == (None, reason)
    assert outcome.died == ("-9" in reason)


def test_a_command_without_what_its_expression_finds_says_what_was_expected(tmp_path: Path) -> None:
    outcome = evaluate(task(Command("echo 0.25", r"loss: (\S+)"), tmp_path))
    expected = (
        r"the command printed no value: expected a line of 'loss: (\\S+)'; its last line was '0.25'"
    )
    assert outcome.reason == expected


def python(script: str, metric: str | None = None) -> Command:
    return Command(f"{sys.executable} -c '{script}'", metric)


def test_of_an_endless_last_line_the_end_is_the_reason(tmp_path: Path) -> None:
    command = python('print("x" * 10**6 + "no"); raise SystemExit(4)')
    reason = str(evaluate(task(command, tmp_path)).reason)
    assert reason.startswith("the command ended with 4: xxx")
    assert reason.endswith("xxno")
    assert len(reason) < 1100


def test_what_a_command_in_python_printed_is_there_even_if_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    script = 'import os; print("step 1 loss 0.5"); os.kill(os.getpid(), 9)'
    outcome = evaluate(task(python(script, r"step (?P<step>\d+) loss (\S+)"), tmp_path))
    assert outcome.died
    assert reported(tmp_path) == [(1, 0.5)]


def test_a_command_has_no_input(tmp_path: Path) -> None:
    """Or it would wait for what nobody writes."""
    reader, writer = os.pipe()
    os.write(writer, b'{"value": 7}\n')
    saved = os.dup(0)
    os.dup2(reader, 0)
    try:
        outcome = evaluate(task(Command("head -n 1"), tmp_path))
    finally:
        os.dup2(saved, 0)
        for number in (reader, writer, saved):
            os.close(number)
    assert outcome.reason == NO_VALUE


def test_a_program_that_is_not_there_is_a_failed_trial(tmp_path: Path) -> None:
    outcome = evaluate(task(Command("/no/such/program {x}"), tmp_path))
    assert str(outcome.reason).startswith("the command did not start: ")


def test_a_command_beyond_its_time_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    script = f"(sleep 1.5; touch {mark}) & sleep 60"
    outcome = evaluate(task(shell(script), tmp_path, time_limit_s=0.3))
    assert outcome.reason == "the time limit of 0.3 s was reached"
    time.sleep(1.5)
    assert not mark.exists()


@pytest.mark.parametrize("heeds", [True, False])
def test_what_a_command_leaves_running_is_ended_politely_and_then_not(
    heeds: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not heeds:
        monkeypatch.setattr("gpbo.command._GRACE_S", 0.2)
    saved, alive, ready = (tmp_path / name for name in ("saved", "alive", "ready"))
    on_term = f"sleep 0.3; touch {saved}; exit" if heeds else ""
    rest = f'trap "{on_term}" TERM; touch {ready}; sleep 1; sleep 1; touch {alive}'
    script = rf"({rest}) & until test -e {ready}; do sleep 0.05; done; echo {{{{\"value\": 7}}}}"
    assert evaluate(task(shell(script), tmp_path)).value == 7
    time.sleep(2.5)
    assert (saved.exists(), alive.exists()) == (heeds, False)


def test_a_command_that_is_told_to_stop_ends(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "stop").touch()
    assert evaluate(task(Command("sleep 60"), tmp_path)).stopped


# --- functions


def test_a_function_reports_and_is_stopped_at_its_next_report(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "stop").touch()
    outcome = evaluate(task(objectives.curve, tmp_path))
    assert outcome.stopped
    assert reported(tmp_path) == [(0, 1.5)]


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        (lambda params, by=3.0: by * params["x"], 1.5),
        (lambda params, *rest, by=3.0: len(rest), 0),
        (lambda params, trial: trial.attempt, 1),
        (lambda params, trial, by=3.0: trial.attempt * by, 3.0),
        (lambda params, trial=None: trial.attempt, 1),
        (lambda params, by=3.0, trial=None: by * params["x"], 1.5),
        (lambda params, trial, /: trial.attempt, 1),
        (lambda params, running: running.attempt, 1),
        (functools.partial(max, {"x": 0.25}, key=lambda params: params["x"]), {"x": 0.5}),
    ],
)
def test_a_function_gets_the_running_trial_if_it_needs_a_second_argument(
    objective: Any, value: Any, tmp_path: Path
) -> None:
    assert evaluate(task(objective, tmp_path)).value == value


def test_a_function_that_changes_what_it_is_given_changes_no_task(tmp_path: Path) -> None:
    """In a thread of the driver, which an executor may run it in, that is what the job knows."""

    def changes(params: dict[str, Any], trial: Any) -> float:
        params["x"] = trial.params["x"] = 0.25
        return 1.5

    given = task(changes, tmp_path)
    assert evaluate(given).value == 1.5
    assert given.params == {"x": 0.5}


@pytest.mark.parametrize("step", [2**70, -(2**70), math.inf, math.nan, 1.7, True, "3"])
def test_a_step_that_no_storage_holds_is_refused(step: Any, tmp_path: Path) -> None:
    def objective(params: dict[str, Any], trial: Any) -> float:
        inspect.unwrap(type(trial).report)(trial, step, 1.0)
        return 0.0

    reason = str(evaluate(task(objective, tmp_path)).reason)
    assert f"step={step!r}: expected a whole number that fits in 64 bits" in reason


@pytest.mark.parametrize("value", ["0.5", None, True, [1.0, 2.0]])
def test_a_report_of_what_is_no_number_is_refused(value: Any, tmp_path: Path) -> None:
    def objective(params: dict[str, Any], trial: Any) -> float:
        inspect.unwrap(type(trial).report)(trial, 1, value)
        return 0.0

    reason = str(evaluate(task(objective, tmp_path)).reason)
    assert f"value={value!r} has type {type(value).__name__}: expected one real number" in reason


def test_a_report_may_be_a_tensor_or_nan(tmp_path: Path) -> None:
    def objective(params: dict[str, Any], trial: Any) -> float:
        inspect.unwrap(type(trial).report)(trial, 1, torch.tensor([0.25]))
        inspect.unwrap(type(trial).report)(trial, 2, math.nan)
        return 0.0

    assert evaluate(task(objective, tmp_path)).value == 0.0
    (first, loss), (second, missing) = reported(tmp_path)
    assert (first, loss, second) == (1, 0.25, 2)
    assert math.isnan(missing)


def test_a_function_is_found_by_its_name(tmp_path: Path) -> None:
    assert evaluate(task(Imported("tests.objectives:bowl"), tmp_path)).value == pytest.approx(0.04)
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    for target, lacking in {
        "no.such.module:bowl": "ModuleNotFoundError: No module named 'no'",
        "tests.objectives:bowls": "AttributeError: module 'tests.objectives' has no attribute",
        "tests.objectives:__name__": "TypeError: 'tests.objectives' cannot be called",
        "leaves:loss": "SystemExit: 3",
    }.items():
        with pytest.raises(NotStarted, match=f"objective='{target}' cannot be loaded: {lacking}"):
            evaluate(task(Imported(target, tmp_path), tmp_path))
    with pytest.raises(InvalidOption, match="expected 'module:function'"):
        Imported("bowl")


@pytest.mark.parametrize("imported", [False, True])
def test_an_interrupt_is_a_death_so_that_the_trial_runs_again(
    imported: bool, tmp_path: Path
) -> None:
    def interrupted(params: dict[str, Any]) -> float:
        raise KeyboardInterrupt

    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt")
    objective = Imported("interrupted:loss", tmp_path) if imported else interrupted
    outcome = evaluate(task(objective, tmp_path))
    assert (outcome.reason, outcome.died) == ("interrupted", True)


# --- processes


def test_a_module_is_looked_for_in_its_folder_first(tmp_path: Path) -> None:
    (tmp_path / "tabnanny.py").write_text("def loss(params): return params['x']")
    with LocalWorkers(1) as workers:
        own = task(Imported("tabnanny:loss", tmp_path), tmp_path)
        assert workers.submit(evaluate, own).result(60).value == 0.5


def test_however_a_process_ends_it_is_one_failed_trial_and_the_worker_goes_on(
    tmp_path: Path,
) -> None:
    expected = {
        "segfault": "the process of the trial died: SIGSEGV(-11)",
        "exit": "the process of the trial died: EXIT(3)",
        "killed": "the process of the trial died: SIGKILL(-9)",
        "hang": "the time limit of 3 s was reached",
        "raise": "ValueError: no convergence",
        "sys.exit": "SystemExit: enough",
        "fine": None,
    }
    with LocalWorkers(2) as workers:
        futures = {
            how: workers.submit(
                evaluate,
                Task(
                    objectives.treacherous,
                    number,
                    1,
                    {"how": how},
                    tmp_path / how,
                    worker=number % 2,
                    time_limit_s=3.0,
                ),
            )
            for number, how in enumerate(expected)
        }
        reasons = {how: future.result(60).reason for how, future in futures.items()}
    first_lines = {how: reason and reason.split("\n")[0] for how, reason in reasons.items()}
    assert first_lines == expected
    for how in expected:
        assert (tmp_path / how / "log.txt").read_text().startswith(f"trying {how}\n")


def test_workers_that_are_shut_down_end_their_commands_as_a_time_limit_does(
    tmp_path: Path,
) -> None:
    saved, alive, ready = (tmp_path / name for name in ("saved", "alive", "ready"))
    script = (
        f'trap "sleep 0.2; touch {saved}; exit" TERM; ((sleep 3; touch {alive}) &); '
        f"touch {ready}; while true; do sleep 0.05; done"
    )
    with LocalWorkers(2) as workers:
        future = workers.submit(evaluate, task(shell(script), tmp_path))
        wait_for(ready, future)
    assert saved.exists()
    time.sleep(3.5)
    assert not alive.exists()


def test_workers_that_are_shut_down_wait_only_while_a_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be for as long as commands may take to end, each time."""
    monkeypatch.setattr(executors, "_GRACE_S", 300.0)
    saved, ready = tmp_path / "saved", tmp_path / "ready"
    workers = LocalWorkers(2)
    first = task(shell("true"), tmp_path)
    assert workers.submit(evaluate, first).result(60).reason == NO_VALUE
    second = task(shell(endless(saved, ready)), tmp_path, worker=1)
    wait_for(ready, workers.submit(evaluate, second))
    ending = threading.Thread(target=workers.shutdown, daemon=True)
    ending.start()
    assert comes_true(lambda: not ending.is_alive())
    assert saved.exists()


def test_what_ran_on_workers_that_were_shut_down_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that notices its end does so late here: when it is waited for."""
    waiting = threading.Event()
    discard, shutdown = LocalWorkers._discard, ThreadPoolExecutor.shutdown

    def late(workers: LocalWorkers, worker: int) -> None:
        waiting.wait(5)
        discard(workers, worker)

    def noted(thread: ThreadPoolExecutor, wait: bool = True, **options: Any) -> None:
        if wait:
            waiting.set()
        shutdown(thread, wait, **options)

    monkeypatch.setattr(LocalWorkers, "_discard", late)
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", noted)
    with LocalWorkers(1) as workers:
        hanging = task(objectives.treacherous, tmp_path, params={"how": "hang"})
        future = workers.submit(evaluate, hanging)
        wait_for(tmp_path / "0" / LOG, future)
    assert future.done()
    assert future.result().died


def test_a_command_whose_worker_is_terminated_ends_with_it(tmp_path: Path) -> None:
    ready, process = tmp_path / "ready", tmp_path / "process"
    script = f"echo $PPID > {process}; touch {ready}; while true; do sleep 0.05; done"
    with LocalWorkers(1) as workers:
        future = workers.submit(evaluate, task(shell(script), tmp_path))
        wait_for(ready, future)
        os.kill(int(process.read_text()), signal.SIGTERM)
        assert future.result(20).reason == "the process of the trial died: SIGTERM(-15)"


def test_a_command_whose_worker_is_killed_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """As by a system that is out of memory; the next trial has the machine to itself."""
    ready, processes = tmp_path / "ready", tmp_path / "processes"
    script = f"sleep 300 & echo $PPID $$ $! > {processes}; touch {ready}; wait"
    with LocalWorkers(1) as workers:
        future = workers.submit(evaluate, task(shell(script), tmp_path))
        wait_for(ready, future)
        worker, *command = [psutil.Process(int(number)) for number in processes.read_text().split()]
        assert all(map(lives, command))
        worker.kill()
        assert future.result(20).reason == "the process of the trial died: SIGKILL(-9)"
        assert not any(map(lives, command))
    assert [path.name for path in (tmp_path / "0").iterdir()] == [LOG]


@pytest.mark.parametrize("own_session", [True, False])
def test_a_process_that_has_the_number_of_a_command_is_left_alone(
    own_session: bool, tmp_path: Path
) -> None:
    """It is no command if it has no session of its own; when it was noted says nothing."""
    note = tmp_path / PROCESS
    with subprocess.Popen(["sleep", "300"], start_new_session=own_session) as other:
        try:
            process = psutil.Process(other.pid)
            note.write_text(str(other.pid))
            os.utime(note, times=(time.time() - 60,) * 2)
            end_left(tmp_path)
            assert lives(process) != own_session
            assert not note.exists()
        finally:
            other.kill()
    end_left(tmp_path)


def test_a_process_that_dies_with_nothing_to_do_fails_no_trial(tmp_path: Path) -> None:
    with LocalWorkers(1) as workers:
        idle = workers.submit(evaluate, task(lambda params: os.getpid(), tmp_path)).result(60)
        os.kill(int(idle.value), signal.SIGKILL)
        time.sleep(0.5)  # until it is noticed
        outcome = workers.submit(evaluate, task(objectives.bowl, tmp_path)).result(60)
    assert outcome.value == pytest.approx(0.04)


def test_a_process_that_hangs_with_nothing_to_do_fails_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpbo.executors._ANSWER_S", 0.5)
    with LocalWorkers(1) as workers:
        idle = workers.submit(evaluate, task(lambda params: os.getpid(), tmp_path)).result(60)
        os.kill(int(idle.value), signal.SIGSTOP)
        outcome = workers.submit(evaluate, task(objectives.bowl, tmp_path)).result(60)
    assert outcome.value == pytest.approx(0.04)


def test_a_command_that_failed_has_failed_where_the_end_of_children_is_ignored(
    tmp_path: Path,
) -> None:
    """As some supervisors leave it to what they start; its status would be that of a success."""
    script = tmp_path / "script.sh"
    script.write_text("""echo '{"value": 1}'; exit 3""")
    exits = task(objectives.treacherous, tmp_path / "1", params={"how": "exit"})
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with LocalWorkers(1) as workers:
            failed = workers.submit(evaluate, task(Command(f"sh {script}"), tmp_path)).result(60)
            died = workers.submit(evaluate, exits).result(60)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert failed.reason == 'the command ended with 3: {"value": 1}'
    assert died.reason == "the process of the trial died"


def test_a_command_beyond_its_time_costs_no_process(tmp_path: Path) -> None:
    parent = Command("bash -c 'echo $PPID'", metric=r"(\d+)")
    tasks = [
        task(parent, tmp_path),
        task(Command("sleep 60"), tmp_path, time_limit_s=0.3),
        task(parent, tmp_path),
    ]
    with LocalWorkers(1) as workers:
        first, late, second = [workers.submit(evaluate, one).result(60) for one in tasks]
    assert late.reason == "the time limit of 0.3 s was reached"
    assert first.value == second.value is not None


def test_workers_that_are_shut_down_start_no_process(tmp_path: Path) -> None:
    """As for a trial whose process had just died."""
    workers = LocalWorkers(1)
    workers.shutdown()
    outcome = workers._run(evaluate, task(objectives.bowl, tmp_path))
    assert (outcome.value, outcome.reason) == (None, "the process of the trial died")


@pytest.fixture
def noted(tmp_path: Path) -> Iterator[Path]:
    """Where a trial notes the process that it started, which is ended after the test."""
    note = tmp_path / "noted"
    yield note
    if note.exists():
        with suppress(psutil.NoSuchProcess):
            psutil.Process(int(note.read_text())).kill()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
@pytest.mark.parametrize(
    ("how", "why"), [("exit", "EXIT(3)"), ("killed", "SIGKILL(-9)")], ids=["exit", "killed"]
)
def test_the_death_of_a_process_is_noticed_while_a_child_that_it_forked_lives(
    how: str, why: str, noted: Path, tmp_path: Path
) -> None:
    """The child holds open what closes with a process."""

    def forks(params: dict[str, Any]) -> float:
        child = os.fork()
        if child == 0:
            time.sleep(300)
            os._exit(0)
        noted.write_text(str(child))
        return float(objectives.treacherous({"how": how}))

    with LocalWorkers(1) as workers:
        outcome = workers.submit(evaluate, task(forks, tmp_path)).result(60)
        assert lives(psutil.Process(int(noted.read_text())))
        assert (outcome.reason, outcome.died) == (f"the process of the trial died: {why}", True)
        again = workers.submit(evaluate, task(objectives.bowl, tmp_path)).result(60)
    assert again.value == pytest.approx(0.04)


@pytest.mark.skipif(sys.platform == "win32", reason="its pipes have no halves of messages")
def test_a_process_may_be_killed_while_it_tells_its_result(tmp_path: Path) -> None:
    """loky has begun to read, and would wait for the rest."""

    def dies_on_the_way(params: dict[str, Any]) -> float:
        def half(pipe: Any, message: bytes) -> None:
            os.write(pipe.fileno(), struct.pack("!i", len(message)) + message[:7])
            os.kill(os.getpid(), signal.SIGKILL)

        connection.Connection._send_bytes = half  # type: ignore[attr-defined]
        return 0.5

    with LocalWorkers(1) as workers:
        outcome = workers.submit(evaluate, task(dies_on_the_way, tmp_path)).result(60)
        assert outcome.reason == "the process of the trial died: SIGKILL(-9)"
        again = workers.submit(evaluate, task(objectives.bowl, tmp_path)).result(60)
    assert again.value == pytest.approx(0.04)


def test_a_process_that_ended_without_an_error_has_died_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As by ``os._exit(0)``."""
    monkeypatch.setattr(executors, "_LOOK_S", 0.01)
    pool: Any = SimpleNamespace(_processes={1: SimpleNamespace(exitcode=0)})
    with unchecked_shapes(), pytest.raises(BrokenExecutor):
        _awaited(pool, Future(), 5.0)


@pytest.mark.parametrize("limit", [math.inf, 1.5], ids=["no limit", "over by then"])
@pytest.mark.parametrize("tells", [True, False])
def test_what_a_process_told_as_it_ended_is_heard_at_the_next_look(
    limit: float, tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has died if that is nothing, even if its time is over by then."""
    told: Future[int] = Future()
    clock = [0.0]

    def look(futures: list[Future[int]], seconds: float) -> Any:
        clock[0] += seconds
        if tells and clock[0] > 1:
            told.set_result(7)
        return SimpleNamespace(done={future for future in futures if future.done()})

    monkeypatch.setattr("gpbo.executors.wait", look)
    monkeypatch.setattr("gpbo.executors.time", SimpleNamespace(monotonic=lambda: clock[0]))
    pool: Any = SimpleNamespace(_processes={1: SimpleNamespace(exitcode=3)})
    with unchecked_shapes():
        if tells:
            assert _awaited(pool, told, limit) == 7
        else:
            with pytest.raises(BrokenExecutor, match=r"EXIT\(3\)"):
                _awaited(pool, told, limit)


@pytest.mark.parametrize(("limit", "tells"), [(2.0, True), (5.0, True), (5.0, False)])
def test_while_a_process_is_stopped_hardly_any_time_of_its_trials_passes(
    limit: float, tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-Z: of a result that came in time it hears only when it goes on."""
    told: Future[int] = Future()
    clock = [0.0]

    def look(futures: list[Future[int]], seconds: float) -> Any:
        clock[0] += max(seconds, 0.0)
        if clock[0] == 2.0:  # at the second look we are stopped
            clock[0] += 600.0
        elif clock[0] > 602.0 and tells and not told.done():
            told.set_result(7)
        return SimpleNamespace(done={future for future in futures if future.done()})

    monkeypatch.setattr("gpbo.executors.wait", look)
    monkeypatch.setattr("gpbo.executors.time", SimpleNamespace(monotonic=lambda: clock[0]))
    pool: Any = SimpleNamespace(_processes={})
    with unchecked_shapes():
        if tells:
            assert _awaited(pool, told, limit) == 7
        else:
            with pytest.raises(TimeoutError):
                _awaited(pool, told, limit)
            assert clock[0] == 600.0 + limit


def test_what_a_function_started_ends_when_the_driver_is_killed(
    noted: Path, tmp_path: Path
) -> None:
    script = f"""
import subprocess, time
from pathlib import Path
from gpbo.executors import LocalWorkers
from gpbo.worker import Task, evaluate

def objective(params):
    with subprocess.Popen(["sleep", "300"]) as started:
        Path({str(noted)!r} + "-").write_text(str(started.pid))
        Path({str(noted)!r} + "-").rename({str(noted)!r})

task = Task(objective, 0, 1, {{}}, Path({str(tmp_path / "0")!r}))
with LocalWorkers(1) as workers:
    workers.submit(evaluate, task).result()
"""
    with subprocess.Popen([sys.executable, "-c", script]) as driver:
        wait_for(noted, driver)
        started = psutil.Process(int(noted.read_text()))
        driver.kill()
    assert comes_true(lambda: not lives(started))


def test_a_command_is_asked_to_end_when_the_driver_is_killed(noted: Path, tmp_path: Path) -> None:
    """And what it started ends with it, even if that is no child of anybody by then."""
    saved, ready = tmp_path / "saved", tmp_path / "ready"
    run = tmp_path / "run.sh"
    run.write_text(endless(saved, ready, first=f"(sleep 300 & echo $! > {noted})"))
    script = f"""
from pathlib import Path
from gpbo.executors import LocalWorkers
from gpbo.worker import Command, Task, evaluate

with LocalWorkers(1) as workers:
    command = Command("sh {run}")
    workers.submit(evaluate, Task(command, 0, 1, {{}}, Path({str(tmp_path / "0")!r}))).result()
"""
    with subprocess.Popen([sys.executable, "-c", script]) as driver:
        wait_for(ready, driver)
        orphan = psutil.Process(int(noted.read_text()))
        driver.kill()
    assert comes_true(lambda: not lives(orphan) and saved.exists())


def test_a_process_that_is_terminated_asks_its_command_to_end_first(tmp_path: Path) -> None:
    saved, ready, run = tmp_path / "saved", tmp_path / "ready", tmp_path / "run.sh"
    run.write_text(endless(saved, ready))
    script = f"""
from pathlib import Path
from gpbo.worker import Command, Task, evaluate_in_own_process

command = Command("sh {run}")
evaluate_in_own_process(Task(command, 0, 1, {{}}, Path({str(tmp_path / "0")!r})))
"""
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        wait_for(ready, process)
        process.terminate()
    assert (process.returncode, saved.exists()) == (-signal.SIGTERM, True)


def test_a_process_that_took_too_long_has_ended_when_that_is_told(
    noted: Path, tmp_path: Path
) -> None:
    def hangs(params: dict[str, Any]) -> None:
        noted.write_text(str(os.getpid()))
        time.sleep(300)

    with LocalWorkers(1) as workers:
        late = workers.submit(evaluate, task(hangs, tmp_path, time_limit_s=4.0)).result(60)
        assert late.reason == "the time limit of 4 s was reached"
        assert not psutil.pid_exists(int(noted.read_text()))


def test_a_process_is_ended_even_if_nothing_can_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shutdown(**options: Any) -> None:
        raise RuntimeError("can't start new thread")

    pool = pool_of_one()
    try:
        process = start(pool).result(60)
        with monkeypatch.context() as patched:
            patched.setattr(pool, "shutdown", shutdown)
            end(pool)
        assert not psutil.pid_exists(process)
    finally:
        end(pool)


def test_a_trial_that_waits_for_its_worker_is_cancelled_when_that_is_shut_down(
    tmp_path: Path,
) -> None:
    ready = tmp_path / "ready"
    with LocalWorkers(1) as workers:
        runs = task(shell(f"touch {ready}; sleep 60"), tmp_path)
        first = workers.submit(evaluate, runs)
        second = workers.submit(evaluate, task(objectives.bowl, tmp_path))
        wait_for(ready, first)
    assert first.done()
    assert second.cancelled()


def test_an_objective_that_is_mended_is_loaded_with_all_that_it_imports(tmp_path: Path) -> None:
    """By another process than the one that has imported what was wrong."""
    (tmp_path / "leading.py").write_text("from helping import loss")
    (tmp_path / "helping.py").write_text("")
    mended = task(Imported("leading:loss", tmp_path), tmp_path)
    with LocalWorkers(1) as workers:
        with pytest.raises(NotStarted, match="cannot import name 'loss'"):
            workers.submit(evaluate, mended).result(60)
        (tmp_path / "helping.py").write_text("def loss(params): return 1.5")
        assert workers.submit(evaluate, mended).result(60).value == 1.5


def test_what_a_function_of_a_module_has_cached_serves_the_next_trial_too(tmp_path: Path) -> None:
    load = objectives.loaded_once

    def objective(params: dict[str, Any]) -> float:
        return load()

    with LocalWorkers(1) as workers:
        one = task(objective, tmp_path)
        first, second = (workers.submit(evaluate, one).result(60).value for _ in range(2))
    assert first == second is not None


@pytest.mark.parametrize("limit", [math.inf, 1e10])
def test_a_time_limit_may_be_longer_than_any_wait(limit: float, tmp_path: Path) -> None:
    with LocalWorkers(1) as workers:
        future = workers.submit(evaluate, task(objectives.bowl, tmp_path, time_limit_s=limit))
        assert future.result(60).value == pytest.approx(0.04)


def test_workers_have_a_device_and_one_thread_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with LocalWorkers(3, gpus=("4", "6")) as workers:
        tasks = [
            Task(objectives.environment, i, 1, {}, tmp_path / str(i), worker=i) for i in range(3)
        ]
        for future in [workers.submit(evaluate, given) for given in tasks]:
            assert future.result(60).reason is None
    printed = [(tmp_path / str(i) / "log.txt").read_text().split() for i in range(3)]
    assert printed == [["4", "1"], ["6", "1"], ["4", "1"]]


def test_closures_are_sent_and_workers_that_are_shut_down_end_at_once(tmp_path: Path) -> None:
    offset = 3.0
    with LocalWorkers(2) as workers:
        future = workers.submit(evaluate, task(lambda params: params["x"] + offset, tmp_path))
        assert future.result(60).value == 3.5
        began = time.monotonic()
        sleeping = task(lambda params: time.sleep(60), tmp_path, worker=1)
        future = workers.submit(evaluate, sleeping)
        time.sleep(0.5)
    assert time.monotonic() - began < 30
    assert "died" in str(future.result().reason)


def test_ctrl_c_while_a_process_starts_is_left_to_its_driver(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Before it ignores that, it would die with a traceback; what it starts later heeds it."""
    pool = pool_of_one(initializer=die_with, initargs=(os.getpid(),))
    try:
        number = start(pool)
        (process,) = pool._processes.values()
        os.kill(process.pid, signal.SIGINT)
        assert number.result(60) == process.pid
        blocked = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ())
        assert signal.SIGINT not in blocked.result(60)
    finally:
        end(pool)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert capfd.readouterr().err == ""


def test_a_process_ends_with_its_driver_where_the_number_of_that_stays(tmp_path: Path) -> None:
    """As on Windows."""
    (tmp_path / "worker.py").write_text(
        """
import os, time
from gpbo.worker import die_with
driver = os.getppid()
os.getppid, os.name = lambda: driver, "nt"
die_with(driver)
print(os.getpid(), flush=True)
time.sleep(300)
"""
    )
    script = "import subprocess, sys; subprocess.run([sys.executable, 'worker.py'])"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        worker = psutil.Process(int(driver.stdout.readline()))
        assert lives(worker)
        driver.kill()
    try:
        assert comes_true(lambda: not lives(worker))
    finally:
        with suppress(psutil.NoSuchProcess):
            worker.kill()


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_ends_no_process_and_nohup_is_left_in_place(ignored: bool) -> None:
    """The driver hears of it, too; commands inherit that it is ignored, as under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    pool = pool_of_one(initializer=die_with, initargs=(os.getpid(),))
    try:
        start(pool).result(60)
        assert pool.submit(signal.raise_signal, signal.SIGHUP).result(60) is None
        left = pool.submit(signal.signal, signal.SIGHUP, signal.SIG_DFL).result(60)
        assert (left is signal.SIG_IGN) == ignored
    finally:
        end(pool)
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signal")
def test_a_terminal_that_quits_the_driver_ends_no_process() -> None:
    r"""By Ctrl-\: a process that went with the driver would leave its command running."""
    pool = pool_of_one(initializer=die_with, initargs=(os.getpid(),))
    try:
        start(pool).result(60)
        assert pool.submit(signal.raise_signal, signal.SIGQUIT).result(60) is None
    finally:
        end(pool)


def test_a_worker_loads_no_tensors(tmp_path: Path) -> None:
    def loaded(params: dict[str, Any]) -> float:
        return float("torch" in sys.modules)

    loaded.__module__ = "__main__"  # sent by value, so that the worker need not import this file
    with LocalWorkers(1) as workers:
        assert workers.submit(evaluate, task(loaded, tmp_path)).result(60).value == 0.0


@pytest.mark.parametrize("method", [None, "fork", "forkserver", "spawn"])
def test_an_objective_has_processes_of_its_own(method: str | None, tmp_path: Path) -> None:
    """torch's loaders of data start them by the default method."""
    with LocalWorkers(1) as workers:
        one = Task(objectives.starts_processes, 0, 1, {"method": method}, tmp_path, 0, 30.0)
        assert workers.submit(evaluate, one).result(60).value == 3.0


@pytest.mark.parametrize("spawned", [False, True])
def test_what_a_script_defines_can_be_pickled_and_found_by_processes(
    spawned: bool, tmp_path: Path
) -> None:
    """Its functions are sent by value, to a process whose main module is another one."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import contextlib, functools, json, multiprocessing, pickle, sys
from pathlib import Path
from gpbo.executors import LocalWorkers
from gpbo.worker import NotStarted, Task, evaluate

class Net:
    def __call__(self, params):
        return len(pickle.dumps(Net())) > 0

def square(number):
    return number * number

@functools.lru_cache(maxsize=7)
def cached(number):
    return number + cached.cache_parameters()["maxsize"]

def pooled(params):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return sum(pool.map(square, [1, 2]))

class Decorated(contextlib.ContextDecorator):
    def __enter__(self): pass
    def __exit__(self, *error): pass

@Decorated()
def trained(params, trial):
    (trial.folder / "net").write_bytes(pickle.dumps(Net()))
    return cached(1)

def unread(params):
    return Unread().number

class Unread:
    number = 3
    def __reduce__(self):
        return square, ("text",)

unread.of = Unread()

def run():
    objectives = trained, functools.partial(pooled), Net(), unread
    with LocalWorkers(1) as workers:
        for number, objective in enumerate(objectives):
            task = Task(objective, number, 1, {}, Path(str(number)))
            try:
                outcome = workers.submit(evaluate, task).result()
            except NotStarted as error:
                print(json.dumps(str(error)), flush=True)
            else:
                print(json.dumps([outcome.value, outcome.reason, outcome.died]), flush=True)

if __name__ == "__main__":
    if sys.argv[1:]:
        process = multiprocessing.get_context("spawn").Process(target=run)
        process.start()
        process.join()
    else:
        run()
"""
    )
    command = [sys.executable, str(script), *spawned * ["spawned"]]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    *values, unread = map(json.loads, ran.stdout.splitlines())
    assert values == [[8, None, False], [5, None, False], [True, None, False]]
    assert unread.startswith("the process of the trial cannot unpickle the objective: TypeError: ")
    name = b"__mp_main__" if spawned else b"__main__"
    assert name in (tmp_path / "0" / "net").read_bytes()


@pytest.mark.parametrize(
    ("how", "module"), [(["folder/script.py"], "beside"), (["-m", "folder.script"], ".beside")]
)
def test_what_a_script_defines_is_found_by_processes_that_its_objective_spawns(
    how: list[str], module: str, tmp_path: Path
) -> None:
    """By `multiprocessing` as in the script itself, and from Python 3.14 on by default."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "beside.py").write_text("POWER = 2")
    (tmp_path / "folder" / "script.py").write_text(
        f"from {module} import POWER"
        """
import multiprocessing
from pathlib import Path
from gpbo.executors import LocalWorkers
from gpbo.worker import Task, evaluate

class Number:
    def __init__(self, value):
        self.value = value

def squared(number):
    return Number(number.value**POWER)

def pooled(params):
    with multiprocessing.get_context(params["method"]).Pool(1) as pool:
        return sum(number.value for number in pool.map(squared, [Number(2), Number(3)]))

if __name__ == "__main__":
    with LocalWorkers(1) as workers:
        for number, method in enumerate(["fork", "forkserver", "spawn"]):
            task = Task(pooled, number, 1, {"method": method}, Path(str(number)), 0, 30.0)
            print(workers.submit(evaluate, task).result())
"""
    )
    command = [sys.executable, *how]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.count("Outcome(value=13,") == 3


def test_an_objective_spawns_processes_where_its_script_is_not(tmp_path: Path) -> None:
    """As on another machine of a cluster: they find what is in modules."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import multiprocessing
from pathlib import Path
from gpbo.executors import LocalWorkers
from gpbo.worker import Task, evaluate

def pooled(params):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return sum(pool.map(abs, [-2, 3]))

Path(__file__).unlink()
with LocalWorkers(1) as workers:
    print(workers.submit(evaluate, Task(pooled, 0, 1, {}, Path("0"), 0, 30.0)).result())
"""
    )
    command = [sys.executable, str(script)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("Outcome(value=5,")


def test_a_result_that_cannot_be_read_is_a_failure_of_its_trial_alone(tmp_path: Path) -> None:
    """The folder of an imported objective is on the path of its process only."""
    (tmp_path / "elsewhere.py").write_text(
        """
class Model: pass

def measured(params):
    return params["x"], {"model": Model()} if params["x"] > 0 else {}
"""
    )
    objective = Imported("elsewhere:measured", tmp_path)
    with LocalWorkers(1) as workers:
        read, unread, after = (
            workers.submit(evaluate, Task(objective, i, 1, {"x": x}, tmp_path / str(i))).result()
            for i, x in enumerate([-1.0, 2.0, -3.0])
        )
    assert (read.value, after.value) == ((-1.0, {}), (-3.0, {}))
    assert not unread.died
    assert unread.reason == (
        "what the objective returned cannot be unpickled: ModuleNotFoundError: No module named "
        "'elsewhere'; return numbers, or what is defined in a module that the job imports too"
    )


def test_what_a_process_raised_is_the_last_of_what_its_traceback_names() -> None:
    try:
        try:
            raise ValueError("first")
        except ValueError as error:
            raise RuntimeError("then") from error
    except RuntimeError:
        told = traceback.format_exc()
    assert raised_there(Exception(told)) == "RuntimeError: then"


def test_a_failure_of_its_own_is_no_death(tmp_path: Path) -> None:
    """Trials are run again only for those."""

    def locked(params: dict[str, Any]) -> Any:
        return threading.Lock()

    def homeless(params: dict[str, Any], trial: Any) -> float:
        shutil.rmtree(trial.folder)
        raise ValueError("no convergence")

    expected: dict[Any, str] = {
        locked: "what the objective returned cannot be pickled: TypeError",
        homeless: "ValueError: no convergence",
    }
    for number, (objective, reason) in enumerate(expected.items()):
        objective.__module__ = "__main__"
        with LocalWorkers(1) as workers:
            one = Task(objective, number, 1, {}, tmp_path / str(number))
            outcome = workers.submit(evaluate, one).result(60)
        assert str(outcome.reason).startswith(reason)
        assert not outcome.died


def test_a_command_can_be_interrupted_by_what_started_it(tmp_path: Path) -> None:
    script = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    with LocalWorkers(1) as workers:
        command = Command(shlex.join([sys.executable, "-c", script]), metric="(True|False)")
        workers.submit(evaluate, task(command, tmp_path)).result(60)
    assert (tmp_path / "0" / LOG).read_text() == "True\n"


def test_a_function_is_not_interrupted_by_what_interrupts_its_driver(tmp_path: Path) -> None:
    """Ctrl-C in a terminal reaches the whole group of processes."""

    def interrupted(params: dict[str, Any]) -> float:
        signal.raise_signal(signal.SIGINT)
        return float(params["x"])

    interrupted.__module__ = "__main__"
    with LocalWorkers(1) as workers:
        assert workers.submit(evaluate, task(interrupted, tmp_path)).result(60).value == 0.5


def test_a_process_that_grew_in_its_first_trial_runs_the_next_ones_too(tmp_path: Path) -> None:
    with LocalWorkers(1) as workers:
        tasks = [
            Task(objectives.hoards, number, 1, {}, tmp_path / str(number)) for number in range(3)
        ]
        ran = [future.result(60) for future in [workers.submit(evaluate, one) for one in tasks]]
    assert len({outcome.value for outcome in ran}) == 1


def test_an_objective_that_closes_its_output_harms_nobody(tmp_path: Path) -> None:
    with LocalWorkers(1) as workers:
        for number, how in enumerate(["close", "none", "print"]):
            params = {"how": how}
            future = workers.submit(
                evaluate_in_own_process, Task(objectives.silent, number, 1, params, tmp_path / how)
            )
            assert future.result().value == 0.5, how
    assert (tmp_path / "print" / LOG).read_text() == "heard\n"


@pytest.mark.parametrize("kind", ["wrapper", "tee"])
def test_an_objective_that_replaces_its_output_is_heard_as_are_those_after_it(
    kind: str, tmp_path: Path
) -> None:
    """By a wrapper of the same buffer, or by an object with no more than the methods it needs."""

    class Tee:
        def __init__(self, output: Any) -> None:
            self.write = output.write

    def replaces(params: dict[str, Any]) -> float:
        if kind == "tee":
            vars(sys).update(stdout=Tee(sys.stdout), stderr=Tee(sys.stderr))
        else:
            for name in ("stdout", "stderr"):
                buffer = getattr(sys, name).buffer
                setattr(sys, name, io.TextIOWrapper(buffer, encoding="utf-8"))
        return prints(params)

    def prints(params: dict[str, Any]) -> float:
        print("heard")
        print("too", file=sys.stderr)
        return 0.5

    replaces.__module__ = "__main__"
    prints.__module__ = "__main__"
    with LocalWorkers(1) as workers:
        for number, objective in enumerate((replaces, prints)):
            one = Task(objective, number, 1, {}, tmp_path / str(number))
            assert workers.submit(evaluate, one).result(60).value == 0.5
            assert (tmp_path / str(number) / LOG).read_text() == "heard\ntoo\n"


def test_what_a_console_or_its_encoding_cannot_take_is_in_the_log(tmp_path: Path) -> None:
    """As on Windows: its code pages lack most letters, and its consoles are no files."""

    def prints(params: dict[str, Any]) -> float:
        print("\u03bb \udce9")
        return 0.5

    class Console(io.TextIOWrapper):
        def write(self, text: str) -> int:
            raise OSError(6, "The handle is invalid")

    def begins_on_a_console(params: dict[str, Any]) -> float:
        console = Console(sys.stdout.buffer)
        vars(sys).update(stdout=console, __stdout__=console)
        return 0.5

    prints.__module__ = "__main__"
    begins_on_a_console.__module__ = "__main__"
    with LocalWorkers(1, env={"PYTHONIOENCODING": "cp1252"}) as workers:
        for number, objective in enumerate((prints, begins_on_a_console, prints)):
            one = Task(objective, number, 1, {}, tmp_path / str(number))
            assert workers.submit(evaluate, one).result(60).value == 0.5
    for number in (0, 2):
        assert (tmp_path / str(number) / LOG).read_text(encoding="utf-8") == "\u03bb \\udce9\n"


def test_what_is_printed_to_the_streams_that_python_began_with_is_in_its_own_log(
    tmp_path: Path,
) -> None:
    def prints(params: dict[str, Any]) -> float:
        print(params["x"], file=sys.__stdout__)
        return 0.5

    prints.__module__ = "__main__"
    with LocalWorkers(1, env={"PYTHONUNBUFFERED": ""}) as workers:
        for number in range(2):
            one = Task(prints, number, 1, {"x": number}, tmp_path / str(number))
            assert workers.submit(evaluate, one).result(60).value == 0.5
    assert [(tmp_path / str(number) / LOG).read_text() for number in range(2)] == ["0\n", "1\n"]


def test_the_log_has_what_is_printed_meanwhile_and_nothing_else_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even what waits in buffers; a second attempt goes on with it, and no file stays open."""
    script = """
import sys
from pathlib import Path
import psutil
from gpbo.worker import Task, evaluate_in_own_process

def closes(params):
    print("closed")
    sys.stdout.close()

first = Task(lambda params: print("inside"), 0, 1, {}, Path("0"))
print("before")
evaluate_in_own_process(first)
opened = psutil.Process().num_fds()
evaluate_in_own_process(first)
print("after")
evaluate_in_own_process(Task(closes, 1, 1, {}, Path("1")))
print("last", psutil.Process().num_fds() - opened)
"""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "before\nafter\nlast 0\n"
    logs = [(tmp_path / number / LOG).read_text() for number in ("0", "1")]
    assert logs == ["inside\ninside\n", "closed\n"]


def test_a_log_that_cannot_be_opened_leaves_no_file_open(tmp_path: Path) -> None:
    (tmp_path / LOG).mkdir()
    task = Task(lambda params: 0.5, 0, 1, {}, tmp_path)
    opened = list[int]()
    for _ in range(3):
        with suppress(IsADirectoryError):
            evaluate_in_own_process(task)
        opened.append(psutil.Process().num_fds())
    assert len({*opened}) == 1


def test_the_log_of_a_function_says_why_it_failed_and_that_of_a_command_what_it_said(
    tmp_path: Path,
) -> None:
    def diverges(params: dict[str, Any]) -> float:
        raise ValueError("no convergence")

    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    for name, objective in (("f", diverges), ("c", shell("echo oh no; exit 4"))):
        outcome = evaluate_in_own_process(task(objective, tmp_path / name))
        log = (tmp_path / name / "0" / LOG).read_text()
        assert log == ("oh no\n" if name == "c" else f"{outcome.reason}\n")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers

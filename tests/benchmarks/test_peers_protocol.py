"""Whatever a peer's process does, the runner has a trace that says so: real processes, false peers.

A false peer is an adapter in a file of its own, and so in a real process, with real limits.
"""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import gpbo
from gpbo_benchmarks.peers import Limits, Peer, PeerFailure, run_peer
from gpbo_benchmarks.peers.adapters import serve
from gpbo_benchmarks.peers.conversation import Conversation
from gpbo_benchmarks.trace import Evaluation, Trace
from gpbo_benchmarks.units import OUT_OF_TIME

SPACE = gpbo.Space(gpbo.Real("x", 0.0, 2.0), gpbo.Integer("n", 1, 5))
DESIGN = [{"x": 2.0, "n": 1}, {"x": 1.0, "n": 4}]
BUDGET = 5

#: Proposes x = 0.25, 0.5, 0.75, ... with n = 3 and recommends the best of what it was told.
FALSE_PEER = """
import os, signal, subprocess, sys, time
from peer_adapters.base import Adapter

class False_(Adapter):
    def __init__(self, task):
        super().__init__(task)
        self.told, self.asked = [], 0
        {start}
    def add(self, point, value):
        self.told.append((value, point))
        {add}
    def ask(self):
        self.asked += 1
        point = {{"p0": 0.25 * self.asked, "p1": 3.0}}
        {ask}
        self.point = point
        return point
    def tell(self, value):
        self.told.append((value, self.point))
        {tell}
    def recommend(self):
        return min((t for t in self.told if t[0] is not None), key=lambda t: t[0])[1]
"""

FalsePeer = Callable[..., Peer]


@pytest.fixture
def false_peer(tmp_path: Path) -> FalsePeer:
    """A peer of which one part does something else."""

    def make(**parts: str) -> Peer:
        code = {
            part: textwrap.indent(textwrap.dedent(parts.get(part, "pass")), " " * 8).strip()
            for part in ("start", "add", "ask", "tell")
        }
        file = tmp_path / "false_peer.py"
        file.write_text(FALSE_PEER.format(**code))
        return Peer(
            name="false",
            title="a false peer",
            adapter=f"{file}:False_",
            environment="none",
            distributions=("pytest", "no-such-distribution"),
            citation="",
            licence="",
            settings="",
        )

    return make


def value_of(params: Any, index: int) -> Evaluation:
    truth = params["x"] + params["n"]
    return Evaluation(truth + 0.001 * index, truth)


def run(peer: Peer, **options: Any) -> Trace:
    given: dict[str, Any] = {
        "space": SPACE,
        "evaluate": value_of,
        "design": DESIGN,
        "budget": BUDGET,
        "seed": 7,
        "problem": "sum",
    }
    return run_peer(peer, **(given | options))


def test_a_run_without_incidents(false_peer: FalsePeer) -> None:
    trace = run(false_peer())
    assert trace.failure is None
    assert trace.params == (*DESIGN, *({"x": x, "n": 3} for x in (0.25, 0.5, 0.75)))
    assert trace.values == (3.0, 5.001, 3.252, 3.503, 3.754)
    assert trace.truth == (3.0, 5.0, 3.25, 3.5, 3.75)
    assert trace.status == ("completed",) * BUDGET
    assert (trace.method, trace.problem, trace.seed, trace.budget, trace.design) == (
        "false", "sum", 7, BUDGET, 2,
    )  # fmt: skip
    assert trace.ask_s[:2] == (0.0, 0.0)
    assert all(seconds > 0 for seconds in trace.ask_s[2:])
    assert trace.versions["pytest"] == pytest.__version__
    assert set(trace.versions) == {"python", "pytest"}
    assert trace.recommended == (None, None, None, None, DESIGN[0])
    assert trace.recommended_truth[-1] == 3.0


def test_recommendations_after_every_evaluation(false_peer: FalsePeer) -> None:
    better = {"x": 0.25, "n": 3}
    evaluated = []

    def counted(params: Any, index: int) -> Evaluation:
        evaluated.append(index)
        return value_of(params, index)

    trace = run(false_peer(), design=DESIGN[1:], evaluate=counted, recommend_always=True)
    assert evaluated == list(range(BUDGET))
    assert trace.recommended == (DESIGN[1], better, better, better, better)
    assert trace.recommended_truth == (5.0, 3.25, 3.25, 3.25, 3.25)


def test_a_recommendation_that_was_not_evaluated_is(false_peer: FalsePeer) -> None:
    peer = false_peer(start="self.recommend = lambda: {'p0': 2.0, 'p1': 5.0}")
    trace = run(peer)
    assert trace.recommended[-1] == {"x": 2.0, "n": 5}
    assert trace.recommended_truth[-1] == 7.0
    assert len(trace.values) == BUDGET


def test_the_peer_is_given_the_task_and_results_in_order(false_peer: FalsePeer) -> None:
    peer = false_peer(ask="if self.asked == 3: raise RuntimeError(f'{self.task} {self.told}')")
    trace = run(peer, evaluate=lambda p, i: Evaluation(None if i == 2 else float(i), None))
    assert trace.status == ("completed", "completed", "failed", "completed")
    failure = trace.failure
    assert failure is not None
    assert "name='p0', kind='real', low=0.0, high=2.0, log=False" in failure
    assert "name='p1', kind='integer', low=1, high=5" in failure
    assert "seed=7, budget=5, initial=2" in failure
    told = "[(0.0, {'p0': 2.0, 'p1': 1}), (1.0, {'p0': 1.0, 'p1': 4}), (None, {'p0': 0.25"
    assert told in failure


def test_the_peer_is_told_how_far_results_are_beyond_the_constraints(
    false_peer: FalsePeer,
) -> None:
    note = "self.told[-1] += (self.excess,)"
    peer = replace(
        false_peer(
            start="self.recommend = lambda: self.told[0][1]",
            add=note,
            tell=note,
            ask="if self.asked == 3: raise RuntimeError(f'{self.task.constraints} {self.told}')",
        ),
        constraints=True,
    )

    def limited(params: Any, index: int) -> Evaluation:
        if index == 2:
            return Evaluation(None, None)
        return Evaluation(float(index), float(index), excess=(1.0 - index, -0.5))

    trace = run(peer, evaluate=limited, constraints=2, recommend_always=True)
    assert trace.status == ("violated", "completed", "failed", "completed")
    assert trace.recommended[1] == DESIGN[0]
    assert trace.recommended_truth[1] is None, "it does not meet the constraints"
    failure = trace.failure
    assert failure is not None
    assert "2 [(0.0, {'p0': 2.0, 'p1': 1}, (1.0, -0.5)), (1.0, {'p0': 1.0, 'p1'" in failure
    assert "(0.0, -0.5)), (None, {'p0': 0.25, 'p1': 3.0}, ()), (3.0, " in failure
    refused = run(false_peer(), evaluate=limited, constraints=2)
    assert refused.failure == "false: it takes no constraints"
    assert refused.params == ()


def test_a_batch_is_proposed_before_its_results_are_told(false_peer: FalsePeer) -> None:
    """Of three points, and a last one of the two that are left, whose seconds its points share."""
    start = "self.log, self.fits = [], [6.0, 12.0, 16.0]"
    tell = "self.log.append((value, self.asked))"
    ask = """
        if self.asked == 9: raise RuntimeError(self.log)
        if self.asked in (1, 4, 7): self.fit_s = self.fits.pop(0)
    """

    def numbered(params: Any, index: int) -> Evaluation:
        return Evaluation(float(index), float(index))

    peer = replace(false_peer(start=start, tell=tell, ask=ask), batches=True)
    trace = run(peer, budget=10, batch=3, evaluate=numbered)
    assert trace.failure is None
    assert [params["x"] for params in trace.params[2:]] == [0.25 * n for n in range(1, 9)]
    batches = [trace.ask_s[2:5], trace.ask_s[5:8], trace.ask_s[8:]]
    assert [len(set(seconds)) for seconds in batches] == [1, 1, 1]
    assert trace.fit_s[2:] == (2.0,) * 3 + (4.0,) * 3 + (8.0,) * 2
    ended = run(peer, budget=11, batch=3, evaluate=numbered)
    assert ended.failure is not None
    assert "[(2.0, 3), (3.0, 3), (4.0, 3), (5.0, 6), (6.0, 6), (7.0, 6)]" in ended.failure
    refused = run(false_peer(), batch=3)
    assert refused.failure == "false: it proposes one point at a time"
    assert refused.params == ()


@pytest.mark.parametrize("points", ["[]", "[{'p0': 0.5, 'p1': 3.0}] * 4"])
def test_a_batch_has_at_least_a_point_and_at_most_as_many_as_were_asked_for(
    points: str, false_peer: FalsePeer
) -> None:
    peer = replace(false_peer(start=f"self.asks = lambda count: {points}"), batches=True)
    trace = run(peer, budget=10, batch=3)
    assert trace.failure == f"false: ask: {len(eval(points))} points, expected 1 to 3"


@pytest.mark.parametrize("end", ["pass", "raise RuntimeError", "os._exit(3)"])
def test_its_temporary_files_go_with_its_process(
    end: str, false_peer: FalsePeer, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    make = f"""
        import pathlib, tempfile
        folder = tempfile.mkdtemp()
        pathlib.Path({str(told)!r}).write_text(folder)
        {end}
    """
    run(false_peer(start=make))
    folder = Path(told.read_text())
    assert folder.parent != Path(tempfile.gettempdir())
    assert not folder.exists()
    assert not folder.parent.exists()


def test_its_process_has_one_thread_and_neither_gpbo_nor_torch(false_peer: FalsePeer) -> None:
    look = """
        heavy = sorted({'gpbo', 'torch', 'numpy'} & set(sys.modules))
        pinned = [os.environ[f'{name}_NUM_THREADS'] for name in ('OMP', 'OPENBLAS', 'MKL')]
        raise RuntimeError(f'{heavy} {pinned} {os.environ.get("PYTHONPATH")} {sys.stdin.read()!r}')
    """
    failure = run(false_peer(start=look)).failure
    assert failure is not None
    assert failure.startswith("false: start: RuntimeError: [] ['1', '1', '1'] None ''")


@pytest.mark.parametrize(
    "noise",
    [
        "print('to the standard output')",
        "os.write(1, b'beneath Python')",
        "subprocess.run(['echo', 'from a child'])",
        "sys.stdout.write('{\"point\": {}}\\n')",
        "sys.stderr.write('x' * 1_000_000)",
    ],
)
def test_what_a_peer_prints_disturbs_nothing(false_peer: FalsePeer, noise: str) -> None:
    peer = false_peer(start=noise, add=noise, ask=noise, tell=noise)
    assert replace(run(peer), ask_s=(0.0,) * BUDGET, evaluation_s=(0.0,) * BUDGET) == replace(
        run(false_peer()), ask_s=(0.0,) * BUDGET, evaluation_s=(0.0,) * BUDGET
    )


@pytest.mark.parametrize(
    ("parts", "evaluated", "reason"),
    [
        ({"start": "raise ImportError('no such peer')"}, 2, "start: ImportError: no such peer"),
        ({"add": "raise ValueError('refused')"}, 2, "add: ValueError: refused"),
        ({"ask": "raise ZeroDivisionError('by 0')"}, 2, "ask: ZeroDivisionError: by 0"),
        ({"tell": "raise KeyError('p9')"}, 3, "tell: KeyError: 'p9'"),
        ({"ask": "print('last words'); os._exit(3)"}, 2, "the process ended with exit code 3"),
        ({"tell": "os.kill(os.getpid(), signal.SIGSEGV)"}, 3, "the process was ended by SIGSEGV"),
        ({"ask": "sys.exit('enough')"}, 2, "the process ended with exit code 1"),
        ({"ask": "point['p0'] = float('nan')"}, 2, "x: nan: out of range"),
        ({"ask": "point['p0'] = 2.5"}, 2, "x: 2.5: out of range"),
        ({"ask": "point['p1'] = 2.5"}, 2, "n: 2.5: expected a whole number"),
        ({"ask": "del point['p1']"}, 2, "expected the names p0, p1"),
        ({"ask": "point['p0'] = 'left'"}, 2, "ask: ValueError: could not convert string"),
        ({"ask": "point = None"}, 2, "ask: AttributeError"),
    ],
)  # fmt: skip
def test_a_peer_that_fails_is_a_trace_with_the_reason(
    false_peer: FalsePeer, parts: dict[str, str], evaluated: int, reason: str
) -> None:
    trace = run(false_peer(**parts))
    assert trace.failure is not None
    assert trace.failure.startswith("false: ")
    assert reason in trace.failure
    assert len(trace.params) == evaluated
    if "last words" in parts.get("ask", ""):
        assert "last words" in trace.failure


@pytest.mark.parametrize(
    ("parts", "limits", "reason"),
    [
        ({"ask": "time.sleep(60)"}, {"ask_s": 0.5}, "the limit of one step is 0.5 s"),
        ({"start": "time.sleep(60)"}, {"start_s": 0.5}, "start: no answer in time"),
        ({"tell": "time.sleep(0.4)"}, {"total_s": 1.1}, "the limit of the whole run is 1.1 s"),
    ],
)  # fmt: skip
def test_a_peer_that_hangs_is_ended(
    false_peer: FalsePeer, parts: dict[str, str], limits: dict[str, float], reason: str
) -> None:
    trace = run(false_peer(**parts), limits=Limits(**limits), budget=50)
    assert reason in (trace.failure or "")
    assert bool(OUT_OF_TIME.match(trace.failure or "")) == ("start" not in parts)
    assert 2 <= len(trace.params) < 6


def test_the_children_of_a_peer_end_with_it(false_peer: FalsePeer, tmp_path: Path) -> None:
    child = f"""
        child = subprocess.Popen(['sleep', '300'])
        open({str(tmp_path / "pid")!r}, 'w').write(str(child.pid))
    """
    for parts in ({"start": child}, {"start": child, "ask": "time.sleep(60)"}):
        run(false_peer(**parts), limits=Limits(ask_s=0.5))
        pid = int((tmp_path / "pid").read_text())
        assert _ends(pid)


def test_a_peer_ends_with_the_runner(tmp_path: Path) -> None:
    """The runner is killed, so that it can end nothing itself."""
    adapter = tmp_path / "endless.py"
    pid = tmp_path / "pid"
    tell_pid = f"open({str(pid)!r}, 'w').write(str(os.getpid()))"
    adapter.write_text(f"import os, time\n{tell_pid}\ntime.sleep(99)")
    start = {"adapter": f"{adapter}:None", "space": [], "seed": 0, "budget": 1, "initial": 0}
    script = f"""
from gpbo_benchmarks.peers.conversation import Conversation, Limits
from gpbo_benchmarks.peers.environments import HERE
import sys
talk = Conversation([sys.executable, str(HERE / "adapters" / "__main__.py")], Limits())
talk.ask("start", threads=1, distributions=[], **{start})
"""
    runner = subprocess.Popen([sys.executable, "-c", script])
    try:
        while not (pid.exists() and pid.read_text()):
            assert runner.poll() is None
            time.sleep(0.05)
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert _ends(int(pid.read_text()))


def _ends(pid: int) -> bool:
    """Whether the process is gone within some seconds, or dead and not yet collected."""
    try:
        psutil.Process(pid).wait(10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('Hello!', flush=True); input()", "ask: the answer 'Hello!' is not JSON"),
        ("print('[1, 2]', flush=True); input()", "the answer '[1, 2]' is no object"),
        ("print('\\x00\\xff', flush=True); input()", "is not JSON"),
        ("while True: print('a' * 10_000, end='')", "ask: an endless answer, 'aaa"),
        ("print('no more'); raise SystemExit(9)", "exit code 9"),
        ("import os; os.close(1); input(); input()", "the process closed its output"),
    ],
)
def test_answers_that_make_no_sense(script: str, reason: str) -> None:
    script = script.replace("print('no more'); ", "")
    command = [sys.executable, "-c", script]
    with pytest.raises(PeerFailure) as failure, Conversation(command, Limits(ask_s=20)) as talk:
        talk.ask("ask")
    assert reason in str(failure.value)


def test_what_the_objective_raises_is_raised_and_the_process_ended(false_peer: FalsePeer) -> None:
    def raises(params: Any, index: int) -> Evaluation:
        if index == 3:
            raise LookupError("the objective's own")
        return value_of(params, index)

    before = set(psutil.Process(os.getpid()).children(recursive=True))
    with pytest.raises(LookupError, match="own"):
        run(false_peer(), evaluate=raises)
    assert set(psutil.Process(os.getpid()).children(recursive=True)) <= before


def test_the_seconds_of_an_ask_are_all_since_the_last_one_but_of_recommending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(serve, "time", SimpleNamespace(perf_counter=lambda: now))

    def takes(seconds: float, answer: Any = None) -> Callable[..., Any]:
        def work(*_: Any) -> Any:
            nonlocal now
            now += seconds
            return answer

        return work

    session, point = serve.Session(), {"p0": 0.5}
    session._adapter = SimpleNamespace(
        add=takes(1.0), tell=takes(2.0), ask=takes(4.0, point), recommend=takes(8.0, point)
    )
    added, told = {"do": "add", "point": point, "value": 1.0}, {"do": "tell", "value": 1.0}
    seconds = []
    for before in ([added, added], [told], [told, {"do": "recommend"}]):
        for question in before:
            session.answer(question)
        seconds.append(session.answer({"do": "ask"})["seconds"])
    assert seconds == [6.0, 6.0, 6.0]


@pytest.mark.parametrize("field", ["start_s", "ask_s", "total_s"])
def test_limits_are_positive(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}=0"):
        Limits(**{field: 0})
    with pytest.raises(ValueError, match="threads=0"):
        Limits(threads=0)


def test_where_no_peer_could_be_ended_none_is_begun(
    false_peer: FalsePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    peer = false_peer()
    monkeypatch.delattr("os.killpg")
    assert "need a system with process groups" in str(run(peer).failure)

"""One run of a peer on a problem: its process proposes, this one evaluates and keeps the record."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpbo.space import Space

from ..trace import Evaluate, Evaluation, Params, Trace
from .catalogue import PEERS
from .conversation import Conversation, Limits
from .environments import HERE, interpreter, why_not
from .failure import PeerFailure
from .peer import Peer
from .spaces import SearchedSpace


def run_peer(
    name: str | Peer,
    *,
    space: Space,
    evaluate: Evaluate,
    design: Sequence[Params],
    budget: int,
    seed: int,
    limits: Limits | None = None,
    problem: str = "",
    constraints: int = 0,
    batch: int = 1,
    recommend_always: bool = False,
) -> Trace:
    """Run a peer on a problem, in a process of its own.

    Args:
        name: A key of `PEERS`, or a peer of your own.
        space: What is searched.
        evaluate: The objective; what it raises ends the run and is raised here.
        design: The first configurations, whose results the peer is given before its first proposal.
        budget: Evaluations in all.
        seed: Of the peer, 0 or more.
        limits: Seconds and threads.
        problem: The problem's name, for the record.
        constraints: How many numbers every ``excess`` of the objective has.
        batch: How many proposals the peer makes at a time, before it is told their results.
        recommend_always: Ask what the peer would recommend after every evaluation, not only after
            the last. It costs little, as the model is up to date then.

    Returns:
        The record. A crash, a hang, a refusal or an answer that makes no sense ends it early, and
        ``failure`` says what it was.

    Raises:
        KeyError: There is no peer of this name.
    """
    peer = PEERS[name] if isinstance(name, str) else name
    record = _Record(evaluate, space)
    empty = Trace(peer.name, problem, seed, budget, min(len(design), budget))
    try:
        missing = why_not(peer)
        if missing:
            raise PeerFailure(missing)
        if constraints and not peer.constraints:
            raise PeerFailure("it takes no constraints")
        if batch > 1 and not peer.batches:
            raise PeerFailure("it proposes one point at a time")
        asked = _Asked(constraints, batch, recommend_always)
        _converse(peer, record, space, design[:budget], empty, limits or Limits(), asked)
    except PeerFailure as failure:
        return replace(empty, failure=f"{peer.name}: {failure}", **record.entries())
    return replace(empty, **record.entries())


@dataclass(frozen=True)
class _Asked:
    """What a peer is asked for; see `run_peer`."""

    constraints: int
    batch: int
    recommend_always: bool


def _converse(
    peer: Peer,
    record: "_Record",
    space: Space,
    design: Sequence[Params],
    trace: Trace,
    limits: Limits,
    asked: _Asked,
) -> None:
    """The whole conversation.

    Raises:
        PeerFailure: It ended early; the record has everything up to then.
    """
    for params in design:
        record.evaluate(params)
    searched = SearchedSpace(space)
    command = [str(interpreter(peer)), "-P", str(HERE / "adapters" / "__main__.py")]
    with Conversation(command, limits) as talk:
        started = talk.ask(
            "start",
            adapter=peer.adapter,
            space=[vars(parameter) for parameter in searched.parameters],
            seed=trace.seed,
            budget=trace.budget,
            initial=len(design),
            constraints=asked.constraints,
            threads=limits.threads,
            distributions=list(peer.distributions),
        )
        record.versions = _get(started, "versions", dict)
        for params, result in zip(record.params, record.results, strict=True):
            talk.ask("add", point=searched.encode(params), **_told(result))
        while len(record.params) < trace.budget:
            count = min(asked.batch, trace.budget - len(record.params))
            answer = talk.ask("ask", count=count)
            batch = [searched.decode(point) for point in _get(answer, "points", list)]
            if asked.recommend_always:
                _recommend(talk, record, searched)
            if not 1 <= len(batch) <= count:
                raise PeerFailure(f"ask: {len(batch)} points, expected 1 to {count}")
            for params in batch:
                record.evaluate(params, _share(answer, len(batch)))
            for result in record.results[-len(batch) :]:
                talk.ask("tell", **_told(result))
        _recommend(talk, record, searched)


def _share(answer: Mapping[str, Any], count: int) -> dict[str, float | None]:
    """The seconds of each of ``count`` proposals that were answered together."""
    parts = {name: answer.get(name) for name in ("fit_s", "acquisition_s")}
    seconds = {"seconds": _get(answer, "seconds", float), **parts}
    return {name: None if spent is None else spent / count for name, spent in seconds.items()}


def _told(result: Evaluation) -> dict[str, Any]:
    return {"value": result.value, "excess": result.excess}


def _recommend(talk: Conversation, record: "_Record", searched: SearchedSpace) -> None:
    """What the peer would recommend after the results so far."""
    point = talk.ask("recommend").get("point")
    if point is not None and record.params:
        record.recommend(searched.decode(point))


def _get(answer: Mapping[str, Any], key: str, kind: type) -> Any:
    """What an answer must have."""
    value = answer.get(key)
    if not isinstance(value, kind):
        raise PeerFailure(f"the answer {answer!r} has no {key}")
    return value


@dataclass
class _Record:
    """The entries of a trace as they come."""

    objective: Evaluate
    space: Space
    params: list[Params] = field(default_factory=list)
    results: list[Evaluation] = field(default_factory=list)
    asks: list[Mapping[str, Any]] = field(default_factory=list)
    recommended: dict[int, tuple[Params, float | None]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def evaluate(self, params: Params, ask: Mapping[str, Any] | None = None) -> None:
        """Evaluate the next configuration, from an ``ask`` or from the design."""
        ask = {"seconds": 0.0} if ask is None else ask
        began = time.perf_counter()
        result = self.objective(params, len(self.params))
        seconds = result.seconds or time.perf_counter() - began
        self.params.append(dict(params))
        self.results.append(replace(result, seconds=seconds))
        self.asks.append(ask)

    def recommend(self, params: Params) -> None:
        """Note what is recommended after the last evaluation."""
        self.recommended[len(self.params) - 1] = (params, self._truth(params))

    def _truth(self, params: Params) -> float | None:
        """The noiseless value, mostly of a configuration that was evaluated. None if it does not
        meet the constraints.
        """
        known = dict(zip(map(self.space.key, self.params), self.results, strict=True))
        result = known.get(self.space.key(params)) or self.objective(params, len(self.params))
        return None if result.status == "violated" else result.truth

    def entries(self) -> dict[str, Any]:
        """The fields of a trace."""
        recommended = [self.recommended.get(i, (None, None)) for i in range(len(self.params))]
        return {
            "params": tuple(self.params),
            "values": tuple(result.value for result in self.results),
            "truth": tuple(result.truth for result in self.results),
            "status": tuple(result.status for result in self.results),
            "ask_s": tuple(ask["seconds"] for ask in self.asks),
            "fit_s": tuple(ask.get("fit_s") for ask in self.asks),
            "acquisition_s": tuple(ask.get("acquisition_s") for ask in self.asks),
            "evaluation_s": tuple(result.seconds for result in self.results),
            "recommended": tuple(params for params, _ in recommended),
            "recommended_truth": tuple(truth for _, truth in recommended),
            "versions": dict(self.versions),
        }

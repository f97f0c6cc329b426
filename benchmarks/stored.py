"""Tables of what the scripts of this folder measured, from the files in which they keep results.

    <!-- gpbo bench stored: suggestions, draws -->

A name is one of `TABLES`. Above a table stand the command and the machine of the measurement; it
holds gpbo's figure, the peer's if there is one, and their ratio.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpbo.errors import InvalidData

from .words import counted, number, pipes, where

_Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of the README.

    Attributes:
        file: The file of the results, without ``.json``.
        command: What writes it.
        columns: Their titles.
        lines: Their cells, from the figures in the file.
    """

    file: str
    command: str
    columns: Sequence[str]
    lines: Callable[[Any], Iterable[Sequence[str]]]


def markdown(names: Sequence[str], results: Path) -> str:
    """The tables of these names; before the first of each command, where it was measured.

    Raises:
        InvalidData: there is no such table, or nothing was measured for it.
    """
    parts, said = [], set()
    for name in names:
        if name not in TABLES:
            raise InvalidData(f"{name!r} of the stored tables: expected one of {', '.join(TABLES)}")
        table = TABLES[name]
        path = results / f"{table.file}.json"
        if not path.exists():
            raise InvalidData(
                f"{path}: there is no such file: expected one that "
                f"`python benchmarks/{table.command}` wrote"
            )
        kept = json.loads(path.read_text())
        if path not in said:
            # Older files do not state their arguments.
            command = kept["machine"].get("command", f"python benchmarks/{table.command}")
            parts.append(f"`{command}`. {where(kept['machine'])}")
            said.add(path)
        parts.append(pipes(table.columns, table.lines(kept["figures"])))
    return "\n\n".join(parts)


def _size(row: _Row) -> str:
    return f"n={row['n']}, d={row['d']}"


def _seconds(value: float | str, note: str = "") -> str:
    """The seconds; or why they were not measured."""
    return value if isinstance(value, str) else f"{number(value)} s{note}"


def _suggestions(figures: Any) -> Iterable[Sequence[str]]:
    for row in figures["suggestion"]:
        times = (_seconds(row["gpbo_s"]), _seconds(row["botorch_map_s"]))
        yield f"one suggestion, warm, {_size(row)}", *times, number(row["ratio"])


def _draws(figures: Any) -> Iterable[Sequence[str]]:
    for row in figures["sampling"]:
        for start in ("cold", "warm"):
            times = (_seconds(row[f"{start}_s"]), _seconds(row["botorch_s"]))
            yield f"draws, {start}, {_size(row)}", *times, number(row[f"{start}_ratio"])


def _effective(figures: Any) -> Iterable[Sequence[str]]:
    for row in figures["sampling"]:
        yield (
            _size(row),
            number(row["warm_ess_bulk"]),
            f"{number(row['botorch_ess_of_kept'])} of {row['botorch_kept_draws']}",
            number(row["cold_rhat"]),
            number(row["warm_rhat"]),
        )


def _replications(figures: Any) -> Iterable[Sequence[str]]:
    case, peer = figures["case"], figures["botorch"]
    of = f"{case['problem']}, {case['budget']} evaluations"
    for row in figures["gpbo"]:
        seconds = peer["seconds"] / peer["runs"] * row["runs"]
        # The median of many runs cannot be compared with a single run.
        comparable = row["runs"] == peer["runs"]
        regrets = (
            f", median regret {number(side['regret'])}" if comparable else ""
            for side in (row, peer)
        )
        yield (
            f"{of}, {counted(row['runs'], 'run')}, {row['method'].removeprefix('gpbo, ')}",
            *map(_seconds, (row["seconds"], seconds), regrets),
            number(row["ratio"]),
        )


def _updates(figures: Any) -> Iterable[Sequence[str]]:
    for row in figures["updates"]:
        yield (
            f"posterior updates, {row['runs']} runs x 16 chains, {_size(row)}",
            f"{number(row['updates_per_s'])} per second",
            _seconds(row["botorch_s"], " each, 1 chain (NUTS)"),
            number(row.get("ratio", math.nan)),
        )


def _growth(figures: Any) -> Iterable[Sequence[str]]:
    for row in figures["growth"]:
        gpbo_s, fit_s = number(row["gpbo_s"]), number(row["gpbo_fit_s"])
        yield (
            f"{_size(row)}, {'draws' if row['inference'] == 'hmc' else 'a point estimate'}",
            _seconds(row["first_s"]),
            f"{gpbo_s} s, of which the fit {fit_s} s",
            _seconds(row["botorch_map_s"]),
            number(row["ratio"]),
        )


def _profile(figures: Any) -> Iterable[Sequence[str]]:
    parts = ("factors", "inverses", "products", "kernel", "other", "python")
    for row in figures["profile"]:
        shares = (f"{100 * row[part]:.0f} %" for part in parts)
        yield f"{_size(row)}, {counted(row['runs'], 'run')}", number(row["seconds"]), *shares


def _ascent(figures: Any) -> Iterable[Sequence[str]]:
    for row in figures["ascent"]:
        yield (
            f"maxima of the acquisition function, {row['runs']} runs x 16 draws x 20 restarts, "
            f"{_size(row)}",
            _seconds(row["gpbo_s"], f", as good in {100 * row['as_good']:.0f} % of the runs"),
            _seconds(row["botorch_s"], ", one run after another"),
            number(row["ratio"]),
        )


def _paths(figures: Any) -> Iterable[Sequence[str]]:
    works = {
        "draw": "drawing {q} functions of 4096 waves (BoTorch: 1024)",
        "draw, 1024 features": "drawing {q} functions of 1024 waves",
        "batch": "drawing {q} functions, with the minimum of each",
    }
    for row in figures["speed"]:
        yield (
            f"{works[row['work']].format(q=row['q'])}, {_size(row)}",
            _seconds(row["gpbo_cpu_s"], f", {row['gpbo_MiB']:.0f} MiB"),
            _seconds(row["botorch_cpu_s"], f", {row['botorch_MiB']:.0f} MiB"),
            f"{number(row['times_less_cpu'])}, {number(row['times_less'])}",
        )


def _minima(figures: Any) -> Iterable[Sequence[str]]:
    for row in figures["optimality"]:
        share = round(row["own_minimum"] * row["q"])
        yield f"{row['problem']}, {_size(row)}", f"{share} of {row['q']}"


def _rounds(figures: Any) -> Iterable[Sequence[str]]:
    for row in figures["table"]:
        several = row["seeds"] > 1
        spread = f" ({row['least']:.2f} to {row['greatest']:.2f})" if several else ""
        published = (f"{row[f'published_{name}']:.2f}" for name in ("TS", "qLogEI", "BEEBO"))
        yield (
            row["problem"],
            f"{row['seeds']} x {row['rounds']}",
            f"{row['score']:.2f}{spread}",
            *published,
            _seconds(row["seconds"]),
            row["commit"],
        )


def _against_numpyro(figures: Any) -> Iterable[Sequence[str]]:
    for row in figures["numpyro"]:
        peer = row["numpyro_s"]  # or why it is missing
        if not isinstance(peer, str):
            compiled = _seconds(row["numpyro_compile_s"])
            peer = f"{number(row['numpyro_ess_per_s'])}, after {compiled} of compilation"
        for start in ("cold", "warm"):
            yield (
                f"effective draws per second, {start}, {counted(row['runs'], 'run')}, {_size(row)}",
                number(row[f"{start}_ess_per_s"]),
                peer,
                number(row.get(f"{start}_ratio", math.nan)),
            )


def _utilisation(figures: Any) -> Iterable[Sequence[str]]:
    shares = {(row["strategy"], row["mode"]): row["steady"] for row in figures}
    for strategy in dict.fromkeys(row["strategy"] for row in figures):
        cells = (shares.get((strategy, mode)) for mode in ("async", "sync"))
        yield f"`{strategy}`", *("" if share is None else f"{share:.3f}" for share in cells)


def _storage(figures: Any) -> Iterable[Sequence[str]]:
    for row in figures:
        yield row["strategy"], number(row["ms_per_trial"]), number(row["kB_per_trial"])


def _by_method(rows: Iterable[_Row], each: str) -> dict[str, dict[str, _Row]]:
    """The rows of each case, or problem, by their method."""
    found: dict[str, dict[str, _Row]] = {}
    for row in rows:
        found.setdefault(row[each], {})[row["method"]] = row
    return found


#: Methods of `asynchronous` that have a column.
_SHOWN = ("synTS", "asyTS", "asyHTS", "asyEI", "asyRAND")


def _workers(figures: Any) -> Iterable[Sequence[str]]:
    """A row for each case."""
    for name, methods in _by_method(figures["table"], "case").items():
        free = methods["asyTS"]
        after = next(cell for key, cell in free.items() if key.startswith("asy-syn_after"))
        means = (methods[method]["regret_in_time"].split()[0] for method in _SHOWN)
        yield name, *means, free["asy-syn_in_time"], after


def _counts(figures: Any) -> Iterable[Sequence[str]]:
    for row in figures["counts"]:
        amounts = (number(row[name]) for name in ("asy", "syn", "ratio", "without_an_end"))
        yield row["case"], row["verdict"], f"{row['law']}, {row['workers']}", *amounts


_BESIDE = ("work", "gpbo", "BoTorch", "BoTorch / gpbo")

#: By name.
TABLES = {
    "suggestions": Table(
        "speed",
        "speed.py",
        ("work", "gpbo, over draws", "BoTorch, point estimate", "BoTorch / gpbo"),
        _suggestions,
    ),
    "draws": Table("speed", "speed.py", _BESIDE, _draws),
    "effective": Table(
        "speed",
        "speed.py",
        ("data", "effective draws of 16 x 24", "BoTorch's", "R-hat, cold", "R-hat, warm"),
        _effective,
    ),
    "replications": Table("replications_branin-cpu", "replications.py", _BESIDE, _replications),
    "updates": Table("updates-cpu", "speed.py updates", _BESIDE, _updates),
    "numpyro": Table(
        "numpyro-cpu",
        "speed.py numpyro",
        ("work", "gpbo", "NumPyro, chains vectorised", "gpbo / NumPyro"),
        _against_numpyro,
    ),
    "profile": Table(
        "profile",
        "speed.py profile",
        (
            "warm update, 16 chains per run",
            "seconds",
            "Cholesky factors",
            "inverses",
            "matrix products",
            "roots and exponentials",
            "other elementwise",
            "Python between them",
        ),
        _profile,
    ),
    "growth": Table(
        "growth",
        "speed.py growth",
        (
            "results",
            "first proposal, gpbo",
            "later proposals, gpbo",
            "BoTorch, point estimate",
            "BoTorch / gpbo",
        ),
        _growth,
    ),
    "ascent": Table("ascent-cpu", "speed.py ascent", _BESIDE, _ascent),
    "paths": Table(
        "thompson-cpu",
        "speed.py thompson",
        (
            "work: CPU time, memory",
            "gpbo",
            "BoTorch",
            "BoTorch / gpbo: time, memory",
        ),
        _paths,
    ),
    "minima": Table(
        "thompson-cpu", "speed.py thompson", ("functions of", "found their own minimum"), _minima
    ),
    "rounds": Table(
        "thompson-rounds",
        "thompson_rounds.py",
        (
            "problem",
            "seeds x rounds",
            "gpbo",
            "Thompson sampling",
            "batch log EI",
            "BEEBO",
            "all proposals of a seed",
            "commit",
        ),
        _rounds,
    ),
    "utilisation": Table(
        "utilisation", "utilisation.py", ("strategy", "without waiting", "in step"), _utilisation
    ),
    "storage": Table(
        "storage",
        "storage.py",
        ("strategy", "ms per trial", "kB per trial"),
        _storage,
    ),
    "workers": Table(
        "kandasamy",
        "kandasamy.py",
        (
            "case",
            *(f"`{method}`" for method in _SHOWN),
            "`asyTS` minus `synTS` (95 %)",
            "the same after equally many evaluations (95 %)",
        ),
        _workers,
    ),
    "counts": Table(
        "kandasamy",
        "kandasamy.py",
        (
            "case",
            "the authors saw",
            "times, workers",
            "without waiting",
            "in step",
            "ratio",
            "in the limit",
        ),
        _counts,
    ),
}

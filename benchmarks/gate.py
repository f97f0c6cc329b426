"""The regression gate: speed as ratios, and the regret of ``smoke``, against stored results.

Seconds are only compared with seconds of the same process: gpbo and BoTorch take turns. A loss of
speed is real if the whole interval of the ratio's median exceeds the stored one by more than
`SLOWER`; a loss of regret, if the paired test over problems and seeds says so and the typical run
lost more than `WORSE`.
"""

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

from gpbo.errors import InvalidData
from gpbo.fitting import Inference

from . import analysis, record, table
from .beside import joined

#: Ratios of seconds, and of regret, from which on a loss counts.
SLOWER, WORSE = 1.25, 1.25
#: The probability of a false alarm, for all tests of regret together.
_ALARM = 0.01
_SPEED, _REGRET = "check-speed.json", "check-smoke.parquet"


@dataclass(frozen=True)
class Finding:
    """One comparison.

    Attributes:
        name: What was compared.
        stored, found: The ratio then and now; for regret, 1 and the typical ratio of now to then.
        lost: Whether it is a real loss.
    """

    name: str
    stored: float
    found: float
    lost: bool

    def __str__(self) -> str:
        verdict = "LOSS" if self.lost else "ok"
        return f"{verdict:5} {self.name}: {self.found:.3g}, stored {self.stored:.3g}"


def speed_ratios(repeats: int = 9) -> dict[str, list[float]]:
    """Seconds of gpbo over seconds of BoTorch for the same work, of every repeat."""
    return {
        "suggestion, HMC (warm) / BoTorch MAP": _suggestions("hmc", repeats),
        "suggestion, MAP / BoTorch MAP": _suggestions("map", repeats),
        "16 Thompson points / BoTorch": _thompson(repeats),
    }


def _suggestions(inference: Inference, repeats: int) -> list[float]:
    from .speed import turns

    _, *warm = islice(turns(30, 6, inference), 1 + repeats)
    return [turn.gpbo_s / turn.botorch_s for turn in warm]


def _thompson(repeats: int) -> list[float]:
    from .thompson import batch_botorch, batch_ours, data

    ours, theirs = (batch(data(100, 6), 16) for batch in (batch_ours, batch_botorch))
    ratios = [
        _seconds(partial(ours, seed)) / _seconds(partial(theirs, seed))
        for seed in range(repeats + 1)
    ]
    return ratios[1:]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare_speed(found: dict[str, list[float]], stored: dict[str, float]) -> list[Finding]:
    """Present ratios against stored medians; one that was not stored is not a loss.

    One that was stored and is no longer measured is.
    """
    findings = []
    for name, ratios in found.items():
        middle = statistics.median(ratios)
        then = stored.get(name, middle)
        low, _ = analysis.interval(np.array(ratios))
        findings.append(Finding(name, then, middle, bool(low > SLOWER * then)))
    gone = stored.keys() - found.keys()
    return findings + [Finding(name, stored[name], math.nan, True) for name in sorted(gone)]


def compare_regret(found: pd.DataFrame, stored: pd.DataFrame) -> list[Finding]:
    """The regret of every method against what was stored, paired by problem and seed.

    `random` and `sobol` do not depend on the engine: if their values changed, the problems did. A
    method that is no longer there is a loss, and so is one of which more runs ended early.
    """
    now, then = (analysis.relative(analysis.regrets(rows)) for rows in (found, stored))
    failed, failed_then = map(_failed, (found, stored))
    findings, names, tests = [], [], []
    for method in then.columns:
        if failed.get(method, len(then)) > failed_then[method]:
            ended = f"runs of {method} that ended early"
            findings.append(Finding(ended, failed_then[method], failed.get(method, math.nan), True))
        if method not in now.columns:
            continue
        pair = pd.concat([now[method], then[method]], axis=1, keys=["now", "then"]).dropna()
        loss = (np.log(pair["now"]) - np.log(pair["then"])).fillna(0.0)  # NaN: neither has a value
        if method in ("random", "sobol"):
            same = bool((loss.abs() < 1e-9).all()) and len(pair) == len(then)
            findings.append(Finding(f"regret of {method} (same problems)", 1.0, 1.0, not same))
            continue
        moved = loss[loss != 0].to_numpy()
        p = float(stats.wilcoxon(moved, alternative="greater").pvalue) if len(moved) else 1.0
        names.append((method, float(np.exp(loss.mean()))))
        tests.append(p)
    for (method, ratio), p in zip(names, _holm(tests), strict=True):
        lost = p < _ALARM and ratio > WORSE
        findings.append(Finding(f"regret of {method} on smoke", 1.0, ratio, lost))
    return findings


def _failed(rows: pd.DataFrame) -> dict[str, int]:
    """How many runs of every method ended early."""
    runs = rows.groupby(analysis.RUN)["failure"].first().notna()
    return {str(name): int(count) for name, count in runs.groupby("method").sum().items()}


def _holm(tests: list[float]) -> list[float]:
    from statsmodels.stats.multitest import multipletests

    return list(multipletests(tests, method="holm")[1]) if tests else []


def check(smoke: Path, folder: Path) -> list[Finding]:
    """Everything against the results in the folder.

    Args:
        smoke: Fresh results of the suite ``smoke``.
        folder: What `keep` wrote into.

    Raises:
        InvalidData: the folder has no stored results, or ``smoke`` is not a file of results.
    """
    found, _ = table.read(smoke)
    stored, _ = table.read(folder / _REGRET)
    if not (folder / _SPEED).exists():
        raise InvalidData(
            f"{folder / _SPEED}: there is no such file: expected one that `gpbo bench check "
            "--update` wrote"
        )
    known: dict[str, float] = json.loads((folder / _SPEED).read_text())["figures"]
    torch.set_num_threads(1)
    return compare_speed(speed_ratios(), known) + compare_regret(found, stored)


def keep(smoke: Path, folder: Path) -> None:
    """Store today's ratios, and the results of ``smoke``, as what is compared with from now on.

    Raises:
        InvalidData: a run ended early, so that nothing is stored.
    """
    ended = [method for method, count in _failed(table.read(smoke)[0]).items() if count]
    if ended:
        raise InvalidData(
            f"{smoke}: runs of {', '.join(ended)} ended early: expected none; nothing is stored"
        )
    torch.set_num_threads(1)
    medians = {name: statistics.median(ratios) for name, ratios in speed_ratios().items()}
    record.save(Path(_SPEED).stem, medians, record.machine(), folder)
    keep_results(smoke, folder / _REGRET)


def keep_results(results: Path, target: Path, beside: Path | None = None) -> None:
    """Copy a file of results without the configurations, joined with kept ones if asked for.

    Raises:
        InvalidData: there is no such file, or the two cannot be joined: see `beside.joined`.
    """
    rows, header = table.read_table(results) if beside is None else joined(beside, results)
    table.write(target, table.slim(rows), header)

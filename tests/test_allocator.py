"""Memory that is freed stays with the process, unless the user decided about it."""

import os
import subprocess
import sys

import pytest

from gpbo.allocator import _is_glibc, keep_freed_memory

#: Page faults of one evaluation of many log densities, after ten of them.
FAULTS = """
import resource, torch
from gpbo import Model
from gpbo.backend import DTYPE, Streams, settings_for

runs, n, dim, chains = 13, 29, 3, 17
x, y = torch.rand(runs, n, dim, dtype=DTYPE), torch.randn(runs, n, dtype=DTYPE)
log_posterior = Model().log_posterior(x, y, torch.ones(runs, n, dtype=torch.bool))
u = log_posterior.parametrization.sample(Streams.named(0, "u", runs=runs), chains).flatten(0, 1)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with settings_for(x.device):
    for _ in range(10):
        log_posterior(u)
    before = faults()
    for _ in range(10):
        log_posterior(u)
    print((faults() - before) / 10)
"""
KEPT = "from gpbo.allocator import keep_freed_memory; print(keep_freed_memory())"


def printed(program: str, **environment: str) -> str:
    known = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=known | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(not _is_glibc(), reason="the C library is not glibc")
def test_an_evaluation_maps_no_memory_anew() -> None:
    """Where the user's settings give it back at once, hundreds of pages are mapped each time."""
    kept, given_back = (
        float(printed(FAULTS, **how)) for how in ({}, {"MALLOC_TRIM_THRESHOLD_": "131072"})
    )
    assert kept < 0.1 * given_back


@pytest.mark.parametrize("error", [AttributeError, ValueError, OSError])
def test_another_c_library_is_left_alone(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """musl knows the name of what it is asked for, and refuses to tell."""

    def refuse(name: str) -> str:
        raise error(name)

    monkeypatch.setattr(os, "confstr", refuse)
    assert not keep_freed_memory.__wrapped__()


@pytest.mark.parametrize(
    "decided", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"]
)
def test_what_the_environment_says_stands(decided: str) -> None:
    value = "glibc.malloc.trim_threshold=131072" if decided == "GLIBC_TUNABLES" else "131072"
    assert printed(KEPT, **{decided: value}) == "False"

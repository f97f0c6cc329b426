"""Shapes are checked: the hook must run before the first import of gpbo."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.typechecker import check_types, start_anew

PACKAGE = Path(__file__).parent.parent / "gpbo"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
}
check_types(sorted(MODULES))

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from gpbo import fitting  # noqa: E402
from tests.delays import delay_threads  # noqa: E402

# No test measures time, neither of an example nor of its making; seeds are fixed.
settings.register_profile(
    "untimed", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="statistical tests at full size")
    parser.addoption("--delays", type=int, metavar="SEED", help="threads begin late, by chance")


def pytest_configure(config: pytest.Config) -> None:
    if (seed := config.getoption("--delays")) is not None:
        delay_threads(seed)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
    # A shell has its background processes ignore Ctrl-C, and with them all that they start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip_long = pytest.mark.skip(reason="full-size statistical test: make test-all")
    skip_gpu = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(skip_long)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(skip_gpu)
    # By far the longest test: of two processes none is left with it when the other has ended.
    items.sort(key=lambda item: item.path.name != "test_second_device.py")


@pytest.fixture(autouse=True)
def _types_checked() -> None:
    start_anew()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors are faster on one thread, and results do not depend on the machine's cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A posterior of few draws is as good as another for what is tested."""
    few = partial(fitting.Sampling, chains=2, warmup=8, draws=4, warm_draws=2, kept=4)
    monkeypatch.setattr(fitting, "Sampling", few)

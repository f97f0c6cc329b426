"""What is run in threads begins late, by chance: what relies on an order nobody keeps, fails."""

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from unittest import mock

_SECONDS = (0.0, 0.0, 0.01, 0.05, 0.2)


def delay_threads(seed: int) -> None:
    """Whatever is submitted to a `ThreadPoolExecutor` from now on waits before it begins."""
    chance = random.Random(seed)
    submit = ThreadPoolExecutor.submit

    def submit_late(
        pool: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        seconds = chance.choice(_SECONDS)

        def late() -> Any:
            time.sleep(seconds)
            return fn(*args, **kwargs)

        return submit(pool, late)

    mock.patch.object(ThreadPoolExecutor, "submit", submit_late).start()

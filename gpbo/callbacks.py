"""Who wants to know what a tuning job does: a protocol, with `gpbo.integrations` that speak it."""

import logging
from collections.abc import Callable, Sequence

from gpbo.optimizer import Optimizer
from gpbo.result import Result
from gpbo.trial import Trial

logger = logging.getLogger("gpbo")


class Callback:
    """Is called by a `gpbo.Tuner`, in the thread of `Tuner.run`; override what you want to know.

    The job waits for it. An exception that it raises is logged as a warning and changes nothing.
    """

    def started(self, optimizer: Optimizer) -> None:
        """The job begins, or goes on after an interruption."""

    def reported(self, trial: Trial, step: int, value: float) -> None:
        """A running trial reported an intermediate value."""

    def ended(self, trial: Trial) -> None:
        """A trial was completed or failed; one that is to be tried again has not ended."""

    def finished(self, result: Result) -> None:
        """The job ended; `gpbo.Result.stopped` says why."""


def tell(callbacks: Sequence[Callback], what: Callable[[Callback], None]) -> None:
    """Call each of them; what one raises is a warning."""
    for callback in callbacks:
        try:
            what(callback)
        except Exception:
            logger.warning("callback %r failed", callback, exc_info=True)

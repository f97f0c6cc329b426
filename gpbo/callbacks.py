"""Who wants to know what a tuning job does: a protocol, with `gpbo.integrations` that speak it."""

import logging
from collections.abc import Callable, Sequence

from gpbo.optimizer import Optimizer
from gpbo.result import Result
from gpbo.trial import Trial

logger = logging.getLogger("gpbo")


class Callback:
    """Is called by a `gpbo.Tuner`, in the thread of the job; override what you want to know.

    The job waits for it. An exception of it is logged as a warning and changes nothing.
    """

    def started(self, optimizer: Optimizer) -> None:
        """The job begins, or goes on: nothing was asked yet since."""

    def reported(self, trial: Trial, step: int, value: float) -> None:
        """A running trial reported an intermediate value."""

    def ended(self, trial: Trial) -> None:
        """A trial was completed or failed."""

    def finished(self, result: Result) -> None:
        """The job ended, for whatever reason."""


def tell(callbacks: Sequence[Callback], what: Callable[[Callback], None]) -> None:
    """Call each of them; what one raises is a warning."""
    for callback in callbacks:
        try:
            what(callback)
        except Exception:
            logger.warning("callback %r failed", callback, exc_info=True)

"""Callbacks: listeners to the events of a loop or a job; `gpbo.integrations` has some."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gpbo.errors import InvalidOption
from gpbo.trial import Trial

if TYPE_CHECKING:
    from gpbo.optimizer import Optimizer
    from gpbo.result import Result

logger = logging.getLogger("gpbo")


class Callback:
    """Called by `gpbo.minimize`, `gpbo.run` or a `gpbo.Tuner`; override the methods you need.

    The methods run in the thread that called the loop or the job, which waits for them. An
    exception that they raise is logged as a warning and changes nothing.
    """

    def started(self, optimizer: "Optimizer") -> None:
        """The loop or the job begins, or continues after an interruption."""

    def reported(self, trial: Trial, step: int, value: float) -> None:
        """A running trial of a `gpbo.Tuner` reported an intermediate value."""

    def ended(self, trial: Trial) -> None:
        """A trial was completed or failed; one that will be retried has not ended."""

    def finished(self, result: "Result") -> None:
        """The loop or the job ended; `gpbo.Result.stopped` says why."""


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Check that these are callbacks.

    Raises:
        InvalidOption: not a sequence of `Callback` objects.
    """
    if not isinstance(callbacks, Sequence) or not all(
        isinstance(callback, Callback) for callback in callbacks
    ):
        raise InvalidOption(
            f"callbacks={callbacks!r}: expected a list of gpbo.callbacks.Callback objects; write a "
            "class that inherits from it and overrides `ended(self, trial)`"
        )


def tell(callbacks: Sequence[Callback], what: Callable[[Callback], None]) -> None:
    """Call each callback; an exception that one raises is logged as a warning."""
    for callback in callbacks:
        try:
            what(callback)
        except Exception:
            logger.warning("callback %r failed", callback, exc_info=True)

"""Who wants to know what a loop or job does: a protocol, with `gpbo.integrations` that speak it."""

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
    """Is called by `gpbo.minimize`, `gpbo.run` or a `gpbo.Tuner`; override what you want to know.

    It is called in the thread that called them, which waits for it. An exception that it raises is
    logged as a warning and changes nothing.
    """

    def started(self, optimizer: "Optimizer") -> None:
        """The loop or the job begins, or goes on after an interruption."""

    def reported(self, trial: Trial, step: int, value: float) -> None:
        """A running trial of a `gpbo.Tuner` reported an intermediate value."""

    def ended(self, trial: Trial) -> None:
        """A trial was completed or failed; one that is to be tried again has not ended."""

    def finished(self, result: "Result") -> None:
        """The loop or the job ended; `gpbo.Result.stopped` says why."""


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Nothing, where it is a sequence of callbacks.

    Raises:
        InvalidOption: it is not.
    """
    if not isinstance(callbacks, Sequence) or not all(
        isinstance(callback, Callback) for callback in callbacks
    ):
        raise InvalidOption(
            f"callbacks={callbacks!r}: expected a list of gpbo.callbacks.Callback objects, such as "
            "one of a class of yours that overrides `ended(self, trial)`"
        )


def tell(callbacks: Sequence[Callback], what: Callable[[Callback], None]) -> None:
    """Call each of them; what one raises is a warning."""
    for callback in callbacks:
        try:
            what(callback)
        except Exception:
            logger.warning("callback %r failed", callback, exc_info=True)

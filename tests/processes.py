"""Processes that tests start."""

import signal


def heed_interrupts() -> None:
    """To be run in a new process: a shell has those that it starts in the background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

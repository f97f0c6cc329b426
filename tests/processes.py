"""Processes that tests start."""

import signal


def heed_interrupts() -> None:
    """To be run in a new process: a shell has its background ones ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

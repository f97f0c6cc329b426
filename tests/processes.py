"""What tests ask of processes that others started."""

import psutil


def lives(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended may be there until somebody looks."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

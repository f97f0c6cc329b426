"""Every exception that gpbo raises on purpose.

    GpboError
    ├── SpaceError            a badly defined search space or parameter (also ValueError)
    ├── InvalidParams         a configuration that is not in its space (also ValueError)
    ├── InvalidOption         an option with a value that is not allowed (also ValueError)
    ├── InvalidData           observations of a wrong shape, or not finite (also ValueError)
    ├── InvalidResult         a result that cannot be told: not a number (also ValueError)
    ├── UnknownTrial          no trial has this id (also KeyError)
    ├── TrialAlreadyFinished  the trial already has another result
    ├── SpaceExhausted        every point of a finite space, or grid, was tried or is pending
    ├── StorageError          a storage that cannot be used, or not in this way
    ├── UnknownJob            no job has this name (also KeyError)
    ├── JobInUse              another process drives this job
    └── InvalidJob            a job file with mistakes (also ValueError)

An error's message names the parameter, the value it got and what is allowed.
"""


class GpboError(Exception):
    """Base class: catch it to catch everything that gpbo raises on purpose."""

    def __str__(self) -> str:
        # A KeyError would show its message in quotes.
        return str(self.args[0]) if self.args else ""


class SpaceError(GpboError, ValueError):
    """A search space or one of its parameters is badly defined."""


class InvalidParams(GpboError, ValueError):
    """A configuration does not belong to its space."""


class InvalidOption(GpboError, ValueError):
    """An option has a value that is not allowed."""


class InvalidData(GpboError, ValueError):
    """Observations of a wrong shape, or not finite, or none at all; or a file without any."""


class InvalidResult(GpboError, ValueError):
    """A result that cannot be told: not a real number, or without the constraints' quantities."""


class UnknownTrial(GpboError, KeyError):
    """No trial has this id."""


class TrialAlreadyFinished(GpboError):
    """The trial already has another result."""


class SpaceExhausted(GpboError):
    """Every point of a finite space, or of a grid, was tried or is pending."""


class StorageError(GpboError):
    """A storage cannot be used: not gpbo's, too new, a name that is taken, a closed job."""


class UnknownJob(GpboError, KeyError):
    """No job has this name."""


class JobInUse(GpboError):
    """Another process drives this job."""


class InvalidJob(GpboError, ValueError):
    """A job file has mistakes; the message has a line for each wrong key or table."""

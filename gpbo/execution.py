"""How the trials of a tuning job run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from gpbo.checks import instance_of, one_of, positive_number, whole_number
from gpbo.completion import MedianRule
from gpbo.errors import InvalidOption
from gpbo.trial import Mode


@dataclass(frozen=True)
class Execution:
    """How the trials of a job run.

    Args:
        workers: How many trials run at a time.
        mode: ``"async"``: a worker gets its next trial as soon as it is free; ``"sync"``: all
            workers wait for the last one, and get their trials together.
        time_limit_s: Seconds that a trial may take; a longer one is killed and fails. Starting its
            process does not count, but importing what the objective needs does, in the first trial
            of each process. The time in which the job is stopped, as by Ctrl-Z, does not count
            either, except for a command, which runs on, and in an executor of your own.
        retries: How often a trial is tried again if its process or command was killed, it exceeded
            the time limit, or its executor lost it. It is not tried again if its objective raised
            an exception or its command ended with an error. Interrupting the job does not count.
        early_stopping: Which trials end early; None lets all run to their end.
        gpus: Devices that the workers get in turn, as ``CUDA_VISIBLE_DEVICES``. With these, or with
            ``env``, a `Tuner` takes no executor of your own.
        env: Environment variables of the workers, in addition to those of this process. By default
            numerical libraries use one thread in each worker (``OMP_NUM_THREADS=1`` and so on).

    Raises:
        InvalidOption: an argument has a value that is not allowed.
    """

    workers: int = 1
    mode: Mode = "async"
    time_limit_s: float | None = None
    retries: int = 0
    early_stopping: MedianRule | None = None
    gpus: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole_number("workers", self.workers, least=1)
        whole_number("retries", self.retries, least=0)
        one_of("mode", self.mode, get_args(Mode))
        if self.time_limit_s is not None:
            positive_number("time_limit_s", self.time_limit_s)
        instance_of("early_stopping", self.early_stopping, MedianRule | None)
        if isinstance(self.gpus, str) or not _are_texts(self.gpus):
            raise InvalidOption(
                f"gpus={self.gpus!r}: expected a list of strings, such as ['0', '1']"
            )
        if not (isinstance(self.env, Mapping) and _are_texts([*self.env, *self.env.values()])):
            raise InvalidOption(
                f"env={self.env!r}: expected a mapping from names to strings, "
                "such as {'SEED': '3'}"
            )


def _are_texts(values: object) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, str) for value in values)

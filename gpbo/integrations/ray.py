"""Trials on a Ray cluster; needs ``pip install 'gpbo[ray]'``."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from gpbo.integrations import needs_extra

with needs_extra("ray"):
    import ray


class RayExecutor(Executor):
    """Runs every trial as a Ray task: ``Tuner(..., executor=RayExecutor(num_gpus=0.5))``.

    Starts Ray if it does not run. Ray does not retry the tasks: use `Execution.retries`. All
    machines of the cluster must see the folder of the trials.

    Args:
        options: Options of a Ray task, such as ``num_cpus``, ``num_gpus`` or ``runtime_env``.
    """

    def __init__(self, **options: Any) -> None:
        if not ray.is_initialized():
            ray.init()
        self._options = {"max_retries": 0, **options}
        self._tasks: dict[Future[Any], Any] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` with these arguments somewhere on the cluster."""
        task = ray.remote(fn).options(**self._options).remote(*args, **kwargs)
        future: Future[Any] = task.future()
        self._tasks[future] = task
        future.add_done_callback(lambda done: self._tasks.pop(done, None))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the running tasks, or cancel them; the connection to the cluster stays."""
        tasks = list(self._tasks.values())  # it shrinks as tasks end
        if cancel_futures:
            for task in tasks:
                ray.cancel(task, force=True)
        if wait:
            ray.wait(tasks, num_returns=len(tasks))

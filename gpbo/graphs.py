"""Steps that are launched as one CUDA graph instead of hundreds of kernels.

A step advances a state: ``step(state, *others) -> (state, output)``, a function of tensors with
fixed shapes that never waits for the device. On a GPU it is captured once for its shapes, on
buffers of its own, and replayed: its arguments are copied into the buffers (a state that it
returned itself is there already), and the new state overwrites the old one within the graph. On the
CPU it is called as it is.

What torch requires of a capture (its notes on CUDA graphs): a run before it, on the stream of the
capture, so that libraries are loaded and constants made; no host synchronisation, no copy from the
host, no shape that depends on values; memory from a pool of its own, which is freed with it.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from types import NoneType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

logger = logging.getLogger("gpbo")

State = TypeVar("State")
Output = TypeVar("Output")
Others = ParamSpec("Others")
Step = Callable[Concatenate[State, Others], tuple[State, Output]]

#: The work of a step on its buffers, which it overwrites; returns the output's tensors.
Work = Callable[[list[Tensor]], list[Tensor]]

#: A graph is freed after this many contexts of `replayed` without it: an iteration of a run has
#: several, so graphs of outgrown shapes are gone a few iterations later.
_IDLE = 32

#: What a step may depend on besides tensors; for another value it is captured again.
_PLAIN = (NoneType, bool, int, float, str, slice, torch.device, torch.dtype)


@runtime_checkable
class Graph(Protocol):
    """Recorded work."""

    def replay(self) -> None:
        """Do it again, on the same memory."""
        ...


#: A process captures one graph at a time. During a capture, waiting for the whole device is an
#: error in every thread; torch itself waits for it when a capture begins.
_capturing = threading.RLock()
#: One per device: libraries keep memory for every stream that they were ever used on.
_capture_streams: dict[torch.device, torch.cuda.Stream] = {}


def record_on_cuda(work: Work, buffers: list[Tensor]) -> tuple[Graph, list[Tensor]]:
    """The work as a CUDA graph, and the tensors that it leaves its output in."""
    device = buffers[0].device
    with _capturing, torch.cuda.device(device):
        current = torch.cuda.current_stream()
        if device not in _capture_streams:
            _capture_streams[device] = torch.cuda.Stream()
        stream = _capture_streams[device]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            work(buffers)
        current.wait_stream(stream)
        # Let cuBLAS make a new workspace, in the graph's own memory. The stream's would be shared
        # by all graphs captured on it, and newer versions of torch free it with the first of them
        # (https://github.com/pytorch/pytorch/issues/193402).
        torch._C._cuda_clearCublasWorkspaces()
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        reason: BaseException | None = None
        try:
            # Other threads may continue: what they do on their streams is not part of the capture.
            with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
                try:
                    output = work(buffers)
                except BaseException as error:
                    reason = error  # the end of the capture may fail too, and hide it
                    raise
        except BaseException:
            # If the end of a capture fails too, older versions of torch consider it under way
            # forever: they free no memory (https://github.com/pytorch/pytorch/pull/180395), and
            # never that of the capture (https://github.com/pytorch/pytorch/pull/190348).
            with suppress(RuntimeError):
                graph.reset()  # newer ones do both here, and the next call fails
                torch._C._cuda_endAllocateToPool(device.index, pool)
                torch._C._cuda_releasePool(device.index, pool)
            # They also consider the default generator captured until another capture ends, and
            # drawing from it is an error (https://github.com/pytorch/pytorch/issues/172390).
            with (
                suppress(RuntimeError),
                torch.cuda.graph(
                    torch.cuda.CUDAGraph(), None, stream, capture_error_mode="thread_local"
                ),
            ):
                buffers[0].sum()
            if reason is not None:
                raise reason from None
            raise
        finally:
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.set_stream(current)  # torch does not if the end of a capture fails
        return graph, output


#: How work is recorded on the devices where it is worth it.
RECORDERS: dict[str, Callable[[Work, list[Tensor]], tuple[Graph, list[Tensor]]]] = {
    "cuda": record_on_cuda
}


@contextmanager
def replayed(
    step: Step[State, Others, Output], device: torch.device
) -> Iterator[Step[State, Others, Output]]:
    """The step, or on a GPU a function that replays it.

    What this returns is valid until the next call, or until the context is left: copy what is to be
    kept. Arguments other than the state must not be changed in place meanwhile. A step that depends
    on anything but tensors, plain values, dataclasses and objects of gpbo (a user's function, say)
    is called as it is.
    """
    if device.type not in RECORDERS:
        yield step
        return
    _shelf.begin()
    player = _Player(step)
    try:
        yield cast(Step[State, Others, Output], player)
    finally:
        player.put_back()


def release(device: torch.device) -> None:
    """Free all graphs that are not in use, and the device's unused memory."""
    _shelf.clear()
    if device.type == "cuda":
        with _capturing:
            torch.cuda.empty_cache()


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        with _capturing:
            torch.cuda.synchronize(device)


class _Opaque(Exception):
    """A value in which tensors may hide."""


def _flatten(value: Any, leaves: list[Tensor]) -> Hashable:
    """Append the tensors in a value, and describe the rest of it."""
    if isinstance(value, Tensor):
        leaves.append(value)
        return value.shape, value.dtype, value.device
    if isinstance(value, _PLAIN):
        return type(value), repr(value)
    return type(value), tuple(
        (name, _flatten(part, leaves)) for name, part in _parts(value).items()
    )


def _rebuilt(value: Any, leaves: Iterator[Tensor]) -> Any:
    """The value with other tensors in place of its own."""
    if isinstance(value, Tensor):
        return next(leaves)
    if isinstance(value, _PLAIN):
        return value
    parts = {name: _rebuilt(part, leaves) for name, part in _parts(value).items()}
    if isinstance(value, dict):
        return parts
    if isinstance(value, tuple | list):
        return type(value)(parts.values())
    other = object.__new__(type(value))
    vars(other).update(parts)
    return other


def _parts(value: Any) -> dict[Any, Any]:
    """What a value is made of.

    Raises:
        _Opaque: its parts are unknown.
    """
    if type(value) is dict:
        return value
    if type(value) in (tuple, list):
        return dict(enumerate(value))
    own = is_dataclass(value) or type(value).__module__.startswith("gpbo.")
    if own and hasattr(value, "__dict__") and not isinstance(value, type):
        return vars(value)
    raise _Opaque(type(value).__qualname__)


class _Recording:
    """A step recorded on buffers of its own."""

    def __init__(self, step: Step[Any, ..., Any], arguments: tuple[Any, ...]) -> None:
        leaves: list[Tensor] = []
        _flatten(arguments, leaves)
        self._buffers = [leaf.clone() for leaf in leaves]
        self._loaded: list[Tensor | None] = [None] * len(leaves)
        own = _rebuilt(arguments, iter(self._buffers))
        carried: list[Tensor] = []
        description = _flatten(own[0], carried)
        self._carried = len(carried)
        output: Any = None

        def work(buffers: list[Tensor]) -> list[Tensor]:
            nonlocal output
            state, output = step(*_rebuilt(own, iter(buffers)))
            fresh: list[Tensor] = []
            results: list[Tensor] = []
            if _flatten(state, fresh) != description:
                raise TypeError(f"{step.__qualname__}: the new state has another structure")
            _flatten(output, results)
            results = [_apart(result, buffers) for result in results]
            changed = [pair for pair in zip(buffers, fresh, strict=False) if pair[0] is not pair[1]]
            changed = [(buffer, _apart(part, buffers)) for buffer, part in changed]
            for buffer, part in changed:
                buffer.copy_(part)
            return results

        self._graph, results = RECORDERS[leaves[0].device.type](work, self._buffers)
        self._returned = own[0], _rebuilt(output, iter(results))

    def __call__(self, leaves: list[Tensor]) -> tuple[Any, Any]:
        """The next state and the output, from the tensors in the arguments."""
        for place, (leaf, buffer) in enumerate(zip(leaves, self._buffers, strict=True)):
            if leaf is buffer or leaf is self._loaded[place]:
                continue
            self._loaded[place] = None
            buffer.copy_(leaf)
            # The state's buffers are overwritten by the replay.
            self._loaded[place] = leaf if place >= self._carried else None
        self._graph.replay()
        return self._returned

    def forget(self) -> None:
        """Copy all arguments again next time, and keep none of them alive until then."""
        self._loaded = [None] * len(self._buffers)


def _apart(tensor: Tensor, buffers: list[Tensor]) -> Tensor:
    """The tensor, or a copy where it looks into a buffer, which will be overwritten."""
    storage = tensor.untyped_storage().data_ptr()
    if any(storage == buffer.untyped_storage().data_ptr() for buffer in buffers):
        return tensor.clone()
    return tensor


class _Shelf:
    """Recordings that are not in use, by step and arguments."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[Hashable, tuple[int, _Recording]] = {}
        self._begun = 0

    def begin(self) -> None:
        """Count a context of `replayed`, and free recordings that were not used for too many."""
        with self._lock:
            self._begun += 1
            self._idle = {
                other: (last, recording)
                for other, (last, recording) in self._idle.items()
                if self._begun - last <= _IDLE
            }

    def take(self, key: Hashable) -> _Recording | None:
        """The recording, for the caller alone."""
        with self._lock:
            found = self._idle.pop(key, None)
        return None if found is None else found[1]

    def put(self, key: Hashable, recording: _Recording) -> None:
        """Make it available again."""
        with self._lock:
            self._idle[key] = self._begun, recording

    def clear(self) -> None:
        """Keep none."""
        with self._lock:
            self._idle = {}


_shelf = _Shelf()
#: What could not be captured, and is called as it is from then on.
_refused: set[Hashable] = set()


class _Player:
    """Calls a step by replaying the recording for its arguments."""

    def __init__(self, step: Step[Any, ..., Any]) -> None:
        self._step = step
        self._key: Hashable = None
        self._recording: _Recording | None = None

    def __call__(self, *arguments: Any) -> tuple[Any, Any]:
        leaves: list[Tensor] = []
        try:
            key = self._step, torch.is_inference_mode_enabled(), _flatten(arguments, leaves)
        except _Opaque:
            return self._step(*arguments)
        if key == self._key:
            return self._played(arguments, leaves)
        # The arguments may lie in the last recording's memory, which others use once it is back.
        last = self._key, self._recording
        self._recording, self._key = self._recorded(key, arguments), key
        try:
            return self._played(arguments, leaves)
        finally:
            _give(*last)

    def _played(self, arguments: tuple[Any, ...], leaves: list[Tensor]) -> tuple[Any, Any]:
        return self._step(*arguments) if self._recording is None else self._recording(leaves)

    def _recorded(self, key: Hashable, arguments: tuple[Any, ...]) -> _Recording | None:
        if key in _refused:
            return None
        found = _shelf.take(key)
        if found is not None:
            return found
        try:
            return _Recording(self._step, arguments)
        except torch.OutOfMemoryError:
            _shelf.clear()
            return None
        except RuntimeError as error:
            if "out of memory" in str(error):  # as the driver says it
                _shelf.clear()
                return None
            _refused.add(key)
            logger.warning(
                "%s cannot be captured in a CUDA graph and runs without one: %s",
                self._step.__qualname__,
                error,
            )
            return None

    def put_back(self) -> None:
        """Leave the recording to others."""
        last = self._key, self._recording
        self._recording, self._key = None, None
        _give(*last)


def _give(key: Hashable, recording: _Recording | None) -> None:
    """Put a recording on the shelf, if there is one."""
    if recording is not None:
        recording.forget()
        _shelf.put(key, recording)

"""What must hold on a GPU, on a stand-in for one: a device beside the CPU, on any machine.

Its tensors are views of tensors on the CPU, where every operation is done. But they meet no others:
an operation on tensors of both devices is an error, as it is with a GPU, where torch allows numbers
(tensors without an axis) and indices only. So a tensor that is made in the wrong place is found
without a GPU. And steps are recorded and replayed, where what no CUDA graph can have is an error.
What this cannot tell is whether a kernel gives the same result there, and what it costs.

For `unittest`, in a process of its own (`tests/test_second_device.py`): a process keeps the device.
"""

import contextlib
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

from gpbo import graphs, lockstep, optimizer, simulation
from gpbo.backend import resolve_device
from gpbo.candidates import Search
from gpbo.graphs import Work
from gpbo.mcmc import sampling
from gpbo.strategies import ExpectedImprovement, ThompsonSampling
from tests.test_gpu import QUICK, OnAnyDevice
from tests.tracing import NOT_CAPTURABLE

NAME = "elsewhere"
backend_registration._setup_privateuseone_for_python_backend(NAME)
ELSEWHERE = torch.device(NAME, 0)


class AnyGenerator(torch.Generator):
    """Of random numbers for any device, from the CPU."""

    def __new__(cls, device: Any = "cpu") -> "AnyGenerator":
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]


class Elsewhere(Tensor):
    """A tensor on the second device, with its numbers in ``near``, on the CPU."""

    near: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, near: Tensor) -> "Elsewhere":
        shape = torch.empty_strided(near.size(), near.stride(), dtype=near.dtype, device="meta")
        made: Elsewhere = Tensor._make_subclass(
            cls,
            shape,
            near.requires_grad,
            dispatch_device=True,
            device_for_backend_keys=ELSEWHERE,
        )
        made.near = near
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return ELSEWHERE

    def tolist(self) -> Any:
        return self.near.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return done(function, args, kwargs or {})


class BothDevices(TorchDispatchMode):
    """Operations are done on the device that they name, or that their tensors are on."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return done(function, args, kwargs or {})


def done(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The result of an operation, on the device where it belongs.

    Raises:
        RuntimeError: it would need tensors of both devices.
    """
    if function is torch.ops.prim.device.default:
        return ELSEWHERE
    name = function.overloadpacket.__name__
    tensors = list(_tensors((args, kwargs)))
    elsewhere = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    if elsewhere and name not in ("copy_", "_to_copy"):
        for tensor in _tensors((args[:1], args[2:])) if name.startswith("index") else tensors:
            if not isinstance(tensor, Elsewhere) and tensor.ndim:
                shapes = [(type(one).__name__, tuple(one.shape)) for one in tensors]
                raise RuntimeError(f"{name}: tensors of two devices: {shapes}")
    named = kwargs.get("device")
    if Replay.at_work:
        _check_capturable(function, args, tensors, named)
    if named is not None:
        elsewhere = torch.device(named).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu")}
    given, options = _changed(_near, (tuple(args), dict(kwargs)))
    result = function(*given, **options)
    if name.endswith("_") and not name.endswith("__"):  # in place
        return args[0]
    return _changed(Elsewhere, result) if elsewhere else result


def _check_capturable(
    function: Any, args: Sequence[Any], tensors: Sequence[Tensor], named: Any
) -> None:
    """Raises RuntimeError where a CUDA graph cannot have an operation, or would keep a number."""
    places = {isinstance(tensor, Elsewhere) for tensor in tensors}
    if named is not None:
        places.add(torch.device(named).type == NAME)
    indices = _tensors(args[1]) if "aten.index" in str(function) else ()
    by_mask = any(index.dtype == torch.bool for index in indices)
    obstacle = by_mask or any(bad in str(function) for bad in NOT_CAPTURABLE)
    if True in places and (obstacle or False in places):
        raise RuntimeError(f"{function} is nothing for a CUDA graph")


class Replay:
    """Stands in for a CUDA graph: does the work of a step again, within the device."""

    at_work = False

    def __init__(self, work: Work, buffers: list[Tensor]) -> None:
        self._work, self._buffers = work, buffers
        work(buffers)  # what is made once is made before a capture
        self.output = self._done()

    def replay(self) -> None:
        for kept, result in zip(self.output, self._done(), strict=True):
            kept.copy_(result)

    def _done(self) -> list[Tensor]:
        with mock.patch.object(Replay, "at_work", True):
            return self._work(self._buffers)


def record(work: Work, buffers: list[Tensor]) -> tuple[Replay, list[Tensor]]:
    made = Replay(work, buffers)
    return made, made.output


def _near(tensor: Tensor) -> Tensor:
    return tensor.near if isinstance(tensor, Elsewhere) else tensor


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those in lists, tuples and mappings of any depth.

    torch's own functions, which know more kinds of containers, take five times as long.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _changed(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """With these tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([_changed(change, part) for part in value])
    if isinstance(value, dict):
        return {name: _changed(change, part) for name, part in value.items()}
    return value


@contextmanager
def a_second_device() -> Iterator[None]:
    """What asks torch for a device finds this one too.

    Its random numbers are those of the CPU. A tensor of a class of ours cannot be made in
    inference mode, so there is none.
    """

    def resolved(device: Any = "auto", **sizes: int) -> torch.device:
        return ELSEWHERE if device == NAME else resolve_device(device, **sizes)

    def inference_mode(mode: bool = True) -> contextlib.AbstractContextManager[Any]:
        return torch.no_grad() if mode else contextlib.nullcontext()

    def properties(device: Any) -> SimpleNamespace:
        return SimpleNamespace(total_memory=2**32)

    stand_ins: list[tuple[Any, str, Any]] = [
        (torch, "Generator", AnyGenerator),
        (torch, "inference_mode", inference_mode),
        (torch.cuda, "get_device_properties", properties),
        *((module, "resolve_device", resolved) for module in (lockstep, optimizer, simulation)),
    ]
    with contextlib.ExitStack() as stack:
        for place, name, stand_in in stand_ins:
            stack.enter_context(mock.patch.object(place, name, stand_in))
        stack.enter_context(mock.patch.dict(sampling._TICKS_PER_LOOK, {NAME: 16}))
        stack.enter_context(mock.patch.dict(graphs.RECORDERS, {NAME: record}))
        stack.callback(graphs.release, ELSEWHERE)
        # With this, ``torch.tensor(..., device=...)`` is an operation like others.
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        stack.enter_context(BothDevices())
        yield


class OnASecondDevice(OnAnyDevice, unittest.TestCase):
    """The tests of a GPU, and that the stand-in is strict."""

    device = NAME
    strategies = (ExpectedImprovement(QUICK), ThompsonSampling(Search(64, 8, 2, 8, 8), features=64))
    chains = 3
    draws = 4
    budget = 6

    def setUp(self) -> None:
        self.enterContext(a_second_device())
        self.refused = self.enterContext(mock.patch.object(graphs, "_refused", set[object]()))

    def tearDown(self) -> None:
        assert self.refused == set()

    def test_tensors_of_two_devices_do_not_meet(self) -> None:
        there, here = torch.ones(3, 5, device=NAME), torch.ones(3, 5)
        meetings: list[Callable[[], object]] = [
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: there @ here.mT,
            lambda: torch.where(here > 0, there, there),
            lambda: there.index_select(0, torch.tensor([1])),
            lambda: there.index_put((torch.tensor([1]),), here[:1]),
        ]
        for meeting in meetings:
            with pytest.raises(RuntimeError, match="tensors of two devices"):
                meeting()
        assert (there + torch.tensor(2.0)).device == there[torch.tensor([0, 2])].device == ELSEWHERE
        torch.testing.assert_close((there + here.to(NAME)).cpu(), 2 * here)
        assert torch.tensor([1.0, 2.0], device=NAME).device == ELSEWHERE

    def test_a_graph_has_nothing_to_do_with_the_host(self) -> None:
        mask = torch.tensor([True, False, True], device=NAME)
        obstacles: list[Callable[[Tensor], object]] = [
            lambda state: bool(state.sum() > 0),
            lambda state: state[mask],
            lambda state: state.index_put((mask,), state[0]),
            lambda state: state[torch.tensor([0, 2])],
            lambda state: state * torch.tensor(2.0),
            lambda state: state.cpu(),
            lambda state: state + torch.tensor([1.0, 2.0, 3.0], device=NAME),
        ]
        for number, obstacle in enumerate(obstacles):

            def step(state: Tensor, waits: bool, does: Any = obstacle) -> tuple[Tensor, None]:
                if waits:
                    does(state)
                return state + 1, None

            with (
                self.subTest(number),
                mock.patch.object(graphs, "_refused", set[object]()) as refused,
            ):
                for waits in (False, True):
                    with graphs.replayed(step, ELSEWHERE) as play:
                        state, _ = play(torch.ones(3, device=NAME), waits)
                        assert play(state, waits)[0].tolist() == [3.0] * 3
                    assert len(refused) == waits


if __name__ == "__main__":
    unittest.main()

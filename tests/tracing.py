"""Stands in for CUDA graphs on the CPU: torch's tracer records the operations, and replays them.

Like a graph it knows nothing but the operations and the memory that they were recorded on. What a
step reads from elsewhere stays what it was at the recording, what it decides in Python stays
decided, and a step that looks at a value (``bool``, ``item``) cannot be recorded at all.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from gpbo import graphs
from gpbo.graphs import Work

#: Operations that wait for the device, copy from the host, or have a shape that depends on values.
NOT_CAPTURABLE = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique",
    "repeat_interleave.Tensor",
    "lift_fresh",
    "linalg_eigh",
    "linalg_svd",
    "linalg_inv_ex",
)


class Traced:
    """The operations of some work, done again by `replay`."""

    def __init__(self, work: Work, buffers: list[Tensor]) -> None:
        self._buffers = buffers
        self._operations = make_fx(lambda *inputs: work(list(inputs)))(*buffers)
        self.output = [result.clone() for result in self._operations(*buffers)]
        self.replays = 0
        for buffer in buffers:  # a capture leaves no results either
            if buffer.is_floating_point():
                buffer.fill_(torch.nan)

    def replay(self) -> None:
        self.replays += 1
        for kept, result in zip(self.output, self._operations(*self._buffers), strict=True):
            kept.copy_(result)

    @property
    def operations(self) -> Counter[str]:
        """How often each operation is done."""
        nodes = self._operations.graph.nodes
        return Counter(str(node.target) for node in nodes if node.op == "call_function")

    @property
    def obstacles(self) -> list[str]:
        """The operations that no CUDA graph can have."""
        found = [name for name in self.operations if any(bad in name for bad in NOT_CAPTURABLE)]
        for node in self._operations.graph.nodes:
            if "_to_copy" in str(node.target):
                source = node.args[0].meta["val"].device
                if node.kwargs.get("device", source) != source:
                    found.append(f"{node.target} to another device")
            if "aten.index" in str(node.target):
                indices = [index for index in node.args[1] if index is not None]
                if any(index.meta["val"].dtype == torch.bool for index in indices):
                    found.append(f"{node.target} by a mask")
        return found


@contextmanager
def recorded() -> Iterator[list[Traced]]:
    """Inside, steps are recorded and replayed on the CPU; the recordings made so far."""
    made: list[Traced] = []

    def record(work: Work, buffers: list[Tensor]) -> tuple[Traced, list[Tensor]]:
        made.append(Traced(work, buffers))
        return made[-1], made[-1].output

    graphs.release(torch.device("cpu"))
    with mock.patch.dict(graphs.RECORDERS, {"cpu": record}):
        yield made
    graphs.release(torch.device("cpu"))

"""Where and in what precision gpbo computes, and where its randomness comes from."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gpbo.allocator import keep_freed_memory
from gpbo.checks import is_among
from gpbo.errors import InvalidOption
from gpbo.parallel import parallel_parts, threads

#: Factorisations, densities and acquisitions are computed in double precision: close to an
#: optimum the noise variance is tiny, and single-precision Cholesky factors fail there.
DTYPE = torch.float64

#: If a multiple of so many normals is drawn on a CPU, the first do not depend on how many follow.
_NORMALS_BLOCK = 64

#: Pairs of results and runs from which on ``"auto"`` takes a GPU. There a step costs what launching
#: its kernels costs, about the same for one run and for many. ``python benchmarks/crossover.py``
#: measures this table on a machine with a GPU. These are cautious estimates, from steps of 2 ms on
#: two CPU cores (16 chains, 50 results) and of 7 ms of a prototype on an H100, to be replaced by
#: measured ones.
CROSSOVER = ((32, 16), (64, 8), (128, 4), (256, 2))


def resolve_device(
    device: str | torch.device = "auto", *, runs: int = 1, results: int = 0
) -> torch.device:
    """The torch device for an option value.

    ``"auto"`` is a GPU if there is one and there is enough work to be faster there (`CROSSOVER`),
    and the CPU otherwise: one small run is faster on the CPU than on any GPU.

    Args:
        runs: How many advance in one batch.
        results: How many each of them will hold; 0 if that is not known.

    Raises:
        InvalidOption: torch does not know the device, or this machine does not have it.
    """
    if is_among(device, ("auto",)):
        faster = any(results >= many and runs >= least for many, least in CROSSOVER)
        device = "cuda" if faster and torch.cuda.is_available() else "cpu"
    expected = f"device={device!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:<index>'"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidOption(expected) from error
    if resolved.type == "cpu":
        return resolved
    if resolved.type != "cuda":
        raise InvalidOption(expected)
    if not torch.cuda.is_available():
        raise InvalidOption(f"device={device!r}: no CUDA device here; use 'auto' or 'cpu'")
    if (resolved.index or 0) >= torch.cuda.device_count():
        raise InvalidOption(
            f"device={device!r}: expected an index below {torch.cuda.device_count()}"
        )
    if resolved.index is None:
        # Each thread has a current device of its own.
        return torch.device("cuda", torch.cuda.current_device())
    return resolved


@contextmanager
def settings_for(device: torch.device) -> Iterator[None]:
    """Run under the process settings that make batches of matrices fast on this device.

    The precision is what the code states, whatever the caller's ``torch.autocast`` says. On a CPU,
    freed memory is kept from then on (`gpbo.allocator`), and each of torch's threads takes a part
    of a batch (`gpbo.parallel`). This requires that no gradients are recorded: code that needs
    autograd enables it.
    """
    if device.type == "cpu":
        keep_freed_memory()
    parts = parallel_parts() if device.type == "cpu" else nullcontext()
    with parts, _as_written(device), torch.no_grad():
        yield


def _as_written(device: torch.device) -> AbstractContextManager[object]:
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def threads_beside(workers: int) -> AbstractContextManager[None]:
    """Run with one thread less for each busy worker, but at least one.

    A parallel loop ends when its last thread does, and the others spin until then: next to one busy
    process on two cores, bordering a factor by 8 rows takes 130 ms with two threads and 1.4 ms with
    one. Threads started meanwhile have this number too; the old one is restored at the end.
    """
    return threads(max(1, torch.get_num_threads() - workers))


def stream_seed(seed: int, purpose: str, index: int = 0) -> int:
    """The seed of the stream named ``(seed, purpose, index)``: a 63-bit hash of the name.

    Streams with different names are unrelated (torch's generator on a CPU uses 32 of the bits: two
    of 10,000 streams coincide with a probability of 1 %). A stream does not depend on what was
    drawn from any other, so a resumed run draws what the uninterrupted run would have drawn.
    """
    name = f"{seed}/{purpose}/{index}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


class Streams:
    """One random stream per run: row ``i`` of every draw comes from run ``i``'s own generator.

    A run in a batch therefore draws the same numbers as the same run alone.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.device: torch.device = torch.device(device)
        self._generators = [torch.Generator(device=self.device).manual_seed(seed) for seed in seeds]

    @classmethod
    def named(
        cls,
        seed: int,
        purpose: str,
        index: int = 0,
        *,
        runs: int = 1,
        device: torch.device | str = "cpu",
    ) -> "Streams":
        """The streams ``(seed, purpose, index)`` of ``runs`` runs; run 0 of 64 is run 0 of 1."""
        return cls.per_seed([seed], purpose, index, rows=runs, device=device)

    @classmethod
    def per_seed(
        cls,
        seeds: Sequence[int],
        purpose: str,
        index: int | Sequence[int] = 0,
        *,
        rows: int = 1,
        device: torch.device | str = "cpu",
    ) -> "Streams":
        """Runs with seeds of their own: row ``i`` is the stream of a single run with ``seeds[i]``.

        Each run may have an index of its own, and several ``rows``; those of run 0 come first.
        """
        numbers = [index] * len(seeds) if isinstance(index, int) else index
        named = [
            stream_seed(seed, f"{purpose}@{row}", number)
            for seed, number in zip(seeds, numbers, strict=True)
            for row in range(rows)
        ]
        return cls(named, device)

    @classmethod
    def dealt(cls, streams: Sequence["Streams"]) -> "Streams":
        """The rows of several streams, interleaved by run: those of run 0 first."""
        rows = zip(*[several._generators for several in streams], strict=True)
        dealt = cls([], streams[0].device)
        dealt._generators = [generator for row in rows for generator in row]
        return dealt

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self._generators)

    def select(self, runs: Sequence[int]) -> "Streams":
        """The streams of these runs, which share their generators.

        A run that occurs twice, as padding (`gpbo.rows.bucket`), draws its own numbers in its first
        row and arbitrary ones in the others.
        """
        chosen, left = Streams([], self.device), dict(enumerate(self._generators))
        chosen._generators = [
            left.pop(run) if run in left else torch.Generator(device=self.device) for run in runs
        ]
        return chosen

    def spawn(self) -> "Streams":
        """New streams, each seeded by the next number of its parent.

        However much is drawn from the child, the parent moves by one number.
        """
        return Streams(self.integers(2**62, 1)[:, 0].tolist(), self.device)

    def uniform(self, *shape: int) -> Float[Tensor, "r *shape"]:
        """Uniform on [0, 1), ``[r, *shape]``."""
        return torch.stack(
            [
                torch.rand(shape, generator=generator, dtype=DTYPE, device=self.device)
                for generator in self._generators
            ]
        )

    def normal(self, *shape: int) -> Float[Tensor, "r *shape"]:
        """Standard normal, ``[r, *shape]``."""
        drawn = torch.empty(self.runs, *shape, dtype=DTYPE, device=self.device)
        self.fill_normal(drawn)
        return drawn

    def first_normals(self, count: int, *shape: int) -> Float[Tensor, "r count *shape"]:
        """Like `normal`, but on a CPU the first of them do not depend on how many follow."""
        size = count * math.prod(shape)
        drawn = self.normal(room_for_normals(size))[:, :size]
        return drawn.view(self.runs, count, *shape)

    def fill_normal(self, rows: Float[Tensor, "r *shape"]) -> None:
        """Fill ``rows``, in which each run is contiguous, with what `normal` would return.

        In single precision this takes a fifth of the time and gives other numbers.
        """
        for row, generator in zip(rows, self._generators, strict=True):
            row.normal_(generator=generator)

    def integers(self, high: int, *shape: int) -> Int[Tensor, "r *shape"]:
        """Uniform on 0 .. high - 1, ``[r, *shape]``."""
        return torch.stack(
            [
                torch.randint(high, shape, generator=generator, device=self.device)
                for generator in self._generators
            ]
        )


def room_for_normals(count: int) -> int:
    """How many to draw so that, on a CPU, the first ``count`` do not depend on how many follow."""
    return _NORMALS_BLOCK * math.ceil(count / _NORMALS_BLOCK)

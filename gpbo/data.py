"""Results of trials as the engine sees them: in its units, minimised, padded, masked.

Where there are ``k`` constraints, a run has ``1 + k`` outputs, each of which is a row as if it were
a run of its own: the values of run 0, the ``k`` quantities that its constraints limit, the values
of run 1, ... Fits, what is kept of them and their random streams have the same rows.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from gpbo.backend import DTYPE
from gpbo.errors import InvalidData
from gpbo.rows import selected
from gpbo.units import Units, centred, in_own_units


def check_finite(
    x: Float[Tensor, "r n d"], y: Float[Tensor, "r n"], mask: Bool[Tensor, "r n"]
) -> None:
    """Raise InvalidData if something that the mask keeps is not finite."""
    for name, values in (("x", x.mT), ("y", y[:, None])):
        wrong = (mask[:, None] & ~values.isfinite()).nonzero()
        if len(wrong):
            run, column, place = wrong[0].tolist()
            raise InvalidData(
                "x and y must be finite wherever mask is True, "
                f"and {name} is {float(values[run, column, place])} at result {place} of run {run}"
            )


@dataclass(frozen=True)
class Observations:
    """What ``r`` runs have observed and are waiting for, in the unit cube.

    Rows with a false mask are padding: ``x`` is the cube's centre there and ``values`` and ``y``
    are 0, and nothing may depend on them. ``values`` are in a run's own units, minimised, and
    ``y`` is ``units(values)``.

    Results that are not ``eligible`` violate a constraint: they inform the model, but none of them
    is the best. Each of the ``outputs`` of a run is a row: the first holds its values; the others,
    the ``straight`` ones, hold how far quantities are beyond their limits.

    The units are the most probable ones. They cost a few factorisations, so they are computed when
    first used: searches without a model never use them.
    """

    x: Float[Tensor, "r n d"]
    values: Float[Tensor, "r n"]
    mask: Bool[Tensor, "r n"]
    pending: Float[Tensor, "r m d"]
    pending_mask: Bool[Tensor, "r m"]
    eligible: Bool[Tensor, "r n"]
    outputs: int = 1

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "r n d"],
        values: Float[Tensor, "r n"],
        mask: Bool[Tensor, "r n"] | None = None,
        pending: Float[Tensor, "r m d"] | None = None,
        pending_mask: Bool[Tensor, "r m"] | None = None,
        eligible: Bool[Tensor, "r n"] | None = None,
        outputs: int = 1,
    ) -> "Observations":
        """Observations from padded tensors; without a mask every row counts.

        Args:
            values: to be minimised; anything, NaN too, where masked.
            eligible: by default all that the mask keeps.

        Raises:
            InvalidData: an unmasked value or point is not finite.
        """
        mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
        pending = x[:, :0] if pending is None else pending
        if pending_mask is None:
            pending_mask = torch.ones(pending.shape[:2], dtype=torch.bool, device=x.device)
        x = torch.where(mask.unsqueeze(-1), x.to(DTYPE), 0.5)
        pending = torch.where(pending_mask.unsqueeze(-1), pending.to(DTYPE), 0.5)
        values = torch.where(mask, values.to(DTYPE), 0.0)
        for name, tensor in (("x", x), ("values", values), ("pending", pending)):
            if not bool(torch.isfinite(tensor).all()):
                bad = torch.nonzero(~torch.isfinite(tensor))[0].tolist()
                raise InvalidData(
                    f"{name}{bad} is {float(tensor[tuple(bad)])}: expected finite numbers"
                )
        eligible = mask if eligible is None else eligible & mask
        return cls(x, values, mask, pending, pending_mask, eligible, outputs)

    @property
    def y(self) -> Float[Tensor, "r n"]:
        """The values as the model sees them; see `gpbo.units.in_own_units`."""
        return self._in_own_units[0]

    @property
    def units(self) -> Units:
        """How ``y`` comes from ``values``, and back."""
        return self._in_own_units[1]

    @cached_property
    def _in_own_units(self) -> tuple[Float[Tensor, "r n"], Units]:
        return in_own_units(self.x, self.values, self.mask, self.straight)

    @property
    def runs(self) -> int:
        """How many runs there are, ``r``."""
        return self.x.shape[0]

    @property
    def straight(self) -> Bool[Tensor, " r"]:
        """The rows of limited quantities, which are only standardised and have no penalties."""
        return torch.arange(self.runs, device=self.x.device) % self.outputs > 0

    @property
    def of_values(self) -> "Observations":
        """The rows of the values alone."""
        if self.outputs == 1:
            return self  # with its units, if already computed
        return replace(selected(self, slice(None, None, self.outputs)), outputs=1)

    def rows_of(self, runs: Int[Tensor, " j"]) -> Int[Tensor, " rows"]:
        """All rows of these runs, to select whole runs by (`gpbo.rows.selected`)."""
        own = torch.arange(self.outputs, device=runs.device)
        return (self.outputs * runs.unsqueeze(-1) + own).flatten()

    @property
    def dim(self) -> int:
        """Dimensions of the unit cube, ``d``."""
        return self.x.shape[2]

    @property
    def counts(self) -> Int[Tensor, " r"]:
        """How many results each run has."""
        return self.mask.sum(-1)

    def rescaling(self, last: Units) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"]]:
        """``shift`` and ``factor``, such that ``y`` is about ``(last(values) - shift) / factor``.

        They match the mean and the standard deviation of the results; the map is exact if values
        are neither transformed nor penalties. They are 0 and 1 if the units are the same, if the
        last values were all the same and so had no scale, or if the numbers are beyond the range of
        a double.
        """
        _, before, spread = centred(last(self.values), self.mask)
        _, now, own_spread = centred(self.y, self.mask)
        same = last.equals(self.units) | (last.worst == 0)
        factor = torch.where(same, 1.0, spread / own_spread)
        shift = torch.where(same, 0.0, before - factor * now)
        measured = torch.isfinite(factor) & (factor > 0) & torch.isfinite(shift)
        return torch.where(measured, shift, 0.0), torch.where(measured, factor, 1.0)

    def with_pending(self, points: Float[Tensor, "r q d"]) -> "Observations":
        """The same results with ``points`` pending too."""
        waiting = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
        return replace(
            self,
            pending=torch.cat([self.pending, points], 1),
            pending_mask=torch.cat([self.pending_mask, waiting], 1),
        )


def feasible(values: Float[Tensor, "r n"], excess: Float[Tensor, "r n k"]) -> Float[Tensor, "r n"]:
    """The values that meet all constraints, NaN for the others; see `with_room`."""
    return values.where((excess <= 0).all(-1), torch.nan)


def capacity(count: int, device: torch.device) -> int:
    """How many rows to hold ``count`` results in: rounded up on a GPU, so that shapes are few.

    There the rows grow in steps of 16, beyond 64 in steps of a quarter of the next power of two: 8
    shapes up to 200 results. What is captured or tuned for a shape, and the allocator's buffers,
    serve many iterations. A CPU gains nothing from this and pays for every row.
    """
    if device.type == "cpu":
        return count
    step = max(16, 2 ** ((count - 1).bit_length() - 2))
    return -(-count // step) * step


def padded(points: Float[Tensor, "r n d"], *rows: Shaped[Tensor, "... n"]) -> list[Tensor]:
    """Points, and tensors with an entry for each, padded to the `capacity` for their number.

    Padding is the cube's centre in the points and 0 elsewhere.
    """
    pad = torch.nn.functional.pad
    room = capacity(points.shape[1], points.device) - points.shape[1]
    return [pad(points, (0, 0, 0, room), value=0.5), *(pad(each, (0, room)) for each in rows)]


def numbered(mask: Bool[Tensor, "r n"]) -> Int[Tensor, "r n"]:
    """The number of each result among those present in its row, from 0; arbitrary if absent."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _with_limited(data: Observations, excess: Float[Tensor, "r n k"]) -> Observations:
    """The values and the quantities that the constraints limit, as rows."""
    outputs = 1 + excess.shape[-1]
    met = (excess <= 0).all(-1, keepdim=True)
    return Observations.of(
        data.x.repeat_interleave(outputs, 0),
        torch.cat([data.values.unsqueeze(-1), excess], -1).mT.flatten(0, 1),
        data.mask.repeat_interleave(outputs, 0),
        data.pending.repeat_interleave(outputs, 0),
        data.pending_mask.repeat_interleave(outputs, 0),
        eligible=torch.cat([met, torch.ones_like(excess, dtype=torch.bool)], -1).mT.flatten(0, 1),
        outputs=outputs,
    )


def with_room(
    x: Float[Tensor, "r n d"],
    values: Float[Tensor, "r n"],
    mask: Bool[Tensor, "r n"] | None = None,
    pending: Float[Tensor, "r m d"] | None = None,
    excess: Float[Tensor, "r n k"] | None = None,
) -> Observations:
    """`Observations`, padded to the `capacity` for their number.

    Args:
        x, values, mask, pending: as in `Observations.of`.
        excess: how far results are beyond each of ``k`` constraints, 0 or less where they meet it.
            The values are eligible where all are met, and each run has ``1 + k`` outputs.
    """
    data = Observations.of(x, values, mask, pending)
    if excess is not None and excess.shape[-1]:
        data = _with_limited(data, excess)
    x, values, mask, eligible = padded(data.x, data.values, data.mask, data.eligible)
    return replace(data, x=x, values=values, mask=mask, eligible=eligible)

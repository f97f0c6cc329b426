"""Functions drawn from the posterior, which can be evaluated, and differentiated, anywhere.

Matheron's rule (Wilson et al. 2020, "Efficiently sampling functions from Gaussian process
posteriors", ICML, equation 12): a function of the prior, plus the kernel-weighted sum that takes
it to the data,

    f(x) = mean + h(x) + k(x, X) (K + v I)^-1 (y - mean - h(X) - noise).

``h`` is a finite sum of random waves (Rahimi and Recht 2007, NeurIPS), frequencies from the
spectrum of the Matern kernel, and the sum over the data is exact. Averaged over the frequencies,
mean and covariance of ``f`` are those of the posterior for any number of features; with few of
them and dense data the spread of a single set is off, so paths are divided among many sets. In few
dimensions that is not enough, and `draw_paths` takes anchors, at which the draws are exact.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from scipy.special import gammaincinv
from torch import Tensor

from gpbo.backend import DTYPE, Streams, room_for_normals
from gpbo.data import numbered
from gpbo.design import sobol
from gpbo.errors import InvalidOption
from gpbo.kernels import matern, matern_and_slope, squared_distances
from gpbo.linalg import (
    add_diagonal,
    append_inverse_lower,
    times_lower,
    times_lower_transposed,
)
from gpbo.memory import budget
from gpbo.parallel import each
from gpbo.surrogate import Surrogate

#: From a number to its random streams.
Numbered = Callable[[int], Streams]

#: Paths share this many sets of frequencies (or the next multiple of the hyperparameter draws):
#: if every path had its own, screening many paths would cost a cosine for each.
_LEAST_SETS = 16
#: Quantiles are of probabilities no nearer to 0 and 1 than this.
_TAIL = 1e-12
#: The waves of many paths at the same points are summed in single precision, a third of the time.
#: An error of 1e-6 at the data is like noise of that size, which is small compared with inferred
#: noise; at screened points it changes no rank that matters. (With nu = 1/2, whose waves are short,
#: it is up to 1e-3 of the spread.) Ascents sum in double precision.
_SINGLE = torch.float32
#: Numbers in a temporary tensor on a CPU: what fits its cache.
_CPU_CHUNK = 2**17
#: Variance added to anchors, relative to the outputscale.
_ANCHOR_JITTER = 1e-8


@dataclass(frozen=True)
class Paths:
    """``q`` functions per run, in ``e`` sets of ``g`` that share hyperparameters and frequencies.

    Path ``j`` is number ``j // e`` of set ``j % e``; the last ones of a batch may be missing.

    Attributes:
        count: ``q``.
        x: The points of the data, and the anchors.
        lengthscale, mean: Hyperparameters of each set.
        frequencies: In radians per lengthscale.
        amplitudes: Of the cosines, then the sines, of each path, in single precision.
        coefficients: Coefficients of the kernel functions at ``x``.
        nu: Smoothness of the Matern kernel.
        rough: Whether the waves are summed in single precision at points of each path's own, too.
    """

    count: int
    x: Float[Tensor, "r n d"]
    lengthscale: Float[Tensor, "r e d"]
    mean: Float[Tensor, "r e"]
    frequencies: Float[Tensor, "r e w d"]
    amplitudes: Float[Tensor, "r e g f"]
    coefficients: Float[Tensor, "r e g n"]
    nu: float
    rough: bool = False

    def parts(self, most: int) -> Iterator["Paths"]:
        """The paths in order, at most ``most`` at once, but at least one of every set."""
        sets, members = self.coefficients.shape[1:3]
        step = max(1, most // sets)
        for first in range(0, members, step):
            some = slice(first, first + step)
            yield replace(
                self,
                count=min(self.count - first * sets, step * sets),
                amplitudes=self.amplitudes[:, :, some],
                coefficients=self.coefficients[:, :, some],
            )

    def at(self, x: Float[Tensor, "r b d"]) -> Float[Tensor, "r q b"]:
        """The values of all paths at the same points, waves in single precision: see `_SINGLE`."""
        values = x.new_empty(*self.coefficients.shape[:3], x.shape[1])

        def chunk(sets: slice, points: slice) -> None:
            z = (x[:, None, points] - 0.5) / self.lengthscale[:, sets, None]
            correlation = matern(squared_distances(z, self._centres(sets)), self.nu)
            values[:, sets, :, points] = (
                self.mean[:, sets, None, None]
                + _waves(z, self.frequencies[:, sets], self.amplitudes[:, sets])
                + self.coefficients[:, sets] @ correlation.mT
            )

        each(chunk, self._chunks(x.shape[0] * x.shape[1], x.shape[1]))
        return self._dealt_back(values)

    def __call__(self, x: Float[Tensor, "r q b d"]) -> Float[Tensor, "r q b"]:
        """The value of each path at points of its own."""
        return self.value_and_gradient(x)[0]

    def value_and_gradient(
        self, x: Float[Tensor, "r q b d"]
    ) -> tuple[Float[Tensor, "r q b"], Float[Tensor, "r q b d"]]:
        """The value of each path at points of its own, and its gradient."""
        dealt = self._dealt(x)
        values, gradients = dealt.new_empty(dealt.shape[:-1]), torch.empty_like(dealt)
        r, _, g, b, _ = dealt.shape

        def chunk(sets: slice, points: slice) -> None:
            value, gradient = self._value_and_gradient(sets, dealt[:, sets, :, points])
            values[:, sets, :, points] = value
            gradients[:, sets, :, points] = gradient

        each(chunk, self._chunks(r * g * b, b))
        return self._dealt_back(values), self._dealt_back(gradients)

    def _value_and_gradient(
        self, sets: slice, x: Float[Tensor, "r e g b d"]
    ) -> tuple[Float[Tensor, "r e g b"], Float[Tensor, "r e g b d"]]:
        lengthscale = self.lengthscale[:, sets, None]
        z = (x.flatten(2, 3) - 0.5) / lengthscale
        wave, wave_slope = self._waves_and_slopes(sets, z)
        centres, shape = self._centres(sets), (*x.shape[:-1], -1)
        correlation, slope = matern_and_slope(squared_distances(z, centres), self.nu)
        coefficients = self.coefficients[:, sets, :, None]
        update = (correlation.view(shape) @ coefficients.mT).squeeze(-1)
        pull = (slope.view(shape) * coefficients).flatten(2, 3)
        update_slope = -2 * (pull.sum(-1, keepdim=True) * z - pull @ centres)

        value = self.mean[:, sets, None, None] + wave.view(update.shape) + update
        return value, ((wave_slope + update_slope) / lengthscale).view(x.shape)

    def _waves_and_slopes(
        self, sets: slice, z: Float[Tensor, "r e i d"]
    ) -> tuple[Float[Tensor, "r e i"], Float[Tensor, "r e i d"]]:
        """The prior part of the value and of the gradient, per lengthscale; ``i`` is ``g b``."""
        dtype, amplitudes = _SINGLE if self.rough else z.dtype, self.amplitudes[:, sets]
        frequencies = self.frequencies[:, sets].to(dtype)
        phase = (z.to(dtype) @ frequencies.mT).unflatten(2, (amplitudes.shape[2], -1))
        sine, cosine = phase.sin(), phase.cos_()
        of_cosine, of_sine = amplitudes[..., None, :].to(dtype).chunk(2, -1)
        wave = (cosine @ of_cosine.mT + sine @ of_sine.mT).flatten(2)
        turned = cosine.mul_(of_sine).sub_(sine.mul_(of_cosine))
        slope = turned.flatten(2, 3) @ frequencies
        return wave.to(z.dtype), slope.to(z.dtype)

    def _centres(self, sets: slice) -> Float[Tensor, "r e n d"]:
        return (self.x[:, None] - 0.5) / self.lengthscale[:, sets, None]

    def _chunks(self, rows: int, points: int) -> list[tuple[slice, slice]]:
        """Sets and points to evaluate at once; with all points, a set has ``rows`` rows."""
        limit, each_set = _limit(self.x), rows * max(self.frequencies.shape[2], self.x.shape[1])
        sets = max(1, limit // each_set)
        some = max(1, limit * points // each_set) if sets == 1 else points
        return [
            (slice(e, e + sets), slice(b, b + some))
            for e in range(0, self.mean.shape[1], sets)
            for b in range(0, points, some)
        ]

    def _dealt(self, x: Float[Tensor, "r q b d"]) -> Float[Tensor, "r e g b d"]:
        """Rows of paths in their sets; the places of missing paths repeat a point."""
        sets, members = self.coefficients.shape[1:3]
        missing = sets * members - self.count
        if missing:
            x = torch.cat([x, x[:, :1].expand(-1, missing, -1, -1)], 1)
        return x.unflatten(1, (members, sets)).transpose(1, 2)

    def _dealt_back(self, values: Float[Tensor, "r e g *b"]) -> Float[Tensor, "r q *b"]:
        return values.transpose(1, 2).flatten(1, 2)[:, : self.count]


def draw_paths(
    surrogate: Surrogate,
    count: int,
    *,
    own: Numbered,
    shared: Numbered,
    first: int = 0,
    features: int = 4096,
    anchors: Float[Tensor, "r j d"] | None = None,
) -> Paths:
    """Independent functions of the posterior; lower is better, as in the surrogate.

    Path ``first + j`` has hyperparameter draw ``(first + j) % s``, and is the same function in
    any batch that it is drawn in.

    Args:
        count: How many paths per run, ``q``.
        own: Streams of each path, by its number.
        shared: Streams of each set of frequencies, by its number; the same for a whole batch.
        first: The number of the first path.
        features: ``f``, half of them cosines and half sines.
        anchors: Points at which the paths are drawn jointly, with no approximation.

    Raises:
        InvalidOption: ``count`` is below 1, or ``features`` is odd or below 2.
    """
    if count < 1:
        raise InvalidOption(f"count={count!r}: expected 1 or more")
    if features < 2 or features % 2:
        raise InvalidOption(f"features={features!r}: expected an even number, 2 or more")
    all_sets = surrogate.draws * math.ceil(_LEAST_SETS / surrogate.draws)
    sets = min(count, all_sets)
    members = math.ceil(count / sets)
    numbers = [(first + j) % all_sets for j in range(sets)]
    index = torch.tensor(numbers, device=surrogate.x.device) % surrogate.draws
    anchors = surrogate.x[:, :0] if anchors is None else anchors
    sizes = (features, anchors.shape[1], surrogate.x.shape[1])
    normals = _Normals.draw([own(first + j) for j in range(count)], sets, members, sizes)
    waves = features // 2
    of_numbers = each(_frequencies, [(waves, surrogate, shared(number)) for number in numbers])
    frequencies = torch.stack(of_numbers, 1)
    scale = (surrogate.outputscale[:, index] / waves).sqrt()
    amplitudes = normals.amplitudes.mul_(scale[..., None, None].to(_SINGLE))
    width = surrogate.x.shape[1] + anchors.shape[1]
    coefficients = frequencies.new_empty(*amplitudes.shape[:3], width)
    # Pending points may follow the padding of the results: noise goes by the points present.
    order = numbered(surrogate.mask)[:, None, None]
    noise = normals.noise.gather(-1, order.expand_as(normals.noise))

    def of_draw(draw: int) -> None:
        known = _Known.of(surrogate, draw, anchors)

        def of_set(j: int) -> None:
            coefficients[:, j] = known.coefficients(
                frequencies[:, j], amplitudes[:, j], normals.anchors[:, j], noise[:, j]
            )

        each(of_set, [(j,) for j in torch.nonzero(index == draw)[:, 0].tolist()])

    each(of_draw, [(draw,) for draw in sorted(set(index.tolist()))])
    return Paths(
        count=count,
        x=torch.cat([surrogate.x, anchors], 1),
        lengthscale=surrogate.lengthscale[:, index],
        mean=surrogate.mean[:, index],
        frequencies=frequencies,
        amplitudes=amplitudes,
        coefficients=coefficients,
        nu=surrogate.nu,
    )


@dataclass(frozen=True)
class _Normals:
    """The standard normals that paths are made of; 0 for missing paths."""

    amplitudes: Float[Tensor, "r e g f"]
    anchors: Float[Tensor, "r e g j"]
    noise: Float[Tensor, "r e g n"]

    @classmethod
    def draw(
        cls, streams: Sequence[Streams], sets: int, members: int, sizes: tuple[int, int, int]
    ) -> "_Normals":
        features, *others = sizes
        # Rounded up, so that padding does not change the normals of the data.
        shape = streams[0].runs, sets, members, room_for_normals(sum(sizes))
        normals = torch.zeros(shape, dtype=_SINGLE, device=streams[0].device)

        def fill(own: int) -> None:
            for member, path in enumerate(streams[own::sets]):
                path.fill_normal(normals[:, own, member])

        each(fill, [(own,) for own in range(sets)])
        rest = normals[..., features : sum(sizes)].to(DTYPE)
        return cls(normals[..., :features], *rest.split(others, -1))


def _frequencies(count: int, surrogate: Surrogate, streams: Streams) -> Float[Tensor, "r w d"]:
    """Frequencies of the Matern kernel's spectrum: Student's t with ``2 nu`` degrees of freedom.

    Rasmussen and Williams (2006), equation 4.15: a normal over the root of a mean chi-square. Both
    are quantiles of scrambled Sobol points, each of which is uniform, so that the waves of a set
    represent the spectrum more evenly than independent ones (Yang, Sindhwani, Avron and Mahoney
    2014, "Quasi-Monte Carlo feature maps for shift-invariant kernels", ICML).
    """
    freedom = round(2 * surrogate.nu)
    uniform = sobol(count, surrogate.dim + 1, streams).clamp(_TAIL, 1 - _TAIL)
    normal, last = torch.special.ndtri(uniform[..., :-1]), uniform[..., -1:]
    chi_square = 2 * torch.from_numpy(gammaincinv(freedom / 2, last.cpu().numpy())).to(last)
    return normal * (freedom / chi_square).sqrt()


def _waves(
    z: Float[Tensor, "*e b d"],
    frequencies: Float[Tensor, "*e w d"],
    amplitudes: Float[Tensor, "*e g f"],
) -> Float[Tensor, "*e g b"]:
    """The values of prior functions at the same points, some points at a time."""
    of_cosine, of_sine = amplitudes.chunk(2, -1)
    sums = []
    for some in z.split(max(1, _limit(z) // frequencies[..., 0].numel()), -2):
        phase = (some @ frequencies.mT).to(amplitudes.dtype)
        sums.append(of_cosine @ phase.cos().mT + of_sine @ phase.sin().mT)
    return torch.cat(sums, -1).to(z.dtype)


def _limit(tensor: Tensor) -> int:
    if tensor.device.type == "cpu":
        return _CPU_CHUNK
    return budget(tensor.device) // tensor.element_size()


@dataclass(frozen=True)
class _Known:
    """What moves prior functions to the data, and to a joint draw at the anchors.

    Anchors are noiseless observations of values that are themselves drawn. With the factor of the
    covariance bordered by their rows, the whitened value of such a draw is standard normal, as in
    `Surrogate.fantasize`. One product with the inverse factor serves all paths of a set, and the
    factor all sets of a hyperparameter draw.
    """

    z: Float[Tensor, "r n d"]
    z_anchors: Float[Tensor, "r j d"]
    mask: Bool[Tensor, "r 1 n"]
    inverse: Float[Tensor, "r m m"]
    whitened: Float[Tensor, "r 1 n"]
    scale: Float[Tensor, "r 1 1"]
    noise_variance: Float[Tensor, "r 1 1"]

    @classmethod
    def of(cls, surrogate: Surrogate, draw: int, anchors: Float[Tensor, "r j d"]) -> "_Known":
        lengthscale = surrogate.lengthscale[:, draw, None]
        scale = surrogate.outputscale[:, draw, None, None]
        z, z_anchors = (surrogate.x - 0.5) / lengthscale, (anchors - 0.5) / lengthscale
        inverse, mask = surrogate.inverse_factor[:, draw], surrogate.mask[:, None]
        residual = surrogate.y[:, draw, None] - surrogate.mean[:, draw, None, None]
        whitened = torch.where(mask, residual, 0.0) @ inverse.mT
        if anchors.shape[1]:
            cross = matern(squared_distances(z_anchors, z), surrogate.nu) * mask
            corner = matern(squared_distances(z_anchors, z_anchors), surrogate.nu)
            jitter = torch.full_like(scale[..., 0], _ANCHOR_JITTER)
            corner = scale * add_diagonal(corner, jitter)
            inverse = append_inverse_lower(inverse, scale * cross, corner)
        noise_variance = surrogate.noise_variance[:, draw, None, None]
        return cls(z, z_anchors, mask, inverse, whitened, scale, noise_variance)

    def coefficients(
        self,
        frequencies: Float[Tensor, "r w d"],
        amplitudes: Float[Tensor, "r g f"],
        at_anchors: Float[Tensor, "r g j"],
        noise: Float[Tensor, "r g n"],
    ) -> Float[Tensor, "r g m"]:
        """Coefficients of the kernel functions at data and anchors, from standard normals."""
        waves = _waves(self.z, frequencies, amplitudes)
        disturbed = torch.where(self.mask, waves + self.noise_variance.sqrt() * noise, 0.0)
        whitened = self.whitened.expand_as(noise)
        if at_anchors.shape[-1]:
            whitened = torch.cat([whitened, at_anchors], -1)
            waves = _waves(self.z_anchors, frequencies, amplitudes)
            disturbed = torch.cat([disturbed, waves], -1)
        less = whitened - times_lower_transposed(disturbed, self.inverse)
        return self.scale * times_lower(less, self.inverse)

"""What to try next. A strategy has no state, and does not wait for trials.

    ExpectedImprovement       "ei"      log expected improvement, averaged over the posterior draws
    ProbabilityOfImprovement  "pi"      log probability of improvement, likewise
    ThompsonSampling          "ts"      the minima of functions drawn from the posterior
    RandomSearch              "random"  uniform in the unit cube
    GridSearch                "grid"    a full-factorial grid
    SobolSearch               "sobol"   a scrambled Sobol sequence
    CustomAcquisition                   the maximum of a function of your own

A strategy gets a `Situation` (what ``r`` runs know) and returns points; the situation has all that
it needs, so one strategy serves `gpbo.Optimizer`, where ``r`` is 1, and many runs at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from gpbo.acquisition import Differentiated, LogExpectedImprovement, LogProbabilityOfImprovement
from gpbo.backend import Streams, settings_for
from gpbo.candidates import Search, Utility, propose, raw_points
from gpbo.checks import one_of, real_number, settle, truth_value, whole_number
from gpbo.data import Observations
from gpbo.design import GOLDEN, sobol
from gpbo.errors import InvalidOption
from gpbo.feasibility import Limits, Scaled, added, likely_at, log_chance, weighted, with_limits
from gpbo.fixed import expected_within, is_slice, lie_within, means_within
from gpbo.model_free import GridSearch, RandomSearch, SobolSearch
from gpbo.paths import Paths, draw_paths
from gpbo.situation import Situation, Strategy, one_by_one
from gpbo.space import Space
from gpbo.surrogate import Surrogate
from gpbo.thompson import Confined, DrawnLimits, PathUtility, minima
from gpbo.trust_region import Boxes, NestedBoxes, Region, TrustRegion

__all__ = [
    "STRATEGIES",
    "CustomAcquisition",
    "ExpectedImprovement",
    "GridSearch",
    "NestedBoxes",
    "ProbabilityOfImprovement",
    "RandomSearch",
    "Situation",
    "SobolSearch",
    "Strategy",
    "ThompsonSampling",
    "TrustRegion",
    "resolve_strategy",
]

#: What an improvement is measured from: the least posterior mean at the results, the least of the
#: results themselves, or the least of what they would be without noise, which is sampled.
Incumbent = Literal["mean", "observed", "sampled"]
#: Samples of what results would be without noise if there is a single draw; of several draws, each
#: has one sample.
_SAMPLES = 16
#: Draws whose noise has a smaller standard deviation than this treat the results as exact. If there
#: is neither noise nor what looks like it, draws have less than this after some results; samples
#: would then only blur what is known.
_NOISY = 0.02

#: The margin of trials that refine the best minimum found.
_LEAST_MARGIN = 1e-5
#: The best observed points, around which the maximum of an acquisition is searched too.
_BEST = 5
#: In at most this many dimensions, posterior functions are drawn exactly at some of the raw points:
#: the last ones, which are those near the best points and Sobol points before them.
_ANCHORED_DIM, _ANCHORS = 3, 384
#: This multiple of the log probability of meeting the constraints is subtracted from a posterior
#: function, in standard deviations of the values. The minimum within drawn limits lies on several
#: of them, and meets each in half of the draws only: many constraints hardly ever all. This moves
#: it inside in proportion to the models' uncertainty, and not at all once they are certain. For so
#: small a term an average over few draws is enough; over all draws a proposal takes half as long
#: again.
_LIKELIER, _FEW_DRAWS = 1e-3, 4


class _Maximiser(ABC):
    """The maximisers of an acquisition function, one after another."""

    search: Search
    repeats: bool
    uses_model = True
    _any_scale: ClassVar[bool] = False

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """The maximisers; each is pending when the next is chosen."""
        return one_by_one(situation, count, self._maximiser)

    def _maximiser(self, situation: Situation) -> Float[Tensor, "r d"]:
        """The maximiser of the log acquisition, weighted by the probability of a feasible value."""
        data, space = situation.data, situation.space
        known = situation.fit().surrogate
        failed = situation.failed, situation.failed_mask
        with settings_for(data.x.device):
            chance = with_limits(*_chances(situation, ahead=True))
            known = _eligible_within(known, space, chance)
            likely = likely_at(chance, space.snap(data.pending))
            streams = situation.streams("fantasy")
            seen = self._seen(known, situation)
            surrogate = seen.fantasize(data.pending, data.pending_mask, streams, likely)
            # Failed points have no value, so there is nothing to learn there.
            surrogate = surrogate.hallucinate(*failed)
            utility = self._utility(surrogate, situation)
            return propose(
                weighted(utility, chance, known.eligible.any(-1)),
                space,
                situation.streams("ascent"),
                best_x=_best_points(known, data, space),
                taken=situation.closed(self.repeats),
                search=self.search,
                any_scale=self._any_scale,
            )

    def _seen(self, surrogate: Surrogate, situation: Situation) -> Surrogate:
        """What the acquisition function knows about the results; by default everything."""
        return surrogate

    @abstractmethod
    def _utility(self, surrogate: Surrogate, situation: Situation) -> Utility:
        """The acquisition function, given fantasies of the pending points."""


@dataclass(frozen=True)
class _Improvement(_Maximiser):
    """The maximisers of an acquisition that measures improvement."""

    search: Search = field(default_factory=Search)
    margin: float = 0.0
    incumbent: Incumbent = "mean"
    repeats: bool = False
    refine: int = 4
    _acquisition: ClassVar[type[LogExpectedImprovement] | type[LogProbabilityOfImprovement]]

    def __post_init__(self) -> None:
        settle(self, "margin", real_number, least=0.0)
        settle(self, "refine", whole_number, least=0)
        one_of("incumbent", self.incumbent, get_args(Incumbent))
        truth_value("repeats", self.repeats)
        _check_search(self.search)

    def _seen(self, surrogate: Surrogate, situation: Situation) -> Surrogate:
        """Samples of the results without noise, if improvement is measured from these."""
        if self.incumbent != "sampled" or self._refines(situation):
            return surrogate
        times = _SAMPLES if surrogate.draws == 1 else 1
        return surrogate.sampled(situation.streams("values"), times, noisy=_NOISY)

    def _utility(self, surrogate: Surrogate, situation: Situation) -> Utility:
        observed = self.incumbent == "observed" and not is_slice(situation.space)
        expected = means_within(surrogate, situation.space)
        best = surrogate.least_observed if observed else surrogate.least(expected)
        margin = min(self.margin, _LEAST_MARGIN) if self._refines(situation) else self.margin
        return self._acquisition(surrogate, best=best - margin)

    def _refines(self, situation: Situation) -> bool:
        """Whether this trial refines the best minimum found.

        If slices of the space, such as tasks, take turns, every ``refine``-th trial might always
        belong to the same slice. There the multiples of the golden ratio, modulo 1, decide: they
        are spread evenly over the trials of each slice, however many take turns.
        """
        if self.refine == 0:
            return False
        number = situation.index + 1
        if is_slice(situation.space):
            return number * GOLDEN % 1 < 1 / self.refine
        return number % self.refine == 0


@dataclass(frozen=True)
class ExpectedImprovement(_Improvement):
    """The point of greatest log expected improvement, averaged over the draws.

    Other points of the batch, and other pending points, enter as one fantasy per hyperparameter
    draw, or per sample of a draw.

    Args:
        search: How hard to search for the acquisition's maximum.
        margin: The least improvement that counts, in standard deviations of the values on the
            model's scale (`gpbo.units`). Without a margin the best point is evaluated over and
            over once its neighbourhood offers no more improvement.
        incumbent: What improvement is measured from, in each draw of the hyperparameters:
            ``"mean"``, the least posterior mean at the results; ``"observed"``, the least result;
            or ``"sampled"``, the least value in a sample of what the results would be without
            noise. Fantasies of pending points count too. With ``"sampled"`` the model is
            conditioned on the sample instead of the results, so that a lucky result is no reason
            to try its point again (Letham, Karrer, Ottoni and Bakshy 2019, "Constrained Bayesian
            optimization with noisy experiments", Bayesian Analysis 14). Refining trials use the
            mean instead, and so do draws with next to no noise, a standard deviation below 0.02 on
            the model's scale. A single draw, as with ``inference="map"``, has sixteen samples. The
            choices differ by what a draw considers noise. If that is not noise but ripples too fine
            for the model, low results are real (a run may hit them again), and ``"observed"``
            demands more improvement and takes longer steps. If the values of some parameters are
            fixed, the incumbent is the least posterior mean there, with ``"sampled"`` given the
            sample.
        repeats: Whether a configuration may be proposed again, unless it failed: for a noisy
            objective on a finite space. A finite space is then never used up.
        refine: In every ``refine``-th trial (0: in none) the margin is at most 1e-5, so that the
            best minimum found is refined further; the other trials leave it when less than the
            margin is to be gained there. With fixed values the share of trials is the same, but
            not the rhythm, so that tasks that take turns all have some.

    Raises:
        InvalidOption: ``margin`` is negative or not finite, ``incumbent`` is none of the above,
            ``repeats`` is neither True nor False, ``refine`` is not a whole number, 0 or more, or
            ``search`` is not a `Search`.
    """

    margin: float = 3e-3
    incumbent: Incumbent = "sampled"
    name = "ei"
    _acquisition = LogExpectedImprovement


@dataclass(frozen=True)
class ProbabilityOfImprovement(_Improvement):
    """The point that is most probably better than the incumbent; greedier than ``"ei"``.

    Args:
        search: How hard to search for the acquisition's maximum.
        margin: As in `ExpectedImprovement`; more is needed here, where a small improvement counts
            as much as a large one (Jones 2001, "A taxonomy of global optimization methods based
            on response surfaces", J. Glob. Optim. 21).
        incumbent: As in `ExpectedImprovement`, but ``"mean"`` by default.
        repeats: As in `ExpectedImprovement`.
        refine: As in `ExpectedImprovement`.

    Raises:
        InvalidOption: ``margin`` is negative or not finite, ``incumbent`` is none of the above,
            ``repeats`` is neither True nor False, ``refine`` is not a whole number, 0 or more, or
            ``search`` is not a `Search`.
    """

    margin: float = 0.03
    name = "pi"
    _acquisition = LogProbabilityOfImprovement


@dataclass(frozen=True)
class CustomAcquisition(_Maximiser):
    """The point where an acquisition function of your own is greatest.

    ``acquisition`` takes a `gpbo.surrogate.Surrogate`, of ``r`` runs with ``s`` draws of the
    hyperparameters each, and returns a function that maps points ``[r,b,d]`` of the unit cube to
    values ``[r,b]``. The value of a point must depend on that point and its run alone, through
    operations that autograd differentiates; NaN is worse than any value (if there is nothing else,
    a warning is logged and a point of a Sobol sequence proposed). The surrogate has means and
    variances (``surrogate.moments``, ``[r,s,b]`` each) on a scale on which results are standardised
    and less is better. It includes pending points as one fantasy per draw, and failed trials as if
    they had returned the posterior mean. In a slice of the space, where some values are fixed, only
    results in the slice count for ``surrogate.incumbent``.

    If trials failed, or there are constraints, the log probability that a point has a value and
    meets the constraints is added, as to a log improvement; as long as no result meets the
    constraints, this probability alone is maximised.

    Args:
        name: Appears in the origin of its trials.
        acquisition: What is to be maximised.
        search: How hard to search for its maximum.
        repeats: As in `ExpectedImprovement`.

    Raises:
        InvalidOption: ``name`` is not a text or is empty, ``acquisition`` cannot be called,
            ``search`` is not a `Search`, or ``repeats`` is neither True nor False. When points are
            proposed: the values are not floats ``[r,b]``, or autograd finds that they do not depend
            on the points.
    """

    name: str
    acquisition: Callable[[Surrogate], Callable[[Float[Tensor, "r b d"]], Float[Tensor, "r b"]]]
    search: Search = field(default_factory=Search)
    repeats: bool = False
    _any_scale: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidOption(f"name={self.name!r}: expected a string that is not empty")
        if not callable(self.acquisition):
            raise InvalidOption(
                f"acquisition={self.acquisition!r}: expected a function of a surrogate"
            )
        _check_search(self.search)
        truth_value("repeats", self.repeats)

    def _utility(self, surrogate: Surrogate, situation: Situation) -> Utility:
        if is_slice(situation.space):
            within = surrogate.eligible & lie_within(situation.space, surrogate.x)
            surrogate = replace(surrogate, eligible=within)
        with torch.enable_grad():
            function: object = self.acquisition(surrogate)
        if not callable(function):
            raise InvalidOption(
                f"acquisition of {self.name!r} returned {function!r}: expected a function of points"
            )

        def checked(x: Float[Tensor, "r b d"]) -> Float[Tensor, "r b"]:
            value: object = function(x)
            given = type(value).__name__
            if isinstance(value, Tensor):
                given = f"{value.dtype} of shape {tuple(value.shape)}"
                known = value.requires_grad or not x.requires_grad
                if known and value.is_floating_point() and value.shape == x.shape[:2]:
                    return value.to(x)
            raise InvalidOption(
                f"the acquisition function of {self.name!r} returned {given}: expected a float "
                f"tensor of shape {tuple(x.shape[:2])} that depends on the points"
            )

        return Differentiated(checked)


@dataclass(frozen=True)
class ThompsonSampling:
    """The minimum of a function drawn from the posterior, a different function for each point.

    Thompson (1933, Biometrika 25); in parallel, synchronous or not, Kandasamy et al. (2018,
    "Parallelised Bayesian optimisation via Thompson sampling", AISTATS). The functions take the
    draws of the hyperparameters in turn. Pending points are not proposed again, but are otherwise
    ignored: the spread of the functions keeps the points of a batch apart.

    By default three functions in four are searched in boxes around the best point, and one in the
    whole cube (`NestedBoxes`): with few results, away from the data, functions differ so much that
    their minima over the cube are nearly random. A function that finds nothing new in its box is
    searched around the best points of other basins. With constraints, functions of the constrained
    quantities are drawn too, and each function is minimised where these meet the constraints.

    The search sums in single precision: the program's `torch.set_float32_matmul_precision` applies
    to it, and settings below ``"highest"`` may move a point by a thousandth of the cube.

    Args:
        search: How hard to search for every function's minimum; by default hard enough to find
            nearly all of them, which in the whole cube takes more work the more dimensions there
            are. Its ``perturbed`` counts only without a ``region``.
        features: How many cosines and sines, half of each, make up a function drawn from the
            prior; see `gpbo.paths`.
        hallucinate: Condition the functions on pending points, as if these had returned the
            posterior mean. Points of a batch are then chosen one after another.
        region: Where to search, `NestedBoxes` or a `TrustRegion`; None for the whole cube, as in
            the papers.
        repeats: As in `ExpectedImprovement`; functions of a batch may then have the same minimum.

    Raises:
        InvalidOption: ``region`` is none of these, ``features`` is not an even number, 2 or more,
            ``hallucinate`` or ``repeats`` is neither True nor False, or ``search`` is not a
            `Search`.
    """

    search: Search | None = None
    features: int = 4096
    hallucinate: bool = False
    region: Region | None = field(default_factory=NestedBoxes)
    repeats: bool = False
    name = "ts"
    uses_model = True

    def __post_init__(self) -> None:
        if self.search is not None:
            _check_search(self.search)
        truth_value("hallucinate", self.hallucinate)
        truth_value("repeats", self.repeats)
        settle(self, "features", whole_number, least=2)
        if self.features % 2:
            raise InvalidOption(f"features={self.features!r}: expected an even number")
        region = self.region
        if region is not None and (not isinstance(region, Region) or isinstance(region, type)):
            raise InvalidOption(f"region={region!r}: expected NestedBoxes(), TrustRegion() or None")

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """The minima of ``count`` functions, all searched at once."""
        if not self.hallucinate:
            return self._minima(situation, count)
        return one_by_one(situation, count, lambda now: self._minima(now, 1).squeeze(1))

    def _minima(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        data, space = situation.data, situation.space
        surrogate = situation.fit().surrogate
        with settings_for(data.x.device):
            if self.hallucinate:
                surrogate = surrogate.hallucinate(data.pending, data.pending_mask)
            search = self.search or default_search(space, confined=self.region is not None)
            screen = situation.streams("screen", data.counts.tolist())
            success, limits = _chances(situation, ahead=self.hallucinate)
            chance = with_limits(success, limits)
            surrogate = _eligible_within(surrogate, space, chance)
            if self.region is None:
                confined = None
                raw = raw_points(space, screen, _best_points(surrogate, data, space), search)
            else:
                boxes = self.region.boxes(data, surrogate, space, chance)
                confined = _confined(boxes, situation, screen, search.raw, count)
                raw = confined.place(boxes)
            anchors = raw[:, -_ANCHORS:] if space.dim <= _ANCHORED_DIM else None
            paths = self._drawn(situation, surrogate, count, anchors)
            utility = PathUtility(paths, success)
            if limits is not None:
                hint = added(success, Scaled(limits.log_chance(_FEW_DRAWS), _LIKELIER))
                names = [f" of limit {row}" for row in range(limits.most.shape[1])]
                drawn = self._drawn(situation, limits.surrogate, count, anchors, names)
                utility = PathUtility(paths, hint, DrawnLimits.of(drawn, limits.most))
            return minima(
                utility,
                space,
                [situation.streams("ascent", situation.index + j) for j in range(count)],
                raw=raw,
                taken=situation.closed(self.repeats),
                distinct=not self.repeats,
                search=search,
                confined=confined,
            )

    def _drawn(
        self,
        situation: Situation,
        surrogate: Surrogate,
        count: int,
        anchors: Float[Tensor, "r j d"] | None,
        names: Sequence[str] = ("",),
    ) -> Paths:
        """``count`` functions of every row of the surrogate, which has a row per run and name."""
        # What the paths of a batch share must not depend on the trial, so that a batch equals what
        # single calls would have proposed.
        results: list[int] = situation.data.counts.tolist()

        def streams(purpose: str, index: int | list[int]) -> Streams:
            return Streams.dealt([situation.streams(purpose + name, index) for name in names])

        return draw_paths(
            surrogate,
            count,
            own=lambda number: streams("path", number),
            shared=lambda number: streams(f"waves-{number}", results),
            first=situation.index,
            features=self.features,
            anchors=None if anchors is None else anchors.repeat_interleave(len(names), 0),
        )


def _confined(
    boxes: Boxes, situation: Situation, screen: Streams, points: int, count: int
) -> Confined:
    """The next ``count`` functions in these boxes, with ``points`` points to be screened."""
    data, space = situation.data, situation.space
    spread_out = sobol(points, space.dim, screen)
    lot = screen.uniform(points, space.dim)

    def placed(boxes: Boxes) -> Float[Tensor, "r b d"]:
        return space.snap(boxes.place(spread_out, lot))

    order = torch.arange(count, device=data.x.device).expand(data.runs, -1)
    pending = data.pending_mask.sum(1, keepdim=True)
    return Confined(boxes, order + situation.index, order + pending, placed)


def _check_search(search: object) -> None:
    if not isinstance(search, Search):
        raise InvalidOption(f"search={search!r}: expected a gpbo.candidates.Search")


def default_search(space: Space, *, confined: bool) -> Search:
    """A search that finds nearly every function's own minimum, in a box or in the whole cube.

    In 6 dimensions, 64 scouts find the minima of 99 functions in 100; in 20 dimensions, 64 find
    those of three in four, 512 those of 95 of 97, and 1024 of nearly all.
    """
    movable = int(space.movable.sum())
    scouts = 64 if confined else min(1024, max(64, round(movable**3 / 8)))
    raw = 1024 if confined else max(2048, 4 * scouts)
    return Search(raw=raw, perturbed=128, restarts=4, scouts=scouts)


#: The strategies that have a name.
STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy
    for strategy in (
        ExpectedImprovement,
        ProbabilityOfImprovement,
        ThompsonSampling,
        RandomSearch,
        GridSearch,
        SobolSearch,
    )
}


def resolve_strategy(strategy: object) -> Strategy:
    """The strategy of this name, with its defaults; a strategy object is returned as it is.

    Raises:
        InvalidOption: neither a known name nor a strategy.
    """
    if isinstance(strategy, str) and strategy in STRATEGIES:
        return STRATEGIES[strategy]()
    if isinstance(strategy, Strategy) and not isinstance(strategy, type):
        truth_value(f"{type(strategy).__name__}.uses_model", strategy.uses_model)
        if isinstance(strategy.name, str) and strategy.name:
            return strategy
        raise InvalidOption(
            f"{type(strategy).__name__}.name={strategy.name!r}: expected a string that is not empty"
        )
    if callable(getattr(strategy, "propose", None)) and not isinstance(strategy, type):
        lacking = [name for name in ("name", "uses_model") if not hasattr(strategy, name)]
        raise InvalidOption(
            f"strategy={strategy!r} has no {' and no '.join(lacking)}: expected the attributes "
            "name, uses_model and propose"
        )
    raise InvalidOption(
        f"strategy={strategy!r}: expected one of {', '.join(map(repr, STRATEGIES))}, "
        "or an object such as ExpectedImprovement()"
    )


def _chances(situation: Situation, *, ahead: bool) -> tuple[Utility | None, Limits | None]:
    """The log probability that a point gives a value, and the models of the constraints.

    Args:
        ahead: As if the pending trials had ended as expected.
    """
    data, limits = situation.data, situation.limits()
    success = log_chance(data, situation.failed, situation.failed_mask, ahead=ahead)
    return success, limits.ahead(data) if ahead and limits is not None else limits


def _eligible_within(surrogate: Surrogate, space: Space, chance: Utility | None) -> Surrogate:
    """The surrogate, with its ``eligible`` results those of this slice of the space.

    A result outside the slice stands for the point to which it is moved, and is eligible if a trial
    there would likely have a value and meet the constraints. Without a slice nothing changes.
    """
    if chance is None or not is_slice(space):
        return surrogate
    moved = surrogate.mask & likely_at(chance, space.snap(surrogate.x))
    eligible = torch.where(lie_within(space, surrogate.x), surrogate.eligible, moved)
    return replace(surrogate, eligible=eligible)


def _best_points(surrogate: Surrogate, data: Observations, space: Space) -> Float[Tensor, "r j d"]:
    """Observed points from which to search, the best first, ``j = 5`` of each run.

    Eligible points come first, ordered by posterior mean; in a slice of the space, by the mean at
    the point of the slice to which each is moved. The others follow.
    """
    expected = expected_within(surrogate, space)[:, : data.x.shape[1]]  # pending points may follow
    finite = expected.clamp(max=torch.finfo(expected.dtype).max)
    order = finite.masked_fill(~data.mask, torch.inf).argsort(dim=-1, stable=True)
    # A run with fewer results repeats its best ones instead of offering padding.
    places = torch.arange(_BEST, device=order.device) % data.counts[:, None]
    order = order.gather(1, places)
    return data.x.take_along_dim(order.unsqueeze(-1), 1)

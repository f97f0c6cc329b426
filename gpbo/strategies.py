"""What to try next: policy only. A strategy remembers nothing and waits for nobody.

    ExpectedImprovement       "ei"      log expected improvement, averaged over the posterior draws
    ProbabilityOfImprovement  "pi"      log probability of improvement, likewise
    ThompsonSampling          "ts"      the minima of functions drawn from the posterior
    RandomSearch              "random"  uniform in the unit cube
    GridSearch                "grid"    a full-factorial grid
    SobolSearch               "sobol"   a scrambled Sobol sequence
    CustomAcquisition                   the maximum of a function of your own

A strategy sees a `Situation` (what ``r`` runs know) and answers with points; everything that it
needs is in there, so one strategy serves `gpbo.Optimizer`, where ``r`` is 1, and many runs at once.
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
#: So many samples of what results would be without noise has a draw that is the only one; of
#: several, each has one.
_SAMPLES = 16
#: Draws whose noise has a smaller standard deviation than this take the results for exact. Where
#: there is neither noise nor what looks like it, they infer less after some results; samples would
#: then only blur what is known.
_NOISY = 0.02

#: The margin of trials that refine what was found.
_LEAST_MARGIN = 1e-5
#: Observed points around which the maximum of an acquisition is searched too.
_BEST = 5
#: In so many dimensions at most, posterior functions are drawn exactly at some of the raw points:
#: the last ones, which are those near the best points and Sobol points before them.
_ANCHORED_DIM, _ANCHORS = 3, 384
#: So many times the log of the chance of meeting the constraints is taken off a posterior function,
#: in standard deviations of the values. The minimum within drawn limits is on several of them, and
#: meets each in every other draw only: of many constraints, hardly ever all. This moves it inside
#: by a part of what the models do not know, and by nothing once they know. Of so small a part an
#: average over few draws is enough; over all of them a proposal takes half as long again.
_LIKELIER, _FEW_DRAWS = 1e-3, 4


class _Maximiser(ABC):
    """The maximisers of an acquisition function, one after another."""

    search: Search
    repeats: bool
    uses_model = True
    _any_scale: ClassVar[bool] = False

    def propose(self, situation: Situation, count: int) -> Float[Tensor, "r q d"]:
        """The maximisers, each of which is pending for the next."""
        return one_by_one(situation, count, self._maximiser)

    def _maximiser(self, situation: Situation) -> Float[Tensor, "r d"]:
        """The maximiser of the acquisition in log space, weighted with the chance of a value."""
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
            # What a value would be where there is none is nothing to be found out.
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
        """What the acquisition function knows of the results; by default all."""
        return surrogate

    @abstractmethod
    def _utility(self, surrogate: Surrogate, situation: Situation) -> Utility:
        """The acquisition function, given fantasies of what is pending."""


@dataclass(frozen=True)
class _Improvement(_Maximiser):
    """The maximisers of an acquisition that looks for improvement."""

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
        """Samples of what the results would be without noise, if improvement is on these."""
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
        """Whether this trial refines the best minimum that was found.

        Where slices of the space take turns, such as tasks, every so many trials would always be
        of the same slice. There the multiples of the golden ratio decide, modulo 1: they are
        spread evenly over the trials of each slice, however many take turns.
        """
        if self.refine == 0:
            return False
        number = situation.index + 1
        if is_slice(situation.space):
            return number * GOLDEN % 1 < 1 / self.refine
        return number % self.refine == 0


@dataclass(frozen=True)
class ExpectedImprovement(_Improvement):
    """The point of greatest expected improvement, in log space, averaged over the draws.

    Points of a batch, and points asked while others are pending, see the others through one
    fantasy per hyperparameter draw, or sample of it.

    Args:
        search: How hard to search the acquisition's maximum.
        margin: The least improvement that counts, in standard deviations of the values on the
            model's scale (`gpbo.units`). Without a margin the best point is evaluated again and
            again, once its neighbourhood has nothing more to give.
        incumbent: What is to be improved on, for each draw of the hyperparameters: ``"mean"``, the
            least posterior mean at the results, ``"observed"``, the least result, or ``"sampled"``,
            the least of a sample of what the results would be without noise; fantasies of pending
            points included. With ``"sampled"`` all that is known are these samples, and a result
            that was lucky is no reason to try its place again (Letham, Karrer, Ottoni and Bakshy
            2019, "Constrained Bayesian optimization with noisy experiments", Bayesian Analysis 14).
            Trials that refine improve on the mean all the same, and so do draws with next to no
            noise, a standard deviation below 0.02 on the model's scale. A single draw, as with
            ``inference="map"``, has sixteen samples. They differ by what a draw takes for noise.
            Where that is not noise but ripples too fine for the model, which a run without noise
            may hit again, ``"observed"`` asks for more and takes longer steps. Where the values of
            some parameters are fixed it is the least posterior mean there, with ``"sampled"`` that
            given the sample.
        repeats: Whether a configuration may be proposed again that was tried, unless it failed: for
            a noisy objective on a finite space. A finite space is then never used up.
        refine: Every so many trials the margin is 1e-5 at most, 0 for never: the best minimum found
            is refined further, while the other trials, which leave it when less than the margin is
            to be gained, look elsewhere. Where values are fixed it is as many trials, at no fixed
            beat, so that tasks that take turns have some each.

    Raises:
        InvalidOption: ``margin`` is negative or not finite, ``incumbent`` none of the above,
            ``repeats`` neither True nor False, ``refine`` no whole number, 0 or more, or ``search``
            no `Search`.
    """

    margin: float = 3e-3
    incumbent: Incumbent = "sampled"
    name = "ei"
    _acquisition = LogExpectedImprovement


@dataclass(frozen=True)
class ProbabilityOfImprovement(_Improvement):
    """The point that is most probably better than the incumbent; greedier than `"ei"`.

    Args:
        search: How hard to search the acquisition's maximum.
        margin: As in `ExpectedImprovement`; more is needed here, where a small improvement counts
            as much as a large one (Jones 2001, "A taxonomy of global optimization methods based
            on response surfaces", J. Glob. Optim. 21).
        incumbent: As in `ExpectedImprovement`, but ``"mean"`` unless another is asked for.
        repeats: As in `ExpectedImprovement`.
        refine: As in `ExpectedImprovement`.

    Raises:
        InvalidOption: ``margin`` is negative or not finite, ``incumbent`` none of the above,
            ``repeats`` neither True nor False, ``refine`` no whole number, 0 or more, or ``search``
            no `Search`.
    """

    margin: float = 0.03
    name = "pi"
    _acquisition = LogProbabilityOfImprovement


@dataclass(frozen=True)
class CustomAcquisition(_Maximiser):
    """The point where an acquisition function of your own is greatest.

    ``acquisition`` takes a `gpbo.surrogate.Surrogate`, of ``r`` runs with ``s`` draws of the
    hyperparameters each, and gives a function of points ``[r,b,d]`` of the unit cube with a value
    ``[r,b]`` for each. The value of a point must depend on that point and its run alone, by
    operations that autograd differentiates; NaN is worse than any value (where there is nothing
    else, a warning is logged, and a point of a Sobol sequence proposed). The surrogate has means
    and variances (``surrogate.moments``, ``[r,s,b]`` each) on a scale on which results are
    standardised and less is better; it knows pending points by one fantasy for each draw, and
    where trials failed is certain of what it expects. In a slice of the space, where some values
    are fixed, only results in it count for ``surrogate.incumbent``.

    Where trials failed, or there are constraints, the log of the chance that a point gives a value
    that may be the best is added, as to the logarithm of an improvement; while no result meets the
    constraints, that chance alone is maximised.

    Args:
        name: What the origin of its trials says.
        acquisition: What is to be maximised.
        search: How hard to search its maximum.
        repeats: As in `ExpectedImprovement`.

    Raises:
        InvalidOption: ``name`` is no text or empty, ``acquisition`` cannot be called, ``search`` is
            no `Search`, or ``repeats`` neither True nor False. When points are proposed: the values
            are no floats ``[r,b]``, or do not depend on the points as autograd sees it.
    """

    name: str
    acquisition: Callable[[Surrogate], Callable[[Float[Tensor, "r b d"]], Float[Tensor, "r b"]]]
    search: Search = field(default_factory=Search)
    repeats: bool = False
    _any_scale: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidOption(f"name={self.name!r}: expected a text")
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
    """The minimum of a function drawn from the posterior, another function for each point.

    Thompson (1933, Biometrika 25); in parallel, synchronous or not, Kandasamy et al. (2018,
    "Parallelised Bayesian optimisation via Thompson sampling", AISTATS). Each function has its
    draw of the hyperparameters, in turn. Pending points are not proposed again, but are otherwise
    ignored: the spread of the functions keeps the points of a batch apart.

    By default three functions in four are searched in boxes around the best point, and one in the
    whole cube (`NestedBoxes`): with few results, away from the data, functions differ so much that
    their minima over the cube are nearly random. A function that finds nothing new in its box is
    searched around the best points of other basins. Where there are constraints, functions of what
    they limit are drawn too, and a function's minimum is the least where these are met.

    The search sums in single precision: `torch.set_float32_matmul_precision` of the program applies
    to it, and below ``"highest"`` may move a point by a thousandth of the cube.

    Args:
        search: How hard to search every function's minimum; by default hard enough to find nearly
            all of them, which in the whole cube takes more the more dimensions there are. Its
            ``perturbed`` counts only without a ``region``.
        features: How many cosines and sines, half of each, a function of the prior is made of; see
            `gpbo.paths`.
        hallucinate: Condition the functions on pending points, as if these had returned what was
            expected of them. Points of a batch are then chosen one after another.
        region: Where to search, `NestedBoxes` or a `TrustRegion`; None for the whole cube, as in
            the papers.
        repeats: As in `ExpectedImprovement`; functions of a batch may then have the same minimum.

    Raises:
        InvalidOption: ``region`` is none of these, ``features`` is no even number of 2 or more,
            ``hallucinate`` or ``repeats`` neither True nor False, or ``search`` no `Search`.
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
        """So many functions of every row of the surrogate; of a run it has as many as names."""
        # What the paths of a batch share must not depend on the trial, for a batch to be what
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
    """The next ``count`` functions in these boxes, in which so many points are screened."""
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
    """What finds nearly every function's own minimum, in a box or in the whole cube.

    In 6 dimensions 64 scouts find those of 99 functions in 100; in 20 of three in four, 512 of 95
    in 97, and 1024 of nearly all.
    """
    movable = int(space.movable.sum())
    scouts = 64 if confined else min(1024, max(64, round(movable**3 / 8)))
    raw = 1024 if confined else max(2048, 4 * scouts)
    return Search(raw=raw, perturbed=128, restarts=4, scouts=scouts)


#: The strategies that can be asked for by name.
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
    """The strategy of this name, with its defaults; an object that is a strategy as it is.

    Raises:
        InvalidOption: neither a known name nor a strategy.
    """
    if isinstance(strategy, str) and strategy in STRATEGIES:
        return STRATEGIES[strategy]()
    if isinstance(strategy, Strategy) and not isinstance(strategy, type):
        truth_value(f"{type(strategy).__name__}.uses_model", strategy.uses_model)
        if isinstance(strategy.name, str) and strategy.name:
            return strategy
        raise InvalidOption(f"{type(strategy).__name__}.name={strategy.name!r}: expected a text")
    if callable(getattr(strategy, "propose", None)) and not isinstance(strategy, type):
        lacking = [name for name in ("name", "uses_model") if not hasattr(strategy, name)]
        raise InvalidOption(f"strategy={strategy!r} has no {' and no '.join(lacking)}")
    raise InvalidOption(
        f"strategy={strategy!r}: expected one of {', '.join(map(repr, STRATEGIES))}, "
        "or an object such as ExpectedImprovement()"
    )


def _chances(situation: Situation, *, ahead: bool) -> tuple[Utility | None, Limits | None]:
    """The log of the chance that a point gives a value, and the models of what is limited.

    Args:
        ahead: Once what is pending will have ended as is to be expected.
    """
    data, limits = situation.data, situation.limits()
    success = log_chance(data, situation.failed, situation.failed_mask, ahead=ahead)
    return success, limits.ahead(data) if ahead and limits is not None else limits


def _eligible_within(surrogate: Surrogate, space: Space, chance: Utility | None) -> Surrogate:
    """The surrogate, its ``eligible`` results those of this slice of the space.

    A result outside the slice stands for the point that it is moved to, and is eligible if a trial
    there would likely have a value and meet the constraints. Without a slice nothing changes.
    """
    if chance is None or not is_slice(space):
        return surrogate
    moved = surrogate.mask & likely_at(chance, space.snap(surrogate.x))
    eligible = torch.where(lie_within(space, surrogate.x), surrogate.eligible, moved)
    return replace(surrogate, eligible=eligible)


def _best_points(surrogate: Surrogate, data: Observations, space: Space) -> Float[Tensor, "r j d"]:
    """Observed points from which to search, the best first, ``j = 5`` of each run.

    Those that are eligible come first, by the posterior mean there; in a slice of the space, by
    the mean at the point of the slice that each is moved to. The others follow.
    """
    expected = expected_within(surrogate, space)[:, : data.x.shape[1]]  # pending points may follow
    finite = expected.clamp(max=torch.finfo(expected.dtype).max)
    order = finite.masked_fill(~data.mask, torch.inf).argsort(dim=-1, stable=True)
    # A run with fewer results repeats its best ones instead of offering padding.
    places = torch.arange(_BEST, device=order.device) % data.counts[:, None]
    order = order.gather(1, places)
    return data.x.take_along_dim(order.unsqueeze(-1), 1)

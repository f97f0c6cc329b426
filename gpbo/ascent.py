"""Maximise many smooth functions in boxes at once: projected L-BFGS with one state per row.

Every row of a batch climbs on its own: it has its own history, its own step length and its own
end, and a row that meets a NaN does not affect the others. An iteration evaluates the objective
once, for all rows together, and each row acts on its own value: a row whose trial point is good
enough moves and computes a new direction, a row whose trial point is not shortens its step. So no
row waits for another's line search, the shapes never change, and nothing in an iteration waits for
the device.

Method. The bounds are treated by two-metric projection (Bertsekas 1982, "Projected Newton methods
for optimization problems with simple constraints", SIAM J. Control Optim. 20): coordinates at a
bound that the gradient pushes outwards follow the gradient, the free ones a quasi-Newton
direction, and the trial point is projected. The inverse Hessian is L-BFGS in compact form (Byrd,
Nocedal and Schnabel 1994, "Representations of quasi-Newton matrices", Math. Program. 63, equation
2.6), which takes a fixed handful of batched products where the two-loop recursion takes several
operations for each pair remembered.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gpbo.graphs import replayed
from gpbo.rows import selected

#: Maps points ``[k, d]`` to the values ``[k]`` to maximise and their gradients ``[k, d]``, row by
#: row. It is called without gradient tracking. A row that cannot be evaluated is NaN or -inf.
Objective: TypeAlias = Callable[
    [Float[Tensor, "k d"]], tuple[Float[Tensor, " k"], Float[Tensor, "k d"]]
]

Bound: TypeAlias = Float[Tensor, "k d"] | Float[Tensor, " d"] | float

# Sufficient increase: the fraction of the gain promised by the gradient (Nocedal and Wright 2006,
# Numerical Optimization, section 3.1).
_ARMIJO = 1e-4
# A rejected step is multiplied by something in this range (ibid., section 3.5).
_SHRINK = (0.1, 0.5)
# Length of a row's first step, when nothing is known about the curvature. A tenth of the unit
# cube: a restart should climb the hill that it was chosen for.
_FIRST_STEP = 0.1
# A pair is remembered if ``s.y`` is more than this fraction of the least gain asked for, and used
# if its restriction to the free coordinates keeps this much of its curvature.
_LEAST_CURVATURE = 1e-4
_LEAST_RESTRICTED = 1e-8
# After how many iterations the host looks at which rows have ended.
_LOOK_EVERY = 4
# A row ends when it is this many times its promise behind the best row of its run.
_REACH = 100.0


@dataclass(frozen=True)
class Ascent:
    """What the ascent reached, row by row.

    Attributes:
        x: the best point of each row; inside its box and never worse than the start.
        value: the objective there; NaN only if the start itself could not be evaluated.
        gradient_norm: largest component of the projected gradient, in the objective's units
            per unit of ``x``; 0 at a solution.
        converged: the row ended because nothing was left to gain.
        iterations: iterations made, which is also the number of steps that the slowest row tried.
            Each evaluated the objective once, for all remaining rows together, as did the start.
    """

    x: Float[Tensor, "k d"]
    value: Float[Tensor, " k"]
    gradient_norm: Float[Tensor, " k"]
    converged: Bool[Tensor, " k"]
    iterations: int


@dataclass(frozen=True)
class _Box:
    lower: Float[Tensor, "k d"]
    upper: Float[Tensor, "k d"]
    pinned: Bool[Tensor, "k d"]


@dataclass(frozen=True)
class _State:
    """The state of every row, in terms of the cost: the negative of the objective."""

    point: Float[Tensor, "k 2 d"]  # x and the gradient of the cost there
    cost: Float[Tensor, " k"]
    pairs: Float[Tensor, "k 2 h d"]  # steps s and changes of gradient y with s.y = 1, newest last
    scale: Float[Tensor, " k"]  # inverse curvature of the newest pair; 0: none known
    step: Float[Tensor, " k"]  # of the trial, in units of the direction
    trial: Float[Tensor, "k d"]  # the next point to evaluate
    slope: Float[Tensor, " k"]  # gain of the trial if the objective were linear
    promise: Float[Tensor, " k"]  # the last gain, or that of a whole step; inf: none known yet
    gradient_norm: Float[Tensor, " k"]
    converged: Bool[Tensor, " k"]
    alive: Bool[Tensor, " k"]


@torch.no_grad()
def maximize(
    objective: Objective,
    start: Float[Tensor, "k d"],
    lower: Bound,
    upper: Bound,
    *,
    iterations: int = 100,
    history: int = 10,
    tolerance: float = 1e-6,
    gain_tolerance: float = 1e-10,
    runs: int | None = None,
) -> Ascent:
    """Climb from every start to a local maximum of its row in the box.

    Args:
        objective: values and gradients; see `Objective`.
        start: where each row begins; projected into the box.
        lower: lower bounds, ``-inf`` for none; where ``lower == upper`` the coordinate is pinned.
        upper: upper bounds, ``inf`` for none.
        iterations: at most this many, each one evaluation of all rows.
        history: pairs that each row remembers.
        tolerance: a row has converged when no component of its projected gradient is larger.
        gain_tolerance: or when both its last gain and the next one promised by the quadratic
            model are at most this, relative to ``max(1, |value|)``.
        runs: the number of runs, where the rows are ``runs x b``, run by run, only the best row of
            a run is wanted, and the objective takes any ``b``: rows that cannot be expected to
            catch up then end, and rows that ended are dropped where that saves time. By default
            every row is a run.
    """
    runs = len(start) if runs is None else runs
    box = _box(start, lower, upper)
    state = _begin(objective, start, box, history, tolerance)
    result, rows = state, torch.arange(start.shape[0], device=start.device)
    leader = start.new_full((runs,), torch.inf)
    done = 0
    with replayed(_iterate, start.device) as iterate:
        while done < iterations:
            if done % _LOOK_EVERY == 0:
                state, leader = _without_stragglers(state, leader, runs)
                if not bool(state.alive.any()):
                    break
                if iterate is _iterate:
                    result, state, box, rows = _drop_ended(result, state, box, rows, runs)
            state, _ = iterate(state, objective, box, tolerance, gain_tolerance)
            done += 1
        result = _put(result, state, rows)
    x, norm = result.point[:, 0], result.gradient_norm
    return Ascent(x, -result.cost, norm, result.converged, iterations=done)


def _box(start: Float[Tensor, "k d"], lower: Bound, upper: Bound) -> _Box:
    low, high = (
        torch.as_tensor(bound, dtype=start.dtype, device=start.device).expand_as(start)
        for bound in (lower, upper)
    )
    return _Box(low, high, low >= high)


def _begin(
    objective: Objective,
    start: Float[Tensor, "k d"],
    box: _Box,
    history: int,
    tolerance: float,
) -> _State:
    k, d = start.shape
    cost, point = _evaluate(objective, start.clamp(box.lower, box.upper), box)
    pairs = start.new_zeros(k, 2, history, d)
    scale, step = start.new_zeros(k), start.new_ones(k)
    trial, slope, norm = _next_trial(point, pairs, scale, step, box)
    converged = norm <= tolerance
    # A row that starts without a value or a gradient cannot go anywhere.
    alive = torch.isfinite(cost + point.sum((1, 2))) & ~converged
    promise = torch.full_like(cost, torch.inf)
    return _State(point, cost, pairs, scale, step, trial, slope, promise, norm, converged, alive)


def _evaluate(
    objective: Objective, x: Float[Tensor, "k d"], box: _Box
) -> tuple[Float[Tensor, " k"], Float[Tensor, "k 2 d"]]:
    value, gradient = objective(x)
    return -value, torch.stack([x, gradient.neg().masked_fill_(box.pinned, 0.0)], dim=1)


def _iterate(
    state: _State, objective: Objective, box: _Box, tolerance: float, gain_tolerance: float
) -> tuple[_State, None]:
    """The state after another evaluation."""
    cost, point = _evaluate(objective, state.trial, box)
    # The term has weight 0: it only carries a NaN or an infinity from the gradient to the gain.
    gain = torch.add(state.cost - cost, point[:, 1].sum(-1), alpha=0.0)
    gain = gain.nan_to_num(nan=-torch.inf, posinf=-torch.inf)
    asked = (_ARMIJO * state.slope).clamp(min=torch.finfo(gain.dtype).tiny)
    accept = (gain >= asked) & state.alive
    pairs, scale = _remember(state, point, accept, asked)

    point = torch.where(accept.view(-1, 1, 1), point, state.point)
    cost = torch.where(accept, cost, state.cost)
    # While no curvature is known the steps grow; after that, 1 is the quasi-Newton step. A rejected
    # step shrinks to the top of the parabola through the value, the slope and the rejected value.
    known = scale > 0
    longer = torch.where(known, 1.0, 2.0 * state.step)
    top = (0.5 * state.slope / (state.slope - gain)).clamp(*_SHRINK)
    tried = torch.where(accept, longer, state.step)
    step = torch.where(accept, tried, tried * top)
    trial, slope, norm = _next_trial(point, pairs, scale, step, box)

    least = gain_tolerance * cost.abs().clamp(min=1.0)
    exhausted = torch.maximum(slope.abs(), gain) <= least
    reached = (norm <= tolerance) | (exhausted & (tried >= 1))
    # The line search found nothing: forget the curvature, which only the next trial still uses; if
    # there is none, give up.
    failed = exhausted & (tried < 1)
    restart = failed & known
    pairs = pairs.masked_fill(restart.view(-1, 1, 1, 1), 0.0)
    scale = scale.masked_fill(restart, 0.0)
    step = step.masked_fill(restart, 1.0)
    converged = state.converged | (reached & state.alive)
    alive = state.alive & ~(reached | (failed ^ restart))
    promise = torch.maximum(slope / step, torch.where(accept, gain, 0.0))
    promise = torch.where(scale > 0, promise, torch.inf)
    after = _State(point, cost, pairs, scale, step, trial, slope, promise, norm, converged, alive)
    return after, None


def _remember(
    state: _State,
    point: Float[Tensor, "k 2 d"],
    accept: Bool[Tensor, " k"],
    asked: Float[Tensor, " k"],
) -> tuple[Float[Tensor, "k 2 h d"], Float[Tensor, " k"]]:
    """Append the pair of an accepted step, where the curvature along it is positive."""
    pair = point - state.point
    curvature = (pair[:, 0] * pair[:, 1]).sum(-1)
    keep = accept & (curvature > _LEAST_CURVATURE * asked)
    change = pair[:, 1]
    scale = torch.where(keep, curvature / (change * change).sum(-1), state.scale)
    pair = pair * curvature.rsqrt().view(-1, 1, 1)
    appended = torch.cat([state.pairs[:, :, 1:], pair.unsqueeze(2)], dim=2)
    return torch.where(keep.view(-1, 1, 1, 1), appended, state.pairs), scale


def _next_trial(
    point: Float[Tensor, "k 2 d"],
    pairs: Float[Tensor, "k 2 h d"],
    scale: Float[Tensor, " k"],
    step: Float[Tensor, " k"],
    box: _Box,
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"], Float[Tensor, " k"]]:
    """The next point to try, its gain by the linear model, the norm of the projected gradient."""
    x, gradient = point.unbind(1)
    projected = ((x - gradient).clamp(box.lower, box.upper) - x).abs()
    norm = projected.amax(-1)
    # Bound coordinates are those where the box leaves nothing of the gradient step. (Bertsekas adds
    # those close to that, to prevent jamming; here a jammed row restarts along the gradient, and on
    # random quadratics a margin made no difference.)
    free = (projected > 0).to(x.dtype)
    first = (_FIRST_STEP / (gradient.abs() * free).amax(-1)).clamp(max=1.0)
    scale = torch.where(scale > 0, scale, first).unsqueeze(-1)
    direction = _quasi_newton(pairs, gradient, free, scale)
    trial = torch.addcmul(x, step.unsqueeze(-1), direction, value=-1.0).clamp(box.lower, box.upper)
    return trial, (gradient * (x - trial)).sum(-1), norm


def _quasi_newton(
    pairs: Float[Tensor, "k 2 h d"],
    gradient: Float[Tensor, "k d"],
    free: Float[Tensor, "k d"],
    scale: Float[Tensor, "k 1"],
) -> Float[Tensor, "k d"]:
    """The gradient times the L-BFGS inverse Hessian, in free coordinates; scaled, in bound ones.

    The pairs are restricted to the free coordinates and rescaled to ``s.y = 1``, which leaves the
    matrix as it is and makes the triangle ``R`` of the products ``s.y`` unit triangular. Pairs
    without positive curvature there, and those not filled yet, become zero and drop out.
    """
    k, _, h, d = pairs.shape
    pairs = pairs * free.view(k, 1, 1, d)
    curvature = (pairs[:, 0] * pairs[:, 1]).sum(-1)
    unit = torch.where(curvature > _LEAST_RESTRICTED, curvature, torch.inf).rsqrt()
    pairs = pairs * unit.view(k, 1, h, 1)
    steps, changes = pairs.unbind(1)

    along = (pairs * gradient.view(k, 1, 1, d)).sum(-1, keepdim=True)  # s.g and y.g
    products = torch.bmm(pairs.view(k, 2 * h, d), changes.mT)
    triangle, squares = products[:, :h], products[:, h:]  # of s.y only R is read below
    weights = torch.linalg.solve_triangular(triangle, along[:, 0], upper=True, unitriangular=True)
    scale = scale.unsqueeze(-1)
    right = weights + scale * (torch.bmm(squares, weights) - along[:, 1])
    outer = torch.linalg.solve_triangular(triangle.mT, right, upper=False, unitriangular=True)
    result = scale.squeeze(-1) * (gradient - (changes * weights).sum(1))
    return result + (steps * outer).sum(1)


def _without_stragglers(
    state: _State, leader: Float[Tensor, " r"], runs: int
) -> tuple[_State, Float[Tensor, " r"]]:
    """The state without rows that cannot become the best of their run; each run's best cost."""
    cost = state.cost.view(runs, -1)
    leader = torch.minimum(leader, cost.nan_to_num(nan=torch.inf).amin(-1))
    reach = cost - _REACH * state.promise.view(runs, -1)
    hopeless = (reach > leader.unsqueeze(-1)).flatten()
    return dataclasses.replace(state, alive=state.alive & ~hopeless), leader


def _drop_ended(
    result: _State, state: _State, box: _Box, rows: Int[Tensor, " j"], runs: int
) -> tuple[_State, _State, _Box, Int[Tensor, " i"]]:
    """Keep as many rows of each run as the run with the most unfinished ones has."""
    alive = state.alive.view(runs, -1)
    width = int(alive.sum(-1).max())
    if width == alive.shape[1]:
        return result, state, box, rows
    result = _put(result, state, rows)
    order = alive.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :width]
    first = alive.shape[1] * torch.arange(runs, device=rows.device).unsqueeze(-1)
    kept = (order + first).flatten()
    return result, selected(state, kept), selected(box, kept), rows[kept]


def _put(result: _State, state: _State, rows: Int[Tensor, " j"]) -> _State:
    """The result, with the rows that the state still holds taken from the state."""
    fields = ("point", "cost", "gradient_norm", "converged")
    changed = {
        name: getattr(result, name).index_copy(0, rows, getattr(state, name)) for name in fields
    }
    return dataclasses.replace(result, **changed)

"""Where the time of a warm posterior update goes, by the purpose of the operations.

The subcommand ``profile`` of `speed`, on a CPU: there an operation's time is that of its call,
while on a GPU the call returns long before the operation ends.
"""

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gpbo.parallel import threads

from .throughput import updating

#: Torch's operators by purpose; all others are elementwise or move data.
_PARTS = {
    "factors": ("linalg_cholesky_ex",),
    "inverses": ("cholesky_inverse",),
    "products": ("bmm", "baddbmm", "mm", "addmm"),
    "kernel": ("sqrt_", "exp_", "addcmul"),
}


@threads(1)
def shares(runs: int, n: int, dim: int, repeats: int) -> dict[str, Any]:
    """Shares of the time of warm updates; what is not a torch operation is Python between them.

    Measured on one thread, as the profiler does not see the others.
    """
    _, _, update = updating(runs, n, dim, torch.device("cpu"))
    update(repeats)  # the first one of a process pays for loading
    wall_s, steps = 0.0, 0.0
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for index in range(repeats):
            report = update(index).report
            wall_s += report.seconds
            steps += float(report.leapfrog_steps.mean())
    own_s = {event.key: event.self_cpu_time_total / 1e6 for event in profiled.key_averages()}
    parts = {
        part: sum(own_s.get(f"aten::{name}", 0.0) for name in names)
        for part, names in _PARTS.items()
    }
    inside = sum(own_s.values())
    parts |= {"other": inside - sum(parts.values()), "python": max(wall_s - inside, 0.0)}
    row = {"runs": runs, "n": n, "d": dim, "seconds": wall_s / repeats, "steps": steps / repeats}
    return row | {part: seconds / wall_s for part, seconds in parts.items()}

"""A whole sampling of a posterior with every shape annotation checked."""

import subprocess
import sys

SCRIPT = """
from jaxtyping import install_import_hook
install_import_hook("gpbo", "beartype.beartype")
from gpbo.backend import Streams
from gpbo.data import Observations
from gpbo.fitting import Sampling, fit

x = Streams.named(0, "x", runs=2).uniform(7, 3)
sampling = Sampling(chains=5, warmup=8, draws=4, warm_draws=4, kept=5)
streams = Streams.named(1, "fit", runs=2)
print(fit(Observations.of(x, x.sum(-1)), sampling=sampling, streams=streams).surrogate.draws)
"""


def test_every_shape_is_as_annotated() -> None:
    command = [sys.executable, "-c", SCRIPT]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "5", ran.stderr

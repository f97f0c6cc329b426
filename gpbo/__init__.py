"""Fully Bayesian optimization, batched: a run is a row.

Notation in every docstring and shape annotation, leading axes first:

    r  independent runs                  n  observations (padded to the longest run)
    c  chains of a run                   m  pending points
    k  = r * c, all chains; constraints  d  dimensions of the unit cube
    s  hyperparameter draws kept         p  unconstrained hyperparameters
    t  transitions or trials             b  points scored, restarts of an ascent
    q  points per ask                    f  random features; failed trials

for example ``x[r,n,d]``, ``y[r,n]``, ``theta[r,s,p]`` and ``candidates[r,q,d]``.
Inside the engine everything is minimised; a trial's value keeps the user's sign.

Modules beyond the names listed here. Jobs: `gpbo.tuner`, `gpbo.completion`, `gpbo.worker`,
`gpbo.callbacks`, `gpbo.storage`, `gpbo.record` (what a storage keeps), `gpbo.job` (a job in a
file), `gpbo.options` (its strategy and model) and `gpbo.transfer` (warm starts). Models:
`gpbo.hyperparameters`, `gpbo.priors`, `gpbo.fitting`, `gpbo.surrogate`, `gpbo.posterior` and
`gpbo.units`. To write a strategy: `gpbo.situation`, `gpbo.candidates`, `gpbo.acquisition`,
`gpbo.data` and `gpbo.backend`. Also `gpbo.simulation` (workers on a simulated clock),
`gpbo.integrations.optuna` and `gpbo.integrations.tensorboard`.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # A type checker knows only the modules that something imports; nothing else imports these.
    import gpbo.integrations.mlflow
    import gpbo.integrations.optuna
    import gpbo.integrations.ray
    import gpbo.integrations.tensorboard
    import gpbo.job
    import gpbo.simulation  # noqa: F401
    from gpbo import errors, plots, problems
    from gpbo.fitting import FitReport, Model
    from gpbo.hyperparameters import HyperparameterPrior
    from gpbo.inference import HyperparameterDraws, sample_hyperparameters
    from gpbo.lockstep import replicate
    from gpbo.loop import minimize, run
    from gpbo.optimizer import Optimizer
    from gpbo.replications import Replications
    from gpbo.result import Result
    from gpbo.space import Categorical, Integer, Ordinal, Real, Space
    from gpbo.strategies import (
        CustomAcquisition,
        ExpectedImprovement,
        GridSearch,
        ProbabilityOfImprovement,
        RandomSearch,
        SobolSearch,
        ThompsonSampling,
    )
    from gpbo.trial import Trial, TrialStatus
    from gpbo.trust_region import NestedBoxes, TrustRegion
    from gpbo.tuner import Tuner

__version__ = "0.1.0"

__all__ = [
    "Categorical",
    "CustomAcquisition",
    "ExpectedImprovement",
    "FitReport",
    "GridSearch",
    "HyperparameterDraws",
    "HyperparameterPrior",
    "Integer",
    "Model",
    "NestedBoxes",
    "Optimizer",
    "Ordinal",
    "ProbabilityOfImprovement",
    "RandomSearch",
    "Real",
    "Replications",
    "Result",
    "SobolSearch",
    "Space",
    "ThompsonSampling",
    "Trial",
    "TrialStatus",
    "TrustRegion",
    "Tuner",
    "errors",
    "minimize",
    "plots",
    "problems",
    "replicate",
    "run",
    "sample_hyperparameters",
]

# Names are imported on first use, so that `import gpbo` costs nothing: a command line, or a worker
# that evaluates trials, need not load torch.
_MODULES = {
    "gpbo.fitting": ("FitReport", "Model"),
    "gpbo.hyperparameters": ("HyperparameterPrior",),
    "gpbo.inference": ("HyperparameterDraws", "sample_hyperparameters"),
    "gpbo.lockstep": ("replicate",),
    "gpbo.loop": ("minimize", "run"),
    "gpbo.optimizer": ("Optimizer",),
    "gpbo.replications": ("Replications",),
    "gpbo.result": ("Result",),
    "gpbo.space": ("Categorical", "Integer", "Ordinal", "Real", "Space"),
    "gpbo.strategies": (
        "CustomAcquisition",
        "ExpectedImprovement",
        "GridSearch",
        "ProbabilityOfImprovement",
        "RandomSearch",
        "SobolSearch",
        "ThompsonSampling",
    ),
    "gpbo.trial": ("Trial", "TrialStatus"),
    "gpbo.trust_region": ("NestedBoxes", "TrustRegion"),
    "gpbo.tuner": ("Tuner",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # so that a type checker, which sees the imports above, finds wrong names

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            value = getattr(import_module(_HOME[name]), name)
        elif not name.startswith("_") and find_spec(f"gpbo.{name}") is not None:
            value = import_module(f"gpbo.{name}")
        else:
            raise AttributeError(f"module 'gpbo' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

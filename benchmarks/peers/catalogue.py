"""The peers, and the facts about each."""

from collections.abc import Mapping
from types import MappingProxyType

from .peer import Peer

_BOTORCH = ("botorch", "gpytorch", "linear_operator", "torch", "numpy", "scipy")
_FULLY_BAYESIAN = (*_BOTORCH, "numpyro", "jax", "jaxlib")
_BOTORCH_PAPER = (
    "Balandat et al., BoTorch: A Framework for Efficient Monte-Carlo Bayesian Optimization, "
    "NeurIPS 2020"
)
_LOG_EI_PAPERS = (
    f"{_BOTORCH_PAPER}; Ament et al., Unexpected Improvements to Expected Improvement for Bayesian "
    "Optimization, NeurIPS 2023"
)
_SAAS_PAPER = (
    "Eriksson, Jankowiak, High-Dimensional Bayesian Optimization with Sparse Axis-Aligned "
    "Subspaces, UAI 2021"
)
_OPTUNA_PAPER = (
    "Akiba et al., Optuna: A Next-generation Hyperparameter Optimization Framework, KDD 2019"
)
_SMAC_PAPER = (
    "Lindauer et al., SMAC3: A Versatile Bayesian Optimization Package for Hyperparameter "
    "Optimization, JMLR 23, 2022"
)
_MIT = "MIT"
_BSD = "BSD 3-clause"

_ALL = (
    Peer(
        name="botorch-ei",
        title="BoTorch log EI, MAP",
        adapter="botorch.py:LogEi",
        environment="botorch",
        distributions=_BOTORCH,
        extra="peer-botorch",
        citation=_LOG_EI_PAPERS,
        licence=_MIT,
        settings="SingleTaskGP, fit_gpytorch_mll, LogExpectedImprovement, 10 restarts of 512 raw "
        "samples; MixedSingleTaskGP and optimize_acqf_mixed_alternating where not all are real; "
        "with constraints a model of each and LogConstrainedExpectedImprovement; "
        "in batches qLogExpectedImprovement, one point after another",
        constraints=True,
        batches=True,
    ),
    Peer(
        name="botorch-nei",
        title="BoTorch log noisy EI, MAP",
        adapter="botorch.py:LogNei",
        environment="botorch",
        distributions=_BOTORCH,
        extra="peer-botorch",
        citation=_LOG_EI_PAPERS,
        licence=_MIT,
        settings="qLogNoisyExpectedImprovement at its defaults, over all evaluated points; the "
        "rest as botorch-ei",
        batches=True,
    ),
    Peer(
        name="botorch-nuts",
        title="BoTorch log EI, fully Bayesian",
        adapter="botorch.py:Matern",
        environment="botorch",
        distributions=_FULLY_BAYESIAN,
        needs=("botorch", "numpyro"),
        extra="peer-botorch",
        citation=_BOTORCH_PAPER,
        licence=_MIT,
        settings="FullyBayesianSingleTaskGP, fit_fully_bayesian_model_nuts at its defaults, "
        "qLogExpectedImprovement, 10 restarts of 1024 raw samples; categoricals one-hot; "
        "in batches one point after another",
        batches=True,
    ),
    Peer(
        name="botorch-saas",
        title="BoTorch log EI, SAAS",
        adapter="botorch.py:Saas",
        environment="botorch",
        distributions=_FULLY_BAYESIAN,
        needs=("botorch", "numpyro"),
        extra="peer-botorch",
        citation=_SAAS_PAPER,
        licence=_MIT,
        settings="SaasFullyBayesianSingleTaskGP, the rest as botorch-nuts",
        batches=True,
    ),
    Peer(
        name="trust-region",
        title="trust region, Thompson",
        adapter="trust_region.py:TrustRegion",
        environment="botorch",
        distributions=_BOTORCH,
        extra="peer-botorch",
        citation="Eriksson et al., Scalable Global Optimization via Local Bayesian Optimization, "
        "NeurIPS 2019",
        licence="our own implementation of the paper; the authors' code, which is not for "
        "commercial use, was not used",
        settings="one trust region, one point at a time, at least four failures before it halves; "
        "integers and ordinals rounded, categoricals one-hot",
    ),
    Peer(
        name="ax",
        title="Ax",
        adapter="ax.py:Fast",
        environment="ax",
        distributions=("ax-platform", *_BOTORCH),
        extra="peer-ax",
        citation="Olson et al., Ax: A Platform for Adaptive Experimentation, AutoML 2025",
        licence=_MIT,
        settings="Client, method 'fast'; the design replaces its centre and Sobol points",
        constraints=True,
        batches=True,
    ),
    Peer(
        name="optuna-gp",
        title="Optuna GP",
        adapter="optuna.py:GaussianProcess",
        environment="optuna",
        distributions=("optuna", "torch", "scipy", "numpy"),
        extra="peer-optuna",
        citation=_OPTUNA_PAPER,
        licence=_MIT,
        settings="GPSampler; the design replaces its 10 random trials; ordinals as integers",
        constraints=True,
        batches=True,
    ),
    Peer(
        name="optuna-tpe",
        title="Optuna TPE",
        adapter="optuna.py:Parzen",
        environment="optuna",
        distributions=("optuna", "scipy", "numpy"),
        extra="peer-optuna",
        citation=f"{_OPTUNA_PAPER}; Bergstra et al., Algorithms for Hyper-Parameter Optimization, "
        "NeurIPS 2011",
        licence=_MIT,
        settings="TPESampler; the design replaces its 10 random trials; ordinals as integers",
        constraints=True,
        batches=True,
    ),
    Peer(
        name="smac-gp",
        title="SMAC3 black box",
        adapter="smac.py:BlackBox",
        environment="smac",
        distributions=("smac", "ConfigSpace", "scikit-learn", "emcee", "numpy", "scipy"),
        extra="peer-smac",
        citation=_SMAC_PAPER,
        licence=_BSD,
        settings="BlackBoxFacade, deterministic, every configuration called once; the design "
        "replaces its Sobol points",
    ),
    Peer(
        name="smac-rf",
        title="SMAC3 forest",
        adapter="smac.py:Forest",
        environment="smac",
        distributions=("smac", "ConfigSpace", "scikit-learn", "numpy", "scipy"),
        extra="peer-smac",
        citation=_SMAC_PAPER,
        licence=_BSD,
        settings="HyperparameterOptimizationFacade, the rest as smac-gp",
    ),
    Peer(
        name="hebo",
        title="HEBO",
        adapter="hebo.py:Hebo",
        environment="hebo",
        distributions=("HEBO", "pymoo", "gpytorch", "torch", "numpy", "pandas"),
        not_beside_gpbo="it requires numpy < 1.25 and pymoo == 0.6.0, which nothing else here "
        "works with, so it is installed without its own requirements",
        citation="Cowen-Rivers et al., HEBO: Pushing the Limits of Sample-Efficient "
        "Hyper-parameter Optimisation, JAIR 74, 2022",
        licence=_MIT,
        settings="HEBO with its GP and MACE; the design replaces its Sobol points; ordinals as "
        "integers; runs of the same seed differ",
        batches=True,
    ),
    Peer(
        name="skopt",
        title="scikit-optimize",
        adapter="skopt.py:GaussianProcess",
        environment="skopt",
        distributions=("scikit-optimize", "scikit-learn", "numpy", "scipy"),
        extra="peer-skopt",
        citation="Head et al., scikit-optimize, Zenodo, doi:10.5281/zenodo.1157319",
        licence=_BSD,
        settings="as gp_minimize sets it up; the design replaces its random points; ordinals as "
        "integers; batches by its default, the constant liar",
        batches=True,
    ),
    Peer(
        name="cmaes",
        title="CMA-ES",
        adapter="cmaes.py:CmaEs",
        environment="cmaes",
        distributions=("cmaes", "numpy"),
        extra="peer-cmaes",
        citation="Hansen, Ostermeier, Completely Derandomized Self-Adaptation in Evolution "
        "Strategies, Evolutionary Computation 9, 2001; Nomura, Shibata, cmaes, arXiv:2402.01373",
        licence=_MIT,
        settings="from the best point of the design, with a step size of 0.2 of the range; CatCMA "
        "with margin where not all parameters are real; restarts with twice the population",
    ),
)

#: By name.
PEERS: Mapping[str, Peer] = MappingProxyType({peer.name: peer for peer in _ALL})

"""Scikit-learn estimators to tune, cross-validated on the data sets that it ships.

The cross-validated loss is minimised, over five fixed folds: the problem is deterministic.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from gpbo.space import Categorical, Integer, Real, Space

from .trace import Params
from .tuning import TuningProblem

_CITATION = "Pedregosa et al. (2011), Scikit-learn, J. Mach. Learn. Res. 12; data: "
_FOLDS = 5


@dataclass(frozen=True)
class CrossValidation:
    """The loss of an estimator: the share of errors, the log loss or the root mean square error.

    Attributes:
        data: The name of a loader in `sklearn.datasets`.
        build: From a configuration to an estimator.
        scoring: What scikit-learn calls the score, which is larger for better estimators.
    """

    data: str
    build: Callable[[Mapping[str, Any]], Any]
    scoring: str

    def __call__(self, params: Params) -> float:
        """The mean loss of the folds; NaN where the estimator cannot be fitted."""
        from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score

        inputs, targets = _data(self.data)
        regression = self.scoring.startswith("neg_root")
        folds = (KFold if regression else StratifiedKFold)(_FOLDS, shuffle=True, random_state=0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scores = cross_val_score(
                    self.build(params),
                    inputs,
                    targets,
                    scoring=self.scoring,
                    cv=folds,
                    error_score="raise",
                )
        except (ValueError, ArithmeticError):
            return math.nan
        return (self.scoring == "accuracy") - float(scores.mean())


@cache
def _data(name: str) -> tuple[Any, Any]:
    import sklearn.datasets

    return getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)


def _problem(
    name: str,
    data: str,
    space: Space,
    build: Callable[[Mapping[str, Any]], Any],
    scoring: str = "neg_log_loss",
) -> TuningProblem:
    loss = CrossValidation(data, build, scoring)
    return TuningProblem.of(name, space, loss, citation=_CITATION + data)


def _scaled(estimator: Any) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), estimator)


def _svm(p: Mapping[str, Any]) -> Any:
    from sklearn.svm import SVC

    return _scaled(SVC(C=p["C"], gamma=p["gamma"], kernel=p["kernel"], degree=p["degree"]))


def _forest(p: Mapping[str, Any]) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(
        n_estimators=p["trees"],
        max_depth=p["depth"],
        min_samples_leaf=p["leaf"],
        max_features=p["features"],
        criterion=p["criterion"],
        random_state=0,
    )


def _boosting(p: Mapping[str, Any]) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        learning_rate=p["rate"],
        max_iter=p["iterations"],
        max_leaf_nodes=p["leaves"],
        l2_regularization=p["l2"],
        min_samples_leaf=p["leaf"],
        early_stopping=False,
        random_state=0,
    )


def _perceptron(p: Mapping[str, Any]) -> Any:
    from sklearn.neural_network import MLPClassifier

    return _scaled(
        MLPClassifier(
            hidden_layer_sizes=(p["width"],) * p["layers"],
            activation=p["activation"],
            alpha=p["alpha"],
            learning_rate_init=p["rate"],
            batch_size=p["batch"],
            max_iter=60,
            random_state=0,
        )
    )


def _logistic(p: Mapping[str, Any]) -> Any:
    from sklearn.linear_model import LogisticRegression

    return _scaled(
        LogisticRegression(
            C=p["C"],
            l1_ratio=p["l1"],
            solver="saga",
            class_weight=p["weights"],
            max_iter=300,
            random_state=0,
        )
    )


def _neighbours(p: Mapping[str, Any]) -> Any:
    from sklearn.neighbors import KNeighborsRegressor

    return _scaled(KNeighborsRegressor(p["k"], weights=p["weights"], p=p["power"]))


_ACTIVATIONS = ["relu", "tanh", "logistic"]

#: Each has a mixed space of 3 to 6 parameters.
TUNING: dict[str, TuningProblem] = {
    problem.name: problem
    for problem in (
        _problem(
            "svm-digits",
            "digits",
            Space(
                Real("C", 1e-3, 1e3, scale="log"),
                Real("gamma", 1e-6, 1e1, scale="log"),
                Categorical("kernel", ["rbf", "poly", "sigmoid"]),
                Integer("degree", 2, 5),
            ),
            _svm,
            "accuracy",
        ),
        _problem(
            "forest-wine",
            "wine",
            Space(
                Integer("trees", 5, 100, scale="log"),
                Integer("depth", 1, 20),
                Integer("leaf", 1, 20, scale="log"),
                Real("features", 0.05, 1.0),
                Categorical("criterion", ["gini", "entropy"]),
            ),
            _forest,
        ),
        _problem(
            "boosting-diabetes",
            "diabetes",
            Space(
                Real("rate", 1e-3, 1.0, scale="log"),
                Integer("iterations", 10, 200, scale="log"),
                Integer("leaves", 2, 64, scale="log"),
                Real("l2", 1e-6, 1e3, scale="log"),
                Integer("leaf", 1, 100, scale="log"),
            ),
            _boosting,
            "neg_root_mean_squared_error",
        ),
        _problem(
            "perceptron-breast-cancer",
            "breast_cancer",
            Space(
                Integer("width", 2, 64, scale="log"),
                Integer("layers", 1, 3),
                Categorical("activation", _ACTIVATIONS),
                Real("alpha", 1e-7, 1e1, scale="log"),
                Real("rate", 1e-4, 1e-1, scale="log"),
                Integer("batch", 16, 256, scale="log"),
            ),
            _perceptron,
        ),
        _problem(
            "logistic-breast-cancer",
            "breast_cancer",
            Space(
                Real("C", 1e-4, 1e4, scale="log"),
                Real("l1", 0.0, 1.0),
                Categorical("weights", [None, "balanced"]),
            ),
            _logistic,
        ),
        _problem(
            "neighbours-diabetes",
            "diabetes",
            Space(
                Integer("k", 1, 100, scale="log"),
                Categorical("weights", ["uniform", "distance"]),
                Real("power", 1.0, 5.0),
            ),
            _neighbours,
            "neg_root_mean_squared_error",
        ),
    )
}

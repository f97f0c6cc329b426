"""A tuning job on a real cluster of worker processes, one of which is killed in mid-trial."""

from pathlib import Path

import distributed
import pytest

from gpbo.optimizer import Optimizer
from gpbo.space import Real, Space
from gpbo.storage import SqliteStorage
from gpbo.tuner import Execution, Tuner
from tests import objectives


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_runs_the_trials_and_survives_the_loss_of_a_worker(tmp_path: Path) -> None:
    optimizer = Optimizer(Space(Real("x", 0, 1)), "sobol", storage=tmp_path / "r.db", name="job")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        result = Tuner(
            optimizer,
            objectives.kills_its_worker_once,
            budget=6,
            execution=Execution(workers=2),
            executor=client.get_executor(pure=False),
        ).run()
    assert (tmp_path / "r.db-trials" / "job" / "killed").exists()
    assert len(result.trials) == 6
    assert all(trial.value == trial.params["x"] for trial in result.trials)
    assert len(SqliteStorage(tmp_path / "r.db").read("job").attempts) == 6

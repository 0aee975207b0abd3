"""Runs in MLflow, by its client: an experiment a study."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.exports.series import Series
from sweeps.exports.server import check_answers, check_database, shown

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DATABASES = ("postgresql", "mysql", "mssql")
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
KEY, DIGEST = "meanflow_study.run", "meanflow_study.digest"
# Of a server that answered at first: 10 s in all, not a minute. Exporting again goes on where it stopped.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
MOST_METRICS, MOST_PARAMETERS, LONGEST = 1000, 100, 6000  # a request; of a parameter's value


def check_server(uri: str) -> None:
    """Look whether a tracking server is there, before its client is loaded, and bound how long that may try.

    Raises: StudyError where none answers, or one that is not MLflow's.
    """
    if uri.startswith(("http://", "https://")):
        check_answers(
            f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1", "MLflow", f"--to {shown(uri)}", b"{"
        )
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
    elif uri.startswith(DATABASES):  # it would be tried for an hour
        check_database(uri, f"--to {shown(uri)}")


def write(runs: Iterable[Series], uri: str) -> tuple[int, int]:
    """Log runs at a tracking URI. A run that has changed since the last export, or was interrupted then, is replaced.

    Returns: (runs written, runs left alone).
    """
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    written = same = 0
    for run in runs:
        experiment = _experiment(client, run.group)
        old = client.search_runs([experiment], f"tags.`{KEY}` = '{run.key}'")
        whole = [one.info.run_id for one in old if one.data.tags.get(DIGEST) == run.digest][:1]
        if not whole:
            _log(client, experiment, run)
        for one in old:
            if one.info.run_id not in whole:  # of then, or of an export that was interrupted
                client.delete_run(one.info.run_id)
        written, same = written + (not whole), same + len(whole)
    return written, same


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    experiment: str = found.experiment_id if found else client.create_experiment(name)
    return experiment


def _log(client: MlflowClient, experiment: str, run: Series) -> None:
    from mlflow.entities import Metric, Param, RunTag

    made = client.create_run(experiment, run_name=run.name, tags={KEY: run.key}).info.run_id
    now = int(1000 * time.time())
    parameters = [Param(_allowed(name), value[:LONGEST]) for name, value in run.parameters.items()]
    for some in _parts(parameters, MOST_PARAMETERS):
        client.log_batch(made, params=some)
    for some in _parts([Metric(_allowed(v.name), v.value, now, v.step) for v in run.values], MOST_METRICS):
        client.log_batch(made, metrics=some)
    client.log_batch(made, tags=[RunTag(DIGEST, run.digest)])  # last: then it is whole
    client.set_terminated(made)


def _allowed(name: str) -> str:
    """MLflow takes no brackets and commas: ``u_error[0.1,0.3]`` → ``u_error_0.1-0.3``."""
    return name.replace("[", "_").replace(",", "-").replace("]", "")


def _parts(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    yield from (values[at : at + size] for at in range(0, len(values), size))

"""Runs in MLflow, by its client: an experiment a study."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.exports.series import Series

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

KEY, DIGEST = "meanflow_study.run", "meanflow_study.digest"
MOST_METRICS, MOST_PARAMETERS, LONGEST = 1000, 100, 6000  # a request; of a parameter's value


def write(runs: Iterable[Series], uri: str) -> tuple[int, int]:
    """Log runs at a tracking URI. A run that has changed since the last export replaces the one of then.

    Returns: (runs written, runs left alone).
    """
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    written = same = 0
    for run in runs:
        experiment = _experiment(client, run.group)
        old = client.search_runs([experiment], f"tags.`{KEY}` = '{run.key}'")
        if any(one.data.tags.get(DIGEST) == run.digest for one in old):
            same += 1
            continue
        _log(client, experiment, run)
        for one in old:
            client.delete_run(one.info.run_id)
        written += 1
    return written, same


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    experiment: str = found.experiment_id if found else client.create_experiment(name)
    return experiment


def _log(client: MlflowClient, experiment: str, run: Series) -> None:
    from mlflow.entities import Metric, Param, RunTag

    made = client.create_run(experiment, run_name=run.name).info.run_id
    now = int(1000 * time.time())
    parameters = [Param(name, value[:LONGEST]) for name, value in run.parameters.items()]
    for some in _parts(parameters, MOST_PARAMETERS):
        client.log_batch(made, params=some)
    for some in _parts([Metric(_allowed(v.name), v.value, now, v.step) for v in run.values], MOST_METRICS):
        client.log_batch(made, metrics=some)
    client.log_batch(made, tags=[RunTag(KEY, run.key), RunTag(DIGEST, run.digest)])  # last: then it is whole
    client.set_terminated(made)


def _allowed(name: str) -> str:
    """MLflow takes no brackets and commas: ``u_error[0.1,0.3]`` → ``u_error_0.1-0.3``."""
    return name.replace("[", "_").replace(",", "-").replace("]", "")


def _parts(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    yield from (values[at : at + size] for at in range(0, len(values), size))

"""MLflow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from clipalign import Tracker, TrackerOptions
from clipalign_trackers.library import chart, flat, library

_LONGEST = 500  # characters of a parameter that every MLflow store takes


class MLflowOptions(TrackerOptions):
    """Options of `mlflow`."""

    experiment: str = Field("clipalign", description="Experiment that runs are put into.")
    uri: str | None = Field(
        None, description="Of the server, database or folder; null for MLFLOW_TRACKING_URI."
    )


class MLflow(Tracker):
    """Logs metrics, and the configuration as parameters.

    A resumed run goes on under the same id, which RUN/mlflow-id keeps.
    """

    Options = MLflowOptions
    options: MLflowOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._mlflow = library("mlflow", "mlflow")

    def start(self, run_dir: Path, config: Mapping[str, Any], step: int) -> None:
        """Begin a run, or go on with the one of this directory."""
        self._client = self._mlflow.MlflowClient(self.options.uri)
        kept = run_dir / "mlflow-id"
        if step and kept.is_file():
            self._id = kept.read_text().strip()
            self._client.set_terminated(self._id, "RUNNING")
            return
        experiment = self._client.get_experiment_by_name(self.options.experiment)
        number = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(self.options.experiment)
        )
        self._id = self._client.create_run(number, run_name=run_dir.name).info.run_id
        kept.write_text(self._id)
        parameter = self._mlflow.entities.Param
        params = [parameter(key, str(value)[:_LONGEST]) for key, value in flat(config)]
        self._client.log_batch(self._id, params=params)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row."""
        now = int(time.time() * 1000)
        metric = self._mlflow.entities.Metric
        rows = [metric(chart(name), value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._id, metrics=rows)

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Close the run; one that was stopped is marked as killed."""
        self._client.set_terminated(self._id, "KILLED" if summary is None else "FINISHED")

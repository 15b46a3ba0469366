"""MLflow: the server or file of MLFLOW_TRACKING_URI, by default `./mlflow.db`.

Current versions no longer accept a directory of files; a local SQLite database replaces it.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.metrics.tracker import Ending, TrackedRun, Value

_LONGEST_VALUE = 6000  # characters of a setting
_MOST_SETTINGS = 100  # per request
_STATUSES = {Ending.COMPLETE: "FINISHED", Ending.STOPPED: "KILLED", Ending.FAILED: "FAILED"}


class MlflowTracker:
    """The tracker `mlflow`. MLflow's environment variables, such as MLFLOW_TRACKING_URI, apply."""

    rewinds = False

    def start(self, run: TrackedRun) -> str:
        """Start or resume a run of the experiment, `albert-jax` by default."""
        from mlflow.tracking import MlflowClient

        self._client: Any = MlflowClient()
        settings = {name: _in_words(value) for name, value in run.settings.items()}
        if run.run_id is not None:
            known = self._client.get_run(run.run_id).data.params
            self._run_id = run.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            for name, value in settings.items():  # a parameter cannot be changed
                if known.get(name) != value:
                    self._client.set_tag(self._run_id, f"changed/{name}", value)
            return self._run_id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "albert-jax")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        self._run_id = self._client.create_run(experiment, run_name=run.name).info.run_id
        self._log_settings(settings)
        return self._run_id

    def log_metrics(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Log metrics."""
        from mlflow.entities import Metric

        now = int(1000 * seconds)
        values = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=values)

    def log_picture(self, step: int, name: str, png: bytes) -> None:
        """Log a picture as an artifact."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / f"{name}.png"
            path.write_bytes(png)
            self._client.log_artifact(self._run_id, str(path))

    def end(self, ending: Ending) -> None:
        """Set the run's status: KILLED if it can be resumed."""
        self._client.set_terminated(self._run_id, _STATUSES[ending])

    def _log_settings(self, settings: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        params = [Param(*one) for one in settings.items()]
        for start in range(0, len(params), _MOST_SETTINGS):
            self._client.log_batch(self._run_id, params=params[start : start + _MOST_SETTINGS])


def _in_words(value: Value) -> str:
    return str(value)[:_LONGEST_VALUE]

"""Clients of experiment trackers: Weights & Biases, MLflow, and Vertex AI Experiments."""

import importlib.util
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from trainer.config.choices import TrackerName
from trainer.errors import ConfigError

Parameter = str | float | int | bool

_PROJECT = "gan-trainer"
_MODULES = {
    TrackerName.WANDB: ("wandb", "wandb"),
    TrackerName.MLFLOW: ("mlflow", "mlflow"),
    TrackerName.VERTEX: ("google.cloud.aiplatform", "vertex"),
}
"""Module that each tracker needs, and the extra that has it."""
_MLFLOW_BATCH = 100
"""Largest number of parameters in one request to MLflow."""


class Tracker(Protocol):
    """A client of a tracker. Its methods are called in one thread, and may raise any exception."""

    def begin(self, run_id: str | None, name: str, parameters: Mapping[str, Parameter]) -> str:
        """Starts a run, or continues one.

        Args:
            run_id: ID of the run to continue; None for a new run.
            name: Name of a new run.
            parameters: Settings of the run.

        Returns:
            The ID of the run.
        """
        ...

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Adds the scalars of a step."""
        ...

    def image(self, path: Path, step: int) -> None:
        """Adds a picture."""
        ...

    def end(self, summary: Mapping[str, float], *, is_complete: bool) -> None:
        """Adds the summary and ends the run, which may continue later if it is not complete."""
        ...


def check_trackers(names: Sequence[str]) -> None:
    """Rejects trackers that cannot be used.

    Raises:
        ConfigError: If a tracker's package is not installed, or Weights & Biases has no key of the user.
    """
    for name in names:
        module, extra = _MODULES[TrackerName(name)]
        if not _is_installed(module):
            raise ConfigError(
                f"track={name} needs the package {module}, which is not installed; run pip install "
                f"'gan-trainer[{extra}]', or leave {name} out."
            )
    if TrackerName.WANDB in names and os.environ.get("WANDB_MODE", "online") == "online":
        import wandb

        wandb.setup(wandb.Settings(silent=True))
        if not wandb.login(prompt=False, verify=False):  # wandb would ask on the terminal, in the middle of a run
            raise ConfigError(
                "track=wandb has no key of an account; run wandb login, set WANDB_API_KEY, or set WANDB_MODE=offline."
            )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package
        return False


def create(name: str, folder: Path) -> Tracker:
    """Returns the client of a tracker.

    Args:
        name: Name of the tracker.
        folder: Local folder for the files that Weights & Biases writes.
    """
    if name == TrackerName.WANDB:
        return WandbTracker(folder)
    return MlflowTracker() if name == TrackerName.MLFLOW else VertexTracker()


class WandbTracker:
    """Weights & Biases. All variables of `wandb.init` apply, such as `WANDB_PROJECT` and `WANDB_RUN_GROUP`.

    Args:
        folder: Folder in which it writes the folder `wandb`, unless `WANDB_DIR` names another one.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def begin(self, run_id: str | None, name: str, parameters: Mapping[str, Parameter]) -> str:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE")
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            mode=mode,
            id=run_id,
            name=os.environ.get("WANDB_NAME") or name,
            resume="allow",
            dir=os.environ.get("WANDB_DIR") or str(self._folder),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.config.update(dict(parameters), allow_val_change=True)
        self._run.define_metric("*", step_metric="step")  # its own step cannot go back after a restart
        return str(self._run.id)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log({"step": step, **scalars})

    def image(self, path: Path, step: int) -> None:
        import wandb

        self._run.log({"step": step, "samples": wandb.Image(str(path))})

    def end(self, summary: Mapping[str, float], *, is_complete: bool) -> None:
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if is_complete else 1)


class MlflowTracker:
    """MLflow. All variables of `mlflow.start_run` apply, such as `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME`.

    With `MLFLOW_RUN_ID`, this existing run gets the data.
    """

    def begin(self, run_id: str | None, name: str, parameters: Mapping[str, Parameter]) -> str:
        import mlflow
        from mlflow.entities import Param

        self._client: Any = mlflow.MlflowClient()
        run_id = run_id or os.environ.get("MLFLOW_RUN_ID") or None
        if run_id is not None:
            run = mlflow.start_run(run_id)
        else:
            run = mlflow.start_run(experiment_id=self._own_experiment(), run_name=name)
        self._run_id = run.info.run_id
        new = {key: value for key, value in parameters.items() if key not in run.data.params}  # they cannot change
        values = [Param(key, str(value)) for key, value in new.items()]
        for start in range(0, len(values), _MLFLOW_BATCH):
            self._client.log_batch(self._run_id, params=values[start : start + _MLFLOW_BATCH])
        return self._run_id

    def _own_experiment(self) -> str | None:
        """Returns the ID of the experiment of this package. None: the user named another one."""
        if any(os.environ.get(f"MLFLOW_EXPERIMENT_{part}") for part in ("NAME", "ID")):
            return None
        existing = self._client.get_experiment_by_name(_PROJECT)
        return self._client.create_experiment(_PROJECT) if existing is None else existing.experiment_id

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run_id, metrics=[Metric(name, value, now, step) for name, value in scalars.items()]
        )

    def image(self, path: Path, step: int) -> None:
        self._client.log_artifact(self._run_id, str(path), "samples")

    def end(self, summary: Mapping[str, float], *, is_complete: bool) -> None:
        import mlflow

        for name, value in summary.items():
            self._client.log_metric(self._run_id, name, value)
        mlflow.end_run("FINISHED" if is_complete else "KILLED")


class VertexTracker:
    """Vertex AI Experiments: parameters and a summary; curves if the experiment has a TensorBoard instance.

    The SDK takes project and region from the environment of the job. It has no pictures.
    """

    def begin(self, run_id: str | None, name: str, parameters: Mapping[str, Parameter]) -> str:
        from google.cloud import aiplatform

        experiment = aiplatform.Experiment.get_or_create(_PROJECT)
        self._has_curves = experiment.backing_tensorboard_resource_name is not None
        self._last: dict[str, float] = {}
        if run_id is None:
            words = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:100]
            run_id = f"{words or 'run'}-{secrets.token_hex(4)}"
            self._run: Any = aiplatform.ExperimentRun.create(run_id, experiment=_PROJECT)
        else:
            self._run = aiplatform.ExperimentRun(run_id, experiment=_PROJECT)
        self._run.log_params({key: _without_bool(value) for key, value in parameters.items()})
        return run_id

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._last.update(scalars)
        if self._has_curves:
            self._run.log_time_series_metrics(dict(scalars), step=step)

    def image(self, path: Path, step: int) -> None:
        """Does nothing."""

    def end(self, summary: Mapping[str, float], *, is_complete: bool) -> None:
        from google.cloud import aiplatform

        self._run.log_metrics({**self._last, **summary})
        states = aiplatform.gapic.Execution.State
        self._run.update_state(states.COMPLETE if is_complete else states.CANCELLED)


def _without_bool(value: Parameter) -> str | float | int:
    return str(value).lower() if isinstance(value, bool) else value

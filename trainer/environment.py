"""Environment of a Vertex AI job, or of a container that serves a model.

It is the only reader of `AIP_*`, `CLOUD_ML_*`, `TF_CONFIG` and `CLUSTER_SPEC`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.errors import ConfigError, quote
from trainer.storage import parse_path, without_mount
from trainer.storage.base import SCHEME
from trainer.storage.run_directory import CHECKPOINTS, LOGS, MODEL
from trainer.training.distributed.cluster import Cluster, parse_cluster

_MAX_PORT = 65535
DEFAULT_METRIC_FILE = "/tmp/hypertune/output.metrics"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The environment of one process of a job. Outside of Vertex AI all fields are None.

    Folders are `gs://BUCKET/NAME` or local paths, without a slash at the end.
    """

    model_dir: str | None = None
    """Folder of the servable model. Vertex AI: BASE/model."""
    checkpoint_dir: str | None = None
    """Folder of the checkpoints. Vertex AI: BASE/checkpoints."""
    tensorboard_log_dir: str | None = None
    """Folder that Vertex AI's managed TensorBoard reads during the job. Vertex AI: BASE/logs."""
    trial_id: str | None = None
    """Trial of a hyperparameter tuning job. None: this is not a trial."""
    metric_file: str | None = None
    """Local file that receives the metrics of a trial. None: no metrics are reported."""
    job_id: str | None = None
    """Number of the job. It stays the same when the job restarts. None: this process is in no job."""
    cluster: Cluster | None = None
    """All machines of the job, seen from this one. None: this machine trains alone."""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "Environment":
        """Reads the environment variables. An empty variable counts as unset.

        Raises:
            ConfigError: If a folder is no path that `parse_path` accepts, or `TF_CONFIG` or `CLUSTER_SPEC` is invalid.
        """
        trial_id = environ.get("CLOUD_ML_TRIAL_ID") or None
        return cls(
            model_dir=_folder("AIP_MODEL_DIR", environ),
            checkpoint_dir=_folder("AIP_CHECKPOINT_DIR", environ),
            tensorboard_log_dir=_folder("AIP_TENSORBOARD_LOG_DIR", environ),
            trial_id=trial_id,
            metric_file=environ.get("CLOUD_ML_HP_METRIC_FILE") or (DEFAULT_METRIC_FILE if trial_id else None),
            job_id=environ.get("CLOUD_ML_JOB_ID") or None,
            cluster=parse_cluster(
                environ.get("TF_CONFIG", "").strip() or None, environ.get("CLUSTER_SPEC", "").strip() or None
            ),
        )

    @property
    def writes(self) -> bool:
        """True if this machine writes the run directory: it trains alone, or it is the chief."""
        return self.cluster is None or self.cluster.is_chief

    @property
    def replica(self) -> str:
        """Job, trial and machine, which a restarted machine keeps. Empty: this process is in no job."""
        machine = "chief" if self.cluster is None else f"{self.cluster.role} {self.cluster.index}"
        return f"{self.job_id}, trial {self.trial_id}, {machine}" if self.job_id else ""

    @property
    def job_dir(self) -> str | None:
        """Output folder of this run or trial: the common parent of the folders that have Vertex AI's names.

        A folder with another name was moved by the user and does not count. None: no folder counts.

        Raises:
            ConfigError: If the folders have different parents.
        """
        parents = {
            variable: parent
            for variable, name, folder in (
                ("AIP_CHECKPOINT_DIR", CHECKPOINTS, self.checkpoint_dir),
                ("AIP_MODEL_DIR", MODEL, self.model_dir),
                ("AIP_TENSORBOARD_LOG_DIR", LOGS, self.tensorboard_log_dir),
            )
            if folder and (parent := _parent(folder, name))
        }
        if len(set(parents.values())) > 1:
            places = ", ".join(f"{variable} is in {parent}" for variable, parent in parents.items())
            raise ConfigError(f"the run directory is ambiguous ({places}); set --job_dir.")
        return next(iter(parents.values()), None)


@dataclass(frozen=True, kw_only=True)
class ServingEnvironment:
    """The environment of a container that serves a model. Outside of Vertex AI all fields are None."""

    model_dir: str | None = None
    """Folder of the exported model: Vertex AI's copy of it."""
    port: int | None = None
    """Port to listen on."""
    health_route: str | None = None
    """Path of health checks."""
    predict_route: str | None = None
    """Path of requests."""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "ServingEnvironment":
        """Reads the environment variables. An empty variable counts as unset.

        Raises:
            ConfigError: If the folder is no path that `parse_path` accepts, or the port is none.
        """
        port = environ.get("AIP_HTTP_PORT") or None
        if port is not None and (not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > _MAX_PORT):
            raise ConfigError(f"AIP_HTTP_PORT={quote(port)} is not a port; set it to a number from 1 to {_MAX_PORT}.")
        return cls(
            model_dir=_folder("AIP_STORAGE_URI", environ),
            port=None if port is None else int(port),
            health_route=environ.get("AIP_HEALTH_ROUTE") or None,
            predict_route=environ.get("AIP_PREDICT_ROUTE") or None,
        )


def without_slash(folder: str) -> str:
    """Returns the name of a folder without a slash at its end. `/` stays as it is."""
    return folder.rstrip("/") or "/"


def _folder(variable: str, environ: Mapping[str, str]) -> str | None:
    value = environ.get(variable)
    if not value:
        return None
    try:
        return without_slash(parse_path(without_mount(value)))
    except ConfigError as error:
        raise ConfigError(f"{variable} is invalid: {error}") from error


def _parent(folder: str, name: str) -> str | None:
    """Returns the parent of a folder with the given name. None: the folder has another name, or no parent."""
    parent, _, last = folder.rpartition("/")
    return parent if last == name and parent and f"{parent}/" != SCHEME else None

"""What Vertex AI tells a trainer: the one reader of `AIP_*`, `CLOUD_ML_*`, `TF_CONFIG` and `CLUSTER_SPEC`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.errors import ConfigError
from trainer.storage import without_mount
from trainer.storage.resolve import SCHEME
from trainer.training.distributed import cluster as clusters
from trainer.training.distributed.cluster import Cluster

DEFAULT_METRIC_FILE = "/tmp/hypertune/output.metrics"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The environment of one process of a job. On a laptop all is None.

    Folders are `gs://BUCKET/NAME` or local paths, without a slash at the end.
    """

    model_dir: str | None = None
    """Where the model goes that is to be served. Vertex AI: BASE/model."""
    checkpoint_dir: str | None = None
    """Where checkpoints go. Vertex AI: BASE/checkpoints."""
    tensorboard_log_dir: str | None = None
    """Where TensorBoard, which Vertex AI may manage, looks for event files while the job runs. Vertex AI: BASE/logs."""
    trial_id: str | None = None
    """The trial of a hyperparameter tuning job. None: this is none."""
    metric_file: str | None = None
    """The local file that a trial's metrics go to. None: nobody asks for them."""
    job_id: str | None = None
    project_number: str | None = None
    """The project's number, not its name."""
    region: str | None = None
    tensorboard_resource_name: str | None = None
    """The managed TensorBoard that shows the job."""
    tf_profiler_port: str | None = None
    """Where the managed TensorBoard looks for TensorFlow's profiler."""
    http_handler_port: str | None = None
    """Where Vertex AI expects an HTTP server of the profiler."""
    data_format: str | None = None
    """Format of a managed data set: jsonl, csv or bigquery. None: the job has none."""
    training_data_uri: str | None = None
    validation_data_uri: str | None = None
    test_data_uri: str | None = None
    cluster: Cluster | None = None
    """The machines of the job and this one's place. None: it trains alone."""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> "Environment":
        """Reads the environment variables; an empty one is as one that is not set.

        Raises:
            ConfigError: A folder is in no bucket, or `TF_CONFIG` and `CLUSTER_SPEC` make no sense.
        """
        trial_id = environ.get("CLOUD_ML_TRIAL_ID") or None
        return cls(
            model_dir=_folder("AIP_MODEL_DIR", environ),
            checkpoint_dir=_folder("AIP_CHECKPOINT_DIR", environ),
            tensorboard_log_dir=_folder("AIP_TENSORBOARD_LOG_DIR", environ),
            trial_id=trial_id,
            metric_file=environ.get("CLOUD_ML_HP_METRIC_FILE") or (DEFAULT_METRIC_FILE if trial_id else None),
            job_id=environ.get("CLOUD_ML_JOB_ID") or None,
            project_number=environ.get("CLOUD_ML_PROJECT_ID") or None,
            region=environ.get("CLOUD_ML_REGION") or None,
            tensorboard_resource_name=environ.get("AIP_TENSORBOARD_RESOURCE_NAME") or None,
            tf_profiler_port=environ.get("AIP_TF_PROFILER_PORT") or None,
            http_handler_port=environ.get("AIP_HTTP_HANDLER_PORT") or None,
            data_format=environ.get("AIP_DATA_FORMAT") or None,
            training_data_uri=environ.get("AIP_TRAINING_DATA_URI") or None,
            validation_data_uri=environ.get("AIP_VALIDATION_DATA_URI") or None,
            test_data_uri=environ.get("AIP_TEST_DATA_URI") or None,
            cluster=clusters.parse(
                environ.get("TF_CONFIG", "").strip() or None, environ.get("CLUSTER_SPEC", "").strip() or None
            ),
        )

    @property
    def job_dir(self) -> str | None:
        """The output folder of this run, or of this trial: what the three folders lie in under Vertex AI's names.

        A folder with a name of its own was put elsewhere by the user, and does not count. None: none counts.

        Raises:
            ConfigError: They lie in different folders.
        """
        found = {
            variable: base
            for variable, name, folder in (
                ("AIP_CHECKPOINT_DIR", "checkpoints", self.checkpoint_dir),
                ("AIP_MODEL_DIR", "model", self.model_dir),
                ("AIP_TENSORBOARD_LOG_DIR", "logs", self.tensorboard_log_dir),
            )
            if folder and (base := _base(folder, name))
        }
        if len(set(found.values())) > 1:
            told = ", ".join(f"{variable} is in {base}" for variable, base in found.items())
            raise ConfigError(f"the run directory is unclear ({told}); give it as --job_dir.")
        return next(iter(found.values()), None)


def without_slash(folder: str) -> str:
    """A folder's name without a slash at its end; `/` as it is."""
    return folder.rstrip("/") or "/"


def _folder(variable: str, environ: Mapping[str, str]) -> str | None:
    value = environ.get(variable)
    if not value:
        return None
    folder = without_mount(value)
    if folder.startswith(SCHEME) and not folder[len(SCHEME) :].strip("/"):
        raise ConfigError(f"{variable}={value} names no bucket; write gs://BUCKET/NAME.")
    return without_slash(folder)


def _base(folder: str, name: str) -> str | None:
    """The folder that one of this name lies in; None where it has another name."""
    base, _, last = folder.rpartition("/")
    return base if last == name and base not in ("", "gs:/") else None

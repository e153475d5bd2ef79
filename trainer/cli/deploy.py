"""The `deploy` command."""

import base64
import io
import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags as absl_flags
from PIL import Image

from trainer import __version__, signals
from trainer.cli import app, serving_flags
from trainer.cloud.jobs import job_request
from trainer.cloud.jobs.overrides import parse_labels
from trainer.cloud.jobs.service_rules import check_labels, is_image
from trainer.cloud.vertex.models import ModelClient, Resource
from trainer.cloud.vertex.resource_name import number_of
from trainer.errors import ConfigError, JobError, count_of, escape, quote
from trainer.logging import install_handler, log_fields, print_json, quiet_import
from trainer.metrics.log_names import own_name
from trainer.storage import RunDirectory, is_remote, locate, parse_path
from trainer.storage.run_directory import CONFIG, EVENTS, METRICS, MODEL

if TYPE_CHECKING:
    from trainer.serving.served_model import ServedModel

_logger = logging.getLogger(__name__)

_USAGE = """Uploads an exported model to Vertex AI's Model Registry, deploys it to an endpoint, and tests it.

  {command} --job_dir=gs://BUCKET/RUN --image=IMAGE --project=PROJECT --region=REGION [--endpoint=NAME]
  {command} --model_dir=gs://BUCKET/MODEL --image=IMAGE --project=PROJECT --region=REGION [--upload_only]

IMAGE is the image of this package, which scripts/build_image.sh builds; the server in it is `python -m trainer serve`.
A model and an endpoint of the same display name are used again: the model gets a new version, and the endpoint sends
all requests to it. An endpoint is billed while a model is deployed on it.
"""
_PORT, _HEALTH_ROUTE, _PREDICT_ROUTE = 8080, "/health", "/predict"
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_DEFAULT_ALIAS = "default"
_MAX_METRICS = 20
_MAX_NAME_CHARACTERS = 128
_MAX_LABEL_CHARACTERS = 63
_MAX_DIFFERENCE = 8
"""Largest accepted difference of a pixel, of 255, between an endpoint and this machine, which may round differently."""


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    strings = {
        "job_dir": "Run directory on gs://, whose metrics describe the model.",
        "model_dir": "Folder of the exported model on gs://. None: the model of --job_dir.",
        "image": "Image of this package in Artifact Registry.",
        "display_name": "Display name of the model.",
        "parent_model": "Number or display name of the model that gets a new version. None: the model with the name "
        "--display_name, if any.",
        "endpoint": "Display name or number of the endpoint. None: the display name of the model.",
    }
    for name, text in strings.items():
        default = "gan-trainer" if name == "display_name" else None
        absl_flags.DEFINE_string(name, default, text, required=name == "image", flag_values=values)
    absl_flags.DEFINE_list("aliases", [], "More aliases of the version, such as candidate.", flag_values=values)
    absl_flags.DEFINE_list("labels", [], "Labels KEY=VALUE of the model and the endpoint.", flag_values=values)
    absl_flags.DEFINE_integer("min_replicas", 1, "Minimum number of machines.", lower_bound=1, flag_values=values)
    absl_flags.DEFINE_integer(
        "max_replicas", None, "Maximum number of machines. None: the minimum.", lower_bound=1, flag_values=values
    )
    absl_flags.DEFINE_bool("upload_only", False, "Register the model without an endpoint.", flag_values=values)
    absl_flags.DEFINE_bool(
        "undeploy_others",
        False,
        "After the test, remove the other models from the endpoint, which are billed too.",
        flag_values=values,
    )
    serving_flags.define_service(values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Uploads, deploys and tests the model."""
    install_handler(uses_stderr=values.dry_run)
    service = serving_flags.endpoint_of(values)
    model_dir = _check_flags(values)
    serving_flags.check_service(values, service)
    labels = parse_labels(values.labels)
    check_labels(labels, "--labels")
    deployment = _deployment_of(values)
    with quiet_import():
        from trainer.serving.served_model import ServedModel
    model = ServedModel.load(locate(model_dir))
    step = model.metadata.get("step", 0)
    metrics = _metrics_of(values.job_dir, step) if values.job_dir else []
    upload = _upload_of(values, model_dir, labels, step, metrics)
    endpoint = {"displayName": values.endpoint or values.display_name, "labels": labels}
    endpoint |= serving_flags.encryption_of(values)
    if values.dry_run:
        print_json({"upload": upload} | ({} if values.upload_only else {"endpoint": endpoint, "deploy": deployment}))
        return
    job_request.check_placeholders({"upload": upload, "endpoint": endpoint, "deploy": deployment}, is_of_file=False)
    client = ModelClient(service)
    existing = None if values.upload_only else client.find_endpoint(endpoint["displayName"])
    name = _upload(client, upload, values)
    if not values.upload_only:
        target = existing or client.create_endpoint(endpoint)
        _deploy(client, name, target, deployment, model, undeploys_others=values.undeploy_others)


main = app.command(_USAGE, define_flags, run_command)


def _check_flags(values: absl_flags.FlagValues) -> str:
    """Returns the folder of the model. Rejects flags before anything is read."""
    if not (values.job_dir or values.model_dir):
        raise ConfigError("--job_dir is missing; give the run on gs://, or its exported model with --model_dir.")
    if values.job_dir and values.model_dir:
        raise ConfigError("--job_dir and --model_dir both name a model; pass one of them.")
    model_dir = parse_path(values.model_dir or f"{values.job_dir.rstrip('/')}/{MODEL}")
    if not is_remote(model_dir):
        raise ConfigError(
            f"the model {quote(model_dir)} is not in a bucket, where Vertex AI could read it; export it with "
            "python -m trainer export --out=gs://BUCKET/NAME, and give this folder with --model_dir."
        )
    if not is_image(values.image) or "/" not in values.image:
        raise ConfigError(
            f"--image={quote(values.image)} is not an image; write REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG."
        )
    for alias in values.aliases:
        if not _ALIAS.fullmatch(alias) or alias == _DEFAULT_ALIAS:
            raise ConfigError(
                f"--aliases={quote(alias)} is not an alias; write letters, digits and hyphens, beginning with a small "
                f"letter, and ending with a small letter or a digit. The alias {_DEFAULT_ALIAS} is always set."
            )
    for name in ("display_name", "endpoint"):
        text = values[name].value
        if text is not None and not 1 <= len(text) <= _MAX_NAME_CHARACTERS:
            raise ConfigError(f"--{name}={quote(text)} has {len(text)} characters; give 1 to {_MAX_NAME_CHARACTERS}.")
    if re.fullmatch("[0-9]+", values.display_name) or "/" in values.display_name:
        raise ConfigError(
            f"--display_name={quote(values.display_name)} is a number or has a slash; give a name of letters."
        )
    for name in ("endpoint", "undeploy_others", "min_replicas", "max_replicas"):
        if values.upload_only and values[name].present:
            raise ConfigError(f"--{name} has no effect with --upload_only; omit one of them.")
    return model_dir


def _deployment_of(values: absl_flags.FlagValues) -> dict[str, Any]:
    """Returns the DeployModelRequest as JSON, without the model."""
    maximum = values.min_replicas if values.max_replicas is None else values.max_replicas
    if maximum < values.min_replicas:
        raise ConfigError(
            f"--max_replicas={maximum} is less than --min_replicas={values.min_replicas}; raise it, or lower the other."
        )
    replicas = {"minReplicaCount": values.min_replicas, "maxReplicaCount": maximum}
    deployed = {
        "displayName": values.display_name,
        "dedicatedResources": {"machineSpec": serving_flags.machine_of(values), **replicas},
        **({"serviceAccount": values.service_account} if values.service_account else {}),
    }
    return {"deployedModel": deployed, "trafficSplit": {"0": 100}}


def _metrics_of(job_dir: str, step: int) -> list[tuple[str, float]]:
    """Returns names and values of the metrics of a run at a step."""
    from trainer.report.run_report import RunReport

    with RunDirectory(job_dir).open(only={CONFIG, METRICS, EVENTS}) as directory:
        rows = RunReport(directory).training_facts(step)["metrics"]
    values = [(own_name(row["name"]), row["value"]) for row in rows if row["value"] is not None]
    return values[:_MAX_METRICS]


def _upload_of(
    values: absl_flags.FlagValues,
    model_dir: str,
    labels: Mapping[str, str],
    step: int,
    metrics: Sequence[tuple[str, float]],
) -> dict[str, Any]:
    """Returns the UploadModelRequest as JSON, without the parent.

    Labels contain the metrics, with `_` in place of the decimal point: `12_3`.
    """
    facts = {"gan-trainer": __version__, "step": str(step)} | {name: f"{value:.4g}" for name, value in metrics}
    own = {_as_label(name).lstrip("0123456789_-"): _as_label(text) for name, text in facts.items()}
    check_labels({**own, **labels}, f"--labels, with {count_of(len(own), 'label')} of the version and its metrics,")
    description = ", ".join(f"{name} {value:.4g}" for name, value in metrics) or "no metrics"
    model = {
        "displayName": values.display_name,
        "artifactUri": model_dir,
        "versionAliases": [_DEFAULT_ALIAS, *values.aliases],
        "versionDescription": escape(f"gan-trainer {__version__}, step {step}: {description}"),
        "labels": {**own, **labels},
        "containerSpec": {
            "imageUri": values.image,
            "command": ["python", "-m", "trainer", "serve"],
            "ports": [{"containerPort": _PORT}],
            "healthRoute": _HEALTH_ROUTE,
            "predictRoute": _PREDICT_ROUTE,
        },
        **serving_flags.encryption_of(values),
    }
    return {"model": model}


def _as_label(text: str) -> str:
    """Returns a text as the key or value of a label."""
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[:_MAX_LABEL_CHARACTERS]


def _upload(client: ModelClient, body: dict[str, Any], values: absl_flags.FlagValues) -> str:
    """Uploads the model. Returns the resource name of its version."""
    parent_model = values.parent_model
    parent = client.find_model(values.display_name if parent_model is None else parent_model)
    if parent is None and parent_model is not None:
        raise ConfigError(
            f"--parent_model={quote(parent_model)} is not a registered model; correct it, or omit it for a new model."
        )
    if parent is not None:
        body = body | {"parentModel": parent.name}
    model, version = client.upload(body)
    name = f"{model}@{version}"
    _logger.info(f"Uploaded version {version} of {model}.", extra=log_fields({"model": name}))
    return name


def _deploy(
    client: ModelClient,
    model_name: str,
    endpoint: Resource,
    deployment: Mapping[str, Any],
    model: "ServedModel",
    *,
    undeploys_others: bool,
) -> None:
    """Deploys a model to an endpoint, and tests it."""
    _logger.info(f"Deploying to {endpoint.name}, which takes some minutes.")
    body = {**deployment, "deployedModel": {**deployment["deployedModel"], "model": model_name}}
    try:
        deployed = client.deploy(endpoint.name, body)
    except (KeyboardInterrupt, signals.Terminated) as error:
        consequence = f"the deployment to {endpoint.name} continues and is billed; see it in the console."
        raise signals.explained(error, consequence) from None
    region, number = client.endpoint.region, number_of(endpoint.name)
    undeploy = f"gcloud ai endpoints undeploy-model {number} --region={region} --deployed-model-id="
    _logger.info(f"Deployed the model. To stop the billing: {undeploy}{deployed}")
    try:
        _test(client, endpoint, model)
    except JobError as error:
        raise JobError(f"{str(error).rstrip('.')}; to stop the billing, run {undeploy}{deployed}") from error
    except (KeyboardInterrupt, signals.Terminated) as error:
        consequence = f"the model is deployed and billed; to stop the billing, run {undeploy}{deployed}"
        raise signals.explained(error, consequence) from None
    others = [deployed_model["id"] for deployed_model in endpoint.raw.get("deployedModels", [])]
    if undeploys_others:
        for other in others:
            client.undeploy(endpoint.name, other)
        _logger.info(f"Removed {count_of(len(others), 'other model')} from the endpoint.")
    elif others:
        _logger.warning(
            f"The endpoint has {count_of(len(others), 'other model')}, which {'is' if len(others) == 1 else 'are'} "
            f"billed without receiving requests; run {undeploy}{others[0]}, or pass --undeploy_others."
        )
    address = f"{client.endpoint.url}/v1/{endpoint.name}:predict"
    _logger.info(f"Send requests to {address}", extra=log_fields({"endpoint": endpoint.name, "address": address}))


def _test(client: ModelClient, endpoint: Resource, model: "ServedModel") -> None:
    """Requests an image of the endpoint, and compares it with the same image of this machine.

    The images of a model with random layers are not compared.

    Raises:
        JobError: If the endpoint does not answer with such an image.
    """
    from trainer.serving.served_model import PredictionRequest

    instance = model.example()
    answers = client.predict(endpoint.name, [instance])
    if len(answers) != 1:
        raise JobError(f"{endpoint.name} gave {count_of(len(answers), 'answer')} to one instance; see its logs.")
    expected, repeated = (_pixels(model.predict(PredictionRequest([instance], {}))[0]) for _ in range(2))
    try:
        pixels = _pixels(answers[0])
    except (TypeError, KeyError, ValueError, OSError) as error:
        raise JobError(f"{endpoint.name} answered {quote(answers[0])}, which is no image; see its logs.") from error
    if pixels.shape != expected.shape:
        raise JobError(f"{endpoint.name} answered with an image of the shape {pixels.shape}, not {expected.shape}.")
    if (repeated != expected).any():
        _logger.info("The endpoint answers. Its image is not compared, because the model has random layers.")
        return
    difference = int(np.abs(pixels - expected).max())
    if difference > _MAX_DIFFERENCE:
        raise JobError(
            f"{endpoint.name} answered with an image that differs from this machine's by up to {difference} of 255, "
            f"more than {_MAX_DIFFERENCE}; see its logs."
        )
    _logger.info(f"The endpoint answers; its image differs from this machine's by at most {difference} of 255.")


def _pixels(prediction: Mapping[str, Any]) -> np.ndarray:
    content = base64.b64decode(prediction["b64"], validate=True)
    return np.asarray(Image.open(io.BytesIO(content)), np.int16)

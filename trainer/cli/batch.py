"""The `batch` command."""

import base64
import binascii
import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from trainer import signals
from trainer.cli import app, batch_commands, serving_flags
from trainer.cloud.jobs import job_request, output_checks
from trainer.cloud.jobs.overrides import new_job_id
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.cloud.vertex.models import ModelClient, Resource
from trainer.errors import ConfigError, DataError, DocumentError, JobError, count_of, escape, quote
from trainer.logging import install_handler, log_fields, print_json, print_line, quiet_import
from trainer.storage import Location, check_json, documents, is_remote, locate, parse_json, parse_path, scratch_folder

_logger = logging.getLogger(__name__)

_USAGE = """Generates images of a registered model with a Vertex AI batch prediction job, which needs no endpoint.

  {command} --model=MODEL --seeds=0-9999 --out=gs://BUCKET/images --project=PROJECT --region=REGION
  {command} --model=MODEL --seeds=0-99 --labels=3,5 --out=images --staging=gs://BUCKET/batch --project=PROJECT ...
  {command} --job=NUMBER --out=gs://BUCKET/images --project=PROJECT --region=REGION

`deploy --upload_only` registers a model. OUT gets one PNG per seed, named as by `generate`. The job reads its instances
from the staging folder, and writes its results there. --job writes the images of a job that has ended or still runs.
"""
_INSTANCES = "instances.jsonl"
_MAX_ERROR_CHARACTERS = 300
_JOB_NAME = re.compile(r"([^/]+/){4}batchPredictionJobs/\d+|\d+")
_MODEL_NAME = re.compile(r"[^@]+(@(\d+|[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]))?")
_FLAGS_OF_A_NEW_JOB = (
    *("seeds", "num_images", "labels", "truncation", "staging", "batch_size", "num_machines", "dry_run", "wait"),
    *("machine_type", "accelerator_type", "accelerator_count", "service_account", "kms_key"),
)
_REMEDY = "run the job again"


def _whole(value: Any, path: str) -> None:
    """Accepts whole numbers from 0 up, also as 3.0, as services may write them."""
    is_float = isinstance(value, float) and value.is_integer()
    documents.whole()(int(value) if is_float else value, path)


_INSTANCE = documents.record({"seed": _whole, "label": documents.optional(_whole)})
_RESULT = documents.record({"instance": _INSTANCE, "prediction": documents.record({"b64": documents.text()})})
_JOB = documents.record(
    {
        "inputConfig": documents.record(
            {"gcsSource": documents.record({"uris": documents.list_of(documents.text(), length=1)})}
        ),
        "outputInfo": documents.record({"gcsOutputDirectory": documents.text()}),
        "model": documents.text(),
    }
)


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    strings = {
        "model": "Number or display name of the registered model, with its default version, or MODEL@VERSION.",
        "job": "Number of an earlier job whose images are to be written.",
        "out": "Folder to write, local or gs://.",
        "seeds": "Seeds of the images, as numbers and ranges: 0-99,120. None: 0 to num_images - 1.",
        "staging": "Folder on gs:// for the files of the job. None: .batch in --out.",
    }
    for name, text in strings.items():
        absl_flags.DEFINE_string(name, None, text, required=name == "out", flag_values=values)
    absl_flags.DEFINE_integer("num_images", 64, "Number of images.", lower_bound=1, flag_values=values)
    absl_flags.DEFINE_list(
        "labels", None, "Numbers of classes that the images get in turn. None: each class in turn.", flag_values=values
    )
    absl_flags.DEFINE_float(
        "truncation",
        None,
        "Number in [0, 1] by which latents are moved towards the center of their distribution. None: no truncation.",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "batch_size",
        8,
        "Images of one request to the server, whose answer has at most 1.5 MB: 64 for images of 32x32 pixels.",
        lower_bound=1,
        upper_bound=64,
        flag_values=values,
    )
    absl_flags.DEFINE_integer("num_machines", 1, "Number of machines.", lower_bound=1, flag_values=values)
    absl_flags.DEFINE_bool("wait", True, "Wait for the job, and write its images.", flag_values=values)
    serving_flags.define_service(values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Runs a job, or collects the images of one."""
    install_handler(uses_stderr=values.dry_run)
    service = serving_flags.endpoint_of(values)
    out = app.output_folder("out", values.out)
    _check_flags(values, service)
    with quiet_import():
        from trainer.sampling import outputs
    if values.job:
        client = ModelClient(service)
        _collect(client, client.get_batch(values.job), out)
        return
    instances = _instances(values)
    outputs.check_folder(out, _names(instances), keeps_images=True)
    name = f"gan-images-{new_job_id()}"
    staging = f"{(values.staging or f'{out}/.batch').rstrip('/')}/{name}"
    body = _job_of(values, name, staging)
    if values.dry_run:
        print_json({"instances": instances[:3], "numInstances": len(instances), "batchPredictionJob": body})
        return
    job_request.check_placeholders(body, is_of_file=False)
    client = ModelClient(service)
    model = _registered_model(client, values.model)
    _check_instances(model, values.model, instances)
    body["model"] = model.name
    content = "".join(f"{json.dumps(instance)}\n" for instance in instances)
    (locate(staging) / _INSTANCES).write_bytes(content.encode())
    job = client.create_batch(body)
    _logger.info(f"Created {job.name} for {count_of(len(instances), 'image')}.", extra=log_fields({"job": job.name}))
    advice = "If this command ends early, write the images with" if values.wait else "To write its images"
    _logger.info(f"{advice}: {batch_commands.collect(service, job, out)}")
    if values.wait:
        _collect(client, job, out)


main = app.command(_USAGE, define_flags, run_command)


def _check_flags(values: absl_flags.FlagValues, service: Endpoint) -> None:
    if bool(values.job) == bool(values.model):
        raise ConfigError("give either --model, to run a job, or --job, to write the images of one.")
    if values.job:
        for name in _FLAGS_OF_A_NEW_JOB:
            if values[name].present:
                raise ConfigError(f"--{name} has no effect with --job; omit it.")
        if not _JOB_NAME.fullmatch(values.job):
            raise ConfigError(f"--job={quote(values.job)} is not a batch prediction job; give its number, such as 123.")
        return
    if not _MODEL_NAME.fullmatch(values.model):
        raise ConfigError(
            f"--model={quote(values.model)} is not a model; give its number or display name, or MODEL@VERSION, where "
            "VERSION is a number or an alias."
        )
    serving_flags.check_service(values, service)
    if values.staging is not None:
        parse_path(values.staging)
    if values.seeds is not None and values["num_images"].present:
        raise ConfigError(
            f"--seeds={quote(values.seeds)} and --num_images={values.num_images} were both passed; pass one."
        )
    if not is_remote(values.staging or values.out):
        raise ConfigError(
            f"the job cannot read and write {quote(values.staging or values.out)}; give --staging=gs://BUCKET/NAME."
        )


def _instances(values: absl_flags.FlagValues) -> list[dict[str, Any]]:
    """Returns an instance per seed."""
    with quiet_import():
        from trainer.sampling import samples

    samples.check_num_samples("num_images", values.num_images, values.num_images)
    seeds = range(values.num_images) if values.seeds is None else samples.parse_seeds(values.seeds).tolist()
    labels = [None] if values.labels is None else [_parse_label(text) for text in values.labels]
    if not labels:
        raise ConfigError("--labels='' names no class; give numbers such as 3,5, or omit the flag.")
    settings = {} if values.truncation is None else {"truncation": values.truncation}
    return [
        {"seed": seed, **({} if labels[index % len(labels)] is None else {"label": labels[index % len(labels)]})}
        | settings
        for index, seed in enumerate(seeds)
    ]


def _parse_label(text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        raise ConfigError(f"--labels={quote(text)} is not the number of a class; give numbers such as 3,5.")
    return int(text)


def _names(instances: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the names of the images, as `generate` has them. The class in turn is known to the model only."""
    import numpy as np

    from trainer.sampling import outputs

    seeds = np.array([instance["seed"] for instance in instances], np.int64)
    labels = [instance.get("label") for instance in instances]
    return outputs.image_names(seeds, None if None in labels else np.array(labels, np.int64))


def _job_of(values: absl_flags.FlagValues, name: str, staging: str) -> dict[str, Any]:
    """Returns the BatchPredictionJob as JSON."""
    return {
        "displayName": name,
        "model": values.model,
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"{staging}/{_INSTANCES}"]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": staging}},
        "dedicatedResources": {
            "machineSpec": serving_flags.machine_of(values),
            "startingReplicaCount": values.num_machines,
            "maxReplicaCount": values.num_machines,
        },
        "manualBatchTuningParameters": {"batchSize": values.batch_size},
        **({"serviceAccount": values.service_account} if values.service_account else {}),
        **serving_flags.encryption_of(values),
    }


def _registered_model(client: ModelClient, name: str) -> Resource:
    """Returns a model, or the version of it that is named."""
    base, separator, version = name.partition("@")
    model = client.find_model(base)
    if model is None:
        raise ConfigError(f"--model={quote(name)} is not registered; register it with deploy --upload_only.")
    return client.get_version(model, version) if separator else model


def _check_instances(resource: Resource, name: str, instances: Sequence[dict[str, Any]]) -> None:
    """Rejects instances that the exported model cannot answer, before the job is sent.

    Args:
        resource: The registered model.
        name: Value of `--model`.
        instances: Instances of the job. Of their labels, the smallest and the largest are tried.

    Raises:
        ConfigError: If the model translates images, or has no such labels.
        StorageError: If the model is incomplete.
    """
    with quiet_import():
        from trainer.serving.served_model import PredictionRequest, ServedModel

    def check() -> None:
        model = ServedModel.load(locate(uri))
        if model.translates:
            raise ConfigError(
                f"--model={quote(name)} translates images and has no seeds; translate images with generate "
                "--images, or send them to an endpoint of deploy."
            )
        labels = sorted({instance["label"] for instance in instances if "label" in instance})
        if labels and not model.has_labels:
            raise ConfigError(
                f"--labels={labels[0]} has no meaning for --model={quote(name)}, which has no classes; omit it."
            )
        extremes = [{"seed": 0, "label": label} for label in (*labels[:1], *labels[1:][-1:])]
        try:
            model.predict(PredictionRequest(extremes, {}))
        except DataError as error:
            raise ConfigError(f"--labels do not fit --model={quote(name)}: {error}") from None

    uri = resource.raw.get("artifactUri", "")
    if uri:
        output_checks.check_if_readable(check, f"The model {uri}")
    else:
        _logger.warning(f"--model={quote(name)} is registered without its files, so that its labels cannot be checked.")


def _collect(client: ModelClient, job: Resource, out: Location) -> None:
    """Waits for a job, and writes its images."""
    from trainer.sampling import outputs

    advice = f"to write its images, run {batch_commands.collect(client.endpoint, job, out)}"
    try:
        job = client.await_batch(job, lambda job: _logger.info(f"{job.name} is {job.state}."), f"{advice}.")
    except (KeyboardInterrupt, signals.Terminated) as error:
        raise signals.explained(error, f"the job continues; {advice}.") from None
    check_json(job.raw, f"the batch prediction job {job.name}", _JOB, remedy="give a job that this command has created")
    (uri,) = job.raw["inputConfig"]["gcsSource"]["uris"]
    instances = [_parse_line(line, uri, _INSTANCE) for line in locate(uri).read_bytes().splitlines()]
    names = _names(instances)
    outputs.check_folder(out, names, keeps_images=True)
    written: set[str] = set()
    folder = locate(job.raw["outputInfo"]["gcsOutputDirectory"])
    has_labels = "label" in names[0]
    with scratch_folder() as scratch:
        outputs.write_folder(out, _images(folder, scratch, has_labels, written))
        missing = [instance for name, instance in zip(names, instances, strict=True) if name not in written]
        if missing:
            command = batch_commands.repeat(client.endpoint, job, out, missing)
            raise JobError(
                f"{count_of(len(missing), 'image')} of {len(names):,} are missing in {out}"
                f"{_first_error(folder, scratch)}; correct it, and generate them with this command and the other flags "
                f"of the job: {command}"
            )
    print_line(f"Wrote {count_of(len(names), 'image')} to {out}.")


def _images(folder: Location, scratch: Path, has_labels: bool, written: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the content of each image in the results of a job, and adds the name to a set."""
    for line in _lines(folder, scratch, "prediction.results"):
        result = _parse_line(line, folder, _RESULT)
        instance = result["instance"] if has_labels else {"seed": result["instance"]["seed"]}
        (name,) = _names([instance])
        if name in written:  # the service has repeated a request
            continue
        try:
            content = base64.b64decode(result["prediction"]["b64"], validate=True)
        except binascii.Error as error:
            raise DocumentError(f"{folder} has an image of {name} that is not base64; {_REMEDY}.") from error
        written.add(name)
        yield name, content


def _first_error(folder: Location, scratch: Path) -> str:
    """Returns the first error of a job in parentheses, or nothing."""
    for line in _lines(folder, scratch, "prediction.errors"):
        return f" ({escape(line.decode(errors='replace').strip()[:_MAX_ERROR_CHARACTERS])})"
    return ""


def _lines(folder: Location, scratch: Path, prefix: str) -> Iterator[bytes]:
    """Yields the lines of the files of a job, one file at a time."""
    for entry in folder.entries(recursive=False):
        if entry.name.startswith(prefix):
            path = scratch / "part"
            folder.download({entry.name: path})
            with path.open("rb") as file:
                yield from file


def _parse_line(line: bytes, origin: object, check: documents.Check) -> Any:
    return parse_json(line, origin, check, remedy=_REMEDY)

"""`deploy` and `batch` with local substitutes for Vertex AI and Cloud Storage, and the real server."""

import base64
import io
import json
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from conftest import TINY_MLP, tiny_model
from google.api_core.exceptions import Forbidden
from PIL import Image
from refusals import check_command_refusal

from trainer import task
from trainer.cli import batch, batch_commands, deploy
from trainer.cloud.vertex import models, polling, sdk
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.errors import StorageError
from trainer.image_io import png
from trainer.sampling.samples import Samples, images_of, labels_of
from trainer.serving import saved_model
from trainer.serving.served_model import PredictionRequest, ServedModel
from trainer.serving.server import PredictionServer, ServerSettings
from trainer.storage import locate
from trainer.testing.vertex_service import ServiceError, VertexService

IMAGE = "us-central1-docker.pkg.dev/my-project/gan/trainer:latest"
PLACE = ("--project=my-project", "--region=us-central1")
PARENT = "projects/my-project/locations/us-central1"

KEY = "projects/my-project/locations/us-central1/keyRings/k/cryptoKeys/n"
SERVICE_FLAGS = [
    (["--kms_key=x"], ("--kms_key", "'x'")),
    (["--kms_key="], ("--kms_key",)),
    ([f"--kms_key={KEY.replace('us-central1', 'europe-west4')}"], ("--kms_key", "europe-west4", "us-central1")),
    (["--service_account=bob"], ("--service_account", "'bob'")),
    (["--service_account="], ("--service_account",)),
    (["--machine_type="], ("--machine_type",)),
    (["--machine_type=g2-standard-8"], ("--machine_type", "g2-standard-8", "NVIDIA_L4")),
    (
        ["--machine_type=g2-standard-8", "--accelerator_type=NVIDIA_L4", "--accelerator_count=2"],
        ("--machine_type", "2 NVIDIA_L4", "g2-standard-24"),
    ),
    (["--machine_type=n2-standard-4", "--accelerator_type=NVIDIA_TESLA_T4"], ("n2-standard-4", "NVIDIA_TESLA_T4")),
    (["--machine_type=c3-standard-8", "--accelerator_type=nvidia-l4"], ("--accelerator_type", "nvidia-l4")),
    (["--machine_type=ct5lp-hightpu-4t"], ("--machine_type", "ct5lp-hightpu-4t")),
]
"""Flags that `deploy` and `batch` refuse, and what the messages mention."""


@pytest.fixture
def model_dir(exported_model, bucket):
    saved_model.publish(exported_model, locate(f"{bucket}/model"))
    return f"{bucket}/model"


@pytest.fixture(scope="module")
def container(exported_model):
    """A function that sends the body of a request to the server, as Vertex AI does."""
    with PredictionServer(ServerSettings()) as server:
        server.model = ServedModel.load(locate(exported_model))

        def predict(body):
            url = f"http://127.0.0.1:{server.port}/predict"
            try:
                with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=20) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                raise ValueError(json.loads(error.read())["error"]) from error

        yield predict


@pytest.fixture
def service(container, monkeypatch):
    with VertexService(predict=container) as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        for name in ("_FIRST_POLL_SECS", "_MAX_POLL_SECS", "_BATCH_POLL_SECS"):
            monkeypatch.setattr(models, name, 0.01)
        monkeypatch.setattr(sdk, "_FIRST_PAUSE_SECS", 0.01)
        yield service


def run_deploy(model_dir, *flags):
    return deploy.main(["deploy", f"--model_dir={model_dir}", f"--image={IMAGE}", *PLACE, *flags])


def messages(capsys):
    return [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]


def test_a_model_is_uploaded_deployed_and_tested(service, model_dir, capsys):
    assert run_deploy(model_dir, "--display_name=photos", "--labels=team=vision", "--aliases=candidate") == 0
    ((name, model),) = service.registry.models.items()
    ((endpoint_name, endpoint),) = service.registry.endpoints.items()
    assert model["artifactUri"] == model_dir and model["versionAliases"] == ["default", "candidate"]
    assert model["labels"]["team"] == "vision" and model["labels"]["step"] == "4"
    container = model["containerSpec"]
    assert container["imageUri"] == IMAGE and container["command"][-1] == "serve"
    assert container["ports"] == [{"containerPort": 8080}]
    (deployed,) = endpoint["deployedModels"]
    assert deployed["model"] == f"{name}@1" and endpoint["trafficSplit"] == {deployed["id"]: 100}
    assert deployed["dedicatedResources"]["machineSpec"] == {"machineType": "n2-standard-4"}
    text = "\n".join(messages(capsys))
    assert "at most 0 of 255" in text or "at most 1 of 255" in text
    assert f"{service.address}/v1/{endpoint_name}:predict" in text


def test_a_second_deployment_is_a_new_version_on_the_same_endpoint(service, model_dir, capsys):
    assert run_deploy(model_dir) == 0
    capsys.readouterr()
    assert run_deploy(model_dir) == 0
    assert any("undeploy_others" in message for message in messages(capsys))
    ((name, model),) = service.registry.models.items()
    ((_, endpoint),) = service.registry.endpoints.items()
    assert model["versionId"] == "2" and len(endpoint["deployedModels"]) == 2
    assert run_deploy(model_dir, "--undeploy_others", "--endpoint=200", "--parent_model=100") == 0
    ((_, endpoint),) = service.registry.endpoints.items()
    assert [one["model"] for one in endpoint["deployedModels"]] == [f"{name}@3"]


def test_flags_reach_the_machines_and_the_keys(service, model_dir):
    flags = ["--machine_type=g2-standard-8", "--accelerator_type=NVIDIA_L4", "--min_replicas=2", "--max_replicas=3"]
    assert run_deploy(model_dir, *flags, f"--kms_key={KEY}", "--service_account=s@p.iam.gserviceaccount.com") == 0
    ((_, endpoint),) = service.registry.endpoints.items()
    (deployed,) = endpoint["deployedModels"]
    resources = deployed["dedicatedResources"]
    assert resources["machineSpec"]["acceleratorType"] == "NVIDIA_L4" and resources["maxReplicaCount"] == 3
    assert deployed["serviceAccount"] == "s@p.iam.gserviceaccount.com"
    ((_, model),) = service.registry.models.items()
    assert model["encryptionSpec"] == endpoint["encryptionSpec"] == {"kmsKeyName": KEY}


def test_a_run_describes_its_model_with_its_metrics(service, bucket, capsys):
    flags = [f"--architecture_options={json.dumps(TINY_MLP)}", "--latent_dim=8", "--global_batch_size=16"]
    flags += ["--recipe=vanilla", "--strategy=one_device", "--jit_compile=off", "--steps=2", "--sample_every_steps=0"]
    flags += ["--metrics=digits", "--num_metric_samples=64"]
    assert task.main(["task", *flags, f"--job_dir={bucket}/run"]) == 0
    argv = ["deploy", f"--job_dir={bucket}/run", f"--image={IMAGE}", *PLACE]
    capsys.readouterr()
    assert deploy.main([*argv, "--dry_run"]) == 0
    upload = json.loads(capsys.readouterr().out)["upload"]["model"]
    (name,) = [name for name in upload["labels"] if name.startswith("frechet")]
    assert name in upload["versionDescription"] and service.requests == []
    assert deploy.main([*argv, "--upload_only"]) == 0
    ((_, model),) = service.registry.models.items()
    assert model["labels"] == upload["labels"] and not service.registry.endpoints


def test_an_endpoint_that_fails_the_test_is_named_with_the_way_to_stop_it(service, model_dir, monkeypatch, capsys):
    for answer in ({"predictions": []}, {"predictions": [{"b64": "aGk="}]}, {"predictions": ["no"]}):
        monkeypatch.setattr(service.registry, "predict", lambda body, answer=answer: answer)
        argv = ["deploy", f"--model_dir={model_dir}", f"--image={IMAGE}", *PLACE]
        check_command_refusal(deploy.main, argv, capsys, 1, "endpoints/200", "undeploy-model 200")


def test_an_endpoint_with_other_images_keeps_the_other_models(service, model_dir, monkeypatch, capsys):
    assert run_deploy(model_dir) == 0
    (answer,) = ServedModel.load(locate(model_dir)).predict(PredictionRequest([{"seed": 0}], {}))
    image = np.array(Image.open(io.BytesIO(base64.b64decode(answer["b64"]))))[..., None]
    image[0, 0] += 128
    answer = {"b64": base64.b64encode(png(image)).decode()}
    monkeypatch.setattr(service.registry, "predict", lambda body: {"predictions": [answer]})
    argv = ["deploy", f"--model_dir={model_dir}", f"--image={IMAGE}", *PLACE, "--undeploy_others"]
    check_command_refusal(deploy.main, argv, capsys, 1, "endpoints/200", "of 255", "undeploy-model 200")
    ((_, endpoint),) = service.registry.endpoints.items()
    assert len(endpoint["deployedModels"]) == 2


def test_random_images_of_an_endpoint_are_not_compared(service, model_dir, monkeypatch):
    predict = ServedModel.predict

    def predict_at_random(self, request):
        seed = np.random.default_rng().integers(10**8)
        return predict(self, PredictionRequest([{"seed": int(seed)}], {}))

    monkeypatch.setattr(ServedModel, "predict", predict_at_random)
    assert run_deploy(model_dir) == 0


@pytest.mark.parametrize(
    ("code", "mentions"),
    [(8, ("quota", "no L4 left")), (9, ("no L4 left",)), (7, ("roles/aiplatform.user", "no L4 left"))],
)
def test_an_operation_that_fails_is_one_sentence(code, mentions, service, model_dir, capsys):
    service.registry.operation_error = code, "no L4 left"
    argv = ["deploy", f"--model_dir={model_dir}", f"--image={IMAGE}", *PLACE]
    check_command_refusal(deploy.main, argv, capsys, 1, *mentions)


def test_a_short_outage_of_the_service_is_survived(service, model_dir):
    service.fail(503, times=2)
    assert run_deploy(model_dir) == 0


@pytest.fixture
def after(service, monkeypatch):
    """Lets the service do something right after it has changed a resource, and before it answers."""

    def install(method, act):
        change = getattr(service.registry, method)

        def changed(*arguments):
            answer = change(*arguments)
            act()
            return answer

        monkeypatch.setattr(service.registry, method, changed)

    monkeypatch.setattr(sdk, "_RETRY_SECS", 0.0)
    return install


def lose_answer():
    raise ServiceError(503, "no")


def test_a_longer_outage_during_a_deployment_is_survived(service, model_dir, after):
    after("_deploy", lambda: service.fail(503, times=9))
    assert run_deploy(model_dir) == 0


def test_an_unknown_end_of_a_deployment_names_its_operation(service, model_dir, after, monkeypatch, capsys):
    monkeypatch.setattr(polling, "_MAX_FAILED_POLLS", 3)
    after("_deploy", lambda: service.fail(503, times=999))
    argv = ["deploy", f"--model_dir={model_dir}", f"--image={IMAGE}", *PLACE]
    check_command_refusal(deploy.main, argv, capsys, 4, "operations/3", "console")


def test_a_deployment_whose_answer_was_lost_is_not_simply_repeated(service, model_dir, after, capsys):
    after("_deploy", lose_answer)
    argv = ["deploy", f"--model_dir={model_dir}", f"--image={IMAGE}", *PLACE]
    check_command_refusal(deploy.main, argv, capsys, 1, "unavailable", "console")


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize(
    ("method", "mentions"),
    [("deploy", ("endpoints/200", "continues")), ("predict", ("undeploy-model 200", "deployed-model-id="))],
)
def test_a_signal_during_a_deployment_tells_how_the_billing_stops(
    method, mentions, number, code, service, model_dir, monkeypatch, capsys
):
    monkeypatch.setattr(models.ModelClient, method, lambda *arguments: signal.raise_signal(number))
    argv = ["deploy", f"--model_dir={model_dir}", f"--image={IMAGE}", *PLACE]
    check_command_refusal(deploy.main, argv, capsys, code, *mentions)


@pytest.mark.parametrize(
    ("flags", "code", "mentions"),
    [
        (["--model_dir=model"], 2, ("model", "bucket")),
        (["--job_dir=runs/photos"], 2, ("runs/photos/model", "bucket")),
        ([], 2, ("job_dir",)),
        (["--model_dir=gs://bkt/m", "--image="], 2, ("image", "''")),
        (["--model_dir=gs://bkt/m", "--image=my image"], 2, ("image", "my image")),
        (["--model_dir=gs://bkt/m", "--aliases=Best"], 2, ("aliases", "Best")),
        (["--model_dir=gs://bkt/m", "--aliases=default"], 2, ("aliases", "default")),
        (["--model_dir=gs://bkt/m", "--aliases=best-"], 2, ("aliases", "best-")),
        (["--model_dir=gs://bkt/m", "--labels=Team=x"], 2, ("--labels", "'Team'")),
        (["--model_dir=gs://bkt/m", "--labels=a=b,a=c"], 2, ("--labels", "'a'")),
        (["--model_dir=gs://bkt/m", f"--labels={','.join(f'l{n}=x' for n in range(70))}"], 2, ("--labels", "70", "64")),
        (
            ["--model_dir=BUCKET/model", f"--labels={','.join(f'l{n}=x' for n in range(64))}"],
            2,
            ("--labels", "66", "64"),
        ),
        (["--model_dir=gs://bkt/m", "--job_dir=gs://bkt/run"], 2, ("--model_dir", "--job_dir")),
        *((["--model_dir=gs://bkt/m", *flags], 2, mentions) for flags, mentions in SERVICE_FLAGS),
        (["--model_dir=gs://bkt/m", "--labels=team"], 2, ("labels", "team")),
        (["--model_dir=gs://bkt/m", "--display_name="], 2, ("display_name",)),
        (["--model_dir=gs://bkt/m", "--display_name=2026"], 2, ("display_name", "2026")),
        (["--model_dir=BUCKET/model", "--endpoint=7"], 1, ("endpoints/7",)),
        (["--model_dir=gs://bkt/m", "--min_replicas=3", "--max_replicas=2"], 2, ("max_replicas=2", "min_replicas=3")),
        (["--model_dir=gs://bkt/m", "--accelerator_count=2"], 2, ("accelerator_count=2", "accelerator_type")),
        (["--model_dir=gs://bkt/m", "--upload_only", "--endpoint=e"], 2, ("endpoint", "upload_only")),
        (["--model_dir=gs://bkt/m", "--project="], 2, ("project",)),
        (["--model_dir=gs://bkt/m", "--region=us"], 2, ("region", "us")),
        (["--model_dir=BUCKET/none"], 1, ("none", "export")),
        (["--model_dir=BUCKET/none", "--project=PROJECT"], 2, ("project", "PROJECT")),
        (["--model_dir=BUCKET/model", "--image=pkg.dev/PROJECT/gan/trainer:1"], 2, ("pkg.dev/PROJECT", "PROJECT")),
        (["--model_dir=BUCKET/model", "--parent_model=7"], 1, ("models/7",)),
        *(
            (["--model_dir=BUCKET/model", f"--parent_model={name}"], 2, ("parent_model", f"'{name}'"))
            for name in ("new", "")
        ),
        (["--model_dir=BUCKET/model", "--endpoint=projects/x/locations/us-central1/models/7"], 2, ("endpoints",)),
    ],
)
def test_a_deployment_that_cannot_work_is_one_sentence(flags, code, mentions, service, model_dir, bucket, capsys):
    argv = ["deploy", f"--image={IMAGE}", *PLACE, *(flag.replace("BUCKET", bucket) for flag in flags)]
    check_command_refusal(deploy.main, argv, capsys, code, *mentions)
    assert not service.registry.endpoints and not service.registry.models


def test_names_that_several_models_have_are_refused(service, model_dir, capsys):
    assert run_deploy(model_dir, "--upload_only") == 0
    ((name, model),) = service.registry.models.items()
    service.registry.models[f"{PARENT}/models/101"] = model | {"name": f"{PARENT}/models/101"}
    argv = ["deploy", f"--model_dir={model_dir}", f"--image={IMAGE}", *PLACE]
    check_command_refusal(deploy.main, argv, capsys, 2, "'gan-trainer'", name.rpartition("/")[2])


def images(location):
    """Returns the images of a folder by name."""
    return {
        entry.name: np.asarray(Image.open(io.BytesIO((location / entry.name).read_bytes())))
        for entry in location.entries(recursive=False)
    }


@pytest.fixture
def registered(service, model_dir):
    assert run_deploy(model_dir, "--upload_only", "--display_name=photos") == 0
    return service


def check_images(gan, folder, seeds, labels, truncation=None):
    """Checks that a folder has the images that `generate` writes, with its names."""
    chosen = labels_of(gan, seeds, labels)
    expected = np.concatenate(list(images_of(gan, Samples(seeds, chosen, None, truncation))))[..., 0]
    written = images(folder)
    endings = [""] * len(seeds) if labels is None else [f"-label-{label}" for label in chosen]
    for seed, ending, image in zip(seeds, endings, expected, strict=True):
        assert np.abs(written.pop(f"seed-{seed:08d}{ending}.png").astype(int) - image).max() <= 1
    assert not written


def test_a_batch_writes_the_images_of_seeds_to_a_bucket(registered, exported_gan, bucket, capsys):
    argv = ["batch", "--model=photos", "--seeds=3,70-79", f"--out={bucket}/images", *PLACE, "--truncation=0.5"]
    assert batch.main(argv) == 0
    ((_, job),) = registered.registry.batches.items()
    assert job["manualBatchTuningParameters"]["batchSize"] == 8 and job["model"].endswith("models/100")
    check_images(exported_gan, locate(f"{bucket}/images"), np.array([3, *range(70, 80)]), None, 0.5)
    assert "11 images" in capsys.readouterr().out


def test_a_longer_outage_during_a_batch_is_survived(registered, bucket, after):
    after("_create_batch", lambda: registered.fail(503, times=9))
    assert batch.main(["batch", "--model=photos", "--num_images=2", f"--out={bucket}/images", *PLACE]) == 0
    assert len(images(locate(f"{bucket}/images"))) == 2 and len(registered.registry.batches) == 1


def test_an_unknown_state_of_a_batch_names_the_command_that_collects_it(registered, bucket, after, monkeypatch, capsys):
    monkeypatch.setattr(polling, "_MAX_FAILED_POLLS", 3)
    after("_create_batch", lambda: registered.fail(503, times=999))
    argv = ["batch", "--model=photos", "--num_images=2", f"--out={bucket}/images", *PLACE]
    check_command_refusal(batch.main, argv, capsys, 4, "batchPredictionJobs/500", "batch --job=500")


def test_a_batch_whose_answer_was_lost_is_named(registered, bucket, after, capsys):
    after("_create_batch", lose_answer)
    argv = ["batch", "--model=photos", "--num_images=2", f"--out={bucket}/images", *PLACE]
    capsys.readouterr()
    assert batch.main(argv) == 1
    ((_, job),) = registered.registry.batches.items()
    error = capsys.readouterr().err
    assert job["displayName"] in error and "--job" in error and "jobs list" not in error


def test_a_batch_of_labels_is_collected_into_a_local_folder_later(registered, exported_gan, bucket, tmp_path, capsys):
    argv = ["batch", "--model=100@1", "--num_images=5", "--labels=3,5", f"--out={tmp_path / 'images'}", *PLACE]
    assert batch.main([*argv, f"--staging={bucket}/batch", "--nowait"]) == 0
    assert not (tmp_path / "images").exists() and "--job=500" in capsys.readouterr().out
    ((_, job),) = registered.registry.batches.items()
    assert job["model"].endswith("models/100@1")
    assert batch.main(["batch", "--job=500", f"--out={tmp_path / 'images'}", *PLACE]) == 0
    check_images(exported_gan, locate(tmp_path / "images"), np.arange(5), [3, 5])


def test_missing_images_are_an_error_with_the_reason(registered, bucket, tmp_path, capsys):
    registered.registry.models[f"{PARENT}/models/100"].pop("artifactUri")  # so that the labels cannot be checked
    argv = ["batch", "--model=photos", "--num_images=4", "--labels=3,99", f"--out={bucket}/images", *PLACE]
    argv += ["--batch_size=1", "--truncation=0.5"]
    seeds = "--seeds=1,3 --labels=99 --truncation=0.5"
    check_command_refusal(batch.main, argv, capsys, 1, "2 images", "label=99", f"--model={PARENT}/models/100 {seeds}")
    assert sorted(images(locate(f"{bucket}/images"))) == ["seed-00000000-label-3.png", "seed-00000002-label-3.png"]


def test_missing_images_are_generated_by_the_command_in_the_error(registered, exported_gan, tmp_path, bucket, capsys):
    argv = ["batch", "--model=photos", "--num_images=9", "--labels=3,5,7", f"--out={tmp_path / 'images'}", *PLACE]
    predict = registered.registry.predict
    registered.registry.predict = fails_for({4, 5, 6, 8}, predict)
    capsys.readouterr()
    assert batch.main([*argv, f"--staging={bucket}/batch", "--batch_size=1"]) == 1
    command = capsys.readouterr().err.partition("python -m trainer ")[2]
    assert "--seeds=4-6,8 " in command
    registered.registry.predict = predict
    assert batch.main(shlex.split(command)) == 0
    check_images(exported_gan, locate(tmp_path / "images"), np.arange(9), [3, 5, 7])


def fails_for(seeds, predict):
    """Returns a function that predicts like `predict`, but fails if an instance has one of these seeds."""

    def fail(body):
        if any(instance["seed"] in seeds for instance in body["instances"]):
            raise ValueError("no memory")
        return predict(body)

    return fail


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_during_a_batch_names_the_command_that_collects_it(
    number, code, registered, bucket, monkeypatch, capsys
):
    monkeypatch.setattr(models.ModelClient, "await_batch", lambda *arguments: signal.raise_signal(number))
    argv = ["batch", "--model=photos", "--num_images=2", f"--out={bucket}/images", *PLACE]
    check_command_refusal(batch.main, argv, capsys, code, "continues", "batch --job=500")


def test_the_command_for_many_missing_images_is_short(bucket):
    raw = {"model": f"{PARENT}/models/100", "inputConfig": {"gcsSource": {"uris": [f"{bucket}/a/b/instances.jsonl"]}}}
    job = models.Resource(f"{PARENT}/batchPredictionJobs/500", raw)
    endpoint = Endpoint(project="my-project", region="us-central1")
    instances = [{"seed": seed, "label": seed % 7} for seed in range(0, 10_000, 2)]
    command = batch_commands.repeat(endpoint, job, locate(f"{bucket}/images"), instances)
    assert len(command) <= 1000 and "--seeds=0,2,4," in command


@pytest.fixture(scope="module")
def other_models(tmp_path_factory):
    """Folder of exported models by name: one that translates images, and one without classes."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("cyclegan", "gan"):
        saved_model.save(tiny_model(name), folder / name, {"step": 1})
    return folder


@pytest.mark.parametrize(
    ("model", "flags", "code", "mentions"),
    [
        ("cyclegan", [], 2, ("'cyclegan'", "translates")),
        ("gan", ["--labels=3"], 2, ("labels=3", "'gan'", "classes")),
        ("photos", ["--labels=3,99,5"], 2, ("labels", "'photos'", "label=99")),
        ("photos@7", [], 1, ("models/100@7",)),
        ("damaged", [], 1, ("no-model", "saved_model.pb")),
    ],
)
def test_instances_that_the_model_cannot_answer_are_refused(
    model, flags, code, mentions, registered, other_models, bucket, capsys
):
    models = registered.registry.models
    template = models[f"{PARENT}/models/100"]
    for number, name in enumerate(("cyclegan", "gan", "damaged"), 101):
        full_name = f"{PARENT}/models/{number}"
        models[full_name] = template | {
            "name": full_name,
            "displayName": name,
            "artifactUri": str(other_models / name) if name != "damaged" else f"{bucket}/no-model",
        }
    argv = ["batch", f"--model={model}", f"--out={bucket}/images", *PLACE, *flags]
    check_command_refusal(batch.main, argv, capsys, code, *mentions)
    assert not registered.registry.batches and next(locate(f"{bucket}/images").entries(), None) is None


def test_a_model_that_this_account_cannot_read_is_a_warning(registered, bucket, monkeypatch, capsys):
    def refuse(location):
        raise StorageError(f"{location} cannot be read.") from Forbidden("no permission")

    monkeypatch.setattr(ServedModel, "load", refuse)
    argv = ["batch", "--model=photos@1", "--num_images=2", f"--out={bucket}/images", *PLACE]
    assert batch.main(argv) == 0
    ((_, job),) = registered.registry.batches.items()
    assert job["model"].endswith("models/100@1")
    assert "cannot be read" in capsys.readouterr().out and len(images(locate(f"{bucket}/images"))) == 2


def test_a_failed_batch_is_an_error_with_the_reason(registered, bucket, capsys):
    assert batch.main(["batch", "--model=photos", f"--out={bucket}/images", *PLACE, "--nowait"]) == 0
    (job,) = registered.registry.batches.values()
    job |= {"state": "JOB_STATE_FAILED", "error": {"code": 3, "message": "no quota."}}
    argv = ["batch", "--job=500", f"--out={bucket}/images", *PLACE]
    check_command_refusal(batch.main, argv, capsys, 1, "FAILED", "no quota")


def test_a_job_of_another_program_is_refused(registered, bucket, capsys):
    assert batch.main(["batch", "--model=photos", f"--out={bucket}/images", *PLACE, "--nowait"]) == 0
    (job,) = registered.registry.batches.values()
    job["inputConfig"] = {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": "bq://p.d.t"}}
    argv = ["batch", "--job=500", f"--out={bucket}/images", *PLACE]
    check_command_refusal(batch.main, argv, capsys, 1, "batchPredictionJobs/500", "gcsSource")


@pytest.mark.parametrize("flag", ["--dry_run", "--dry-run=1", "--dry_run=True"])
def test_an_unknown_machine_is_a_warning_beside_the_json(flag, service, bucket, capsys):
    argv = ["batch", "--model=photos", f"--out={bucket}/images", flag, "--machine_type=c3-standard-8"]
    assert batch.main(argv) == 0
    printed = capsys.readouterr()
    resources = json.loads(printed.out)["batchPredictionJob"]["dedicatedResources"]
    assert resources["machineSpec"] == {"machineType": "c3-standard-8"}
    assert "c3-standard-8" in json.loads(printed.err)["message"]


@pytest.mark.slow  # imports TensorFlow in a process of its own
def test_a_dry_run_of_a_batch_prints_only_its_result(tmp_path):
    argv = [sys.executable, "-m", "trainer", "batch", "--model=photos", f"--out={tmp_path / 'images'}", "--dry_run"]
    place = ["--staging=gs://bucket/batch", "--project=my-project", "--region=us-central1"]
    done = subprocess.run([*argv, *place], capture_output=True, text=True, check=True)
    assert done.stderr == "" and json.loads(done.stdout)["numInstances"] == 64


def test_a_dry_run_of_a_batch_sends_nothing(service, bucket, capsys):
    argv = ["batch", "--model=photos", "--num_images=5", f"--out={bucket}/images", "--dry_run"]
    assert batch.main(argv) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["numInstances"] == 5 and printed["batchPredictionJob"]["model"] == "photos"
    assert service.requests == [] and next(locate(f"{bucket}/images").entries(), None) is None


@pytest.mark.parametrize(
    ("flags", "code", "mentions"),
    [
        ([], 2, ("model", "job")),
        (["--model=m", "--job=1"], 2, ("model", "job")),
        (["--job=1", "--seeds=1"], 2, ("seeds", "job")),
        (["--job=1", "--nowait"], 2, ("wait", "job")),
        (["--job=1", f"--kms_key={KEY}"], 2, ("kms_key", "job")),
        (["--model=m", "--seeds=1", "--num_images=2"], 2, ("seeds", "num_images")),
        (["--model=m", "--seeds=9-1"], 2, ("seeds", "9-1")),
        (["--model=m", "--labels=cat"], 2, ("labels", "cat")),
        (["--model=m", "--labels="], 2, ("labels",)),
        (["--model=m", "--truncation=2"], 2, ("truncation", "2")),
        (["--model=m", "--out=images"], 2, ("images", "staging")),
        (["--model=m", "--out=images", "--staging=tmp"], 2, ("tmp", "staging")),
        (["--model=m", "--batch_size=65"], 2, ("batch_size", "65")),
        (["--model=m", "--project=PROJECT"], 2, ("project", "PROJECT")),
        (["--model=m", "--out=gs://BUCKET/images"], 2, ("gs://BUCKET/images", "placeholder")),
        (["--model=m", "--out=gs://BUCKET/images", "--dry_run"], 2, ("gs://BUCKET/images", "placeholder")),
        (["--model=m", "--service_account=s@PROJECT.iam.gserviceaccount.com"], 2, ("s@PROJECT", "placeholder")),
        (["--model=missing"], 2, ("missing", "deploy")),
        (["--model=7"], 1, ("models/7",)),
        (["--job=7"], 1, ("7",)),
        *((["--job=" + name], 2, ("job", name)) for name in ("a b", "abc", "7/", f"{PARENT}/models/7")),
        *((["--model=" + name], 2, ("model", name)) for name in ("photos@", "@1", "photos@Best", "photos@1@2")),
        *((["--model=m", *flags], 2, mentions) for flags, mentions in SERVICE_FLAGS),
    ],
)
def test_a_batch_that_cannot_work_is_one_sentence(
    flags, code, mentions, service, bucket, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    out = [] if any("--out" in flag for flag in flags) else [f"--out={bucket}/images"]
    check_command_refusal(batch.main, ["batch", *PLACE, *out, *flags], capsys, code, *mentions)
    assert not service.registry.batches

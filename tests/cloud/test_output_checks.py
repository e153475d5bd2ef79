"""Checks of the output folder and the packages before a job is sent, on a Cloud Storage server of this machine."""

import json
import os
from hashlib import sha256

import numpy as np
import pytest
from local_vertex import local_service
from specs import PACKAGE, TUNING, changed
from submissions import RIGHT, check_error, run_submit

from trainer.cloud.jobs.arguments import parse_args
from trainer.data.tfrecord_writer import write_prepared
from trainer.storage import gcs, locate
from trainer.storage.lease import hold
from trainer.training.checkpoint.manifest import CheckpointManifest
from trainer.training.checkpoint.run_history import RunHistory
from trainer.training.stored_run import config_document

pytest.importorskip("yaml")

SEED = {"parameterId": "seed", "integerValueSpec": {"minValue": 1, "maxValue": 9}}
STEPS = "--steps=10"
OWN_ACCOUNT = "ci@p.iam.gserviceaccount.com"


@pytest.fixture
def service(monkeypatch):
    with local_service(monkeypatch, checks_buckets=True) as service:
        yield service


@pytest.fixture
def send(service, bucket, tmp_path, capsys):
    """Submits a job with an output folder in the bucket, and args; returns exit code, messages and errors."""

    def run(*args, folder=f"{bucket}/run", content=RIGHT, flags=()):
        content = changed(content, baseOutputDirectory__outputUriPrefix=folder)
        program = content["workerPoolSpecs"][0].get("containerSpec")
        if program is not None:
            program["args"] = list(args)
        return run_submit(tmp_path, capsys, content, *flags)

    return run


def store_run(folder, *args, step=None, exported_at=None, callbacks=None):
    """Writes the files of a run that the checks read: its config, its newest manifest, and its model."""
    config = parse_args(args, "here").config
    document = config_document(config, RunHistory.start({"config": config.fingerprint}))
    locate(f"{folder}/config.json").write_bytes(document)
    if step is not None:
        fingerprints = {"config": config.fingerprint}
        manifest = CheckpointManifest(step, {}, "", fingerprints, {}, {}, callbacks=callbacks or {})
        locate(f"{folder}/checkpoints/step-{step:08}/MANIFEST.json").write_bytes(manifest.to_bytes())
    if exported_at is not None:
        metadata = {"exported_at_step": exported_at, "sha256": {"saved_model.pb": sha256(b"model").hexdigest()}}
        locate(f"{folder}/model/assets.extra/run.json").write_bytes(json.dumps(metadata).encode())
        locate(f"{folder}/model/saved_model.pb").write_bytes(b"model")


def test_a_job_is_sent_to_an_empty_folder_or_to_its_own_run(send, service, bucket):
    assert send(STEPS)[0] == 0
    store_run(f"{bucket}/run", STEPS)
    assert send(STEPS)[0] == 0
    store_run(f"{bucket}/run", STEPS, step=4)
    assert send(STEPS)[0] == 0
    assert send("--steps=20", "--metrics=none")[0] == 0
    store_run(f"{bucket}/run", STEPS, step=10)
    assert send(STEPS)[0] == 0  # the model is missing
    assert send("--recipe=mine:own", STEPS)[0] == 2  # another recipe
    assert send(STEPS, "--seed=7", "--allow_config_change")[0] == 0
    assert len(service.jobs) == 6


def test_a_job_with_other_settings_is_sent_to_a_run_without_a_checkpoint(send, service, bucket):
    store_run(f"{bucket}/run", STEPS)
    assert send(STEPS, "--seed=7")[0] == 0
    store_run(f"{bucket}/run", STEPS, step=4)
    assert send(STEPS, "--seed=7")[0] == 2
    assert len(service.jobs) == 1


def test_a_run_without_the_model_of_its_last_step_may_export_it(send, service, bucket):
    store_run(f"{bucket}/run", STEPS, step=20, exported_at=10)  # the extended run was killed before its export
    assert send("--steps=20")[0] == 0
    store_run(f"{bucket}/run", STEPS, step=20, exported_at=20)
    locate(f"{bucket}/run/model").delete(["saved_model.pb"])  # the upload, which ends with this file, was killed
    assert send("--steps=20")[0] == 0
    assert send("--steps=20", "--noexport_model")[0] == 2
    assert len(service.jobs) == 2


def test_a_run_whose_last_evaluation_was_abandoned_may_finish(send, service, bucket):
    pending = {"evaluation": {"pending_step": 10}}
    store_run(f"{bucket}/run", STEPS, "--metrics=digits", step=10, callbacks=pending)
    assert send(STEPS, "--noexport_model")[0] == 0  # metrics=auto keeps the suite of the run
    assert send(STEPS, "--noexport_model", "--metrics=none")[0] == 2
    store_run(f"{bucket}/run", STEPS, "--metrics=digits", step=10)
    assert send(STEPS, "--noexport_model")[0] == 2
    assert len(service.jobs) == 1


def test_a_run_that_stopped_because_it_collapsed_is_refused(send, service, bucket):
    args = (STEPS, "--metrics=digits", "--stop_on_collapse")
    store_run(f"{bucket}/run", *args, step=4, exported_at=4, callbacks={"collapse": {"is_collapsed": 1.0}})
    code, _, error = send(*args)
    assert code == 2 and not service.requests
    check_error(error, f"{bucket}/run", "step 4", "collapse", "--nostop_on_collapse")
    assert send(STEPS, "--metrics=digits", "--nostop_on_collapse")[0] == 0


def test_another_spelling_of_the_dataset_is_the_same_setting(send, bucket, tmp_path):
    texts = dict.fromkeys(("name", "source", "license", "attribution"), "")
    write_prepared(tmp_path / "data", np.zeros((16, 28, 28, 1), np.uint8), np.zeros(16, np.int32), ["all"], **texts)
    locate(f"{bucket}/data").upload(tmp_path / "data", [path.name for path in (tmp_path / "data").iterdir()])
    settings = (STEPS, "--recipe=dcgan", "--global_batch_size=8")
    store_run(f"{bucket}/run", *settings, f"--dataset={bucket}/data", step=4)
    assert send(*settings, f"--dataset={bucket}/data/")[0] == 0


def test_a_run_with_a_metric_suite_of_its_own_may_resume(send, bucket):
    own = (STEPS, "--recipe=mine:own", "--metrics=brightness")
    store_run(f"{bucket}/run", *own, step=4)
    assert send(*own)[0] == 0


def test_a_run_keeps_the_checkpoint_that_it_began_with(send, service, bucket):
    store_run(f"{bucket}/run", STEPS, f"--init_from={bucket}/first@40", step=4)
    assert send(STEPS, f"--init_from={bucket}/first")[0] == 0
    assert send(STEPS)[0] == 0
    code, _, error = send(STEPS, f"--init_from={bucket}/second")
    assert code == 2 and len(service.jobs) == 2
    check_error(error, f"init_from={bucket}/first@40", f"init_from={bucket}/second")


def test_a_model_that_a_job_also_copies_elsewhere_may_be_exported_again(send, bucket):
    store_run(f"{bucket}/other", STEPS, step=10, exported_at=10)
    assert send(STEPS, f"--job_dir={bucket}/other")[0] == 0  # {bucket}/run/model is missing
    assert send(STEPS, f"--job_dir={bucket}/other", folder=f"{bucket}/other")[0] == 2


def test_a_damaged_manifest_is_skipped(send, bucket):
    store_run(f"{bucket}/run", STEPS, step=10, exported_at=10)
    locate(f"{bucket}/run/checkpoints/step-00000010/MANIFEST.json").write_bytes(b"{}")
    assert send(STEPS)[0] == 0


def test_files_of_a_run_that_ended_early_are_no_obstacle(send, bucket):
    for name in ("events.jsonl", "logs/events.out.tfevents.1", "lease.json"):
        locate(f"{bucket}/run/{name}").write_bytes(b"x")
    assert send(STEPS)[0] == 0


def test_a_folder_that_another_process_writes_is_refused(send, service, bucket):
    store_run(f"{bucket}/run", STEPS, step=4)
    with hold(locate(f"{bucket}/run"), "job_dir"):
        code, _, error = send(STEPS)
        assert code == 2 and not service.requests
        check_error(error, f"{bucket}/run", f"process {os.getpid()}")
        assert send(STEPS, "--wait_for_lease")[0] == 0
    assert send(STEPS)[0] == 0


@pytest.mark.parametrize(
    ("args", "mentions"),
    [
        ((STEPS,), ("finished", "step 10", "--steps")),
        ((STEPS, "--seed=7"), ("seed=0", "seed=7", "--allow_config_change")),
        (("--recipe=dcgan",), ("recipe=digits", "recipe=dcgan")),
        (("--steps=20", "--resume=never"), ("step 10", "--resume=never")),
    ],
)
def test_a_folder_with_a_run_that_would_not_resume_is_refused(send, service, bucket, args, mentions):
    store_run(f"{bucket}/run", STEPS, step=10, exported_at=10)
    content = changed(RIGHT, scheduling={"disableRetries": True})
    code, _, error = send(*args, content=content)
    assert code == 2 and not service.requests
    check_error(error, f"{bucket}/run", *mentions)


def test_a_folder_with_other_files_is_refused(send, service, bucket):
    locate(f"{bucket}/run/photos/1.png").write_bytes(b"x")
    code, _, error = send(STEPS)
    assert code == 2 and not service.requests
    check_error(error, f"{bucket}/run", "photos/1.png")


def test_a_missing_bucket_is_refused(send, service, bucket):
    code, _, error = send(STEPS, folder=f"{bucket}-mispelled/run")
    assert code == 1 and not service.requests
    check_error(error, f"{bucket}-mispelled")


def test_a_second_study_needs_another_folder(service, bucket, tmp_path, capsys):
    content = changed(
        TUNING, studySpec__parameters=[SEED], trialJobSpec__baseOutputDirectory={"outputUriPrefix": f"{bucket}/study"}
    )
    assert run_submit(tmp_path, capsys, content)[0] == 0
    locate(f"{bucket}/study/2/config.json").write_bytes(b"{}")
    code, _, error = run_submit(tmp_path, capsys, content)
    assert code == 2 and len(service.jobs) == 1
    check_error(error, f"{bucket}/study", "--base_output_dir", "{job_id}")
    folders = set()
    for _ in range(2):
        assert run_submit(tmp_path, capsys, content, f"--base_output_dir={bucket}/study/{{job_id}}")[0] == 0
        folders.add(service.bodies()[-1]["trialJobSpec"]["baseOutputDirectory"]["outputUriPrefix"])
    assert len(folders) == 2 and all(folder.startswith(f"{bucket}/study/") for folder in folders)


def test_a_package_that_does_not_exist_is_refused(send, service, bucket):
    content = changed(
        RIGHT,
        workerPoolSpecs__0__containerSpec=...,
        workerPoolSpecs__0__pythonPackageSpec=PACKAGE | {"packageUris": [f"{bucket}/gan_trainer-0.1.0.tar.gz"]},
    )
    code, _, error = send(content=content)
    assert code == 2 and not service.requests
    check_error(error, f"{bucket}/gan_trainer-0.1.0.tar.gz", "--staging_bucket")
    locate(f"{bucket}/gan_trainer-0.1.0.tar.gz").write_bytes(b"x")
    assert send(content=content)[0] == 0


@pytest.mark.parametrize(("account", "code"), [(None, 0), ("gan@p.iam.gserviceaccount.com", 0), (OWN_ACCOUNT, 1)])
def test_a_bucket_that_cannot_be_written(send, service, bucket, monkeypatch, account, code):
    monkeypatch.setattr(gcs, "principal", lambda: OWN_ACCOUNT)
    monkeypatch.setattr(gcs.BucketLocation, "missing_permissions", lambda self, names: ["storage.objects.create"])
    flags = [f"--service_account={account}"] if account else []
    received, messages, error = send(STEPS, flags=flags)
    assert received == code and len(service.jobs) == 1 - code
    assert "storage.objects.create" in (error or json.dumps(messages))

"""`submit` looks whether the machines of a job will find its data and can train on it, before it makes the job."""

import json

import numpy as np
import pytest
from specs import JOB, changed
from vertex_service import VertexService

from trainer import submit
from trainer.cloud import vertex
from trainer.data.prepared import write_prepared
from trainer.errors import StorageError
from trainer.storage import locate
from trainer.storage.locations import LocalLocation

pytest.importorskip("yaml")

RIGHT = JOB | {"baseOutputDirectory": {"outputUriPrefix": "gs://b/run"}}
WHERE = "workerPoolSpecs[0].containerSpec.args"
TEXTS = {"name": "photos", "source": "", "license": "", "attribution": ""}


@pytest.fixture
def send(tmp_path, capsys, monkeypatch):
    """Submits a job with these args to a stand-in; returns the exit code, what was said, the error and the jobs."""

    def run(*args, more=()):
        path = tmp_path / "job.json"
        path.write_text(json.dumps(changed(RIGHT, workerPoolSpecs__0__containerSpec__args=list(args))))
        with VertexService() as service:
            monkeypatch.setenv(vertex.ENDPOINT_VARIABLE, service.address)
            code = submit.main(["submit", f"--config={path}", "--project=p", "--region=us-central1", *more])
            printed = capsys.readouterr()
            return code, printed.out, printed.err.replace(f"{path}: ", ""), len(service.jobs)

    return run


@pytest.fixture
def photos(bucket, tmp_path):
    """The description of a data set in a bucket: eight pictures without classes."""
    write_prepared(tmp_path, np.zeros((8, 4, 4, 3), np.uint8), np.zeros(8, np.int32), ["all"], **TEXTS)
    locate(f"{bucket}/photos").upload(tmp_path, ["dataset.json"])
    return f"{bucket}/photos"


@pytest.mark.parametrize("more", [(), ("--dry_run",)])
@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ["--dataset=mnits"],
            "dataset=mnits is not a known data set, and no folder of this machine goes with a job; did",
        ),
        (["--dataset=inverted:data/photos"], "dataset=data/photos is not a known data set, and no folder of this mach"),
        (["--recipe=mine:own", "--dataset=photos"], "dataset=photos is not a known data set, and no folder of this "),
        (["--classes=11"], "classes=11 is not among the 10 classes of digits"),
        (["--global_batch_size=6000"], "global_batch_size=6000 is more than the 5000 images of the data set; give a "),
    ],
)
def test_data_that_is_known_to_be_wrong_is_refused(send, args, told, more):
    code, _, error, jobs = send(*args, more=more)
    assert (code, jobs) == (2, 0) and error.startswith(f"error: {WHERE}: {told}") and error.count("\n") == 1


@pytest.mark.parametrize(
    "args", [["--dataset=/data/photos"], ["--recipe=mine:own"], ["--recipe=mine:own", "--global_batch_size=9000"]]
)
def test_what_an_image_holds_and_a_recipe_of_ones_own_sets_is_not_known(send, args):
    assert send(*args)[::3] == (0, 1)


def test_a_set_in_a_bucket_is_looked_at_and_a_dry_run_looks_at_none(send, photos):
    for args in (["--recipe=dcgan", f"--dataset={photos}", "--global_batch_size=8"], ["--recipe=mine:own"]):
        code, _, error, jobs = send(*args, f"--dataset={photos.replace('gs://', '/gcs/')}")
        assert (code, error, jobs) == (0, "", 1)
    for args, told in (
        ([f"--dataset={photos}s"], f"dataset={photos}s has no dataset.json; name the folder of a prepared data set."),
        (["--recipe=mine:own", f"--dataset={photos}s"], f"dataset={photos}s has no dataset.json; name the folder "),
        (["--recipe=dcgan", f"--dataset={photos}"], "global_batch_size=128 is more than the 8 images of the data set"),
        (
            [f"--dataset={photos}", "--global_batch_size=8"],
            f"wiring=conditional needs labels of at least 2 classes, and {photos} has one class; give another recipe",
        ),
    ):
        code, _, error, jobs = send(*args)
        assert (code, jobs) == (2, 0) and error.startswith(f"error: {WHERE}: {told}") and error.count("\n") == 1
        assert send(*args, more=["--dry_run"])[::3] == (0, 0)


def test_a_bucket_that_is_not_there_is_told(send, bucket):
    code, _, error, jobs = send("--recipe=dcgan", f"--dataset={bucket}-missing/photos")
    assert (code, jobs) == (1, 0) and f"the bucket {bucket}-missing does not exist" in error


def test_a_bucket_that_this_account_may_not_read_is_left_to_the_job(send, monkeypatch):
    def refuse(self):
        raise StorageError("gs://b/photos cannot be read.")

    monkeypatch.setattr("trainer.data.catalogue.locate", LocalLocation)
    monkeypatch.setattr(LocalLocation, "exists", refuse)
    code, said, error, jobs = send("--recipe=dcgan", "--dataset=gs://b/photos")
    assert (code, error, jobs) == (0, "", 1)
    assert "The data cannot be looked at before the job is sent: gs://b/photos cannot be read." in said

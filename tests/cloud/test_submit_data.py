"""`submit` checks the data of a job before it creates the job."""

import json

import numpy as np
import pytest
from local_vertex import local_service
from specs import changed
from submissions import RIGHT

from trainer.cli import submit
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import StorageError
from trainer.storage import locate
from trainer.storage.local import LocalLocation

pytest.importorskip("yaml")

WHERE = "workerPoolSpecs[0].containerSpec.args"
TEXTS = {"name": "photos", "source": "", "license": "", "attribution": ""}


@pytest.fixture
def send(tmp_path, capsys, monkeypatch):
    """Submits a job to a local service; returns the exit code, the output, the errors and the number of jobs."""

    def run(*args, more=()):
        path = tmp_path / "job.json"
        path.write_text(json.dumps(changed(RIGHT, workerPoolSpecs__0__containerSpec__args=list(args))))
        with local_service(monkeypatch) as service:
            code = submit.main(["submit", f"--config={path}", "--project=p", "--region=us-central1", *more])
            printed = capsys.readouterr()
            return code, printed.out, printed.err.replace(f"{path}: ", ""), len(service.jobs)

    return run


@pytest.fixture
def photos(bucket, tmp_path):
    """Returns a bucket folder with a dataset: eight images without classes in two shards."""
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
    write_prepared(tmp_path / "photos", images, np.zeros(8, np.int32), ["all"], num_shards=2, **TEXTS)
    locate(f"{bucket}/photos").upload(tmp_path / "photos", [path.name for path in (tmp_path / "photos").iterdir()])
    return f"{bucket}/photos"


def check_refused(sent, *mentions):
    """Checks that no job was created, and that the error is one line that mentions the args and these words."""
    code, _, error, jobs = sent
    assert (code, jobs) == (2, 0) and error.startswith("error: ") and error.count("\n") == 1
    for mention in (WHERE, *mentions):
        assert mention in error


@pytest.mark.parametrize("more", [(), ("--dry_run",)])
@pytest.mark.parametrize(
    ("args", "mentions"),
    [
        (["--dataset=mnits"], ("dataset=mnits", "mnist")),
        (["--dataset=inverted:data/photos"], ("dataset=data/photos",)),
        (["--recipe=mine:own", "--dataset=photos"], ("dataset=photos",)),
        (["--classes=11"], ("classes='11'", "10", "digits")),
        (["--global_batch_size=6000"], ("global_batch_size=6000", "5000")),
        (["--metrics=inception"], ("Inception", "--inception_weights", "curl")),
        (["--metrics=inception", "--inception_weights=weights.pb"], ("inception_weights=weights.pb", "gs://")),
        (
            ["--metrics=inception", "--inception_weights=data/weights.tgz"],
            ("inception_weights=data/weights.tgz", "gs://"),
        ),
        (["--dataset=cifar10", "--inception_weights=~/weights.pb"], ("inception_weights=", "weights.pb", "gs://")),
        (["--recipe=mine:own", "--inception_weights=weights.pb"], ("inception_weights=weights.pb", "gs://")),
        (["--inception_weights=https://:x"], ("inception_weights", "https://")),
        (["--inception_weights=https://user:secret@host/x"], ("inception_weights", "https://")),
        (["--recipe=mine:own", "--inception_weights=https://host/x?sig=1"], ("inception_weights", "https://")),
        (["--metrics=none", "--stop_on_collapse"], ("stop_on_collapse", "metrics=none")),
        (["--recipe=photos"], ("photos", "--dataset")),
        (["--recipe=pix2pix", "--dataset=digits"], ("pix2pix", "digits", "paired")),
        (["--recipe=photos", "--dataset=gray_to_color:tinted:digits"], ("gray_to_color", "model=gan", "pix2pix")),
        (["--recipe=photos", "--dataset=photos"], ("dataset=photos",)),
        (["--recipe=photos", "--dataset=digits", "--padding=1"], ("photos", "30x30", "--image_size=32,32")),
        (["--recipe=photos", "--dataset=digits", "--global_batch_size=6000"], ("global_batch_size=6000", "5000")),
        (["--recipe=photos", "--dataset=digits", "--size=huge"], ("size", "huge", "large")),
        (["--recipe=digits", "--size=large"], ("size=large", "digits")),
        (["--recipe=photos", "--dataset=digits", "--generator_learning_rate=-1"], ("generator_learning_rate", "-1")),
    ],
)
def test_data_that_cannot_be_used_is_refused(send, args, mentions, more):
    check_refused(send(*args, more=more), *mentions)


@pytest.mark.parametrize("args", [["--metrics=photos"], ["--metrics=inception", "--inception_weights=download"]])
def test_weights_that_machines_can_fetch_are_accepted(send, args):
    assert send(*args)[::3] == (0, 1)
    assert send("--recipe=mine:own", *args)[::3] == (0, 1)


def test_weights_in_a_bucket_are_checked_except_in_a_dry_run(send, bucket):
    flags = ["--metrics=inception", f"--inception_weights={bucket}/weights.pb"]
    assert send(*flags, more=["--dry_run"])[0] == 0
    code, _, error, jobs = send(*flags)
    assert (code, jobs) == (1, 0) and f"{bucket}/weights.pb" in error and error.count("\n") == 1
    (locate(bucket) / "weights.pb").write_bytes(b"cut")
    check_refused(send(*flags), "inception_weights", f"{bucket}/weights.pb", "3 bytes")


@pytest.mark.parametrize(
    "args",
    [
        *[["--recipe=pix2pix", "--dataset=gray_to_color:tinted:digits", "--dataset_b=gray_to_color:cifar10"]],
        *[["--dataset=/data/photos"], ["--recipe=mine:own"], ["--recipe=mine:own", "--global_batch_size=9000"]],
        *[
            ["--dataset=cifar10", "--inception_weights=/data/weights.tgz"],
            ["--metrics=inception", "--inception_weights=/weights.pb"],
        ],
        *[["--recipe=mine:own", "--inception_weights=/opt/x"], ["--dataset=/data/x", "--inception_weights=/data/y"]],
    ],
)
def test_data_inside_the_image_is_not_checked(send, args):
    assert send(*args)[::3] == (0, 1)


def test_the_recipe_photos_is_checked_against_data_in_a_bucket(send, bucket, tmp_path):
    for side in (100, 32):
        images = np.zeros((3, side, side, 3), np.uint8)
        write_prepared(tmp_path / f"{side}", images, np.zeros(3, np.int32), ["all"], **TEXTS)
        names = [path.name for path in (tmp_path / f"{side}").iterdir()]
        locate(f"{bucket}/{side}").upload(tmp_path / f"{side}", names)
    flags = ["--recipe=photos", f"--dataset={bucket}/100"]
    check_refused(send(*flags), "photos", "100x100", "--image_size=96,96")
    assert send(*flags, more=["--dry_run"])[::3] == (0, 0)
    flags = ["--recipe=photos", f"--dataset={bucket}/32"]
    assert send(*flags)[::3] == (0, 1)  # although there are fewer images than a usual batch
    check_refused(send(*flags, "--model=conditional"), "model=conditional", "labels", f"{bucket}/32")


def test_data_in_a_bucket_is_checked_except_in_a_dry_run(send, photos):
    for args in (["--recipe=dcgan", f"--dataset={photos}", "--global_batch_size=8"], ["--recipe=mine:own"]):
        code, _, error, jobs = send(*args, f"--dataset={photos.replace('gs://', '/gcs/')}")
        assert (code, error, jobs) == (0, "", 1)
    for args, mentions in (
        ([f"--dataset={photos}s"], [f"dataset={photos}s", "dataset.json"]),
        (["--recipe=mine:own", f"--dataset={photos}s"], [f"dataset={photos}s", "dataset.json"]),
        (["--recipe=dcgan", f"--dataset={photos}"], ["global_batch_size=128", "8"]),
        ([f"--dataset={photos}", "--global_batch_size=8"], ["model=conditional", "labels", photos]),
    ):
        check_refused(send(*args), *mentions)
        assert send(*args, more=["--dry_run"])[::3] == (0, 0)


@pytest.mark.parametrize(
    "change", [None, lambda content: b"", lambda content: content[:-1], lambda content: content[:-1] + b"x"]
)
def test_a_dataset_whose_shards_are_missing_or_replaced_is_refused(send, photos, change):
    shard = locate(photos) / "photos-00001-of-00002.tfrecord"
    if change is None:
        shard.parent.delete([shard.name])
    else:
        shard.write_bytes(change(shard.read_bytes()))
    for name in (photos, f"inverted:{photos}"):
        sent = send("--recipe=dcgan", f"--dataset={name}", "--global_batch_size=8")
        check_refused(sent, str(shard), "dataset.json")


def test_a_missing_bucket_is_refused(send, bucket):
    code, _, error, jobs = send("--recipe=dcgan", f"--dataset={bucket}-missing/photos")
    assert (code, jobs) == (1, 0) and f"{bucket}-missing" in error and error.count("\n") == 1


def test_a_bucket_without_access_is_left_to_the_job(send, monkeypatch):
    class Unreadable(LocalLocation):
        def __truediv__(self, name):
            return self

        def exists(self):
            raise StorageError("gs://bkt/photos cannot be read.")

    monkeypatch.setattr("trainer.data.datasets.locate", Unreadable)
    code, said, error, jobs = send("--recipe=dcgan", "--dataset=gs://bkt/photos")
    assert (code, error, jobs) == (0, "", 1)
    assert [line for line in said.splitlines() if "WARNING" in line and "gs://bkt/photos" in line]

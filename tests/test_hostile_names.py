"""Hostile names in runs, checkpoints and studies never become paths outside their folder."""

import io
import json
import os
import shutil
import types

import pytest
from bucket_runs import run
from hostile import IMAGES, SECRET, SECRET_SHA256, check_raised, hostile_names, name_of, put, run_on, tree
from PIL import Image

from trainer.cloud.emulator import venvs
from trainer.cloud.tuning import trial_store
from trainer.errors import CheckpointError, StorageError, TrainerError
from trainer.storage import RunDirectory, locate
from trainer.storage.gcs import BucketLocation, client
from trainer.training.checkpoint.manifest import MANIFEST, CheckpointManifest
from trainer.training.checkpoint.store import CheckpointStore

pytestmark = pytest.mark.usefixtures("outside")


@hostile_names
@pytest.mark.parametrize(
    "command", ["generate", "evaluate", "export", "train", pytest.param("init_from", marks=pytest.mark.slow)]
)
def test_a_hostile_object_in_a_checkpoint_ends_the_command(command, key, bucket_run, work, outside, refused):
    put(f"{bucket_run}/checkpoints/step-00000002", name_of(key, outside))
    refused(run_on(command, bucket_run, work))
    assert not list(work.iterdir())


@hostile_names
def test_a_hostile_object_in_a_source_ends_prepare(key, bucket, work, outside, refused):
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(buffer, "PNG")
    (locate(bucket) / "pictures/1.png").write_bytes(buffer.getvalue())
    put(f"{bucket}/pictures", f"{name_of(key, outside)}/2.png")
    refused(run("prepare", f"--source={bucket}/pictures", f"--out={work}/set", "--num_workers=1"))
    assert not list(work.iterdir())


@pytest.mark.slow
@hostile_names
def test_a_hostile_object_in_a_run_stays_outside_of_its_report(key, bucket_run, work, outside, capsys):
    for folder in ("", "/samples", "/checkpoints"):
        put(f"{bucket_run}{folder}", name_of(key, outside))
    code = run_on("report", bucket_run, work)
    error = capsys.readouterr().err
    assert code == 0 or (code == 1 and error.startswith("error: ") and error.count("\n") == 1)
    assert {path.name for path in work.iterdir()} <= {"report.html"}


@hostile_names
def test_a_hostile_object_in_a_run_ends_training(key, bucket_run, work, outside, refused):
    put(bucket_run, name_of(key, outside))
    refused(run_on("train", bucket_run, work))


@hostile_names
def test_a_listing_with_a_hostile_name_is_refused(key, outside, bucket, monkeypatch):
    blob = types.SimpleNamespace(name=f"run/{name_of(key, outside)}", size=1, crc32c="")
    page = types.SimpleNamespace(pages=[[blob]], prefixes=[], next_page_token=None)
    monkeypatch.setattr(type(client()), "list_blobs", lambda *_, **__: page)
    with pytest.raises(StorageError) as caught:
        list(locate(f"{bucket}/run").entries())
    check_raised(caught)
    with pytest.raises(StorageError), RunDirectory(f"{bucket}/run").open():
        pass


@hostile_names
def test_a_hostile_name_is_never_downloaded(key, outside, bucket, work):
    for folder in (locate(work), locate(f"{bucket}/run")):
        with pytest.raises(StorageError) as caught:
            folder.download({name_of(key, outside): work / "x"})
        check_raised(caught)
        assert "temp" not in str(caught.value) and not list(work.iterdir())


def test_a_run_whose_own_name_leads_out_of_its_folder_is_refused(bucket, work):
    for name in (f"{bucket}/..", f"{bucket}/run/..", f"{bucket}/../run", "gs://../run"):
        with pytest.raises(TrainerError), RunDirectory(name).open():
            pass
        with pytest.raises(TrainerError):
            venvs._fetch(name, work, work)


def test_files_that_a_manifest_does_not_list_are_not_downloaded(bucket_run, work, monkeypatch):
    checkpoint = f"{bucket_run}/checkpoints/step-00000002"
    (locate(checkpoint) / "absl.py").write_bytes(b"raise SystemExit")
    fetched = []
    plain = BucketLocation.download
    monkeypatch.setattr(
        BucketLocation, "download", lambda self, files, **how: (fetched.extend(files), plain(self, files, **how))
    )
    store = CheckpointStore(work / "checkpoints", remote=locate(f"{bucket_run}/checkpoints"))
    manifest, problems = store.find()
    assert manifest.step == 2 and not problems
    assert sorted(fetched) == sorted(manifest.files)
    assert sorted(path.name for path in store.folder(2).iterdir()) == sorted([MANIFEST, *manifest.files])


def manifest_of(names, step=2, sha256=SECRET_SHA256):
    files = {name: {"num_bytes": len(SECRET), "sha256": sha256} for name in names}
    return CheckpointManifest(step, files, "0" * 64, {}, {}, {}).to_bytes()


def write_where_it_leads(folder, name):
    """Writes the file that a hostile name leads to, if possible, as an attacker would."""
    path = folder / name
    if path.is_absolute() and path.parts[:2] != folder.parts[:2]:
        return
    inside = os.path.realpath(folder)
    if os.path.commonpath([inside, os.path.realpath(path.parent)]) == inside:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(SECRET)
        except OSError:
            pass


@hostile_names
@pytest.mark.parametrize("where", ["local", "bucket"])
def test_a_manifest_with_a_hostile_name_is_refused(where, key, request, work, outside, refused):
    name = {"absolute": f"{outside}/secret", "parent": "../../../../outside/secret"}.get(key, name_of(key, outside))
    if "\0" in name and where == "local":
        pytest.skip("no file system has such a file")
    run_dir = request.getfixturevalue(f"{where}_run")
    checkpoint = locate(run_dir) / "checkpoints/step-00000002"
    (checkpoint / MANIFEST).write_bytes(manifest_of([name]))
    if where == "local":
        write_where_it_leads(checkpoint.path, name)
        store = CheckpointStore(run_dir / "checkpoints")
    else:
        store = CheckpointStore(work / "checkpoints", remote=locate(f"{run_dir}/checkpoints"))
    for act in (store.find, lambda: store.restore({}), store.find_best):
        if act == store.find_best:
            store._best = "metric/x"
        with pytest.raises(CheckpointError) as caught:
            act()
        check_raised(caught)
    for command in ("train", "generate"):
        refused(run_on(command, run_dir, work))
    assert not (work / "grid.png").exists()


@pytest.mark.parametrize("where", ["local", "bucket"])
@pytest.mark.parametrize("digest", ["../../../outside/x", "A" * 64, "\x1b[2J", 7])
def test_a_manifest_with_an_invalid_hash_is_refused(where, digest, request, work, refused):
    run_dir = request.getfixturevalue(f"{where}_run")
    (locate(run_dir) / f"checkpoints/step-00000002/{MANIFEST}").write_bytes(manifest_of(["x"], sha256=digest))
    refused(run_on("generate", run_dir, work), 1, "SHA-256")


def test_a_manifest_of_another_step_is_refused(local_run, work, refused):
    path = local_run / f"checkpoints/step-00000002/{MANIFEST}"
    (path.parent / "x").write_bytes(SECRET)
    path.write_bytes(manifest_of(["x"], step=7))
    refused(run_on("generate", local_run, work))


@pytest.mark.parametrize("files", [7, [], {"x": 7}, {"x": {}}, {"x": {"num_bytes": "1", "sha256": "0" * 64}}])
def test_a_manifest_with_wrong_types_is_refused(files, local_run, work, refused):
    content = CheckpointManifest(2, files, "0" * 64, {}, {}, {}).to_bytes()
    (local_run / f"checkpoints/step-00000002/{MANIFEST}").write_bytes(content)
    refused(run_on("generate", local_run, work))


@pytest.mark.parametrize("link", ["checkpoints/step-00000002/x", "checkpoints/step-00000002", "checkpoints"])
@pytest.mark.parametrize("command", ["generate", "train"])
def test_a_link_out_of_a_local_run_is_refused(command, link, local_run, work, outside, refused, tmp_path):
    path = local_run / link
    if path.name == "x":
        path.symlink_to(outside / "secret")
        (path.parent / MANIFEST).write_bytes(manifest_of(["x"]))
    else:
        path.rename(work / "elsewhere")
        path.symlink_to(work / "elsewhere")
    before = tree(work)
    refused(run_on(command, local_run, work))
    assert tree(work) == before


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "metrics.jsonl",
        "events.jsonl",
        "report.html",
        "neighbors.png",
        "logs",
        "samples",
        "model",
        ".model.partial",
    ],
)
def test_nothing_is_written_through_a_link_in_a_run(name, local_run, work, outside, refused):
    path = local_run / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(outside / "secret" if path.suffix else outside)
    refused(run_on("train", local_run, work))


@pytest.mark.parametrize("command", ["generate", "evaluate", "export"])
@pytest.mark.parametrize("target", ["secret", "/proc/self/cwd/config.json", "/dev/zero", "loop", "missing"])
def test_a_config_that_is_a_link_is_not_followed(target, command, local_run, work, outside, refused):
    path = local_run / "config.json"
    path.unlink()
    path.symlink_to({"secret": outside / "secret", "loop": path, "missing": work / "none"}.get(target, target))
    refused(run_on(command, local_run, work))


@hostile_names
@pytest.mark.parametrize("setting", ["dataset", "recipe", "loss", "architecture", "model", "metrics"])
def test_a_config_with_a_hostile_name_ends_in_one_line(setting, key, local_run, work, outside, capsys):
    path = local_run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {setting: name_of(key, outside)}))
    code = run_on("evaluate" if setting == "metrics" else "generate", local_run, work)
    error = capsys.readouterr().err
    assert code in (1, 2) and error.startswith("error: ") and error.count("\n") == 1 and len(error) < 2100, error
    assert not (work / "grid.png").exists()


def test_a_run_directory_may_itself_be_a_link(local_run, work):
    (work / "alias").symlink_to(local_run)
    assert run_on("generate", work / "alias", work) == 0


def study(**changes):
    """Returns the content of a study with one interrupted trial."""
    parameter = {"parameterId": "rate", "doubleValueSpec": {"minValue": 0, "maxValue": 1}}
    raw = {"metrics": [{"metricId": "m", "goal": "MINIMIZE"}], "parameters": [parameter]}
    trial = {"id": "1", "state": "ACTIVE", "parameters": [{"parameterId": "rate", "value": 0.5}], "startTime": ""}
    return raw, {"studySpec": raw, "trials": [trial | {"measurements": []} | changes]}


def read_study(content, raw, folder):
    from trainer.cloud.jobs import job_spec

    pool = {"replicaCount": 1, "machineSpec": {"machineType": "n1-standard-4"}, "containerSpec": {"imageUri": "i"}}
    job = {"workerPoolSpecs": [pool]}
    spec = job_spec.parse({"studySpec": raw, "maxTrialCount": 2, "parallelTrialCount": 1, "trialJobSpec": job})
    file = locate(folder) / trial_store.FILE_NAME
    file.write_bytes(json.dumps(content | {"studySpec": spec.study.raw}).encode())
    return trial_store.read(file, spec)


@pytest.mark.parametrize("where", ["local", "bucket"])
@hostile_names
def test_a_study_with_a_hostile_trial_is_refused(where, key, request, work, outside):
    folder = work if where == "local" else request.getfixturevalue("bucket")
    raw, content = study()
    assert list(read_study(content, raw, folder)) == ["1"]
    raw, content = study(id=name_of(key, outside))
    with pytest.raises(StorageError) as caught:
        read_study(content, raw, folder)
    check_raised(caught)


@pytest.mark.parametrize(
    ("name", "value"), [("recipe", "evil:main"), ("rate", "evil:main"), ("rate", None), ("rate", [1]), ("x\x1b[2J", 1)]
)
def test_a_study_sets_only_the_flags_of_its_job(name, value, work):
    raw, content = study(parameters=[{"parameterId": name, "value": value}])
    with pytest.raises(StorageError) as caught:
        read_study(content, raw, work)
    check_raised(caught)

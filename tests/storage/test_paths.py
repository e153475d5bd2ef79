"""Paths of users: `~` and `gs://` work at every entry point, and paths of other services never become folders."""

import json
import os
import pwd
from pathlib import Path

import pytest
from hostile import is_clean
from refusals import check_refusal
from report_runs import make_run

from trainer import cli, data
from trainer.callbacks import Animation, Checkpoint, EventLog, MetricsLog, SampleGrid, TuningReport
from trainer.cli import (
    batch,
    deploy,
    evaluate,
    explore,
    export,
    generate,
    inspect,
    local,
    prepare,
    report,
    serve,
    submit,
    train,
)
from trainer.cloud.jobs import job_spec
from trainer.cloud.jobs.yaml_file import read_yaml
from trainer.config import TrainConfig
from trainer.config.source_run import SourceRun
from trainer.data import loading
from trainer.data.prepare.sources import SourceOptions, open_source
from trainer.environment import Environment
from trainer.errors import ConfigError, TrainerError
from trainer.metrics.digits_classifier import DigitsClassifier
from trainer.report.run_report import RunReport
from trainer.storage import RunDirectory, cache_folder, local_path, locate, parse_path
from trainer.training import complete_config, restore
from trainer.training.checkpoint.store import CheckpointStore
from trainer.training.metric_suite import statistics_folders
from trainer.training.run_state import has_model
from trainer.training.stored_run import stored_config

REFUSED = [
    "s3://bucket/x",
    "S3://bucket/x",
    "GS://bucket/x",
    "Gs://bucket/x",
    "gs:/bucket/x",
    "gs:bucket/x",
    "gs:",
    "gs:\\\\bucket\\x",
    "gcs://bucket/x",
    "gs//bucket/x",
    "GS//bucket/x",
    "s3:bucket/x",
    "s3//bucket/x",
    "file:x",
    "https:host/x",
    "hdfs:x",
    "user@host:x",
    "user@host.com:/x",
    "`pwd`/x",
    "<bucket>/x",
    "\u200b/tmp/x",
    "x\u200b",
    "\ufeff/tmp/x",
    "\u2060x",
    "file:///tmp/x",
    "file://localhost/tmp/x",
    "file:/tmp/x",
    "https://storage.googleapis.com/bucket/x",
    "http://host/x",
    "hdfs://host/x",
    "az://container/x",
    "abfss://container@account/x",
    "wasbs://x/y",
    "dbfs:/x",
    "azure-blob+v2.0://x",
    "C:\\runs\\x",
    "C:/runs/x",
    "c:",
    "c:x",
    "\\\\server\\share",
    "//server/share",
    "//c/Users/x",
    "//gcs/bucket/x",
    "//",
    "///x",
    "runs\\x",
    "..\\x",
    "~no-such-user/x",
    "~no-such-user",
    "",
    " ",
    "x ",
    " x",
    "x\n",
    " gs://bucket/x",
    "gs://bucket/x ",
    "a\0b",
    "a\x1b[2J",
    "a\nb",
    "gs://bucket/../x",
    "gs://../x",
    "gs://bucket/a/..",
    "gs://bucket/a\0b",
    "s3 ://bucket/x",
    "gs\uff1a//bucket/x",
    "my bucket://x",
    "$HOME/x",
    "${HOME}/x",
    "$(pwd)/x",
    "'~/x'",
    '"x"',
    "\u201cx\u201d",
    "a/\udcff",
    "gs://bucket/\udcff",
    "\ud800",
]
WITHOUT_BUCKET = [
    *("gs://", "gs:///x", "gs:// bucket/x", "gs://-x/y", "gs://buc ket/x", "gs://./x", "gs://b?/x"),
    *("gs://$BUCKET/x", "gs://b?x=1", "gs://b#x"),
    *("gs://My_Bucket!/x", "gs://My-Bucket/x", "gs://b/x", "gs://bucket./x", "gs://b..x/x", "gs://192.168.5.4/x"),
    *(f"gs://{'b' * 64}/x", f"gs://{'.'.join(['b' * 55] * 4)}"),
]


@pytest.mark.parametrize("path", REFUSED, ids=ascii)
def test_a_path_of_another_service_is_refused(path):
    for act in (parse_path, locate, local_path, RunDirectory):
        with pytest.raises(ConfigError) as caught:
            act(path)
        assert is_clean(str(caught.value)) and len(str(caught.value)) < 500
    if path.strip() and path.isprintable():
        check_refusal(lambda: locate(path), ConfigError, path.strip()[:2])


@pytest.mark.parametrize("path", WITHOUT_BUCKET)
def test_an_address_without_a_bucket_is_refused(path):
    for act in (parse_path, locate, local_path, RunDirectory):
        check_refusal(lambda act=act: act(path), ConfigError, path[:40])


@pytest.mark.parametrize("path", [Path("gs://bucket/x"), Path("s3://bucket/x"), Path("file:///x")], ids=str)
def test_a_path_object_of_an_address_is_refused(path):
    check_refusal(lambda: locate(path), ConfigError, str(path))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("gs://bucket/a/b", "gs://bucket/a/b"),
        ("gs://bucket/a/b/", "gs://bucket/a/b"),
        ("gs://bucket//a//b", "gs://bucket/a/b"),
        ("gs://bucket/a/./b", "gs://bucket/a/b"),
        ("gs://bucket", "gs://bucket"),
        (f"gs://{'.'.join(['b' * 55] * 3)}/x", f"gs://{'.'.join(['b' * 55] * 3)}/x"),
        ("gs://my_bucket-1/x", "gs://my_bucket-1/x"),
        ("/tmp/x", "/tmp/x"),
        ("runs/x", "runs/x"),
        ("runs//x/", "runs/x"),
        ("../x", "../x"),
        (".", "."),
        ("./s3:/x", "s3:/x"),
        ("./C:\\x", "C:\\x"),
        ("./gs:", "gs:"),
        ("./$HOME", "$HOME"),
        ("./'x'", "'x'"),
        ("a/$b:c/d:e", "a/$b:c/d:e"),
        ("/data/C:\\x", "/data/C:\\x"),
        ("x y/ü", "x y/ü"),
        ("a~", "a~"),
        ("./~", "~"),
        ("step:1", "step:1"),
        ("gsx//a", "gsx/a"),
        ("files:1", "files:1"),
        ("a@b/c:d", "a@b/c:d"),
        ("a\u200bb", "a\u200bb"),
        ("./<a>", "<a>"),
        ("..a", "..a"),
        (Path("a/b"), "a/b"),
    ],
    ids=str,
)
def test_an_accepted_path_is_what_it_says(path, expected):
    assert str(locate(path)) == expected


@pytest.mark.parametrize("name", ["a:b", "gs:", "$HOME", "a\\b"])
def test_a_relative_folder_named_like_an_address_may_have_a_run(name, tmp_path, monkeypatch):
    make_run(tmp_path / name, grids=())
    monkeypatch.chdir(tmp_path)
    with RunDirectory(f"./{name}").open() as directory:
        config = stored_config(directory)
        assert config.recipe == RunReport(directory).content()["recipe"] == "digits"
        assert not has_model(200, config, directory, Environment())


def test_the_cache_may_be_in_a_relative_folder_named_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "./a:b")
    assert [str(folder) for folder in statistics_folders("digits")] == ["a:b/gan-trainer/statistics"]


def test_the_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    user = pwd.getpwuid(os.getuid())
    assert str(locate("~")) == str(tmp_path)
    assert str(locate("~/runs/x")) == str(local_path(Path("~/runs/x"))) == f"{tmp_path}/runs/x"
    assert str(locate(f"~{user.pw_name}/x")) == f"{user.pw_dir}/x"
    assert RunDirectory("~/runs/x").root == tmp_path / "runs/x"


JOB = "workerPoolSpecs:\n- {{replicaCount: 1, machineSpec: {{machineType: n1-standard-4}}, {}}}\n"
PROGRAM = "containerSpec: {imageUri: image}"


def job_file(folder, program=PROGRAM, output="gs://bucket/x"):
    (folder / "job.yaml").write_text(
        JOB.format(program) + f"baseOutputDirectory: {{outputUriPrefix: {json.dumps(output)}}}\n"
    )
    return folder / "job.yaml"


def package(path):
    uris = json.dumps([path])
    return f"pythonPackageSpec: {{executorImageUri: image, pythonModule: trainer.task, packageUris: {uris}}}"


def resolve(**settings):
    return complete_config.resolve(TrainConfig(steps=1, **settings), Environment())


API = {
    "RunDirectory": lambda path, tmp: RunDirectory(path),
    "restore": lambda path, tmp: restore.restore(path),
    "Checkpoint": lambda path, tmp: Checkpoint(path),
    "CheckpointStore": lambda path, tmp: CheckpointStore(path),
    "SampleGrid": lambda path, tmp: SampleGrid(path),
    "SampleGrid.log_dir": lambda path, tmp: SampleGrid(tmp, log_dir=path),
    "MetricsLog": lambda path, tmp: MetricsLog(path),
    "Animation": lambda path, tmp: Animation(path),
    "EventLog": lambda path, tmp: EventLog(path),
    "TuningReport": lambda path, tmp: TuningReport(path, "1"),
    "describe": lambda path, tmp: data.describe(path),
    "describe a transform": lambda path, tmp: data.describe(f"inverted:{path}"),
    "describe a stack": lambda path, tmp: data.describe(f"stacked:{path}"),
    "load": lambda path, tmp: loading.load(path),
    "resolve job_dir": lambda path, tmp: resolve(job_dir=path),
    "resolve dataset": lambda path, tmp: resolve(dataset=path),
    "resolve dataset_b": lambda path, tmp: resolve(dataset_b=path, model="cyclegan"),
    "open_source": lambda path, tmp: open_source(path).__enter__(),
    "image_root": lambda path, tmp: open_source(str(tmp / "x.csv"), SourceOptions(image_root=path)).__enter__(),
    "DigitsClassifier": lambda path, tmp: DigitsClassifier(path),
    "read_yaml": lambda path, tmp: read_yaml(path),
    "output of a job": lambda path, tmp: job_spec.read(job_file(tmp, output=path)),
    "output of a local job": lambda path, tmp: job_spec.read(job_file(tmp, output=path), is_local=True),
    "package of a job": lambda path, tmp: job_spec.read(job_file(tmp, package(path))),
    "package of a local job": lambda path, tmp: job_spec.read(job_file(tmp, package(path)), is_local=True),
}
SAMPLE = ["s3://bucket/x", "GS://bucket/x", "gs:/bucket/x", "file:///tmp/x", "C:\\x", "~no-such-user/x", "x ", "a\0b"]


@pytest.mark.parametrize("path", SAMPLE, ids=ascii)
@pytest.mark.parametrize("entry", API)
def test_an_argument_never_becomes_a_folder(entry, path, tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    (tmp_path / "files").mkdir()
    (tmp_path / "files/x.csv").write_text("path,label\na,b\n")
    monkeypatch.chdir(tmp_path / "cwd")
    if "\0" in path and "job" in entry:
        pytest.skip("a job file has no such text")
    with pytest.raises(TrainerError) as caught:
        API[entry](path, tmp_path / "files")
    assert is_clean(str(caught.value))
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.parametrize("path", [None, 3, b"x", ["x"]], ids=repr)
@pytest.mark.parametrize("entry", ["Checkpoint", "SampleGrid", "MetricsLog", "EventLog", "RunDirectory", "restore"])
def test_an_argument_that_is_no_text_is_refused(entry, path, tmp_path):
    check_refusal(lambda: API[entry](path, tmp_path), ConfigError, repr(path))


@pytest.mark.parametrize("path", [None, 3, b"x"], ids=repr)
def test_a_source_run_that_is_no_text_is_refused(path):
    check_refusal(lambda: SourceRun.parse(path), ConfigError, repr(path))


PROJECT = ("--project=my-project", "--region=us-central1")
FLAGS = {
    "train --job_dir": (train, ["--steps=1", "--job_dir={}"]),
    "train --dataset": (train, ["--steps=1", "--dataset={}"]),
    "train --dataset_b": (train, ["--recipe=cyclegan", "--steps=1", "--dataset_b={}"]),
    "train --init_from": (train, ["--steps=1", "--init_from={}"]),
    "train --inception_weights": (train, ["--steps=1", "--metrics=inception", "--inception_weights={}"]),
    "train --dry_run": (train, ["--steps=1", "--dry_run", "--job_dir={}"]),
    "prepare --source": (prepare, ["--source={}", "--out=out"]),
    "prepare --out": (prepare, ["--source={files}", "--out={}"]),
    "prepare --source_b": (prepare, ["--source={files}", "--out=out", "--source_b={}"]),
    "prepare --image_root": (prepare, ["--source={files}/x.csv", "--out=out", "--image_root={}"]),
    "inspect --dataset": (inspect, ["--dataset={}"]),
    "inspect --contact_sheet": (inspect, ["--dataset=digits", "--contact_sheet={}.png"]),
    "generate --job_dir": (generate, ["--job_dir={}", "--out=x.png"]),
    "generate --out": (generate, ["--job_dir=runs/x", "--out={}.png"]),
    "generate --out, a folder": (generate, ["--job_dir=runs/x", "--out={}/"]),
    "generate --init_image": (generate, ["--job_dir=runs/x", "--out=x", "--init_image={}"]),
    "generate --images": (generate, ["--job_dir=runs/x", "--out=x/", "--images={}"]),
    "explore --job_dir": (explore, ["--job_dir={}"]),
    "report --job_dir": (report, ["--job_dir={}"]),
    "report --out": (report, ["--job_dir=runs/x", "--out={}.html"]),
    "serve --model_dir": (serve, ["--model_dir={}", "--port=0"]),
    "deploy --model_dir": (deploy, ["--model_dir={}", "--image=a/b", *PROJECT]),
    "deploy --job_dir": (deploy, ["--job_dir={}", "--image=a/b", *PROJECT]),
    "batch --out": (batch, ["--model=m", "--out={}", *PROJECT]),
    "batch --staging": (batch, ["--model=m", "--out=x", "--staging={}", *PROJECT]),
    "evaluate --job_dir": (evaluate, ["--job_dir={}"]),
    "evaluate --images": (evaluate, ["--images={}", "--against=digits"]),
    "evaluate --against": (evaluate, ["--images=digits", "--against={}"]),
    "evaluate --inception_weights": (evaluate, ["--images=digits", "--against=digits", "--inception_weights={}"]),
    "evaluate --out": (evaluate, ["--images=digits", "--against=digits", "--neighbors=1", "--out={}.png"]),
    "export --job_dir": (export, ["--job_dir={}", "--out=x"]),
    "export --out": (export, ["--job_dir=runs/x", "--out={}"]),
    "submit --config": (submit, ["--config={}", "--dry_run"]),
    "submit --staging_bucket": (submit, ["--config={files}/job.yaml", "--staging_bucket={}", "--dry_run"]),
    "submit --base_output_dir": (submit, ["--config={files}/job.yaml", "--base_output_dir={}", "--dry_run"]),
    "submit --args": (submit, ["--config={files}/job.yaml", "--args=--job_dir={}", "--dry_run"]),
    "local --config": (local, ["--config={}"]),
    "local --base_output_dir": (local, ["--config={files}/job.yaml", "--base_output_dir={}"]),
    "local --args": (local, ["--config={files}/job.yaml", "--args=--job_dir={}"]),
}


@pytest.mark.parametrize(
    "path",
    ["s3://bucket/x", "GS://bucket/x", "gs:/bucket/x", "gs://My_Bucket/x", "file:///tmp/x", "C:\\x", "~no-user/x"],
)
@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_never_becomes_a_folder(flag, path, tmp_path, monkeypatch, capsys):
    (tmp_path / "cwd").mkdir()
    (tmp_path / "files").mkdir()
    (tmp_path / "files/x.csv").write_text("path,label\na,b\n")
    job_file(tmp_path / "files")
    monkeypatch.chdir(tmp_path / "cwd")
    command, arguments = FLAGS[flag]
    assert issubclass(type(command), type(cli))
    arguments = [text.replace("{files}", str(tmp_path / "files")).replace("{}", path) for text in arguments]
    code = command.main(["command", *arguments])
    error = capsys.readouterr().err
    assert code in (1, 2) and error.startswith("error: ") and error.count("\n") == 1, error
    assert (path if path.startswith("gs://") else path[:2]) in error
    assert list((tmp_path / "cwd").iterdir()) == []


@pytest.mark.parametrize("flag", FLAGS)
def test_an_empty_path_is_refused(flag, tmp_path, monkeypatch, capsys):
    test_a_flag_never_becomes_a_folder(flag, "", tmp_path, monkeypatch, capsys)


def test_the_cache_is_below_the_folder_for_caches_or_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder("kind") == tmp_path / "cache/gan-trainer/kind"
    for value in ("", None):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder("kind") == tmp_path / ".cache/gan-trainer/kind"
    assert not list(tmp_path.iterdir())


def test_a_cache_without_a_place_is_refused(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)

    def no_entry(_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    check_refusal(lambda: cache_folder("kind"), ConfigError, "XDG_CACHE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "s3://bucket/cache")
    check_refusal(lambda: cache_folder("kind"), ConfigError, "s3://bucket/cache")

"""Preparation with Apache Beam: workers make the same bytes, and their errors reach the user as one sentence."""

import functools
import pickle
import re
import sys
from pathlib import Path

import pytest
from pictures import digests, image
from refusals import check_command_refusal, check_refusal

from trainer import __main__ as commands
from trainer.data.prepare import beam_pipeline, convert
from trainer.data.prepare.beam_pipeline import ShardJob
from trainer.data.prepare.conversion_plan import ConversionOptions, plan_conversion
from trainer.data.prepare.sharding import Part
from trainer.data.prepare.sources import open_source
from trainer.errors import ConfigError, DataError, StorageError
from trainer.storage import locate

METADATA = {"name": "set", "source": "here", "license": "", "attribution": "", "options": {}}
OPTIONS = ConversionOptions(image_size=(6, 6), num_shards=5, num_processes=1, max_bad_images=1)


@pytest.fixture
def folder(tmp_path):
    """A folder of pictures, one of which is damaged."""
    for number in range(20):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(number, size=(8, 8))[: -30 if number == 7 else None])
    return tmp_path / "pictures"


@pytest.fixture(autouse=True)
def _closed_sources():
    yield
    beam_pipeline._close()


def prepare(folder, out, make_shards=None):
    """Prepares the folder; with `make_shards`, a function of a pickled job and the numbers of the missing shards."""
    open_folder = functools.partial(open_source, str(folder))

    def make(conversion, shards):
        job = ShardJob(open_source=open_folder, options=OPTIONS, out=str(out), fingerprint=conversion.fingerprint)
        make_shards(pickle.dumps(job), shards)

    with open_folder() as source:
        plan = plan_conversion(source, OPTIONS)
        arguments = source, plan, OPTIONS, locate(out), METADATA, lambda progress: None, Part()
        return convert.convert_part(*arguments, make if make_shards else None)


def make_all(job, shards):
    for index in reversed(shards):
        pickle.loads(job).make_shard(index)


def test_workers_that_know_only_a_job_make_the_same_bytes(folder, tmp_path):
    prepare(folder, tmp_path / "expected")
    _, progress = prepare(folder, tmp_path / "out", make_all)
    assert digests(tmp_path / "out") == digests(tmp_path / "expected")
    assert [name for name, _ in progress.bad_images] == ["b/7.png"]


def test_finished_shards_are_not_made_again_and_others_twice_without_harm(folder, tmp_path):
    def make_some(job, shards):
        make_all(job, shards[1:3] * 2)

    check_refusal(lambda: prepare(folder, tmp_path / "out", make_some), StorageError, "3 shards", str(tmp_path / "out"))
    made = []
    prepare(folder, tmp_path / "out", lambda job, shards: made.extend(shards) or make_all(job, shards))
    assert made == [0, 3, 4]
    prepare(folder, tmp_path / "expected")
    assert digests(tmp_path / "out") == digests(tmp_path / "expected")


def test_a_worker_with_another_list_of_images_makes_no_shard(folder, tmp_path):
    def make_later(job, shards):
        (folder / "a/0.png").unlink()
        make_all(job, shards)

    check_refusal(lambda: prepare(folder, tmp_path / "out", make_later), ConfigError, str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.tfrecord"))


def test_a_late_worker_leaves_a_finished_dataset_alone(folder, tmp_path):
    jobs = []
    prepare(folder, tmp_path / "out", lambda job, shards: jobs.append(job) or make_all(job, shards))
    before = digests(tmp_path / "out")
    check_refusal(lambda: pickle.loads(jobs[0]).make_shard(0), ConfigError, str(tmp_path / "out"))
    assert digests(tmp_path / "out") == before


def test_without_beam_the_extra_is_named(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    command = ["trainer", "prepare", f"--source={folder}", f"--out={tmp_path}/out"]
    arguments = [*command, "--beam_options=--runner=DirectRunner"]
    check_command_refusal(commands.main, arguments, capsys, 2, "beam_options", "pip install 'gan-trainer[beam]'")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def beam():
    return pytest.importorskip("apache_beam", reason="the extra beam is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "--runner=DirectRunner",
        "--runner=BundleBasedDirectRunner",
        "--runner=FnApiRunner --direct_num_workers=2 --direct_running_mode=multi_processing",
    ],
)
def test_the_runners_of_beam_make_the_same_bytes(options, beam, folder, tmp_path):
    command = ["trainer", "prepare", f"--source={folder}", "--image_size=6,6", "--num_shards=5", "--max_bad_images=1"]
    command += ["--name=set", "--num_workers=1"]
    assert commands.main([*command, f"--out={tmp_path}/expected"]) == 0
    assert commands.main([*command, f"--out={tmp_path}/out", f"--beam_options={options}"]) == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "expected")


@pytest.mark.slow
def test_an_error_of_a_worker_is_one_sentence(beam, folder, tmp_path, capsys):
    command = ["trainer", "prepare", f"--source={folder}", f"--out={tmp_path}/out", "--image_size=6,6"]
    command += ["--num_shards=5", "--beam_options=--runner=FnApiRunner"]
    check_command_refusal(commands.main, command, capsys, 1, "b/7.png", "--max_bad_images=0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        ("", "--runner"),
        ("--job_name=x", "--runner"),
        ("--runner=NoRunner", "NoRunner"),
        ("--runner=DirectRunner --direct_num_worker=2", "direct_num_worker"),
        ("--runner=DirectRunner --direct_num_workers=two", "two"),
        ("--runner=DataflowRunner", "Dataflow"),
        ("--runner='DirectRunner", "quotation"),
    ],
)
def test_options_that_beam_would_ignore_or_reject_are_refused(options, mentions, beam):
    check_refusal(lambda: beam_pipeline.parse_options(options, ["gs://a/b"]), ConfigError, "beam_options", mentions)


@pytest.mark.slow
def test_beam_knows_the_options_in_the_docs(beam):
    docs = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    texts = [text.replace("\\\n", "") for text in re.findall(r'--beam_options="(.+?)"', docs, re.DOTALL)]
    assert any("DataflowRunner" in text for text in texts)
    for text in texts:
        local = text.replace("DataflowRunner", "DirectRunner")  # the other one needs credentials
        options = beam_pipeline.parse_options(local, []).get_all_options(drop_default=True)
        assert {option.partition("=")[0].lstrip("-") for option in local.split()} <= {*options, "extra_package"}


def test_the_errors_of_runners_are_recognized():
    text = "Traceback\n  line\ntrainer.errors.DataError: a/1.png is empty. [while running 'Make-ptransform-3']\n"
    assert beam_pipeline._USER_ERROR.search(text)[1] == "a/1.png is empty."
    assert DataError.__module__ == "trainer.errors"

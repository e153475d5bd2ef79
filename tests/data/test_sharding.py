"""Preparation in shards: the same bytes from any number of machines and processes, and after any interruption."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from absl import flags as absl_flags
from pictures import digests, image
from refusals import check_refusal

from trainer import __main__ as commands
from trainer.cli import filter_flags, shard_flags
from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec, Shard
from trainer.data.loading import load
from trainer.data.prepare import convert, estimate, replica_watch, shard_commit
from trainer.data.prepare.conversion_plan import ConversionOptions, plan_conversion
from trainer.data.prepare.shard_commit import REJECTED_NAME
from trainer.data.prepare.sharding import MAX_SHARDS, Part, shard_bounds
from trainer.data.prepare.sources import open_source
from trainer.environment import Environment
from trainer.errors import ConfigError, DataError
from trainer.storage import lease, locate
from trainer.storage.documents import MAX_DOCUMENT_BYTES

METADATA = {"name": "set", "source": "here", "license": "", "attribution": "", "options": {}}
NUM_IMAGES, NUM_SHARDS = 40, 6


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(NUM_IMAGES):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(image(number, size=(6, 6)))
    return tmp_path / "pictures"


def prepare(folder, out, part=None, on_progress=lambda progress: None, **options):
    options = ConversionOptions(**({"num_processes": 1, "num_shards": NUM_SHARDS} | options))
    with open_source(str(folder)) as source:
        plan = plan_conversion(source, options)
        return convert.convert_part(source, plan, options, locate(str(out)), METADATA, on_progress, part or Part())


@pytest.fixture
def expected(folder, tmp_path):
    prepare(folder, tmp_path / "expected")
    return digests(tmp_path / "expected")


@pytest.mark.parametrize(("num_images", "num_shards"), [(1, 1), (7, 3), (40, 40), (1000, 7)])
def test_shards_have_equal_parts_of_all_images(num_images, num_shards):
    sizes = np.diff(shard_bounds(num_images, num_shards))
    assert sizes.sum() == num_images and sizes.min() >= 1 and sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 0, 1)])
def test_three_replicas_write_the_bytes_of_one_process(order, folder, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_commit, "_POLL_SECS", 0.02)
    results = {}

    def make(index):
        results[index] = prepare(folder, tmp_path / "out", Part(index, 3))

    threads = [threading.Thread(target=make, args=(index,)) for index in order]
    for thread in threads:
        thread.start()
        thread.join(0.2)  # the chief waits for the others
    for thread in threads:
        thread.join(60)
    assert digests(tmp_path / "out") == expected
    assert results[1][0] is None and results[0][0].num_examples == NUM_IMAGES
    again = {index: prepare(folder, tmp_path / "out", Part(index, 3))[0] for index in range(3)}  # restarted machines
    assert again[0] == results[0][0] and digests(tmp_path / "out") == expected


def test_replicas_write_a_dataset_in_a_bucket(folder, expected, bucket, tmp_path):
    remote = locate(bucket) / "set"
    for index in (2, 1, 0):
        prepare(folder, remote, Part(index, 3))
    entries = [entry.name for entry in remote.entries()]
    remote.download({name: tmp_path / "back" / name for name in entries})
    assert digests(tmp_path / "back") == expected


@pytest.fixture
def impatient(monkeypatch):
    """Lets the chief look at the other machines all the time, and give up those that are not known to run."""
    monkeypatch.setattr(shard_commit, "_POLL_SECS", 0.02)
    monkeypatch.setattr(replica_watch, "_SECS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(replica_watch, "_MAX_MISMATCH_SECS", 0.3)
    monkeypatch.setattr(replica_watch, "MAX_IDLE_MINUTES", 0.005)


def test_the_chief_ends_if_another_machine_has_made_other_shards(folder, expected, tmp_path, impatient):
    out = tmp_path / "out"
    prepare(folder, out, Part(1, 3))
    prepare(folder, out, Part(2, 3), image_size=(4, 4))
    check_refusal(lambda: prepare(folder, out, Part(0, 3)), ConfigError, "replica=2", str(out))
    prepare(folder, out, Part(2, 3))
    assert prepare(folder, out, Part(0, 3))[1].num_kept == 2 and digests(out) == expected


def test_the_chief_ends_at_once_if_other_shards_appear_while_it_waits(folder, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", logger="trainer")
    monkeypatch.setattr(shard_commit, "_POLL_SECS", 0.02)
    errors = []

    def make():
        try:
            prepare(folder, tmp_path / "out", Part(0, 2))
        except ConfigError as error:
            errors.append(str(error))

    thread = threading.Thread(target=make)
    thread.start()
    while "Waiting" not in caplog.text:
        time.sleep(0.02)
    (folder / "0.png").unlink()
    prepare(folder, tmp_path / "out", Part(1, 2))
    thread.join(30)
    assert len(errors) == 1 and "replica=1" in errors[0]


@pytest.mark.parametrize("is_remote", [False, True])
def test_the_chief_waits_for_running_machines_and_not_for_others(
    is_remote, folder, expected, tmp_path, request, impatient
):
    out = locate(request.getfixturevalue("bucket")) / "set" if is_remote else locate(str(tmp_path / "out"))
    errors = []

    def make():
        try:
            prepare(folder, out, Part(0, 2))
        except ConfigError as error:
            errors.append(str(error))

    thread = threading.Thread(target=make)
    with lease.hold(replica_watch.replica_folder(out, 1), "out"):
        thread.start()
        thread.join(1.5)
        assert thread.is_alive()
    thread.join(30)
    assert len(errors) == 1 and "replica=1" in errors[0]
    prepare(folder, out, Part(1, 2))
    assert prepare(folder, out, Part(0, 2))[1].num_kept == 3


@pytest.mark.parametrize("done", [1, 20, 39])
def test_an_interruption_costs_at_most_the_shard_that_is_being_written(done, folder, expected, tmp_path):
    def interrupt(progress):
        if progress.done == done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "out", on_progress=interrupt)
    assert not (tmp_path / "out" / SPEC_NAME).exists()
    num_finished = int(np.searchsorted(shard_bounds(NUM_IMAGES, NUM_SHARDS), done, side="left")) - 1
    _, progress = prepare(folder, tmp_path / "out")
    assert progress.num_kept == num_finished
    assert digests(tmp_path / "out") == expected


@pytest.mark.parametrize("damage", ["shard", "report", "large report", "missing", "source", "options"])
def test_a_finished_shard_is_made_again_if_it_is_damaged_or_differs(damage, folder, expected, tmp_path):
    out = tmp_path / "out"
    assert prepare(folder, out, Part(1, 2))[0] is None
    shard, report = out / "images-00003.tfrecord", out / ".images-00003.tfrecord.json"
    options = {}
    match damage:
        case "shard":
            shard.write_bytes(shard.read_bytes()[:-1] + b"x")
        case "report":
            report.write_text("{")
        case "large report":
            os.truncate(report, MAX_DOCUMENT_BYTES + 1)
        case "missing":
            shard.unlink()
        case "source":
            (folder / "0.png").unlink()
        case "options":
            options = {"image_size": (4, 4)}
    _, progress = prepare(folder, out, **options)
    assert progress.num_kept == (0 if damage in ("source", "options") else 2)
    if progress.num_kept:
        assert digests(out) == expected
    else:
        prepare(folder, tmp_path / "new", **options)
        assert digests(out) == digests(tmp_path / "new")


def test_rejected_images_are_listed_with_reasons_from_all_replicas(folder, tmp_path):
    (folder / "cut.png").write_bytes((folder / "3.png").read_bytes()[:-40])
    (folder / "thin.png").write_bytes(image(50, size=(6, 30)))
    (folder / "small.png").write_bytes(image(51, size=(3, 3)))
    options = {"image_size": (6, 6), "min_side": 4, "max_aspect_ratio": 3.0, "max_bad_share": 0.03}
    prepare(folder, tmp_path / "out", Part(1, 2), **options)
    spec, progress = prepare(folder, tmp_path / "out", Part(0, 2), **options)
    lines = [json.loads(line) for line in (tmp_path / "out" / REJECTED_NAME).read_text().splitlines()]
    filtered = {line["name"]: line["is_filtered"] for line in lines}
    assert filtered == {"cut.png": False, "thin.png": True, "small.png": True}
    assert all(line["reason"] for line in lines) and [name for name, _ in progress.bad_images] == ["cut.png"]
    assert spec.num_examples == NUM_IMAGES == len(load(str(tmp_path / "out")).images)
    check_refusal(
        lambda: prepare(folder, tmp_path / "few", **(options | {"max_bad_share": 0.01})), DataError, "cut.png", "1%"
    )


def test_a_rejected_file_may_have_a_name_that_is_not_utf_8(folder, tmp_path):
    name = os.fsdecode(b"cut-\xff.png")
    (folder / name).write_bytes((folder / "3.png").read_bytes()[:-40])
    for index in range(NUM_SHARDS - 1, -1, -1):  # the chief comes last
        spec, _ = prepare(folder, tmp_path / "out", Part(index, NUM_SHARDS), max_bad_images=1)
    assert spec.num_examples == NUM_IMAGES
    (line,) = (tmp_path / "out" / REJECTED_NAME).read_text().splitlines()
    assert json.loads(line)["name"].encode("ascii").startswith(b"cut-\\")


def test_an_old_list_of_rejected_images_is_deleted(folder, expected, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / REJECTED_NAME).write_text("{}\n")
    prepare(folder, tmp_path / "out")
    assert digests(tmp_path / "out") == expected


def test_a_report_that_could_not_be_read_again_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_commit, "MAX_DOCUMENT_BYTES", 100)
    check_refusal(lambda: prepare(folder, tmp_path / "out"), DataError, "images-00000.tfrecord", "--num_shards")


def test_a_shard_without_usable_images_is_left_out(folder, tmp_path):
    for number in range(1, NUM_IMAGES):
        (folder / f"{number}.png").write_bytes(image(number, size=(3, 3)))
    spec, _ = prepare(folder, tmp_path / "out", image_size=(6, 6), min_side=4)
    assert [shard.num_examples for shard in spec.shards] == [1]
    assert set(digests(tmp_path / "out")) == {SPEC_NAME, REJECTED_NAME, spec.shards[0].file}


def test_an_estimate_from_all_images_equals_the_dataset_and_writes_nothing(folder, tmp_path, capsys):
    (folder / "small.png").write_bytes(image(51, size=(3, 3)))
    (folder / "cut.png").write_bytes((folder / "3.png").read_bytes()[:-40])
    options = ConversionOptions(image_size=(6, 6), min_side=4, num_processes=1, num_shards=NUM_SHARDS, max_bad_images=1)
    with open_source(str(folder)) as source:
        plan = plan_conversion(source, options)
        result = estimate.estimate_conversion(source, plan, options)
    spec, progress = prepare(folder, tmp_path / "out", image_size=(6, 6), min_side=4, max_bad_images=1)
    assert result.num_sampled == result.num_images == NUM_IMAGES + 2 and result.images_per_sec > 0
    assert result.num_bytes == sum(shard.num_bytes for shard in spec.shards)
    assert set(result.rejected) == set(progress.rejected) and len(progress.rejected) == 2
    assert result.allows_bad_images(options)
    assert not result.allows_bad_images(dataclasses.replace(options, max_bad_images=0))
    command = ["trainer", "prepare", f"--source={folder}", f"--out={tmp_path}/new", "--image_size=6", "--dry_run"]
    assert commands.main([*command, "--num_shards=6", "--num_workers=1"]) == 0
    printed = "".join(capsys.readouterr())
    assert "42 images" in printed and "6 shards" in printed and "cut.png" in printed and "--max_bad" in printed
    assert not (tmp_path / "new").exists()


def test_an_estimate_of_many_images_reads_a_random_sample(folder, monkeypatch):
    monkeypatch.setattr(estimate, "MAX_SAMPLED", 10)
    options = ConversionOptions(image_size=(6, 6), num_processes=1)
    with open_source(str(folder)) as source:
        result = estimate.estimate_conversion(source, plan_conversion(source, options), options)
    assert (result.num_images, result.num_sampled) == (NUM_IMAGES, 10)
    assert result.num_bytes == 4 * result.sample_bytes


def test_of_images_with_the_same_content_the_first_one_stays(tmp_path):
    for number in range(12):
        path = tmp_path / "pictures" / ("a" if number < 6 else "b") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(number, size=(6, 6)))
    folder = tmp_path / "pictures"
    for name, original in {"a/7.png": "a/2.png", "b/2.png": "a/2.png", "b/10a.png": "b/10.png"}.items():
        (folder / name).write_bytes((folder / original).read_bytes())
    (folder / "a/20.png").write_bytes(b"")  # two files that cannot be read are no duplicates
    (folder / "a/21.png").write_bytes(b"")
    options = {"drop_duplicates": True, "num_shards": 3, "max_bad_images": 2}
    spec, progress = prepare(folder, tmp_path / "out", **options)
    lines = [json.loads(line) for line in (tmp_path / "out" / REJECTED_NAME).read_text().splitlines()]
    reasons = {line["name"]: line["reason"] for line in lines if line["is_filtered"]}
    assert set(reasons) == {"a/7.png", "b/2.png", "b/10a.png"} and len(progress.bad_images) == 2
    assert all("'a/2.png'" in reasons[name] for name in ("a/7.png", "b/2.png"))
    assert "'a'" in reasons["b/2.png"] and "class" not in reasons["a/7.png"]
    assert spec.num_examples == 12 and len(np.unique(load(str(tmp_path / "out")).images, axis=0)) == 12
    for index in (1, 0):
        prepare(folder, tmp_path / "two", Part(index, 2), num_processes=2, **options)
    assert digests(tmp_path / "two") == digests(tmp_path / "out")
    assert prepare(folder, tmp_path / "all", num_shards=3, max_bad_images=2)[0].num_examples == 15


def test_pairs_are_duplicates_if_both_images_are_equal(tmp_path):
    for name, numbers in {"input": (0, 0, 1, 1), "target": (2, 2, 2, 4)}.items():
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for position, number in enumerate(numbers):
            (tmp_path / "pictures" / name / f"{position}.png").write_bytes(image(number, size=(6, 6)))
    command = ["trainer", "prepare", f"--source={tmp_path}/pictures", f"--out={tmp_path}/out", "--paired"]
    assert commands.main([*command, "--drop_duplicates", "--num_workers=1"]) == 0
    description = json.loads((tmp_path / "out" / SPEC_NAME).read_text())
    assert description["num_examples"] == 3 and description["options"]["drop_duplicates"] is True


def test_dataset_json_can_describe_the_largest_number_of_shards():
    file = {"num_examples": 10**6, "num_bytes": 2**36, "sha256": "a" * 64, "crc32c": "AAAAAA=="}

    def num_bytes(num_shards):
        shards = tuple(Shard(file=shard_commit.shard_name(index), **file) for index in range(num_shards))
        counts = {"num_examples": 10**6, "class_names": ("a",), "class_counts": (10**6,)}
        return len(DatasetSpec(image_shape=(256, 256, 3), shards=shards, **counts, **METADATA).to_json())

    assert num_bytes(10) + (num_bytes(11) - num_bytes(10)) * MAX_SHARDS < MAX_DOCUMENT_BYTES - 2 * 2**20


@pytest.mark.parametrize("num_shards", [NUM_IMAGES + 1, 10**6])
def test_more_shards_than_images_are_refused(num_shards, folder, tmp_path):
    check_refusal(lambda: prepare(folder, tmp_path / "out", num_shards=num_shards), ConfigError, str(num_shards))


@pytest.mark.parametrize("text", ["0.1", "101%", "-1%", "nan%", "1e1%", "", "%", "٣%"])
def test_a_share_that_is_no_percentage_is_refused(text):
    check_refusal(lambda: filter_flags.parse_share(text), ConfigError, "max_bad")
    assert filter_flags.parse_share("0.1%") == pytest.approx(0.001) and filter_flags.parse_share(None) == 0


def part_of(task=None, *, job="7", **flags):
    """The part of a machine with flags, and of a job with a chief, two workers and an evaluator if it has a task."""
    values = absl_flags.FlagValues()
    shard_flags.define_flags(values)
    values([""] + [f"--{name}={value}" for name, value in flags.items()])
    pools = {"workerpool0": ["a:1"], "workerpool1": ["b:1", "c:1"], "workerpool3": ["d:1"]}
    environ = {"CLOUD_ML_JOB_ID": job}
    if task is not None:
        environ["CLUSTER_SPEC"] = json.dumps({"cluster": pools, "task": {"type": task[0], "index": task[1]}})
    return shard_flags.part_of(values, Environment.read(environ))


def test_each_machine_of_a_job_makes_a_part_of_its_own():
    parts = [part_of(task) for task in [("workerpool0", 0), ("workerpool1", 0), ("workerpool1", 1)]]
    assert [(part.index, part.num_replicas) for part in parts] == [(0, 3), (1, 3), (2, 3)]
    assert len({part.owner for part in parts}) == 3 and part_of(("workerpool1", 1)) == parts[2]
    assert part_of(job="") == Part() and part_of(job="", replica=3, num_replicas=4) == Part(3, 4)
    assert sorted(shard for part in parts for shard in range(10) if part.owns(shard)) == list(range(10))
    check_refusal(lambda: part_of(("workerpool3", 0)), ConfigError, "workerpool3")
    check_refusal(lambda: part_of(replica=1), ConfigError, "num_replicas", "replica=1")
    check_refusal(lambda: part_of(num_replicas=2), ConfigError, "num_replicas=2", "replica")
    check_refusal(lambda: part_of(replica=2, num_replicas=2), ConfigError, "replica=2", "num_replicas=2")


@pytest.mark.slow
def test_killed_replicas_resume_with_the_same_bytes(folder, expected, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    common = [f"--source={folder}", f"--out={out}", f"--num_shards={NUM_SHARDS}", "--num_workers=1", "--num_replicas=2"]

    def start(index):
        command = [sys.executable, "-m", "trainer", "prepare", *common, f"--replica={index}"]
        with log.open("ab") as file:
            return subprocess.Popen(command, stdout=file, stderr=file)

    chief = start(0)  # waits for the shards of the other replica
    deadline = time.monotonic() + 60
    while not (out / ".images-00000.tfrecord.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(chief.pid, signal.SIGKILL)
    chief.wait()
    assert not (out / SPEC_NAME).exists()
    other = start(1)
    time.sleep(1.0)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    processes = [start(1), start(0)]
    assert [process.wait(120) for process in processes] == [0, 0], log.read_text()
    shards = {name: digest for name, digest in digests(out).items() if name.endswith(".tfrecord")}
    assert shards == {name: digest for name, digest in expected.items() if name.endswith(".tfrecord")}

"""`merge` makes one dataset of several: the same records, classes by name, complete or absent."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf
from pictures import digests
from refusals import check_command_refusal, check_refusal

from trainer import __main__ as commands
from trainer.config.suites import SUITES
from trainer.data import tfrecord_reader
from trainer.data.dataset_spec import SPEC_NAME, read_dataset_spec
from trainer.data.loading import load
from trainer.data.prepare import merge
from trainer.data.prepare.shard_commit import REJECTED_NAME
from trainer.data.tfrecord_writer import ShardWriter, write_prepared
from trainer.errors import ConfigError, DataError, LeaseError
from trainer.storage import locate
from trainer.storage.lease import hold

RNG = np.random.default_rng(0)


def write(folder, num_images, class_names, num_shards=2, **about):
    """Writes a dataset of noise. The label of image i is i modulo the number of classes."""
    images = RNG.integers(0, 256, (num_images, 4, 6, 3), np.uint8)
    labels = np.arange(num_images) % len(class_names)
    texts = {"name": folder.name, "source": f"from {folder.name}", "license": "CC0", "attribution": ""} | about
    write_prepared(folder, images, labels, class_names, num_shards=num_shards, **texts)
    return folder


@pytest.fixture
def first(tmp_path):
    return write(tmp_path / "first", 12, ["dog", "cat"], 3)


@pytest.fixture
def second(tmp_path):
    return write(tmp_path / "second", 8, ["ant", "cat", "dog", "bee"], attribution="Ann")


def run(out, *sources):
    return commands.main(["trainer", "merge", f"--sources={','.join(map(str, sources))}", f"--out={out}"])


def examples(folder):
    """Returns the image and the name of the class of every record, sorted."""
    arrays = load(str(folder))
    names = [arrays.info.class_names[label] for label in arrays.labels]
    return sorted(zip(map(bytes, arrays.images), names, strict=True))


def test_the_result_has_all_records_with_classes_by_name(first, second, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / REJECTED_NAME).touch()  # of an earlier dataset
    assert run(tmp_path / "out", first, second) == 0
    assert examples(tmp_path / "out") == sorted(examples(first) + examples(second))
    spec = read_dataset_spec(locate(tmp_path / "out"))
    assert (spec.name, spec.class_names, spec.class_counts) == ("out", ("dog", "cat", "ant", "bee"), (8, 8, 2, 2))
    assert [shard.num_examples for shard in spec.shards] == [4, 4, 4, 4, 4]
    assert (spec.source, spec.license, spec.attribution) == ("from first; from second", "CC0", "Ann")
    origins = spec.options["sources"]
    assert [(origin["name"], origin["attribution"]) for origin in origins] == [("first", ""), ("second", "Ann")]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {SPEC_NAME, *(shard.file for shard in spec.shards)}


def test_shards_whose_labels_stay_are_copied_and_others_only_change_labels(first, second, tmp_path, monkeypatch):
    def decode(*_):
        raise AssertionError("an image is decoded")

    monkeypatch.setattr(tfrecord_reader, "batch_decoder", decode)
    assert run(tmp_path / "out", first, second) == 0
    hashes = [shard.sha256 for shard in read_dataset_spec(locate(tmp_path / "out")).shards]
    assert set(hashes) >= {shard.sha256 for shard in read_dataset_spec(locate(first)).shards}
    assert not set(hashes) & {shard.sha256 for shard in read_dataset_spec(locate(second)).shards}
    sizes = [sum(file.stat().st_size for file in folder.glob("*.tfrecord")) for folder in (first, second)]
    assert sum(file.stat().st_size for file in (tmp_path / "out").glob("*.tfrecord")) == sum(sizes)


def test_every_beginning_has_images_of_each_source_in_proportion(tmp_path):
    large = write(tmp_path / "large", 40, ["a"], 20)
    small = write(tmp_path / "small", 10, ["b"], 5)
    assert run(tmp_path / "out", large, small) == 0
    labels = load(str(tmp_path / "out")).labels
    assert all(abs(labels[:stop].sum() - stop / 5) <= 2 for stop in range(len(labels)))


def test_a_source_that_the_first_images_lack_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SUITES._members, "photos", dataclasses.replace(SUITES["photos"], num_samples=6))
    sources = [write(tmp_path / name, 8, [name], 1) for name in ("one", "two")]
    assert run(tmp_path / "out", *sources) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert len(warnings) == 1 and f"from {sources[1]};" in warnings[0]


def test_a_merged_set_can_be_merged_with_flat_origins(first, second, tmp_path):
    third = write(tmp_path / "third", 4, ["ant"], license="MIT")
    assert run(tmp_path / "pair", first, second) == 0
    assert run(tmp_path / "all", third, tmp_path / "pair") == 0
    spec = read_dataset_spec(locate(tmp_path / "all"))
    assert [origin["name"] for origin in spec.options["sources"]] == ["third", "first", "second"]
    assert (spec.license, spec.source) == ("MIT; CC0", "from third; from first; from second")
    assert len(examples(tmp_path / "all")) == 24


def test_sets_in_a_bucket_give_the_same_bytes(first, second, tmp_path, bucket):
    for folder in (first, second):
        locate(f"{bucket}/{folder.name}").upload(folder, [path.name for path in folder.iterdir()])
    assert run(tmp_path / "out", first, second) == 0
    assert run(f"{bucket}/out", first, f"{bucket}/second") == 0
    assert run(tmp_path / "again" / "out", f"{bucket}/first", f"{bucket}/second") == 0
    expected = digests(tmp_path / "out")
    remote = {
        entry.name: (locate(bucket) / f"out/{entry.name}").read_bytes() for entry in locate(f"{bucket}/out").entries()
    }
    assert {name: hashlib.sha256(content).hexdigest() for name, content in remote.items()} == expected
    assert digests(tmp_path / "again" / "out") == expected


def test_an_interrupted_merge_continues_and_ends_with_the_same_bytes(first, second, tmp_path, monkeypatch):
    assert run(tmp_path / "expected" / "out", first, second) == 0
    write_shard, written = merge._write_shard, []

    def interrupt(plan, source, shard, path):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(shard.file)
        return write_shard(plan, source, shard, path)

    monkeypatch.setattr(merge, "_write_shard", interrupt)
    assert run(tmp_path / "out", first, second) == 130
    assert not (tmp_path / "out" / SPEC_NAME).exists() and len(list((tmp_path / "out").glob("*.tfrecord"))) == 3
    monkeypatch.setattr(merge, "_write_shard", lambda *arguments: written.append("") or write_shard(*arguments))
    assert run(tmp_path / "out", first, second) == 0
    assert len(written) == 5 and digests(tmp_path / "out") == digests(tmp_path / "expected" / "out")


def test_shards_of_another_merge_are_made_again(first, second, tmp_path, monkeypatch):
    third = write(tmp_path / "third", 12, ["dog", "cat"], 3)
    assert run(tmp_path / "expected" / "out", third, second) == 0
    with monkeypatch.context() as patch:
        patch.setattr(merge, "_check_counts", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            merge_in(tmp_path / "out", tmp_path, first, second)
    assert len(list((tmp_path / "out").glob("*.tfrecord"))) == 5
    assert run(tmp_path / "out", third, second) == 0
    assert digests(tmp_path / "out") == digests(tmp_path / "expected" / "out")


def merge_in(out, tmp_path, *sources):
    plan = merge.plan_merge([str(source) for source in sources], locate(out), tmp_path / "cache")
    return merge.merge_shards(plan, locate(out), "out", tmp_path, lambda progress: None)


def test_a_finished_merge_and_its_sources_are_not_changed(first, second, tmp_path, capsys):
    assert run(tmp_path / "out", first, second) == 0
    before = digests(tmp_path / "out")
    arguments = ["trainer", "merge", f"--sources={first},{second}", f"--out={tmp_path / 'out'}"]
    check_command_refusal(commands.main, arguments, capsys, 2, f"out={tmp_path / 'out'}")
    assert digests(tmp_path / "out") == before


def test_only_one_process_at_a_time_writes_the_result(first, second, tmp_path):
    with hold(locate(tmp_path / "out"), "test"):
        check_refusal(
            lambda: merge_in(tmp_path / "out", tmp_path, first, second), LeaseError, f"out={tmp_path / 'out'}"
        )
    assert not (tmp_path / "out").exists()


def damage(folder, change):
    """Changes the last shard of a dataset."""
    path = max(folder.glob("*.tfrecord"))
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path.name


def flip(content):
    content[60] ^= 1


@pytest.mark.parametrize("change", [flip, lambda content: content.pop()], ids=["flipped bit", "shorter"])
def test_a_damaged_shard_is_named_and_no_set_is_written(change, first, second, tmp_path):
    name = damage(second, change)
    check_refusal(lambda: merge_in(tmp_path / "out", tmp_path, first, second), DataError, name, SPEC_NAME)
    assert not (tmp_path / "out" / SPEC_NAME).exists()


def test_class_counts_that_the_labels_contradict_are_named(first, second, tmp_path):
    description = json.loads((second / SPEC_NAME).read_text())
    (second / SPEC_NAME).write_text(json.dumps(description | {"class_counts": [3, 1, 2, 2]}))
    facts = (str(second), SPEC_NAME, "[2, 2, 2, 2]", "[2, 1, 3, 2]")
    check_refusal(lambda: merge_in(tmp_path / "out", tmp_path, first, second), DataError, *facts)
    assert not (tmp_path / "out" / SPEC_NAME).exists()


def test_a_description_that_could_not_be_read_again_is_refused_first(first, second, tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "MAX_DOCUMENT_BYTES", 1000)
    check_refusal(
        lambda: merge_in(tmp_path / "out", tmp_path, first, second), ConfigError, SPEC_NAME, "5 shards", "1,000"
    )
    assert not (tmp_path / "out").exists()


def test_pairs_and_conditions_are_merged(tmp_path):
    for name, vectors in {"one": ["1,0", "0,0.5"], "two": ["0,0.5", "2,2"]}.items():
        folder = write(tmp_path / name, 6, vectors, 2)
        description = json.loads((folder / SPEC_NAME).read_text())
        shards = []
        for shard in description["shards"]:
            records = list(tf.data.TFRecordDataset(str(folder / shard["file"])).as_numpy_iterator())
            writer = ShardWriter(folder / shard["file"])
            for record in records:
                example = tf.train.Example.FromString(record).features.feature
                (image,), (label,) = example["image"].bytes_list.value, example["label"].int64_list.value
                writer.add(image, image, label=label)
            shards.append(vars(writer.finish()))
        changes = {"input_channels": 3, "condition_names": ["x", "y"], "shards": shards}
        (folder / SPEC_NAME).write_text(json.dumps(description | changes))
    assert run(tmp_path / "out", tmp_path / "one", tmp_path / "two") == 0
    arrays = load(str(tmp_path / "out"))
    assert arrays.images.shape == (12, 4, 6, 6) and arrays.info.condition_names == ("x", "y")
    assert examples(tmp_path / "out") == sorted(examples(tmp_path / "one") + examples(tmp_path / "two"))
    assert arrays.info.class_names == ("1,0", "0,0.5", "2,2")

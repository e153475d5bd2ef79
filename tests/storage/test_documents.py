"""Damaged JSON documents are refused with one line that names the document, at every entry point."""

import json
import os
import pty
from pathlib import Path

import pytest
from hostile import is_clean
from refusals import check_refusal

from trainer.cloud.tuning import trial_store
from trainer.config import TrainConfig, flags as config_flags
from trainer.data.dataset_spec import read_dataset_spec
from trainer.environment import Environment
from trainer.errors import CheckpointError, ConfigError, DataError, DocumentError, StorageError, TrainerError
from trainer.storage import RunDirectory, documents, locate, parse_json, read_json, read_json_lines
from trainer.storage.local import LocalLocation
from trainer.training.checkpoint.manifest import CheckpointManifest
from trainer.training.stored_run import stored_config

DEEP = 100_000
DAMAGES = {
    "empty": b"",
    "spaces": b" \n\t ",
    "cut": b'{"format_version": 1, "name": "x',
    "null": b"null",
    "list": b"[]",
    "list of objects": b"[{}]",
    "text": b'"text"',
    "number": b"1",
    "true": b"true",
    "not JSON": b"steps: 3",
    "two documents": b"{}{}",
    "single quotes": b"{'step': 1}",
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep and cut": b'{"a":[' * DEEP,
    "a little deep": b'{"a":' * 100 + b"1" + b"}" * 100,
    "binary": bytes(range(256)),
    "NULs": bytes(4096),
    "UTF-16": '{"step": 1}'.encode("utf-16"),
    "bytes that are not UTF-8": b'{"name": "\xff"}',
    "infinity": b'{"step": Infinity, "cluster": {}}',
    "minus infinity": b'{"step": -Infinity}',
    "NaN": b'{"step": NaN}',
    "huge number": b'{"step": 1e999}',
    "long number": b'{"step": ' + b"9" * 5000 + b"}",
    "key twice": b'{"step": 1, "step": 2}',
    "key twice at depth": b'{"a": [{"b": {"step": 1, "step": 1}}]}',
    "lone surrogate": b'{"name": "\\ud800"}',
    "lone surrogate in a key": b'{"\\udfff": 1}',
    "control characters": b'{"name": "\x1b[2J"}',
}


def of_manifest(content, folder):
    return CheckpointManifest.from_bytes(content)


def of_config(content, folder):
    (folder / "config.json").write_bytes(content)
    return stored_config(RunDirectory(folder))


def of_dataset(content, folder):
    (folder / "dataset.json").write_bytes(content)
    return read_dataset_spec(locate(folder))


def of_study(content, folder):
    (folder / "trials.json").write_bytes(content)
    return trial_store.read(locate(folder / "trials.json"), None)


def of_flag(content, folder):
    return config_flags._ObjectParser().parse(content.decode("utf-8", "surrogateescape"))


def of_tf_config(content, folder):
    return Environment.read({"TF_CONFIG": content.decode("utf-8", "replace").replace("\0", "x")})


def of_cluster_spec(content, folder):
    return Environment.read({"CLUSTER_SPEC": content.decode("utf-8", "replace").replace("\0", "x")})


ENTRIES = {
    "MANIFEST.json": (of_manifest, DocumentError),
    "config.json": (of_config, CheckpointError),
    "dataset.json": (of_dataset, DataError),
    "trials.json": (of_study, ConfigError),
    "the value": (of_flag, DocumentError),
    "TF_CONFIG": (of_tf_config, ConfigError),
    "CLUSTER_SPEC": (of_cluster_spec, ConfigError),
}
UNSET = {("TF_CONFIG", "empty"), ("CLUSTER_SPEC", "empty"), ("TF_CONFIG", "spaces"), ("CLUSTER_SPEC", "spaces")}
"""An empty variable counts as unset."""
NOT_BYTES = "bytes that are not UTF-8"
"""A variable cannot hold these bytes. A flag escapes them."""


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_damaged_document_is_named(entry, damage, tmp_path):
    if (entry, damage) in UNSET or (damage == NOT_BYTES and entry in ("TF_CONFIG", "CLUSTER_SPEC")):
        pytest.skip("not damaged here")
    act, error = ENTRIES[entry]
    check_refusal(lambda: act(DAMAGES[damage], tmp_path), error, entry)
    with pytest.raises(error) as caught:
        act(DAMAGES[damage], tmp_path)
    assert is_clean(str(caught.value)) and len(str(caught.value)) < 1000
    if entry not in ("TF_CONFIG", "CLUSTER_SPEC", "the value", "MANIFEST.json"):
        assert str(tmp_path) in str(caught.value)


def test_a_document_with_a_byte_order_mark_is_read(tmp_path):
    config = TrainConfig(steps=3)
    assert of_config(b"\xef\xbb\xbf" + config.to_json().encode(), tmp_path) == config


MANIFEST = {
    "step": 2,
    "files": {"x": {"num_bytes": 1, "sha256": "0" * 64}},
    "state_sha256": "0" * 64,
    "fingerprints": {"config": "0"},
    "metrics": {"metric/x": 1.0},
    "versions": {"keras": "3"},
    "format_version": 1,
}
MANIFEST_CHANGES = [
    ("step", "2"),
    ("step", 2.5),
    ("step", 2.0),
    ("step", -1),
    ("step", 10**30),
    ("step", True),
    ("step", None),
    ("step", [2]),
    ("files", []),
    ("files", None),
    ("files", {"x": None}),
    ("files", {"x": []}),
    ("files", {"x": {"num_bytes": "1", "sha256": "0" * 64}}),
    ("files", {"x": {"num_bytes": -1, "sha256": "0" * 64}}),
    ("files", {"x": {"num_bytes": 1.5, "sha256": "0" * 64}}),
    ("files", {"x": {"sha256": "0" * 64}}),
    ("fingerprints", ["config"]),
    ("fingerprints", {"config": 1}),
    ("metrics", {"metric/x": "1"}),
    ("metrics", None),
    ("versions", "3"),
    ("format_version", "1"),
]


@pytest.mark.parametrize(("field", "value"), MANIFEST_CHANGES, ids=str)
def test_a_manifest_with_a_wrong_field_names_it(field, value):
    content = CheckpointManifest(**MANIFEST | {field: value}).to_bytes()
    check_refusal(
        lambda: CheckpointManifest.from_bytes(content, "run/MANIFEST.json"), DocumentError, "run/MANIFEST", field
    )


@pytest.mark.parametrize(
    "name", ["x" * 300, "a/" * 2000 + "x", "../x", "a\nb"], ids=["long", "nested", "parent", "break"]
)
def test_a_manifest_with_an_unsafe_name_is_refused(name):
    content = CheckpointManifest(**MANIFEST | {"files": {name: MANIFEST["files"]["x"]}}).to_bytes()
    check_refusal(lambda: CheckpointManifest.from_bytes(content, "run"), CheckpointError, "run")


def test_a_manifest_keeps_metrics_that_are_not_numbers():
    manifest = CheckpointManifest(**MANIFEST | {"metrics": {"metric/x": float("nan")}})
    metrics = CheckpointManifest.from_bytes(manifest.to_bytes()).metrics
    assert metrics["metric/x"] != metrics["metric/x"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", "3"),
        ("steps", 2.5),
        ("steps", True),
        ("steps", []),
        ("latent_dim", None),
        ("latent_dim", 10**400),
        ("recipe", 7),
        ("recipe", None),
        ("dataset", {"name": "digits"}),
        ("classes", "cat"),
        ("classes", [1.5]),
        ("penalties", [1]),
        ("penalties", {}),
        ("model_options", []),
        ("model_options", "x"),
        ("horizontal_flips", 1),
        ("horizontal_flips", "false"),
        ("loss", ["hinge"]),
        ("generator_learning_rate", "1e-3"),
        ("no_such_setting", 1),
        ("no\nsuch\x1b[2Jsetting" * 1000, 1),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_setting_of_the_wrong_type_is_named_with_its_file(field, value, tmp_path):
    content = json.dumps(TrainConfig(steps=3).to_dict() | {field: value}).encode()
    check_refusal(lambda: of_config(content, tmp_path), CheckpointError, "config.json", field[:2])


DATASET = {
    "format_version": 1,
    "name": "set",
    "image_shape": [8, 8, 3],
    "num_examples": 1,
    "class_names": ["a"],
    "class_counts": [1],
    "shards": [{"file": "x", "num_examples": 1, "num_bytes": 9, "sha256": "0" * 64, "crc32c": "AAAAAA=="}],
    "source": "",
    "license": "",
    "attribution": "",
    "options": {},
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_shape", [8, 8]),
        ("image_shape", [8, 8, "3"]),
        ("image_shape", [8, 8.5, 3]),
        ("image_shape", [8, 8, 10**12]),
        ("image_shape", [0, 8, 3]),
        ("num_examples", "1"),
        ("num_examples", -1),
        ("num_examples", 1e300),
        ("class_names", "a"),
        ("class_names", [1]),
        ("class_counts", [True]),
        ("class_counts", None),
        ("shards", {}),
        ("shards", [None]),
        ("shards", [{}]),
        ("options", []),
        ("name", 7),
    ],
    ids=str,
)
def test_a_dataset_with_a_wrong_field_names_it(field, value, tmp_path):
    assert of_dataset(json.dumps(DATASET).encode(), tmp_path).num_examples == 1
    content = json.dumps(DATASET | {field: value}).encode()
    check_refusal(lambda: of_dataset(content, tmp_path), DataError, str(tmp_path / "dataset.json"), field)


@pytest.mark.parametrize("content", [{"labels": [["00000/img00000000.png", 6]]}, {}, {"labels": None}, {"info": {}}])
def test_the_description_of_another_program_is_not_called_an_old_version(content, tmp_path):
    check_refusal(
        lambda: of_dataset(json.dumps(content).encode(), tmp_path), DataError, "dataset.json", "prepare --source"
    )
    with pytest.raises(DataError) as caught:
        of_dataset(json.dumps(content).encode(), tmp_path)
    assert "this version" not in str(caught.value)


LINES = [
    b'{"step": 1, "loss": 0.5}',
    b"garbage",
    b"",
    b"   ",
    b"{}",
    b'{"loss": 1}',
    b'{"step": "2"}',
    b'{"step": 2.5}',
    b'{"step": -1}',
    b'{"step": 1, "step": 2}',
    b"7",
    b"null",
    b'["step"]',
    bytes(50),
    b"\xff\xfe\x80",
    b"[" * DEEP,
    b'{"step": 2, "loss": NaN}',
    b'{"step": 3, "loss": Infinity}\r',
]
SCHEMA = documents.record({"step": documents.whole()})


def test_readable_lines_are_kept_and_the_others_counted(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join(LINES) + b"\n")
    lines, num_unreadable = read_json_lines(path, SCHEMA)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert num_unreadable == len(LINES) - 3


@pytest.mark.parametrize("end", [b'{"step": 2', b"{", b'{"step": 2}'])
def test_a_last_line_that_a_kill_cut_is_not_counted(end, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + end)
    lines, num_unreadable = read_json_lines(path, SCHEMA)
    assert len(lines) == 1 + end.endswith(b"}") and num_unreadable == 0


def test_lines_are_read_only_from_regular_files(tmp_path):
    assert read_json_lines(tmp_path / "missing", SCHEMA) == ([], 0)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError):
            read_json_lines(path, SCHEMA)


def test_a_large_document_is_refused_before_it_is_in_memory(storage_folder, monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 1000)
    for size, is_large in ((998, False), (999, True)):
        (storage_folder / "x.json").write_bytes(b"[" + b" " * size + b"]")
        if is_large:
            check_refusal(
                lambda: read_json(storage_folder / "x.json", documents.anything, remedy="x"), StorageError, "x.json"
            )
        else:
            assert read_json(storage_folder / "x.json", documents.anything, remedy="x") == []


def test_a_large_sparse_file_takes_no_memory(tmp_path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**40)
    check_refusal(lambda: stored_config(RunDirectory(tmp_path)), StorageError, "config.json")


@pytest.mark.timeout(60)  # reading a terminal or an open pipe never ends
@pytest.mark.parametrize("kind", ["folder", "pipe", "open pipe", "device", "terminal", "loop", "name with NUL"])
def test_only_files_are_read(kind, tmp_path, request):
    path = tmp_path / "x.json"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "open pipe":  # whose writer writes nothing
            os.mkfifo(path)
            descriptor = os.open(path, os.O_RDWR)
            request.addfinalizer(lambda: os.close(descriptor))
        case "device":
            path = Path("/dev/zero")
        case "terminal":
            controller, terminal = pty.openpty()
            request.addfinalizer(lambda: (os.close(controller), os.close(terminal)))
            path.symlink_to(os.ttyname(terminal))
        case "loop":
            path.symlink_to(path)
        case "name with NUL":
            path = Path(f"{tmp_path}/x\0.json")
    file = LocalLocation(path)  # `locate` would refuse the name with a NUL
    check_refusal(lambda: read_json(file, documents.anything, remedy="replace it"), StorageError)


def test_many_keys_and_quotes_take_linear_time():
    many = json.dumps({str(number): number for number in range(200_000)})
    assert len(parse_json(many, "x", documents.anything, remedy="x")) == 200_000
    for text in (many[:-1] + ', "199999": 1}', '"' + '\\"' * 1_000_000):
        with pytest.raises(TrainerError):
            parse_json(text, "x", documents.anything, remedy="x")


def test_a_key_may_be_missing_only_if_it_is_optional():
    schema = documents.record({"a": documents.anything, "b": documents.optional(documents.text())})
    for content in ('{"a": null}', '{"a": 1, "b": null}', '{"a": {}, "b": "text", "c": 3}'):
        assert parse_json(content, "x.json", schema, remedy="x") == json.loads(content)
    for content in ("{}", '{"b": "text"}', '{"A": 1}'):
        check_refusal(lambda content=content: parse_json(content, "x.json", schema, remedy="x"), DocumentError, "a")


def test_whole_numbers_that_no_float_can_hold_are_refused():
    def read(text):
        return parse_json(text, "file", documents.list_of(documents.number), remedy="correct it")

    assert read("[1e308, -5]") == [1e308, -5]
    check_refusal(lambda: read(f"[1{'0' * 400}]"), DocumentError, "file", "a number")

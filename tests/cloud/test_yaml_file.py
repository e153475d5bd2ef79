"""YAML files from outside are read within limits of size, depth and aliases."""

import os
import time

import pytest
from hostile import is_clean
from refusals import check_refusal

from trainer.cloud.jobs import arguments, job_spec
from trainer.cloud.jobs.yaml_file import read_yaml
from trainer.errors import ConfigError, StorageError, TrainerError

pytest.importorskip("yaml")

NESTED_ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
NESTED_OBJECTS = "a: &a {b: 1}\n" + "".join(
    f"{name}: &{name} {{{', '.join(f'k{index}: *{before}' for index in range(9))}}}\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
DEEP_ALIASES = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} {'[' * 9}*a{n - 1}{']' * 9}\n" for n in range(1, 300))
POOL = "workerPoolSpecs:\n- {{replicaCount: 1, machineSpec: {{machineType: n1-standard-4}}, containerSpec: {}}}\n"
REFUSED = {
    "aliases of aliases": NESTED_ALIASES,
    "aliases of objects": NESTED_OBJECTS,
    "deep aliases": DEEP_ALIASES,
    "merged aliases": f"{NESTED_OBJECTS}z: {{<<: [{', '.join(['*j'] * 9)}]}}\n",
    "many aliases of one list": f"a: &a [{'x,' * 100}]\nb: [{'*a,' * 200}]\n",
    "list in itself": "a: &a [*a]",
    "object in itself": "a: &a {b: {c: *a}}",
    "key in itself": "&a ? *a\n: 1",
    "alias of nothing": "a: *b",
    "deep lists": "a: " + "[" * 100_000,
    "deep objects": "{a: " * 50_000,
    "deep blocks": "- " * 100_000,
    "deep keys": "? " * 100_000,
    "a little deep": "[" * 100 + "]" * 100,
    "many values": f"a: [{'x,' * 20_000}]",
    "many keys": "".join(f"k{index}: 1\n" for index in range(20_000)),
    "anchor twice": "- &a a\n" * 30_000,
    "key twice": "a: 1\n" + "x" * 900 + ": 1\n" + "x" * 900 + ": 2\n",
    "escape beyond Unicode": 'a: "\\UFFFFFFFF"',
    "escape just beyond Unicode": 'a: "\\U00110000"',
    "lone surrogate": 'a: "\\ud800"',
    "NUL": 'a: "\\0"',
    "control character": "a: \x1b[2J",
    "key that is a list": "? [a]\n: 1",
    "unknown tag with a long name": f"a: !!{'x' * 100_000} 1",
    "binary that is not base64": "a: !!binary é",
}


@pytest.fixture
def write(tmp_path):
    def write_file(text):
        (tmp_path / "job.yaml").write_text(text)
        return tmp_path / "job.yaml"

    return write_file


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_a_hostile_file_is_named(text, write):
    path = write(text)
    start = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert time.perf_counter() - start < 30
    check_refusal(lambda: read_yaml(path), ConfigError, str(path))
    assert is_clean(str(caught.value)) and len(str(caught.value)) < 2100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a [1, 2]\nb: *a\nc: *a", {"a": [1, 2], "b": [1, 2], "c": [1, 2]}),
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
        ("a: !!int ''", {"a": ""}),
        ("a: !!float ''", {"a": ""}),
        ("a: !!timestamp ''", {"a": ""}),
        ("a: 2026-02-30", {"a": "2026-02-30"}),
        ("", None),
    ],
)
def test_ordinary_files_are_read(text, expected, write):
    assert read_yaml(write(text)) == expected


def test_a_large_file_is_refused_before_it_is_parsed(write, tmp_path):
    path = write("")
    os.truncate(path, 2**40)
    for text in ("/dev/zero", path, write(POOL.format("{args: [" + "--steps=1," * 100_000 + "]}"))):
        check_refusal(lambda text=text: read_yaml(text), StorageError, str(text))


@pytest.mark.parametrize(
    "value",
    ["9" * 100_000, "0x" + "f" * 100_000, "1:" * 5000 + "1", "x" * 200_000, '"a\\nb\\x1b[2J"', "[" * 9 + "]" * 9],
    ids=lambda value: value[:8],
)
@pytest.mark.parametrize("key", ["replicaCount", "machineSpec", "containerSpec", "unknown"])
def test_a_long_value_is_shortened(key, value, write):
    with pytest.raises(ConfigError) as caught:
        job_spec.read(write(f"workerPoolSpecs:\n- {{{key}: {value}}}\n"))
    assert is_clean(str(caught.value)) and len(str(caught.value)) < 2100


@pytest.mark.parametrize(
    "arg",
    ["--steps={}", "--recipe={}", "--{}=1", "{}", "--loss={}", "--model_options={}", "--job_dir=x --{}", "--{}"],
)
@pytest.mark.parametrize(
    "value", ["x" * 200_000, "y\n" * 100_000, "\x1b[2J", "[" * 100_000, "9" * 5000], ids=lambda v: v[:3]
)
def test_a_long_arg_is_shortened(arg, value):
    start = time.perf_counter()
    try:
        arguments.check_args(arg.format(value).split(" "), "args")
    except TrainerError as error:
        assert is_clean(str(error)) and len(str(error)) < 2100
    assert time.perf_counter() - start < 30

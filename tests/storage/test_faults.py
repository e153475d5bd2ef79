"""Every operation succeeds when one request in three fails."""

import hashlib
import random

from trainer.storage import locate
from trainer.testing.fault_proxy import random_faults


def content(name, num_bytes=5000):
    return random.Random(name).randbytes(num_bytes)


def test_operations_succeed_when_one_request_in_three_fails(bucket, proxy, tmp_path):
    folder = locate(bucket) / "folder"
    proxy.policy = random_faults(3)
    names = [f"{number % 3}/{number}.bin" for number in range(30)]
    for name in names:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content(name))
    folder.upload(tmp_path / "out", names, only_new=True)
    folder.download({name: tmp_path / "back" / name for name in names})
    assert {name: (tmp_path / "back" / name).read_bytes() for name in names} == {name: content(name) for name in names}
    for number in range(10):
        (folder / "x").write_bytes(content(number))
        assert (folder / "x").exists() and not (folder / "y").exists()
        assert (folder / "x").read_bytes() == content(number)
    assert [entry.name for entry in folder.entries()] == sorted([*names, "x"])
    folder.delete(names)
    assert [entry.name for entry in folder.entries()] == ["x"]
    assert len(proxy.failed) > 30


def test_a_large_object_is_copied_when_one_request_in_three_fails(bucket, proxy, tmp_path):
    (tmp_path / "large").write_bytes(content("large", 20 * 2**20))
    for seed in range(5):
        proxy.policy = random_faults(3, seed)
        locate(bucket).upload(tmp_path, ["large"])
        locate(bucket).download({"large": tmp_path / "back"})
        assert (
            hashlib.sha256((tmp_path / "back").read_bytes()).digest()
            == hashlib.sha256(content("large", 20 * 2**20)).digest()
        )
    assert proxy.failed

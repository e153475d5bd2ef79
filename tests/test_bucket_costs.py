"""How many requests a run makes against its bucket: the numbers that docs/data.md states."""

import collections
import re

import pytest
from bucket_runs import prepared, train


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def kind(request):
    """What is asked, and whose: ("write", "checkpoints")."""
    name = re.sub(r"^(run|set)/", "", request.object_name)
    what = {"POST": "write", "DELETE": "delete"}.get(request.method, "read" if name else "list")
    return what, name.partition("/")[0]


def test_requests(pictures, bucket, proxy):
    data = prepared(pictures, bucket)
    proxy.requests.clear()
    assert train(data, f"{bucket}/run", "--steps=40") == 0
    for k, v in sorted(collections.Counter(map(kind, proxy.requests)).items()):
        print(k, v)
    for r in proxy.requests:
        print(r.method, r.path[:100], r.object_name)

"""Number of requests of a run to its bucket, as stated in docs/data.md."""

import collections
import re

import pytest
from bucket_runs import files, prepared, train

from trainer.storage import lease
from trainer.training import restore


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(lease, "RENEWAL_SECS", 3600.0)  # no renewals on a slow machine


def kind(request):
    """Returns the operation and its object, such as ("write", "checkpoints")."""
    name = re.sub(r"^(run|set)/", "", request.object_name)
    what = {"POST": "write", "DELETE": "delete"}.get(request.method, "read" if name else "list")
    return what, "shards" if name.endswith(".tfrecord") else name.partition("/")[0]


@pytest.mark.slow
def test_a_run_makes_the_requests_that_the_docs_state(pictures, bucket, proxy):
    data = prepared(pictures, bucket)
    proxy.requests.clear()
    assert train(data, f"{bucket}/run", "--steps=40", "--export_model") == 0
    counts = collections.Counter(map(kind, proxy.requests))
    checkpoints, deleted, grids = 10, 7, 11
    shards = sum(name.endswith(".tfrecord") for name in files(data))
    # If steps are faster than uploads, one write contains the lines of several checkpoints.
    assert 1 < counts.pop(("write", "metrics.jsonl")) <= checkpoints + 2
    assert counts.pop(("write", "logs")) in range(2, 5)
    assert counts.pop(("write", "events.jsonl")) in range(1, 4)
    assert counts.pop(("write", "report.html")) in range(1, 4)
    assert counts == {
        ("read", "dataset.json"): 8,
        ("read", "shards"): shards,
        ("list", ""): 2 + checkpoints + deleted + 1 + 1,  # the client reads the bucket if there is no lease
        ("write", "checkpoints"): 3 * checkpoints,
        ("delete", "checkpoints"): 3 * deleted,
        ("write", "samples"): grids + 1,
        ("write", "config.json"): 1,
        ("write", "model"): 7,
        ("read", "lease.json"): 1 + 2 * checkpoints + 1 + 2,
        ("write", "lease.json"): 1,
        ("delete", "lease.json"): 1,
    }
    existing = {name for name in files(f"{bucket}/run") if not name.startswith("checkpoints/")} - {"report.html"}
    unchanged = {name for name in files(f"{bucket}/run") if name.startswith(("logs/", "samples/step-"))}
    proxy.requests.clear()
    assert train(data, f"{bucket}/run", "--steps=44") == 0
    again = collections.Counter(map(kind, proxy.requests))
    assert ("read", "shards") not in again  # the cache has them
    assert again["list", ""] == 2 + 2 + 1 + 1 + 1  # an upload, a deletion, and the client's as above
    assert again["read", "checkpoints"] == 3 + 2
    names = [request.object_name.removeprefix("run/") for request in proxy.requests if request.method == "GET"]
    assert sorted(name for name in names if name in existing) == sorted(existing)
    written = {request.object_name.removeprefix("run/") for request in proxy.requests if request.method == "POST"}
    assert (
        not written & unchanged and {"samples/step-00000044.png", "samples/progression.gif", "config.json"} <= written
    )
    proxy.requests.clear()
    restore.restore(f"{bucket}/run")
    assert collections.Counter(map(kind, proxy.requests)) == {
        ("list", ""): 3,
        ("read", "config.json"): 1,
        ("read", "checkpoints"): 3,
        ("read", "dataset.json"): 2,
    }

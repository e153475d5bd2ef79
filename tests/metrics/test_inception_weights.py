"""Weights of the Inception network: places, verification, and the cache. The servers run on this machine."""

import contextlib
import hashlib
import http.server
import io
import os
import pathlib
import socket
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pytest
from refusals import check_refusal

from trainer.config import TrainConfig
from trainer.errors import ConfigError, DataError, MissingError, StorageError, TrainerError
from trainer.metrics import inception_weights as weights_module
from trainer.metrics.inception_weights import GRAPH_NAME, PublishedFile, check, find, is_cached
from trainer.storage import gcs, locate

GRAPH = np.random.default_rng(0).bytes(30_000)
OTHER = GRAPH[:-1] + bytes([GRAPH[-1] ^ 1])


def archive_of(members, mode="w:gz"):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, member in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member))
    return content.getvalue()


ARCHIVE = archive_of({"LICENSE": b"text", GRAPH_NAME: GRAPH})
EXPECTED = PublishedFile(len(GRAPH), hashlib.md5(GRAPH).hexdigest(), len(ARCHIVE))
BAD = {
    "nothing": b"",
    "cut": GRAPH[:-1],
    "longer": GRAPH + b"x",
    "flipped": OTHER,
    "another file": b"<html>Not found</html>",
    "as large as another": b"x" * len(GRAPH),
    "huge": bytes(300_000),
    "cut archive": ARCHIVE[:-1000],
    "cut to its header": ARCHIVE[:5],
    "archive without the graph": archive_of({"LICENSE": GRAPH}),
    "archive with another graph": archive_of({GRAPH_NAME: OTHER}),
    "archive with a shorter graph": archive_of({GRAPH_NAME: GRAPH[:-1]}),
    "empty archive": archive_of({}),
    "bzip2": archive_of({GRAPH_NAME: GRAPH}, "w:bz2"),
    "damaged archive": ARCHIVE[:9000] + bytes(200) + ARCHIVE[9200:],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of cached weights, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/gan-trainer/inception"


def content_of(folder):
    """Every file in a folder, including hidden ones."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@contextlib.contextmanager
def web_server(respond):
    """Serves HTTP. Yields the address and the list of requested paths."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            respond(self)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()


def answer(content, status=200, length=None, headers=()):
    """A response of a server with a content that may be shorter than its stated length."""

    def respond(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return respond


# Places.


@pytest.mark.parametrize("name", [GRAPH_NAME, "inception-2015-12-05.tgz", "weights"])
@pytest.mark.parametrize("content", [GRAPH, ARCHIVE], ids=["graph", "archive"])
def test_a_local_file_of_any_name_is_verified_and_kept(content, name, tmp_path, cache):
    (tmp_path / name).write_bytes(content)
    assert find(str(tmp_path / name), EXPECTED) == cache / GRAPH_NAME
    assert content_of(cache) == {GRAPH_NAME: GRAPH}
    assert is_cached(EXPECTED) and find(None, EXPECTED) == cache / GRAPH_NAME


def test_paths_in_the_home_directory_and_relative_ones(tmp_path, cache, monkeypatch):
    (tmp_path / "weights").write_bytes(GRAPH)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/weights", "weights", "./weights"):
        assert find(path, EXPECTED) == cache / GRAPH_NAME


@pytest.mark.parametrize("content", [GRAPH, ARCHIVE], ids=["graph", "archive"])
def test_an_address_is_fetched_once(content, cache):
    with web_server(answer(content)) as (address, requests):
        for _ in range(2):
            assert find(f"{address}/a/weights", EXPECTED) == cache / GRAPH_NAME
        assert requests == ["/a/weights"]
    assert content_of(cache) == {GRAPH_NAME: GRAPH}


def test_download_means_the_published_address(cache, monkeypatch):
    with web_server(answer(ARCHIVE)) as (address, requests):
        monkeypatch.setattr(weights_module, "ADDRESS", f"{address}/models/x.tgz")
        assert find("download", EXPECTED) == cache / GRAPH_NAME
        assert requests == ["/models/x.tgz"]


def test_redirections_are_followed_to_the_web_only(tmp_path, cache):
    (tmp_path / "weights").write_bytes(GRAPH)
    with web_server(answer(GRAPH)) as (address, _):
        for target, is_accepted in ((f"{address}/there", True), (f"file://{tmp_path}/weights", False)):
            with web_server(answer(b"", 302, headers=[("Location", target)])) as (redirecting, _):
                (cache / GRAPH_NAME).unlink(missing_ok=True)
                if is_accepted:
                    assert find(redirecting, EXPECTED)
                else:
                    check_refusal(lambda url=redirecting: find(url, EXPECTED), StorageError, redirecting)


def test_an_object_in_a_bucket_is_fetched_once(bucket, cache, monkeypatch):
    (locate(bucket) / "a/weights.tgz").write_bytes(ARCHIVE)
    assert find(f"{bucket}/a/weights.tgz", EXPECTED) == cache / GRAPH_NAME
    (locate(bucket) / "a").delete(["weights.tgz"])
    assert find(f"{bucket}/a/weights.tgz", EXPECTED) == cache / GRAPH_NAME
    assert content_of(cache) == {GRAPH_NAME: GRAPH}


def test_the_mount_of_a_bucket_is_the_bucket(bucket, cache):
    (locate(bucket) / "weights").write_bytes(GRAPH)
    assert find(bucket.replace("gs://", "/gcs/") + "/weights", EXPECTED) == cache / GRAPH_NAME


# The cache.


def test_a_damaged_cache_counts_as_empty(tmp_path, cache):
    cache.mkdir(parents=True)
    (tmp_path / "weights").write_bytes(GRAPH)
    for damaged in (b"", OTHER, GRAPH[:-1]):
        (cache / GRAPH_NAME).write_bytes(damaged)
        assert not is_cached(EXPECTED)
        check_refusal(lambda: find(None, EXPECTED), ConfigError, "curl -O", "--inception_weights=")
        assert find(str(tmp_path / "weights"), EXPECTED) == cache / GRAPH_NAME
        assert content_of(cache) == {GRAPH_NAME: GRAPH}
    (cache / GRAPH_NAME).unlink()
    (cache / GRAPH_NAME).mkdir()
    assert not is_cached(EXPECTED)


def test_files_of_killed_processes_are_deleted(tmp_path, cache):
    cache.mkdir(parents=True)
    (cache / f".{GRAPH_NAME}.0a1b2c3d").write_bytes(GRAPH[:100])
    (tmp_path / "weights").write_bytes(GRAPH)
    find(str(tmp_path / "weights"), EXPECTED)
    assert content_of(cache) == {GRAPH_NAME: GRAPH}


def test_a_local_file_is_used_in_place_if_there_is_no_cache(tmp_path, monkeypatch, caplog):
    (tmp_path / "weights").write_bytes(GRAPH)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert find(str(tmp_path / "weights"), EXPECTED) == tmp_path / "weights"
    assert str(tmp_path / "file") in caplog.text
    with web_server(answer(GRAPH)) as (address, _):
        check_refusal(lambda: find(address, EXPECTED), StorageError, str(tmp_path / "file"))
    assert not is_cached(EXPECTED)


def test_nothing_is_downloaded_without_a_home_directory(monkeypatch):
    def no_home():
        raise RuntimeError("no home directory")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(pathlib.Path, "home", no_home)
    with web_server(answer(GRAPH)) as (address, requests):
        check_refusal(lambda: find(address, EXPECTED), ConfigError, "XDG_CACHE_HOME")
    assert requests == []


def test_only_verified_local_files_are_used_although_the_cache_has_the_weights(tmp_path, cache):
    (tmp_path / "weights").write_bytes(GRAPH)
    find(str(tmp_path / "weights"), EXPECTED)
    (tmp_path / "weights").write_bytes(OTHER)
    check_refusal(lambda: find(str(tmp_path / "weights"), EXPECTED), DataError, "weights")
    assert content_of(cache) == {GRAPH_NAME: GRAPH}


def test_the_weights_are_found_without_tensorflow():
    code = "import sys; from trainer.metrics import inception_weights; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Refusals. Nothing is left in the cache.


def test_missing_weights_are_refused_with_the_commands_that_fetch_them(cache):
    for act in (lambda: find(None), lambda: find(None, EXPECTED), lambda: check(None)):
        check_refusal(
            act, ConfigError, f"curl -O {weights_module.ADDRESS}", "--inception_weights=inception-2015-12-05.tgz"
        )
    assert not is_cached() and content_of(cache) == {}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("place", ["local", "web", "bucket"])
def test_other_content_is_refused(place, name, tmp_path, cache, request):
    with contextlib.ExitStack() as stack:
        if place == "local":
            (tmp_path / "weights").write_bytes(BAD[name])
            where = str(tmp_path / "weights")
        elif place == "web":
            where = stack.enter_context(web_server(answer(BAD[name])))[0]
        else:
            where = request.getfixturevalue("bucket") + "/weights"
            locate(where).write_bytes(BAD[name])
        check_refusal(lambda: find(where, EXPECTED), TrainerError, where)
    assert content_of(cache) == {} and not is_cached(EXPECTED)


def test_missing_files_and_folders_are_refused(tmp_path, cache):
    (tmp_path / "folder").mkdir()
    check_refusal(lambda: find(str(tmp_path / "folder"), EXPECTED), ConfigError, str(tmp_path / "folder"), GRAPH_NAME)
    check_refusal(lambda: find(str(tmp_path / "none"), EXPECTED), MissingError, str(tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe")
    check_refusal(lambda: find(str(tmp_path / "pipe"), EXPECTED), StorageError, str(tmp_path / "pipe"))
    check_refusal(lambda: find("/dev/zero", EXPECTED), StorageError, "/dev/zero")
    assert content_of(cache) == {}


@pytest.mark.parametrize(
    "value",
    ["", " ", "s3://bucket/x", "ftp://host/x", "file:///x", "gs://", "~no-such-user/x", "C:\\x", "x\n"],
)
@pytest.mark.parametrize("act", [lambda value: find(value, EXPECTED), lambda value: check(value, EXPECTED)])
def test_paths_of_other_services_are_refused(act, value):
    check_refusal(lambda: act(value), ConfigError)


@pytest.mark.parametrize(
    "url",
    [
        *["http:", "http://", "https:///x", "https://:80/x", "http:x", "https://host:port/x", "https://[::1/x"],
        *["https://host/a b", "https://host/ü", "https://hóst/x", "https://host:99999/x", "https://host/x\ny"],
    ],
)
@pytest.mark.parametrize("act", [lambda value: find(value, EXPECTED), lambda value: check(value, EXPECTED)])
def test_malformed_addresses_are_refused(act, url):
    check_refusal(lambda: act(url), ConfigError, "inception_weights=", url[:8])


@pytest.mark.parametrize("status", [400, 403, 404, 410, 429, 500, 503])
def test_a_refusing_server_is_reported(status, cache):
    with web_server(answer(b"<html>", status)) as (address, _):
        check_refusal(lambda: find(f"{address}/weights", EXPECTED), StorageError, f"{address}/weights", str(status))
    assert content_of(cache) == {}


def test_a_cut_connection_is_reported(cache):
    for content in (b"", GRAPH[:9000]):
        with web_server(answer(content, length=len(GRAPH))) as (address, _):
            check_refusal(lambda url=address: find(url, EXPECTED), TrainerError, address)
    assert content_of(cache) == {}


def test_servers_that_do_not_answer_are_reported(cache, monkeypatch):
    monkeypatch.setattr(weights_module, "_CONNECTION_TIMEOUT_SECS", 0.3)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        closed = f"http://127.0.0.1:{port}/x"
        check_refusal(lambda: find(closed, EXPECTED), StorageError, closed)
        listening.listen()
        check_refusal(lambda: find(closed, EXPECTED), StorageError, closed)
    for url in ("https://no-such-host.invalid/x", f"https://{'a' * 64}.invalid/x"):
        check_refusal(lambda url=url: find(url, EXPECTED), StorageError, url[:60])
    assert content_of(cache) == {}


def test_a_server_that_never_ends_is_left(cache, monkeypatch):
    monkeypatch.setattr(weights_module, "_DOWNLOAD_TIMEOUT_SECS", 0.3)
    ends = threading.Event()

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not ends.wait(0.05):
                handler.wfile.write(b"x")

    start = time.monotonic()
    with web_server(drip) as (address, _):
        check_refusal(lambda: find(address, EXPECTED), StorageError, address)
        ends.set()
    assert time.monotonic() - start < 10 and content_of(cache) == {}


def test_a_stream_without_end_is_cut(cache):
    def flood(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(10_000):
                handler.wfile.write(bytes(100_000))

    with web_server(flood) as (address, _):
        check_refusal(lambda: find(address, EXPECTED), DataError, address)
    assert content_of(cache) == {}


SECRETS = [
    *[
        "https://user:hunter2@host/x",
        "http://hunter2@host/x",
        "https://:hunter2@host:443/x",
        "HTTPS://u:hunter2@[::1]/x",
    ],
    *[
        "https://host/x?X-Goog-Signature=hunter2",
        "https://host?hunter2",
        "https://host/x?a=b@hunter2",
        "https:?hunter2",
    ],
    *["https://host/x#hunter2", "https://host/x?#hunter2", "https://user:hunter2@host:port/x?hunter2"],
    *["https://user:hunt/hunter2@host/x", "https://user:a?hunter2@host/x", "https:user:hunter2@host/x"],
]


@pytest.mark.parametrize("url", SECRETS)
@pytest.mark.parametrize(
    "act",
    [
        lambda value: find(value, EXPECTED),
        lambda value: check(value, EXPECTED),
        lambda value: TrainConfig(inception_weights=value),
        lambda value: TrainConfig(metrics="none").override(inception_weights=value),
    ],
    ids=["find", "check", "config", "override"],
)
def test_an_address_with_a_password_or_a_signature_is_refused_and_not_shown(act, url, cache):
    check_refusal(lambda: act(url), ConfigError, "inception_weights=", url[:5])
    with pytest.raises(ConfigError) as caught:
        act(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("weights", ["download", "x?y#z@w", "gs://bucket/a@b", "https://host/a@b.tgz", "http://h:80/x"])
def test_other_weights_are_settings(weights):
    assert TrainConfig(inception_weights=weights).inception_weights == weights


@pytest.mark.parametrize("act", [find, check])
def test_buckets_that_refuse_are_reported(act, bucket, proxy, cache):
    where = f"{bucket}/weights"
    check_refusal(lambda: act(where, EXPECTED), MissingError, where)
    locate(where).write_bytes(GRAPH)
    proxy.policy = lambda request: 403
    check_refusal(lambda: act(where, EXPECTED), StorageError, where, "403", "roles/storage.objectViewer")
    proxy.policy = lambda request: 401
    check_refusal(lambda: act(where, EXPECTED), StorageError, where, "gcloud auth")
    assert content_of(cache) == {}


def test_a_missing_bucket_is_reported(cloud_storage):
    for act in (find, check):
        check_refusal(lambda act=act: act("gs://no-such-bucket/x", EXPECTED), StorageError, "gs://no-such-bucket")


# The check before a job is submitted.


def test_the_check_accepts_what_a_job_can_read(bucket, cache, monkeypatch):
    (locate(bucket) / "graph.pb").write_bytes(GRAPH)
    (locate(bucket) / "archive.tgz").write_bytes(ARCHIVE)
    fetched = []
    monkeypatch.setattr(gcs.BucketLocation, "read_bytes", lambda self, limit=None: fetched.append(self))
    for weights in ("download", "https://host/x", "HTTP://host/x", f"{bucket}/graph.pb", f"{bucket}/archive.tgz"):
        check(weights, EXPECTED)
    check(bucket.replace("gs://", "/gcs/") + "/graph.pb", EXPECTED)
    for path in ("/data/weights.pb", "/opt/a b/x", str(cache)):  # in the image, of which nothing is known
        check(path, EXPECTED)
    assert fetched == [] and content_of(cache) == {}


def test_the_check_refuses_objects_of_another_size(bucket):
    for content in (b"", GRAPH[:-1], ARCHIVE + b"x"):
        locate(f"{bucket}/x").write_bytes(content)
        check_refusal(lambda: check(f"{bucket}/x", EXPECTED), DataError, f"{bucket}/x", f"{len(content):,}", "30,000")


def test_the_check_refuses_weights_on_this_machine(tmp_path, cache):
    (tmp_path / "weights").write_bytes(GRAPH)
    for path in ("weights", "./weights", "data/none"):
        check_refusal(lambda path=path: check(path, EXPECTED), ConfigError, "inception_weights=", path[2:], "gs://")
    find(str(tmp_path / "weights"), EXPECTED)
    check_refusal(lambda: check(None, EXPECTED), ConfigError, "--inception_weights=")

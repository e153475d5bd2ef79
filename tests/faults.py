"""A proxy in front of a Cloud Storage server: what networks, quotas and permissions do to requests, it does."""

import contextlib
import enum
import gc
import http.client
import http.server
import json
import random
import re
import socket
import sys
import threading
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.buckets import at
from trainer.storage import gcs


class Fault(enum.Enum):
    """What can happen to a request, beside an error status."""

    DROPPED = "the connection ends before the server hears of it"
    LOST = "the server does it, and the connection ends before the answer"
    CUT = "the connection ends in the middle of the answer"


@dataclass(frozen=True)
class Request:
    """A request that arrived.

    Attributes:
        number: Of those before it.
        method: Of HTTP.
        path: With the query.
        object_name: Of the object that it is about; empty for lists and the like.
        num_bytes: Of its body.
    """

    number: int
    method: str
    path: str
    object_name: str
    num_bytes: int


Fate = Callable[[Request], Fault | int | None]
"""What becomes of a request: a fault, an HTTP status in place of an answer, or nothing."""

FAULTS = (Fault.DROPPED, Fault.LOST, Fault.CUT, 429, 503)


def one_in(count: int, seed: int = 0) -> Fate:
    """Every so many requests one fails, at random, each time in another way."""
    dice = random.Random(seed)
    return lambda request: dice.choice(FAULTS) if dice.random() < 1 / count else None


class Proxy:
    """Forwards to a server what `fate` lets through.

    Attributes:
        fate: May be replaced at any time.
        requests: All that arrived.
        failed: Those that did not go well.
        num_bytes_answered: Of the bodies of all answers.
    """

    def __init__(self, server: str):
        self.server = urllib.parse.urlsplit(server).netloc
        self.fate: Fate = lambda request: None
        self.requests: list[Request] = []
        self.failed: list[Request] = []
        self.num_bytes_answered = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._http = _Server(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def decide(self, method: str, path: str, body: bytes) -> Fault | int | None:
        """Notes a request, and says what becomes of it."""
        with self._lock:
            request = Request(len(self.requests), method, path, _object_name(path, body), len(body))
            self.requests.append(request)
            fate = self.fate(request)
            if fate is not None:
                self.failed.append(request)
            return fate

    def close(self) -> None:
        """Ends it."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Lets connections end that the client has closed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fate = self.proxy.decide(self.command, self.path, body)
        if isinstance(fate, int):
            self._answer(fate, {"Content-Type": "application/json"}, _error(fate))
        elif fate is Fault.DROPPED:
            self._hang_up()
        else:
            status, headers, content = self._ask(body)
            if fate is Fault.LOST:
                self._hang_up()
            elif fate is Fault.CUT:
                self._answer(status, headers, content, sent=len(content) // 2)
                self._hang_up()
            else:
                self.proxy.num_bytes_answered += len(content)
                self._answer(status, headers, content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _forward

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.proxy.server)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kept = {
            name: value.replace(self.proxy.server, self.headers["Host"])
            for name, value in answer.getheaders()
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date")
        }
        return answer.status, kept, content

    def _answer(self, status: int, headers: dict[str, str], content: bytes, sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:sent])

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


def _object_name(path: str, body: bytes) -> str:
    """The name is in the path, or in the JSON that an upload begins with."""
    if path.startswith("/upload/"):
        found = re.search(rb'"name": ?"([^"]*)"', body[:2000])
        return found[1].decode() if found else ""
    found = re.search(r"/o/([^?]+)", path)
    return urllib.parse.unquote(found[1]) if found else ""


def _error(status: int) -> bytes:
    return json.dumps({"error": {"code": status, "message": "as the test asked; ya29.a-secret-token"}}).encode()


@contextlib.contextmanager
def through(server: str) -> Iterator[Proxy]:
    """While entered, google-cloud-storage goes through a proxy to a server."""
    proxy = Proxy(server)
    try:
        with at(proxy.address):
            yield proxy
    finally:
        proxy.close()


@pytest.fixture
def proxy(cloud_storage: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that google-cloud-storage goes through, with retries that do not wait long."""
    # google-cloud-storage does not close connections that failed; pytest forgets this filter after the test.
    warnings.filterwarnings("ignore", "Exception ignored in. <socket", pytest.PytestUnraisableExceptionWarning)
    monkeypatch.setattr(gcs, "_RETRY", gcs._RETRY.with_delay(initial=0.01, maximum=0.05).with_timeout(10.0))
    with through(cloud_storage) as between:
        yield between
        gcs.client().close()
        gc.collect()  # while what it warns of is expected

"""A proxy in front of a Cloud Storage server that injects the faults of networks, quotas and permissions."""

import contextlib
import enum
import http.client
import http.server
import json
import random
import re
import socket
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trainer.testing.bucket_server import emulator_host


class Fault(enum.Enum):
    """A fault other than an error status."""

    DROPPED_REQUEST = "the connection ends before the server receives the request"
    LOST_RESPONSE = "the server handles the request, and the connection ends before the response"
    CUT_RESPONSE = "the connection ends in the middle of the response"


@dataclass(frozen=True)
class ProxiedRequest:
    """A request that reached the proxy.

    Attributes:
        number: Number of earlier requests.
        method: HTTP method.
        path: Path and query.
        object_name: Name of the object that the request is about; empty for lists and other requests.
        num_bytes: Size of the body in bytes.
    """

    number: int
    method: str
    path: str
    object_name: str
    num_bytes: int


FaultPolicy = Callable[[ProxiedRequest], Fault | int | None]
"""Returns a fault, an HTTP status that replaces the response, or None to forward the request."""

FAULTS = (Fault.DROPPED_REQUEST, Fault.LOST_RESPONSE, Fault.CUT_RESPONSE, 429, 503)
"""Transient faults, which clients are expected to retry."""


def no_faults(request: ProxiedRequest) -> None:
    """Forwards every request."""


def random_faults(one_in: int, seed: int = 0) -> FaultPolicy:
    """Returns a policy that lets requests fail at random, each with a random transient fault.

    Args:
        one_in: Mean number of requests per fault.
        seed: Seed of the random numbers.
    """
    rng = random.Random(seed)
    return lambda request: rng.choice(FAULTS) if rng.random() < 1 / one_in else None


class FaultProxy:
    """Forwards requests to a server, except those for which `policy` chooses a fault.

    Args:
        server: Address of the server, such as `http://127.0.0.1:8080`.

    Attributes:
        policy: Chooses the fault of each request. It may be replaced at any time.
        requests: All requests that arrived.
        failed: The requests with a fault.
        num_bytes_answered: Total size of the bodies of complete responses.
        address: Address of the proxy.
    """

    def __init__(self, server: str):
        self.server = urllib.parse.urlsplit(server).netloc
        self.policy: FaultPolicy = no_faults
        self.requests: list[ProxiedRequest] = []
        self.failed: list[ProxiedRequest] = []
        self.num_bytes_answered = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._http = _Server(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def choose_fault(self, method: str, path: str, body: bytes) -> Fault | int | None:
        """Records a request and returns the fault that the policy chooses for it."""
        with self._lock:
            request = ProxiedRequest(len(self.requests), method, path, _object_name(path, body), len(body))
            self.requests.append(request)
            fault = self.policy(request)
            if fault is not None:
                self.failed.append(request)
            return fault

    def count_answer(self, num_bytes: int) -> None:
        """Adds a complete response to `num_bytes_answered`."""
        with self._lock:
            self.num_bytes_answered += num_bytes

    def close(self) -> None:
        """Stops the proxy."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@contextlib.contextmanager
def fault_proxy(server: str) -> Iterator[FaultProxy]:
    """Runs a proxy in front of a server and points google-cloud-storage at the proxy.

    Args:
        server: Address of the server.
    """
    proxy = FaultProxy(server)
    try:
        with emulator_host(proxy.address):
            yield proxy
    finally:
        proxy.close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores connections that the client has closed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(http.server.BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.choose_fault(self.command, self.path, body)
        if isinstance(fault, int):
            self._respond(fault, {"Content-Type": "application/json"}, _error_body(fault))
            return
        if fault is Fault.DROPPED_REQUEST:
            self._hang_up()
            return
        status, headers, content = self._forward(body)
        if fault is None:
            self.proxy.count_answer(len(content))
            self._respond(status, headers, content)
            return
        if fault is Fault.CUT_RESPONSE:
            self._respond(status, headers, content, num_bytes_sent=len(content) // 2)
        self._hang_up()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Sends the request to the server; returns status, headers and body of its response."""
        connection = http.client.HTTPConnection(self.proxy.server)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection.request(self.command, self.path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        forwarded = {
            name: value.replace(self.proxy.server, self.headers["Host"])
            for name, value in response.getheaders()
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date")
        }
        return response.status, forwarded, content

    def _respond(self, status: int, headers: dict[str, str], content: bytes, num_bytes_sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:num_bytes_sent])

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


def _object_name(path: str, body: bytes) -> str:
    """Returns the object's name from the path, or from the JSON at the start of an upload; empty if there is none."""
    if path.startswith("/upload/"):
        in_body = re.search(rb'"name": ?"([^"]*)"', body[:2000])
        return in_body[1].decode() if in_body else ""
    in_path = re.search(r"/o/([^?]+)", path)
    return urllib.parse.unquote(in_path[1]) if in_path else ""


def _error_body(status: int) -> bytes:
    # The token checks that error messages never show credentials.
    return json.dumps({"error": {"code": status, "message": "injected fault; ya29.a-secret-token"}}).encode()

"""HTTP server of an exported model, as Vertex AI expects it from a custom container.

It is the standard library's server with a thread per connection: the model computes one request at a time anyway, and
the threads only wait for bodies and write answers. Connections end after one answer.
"""

import io
import json
import logging
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trainer.errors import StorageError, TrainerError, escape, quote, shorten
from trainer.logging import log_fields
from trainer.serving.served_model import ServedModel

_logger = logging.getLogger(__name__)

_IDLE_SECS = 20.0
"""Longest time without a byte from the client, and for the client to take the answer."""
_REQUEST_SECS = 60.0
"""Longest time for a whole request."""
_DISCARD_SECS = 10.0
"""Longest time to read what a client sends after it got its answer."""
_MAX_ACTIVE = 32
"""Largest number of requests whose bodies are in memory."""
_CHUNK_BYTES = 2**16
_MAX_DISCARDED_BYTES = 2**26
_MAX_LENGTH_DIGITS = 18
_POLL_SECS = 0.05


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Address and limits of a server.

    Attributes:
        host: Address to listen on.
        port: Port, or 0 for a free one.
        health_route: Path of health checks.
        predict_route: Path of requests for images.
        max_instances: Maximum number of instances of a request.
        max_request_bytes: Maximum size of a body.
        max_response_bytes: Maximum size of an answer.
    """

    host: str = "127.0.0.1"
    port: int = 0
    health_route: str = "/health"
    predict_route: str = "/predict"
    max_instances: int = 64
    max_request_bytes: int = 1_500_000
    max_response_bytes: int = 1_500_000


class _HttpError(Exception):
    """An answer other than 200.

    Args:
        code: HTTP status.
        message: One sentence.
    """

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class PredictionServer:
    """A server that answers health checks with 503 until it has a model.

    Use it as a context manager; it listens until the context ends.

    Args:
        settings: Address and limits.

    Raises:
        StorageError: If the address cannot be used.
    """

    def __init__(self, settings: ServerSettings):
        self.settings = settings
        self.model: ServedModel | None = None
        self._is_draining = False
        self._num_active = 0
        self._changed = threading.Condition()
        try:
            self._server = _ListeningServer((settings.host, settings.port), PredictionHandler)
            self._server.predictions = self
        except (OSError, OverflowError) as error:
            raise StorageError(
                f"{escape(settings.host)}:{settings.port} cannot be listened on ({escape(error)}); give another --host "
                "or --port."
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL_SECS,), daemon=True)

    @property
    def port(self) -> int:
        """Port that the server listens on."""
        return self._server.server_port

    @property
    def is_ready(self) -> bool:
        """True if the server answers requests."""
        return self.model is not None and not self._is_draining

    def __enter__(self) -> "PredictionServer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def drain(self, seconds: float) -> bool:
        """Refuses new requests, and waits for the answers to the others.

        Args:
            seconds: Longest time to wait.

        Returns:
            True if all requests were answered.
        """
        with self._changed:
            self._is_draining = True
            return self._changed.wait_for(lambda: self._num_active == 0, seconds)

    @contextmanager
    def active(self) -> Iterator[ServedModel]:
        """Counts a request while the context is active, and returns the model that answers it."""
        with self._changed:
            if self.model is None or self._is_draining:
                state = "is ending" if self._is_draining else "is still loading its model"
                raise _HttpError(503, f"the server {state}; try again.")
            if self._num_active >= _MAX_ACTIVE:
                raise _HttpError(503, f"the server answers {_MAX_ACTIVE} other requests; try again.")
            self._num_active += 1
        try:
            yield self.model
        finally:
            with self._changed:
                self._num_active -= 1
                self._changed.notify_all()


class _ListeningServer(ThreadingHTTPServer):
    predictions: PredictionServer
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):  # the client has gone
            _logger.error("An answer failed.", exc_info=error)


class _TimedReader(io.RawIOBase):
    """Reads from a connection until a deadline.

    Args:
        connection: Connection. Reading changes its timeout.
        seconds: Time from now to the deadline.
    """

    def __init__(self, connection: socket.socket, seconds: float):
        self._connection = connection
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the time for the request is over")
        self._connection.settimeout(min(remaining, _IDLE_SECS))
        return self._connection.recv_into(buffer)


class PredictionHandler(BaseHTTPRequestHandler):
    """Answers one request of a connection."""

    server: "_ListeningServer"

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_TimedReader(self.connection, _REQUEST_SECS))

    def handle(self) -> None:
        super().handle()
        self._discard_rest()

    def do_GET(self) -> None:
        if self._path == self.settings.health_route:
            status = "ready" if self.predictions.is_ready else "not ready"
            self._respond(200 if self.predictions.is_ready else 503, {"status": status})
        elif self._path == self.settings.predict_route:
            self.send_error(405, f"{self.settings.predict_route} takes POST requests.")
        else:
            self._refuse_path()

    def do_HEAD(self) -> None:
        self.do_GET()  # `_write` leaves out the body

    def do_POST(self) -> None:
        if self._path != self.settings.predict_route:
            self._refuse_path()
            return
        try:
            with self.predictions.active() as model:
                self._write(200, self._predict(model))
            return
        except _HttpError as error:
            code, message = error.code, str(error)
        except TrainerError as error:
            code, message = 400, str(error)
        except (TimeoutError, ConnectionError):
            raise
        except Exception as error:  # the server must survive a request that the model cannot answer
            _logger.error("A request failed.", extra=log_fields({}, traceback.format_exc()))
            code, message = 500, f"the model failed ({type(error).__name__}); see the log of the server."
        self.send_error(code, message)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self._respond(code, {"error": escape(shorten(message or self.responses[code][0]))})

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def predictions(self) -> PredictionServer:
        """The server that this request was sent to."""
        return self.server.predictions

    @property
    def settings(self) -> ServerSettings:
        """Limits of the server."""
        return self.predictions.settings

    @property
    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _refuse_path(self) -> None:
        self.send_error(
            404,
            f"send requests to {self.settings.predict_route}, or health checks to GET {self.settings.health_route}.",
        )

    def _predict(self, model: ServedModel) -> bytes:
        """Returns the body of the answer to a request for images."""
        request = model.parse(self._read_body(), self.settings.max_instances)
        predictions = model.predict(request)
        content = json.dumps({"predictions": predictions}).encode()
        if len(content) > self.settings.max_response_bytes:
            num_images = self.settings.max_response_bytes * len(predictions) // len(content)
            raise _HttpError(
                400,
                f"the answer has {len(content):,} bytes, more than {self.settings.max_response_bytes:,}; request at "
                f"most about {max(1, num_images)} images at once, or set the parameter format to webp or jpeg.",
            )
        return content

    def _read_body(self) -> bytes:
        """Returns the body of a request."""
        num_bytes, content = self._content_length(), bytearray()
        while len(content) < num_bytes:
            received = f"the body ended after {len(content):,} of {num_bytes:,} bytes"
            try:
                part = self.rfile.read1(min(num_bytes - len(content), _CHUNK_BYTES))
            except TimeoutError as error:
                raise _HttpError(408, f"{received}; send it without pauses.") from error
            if not part:
                raise _HttpError(400, f"{received}; send as many bytes as Content-Length states.")
            content += part
        return bytes(content)

    def _content_length(self) -> int:
        """Returns the number of bytes of the body. A large body is refused before it is read."""
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths or "Transfer-Encoding" in self.headers:
            raise _HttpError(411, "the request has no body with a Content-Length; send one, and no chunks.")
        if len(set(lengths)) > 1 or not re.fullmatch("[0-9]+", lengths[0]):
            raise _HttpError(400, f"Content-Length={quote(', '.join(lengths))} is not a number of bytes; correct it.")
        digits = lengths[0].lstrip("0")
        if not digits:
            raise _HttpError(400, "the request has no body (Content-Length is 0); send one.")
        maximum = self.settings.max_request_bytes
        if len(digits) > _MAX_LENGTH_DIGITS or int(digits) > maximum:
            raise _HttpError(
                413, f"the request has a Content-Length of more than {maximum:,} bytes; send fewer instances."
            )
        return int(digits)

    def _discard_rest(self) -> None:
        """Reads what the client still sends, so that it can read the answer before the connection is reset."""
        rest, num_discarded = _TimedReader(self.connection, _DISCARD_SECS), 0
        try:
            self.connection.shutdown(socket.SHUT_WR)
            while num_discarded < _MAX_DISCARDED_BYTES and (part := rest.read(_CHUNK_BYTES)):
                num_discarded += len(part)
        except OSError:  # the client has gone, or waits without a reason
            return

    def _respond(self, code: int, body: dict[str, Any]) -> None:
        self._write(code, json.dumps(body).encode())

    def _write(self, code: int, content: bytes) -> None:
        self.connection.settimeout(_IDLE_SECS)
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

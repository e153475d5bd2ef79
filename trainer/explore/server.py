"""The server of the page: on the loopback interface, for one browser that knows the token."""

import json
import logging
import secrets
import string
import sys
import threading
from http import HTTPStatus
from http.client import HTTP_PORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, cast

from trainer.errors import ConfigError, TrainerError, escape
from trainer.explore.points import Explorer

_logger = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_MAX_BODY_BYTES = 64 * 1024
_END_SECS = 10.0
_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"


class ExploreServer(ThreadingHTTPServer):
    """Serves the page and its images. Requests need the token, and must come from this page.

    Args:
        explorer: Images of the generator. One request at a time uses it.
        port: Port; 0 for any free one.

    Raises:
        ConfigError: If the port is not available.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, explorer: Explorer, port: int = 0):
        self._explorer, self._device_lock = explorer, threading.Lock()
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((_HOST, port), _ExploreHandler)
        except OSError as error:
            raise ConfigError(
                f"port={port} is not available ({error.strerror}); choose another one, or 0 for a free one."
            ) from error
        names = frozenset((_HOST, "localhost"))
        without_port = names if self.server_port == HTTP_PORT else frozenset()  # browsers omit this port
        self.hosts = without_port | {f"{name}:{self.server_port}" for name in names}

    @property
    def address(self) -> str:
        """Address of the page, with the token."""
        return f"http://{_HOST}:{self.server_port}/{self.token}/"

    def page(self, nonce: str) -> bytes:
        """Returns the page, whose script and style have a nonce."""
        names = {"style": "explore.css", "script": "explore.js"}
        parts = {name: _read(file) for name, file in names.items()}
        return string.Template(_read("explore.html")).substitute(nonce=nonce, **parts).encode()

    def facts(self) -> bytes:
        """Returns the facts about the generator as JSON."""
        with self._device_lock:
            return json.dumps(self._explorer.facts).encode()

    def image(self, body: bytes) -> tuple[bytes, str]:
        """Returns the PNG of a point and its file name."""
        with self._device_lock:
            image = self._explorer.image(body)
        return image.content, image.name

    def map(self, body: bytes) -> tuple[bytes, str]:
        """Returns the PNG of a map and its file name."""
        with self._device_lock:
            return self._explorer.map(body), "map.png"

    def finish(self) -> None:
        """Closes the port, and waits for the image that is being generated, at most for 10 seconds."""
        self.server_close()
        self._device_lock.acquire(timeout=_END_SECS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs an unexpected error of a request. A browser that has closed the connection is none."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            _logger.error(f"A request failed ({type(error).__name__}: {escape(error)}).")


class _ExploreHandler(BaseHTTPRequestHandler):
    """One request."""

    timeout = 20.0
    server_version = "gan-trainer"
    sys_version = ""

    def do_GET(self) -> None:
        name = self._authorized_name()
        if name == "":
            nonce = secrets.token_urlsafe(16)
            policy = (
                f"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src 'self'; "
                f"img-src blob: data:; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'"
            )
            page = self._server.page(nonce)
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", page, {"Content-Security-Policy": policy})
        elif name == "facts":
            self._send(HTTPStatus.OK, _JSON, self._server.facts())
        elif name is not None:
            self._refuse(HTTPStatus.NOT_FOUND, "This address does not exist; open the one that the command printed.")

    def do_POST(self) -> None:
        name = self._authorized_name()
        if name is None:
            return
        generate = {"image": self._server.image, "map": self._server.map}.get(name)
        if generate is None:
            self._refuse(HTTPStatus.NOT_FOUND, "This address takes no data; send a point to image or map.")
            return
        body = self._body()
        if body is None:
            return
        try:
            content, file_name = generate(body)
        except TrainerError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, escape(error))
        else:
            disposition = f'attachment; filename="{file_name}"'
            self._send(HTTPStatus.OK, "image/png", content, {"Content-Disposition": disposition})

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing, because addresses have the token."""

    @property
    def _server(self) -> ExploreServer:
        return cast(ExploreServer, self.server)

    def _authorized_name(self) -> str | None:
        """Returns the part of the address after the token; None after an answer to a request that is not allowed.

        The check of the host excludes pages whose name resolves to this machine (DNS rebinding).
        """
        hosts, origins = (self.headers.get_all(name, []) for name in ("Host", "Origin"))
        allowed = self._server.hosts
        is_own_host = len(hosts) == 1 and hosts[0].lower() in allowed
        if not is_own_host or any(origin.lower() not in {f"http://{host}" for host in allowed} for origin in origins):
            self._refuse(HTTPStatus.FORBIDDEN, "This request comes from another page; open the printed address.")
            return None
        token, slash, name = self.path.removeprefix("/").partition("/")
        is_token = secrets.compare_digest(token.encode("utf-8", "replace"), self._server.token.encode())
        if not (is_token and slash):
            self._refuse(HTTPStatus.FORBIDDEN, "The token is missing or wrong; open the address as it was printed.")
            return None
        return name

    def _body(self) -> bytes | None:
        """Returns the body of a request; None after an answer to one that has none, or a large one."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != _JSON:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The data is no {_JSON}; send it as such.")
        elif "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit() and len(length) < 12):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "The data has no length; send Content-Length.")
        elif int(length) > _MAX_BODY_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The data has {length} bytes; send at most {_MAX_BODY_BYTES}."
            )
        else:
            return self.rfile.read(int(length))
        return None

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self.close_connection = True
        self._send(status, _TEXT, sentence.encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        fixed = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        self.send_response(status)
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _read(name: str) -> str:
    return resources.files(__package__).joinpath("static").joinpath(name).read_text(encoding="utf-8")

"""A stand-in for Vertex AI's job service on this machine, for tests and for trying jobs out."""

import datetime
import json
import re
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from google.protobuf import json_format

aiplatform_v1 = pytest.importorskip("google.cloud.aiplatform_v1")  # tests that need the stand-in are skipped as well
MESSAGES = {
    "customJobs": aiplatform_v1.CustomJob,
    "hyperparameterTuningJobs": aiplatform_v1.HyperparameterTuningJob,
}
_PATH = re.compile(r"/v1/(projects/[^/]+/locations/[^/]+)/(\w+?)(?:/(\w+))?(:cancel)?")
_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
_STATUS |= {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
_OVER = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")


DROPPED = 0
"""In place of the code of an answer: the connection is closed without one."""
OF_ANOTHER = -1
"""In place of the code of an answer: something else answers, as the page of a hotel's network does."""


class Refusal(Exception):
    """An answer that is an error, or none."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class VertexService:
    """Takes jobs as Vertex AI does, checks them with the SDK's own messages, and runs them in threads.

    Args:
        run: Runs a job: of a custom job it gets the jobSpec, of a tuning job all of it. What it raises fails the job.
    """

    def __init__(self, run: Callable[[dict[str, Any]], None] = lambda spec: None):
        self.run = run
        self.jobs: dict[str, dict[str, Any]] = {}
        """Every job, as it is told, by its resource name."""
        self.requests: list[tuple[str, str, Any]] = []
        """Method, path and body of all that was asked."""
        self.log: list[dict[str, Any]] = []
        """Every entry of Cloud Logging."""
        self._refusals: list[Refusal] = []
        self._changing = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._threads = [threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "VertexService":
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(10)

    def refuse(self, code: int, message: str = "no", times: int = 1) -> None:
        """Answers the next requests with an error."""
        self._refusals += [Refusal(code, message)] * times

    def await_state(self, name: str, state: str) -> None:
        """Waits until a job has a state, such as RUNNING."""
        with self._changing:
            assert self._changing.wait_for(lambda: self.jobs[name]["state"] == f"JOB_STATE_{state}", 10)

    def bodies(self) -> list[Any]:
        """What was sent to make jobs."""
        return [body for method, path, body in self.requests if method == "POST" and ":" not in path]

    def write(self, job: str, message: str | dict[str, Any], moment: str = "", task: str = "workerpool0-0") -> None:
        """Puts an entry into a job's log, now or at another moment; an object is a structured entry."""
        self.log.append(
            {
                "insertId": f"entry-{len(self.log)}",
                "timestamp": moment or _now(),
                "severity": message.get("severity", "INFO") if isinstance(message, dict) else "DEFAULT",
                "resource": {"type": "ml_job", "labels": {"job_id": job.rpartition("/")[2], "task_name": task}},
                ("jsonPayload" if isinstance(message, dict) else "textPayload"): message,
            }
        )

    def answer(self, method: str, target: str, body: Any) -> dict[str, Any]:
        """The answer to a request."""
        path, _, query = target.partition("?")
        self.requests.append((method, path, body))
        if self._refusals:
            raise self._refusals.pop(0)
        if (method, path) == ("POST", "/v2/entries:list"):
            return self._entries(body)
        found = _PATH.fullmatch(path)
        if found is None or found[2] not in MESSAGES:
            raise Refusal(404, f"there is no method {method} {path}")
        parent, collection, number, cancel = found.groups()
        name = f"{parent}/{collection}/{number}"
        if number and name not in self.jobs:
            raise Refusal(404, f"{collection} {name} is not found")
        match method, number, cancel:
            case "POST", None, None:
                return self._create(parent, collection, body)
            case "POST", str(), ":cancel":
                return self._cancel(name)
            case "GET", str(), None:
                return self.jobs[name]
            case "GET", None, None:
                return self._list(parent, collection, dict(urllib.parse.parse_qsl(query)))
        raise Refusal(404, f"there is no method {method} {path}")

    def _create(self, parent: str, collection: str, body: Any) -> dict[str, Any]:
        message = MESSAGES[collection]
        try:
            job = json_format.MessageToDict(json_format.ParseDict(body, message.pb(message())))
        except json_format.ParseError as error:
            raise Refusal(400, f"Invalid JSON payload received. {error}") from error
        spec = job.get("jobSpec", {}) if collection == "customJobs" else job
        if not job.get("displayName") or not spec.get("trialJobSpec", spec).get("workerPoolSpecs"):
            raise Refusal(400, "List of found errors: 1.Field: display_name or worker_pool_specs; Message: Required.")
        name = f"{parent}/{collection}/{1000 + len(self.jobs)}"
        self.jobs[name] = job | {"name": name, "createTime": _now(), "state": "JOB_STATE_PENDING"}
        told = dict(self.jobs[name])
        thread = threading.Thread(target=self._work, args=(name, spec), daemon=True)
        self._threads.append(thread)
        thread.start()
        return told

    def _entries(self, body: Any) -> dict[str, Any]:
        """Entries of one job in pages of two, whatever size is asked for."""
        wanted = re.fullmatch(
            r'resource.type="ml_job" AND resource.labels.job_id="(\d+)"(?: AND timestamp>="([^"]+)")?', body["filter"]
        )
        if wanted is None or body["orderBy"] != "timestamp asc" or not body["resourceNames"][0].startswith("projects/"):
            raise Refusal(400, f"cannot parse {body}")
        number, since = wanted.groups()
        found = [
            entry
            for entry in sorted(self.log, key=lambda one: one["timestamp"])
            if entry["resource"]["labels"]["job_id"] == number and entry["timestamp"][:19] >= (since or "")[:19]
        ]
        start = int(body.get("pageToken", 0))
        token = {"nextPageToken": str(start + 2)} if len(found) > start + 2 else {}
        return {"entries": found[start : start + 2]} | token

    def _work(self, name: str, spec: dict[str, Any]) -> None:
        self._change(name, state="JOB_STATE_RUNNING")
        try:
            self.run(spec)
        except Exception as error:
            self._change(name, state="JOB_STATE_FAILED", error={"code": 3, "message": str(error)})
        else:
            self._change(name, state="JOB_STATE_SUCCEEDED")

    def _cancel(self, name: str) -> dict[str, Any]:
        self._change(name, state="JOB_STATE_CANCELLED", error={"code": 1, "message": "CANCELED"})
        return {}

    def _change(self, name: str, **changes: Any) -> None:
        with self._changing:
            if self.jobs[name]["state"] not in _OVER:
                self.jobs[name] = self.jobs[name] | changes
            self._changing.notify_all()

    def _list(self, parent: str, collection: str, query: dict[str, str]) -> dict[str, Any]:
        found = [job for name, job in self.jobs.items() if name.startswith(f"{parent}/{collection}/")][::-1]
        start, size = int(query.get("pageToken", 0)), int(query.get("pageSize", 100))
        token = {"nextPageToken": str(start + size)} if len(found) > start + size else {}
        return {collection: found[start : start + size]} | token


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")


def _handler(service: VertexService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                code, told = 200, service.answer(self.command, self.path, json.loads(text) if text else None)
            except Refusal as refusal:
                error = {"code": refusal.code, "message": str(refusal), "status": _STATUS.get(refusal.code, "UNKNOWN")}
                code, told = refusal.code, {"error": error}
            if code == DROPPED:
                return
            content = json.dumps(told).encode()
            if code == OF_ANOTHER:
                code, content = 200, b"<html>Sign in to this network</html>"
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler

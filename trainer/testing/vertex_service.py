"""A server that accepts and runs jobs as Vertex AI's job service does. It needs the extra `vertex`."""

import datetime
import json
import re
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.cloud import aiplatform_v1
from google.protobuf import json_format

from trainer.cloud.vertex.endpoint import ANONYMOUS_VARIABLE, ENDPOINT_VARIABLE
from trainer.cloud.vertex.logs import SEVERITIES
from trainer.testing.model_registry import ModelRegistry

JOB_MESSAGES = {
    "customJobs": aiplatform_v1.CustomJob,
    "hyperparameterTuningJobs": aiplatform_v1.HyperparameterTuningJob,
}
"""The SDK's message class of each collection of jobs."""
NO_RESPONSE = 0
"""A code for `VertexService.fail`: the connection closes without a response."""
FOREIGN_RESPONSE = -1
"""A code for `VertexService.fail`: another server responds, such as the sign-in page of a hotel's network."""

_WAIT_SECS = 10.0
_PATH = re.compile(r"/v1/(projects/[^/]+/locations/[^/]+)/(\w+?)(?:/(\w+))?(:cancel)?")
_LOG_FILTER = re.compile(
    r'resource.type="ml_job" AND resource.labels.job_id="(?P<job>\d+)"'
    r'(?: AND resource.labels.task_name="(?P<task>[\w-]+)")?(?: AND severity>=(?P<severity>[A-Z]+))?'
    r'(?: AND timestamp>="(?P<since>[^"]+)")?'
)
_JOB_CONDITION = re.compile(r'(?P<field>state|display_name|labels\.[\w-]+)(?P<operator>=|!=|:)"?(?P<value>[\w*.-]+)"?')
_LOG_PAGE_SIZE = 2
_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
_FINAL_STATES = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")


class ServiceError(Exception):
    """An error response.

    Args:
        code: HTTP status, `NO_RESPONSE` or `FOREIGN_RESPONSE`.
        message: Message of the response.
    """

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class VertexService:
    """Accepts jobs as Vertex AI does, checks them with the SDK's own messages, and runs each in a thread.

    Use it as a context manager; the server runs until the context ends.

    Args:
        run: Function that runs a job. It receives the `jobSpec` of a custom job, or a whole tuning job. An exception
            fails the job.
        predict: Function that answers requests for predictions, as in `ModelRegistry`.

    Attributes:
        registry: Models, endpoints and batch predictions.
        jobs: Every job as the service reports it, by resource name.
        requests: (method, path, body) of every request.
        log: Every entry of Cloud Logging.
        regions_without_machines: Regions whose jobs fail before they run.
    """

    def __init__(
        self,
        run: Callable[[dict[str, Any]], None] = lambda spec: None,
        predict: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: {"predictions": []},
    ):
        self.run = run
        self.registry = ModelRegistry(predict)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.log: list[dict[str, Any]] = []
        self.regions_without_machines: set[str] = set()
        self._errors: list[ServiceError] = []
        self._jobs_changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_class(self))
        self._server.daemon_threads = True
        self._threads = [threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)]

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make the commands call this server without credentials."""
        return {ENDPOINT_VARIABLE: self.address, ANONYMOUS_VARIABLE: "true"}

    @property
    def address(self) -> str:
        """The address of the server, such as `http://127.0.0.1:8080`."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "VertexService":
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(_WAIT_SECS)

    def fail(self, code: int, message: str = "no", times: int = 1) -> None:
        """Lets the next requests fail.

        Args:
            code: HTTP status, `NO_RESPONSE` or `FOREIGN_RESPONSE`.
            message: Message of the error.
            times: Number of requests that fail.
        """
        self._errors += [ServiceError(code, message)] * times

    def await_state(self, name: str, state: str) -> None:
        """Waits until a job has a state, such as RUNNING.

        Raises:
            TimeoutError: If the job does not reach the state within ten seconds.
        """
        with self._jobs_changed:
            if not self._jobs_changed.wait_for(lambda: self.jobs[name]["state"] == f"JOB_STATE_{state}", _WAIT_SECS):
                raise TimeoutError(f"{name} is {self.jobs[name]['state']} and did not become {state}.")

    def bodies(self) -> list[Any]:
        """Returns the bodies of the requests that create jobs."""
        return [body for method, path, body in self.requests if method == "POST" and ":" not in path]

    def write(self, job: str, message: str | dict[str, Any], timestamp: str = "", task: str = "workerpool0-0") -> None:
        """Adds an entry to a job's log.

        Args:
            job: Resource name of the job.
            message: Text, or the payload of a structured entry.
            timestamp: Time in RFC 3339 format; empty for now.
            task: Name of the replica that writes the entry.
        """
        self.log.append(
            {
                "insertId": f"entry-{len(self.log)}",
                "timestamp": timestamp or _now(),
                "severity": message.get("severity", "INFO") if isinstance(message, dict) else "DEFAULT",
                "resource": {"type": "ml_job", "labels": {"job_id": job.rpartition("/")[2], "task_name": task}},
                ("jsonPayload" if isinstance(message, dict) else "textPayload"): message,
            }
        )

    def answer(self, method: str, target: str, body: Any) -> dict[str, Any]:
        """Returns the body of the response to a request.

        Raises:
            ServiceError: If the request fails.
        """
        path, _, query = target.partition("?")
        self.requests.append((method, path, body))
        if self._errors:
            raise self._errors.pop(0)
        if (method, path) == ("POST", "/v2/entries:list"):
            return self._log_entries(body)
        try:
            answer = self.registry.answer(method, path, dict(urllib.parse.parse_qsl(query)), body)
        except (ValueError, KeyError) as error:
            raise ServiceError(404 if isinstance(error, KeyError) else 400, str(error)) from error
        if answer is not None:
            return answer
        match = _PATH.fullmatch(path)
        if match is None or match[2] not in JOB_MESSAGES:
            raise ServiceError(404, f"there is no method {method} {path}")
        parent, collection, number, cancel = match.groups()
        name = f"{parent}/{collection}/{number}"
        if number and name not in self.jobs:
            raise ServiceError(404, f"{collection} {name} is not found")
        match method, number, cancel:
            case "POST", None, None:
                return self._create(parent, collection, body)
            case "POST", str(), ":cancel":
                return self.cancel(name)
            case "GET", str(), None:
                return self.jobs[name]
            case "GET", None, None:
                return self._list(parent, collection, dict(urllib.parse.parse_qsl(query)))
        raise ServiceError(404, f"there is no method {method} {path}")

    def _log_entries(self, body: Any) -> dict[str, Any]:
        """Returns a page of a job's log entries. A page has two entries, regardless of the requested size."""
        match, order = _LOG_FILTER.fullmatch(body["filter"]), body["orderBy"]
        orders = ("timestamp asc", "timestamp desc")
        if match is None or order not in orders or not body["resourceNames"][0].startswith("projects/"):
            raise ServiceError(400, f"cannot parse {body}")
        min_severity = SEVERITIES.index(match["severity"] or "DEFAULT")
        entries = [
            entry
            for entry in sorted(self.log, key=lambda entry: entry["timestamp"], reverse=order.endswith("desc"))
            if entry["resource"]["labels"]["job_id"] == match["job"]
            and entry["resource"]["labels"]["task_name"] == (match["task"] or entry["resource"]["labels"]["task_name"])
            and SEVERITIES.index(entry["severity"]) >= min_severity
            and entry["timestamp"][:19] >= (match["since"] or "")[:19]
        ]
        return _page("entries", entries, int(body.get("pageToken", 0)), _LOG_PAGE_SIZE)

    def _create(self, parent: str, collection: str, body: Any) -> dict[str, Any]:
        message = JOB_MESSAGES[collection]
        try:
            job = json_format.MessageToDict(json_format.ParseDict(body, message.pb(message())))
        except json_format.ParseError as error:
            raise ServiceError(400, f"Invalid JSON payload received. {error}") from error
        spec = job.get("jobSpec", {}) if collection == "customJobs" else job
        if not job.get("displayName") or not spec.get("trialJobSpec", spec).get("workerPoolSpecs"):
            message = "List of found errors: 1.Field: display_name or worker_pool_specs; Message: Required."
            raise ServiceError(400, message)
        name = f"{parent}/{collection}/{1000 + len(self.jobs)}"
        self.jobs[name] = job | {"name": name, "createTime": _now(), "state": "JOB_STATE_PENDING"}
        created = dict(self.jobs[name])
        thread = threading.Thread(target=self._run_job, args=(name, spec), daemon=True)
        self._threads.append(thread)
        thread.start()
        return created

    def _run_job(self, name: str, spec: dict[str, Any]) -> None:
        region = name.split("/")[3]
        if region in self.regions_without_machines:
            message = f"Resources are insufficient in region: {region}. Please try a different region."
            self.update(name, state="JOB_STATE_FAILED", error={"code": 8, "message": message})
            return
        self.update(name, state="JOB_STATE_RUNNING", startTime=_now())
        try:
            self.run(spec)
        except Exception as error:
            self.update(name, state="JOB_STATE_FAILED", error={"code": 3, "message": str(error)})
        else:
            self.update(name, state="JOB_STATE_SUCCEEDED")

    def cancel(self, name: str) -> dict[str, Any]:
        """Cancels a job that has not ended. Returns the body of the response."""
        self.update(name, state="JOB_STATE_CANCELLED", error={"code": 1, "message": "CANCELED"})
        return {}

    def update(self, name: str, **changes: Any) -> None:
        """Changes fields of a job that has not ended.

        Args:
            name: Resource name of the job.
            **changes: New values by the names of the fields, such as `webAccessUris`.
        """
        with self._jobs_changed:
            if self.jobs[name]["state"] not in _FINAL_STATES:
                self.jobs[name] = self.jobs[name] | changes
            self._jobs_changed.notify_all()

    def _list(self, parent: str, collection: str, query: dict[str, str]) -> dict[str, Any]:
        jobs = [job for name, job in self.jobs.items() if name.startswith(f"{parent}/{collection}/")][::-1]
        for condition in query["filter"].split(" AND ") if query.get("filter") else ():
            jobs = [job for job in jobs if _satisfies(job, condition)]
        return _page(collection, jobs, int(query.get("pageToken", 0)), int(query.get("pageSize", 100)))


def _satisfies(job: dict[str, Any], condition: str) -> bool:
    """Returns whether a job satisfies one condition of a filter.

    Raises:
        ServiceError: If the condition is not of the supported subset of the API's language.
    """
    match = _JOB_CONDITION.fullmatch(condition)
    if match is None:
        raise ServiceError(400, f"Invalid filter: {condition}")
    names = {"state": "state", "display_name": "displayName"}
    is_label = match["field"].startswith("labels.")
    value = job.get("labels", {}).get(match["field"][7:]) if is_label else job.get(names[match["field"]])
    if match["operator"] == ":":
        return value is not None
    return (value == match["value"]) == (match["operator"] == "=")


def _page(name: str, items: list[dict[str, Any]], start: int, size: int) -> dict[str, Any]:
    token = {"nextPageToken": str(start + size)} if len(items) > start + size else {}
    return {name: items[start : start + size]} | token


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")


def _handler_class(service: VertexService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._respond()

        def do_POST(self) -> None:
            self._respond()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _respond(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                body = service.answer(self.command, self.path, json.loads(text) if text else None)
                code = 200
            except ServiceError as error:
                status = _STATUS_NAMES.get(error.code, "UNKNOWN")
                code, body = error.code, {"error": {"code": error.code, "message": str(error), "status": status}}
            if code == NO_RESPONSE:
                return
            content = json.dumps(body).encode()
            if code == FOREIGN_RESPONSE:
                code, content = 200, b"<html>Sign in to this network</html>"
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler

"""Log of a job on Vertex AI, read from Cloud Logging in steps while the job runs."""

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from trainer.cloud.vertex.api_errors import is_transient, translate_errors
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.cloud.vertex.resource_name import number_of
from trainer.errors import ConfigError, JobError, quote

SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
"""Severities of Cloud Logging, from the lowest to the highest."""
_SERVICE_URL = "https://logging.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/logging.read"
_PAGE_SIZE = 1000
_NUM_EARLIER = 100
"""Number of entries to read beyond the last ones, most often all earlier ones of the same second."""
_TIMEOUT_SECS = 60.0
_MAX_DELAY_SECS = 60.0
"""Longest delay of an entry behind entries with a newer timestamp."""


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """One entry of a log."""

    task: str
    """The replica that wrote it, such as `workerpool0-0` or `trial 3 workerpool0-0`, or `service`."""
    severity: str
    time: str
    """UTC time in RFC 3339 format."""
    message: str


class JobLog:
    """Log of a job in Cloud Logging. Entries arrive there some seconds after they were written.

    Uses `entries.list` of the Cloud Logging API v2. Vertex AI's resource type is `ml_job`.

    Args:
        endpoint: Endpoint of the job. A test server for Vertex AI also serves its logs.
        name: Resource name of the job.
        min_severity: Lowest severity of the entries, one of `SEVERITIES`. None: entries of every severity.
        task_name: Replica whose entries count, such as workerpool0-0. None: all replicas, and the service.

    Raises:
        ConfigError: If `task_name` is not the name of a replica.
        JobError: If there are no credentials.
    """

    def __init__(self, endpoint: Endpoint, name: str, *, min_severity: str | None = None, task_name: str | None = None):
        import google.auth
        import requests
        from google.auth.transport.requests import AuthorizedSession

        self._endpoint = endpoint
        self._conditions = [f'resource.type="ml_job" AND resource.labels.job_id="{number_of(name)}"']
        if task_name is not None:
            if not re.fullmatch(r"[\w-]+", task_name):
                raise ConfigError(f"--task_name={quote(task_name)} is not a replica; give one such as workerpool0-0.")
            self._conditions.append(f'resource.labels.task_name="{task_name}"')
        if min_severity is not None:
            self._conditions.append(f"severity>={min_severity}")
        self._recent: dict[str, str] = {}  # insertId -> timestamp of returned entries that the next call may see again
        self._start_time = ""
        self.is_complete = False
        """True if the last call read everything that Cloud Logging had at that moment."""
        with translate_errors(endpoint):
            self._session = (
                requests.Session()
                if endpoint.is_anonymous
                else AuthorizedSession(google.auth.default(scopes=[_SCOPE])[0])
            )

    def new_entries(self) -> Iterator[LogEntry]:
        """Yields the entries that no earlier call yielded, oldest first. It ends early if the service is unavailable.

        Raises:
            JobError: If this account may not read the log.
        """
        self.is_complete = False
        start_time, page_token = self._start_time, ""
        while page := self._list("asc", _PAGE_SIZE, page_token, start_time):
            for raw in page.get("entries", ()):
                if raw["insertId"] not in self._recent:
                    self._recent[raw["insertId"]] = raw["timestamp"]
                    yield _to_entry(raw)
            self._forget_old()
            page_token = page.get("nextPageToken", "")
            if not page_token:
                self.is_complete = True
                break

    def last_entries(self, count: int) -> list[LogEntry]:
        """Returns the newest entries, oldest first. `new_entries` then continues after them.

        Returns nothing if the service is unavailable.

        Args:
            count: Maximum number of entries.

        Raises:
            JobError: If this account may not read the log.
        """
        self.is_complete = False
        newest: list[Mapping[str, Any]] = []
        page_token = ""
        while page := self._list("desc", min(count + _NUM_EARLIER, _PAGE_SIZE), page_token):
            newest += page.get("entries", ())
            page_token = page.get("nextPageToken", "")
            if not page_token or _reaches_second_before(newest, count):
                self.is_complete = True
                break
        if not self.is_complete:
            return []
        # `new_entries` reads whole seconds. The earlier entries of the first one are known, too.
        self._recent = {raw["insertId"]: raw["timestamp"] for raw in newest}
        self._start_time = _truncate_to_seconds(newest[:count][-1]["timestamp"]) if newest else ""
        self._forget_old()
        return [_to_entry(raw) for raw in newest[:count][::-1]]

    def _forget_old(self) -> None:
        """Moves the start of the next call, and forgets the entries before it."""
        if not self._recent:
            return
        earliest = _subtract_delay(max(map(_truncate_to_seconds, self._recent.values())))
        self._start_time = max(self._start_time, earliest)
        self._recent = {
            insert_id: time
            for insert_id, time in self._recent.items()
            if _truncate_to_seconds(time) >= self._start_time
        }

    def _list(self, order: str, page_size: int, page_token: str, start_time: str = "") -> Mapping[str, Any]:
        """Returns a page. Empty: the service is unavailable. All pages of a call need the same `start_time`."""
        start = [f'timestamp>="{start_time}Z"'] if start_time else []
        body: dict[str, Any] = {
            "resourceNames": [f"projects/{self._endpoint.project}"],
            "filter": " AND ".join([*self._conditions, *start]),
            "orderBy": f"timestamp {order}",
            "pageSize": page_size,
            **({"pageToken": page_token} if page_token else {}),
        }
        with translate_errors(self._endpoint):
            try:
                server = self._endpoint.url if self._endpoint.is_anonymous else _SERVICE_URL
                response = self._session.post(f"{server}/v2/entries:list", json=body, timeout=_TIMEOUT_SECS)
            except Exception as error:
                if is_transient(error):
                    return {}
                raise
        status = response.status_code
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return {}
        if status != HTTPStatus.OK:
            raise JobError(
                f"the log of the job cannot be read ({status}); grant this account "
                f"roles/logging.viewer on project={self._endpoint.project}, or read the log on the job's page."
            )
        with translate_errors(self._endpoint):
            return {"entries": [], **response.json()}


def _to_entry(raw: Mapping[str, Any]) -> LogEntry:
    payload = raw.get("jsonPayload", {})
    labels = {**raw.get("labels", {}), **raw.get("resource", {}).get("labels", {})}
    trial = labels.get("trial_id") or labels.get("ml.googleapis.com/trial_id")
    task = labels.get("task_name", "service")
    return LogEntry(
        task=f"trial {trial} {task}" if trial else task,
        severity=raw.get("severity", "DEFAULT"),
        time=raw.get("timestamp", ""),
        message=str(payload.get("message") or raw.get("textPayload") or payload).rstrip(),
    )


def _reaches_second_before(newest: Sequence[Mapping[str, Any]], count: int) -> bool:
    """Returns whether entries, newest first, contain one of an earlier second than each of the first `count` ones."""
    if len(newest) <= count:
        return False
    first, last = (_truncate_to_seconds(raw["timestamp"]) for raw in (newest[count - 1], newest[-1]))
    return last < first


def _truncate_to_seconds(time: str) -> str:
    """Returns a UTC time in RFC 3339 format without its zone and fractions of a second."""
    return time[: len("2026-01-31T12:00:00")]


def _subtract_delay(time: str) -> str:
    """Returns the earliest time of an entry that may arrive after an entry of this time."""
    return (datetime.datetime.fromisoformat(time) - datetime.timedelta(seconds=_MAX_DELAY_SECS)).isoformat()

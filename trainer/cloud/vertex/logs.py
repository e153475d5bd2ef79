"""Log of a job on Vertex AI, read from Cloud Logging in steps while the job runs."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.cloud.vertex.api_errors import is_transient, translate_errors
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.errors import JobError

_SERVICE_URL = "https://logging.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/logging.read"
_PAGE_SIZE = 1000
_TIMEOUT_SECS = 60.0
_MAX_DELAY_SECS = 60.0
"""Longest delay of an entry behind entries with a newer timestamp."""
_TOO_MANY_REQUESTS, _FIRST_SERVER_ERROR = 429, 500


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """One entry of a log."""

    task: str
    """The replica that wrote it, such as `workerpool0-0` or `trial 3 workerpool0-0`, or `service`."""
    severity: str
    message: str


class JobLog:
    """Log of a job in Cloud Logging. Entries arrive there some seconds after they were written.

    Uses `entries.list` of the Cloud Logging API v2. Vertex AI's resource type is `ml_job`.

    Args:
        endpoint: Endpoint of the job. A local substitute for Vertex AI also serves its logs.
        name: Resource name of the job.

    Raises:
        JobError: If there are no credentials.
    """

    def __init__(self, endpoint: Endpoint, name: str):
        import google.auth
        import requests
        from google.auth.transport.requests import AuthorizedSession

        self._endpoint, self._job_id = endpoint, name.rpartition("/")[2]
        self._recent: dict[str, str] = {}  # insertId -> timestamp of returned entries that the next call may see again
        self._start_time = ""
        with translate_errors(endpoint):
            self._session = (
                requests.Session()
                if endpoint.api_endpoint
                else AuthorizedSession(google.auth.default(scopes=[_SCOPE])[0])
            )

    def new_entries(self) -> list[LogEntry]:
        """Returns the entries that no earlier call returned, oldest first. Empty if the service is unavailable.

        Raises:
            JobError: If this account may not read the log.
        """
        entries: list[LogEntry] = []
        page_token = ""
        while True:
            page = self._list(page_token)
            for raw in page.get("entries", ()):
                if raw["insertId"] not in self._recent:
                    self._recent[raw["insertId"]] = raw["timestamp"]
                    entries.append(_to_entry(raw))
            page_token = page.get("nextPageToken", "")
            if not page_token:
                break
        if self._recent:
            self._start_time = _subtract_delay(max(map(_truncate_to_seconds, self._recent.values())))
            self._recent = {
                insert_id: time
                for insert_id, time in self._recent.items()
                if _truncate_to_seconds(time) >= self._start_time
            }
        return entries

    def _list(self, page_token: str) -> Mapping[str, Any]:
        conditions = [f'resource.type="ml_job" AND resource.labels.job_id="{self._job_id}"']
        if self._start_time:
            conditions.append(f'timestamp>="{self._start_time}Z"')
        body: dict[str, Any] = {
            "resourceNames": [f"projects/{self._endpoint.project}"],
            "filter": " AND ".join(conditions),
            "orderBy": "timestamp asc",
            "pageSize": _PAGE_SIZE,
            **({"pageToken": page_token} if page_token else {}),
        }
        with translate_errors(self._endpoint):
            try:
                url = f"{self._endpoint.api_endpoint or _SERVICE_URL}/v2/entries:list"
                response = self._session.post(url, json=body, timeout=_TIMEOUT_SECS)
            except Exception as error:
                if is_transient(error):
                    return {}
                raise
        if response.status_code == _TOO_MANY_REQUESTS or response.status_code >= _FIRST_SERVER_ERROR:
            return {}
        if response.status_code != 200:
            raise JobError(
                f"the log of the job cannot be read ({response.status_code}); grant this account "
                f"roles/logging.viewer on project={self._endpoint.project}, or read the log on the job's page."
            )
        with translate_errors(self._endpoint):
            return response.json()


def _to_entry(raw: Mapping[str, Any]) -> LogEntry:
    payload = raw.get("jsonPayload", {})
    labels = {**raw.get("labels", {}), **raw.get("resource", {}).get("labels", {})}
    trial = labels.get("trial_id") or labels.get("ml.googleapis.com/trial_id")
    task = labels.get("task_name", "service")
    return LogEntry(
        task=f"trial {trial} {task}" if trial else task,
        severity=raw.get("severity", "DEFAULT"),
        message=str(payload.get("message") or raw.get("textPayload") or payload).rstrip(),
    )


def _truncate_to_seconds(time: str) -> str:
    """Returns a UTC time in RFC 3339 format without its zone and fractions of a second."""
    return time[: len("2026-01-31T12:00:00")]


def _subtract_delay(time: str) -> str:
    """Returns the earliest time of an entry that may arrive after an entry of this time."""
    return (datetime.datetime.fromisoformat(time) - datetime.timedelta(seconds=_MAX_DELAY_SECS)).isoformat()

"""What a job on Vertex AI writes to its log, a little at a time."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.cloud.vertex.api_errors import explained, passes
from trainer.cloud.vertex.client import Endpoint
from trainer.errors import JobError

_SERVICE = "https://logging.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/logging.read"
_PAGE = 1000
_TIMEOUT_SECS = 60.0
_LATE_SECS = 60.0
"""How much later than others an entry may arrive."""
_TOO_MANY, _SERVICE_FAILS = 429, 500


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """One entry of a log."""

    task: str
    """Who wrote it: workerpool0-0, or `service`; in a tuning job after its trial: `trial 3 workerpool0-0`."""
    severity: str
    message: str


class JobLog:
    """The log of a job in Cloud Logging. What a trainer says arrives there some seconds later.

    Source: `entries.list` of the Cloud Logging API v2; Vertex AI's resource type is `ml_job`.

    Args:
        place: Where the job runs. A stand-in for Vertex AI stands in for Cloud Logging, too.
        name: The job's resource name.

    Raises:
        JobError: There are no credentials.
    """

    def __init__(self, place: Endpoint, name: str):
        import google.auth
        import requests
        from google.auth.transport.requests import AuthorizedSession

        self._place, self._number = place, name.rpartition("/")[2]
        self._told: dict[str, str] = {}  # time by insertId, of what may come again
        self._since = ""
        with explained(place):
            self._session = (
                requests.Session() if place.endpoint else AuthorizedSession(google.auth.default(scopes=[_SCOPE])[0])
            )

    def news(self) -> list[LogEntry]:
        """What was not told before, the oldest first; nothing where the service fails or is away for the moment.

        Raises:
            JobError: The log may not be read.
        """
        found: list[LogEntry] = []
        token = ""
        while True:
            answer = self._page(token)
            for raw in answer.get("entries", ()):
                if raw["insertId"] not in self._told:
                    self._told[raw["insertId"]] = raw["timestamp"]
                    found.append(_entry(raw))
            token = answer.get("nextPageToken", "")
            if not token:
                break
        if self._told:
            self._since = _before(max(map(_to_seconds, self._told.values())))
            self._told = {name: when for name, when in self._told.items() if _to_seconds(when) >= self._since}
        return found

    def _page(self, token: str) -> Mapping[str, Any]:
        wanted = [f'resource.type="ml_job" AND resource.labels.job_id="{self._number}"']
        if self._since:
            wanted.append(f'timestamp>="{self._since}Z"')
        body: dict[str, Any] = {
            "resourceNames": [f"projects/{self._place.project}"],
            "filter": " AND ".join(wanted),
            "orderBy": "timestamp asc",
            "pageSize": _PAGE,
            **({"pageToken": token} if token else {}),
        }
        with explained(self._place):
            try:
                address = f"{self._place.endpoint or _SERVICE}/v2/entries:list"
                answer = self._session.post(address, json=body, timeout=_TIMEOUT_SECS)
            except Exception as error:
                if passes(error):
                    return {}
                raise
        if answer.status_code == _TOO_MANY or answer.status_code >= _SERVICE_FAILS:
            return {}
        if answer.status_code != 200:
            raise JobError(
                f"the job's log cannot be read ({answer.status_code}); give this account roles/logging.viewer on "
                f"project={self._place.project}, or read it on the job's page."
            )
        with explained(self._place):
            return answer.json()


def _entry(raw: Mapping[str, Any]) -> LogEntry:
    payload = raw.get("jsonPayload", {})
    labels = {**raw.get("labels", {}), **raw.get("resource", {}).get("labels", {})}
    trial = labels.get("trial_id") or labels.get("ml.googleapis.com/trial_id")
    task = labels.get("task_name", "service")
    return LogEntry(
        task=f"trial {trial} {task}" if trial else task,
        severity=raw.get("severity", "DEFAULT"),
        message=str(payload.get("message") or raw.get("textPayload") or payload).rstrip(),
    )


def _to_seconds(moment: str) -> str:
    """A moment in UTC, as RFC 3339 has it, without its zone and fractions."""
    return moment[: len("2026-01-31T12:00:00")]


def _before(moment: str) -> str:
    """When an entry may have been written that arrives after one of this moment."""
    return (datetime.datetime.fromisoformat(moment) - datetime.timedelta(seconds=_LATE_SECS)).isoformat()

"""Client of Vertex AI's model registry, endpoints and batch predictions."""

import functools
import importlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.cloud.vertex import sdk
from trainer.cloud.vertex.api_errors import TRY_AGAIN, translate_errors
from trainer.cloud.vertex.endpoint import Endpoint
from trainer.cloud.vertex.polling import poll
from trainer.cloud.vertex.resource_name import ResourceName, number_of
from trainer.errors import ConfigError, JobError, quote

_PREDICT_SECS = 120.0
_OPERATION_SECS = 3600.0
_FIRST_POLL_SECS, _MAX_POLL_SECS = 1.0, 20.0
"""Intervals at which the state of an operation is read."""
_BATCH_POLL_SECS = 15.0
_NO_REPEAT_ADVICE = "see in the console whether it was done before you run the command again."
"""Advice after an error of a call that changes something, and that may have succeeded."""


@dataclass(frozen=True)
class Resource:
    """A model, an endpoint or a batch prediction job as the service describes it.

    Attributes:
        name: Resource name: projects/PROJECT/locations/REGION/COLLECTION/ID.
        raw: Answer of the service, as JSON.
    """

    name: str
    raw: Mapping[str, Any]

    @property
    def state(self) -> str:
        """State of a job: PENDING, RUNNING, SUCCEEDED and so on."""
        return sdk.state_of(self.raw)


class ModelClient:
    """Models, endpoints and batch predictions of a project in a region.

    Every method raises `JobError`, one sentence, for an error of the service. A state that is read again and again may
    be unavailable for a while. The constructor raises the errors of `sdk.connect`.
    """

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint
        self._models = sdk.connect(endpoint, "ModelServiceClient")
        self._endpoints = sdk.connect(endpoint, "EndpointServiceClient")
        self._predictions = sdk.connect(endpoint, "PredictionServiceClient")
        self._jobs = sdk.connect(endpoint, "JobServiceClient")
        self._operations = sdk.connect_operations(endpoint)

    def find_model(self, name: str) -> Resource | None:
        """Returns the model with a number, a resource name or a display name. None: no model has this display name.

        Raises:
            ConfigError: If several models have this display name.
        """
        return self._find("model", self._models, name)

    def get_version(self, model: Resource, version: str) -> Resource:
        """Returns a version of a model by its number or an alias. Its name contains the version."""
        name = f"{model.name}@{version}"
        raw = sdk.to_json(self._call(self._models.get_model, "GetModelRequest", {"name": name}, is_repeatable=True))
        return Resource(name, raw)

    def find_endpoint(self, name: str) -> Resource | None:
        """Returns an endpoint. The arguments and errors are those of `find_model`."""
        return self._find("endpoint", self._endpoints, name)

    def upload(self, body: Mapping[str, Any]) -> tuple[str, str]:
        """Uploads a model.

        Args:
            body: The UploadModelRequest as JSON, without the parent.

        Returns:
            The resource name and the number of the version.
        """
        answer = self._operate(
            self._models.upload_model, "UploadModelRequest", {"parent": self.endpoint.parent, **body}
        )
        return answer["model"], answer["modelVersionId"]

    def create_endpoint(self, body: Mapping[str, Any]) -> Resource:
        """Creates an endpoint from its JSON."""
        request = {"parent": self.endpoint.parent, "endpoint": body}
        answer = self._operate(self._endpoints.create_endpoint, "CreateEndpointRequest", request)
        return Resource(answer["name"], answer)

    def deploy(self, endpoint: str, body: Mapping[str, Any]) -> str:
        """Deploys a model, which takes minutes.

        Args:
            endpoint: Resource name of the endpoint.
            body: The DeployModelRequest as JSON, without the endpoint.

        Returns:
            The number of the deployed model.
        """
        answer = self._operate(self._endpoints.deploy_model, "DeployModelRequest", {"endpoint": endpoint, **body})
        return answer["deployedModel"]["id"]

    def undeploy(self, endpoint: str, deployed_model: str) -> None:
        """Removes a deployed model from an endpoint."""
        request = {"endpoint": endpoint, "deployedModelId": deployed_model}
        self._operate(self._endpoints.undeploy_model, "UndeployModelRequest", request)

    def predict(self, endpoint: str, instances: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Returns the predictions of an endpoint."""
        request = {"endpoint": endpoint, "instances": instances}
        method = self._predictions.predict
        answer = self._call(method, "PredictRequest", request, is_repeatable=True, timeout=_PREDICT_SECS)
        return sdk.to_json(answer).get("predictions", [])

    def create_batch(self, body: Mapping[str, Any]) -> Resource:
        """Creates a batch prediction job from its JSON."""
        request = {"parent": self.endpoint.parent, "batchPredictionJob": body}
        method = self._jobs.create_batch_prediction_job
        advice = (
            f"see in the console whether the batch prediction {body['displayName']} exists before you run the command "
            "again; if it does, write its images with --job."
        )
        raw = sdk.to_json(self._call(method, "CreateBatchPredictionJobRequest", request, advice=advice))
        return Resource(raw["name"], raw)

    def get_batch(self, name: str) -> Resource:
        """Returns a batch prediction job by its number or resource name."""
        full_name = self._resource_name("batchPredictionJobs", name)
        method = self._jobs.get_batch_prediction_job
        raw = sdk.to_json(self._call(method, "GetBatchPredictionJobRequest", {"name": full_name}, is_repeatable=True))
        return Resource(raw["name"], raw)

    def await_batch(self, job: Resource, on_state: Callable[[Resource], None], advice: str) -> Resource:
        """Waits until a batch prediction job ends, and returns it.

        Args:
            job: Job.
            on_state: Function that is called for each new state.
            advice: What to do if the state can no longer be read, for the message of the error.

        Raises:
            JobError: If the job does not succeed, or its state can no longer be read.
        """
        last_state = ""
        while True:
            if job.state != last_state:
                last_state = job.state
                on_state(job)
            if job.state in sdk.FINAL_STATES:
                break
            name = job.name
            job = poll(functools.partial(self.get_batch, name), lambda: time.sleep(_BATCH_POLL_SECS), name, advice)
        if job.state not in ("SUCCEEDED", "PARTIALLY_SUCCEEDED"):
            reason = job.raw.get("error", {}).get("message", "the service gives no reason").rstrip(".")
            raise JobError(f"{job.name} ended as {job.state}: {quote(reason)}; see its page in the console.")
        return job

    def _find(self, kind: str, service: Any, name: str) -> Resource | None:
        if re.fullmatch("[0-9]+", name) or "/" in name:
            full_name = self._resource_name(f"{kind}s", name)
            method = getattr(service, f"get_{kind}")
            raw = sdk.to_json(self._call(method, f"Get{kind.title()}Request", {"name": full_name}, is_repeatable=True))
            return Resource(raw["name"], raw)
        request = {"parent": self.endpoint.parent, "filter": f"display_name={json.dumps(name, ensure_ascii=False)}"}
        answers = list(
            self._call(getattr(service, f"list_{kind}s"), f"List{kind.title()}sRequest", request, is_repeatable=True)
        )
        if len(answers) > 1:
            raise ConfigError(
                f"{len(answers)} {kind}s in {self.endpoint.parent} have the display name {quote(name)}; give the "
                f"number of one of them instead, such as {number_of(answers[0].name)}."
            )
        return next((Resource(answer.name, sdk.to_json(answer)) for answer in answers), None)

    def _resource_name(self, collection: str, name: str) -> str:
        """Returns a full resource name for a number or a full name of this project and region."""
        full_name = name if "/" in name else f"{self.endpoint.parent}/{collection}/{name}"
        resource = ResourceName.parse(full_name)
        if resource is None or (resource.region, resource.collection) != (self.endpoint.region, collection):
            raise ConfigError(
                f"{quote(name)} is not a name in {collection}; give its number, or "
                f"{self.endpoint.parent}/{collection}/NUMBER."
            )
        return full_name

    def _operate(self, method: Any, message_class: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Calls a method that starts an operation, waits for its end, and returns its result as JSON."""
        from google.api_core import exceptions as api

        operation = self._call(method, message_class, body).operation
        deadline, pause = time.monotonic() + _OPERATION_SECS, _FIRST_POLL_SECS
        while not operation.done:
            if time.monotonic() > deadline:
                raise JobError(
                    f"{operation.name} has not ended after {_OPERATION_SECS / 60:.0f} minutes; see it in the console "
                    "before you repeat it."
                )
            wait, name = functools.partial(time.sleep, pause), operation.name
            pause = min(2 * pause, _MAX_POLL_SECS)
            operation = poll(functools.partial(self._get_operation, name), wait, name, _NO_REPEAT_ADVICE)
        with translate_errors(self.endpoint, advice="correct the cause, and run the command again."):
            if operation.HasField("error"):
                raise api.from_grpc_status(operation.error.code, operation.error.message)
        return importlib.import_module("google.protobuf.json_format").MessageToDict(operation.response)

    def _get_operation(self, name: str) -> Any:
        with translate_errors(self.endpoint):
            return self._operations.get_operation(name, retry=sdk.retry(is_repeatable=True))

    def _call(
        self,
        method: Any,
        message_class: str,
        body: Mapping[str, Any],
        *,
        is_repeatable: bool = False,
        advice: str = _NO_REPEAT_ADVICE,
        timeout: float = sdk.TIMEOUT_SECS,
    ) -> Any:
        """Calls a method with the JSON of its request.

        Args:
            method: Method of a client of the SDK.
            message_class: Class of the request.
            body: The request as JSON.
            is_repeatable: As in `sdk.retry`.
            advice: What to do after an error that may pass, if the call is not repeatable.
            timeout: Time limit of the call in seconds.
        """
        request = sdk.to_message(message_class, body, "flags")
        with translate_errors(self.endpoint, advice=TRY_AGAIN if is_repeatable else advice):
            return method(request=request, retry=sdk.retry(is_repeatable=is_repeatable), timeout=timeout)

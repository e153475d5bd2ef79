"""Models, endpoints and batch predictions of the local substitute for Vertex AI."""

import datetime
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from google.cloud import aiplatform_v1
from google.protobuf import json_format

from trainer.storage import locate

_PATH = re.compile(
    r"/v1/(?P<parent>projects/[^/]+/locations/[^/]+)/(?P<collection>models|endpoints|batchPredictionJobs|operations)"
    r"(?:/(?P<number>\d+)(?:@(?P<version>[\w-]+))?)?(?::(?P<verb>\w+))?"
)
_FILTER = re.compile(r'display_name="(.*)"')
_TYPE = "type.googleapis.com/google.cloud.aiplatform.v1."
_BATCH_SIZE = 64


class ModelRegistry:
    """Registers and deploys models as Vertex AI does, and passes requests for predictions on to a function.

    Requests are checked with the SDK's own messages. Each operation has ended when it is read for the second time.

    Args:
        predict: Function that returns the answer of a container to the body of a request. An exception is an error of
            the container.

    Attributes:
        models: Models by name, each with the fields of its newest version.
        endpoints: Endpoints by name.
        batches: Batch prediction jobs by name.
        operation_error: Code of google.rpc.Code and message with which operations end; None: they succeed.
    """

    def __init__(self, predict: Callable[[dict[str, Any]], dict[str, Any]]):
        self.predict = predict
        self.models: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.operation_error: tuple[int, str] | None = None
        self._operations: dict[str, dict[str, Any]] = {}
        self._read: set[str] = set()
        self._lock = threading.RLock()

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any) -> dict[str, Any] | None:
        """Returns the answer to a request. None: the request is not about models, endpoints or batches.

        Raises:
            ValueError: If the request is invalid.
            KeyError: If a resource does not exist.
        """
        match = _PATH.fullmatch(urllib.parse.unquote(path))
        if match is None:
            return None
        parent, collection, number, version, verb = match.groups()
        name = f"{parent}/{collection}/{number}"
        with self._lock:
            match method, collection, number, verb:
                case "POST", "models", None, "upload":
                    return self._upload(parent, body)
                case "POST", "endpoints", None, None:
                    return self._create_endpoint(parent, body)
                case "POST", "endpoints", str(), "deployModel":
                    return self._deploy(name, body)
                case "POST", "endpoints", str(), "undeployModel":
                    return self._undeploy(name, body)
                case "POST", "endpoints", str(), "predict":
                    return self._predict(name, body)
                case "POST", "batchPredictionJobs", None, None:
                    return self._create_batch(parent, body)
                case "GET", "operations", str(), None:
                    return self._read_operation(name)
                case "GET", "models", str(), None:
                    return self._get_model(name, version)
                case "GET", _, str(), None:
                    return self._resources(collection)[name]
                case "GET", _, None, None:
                    return {collection: self._list(collection, parent, query.get("filter", ""))}
        return None

    def _resources(self, collection: str) -> dict[str, dict[str, Any]]:
        return {"models": self.models, "endpoints": self.endpoints, "batchPredictionJobs": self.batches}[collection]

    def _get_model(self, name: str, version: str | None) -> dict[str, Any]:
        model = self.models[name]
        if version not in (None, model["versionId"], *model.get("versionAliases", [])):
            raise KeyError(f"{name}@{version}")
        return model

    def _list(self, collection: str, parent: str, expression: str) -> list[dict[str, Any]]:
        match = _FILTER.fullmatch(expression)
        if match is None:
            raise ValueError(f"invalid filter {expression}")
        resources = self._resources(collection)
        return [
            resource
            for name, resource in resources.items()
            if name.startswith(parent) and resource["displayName"] == match[1]
        ]

    def _read_operation(self, name: str) -> dict[str, Any]:
        operation = self._operations[name]
        has_ended = name in self._read
        self._read.add(name)
        if has_ended and self.operation_error is not None:
            code, message = self.operation_error
            return {"name": name, "done": True, "error": {"code": code, "message": message}}
        return operation if has_ended else {"name": name}

    def _start_operation(self, parent: str, response_type: str, response: dict[str, Any]) -> dict[str, Any]:
        name = f"{parent}/operations/{len(self._operations) + 1}"
        self._operations[name] = {"name": name, "done": True, "response": {"@type": _TYPE + response_type, **response}}
        return {"name": name}

    def _upload(self, parent: str, body: Any) -> dict[str, Any]:
        request = _parse("UploadModelRequest", body | {"parent": parent})
        model, name = request["model"], request.get("parentModel")
        if not model.get("displayName") or not model.get("containerSpec", {}).get("imageUri"):
            raise ValueError("display_name and container_spec.image_uri are required")
        if name is not None and name not in self.models:
            raise KeyError(name)
        name = name or f"{parent}/models/{100 + len(self.models)}"
        version = str(int(self.models.get(name, {}).get("versionId", 0)) + 1)
        self.models[name] = model | {"name": name, "versionId": version}
        return self._start_operation(parent, "UploadModelResponse", {"model": name, "modelVersionId": version})

    def _create_endpoint(self, parent: str, body: Any) -> dict[str, Any]:
        endpoint = _parse("Endpoint", body) | {"name": f"{parent}/endpoints/{200 + len(self.endpoints)}"}
        self.endpoints[endpoint["name"]] = endpoint
        return self._start_operation(parent, "Endpoint", {"name": endpoint["name"]})

    def _deploy(self, name: str, body: Any) -> dict[str, Any]:
        request = _parse("DeployModelRequest", body | {"endpoint": name})
        endpoint, deployed = self.endpoints[name], request["deployedModel"]
        if deployed["model"].partition("@")[0] not in self.models:
            raise KeyError(deployed["model"])
        number = str(3000 + len(self._operations))
        deployed_models = [*endpoint.get("deployedModels", []), deployed | {"id": number}]
        split = {number if key == "0" else key: share for key, share in request["trafficSplit"].items()}
        self.endpoints[name] = endpoint | {"deployedModels": deployed_models, "trafficSplit": split}
        parent = name.partition("/endpoints")[0]
        return self._start_operation(parent, "DeployModelResponse", {"deployedModel": {"id": number}})

    def _undeploy(self, name: str, body: Any) -> dict[str, Any]:
        number, endpoint = body["deployedModelId"], self.endpoints[name]
        if endpoint["trafficSplit"].get(number):
            raise ValueError("the deployed model still receives traffic")
        endpoint["deployedModels"] = [model for model in endpoint["deployedModels"] if model["id"] != number]
        return self._start_operation(name.partition("/endpoints")[0], "UndeployModelResponse", {})

    def _predict(self, name: str, body: Any) -> dict[str, Any]:
        if not self.endpoints[name].get("trafficSplit"):
            raise ValueError("the endpoint has no deployed model")
        return self.predict(body)

    def _create_batch(self, parent: str, body: Any) -> dict[str, Any]:
        job = _parse("BatchPredictionJob", body) | {"name": f"{parent}/batchPredictionJobs/{500 + len(self.batches)}"}
        if job["model"].partition("@")[0] not in self.models:
            raise KeyError(job["model"])
        job["createTime"] = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
        self.batches[job["name"]] = job | {"state": "JOB_STATE_SUCCEEDED"} | self._run_batch(job)
        return job | {"state": "JOB_STATE_PENDING"}

    def _run_batch(self, job: dict[str, Any]) -> dict[str, Any]:
        """Answers the instances of a job, and writes the answers in several files. Returns fields of the job."""
        (uri,) = job["inputConfig"]["gcsSource"]["uris"]
        instances = [json.loads(line) for line in locate(uri).read_bytes().splitlines()]
        size = job.get("manualBatchTuningParameters", {}).get("batchSize", _BATCH_SIZE)
        prefix = job["outputConfig"]["gcsDestination"]["outputUriPrefix"].rstrip("/")
        folder, results, errors = f"{prefix}/prediction-model-2026-01-31T12:00:00.000Z", [], []
        for start in range(0, len(instances), size):
            block = instances[start : start + size]
            try:
                predictions = self.predict({"instances": block})["predictions"]
            except ValueError as error:
                errors += [{"instance": instance, "error": {"code": 3, "message": str(error)}} for instance in block]
            else:
                results.append([{"instance": a, "prediction": b} for a, b in zip(block, predictions, strict=True)])
        files = {f"prediction.results-{index:05d}-of-{len(results):05d}": rows for index, rows in enumerate(results)}
        files["prediction.errors_stats-00000-of-00001"] = errors
        for name, rows in files.items():
            (locate(folder) / name).write_bytes("".join(f"{json.dumps(row)}\n" for row in rows).encode())
        return {"outputInfo": {"gcsOutputDirectory": folder}}


def _parse(message_class: str, body: Any) -> dict[str, Any]:
    """Returns the JSON of a message of the SDK in its normal form."""
    message = getattr(aiplatform_v1, message_class)
    try:
        return json_format.MessageToDict(json_format.ParseDict(body, message.pb(message())))
    except json_format.ParseError as error:
        raise ValueError(f"Invalid JSON payload received. {error}") from error

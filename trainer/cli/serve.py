"""The `serve` command."""

import logging
import threading

from absl import flags as absl_flags

from trainer import signals
from trainer.cli import app
from trainer.environment import ServingEnvironment
from trainer.errors import ConfigError, quote
from trainer.logging import quiet_import
from trainer.storage import locate

_logger = logging.getLogger(__name__)

_USAGE = """Answers HTTP requests for images with an exported SavedModel, on Vertex AI or anywhere.

  {command} --model_dir=FOLDER [--port=8080]

  curl localhost:8080/predict -d '{"instances": [{"seed": 1, "label": 3}, {"seed": 2}]}'
  -> {"predictions": [{"b64": "iVBORw0...", "seed": 1, "label": 3}, {"b64": "iVBORw0...", "seed": 2}]}

A seed gives the image that `generate --seeds` writes. A model that translates images (CycleGAN, pix2pix) takes
instances {"b64": IMAGE}. With conditions, a label is the number of a vector, as docs/serving.md describes.
Health checks get 503 until the model is loaded. On SIGTERM, the server answers the requests that it has, then exits
with 0. Vertex AI sets the flags through the environment variables AIP_STORAGE_URI, AIP_HTTP_PORT, AIP_HEALTH_ROUTE and
AIP_PREDICT_ROUTE.
"""
_LOCAL_HOST, _ALL_HOSTS = "127.0.0.1", "0.0.0.0"
_PORT = 8080


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    strings = {
        "model_dir": "Folder of a SavedModel that a run or `export` wrote, local or gs://. None: $AIP_STORAGE_URI.",
        "host": "Address to listen on. None: all addresses if $AIP_HTTP_PORT is set, else only this machine.",
        "health_route": "Path of health checks. None: $AIP_HEALTH_ROUTE, else /health.",
        "predict_route": "Path of requests. None: $AIP_PREDICT_ROUTE, else /predict.",
    }
    for name, text in strings.items():
        absl_flags.DEFINE_string(name, None, text, flag_values=values)
    absl_flags.DEFINE_integer(
        "port",
        None,
        f"Port to listen on, 0 for a free one. None: $AIP_HTTP_PORT, else {_PORT}.",
        lower_bound=0,
        upper_bound=65535,
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "max_instances", 64, "Maximum number of instances of a request.", lower_bound=1, flag_values=values
    )
    absl_flags.DEFINE_integer(
        "max_request_bytes", 1_500_000, "Maximum size of a request in bytes.", lower_bound=1, flag_values=values
    )
    absl_flags.DEFINE_integer(
        "max_response_bytes",
        1_500_000,
        "Maximum size of an answer in bytes. Vertex AI passes on 1.5 MB from shared endpoints.",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.DEFINE_float(
        "grace_secs", 10.0, "Longest time to answer requests after SIGTERM.", lower_bound=0.0, flag_values=values
    )


def run_command(values: absl_flags.FlagValues) -> None:
    """Serves until a signal arrives."""
    environment = ServingEnvironment.read()
    model_dir = values.model_dir or environment.model_dir
    if not model_dir:
        raise ConfigError("--model_dir is missing; give the folder of an exported model.")
    location = locate(model_dir)
    routes = {
        "health_route": values.health_route or environment.health_route or "/health",
        "predict_route": values.predict_route or environment.predict_route or "/predict",
    }
    for name, route in routes.items():
        if not route.startswith("/") or route != route.split("?")[0]:
            raise ConfigError(f"--{name}={quote(route)} is not a path; begin it with /, without a question mark.")
    if len(set(routes.values())) == 1:
        raise ConfigError(f"health_route and predict_route are both {quote(routes['health_route'])}; choose two paths.")
    with quiet_import():
        from trainer.serving.served_model import ServedModel
        from trainer.serving.server import PredictionServer, ServerSettings
    settings = ServerSettings(
        **routes,
        host=values.host or (_LOCAL_HOST if environment.port is None else _ALL_HOSTS),
        port=next(port for port in (values.port, environment.port, _PORT) if port is not None),
        max_instances=values.max_instances,
        max_request_bytes=values.max_request_bytes,
        max_response_bytes=values.max_response_bytes,
    )
    with PredictionServer(settings) as server:
        try:
            server.model = ServedModel.load(location)
            _logger.info(f"Serving {location} at http://{settings.host}:{server.port}{settings.predict_route}")
            while True:
                signals.check()
                threading.Event().wait(1.0)
        except (KeyboardInterrupt, signals.Terminated):
            _logger.info("Stopping after the requests that have arrived.")
            if not server.drain(values.grace_secs):
                _logger.warning(f"Requests were not answered within --grace_secs={values.grace_secs:g}.")


main = app.command(_USAGE, define_flags, run_command)

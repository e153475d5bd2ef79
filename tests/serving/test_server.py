"""The server of an exported model, by HTTP requests."""

import base64
import http.client
import io
import json
import os
import shutil
import signal
import socket
import threading
import time

import keras
import numpy as np
import pytest
from conftest import TINY_MODELS, tiny_config, tiny_model
from PIL import ExifTags, Image
from refusals import check_command_refusal, check_refusal

from trainer.cli import serve
from trainer.config.choices import ModelFormat
from trainer.data.prepare.sources import SourceOptions, open_source
from trainer.data.prepare.sources.base import NO_LABELS
from trainer.errors import DataError, TrainerError
from trainer.image_io import png
from trainer.models import Pix2Pix, from_config
from trainer.sampling.samples import Samples, images_of, labels_of
from trainer.sampling.translation import ImagesToTranslate, open_images
from trainer.serving import formats, saved_model, served_model, server as server_module
from trainer.serving.served_model import ServedModel
from trainer.serving.server import PredictionServer, ServerSettings
from trainer.storage import locate

SETTINGS = ServerSettings(max_request_bytes=20_000)


@pytest.fixture(scope="module")
def model(exported_model):
    return ServedModel.load(locate(exported_model))


@pytest.fixture(scope="module")
def server(model):
    with PredictionServer(SETTINGS) as server:
        server.model = model
        yield server


def call(server, body=None, path="/predict", method="POST"):
    """Returns the status and the body of the answer to a request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    content = json.dumps(body) if isinstance(body, (dict, list)) else body
    connection.request(method, path, content)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def images(answer):
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one["b64"], validate=True)))) for one in answer]


@pytest.mark.parametrize("truncation", [None, 0.6])
def test_a_seed_gives_the_image_that_generate_writes(server, exported_gan, truncation):
    seeds = np.array([0, 7, 49, 50, 123, 10**8 - 1])
    code, body = call(
        server, {"instances": [{"seed": seed} for seed in seeds.tolist()], "parameters": {"truncation": truncation}}
    )
    expected = next(images_of(exported_gan, Samples(seeds, labels_of(exported_gan, seeds, None), None, truncation)))
    assert code == 200 and [one["seed"] for one in body["predictions"]] == seeds.tolist()
    assert np.abs(np.stack(images(body["predictions"])).astype(int) - expected[..., 0]).max() <= 1


def test_instances_override_parameters(server, exported_gan):
    instances = [{"seed": 5, "label": 2}, {"seed": 5.0, "label": 3, "truncation": 0}, {"seed": 5}]
    code, body = call(server, {"instances": instances, "parameters": {"label": 4, "truncation": 1}})
    assert code == 200
    for answer, label, truncation in zip(images(body["predictions"]), (2, 3, 4), (1.0, 0.0, 1.0), strict=True):
        chosen = Samples(np.array([5]), np.array([label], np.int32), None, truncation)
        assert np.abs(answer.astype(int) - next(images_of(exported_gan, chosen))[0, ..., 0]).max() <= 1
    assert body["predictions"][0]["label"] == 2


def test_64_images_are_one_answer_below_the_limit_of_an_endpoint(server):
    code, body = call(server, {"instances": [{"seed": seed} for seed in range(64)]})
    assert code == 200 and len(images(body["predictions"])) == 64
    assert len(json.dumps(body)) < 1_500_000


@pytest.mark.parametrize(("name", "expected"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP"), (None, "PNG")])
def test_the_format_of_the_images_is_a_parameter(server, name, expected):
    quality = None if expected == "PNG" else 70.0
    _, body = call(server, {"instances": [{"seed": 1}], "parameters": {"format": name, "quality": quality}})
    content = base64.b64decode(body["predictions"][0]["b64"])
    assert Image.open(io.BytesIO(content)).format == expected


REFUSED = {
    "no json": (b"{", "JSON"),
    "empty object": ({}, "instances"),
    "a list": ([], "object"),
    "no instances": ({"instances": []}, "0 instances"),
    "too many": ({"instances": [{"seed": 0}] * 65}, "65"),
    "instances of text": ({"instances": "seed"}, "instances"),
    "a number": ({"instances": [7]}, "instances[0]"),
    "no seed": ({"instances": [{"seed": 1}, {}]}, "seed"),
    "negative seed": ({"instances": [{"seed": -1}]}, "-1"),
    "fraction": ({"instances": [{"seed": 1.5}]}, "1.5"),
    "text": ({"instances": [{"seed": "1"}]}, "seed"),
    "truth value": ({"instances": [{"seed": True}]}, "seed"),
    "large seed": ({"instances": [{"seed": 2**63}]}, "seed"),
    "seed of more digits than a file name": ({"instances": [{"seed": 10**8}]}, "100000000"),
    "unknown label": ({"instances": [{"seed": 1, "label": 10}]}, "label"),
    "negative label": ({"instances": [{"seed": 1, "label": -2}]}, "label"),
    "huge label": ({"instances": [{"seed": 1, "label": 10**400}]}, "-1 to 9"),
    "name of a class": ({"instances": [{"seed": 1, "label": "cat"}]}, "label"),
    "label of the parameters": ({"instances": [{"seed": 1}], "parameters": {"label": 10}}, "label"),
    "truncation": ({"instances": [{"seed": 1, "truncation": 1.5}]}, "truncation"),
    "huge truncation": ({"instances": [{"seed": 1, "truncation": 10**400}]}, "truncation"),
    "not finite": (b'{"instances": [{"seed": 1, "truncation": NaN}]}', "finite"),
    "misspelled": ({"instances": [{"seed": 1, "lable": 3}]}, "label"),
    "other parameter": ({"instances": [{"seed": 1}], "parameters": {"seed": 3}}, "seed"),
    "parameters of a list": ({"instances": [{"seed": 1}], "parameters": [1]}, "parameters"),
    "format": ({"instances": [{"seed": 1}], "parameters": {"format": "gif"}}, "gif"),
    "quality of a png": ({"instances": [{"seed": 1}], "parameters": {"format": "png", "quality": 70}}, "quality=70"),
    "quality of the default": ({"instances": [{"seed": 1}], "parameters": {"quality": 70}}, "quality=70"),
    "quality": ({"instances": [{"seed": 1}], "parameters": {"quality": 101}}, "quality"),
    "signature": ({"instances": [{"seed": 1}], "signature_name": "sample"}, "signature_name"),
    "an image": ({"instances": [{"b64": "aGk="}]}, "seed"),
    "deep": (b'{"instances":' + b"[" * 5000 + b"]" * 5000 + b"}", "64"),
    "key twice": (b'{"instances": [{"seed": 1, "seed": 2}]}', "seed"),
    "no unicode": (b'{"instances": "\xff"}', "UTF-8"),
    "no body": (b"", "Content-Length"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_is_refused_with_one_sentence(server, name):
    body, mention = REFUSED[name]
    code, answer = call(server, body)
    assert code == 400 and list(answer) == ["error"]
    assert mention in answer["error"] and "\n" not in answer["error"] and answer["error"].endswith(".")


@pytest.mark.parametrize("place", ["instance", "parameters"])
@pytest.mark.parametrize(("name", "value"), [("label", 10), ("label", -2), ("truncation", 1.5), ("truncation", -0.5)])
def test_a_value_out_of_range_is_named_with_its_instance(model, place, name, value):
    instances = [{"seed": seed} for seed in range(90)]
    parameters = {name: value} if place == "parameters" else {}
    if place == "instance":
        instances[77][name] = value
    body = json.dumps({"instances": instances, "parameters": parameters}).encode()
    mention = f"instance 77 of the request has {name}" if place == "instance" else f"parameters.{name}"
    check_refusal(lambda: model.predict(model.parse(body, 90)), TrainerError, f"{mention}={value}")


def send(server, text, *, ends=False):
    """Returns the status and the body of the answer to a request in raw text, and the seconds until the end."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(text.encode())
        if ends:
            client.shutdown(socket.SHUT_WR)
        head, _, content = client.makefile("rb").read().partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content), time.monotonic() - start


BODIES = {
    "more digits than a number": (["Content-Length: " + "9" * 5000], 413, "20,000"),
    "terabytes": (["Content-Length: 9000000000000"], 413, "20,000"),
    "leading zeros": (["Content-Length: 000020001"], 413, "20,000"),
    "negative": (["Content-Length: -1"], 400, "-1"),
    "sign": (["Content-Length: +4"], 400, "+4"),
    "fraction": (["Content-Length: 1.5"], 400, "1.5"),
    "underscore": (["Content-Length: 1_0"], 400, "1_0"),
    "no number": (["Content-Length:"], 400, "Content-Length"),
    "two lengths": (["Content-Length: 4", "Content-Length: 5"], 400, "4, 5"),
    "no length": ([], 411, "Content-Length"),
    "zero": (["Content-Length: 0"], 400, "Content-Length"),
    "chunks": (["Transfer-Encoding: chunked"], 411, "Content-Length"),
    "chunks and a length": (["Transfer-Encoding: chunked", "Content-Length: 4"], 411, "Content-Length"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_of_another_length_is_refused_at_once_while_the_client_waits(server, name):
    headers, code, mention = BODIES[name]
    status, body, secs = send(server, "\r\n".join(["POST /predict HTTP/1.1", *headers, "", "2\r\n{}\r\n"]))
    assert status == code and list(body) == ["error"] and secs < 5
    assert mention in body["error"] and "\n" not in body["error"] and body["error"].endswith(".")


def test_a_large_body_is_refused_and_the_client_reads_the_answer(server):
    assert call(server, b"x" * 3_000_000)[0] == 413
    assert call(server, b"x" * 3_000_000, path="/elsewhere")[0] == 404
    assert call(server, iter([b"x" * 100_000] * 30))[0] == 411


def test_a_body_that_is_shorter_than_its_length_holds_no_thread(server, monkeypatch):
    text = "POST /predict HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"
    status, body, _ = send(server, text, ends=True)
    assert status == 400 and "1 of 100" in body["error"]
    monkeypatch.setattr(server_module, "_IDLE_SECS", 0.2)
    status, body, _ = send(server, text)
    assert status == 408 and "1 of 100" in body["error"]


@pytest.mark.parametrize("text", ["POST /predict HTTP/1.1\r\nContent-Length: 100\r\n\r\n", "GET /predict HTTP/1.1\r\n"])
def test_a_client_that_sends_slowly_is_cut_off(server, monkeypatch, text):
    monkeypatch.setattr(server_module, "_REQUEST_SECS", 0.4)
    monkeypatch.setattr(server_module, "_DISCARD_SECS", 0.1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(text.encode())
        with pytest.raises(ConnectionError):
            for _ in range(100):  # one byte at a time, never idle
                client.sendall(b"x")
                time.sleep(0.05)


@pytest.mark.parametrize(("path", "code"), [("/health", 200), ("/predict", 405), ("/", 404), ("/predict?x=1", 405)])
def test_head_is_answered_as_get_without_a_body(server, path, code):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("HEAD", path)
    response = connection.getresponse()
    assert response.status == code and int(response.headers["Content-Length"]) > 0 and response.read() == b""
    assert call(server, None, path, "GET")[0] == code


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/", 404), ("POST", "/elsewhere", 404), ("GET", "/predict", 405), ("PUT", "/predict", 501)],
)
def test_other_paths_and_methods_are_refused_in_json(server, method, path, code):
    status, body = call(server, None if method == "GET" else b"{}", path, method)
    assert status == code and body["error"]


def test_a_client_that_leaves_does_not_disturb_others(server):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
    assert call(server, {"instances": [{"seed": 1}]})[0] == 200
    assert server.drain(5.0)  # the request of the client has ended
    server._is_draining = False


def test_a_large_answer_is_refused_with_a_smaller_number(model):
    settings = ServerSettings(max_response_bytes=2000)
    with PredictionServer(settings) as server:
        server.model = model
        code, body = call(server, {"instances": [{"seed": seed} for seed in range(60)]})
        number = int(body["error"].split("at most about ")[1].split()[0])
        assert code == 400 and 1 < number < 60
        assert call(server, {"instances": [{"seed": seed} for seed in range(number - 1)]})[0] == 200


def test_health_is_503_until_the_model_is_loaded_and_while_it_drains(model, monkeypatch):
    entered, leave = threading.Event(), threading.Event()

    class SlowModel:
        parse = model.parse

        def predict(self, request):
            entered.set()
            assert leave.wait(20)
            return model.predict(request)

    with PredictionServer(ServerSettings()) as server:
        assert call(server, path="/health", method="GET")[0] == 503
        code, body = call(server, {"instances": [{"seed": 1}]})
        assert code == 503 and "loading" in body["error"]
        server.model = SlowModel()
        assert call(server, path="/health", method="GET") == (200, {"status": "ready"})
        answers = []
        client = threading.Thread(target=lambda: answers.append(call(server, {"instances": [{"seed": 1}]})))
        client.start()
        assert entered.wait(20)
        with monkeypatch.context() as limited:
            limited.setattr(server_module, "_MAX_ACTIVE", 1)
            assert call(server, {"instances": [{"seed": 1}]})[0] == 503
        assert not server.drain(0.01)
        assert call(server, path="/health", method="GET")[0] == 503
        code, body = call(server, {"instances": [{"seed": 1}]})
        assert code == 503 and "ending" in body["error"]
        leave.set()
        assert server.drain(20.0)
        client.join(20)
    assert [code for code, _ in answers] == [200]


def test_a_failure_of_the_model_is_an_answer_and_a_log_entry(model, trainer_log):
    class BrokenModel:
        parse = model.parse

        def predict(self, request):
            raise RuntimeError("secret")

    with PredictionServer(ServerSettings()) as server:
        server.model = BrokenModel()
        code, body = call(server, {"instances": [{"seed": 1}]})
    assert code == 500 and "RuntimeError" in body["error"] and "secret" not in body["error"]
    assert "RuntimeError" in trainer_log.records[-1].text


def test_requests_at_the_same_time_get_their_own_images(server):
    answers = {}
    seeds = range(8)
    clients = [
        threading.Thread(target=lambda seed=seed: answers.update({seed: call(server, {"instances": [{"seed": seed}]})}))
        for seed in seeds
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join(20)
    _, expected = call(server, {"instances": [{"seed": seed} for seed in seeds]})
    for seed, image in zip(seeds, images(expected["predictions"]), strict=True):
        (own,) = images(answers[seed][1]["predictions"])
        assert np.abs(own.astype(int) - image).max() <= 1


def test_images_with_alpha_are_answered_in_every_format_and_translated(tmp_path):
    rgba = png(np.full((12, 12, 4), [9, 9, 9, 0], np.uint8))
    for name, mode, corner in (("jpeg", "RGB", (255, 255, 255)), ("webp", "RGBA", None), ("png", "RGBA", None)):
        with Image.open(io.BytesIO(served_model._encoded(rgba, {"format": name}))) as image:
            assert image.mode == mode and corner in (None, image.getpixel((0, 0)))
    config = tiny_config(**TINY_MODELS["pix2pix"], model="pix2pix")
    gan = from_config(config, (12, 12, 4), 10, input_channels=4)
    saved_model.save(gan, tmp_path / "model", 1)
    model = ServedModel.load(locate(tmp_path / "model"))
    request = {"instances": [{"b64": base64.b64encode(rgba).decode()}]}
    ((image),) = images(model.predict(model.parse(json.dumps(request).encode(), 1)))
    assert image.shape == (12, 12, 4)


def test_a_cyclegan_translates_images(digits, tmp_path):
    gan = tiny_model("cyclegan")
    saved_model.save(gan, tmp_path / "model", 1)
    photos = digits.images[:2, 8:20, 8:20]
    instances = [{"b64": base64.b64encode(png(photo)).decode()} for photo in photos]
    with PredictionServer(ServerSettings()) as server:
        server.model = model = ServedModel.load(locate(tmp_path / "model"))
        code, body = call(server, {"instances": instances})
        assert code == 200
        np.testing.assert_array_equal(np.stack(images(body["predictions"])), gan.translate(photos, "b")[..., 0])
        assert call(server, {"instances": [model.example()]})[0] == 200
        large = base64.b64encode(png(np.zeros((13, 12, 1), np.uint8))).decode()
        Image.fromarray(photos[0][..., 0]).save(gif := io.BytesIO(), "GIF")
        for instance, mention in (
            ({"b64": large}, "instance 1 of the request is 13×12"),
            ({"b64": "aGk="}, "instance 1 of the request is not an image"),
            ({"b64": base64.b64encode(gif.getvalue()).decode()}, "PNG, JPEG, WEBP"),
            ({"b64": "é"}, "instance 1 of the request has b64='é'"),
            ({"b64": instances[0]["b64"][:80]}, "b64"),
            ({"seed": 1}, "b64"),
            (instances[0] | {"label": 1}, "label"),
        ):
            code, body = call(server, {"instances": [instances[0], instance]})
            assert code == 400 and mention in body["error"]
        for name in ("label", "truncation"):  # they have no effect on a translation
            code, body = call(server, {"instances": instances, "parameters": {name: 1}})
            assert code == 400 and name in body["error"]


def test_an_image_is_translated_as_generate_translates_its_file(tmp_path):
    gan = from_config(tiny_config(**TINY_MODELS["cyclegan"], model="cyclegan"), (12, 12, 3), 10)
    saved_model.save(gan, tmp_path / "model", 1)
    model = ServedModel.load(locate(tmp_path / "model"))
    pixels, exif = np.random.default_rng(0).integers(0, 256, (12, 12, 4), np.uint8), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (tmp_path / "files").mkdir()
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / "files/a.png")  # 16 bits
    Image.fromarray(pixels).save(tmp_path / "files/b.png")  # colors under transparent pixels
    Image.fromarray(pixels[..., :3]).save(tmp_path / "files/c.jpg", exif=exif)
    Image.new("RGB", (12, 12), "red").save(tmp_path / "files/d.webp")
    with open_source(str(tmp_path / "files"), SourceOptions(label_field=NO_LABELS)) as source:
        expected = np.concatenate(
            [*ImagesToTranslate("files", source, gan, (12, 12, 3), "none", tmp_path).translations()]
        )
    contents = [path.read_bytes() for path in sorted((tmp_path / "files").iterdir())]
    body = {"instances": [{"b64": base64.b64encode(content).decode()} for content in contents]}
    answer = model.predict(model.parse(json.dumps(body).encode(), 4))
    assert np.abs(np.stack(images(answer)).astype(int) - expected).max() <= 1


def test_a_model_that_translates_images_of_any_size_is_exported_and_used(tmp_path):
    gan = Pix2Pix(
        networks={
            "generator": lambda: keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(1, 3, 1, "same")]),
            "discriminator": lambda: keras.Sequential([keras.Input((None, None, 2)), keras.layers.Conv2D(1, 3, 2)]),
        }
    )
    gan.compile("adam")
    for model_format in (ModelFormat.SAVED_MODEL, ModelFormat.KERAS):
        assert formats.write(gan, model_format, tmp_path / model_format, 1) <= 1
    assert None not in saved_model.inputs_of(gan)["images"]
    model = ServedModel.load(locate(tmp_path / ModelFormat.SAVED_MODEL))
    pictures = [png(np.full((height, 12, 1), 90, np.uint8)) for height in (10, 10, 14)]
    instances = [{"b64": base64.b64encode(picture).decode()} for picture in pictures]

    def answer(*chosen):
        return images(model.predict(model.parse(json.dumps({"instances": chosen}).encode(), 3)))

    assert [image.shape for image in answer(*instances[:2])] == [(10, 12)] * 2
    assert answer(instances[2])[0].shape == (14, 12)
    check_refusal(lambda: answer(*instances), DataError, "instance 2")
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.png").write_bytes(pictures[0])
    (tmp_path / "files/b.png").write_bytes(pictures[2])
    with open_images(str(tmp_path / "files"), gan, tiny_config(dataset="digits")) as source:
        assert np.concatenate([*source.translations()]).shape == (2, 28, 28, 1)


def test_a_label_for_a_model_without_classes_is_refused(tmp_path):
    saved_model.save(tiny_model("gan"), tmp_path / "model", 1)
    model = ServedModel.load(locate(tmp_path / "model"))
    with PredictionServer(ServerSettings()) as server:
        server.model = model
        assert call(server, {"instances": [{"seed": 3}]})[0] == 200
        code, body = call(server, {"instances": [{"seed": 2}, {"seed": 3, "label": 1}]})
    assert code == 400 and "instance 1 of the request has a label" in body["error"]


def serve_in_this_process(monkeypatch, *flags, environ=()):
    """Runs the command until its health check succeeds, then sends SIGTERM. Returns the exit code."""
    for name, value in dict(environ).items():
        monkeypatch.setenv(name, str(value))
    sent = []

    def end_when_ready(port):
        for _ in range(200):
            time.sleep(0.05)
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/alive")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                continue
        sent.append(port)
        os.kill(os.getpid(), signal.SIGTERM)

    port = int(dict(environ).get("AIP_HTTP_PORT", 0))
    thread = threading.Thread(target=end_when_ready, args=(port,))
    thread.start()
    code = serve.main(["serve", *flags])
    thread.join(20)
    return code


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_the_command_serves_as_vertex_ai_asks_and_ends_with_0_at_sigterm(exported_model, bucket, monkeypatch, capsys):
    saved_model.publish(exported_model, locate(f"{bucket}/model"))
    environ = {
        "AIP_STORAGE_URI": f"{bucket}/model/",
        "AIP_HTTP_PORT": free_port(),
        "AIP_HEALTH_ROUTE": "/alive",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/7:predict",
    }
    assert serve_in_this_process(monkeypatch, environ=environ) == 0
    assert "/v1/endpoints/7:predict" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "environ", "code", "mentions"),
    [
        ([], {}, 2, ("model_dir",)),
        (["--model_dir=missing"], {}, 1, ("missing", "export", "not exist")),
        (["--model_dir=FOLDER"], {}, 1, ("export", "saved_model.pb")),
        (["--model_dir=FOLDER/damaged"], {}, 1, ("damaged", "hashes")),
        (["--model_dir=m", "--predict_route=predict"], {}, 2, ("predict_route", "'predict'")),
        (["--model_dir=m", "--health_route=/predict"], {}, 2, ("health_route", "/predict")),
        (["--model_dir=m", "--port=70000"], {}, 2, ("port", "70000")),
        (["--model_dir=m", "--host=300.1.1.1"], {}, 1, ("host", "300.1.1.1")),
        (["--model_dir=m"], {"AIP_HTTP_PORT": "http"}, 2, ("AIP_HTTP_PORT", "http")),
        ([], {"AIP_STORAGE_URI": "gs://"}, 2, ("AIP_STORAGE_URI",)),
    ],
)
def test_a_server_that_cannot_start_ends_with_one_sentence(
    flags, environ, code, mentions, exported_model, tmp_path, monkeypatch, capsys
):
    shutil.copytree(exported_model, tmp_path / "damaged")
    with (tmp_path / "damaged/variables/variables.index").open("ab") as file:
        file.write(b"x")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    argv = ["serve", "--port=0", *(flag.replace("FOLDER", str(tmp_path)) for flag in flags)]
    check_command_refusal(serve.main, argv, capsys, code, *mentions)


def test_a_model_of_an_earlier_version_is_refused(tmp_path, monkeypatch, capsys):
    plain = saved_model._Generator.signatures
    monkeypatch.setattr(
        saved_model._Generator,
        "signatures",
        lambda self: {name: function for name, function in plain(self).items() if name != saved_model.IMAGE},
    )
    saved_model.save(tiny_model("gan"), tmp_path / "model", 1)
    argv = ["serve", "--port=0", f"--model_dir={tmp_path / 'model'}"]
    check_command_refusal(serve.main, argv, capsys, 1, "model", "earlier version")

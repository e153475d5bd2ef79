"""The explorer: its images, and what its server allows."""

import http.client
import io
import json
import threading

import numpy as np
import pytest
from conftest import tiny_config, tiny_gan, tiny_model
from PIL import Image
from refusals import check_refusal

from trainer.errors import ConfigError, DataError
from trainer.explore.points import MAP_SIZE, Explorer
from trainer.explore.server import ExploreServer
from trainer.models import from_config


@pytest.fixture(scope="module")
def gan():
    return tiny_gan(model="conditional")


@pytest.fixture(scope="module")
def explorer(gan):
    return Explorer(gan, [f"class {number}" for number in range(10)], "a run")


def pixels(explorer, point):
    image = Image.open(io.BytesIO(explorer.image(json.dumps(point).encode()).content))
    return np.asarray(image).astype(int)


def is_close(first, second):
    return np.abs(first - second).max() <= 1


def test_a_seed_is_the_image_of_generate_and_the_file_says_so(explorer, gan):
    images, labels = gan.sample(8)
    picture = explorer.image(b'{"seed": 7}')
    file = Image.open(io.BytesIO(picture.content))
    assert is_close(np.asarray(file).astype(int), images[7, ..., 0])
    assert picture.name == f"seed-00000007-label-{labels[7]}.png"
    assert file.text["seed"] == "7" and len(file.text["latent_sha256"]) == 64
    changed = explorer.image(b'{"seed": 7, "coordinates": {"0": 1}}')
    assert "00000007" in changed.name and changed.name != picture.name
    assert Image.open(io.BytesIO(changed.content)).text["latent_sha256"] != file.text["latent_sha256"]


def test_corners_of_the_map_and_ends_of_an_interpolation_are_their_samples(explorer):
    corners = [5, 6, 7, 8]
    ends = [{"seed": 5, "truncation": 0.5}, {"corners": corners, "x": 1, "y": 1}]
    for number, (x, y) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        shown = pixels(explorer, {"corners": corners, "x": x, "y": y})
        assert is_close(shown, pixels(explorer, {"seed": corners[number]}))
    for share, end in enumerate(ends):
        assert is_close(pixels(explorer, {"between": ends, "share": share}), pixels(explorer, end))
    nested = {"between": [{"between": ends, "share": 0.5}, ends[0]], "share": 0.5}
    assert pixels(explorer, nested).any()


def test_the_map_shows_its_corners(explorer):
    picture = np.asarray(Image.open(io.BytesIO(explorer.map(b'{"corners": [1, 2, 3, 4], "label": 3}'))))
    side = picture.shape[0] // MAP_SIZE
    assert picture.shape == (28 * MAP_SIZE, 28 * MAP_SIZE)
    last = pixels(explorer, {"seed": 4, "label": 3})
    assert is_close(picture[-side:, -side:].astype(int), last)


def test_the_first_principal_direction_changes_images_most(explorer):
    def change(number):
        moved = [pixels(explorer, {"seed": 1, "principal": {number: distance}}) for distance in (-2, 2)]
        return np.square(moved[1] - moved[0]).mean()

    assert change("0") > change("7") > 0


@pytest.mark.parametrize("has_vectors", [False, True])
def test_principal_directions_change_images_of_models_with_many_labels(has_vectors):
    vectors = {"conditions": np.linspace(-1, 1, 5000)[:, np.newaxis]} if has_vectors else {}
    explorer = Explorer(from_config(tiny_config(model="conditional"), (28, 28, 1), 5000, **vectors))
    moved = [pixels(explorer, {"seed": 1, "principal": {"0": distance}}) for distance in (-2, 2)]
    assert (moved[0] != moved[1]).any()


@pytest.mark.parametrize("make", [lambda: tiny_gan(latent_distribution="uniform"), lambda: tiny_model("infogan")])
def test_other_latents_and_codes_can_be_moved(make):
    explorer = Explorer(make())
    last = str(explorer.facts["num_latents"] - 1)
    point = {"seed": 1, "coordinates": {last: 2}, "truncation": 0.5}
    assert (pixels(explorer, point) != pixels(explorer, {"seed": 1, "truncation": 0.5})).any()
    assert pixels(explorer, {"corners": [0, 1, 2, 3], "x": 0.5, "y": 0.5}).any()


DEEP = {"seed": 1}
for _ in range(12):
    DEEP = {"between": [DEEP, {"seed": 2}], "share": 0.5}
BAD_POINTS = [
    ("", "empty"),
    ("[1]", "object"),
    ("{", "JSON"),
    ("{}", "seed"),
    ('{"seed": 1, "corners": [0, 1, 2, 3]}', "2"),
    ('{"seed": -1}', "seed"),
    ('{"seed": 1e999}', "finite"),
    ('{"seed": "7"}', "seed"),
    ('{"corners": [1, 2], "x": 0, "y": 0}', "corners"),
    ('{"corners": [0, 1, 2, 3], "x": 2, "y": 0}', "x=2"),
    ('{"corners": [0, 1, 2, 3]}', "x"),
    ('{"seed": 1, "label": 99}', "99"),
    ('{"seed": 1, "truncation": -1}', "truncation"),
    ('{"seed": 1, "coordinates": {"8": 1}}', "'8'"),
    ('{"seed": 1, "coordinates": {"²": 1}}', "coordinates"),
    ('{"seed": 1, "principal": {"-1": 1}}', "'-1'"),
    ('{"seed": 1, "principal": {"0": 1e9}}', "principal"),
    ('{"between": [{"seed": 1}], "share": 0}', "between"),
    (json.dumps(DEEP), "8"),
]


@pytest.mark.parametrize(("content", "mention"), BAD_POINTS)
def test_a_bad_point_is_refused(explorer, content, mention):
    check_refusal(lambda: explorer.image(content.encode()), DataError, mention)


def test_the_truncation_of_stylegan2_is_no_latent_to_move():
    explorer = Explorer(tiny_model("stylegan2"))
    assert explorer.facts["num_codes"] == 0
    assert pixels(explorer, {"seed": 7, "truncation": 0.5}).any()
    last = str(explorer.facts["num_latents"])
    check_refusal(lambda: pixels(explorer, {"seed": 7, "coordinates": {last: 1}}), DataError, "coordinates")


@pytest.mark.parametrize(("model", "mention"), [("cyclegan", "CycleGAN"), ("pix2pix", "Pix2Pix")])
def test_a_model_without_latents_is_refused(model, mention):
    check_refusal(lambda: Explorer(tiny_model(model)), ConfigError, mention)


@pytest.fixture(scope="module")
def server(explorer):
    server = ExploreServer(explorer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.finish()


def request(server, path, body=None, **headers):
    """Returns the status and the content of an answer. A header of None is not sent."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    defaults = {"Host": f"127.0.0.1:{server.server_port}"} | (
        {} if body is None else {"Content-Type": "application/json"}
    )
    connection.putrequest("GET" if body is None else "POST", path, skip_host=True)
    sent = defaults | {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        sent.setdefault("Content-Length", str(len(body)))
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def test_the_page_and_an_image_need_the_token(server):
    own = f"/{server.token}/"
    assert request(server, own)[0] == 200
    assert request(server, f"{own}image", b'{"seed": 1}', Origin=f"http://127.0.0.1:{server.server_port}")[0] == 200
    for path in (
        "/",
        "//",
        "/x/",
        f"/{server.token}",
        f"/{server.token[:-1]}/",
        f"/x{own}",
        f"/?{server.token}/",
        "/é/",
    ):
        assert request(server, path.encode("latin-1").decode("ascii", "ignore"))[0] == 403
    assert request(server, "/x/image", b'{"seed": 1}')[0] == 403
    assert request(server, f"{own}other")[0] == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": None},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_another_host_or_origin_is_refused(server, headers):
    values = {name: value and value.format(port=server.server_port) for name, value in headers.items()}
    assert request(server, f"/{server.token}/", **values)[0] == 403
    assert request(server, f"/{server.token}/image", b'{"seed": 1}', **values)[0] == 403


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"seed": 99999999999}', {}, 400),
        (b"\xff", {}, 400),
        (b"{}", {"Content_Type": "text/plain"}, 415),
        (b"{}", {"Content_Length": None}, 411),
        (b"{}", {"Content_Length": "-1"}, 411),
        (b"{}", {"Content_Length": "70000"}, 413),
        (b"{}", {"Content_Length": "9" * 30}, 411),
    ],
)
def test_a_bad_body_gets_a_sentence(server, body, headers, status):
    code, content = request(server, f"/{server.token}/image", body, **headers)
    assert code == status and content.endswith(b".")


def test_a_port_that_is_in_use_is_refused(server, explorer):
    check_refusal(lambda: ExploreServer(explorer, server.server_port), ConfigError, f"port={server.server_port}")


def test_a_client_may_omit_the_default_port(explorer):
    try:
        server = ExploreServer(explorer, 80)
    except ConfigError:
        pytest.skip("port 80 is not available to this user")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for host in ("127.0.0.1", "localhost:80"):
            assert request(server, f"/{server.token}/facts", Host=host)[0] == 200
    finally:
        server.shutdown()
        server.finish()

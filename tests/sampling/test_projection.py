"""Projection of photos into latent space, and traversals of codes."""

import io

import numpy as np
import pytest
from conftest import tiny_gan, tiny_model
from PIL import Image
from refusals import check_refusal

from trainer.errors import ConfigError, DataError, StorageError
from trainer.sampling import projection
from trainer.sampling.samples import Samples
from trainer.sampling.traversal import COLUMNS, traversal_images
from trainer.storage import locate


@pytest.mark.slow
@pytest.mark.parametrize(
    "gan",
    [
        lambda: tiny_model("infogan"),
        lambda: tiny_gan(latent_distribution="uniform"),
        lambda: tiny_gan("dcgan", model="conditional"),
        lambda: tiny_gan(),
    ],
    ids=["infogan", "uniform", "conditional", "mlp"],
)
def test_an_image_of_the_generator_is_found_again(gan):
    gan = gan()
    weights = gan.ema_generator.trainable_variables
    for weight in weights:  # an untrained generator makes gray images
        weight.assign(3.0 * weight)
    labels = None if not gan.num_classes else np.array([4], np.int32)
    photo = gan.images_from(gan.latents_of(np.array([777])), labels)[0]
    steps = []
    result = projection.project(gan, photo, num_steps=40, on_step=steps.append)
    assert steps == list(range(1, 41))
    errors = [np.abs(image.astype(float) - photo).mean() for _, image in result.pictures]
    assert result.error == pytest.approx(errors[-1]) and errors[-1] < 0.8 * errors[0]
    assert [step for step, _ in result.pictures] == sorted({step for step, _ in result.pictures})
    again = gan.images_from(result.latents, None if result.label is None else np.array([result.label], np.int32))[0]
    assert np.abs(again.astype(int) - result.reconstruction).max() <= 1
    if gan.latent_distribution == "uniform":
        assert result.latents.min() >= 0 and result.latents.max() <= 1
    assert np.abs(result.latents[:, gan.latent_dim :]).max(initial=0) <= 1


@pytest.mark.slow
def test_only_the_given_classes_are_tried_and_the_result_is_always_the_same():
    gan = tiny_gan(model="conditional")
    photo = gan.sample(1, labels=4)[0][0]
    first, second = (projection.project(gan, photo, [7], num_steps=5) for _ in range(2))
    assert first.label == 7
    np.testing.assert_array_equal(first.latents, second.latents)
    other = projection.project(gan, photo, [7], num_steps=5, seed=3)
    assert (other.latents != first.latents).any()


def test_the_files_of_a_projection_can_be_read():
    gan = tiny_gan(model="conditional")
    result = projection.project(gan, gan.sample(1)[0][0], num_steps=9)
    files = dict(result.files())
    assert tuple(files) == projection.FILES
    with np.load(io.BytesIO(files["latent.npz"])) as arrays:
        np.testing.assert_array_equal(arrays["latents"], result.latents)
        assert arrays["labels"].tolist() == [result.label]
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(files["reconstruction.png"]))), result.reconstruction[..., 0]
    )
    with Image.open(io.BytesIO(files["progress.png"])) as picture:
        assert picture.width > 5 * picture.height


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("mode", "suffix"), [("RGB", "jpg"), ("L", "png"), ("RGBA", "webp"), ("P", "gif")])
def test_a_photo_of_any_format_and_size_gets_the_shape_of_the_images(tmp_path, mode, suffix, channels):
    path = tmp_path / f"photo.{suffix}"
    Image.effect_noise((50, 31), 40).convert(mode).save(path)
    assert projection.read_photo(str(path), (12, 16, channels)).shape == (12, 16, channels)


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, StorageError), (b"", DataError), (b"text", DataError), (b"\x89PNG\r\n\x1a\n", DataError)],
    ids=["missing", "empty", "text", "truncated"],
)
def test_a_photo_that_cannot_be_read_is_refused(tmp_path, content, error):
    path = tmp_path / "photo.png"
    if content is not None:
        path.write_bytes(content)
    check_refusal(lambda: projection.read_photo(str(path), (12, 16, 3)), error, str(path))


def test_a_photo_is_read_from_a_bucket(bucket, tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "photo.png")
    (locate(bucket) / "photo.png").write_bytes((tmp_path / "photo.png").read_bytes())
    assert projection.read_photo(f"{bucket}/photo.png", (4, 4, 3))[0, 0].tolist() == [255, 0, 0]


def test_a_cyclegan_has_no_latents_to_search():
    photo = np.zeros((12, 12, 1), np.uint8)
    check_refusal(lambda: projection.project(tiny_model("cyclegan"), photo), ConfigError, "init_image", "CycleGAN")


def test_a_traversal_changes_one_code_per_row():
    gan = tiny_model("infogan")
    samples = Samples(np.array([3, 9]), None)
    blocks, count = traversal_images(gan, samples, np.array([2, 5, 7]))
    images = np.concatenate(list(blocks))
    assert len(images) == count == 2 * gan.num_continuous * 3 * COLUMNS
    latents = gan.latents_of(samples.indices)
    latents[:, gan.latent_dim :] = 0.0
    latents[1, gan.latent_dim + 1] = 2.0
    expected = gan.images_from(latents[1:], np.array([7], np.int32))[0]
    assert np.abs(images[-1].astype(int) - expected).max() <= 1
    everything, count = traversal_images(gan, samples, None)
    assert count == 2 * gan.num_continuous * 10 * COLUMNS and next(everything).shape[1:] == (12, 12, 1)


@pytest.mark.parametrize(
    "gan",
    [
        lambda: tiny_gan(),
        lambda: tiny_gan(model="conditional"),
        lambda: tiny_model("infogan", model_options={"num_continuous": 0}),
    ],
    ids=["gan", "conditional", "no codes"],
)
def test_a_traversal_of_a_model_without_codes_is_refused(gan):
    check_refusal(lambda: traversal_images(gan(), Samples(np.arange(1), None), None), ConfigError, "traversal")

"""Translation of a user's images by a model that maps images to images.

Shapes: `N` images, `B` images of a block, `H W C` an image.
"""

import contextlib
import io
import logging
import posixpath
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from trainer.config import TrainConfig
from trainer.data import describe
from trainer.data.compared_images import resize_of
from trainer.data.prepare.decoding import encode
from trainer.data.prepare.encoding import read_content
from trainer.data.prepare.pixels import Target
from trainer.data.prepare.sources import Source, SourceOptions, open_source
from trainer.data.prepare.sources.base import NO_LABELS
from trainer.data.prepare.sources.csv import CsvSource
from trainer.data.prepare.sources.folders import FolderSource
from trainer.errors import ConfigError, DataError, quote
from trainer.metrics.extraction import BLOCK_SIZE
from trainer.models import ImageTranslator
from trainer.models.validation import input_shapes
from trainer.storage import place_of, scratch_folder

_logger = logging.getLogger(__name__)


class ImagesToTranslate:
    """Images of a source in the format that a model translates.

    Args:
        name: Name of the source, for messages.
        source: Open source.
        gan: Compiled model.
        shape: Shape (H, W, C) of the images that the model gets.
        resize: Method for images of another size, one of `trainer.data.prepare.pixels.RESIZES`.
        scratch: Empty local folder.
    """

    def __init__(
        self, name: str, source: Source, gan: ImageTranslator, shape: tuple[int, int, int], resize: str, scratch: Path
    ):
        self._name, self._source, self._gan, self._shape, self._scratch = name, source, gan, shape, scratch
        self._target = Target(*shape, resize, allows_constant=True)

    def output_names(self) -> list[str]:
        """Returns the name of each output, `NAME.png` for `FOLDER/NAME.jpg`.

        Raises:
            DataError: If two images have the same name.
        """
        names: dict[str, str] = {}
        for item in self._source.items:
            name = f"{PurePosixPath(item.name).stem}.png"
            if name in names:
                raise DataError(
                    f"{self._name} has {quote(names[name])} and {quote(item.name)}, whose outputs would have the same "
                    f"name {quote(name)}; rename one of them, or translate their folders one by one."
                )
            names[name] = item.name
        return list(names)

    def check_output(self, out: str) -> None:
        """Rejects an output that would replace the images themselves.

        Args:
            out: Folder or archive to write.

        Raises:
            ConfigError: If it is the source, or a folder that has images of the source.
        """
        root, places = place_of(self._name), set()
        if isinstance(self._source, FolderSource | CsvSource):  # the items of others are not files
            folder = root if isinstance(self._source, FolderSource) else posixpath.dirname(root)
            places = {place_of(f"{folder}/{PurePosixPath(item.name).parent}") for item in self._source.items}
        if place_of(out) in {root, *places}:
            raise ConfigError(
                f"out={out} has images of --images={quote(self._name)}, which would be replaced; give another folder."
            )

    def translations(self, seed: int | None = None) -> Iterator[np.ndarray]:
        """Yields the translations in order, uint8 [B, H, W, C], up to 50 at a time.

        Args:
            seed: Seed of dropout that is active in samples. None: the seed of the run.

        Raises:
            DataError: If an image cannot be read.
        """
        for start in range(0, len(self._source.items), BLOCK_SIZE):
            stop = min(start + BLOCK_SIZE, len(self._source.items))
            yield self._gan.translate(np.stack([self._read(index) for index in range(start, stop)]), seed=seed)

    def _read(self, index: int) -> np.ndarray:
        """Returns an image, uint8 [H, W, C]."""
        try:
            encoded = encode(self._target, read_content(self._source, index, self._scratch))
        except DataError as error:
            encoded = encode(self._target, error)
        if encoded.image is None:
            raise DataError(f"{self._source.items[index].name} {encoded.problem}; correct or remove it.")
        return np.asarray(Image.open(io.BytesIO(encoded.image))).reshape(self._shape)


@contextlib.contextmanager
def open_images(name: str, gan: ImageTranslator, config: TrainConfig) -> Iterator[ImagesToTranslate]:
    """Opens a source of images to translate while the context is active.

    Args:
        name: Source that `prepare` accepts.
        gan: Compiled model.
        config: Config of its run, whose dataset states how images of another size are resized, and the size
            itself if the model translates images of any size.

    Raises:
        ConfigError, DataError, StorageError: As `open_source`.
    """
    with open_source(name, SourceOptions(label_field=NO_LABELS)) as source, scratch_folder() as scratch:
        for note in source.notes:
            _logger.warning(note)
        resize = resize_of(config.dataset)
        resize = "crop" if resize in (None, "none") else str(resize)
        height, width, channels = input_shapes(gan.translator)[0]
        image_shape = describe(config.dataset, config.padding).image_shape
        shape = height or image_shape[0], width or image_shape[1], int(channels or image_shape[2])
        yield ImagesToTranslate(name, source, gan, shape, resize, scratch)

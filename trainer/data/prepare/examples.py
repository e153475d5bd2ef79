"""Encoded examples of a dataset: images, and the inputs of pairs."""

import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from trainer.data.prepare.contents import join_digests
from trainer.data.prepare.decoding import Encoded
from trainer.data.prepare.encoding import encode_images
from trainer.data.prepare.pixels import Target
from trainer.data.prepare.shard_commit import Rejected
from trainer.data.prepare.sources import Source
from trainer.data.prepare.sources.pairs import PairedSource


class EncodedExample(NamedTuple):
    """Results for an image, and for its input if it is a part of a pair."""

    image: Encoded
    input: Encoded | None

    @property
    def encoded_images(self) -> list[bytes]:
        """Encoded image, and then its encoded input if it has one. Empty if one of them is not usable."""
        images = [result.image for result in self if result is not None]
        return [] if None in images else [image for image in images if image is not None]

    @property
    def digest(self) -> bytes:
        """Digest of the contents of the image and the input; empty if one of them cannot be read."""
        return join_digests([result.digest for result in self if result is not None])

    @property
    def num_with_more_frames(self) -> int:
        """Number of files, the image and the input, of which further frames are not used."""
        return sum(result.has_more_frames for result in self if result is not None)

    def rejection(self, source: Source, index: int) -> Rejected | None:
        """Returns the image or the input that is the reason why the example is not in the dataset, if there is one.

        Args:
            source: Source of the example.
            index: Index in the source.
        """
        if self.image.image is None:
            return Rejected(source.items[index].name, self.image.problem, self.image.is_filtered)
        if self.input is not None and self.input.image is None:
            assert isinstance(source, PairedSource)
            return Rejected(source.inputs.items[index].name, self.input.problem, self.input.is_filtered)
        return None


def encode_examples(
    source: Source,
    indices: Sequence[int],
    target: Target,
    input_target: Target | None,
    num_processes: int | None,
    scratch: Path,
) -> Generator[EncodedExample, None, None]:
    """Yields the results for every image and its input, in order.

    Args:
        source: Source of the images.
        indices: Indices in the source.
        target: Format of the images.
        input_target: Format of the inputs; None if there are none.
        num_processes: As in `encode_images`. Images and inputs of pairs each have one half of the processes.
        scratch: Local folder for contents that wait for their decoding.

    Raises:
        DataError: If a decoding process was killed.
    """
    if input_target is None or not isinstance(source, PairedSource):
        for image in encode_images(source, indices, target, num_processes, scratch):
            yield EncodedExample(image, None)
        return
    folder = scratch / "inputs"
    folder.mkdir()
    num_processes = max(1, (num_processes or len(os.sched_getaffinity(0))) // 2)
    images = encode_images(source, indices, target, num_processes, scratch)
    inputs = encode_images(source.inputs, indices, input_target, num_processes, folder)
    for image, encoded_input in zip(images, inputs, strict=True):
        yield EncodedExample(image, encoded_input)

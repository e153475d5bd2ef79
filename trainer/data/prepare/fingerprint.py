"""Fingerprint of a conversion: equal for two processes only if they write the same bytes into each shard."""

import PIL

from trainer.data.prepare.conversion_plan import ConversionPlan
from trainer.data.prepare.duplicates import digest_contents
from trainer.data.prepare.pixels import CONVERSION_VERSION
from trainer.data.prepare.sharding import digest_of
from trainer.data.prepare.sources import Source
from trainer.data.prepare.sources.pairs import PairedSource

_NUM_COMPARED = 16
"""Number of images whose content stands for all images of a source that has no digest of its own."""


def conversion_fingerprint(source: Source, plan: ConversionPlan) -> str:
    """Returns the SHA-256 of everything that the bytes of the shards depend on: 64 hexadecimal digits.

    The place of the source is not a part of it: machines may have the same source in different folders. The content
    of the images is represented by `Source.content_digest` or, if there is none, by that of the first images. For such
    a source, `ShardReport.content` also represents that of all images of a finished shard.

    Args:
        source: Source of images.
        plan: Plan of the conversion of this source.

    Raises:
        StorageError: If the first images cannot be read for a reason that is not in the images.
    """
    indices = plan.indices.tolist()
    settings = plan.class_names, source.condition_names, plan.target, plan.input_target, plan.num_shards
    sources = sources_of(source)
    names = (part.items[index].name for part in sources for index in indices)
    sizes = (part.num_bytes(index) for part in sources for index in indices)
    content = source.content_digest or digest_contents(sources, indices[:_NUM_COMPARED]).tolist()
    return digest_of(names, sizes, plan.labels, (settings, content, CONVERSION_VERSION, PIL.__version__))


def sources_of(source: Source) -> list[Source]:
    """Returns the source of the images and, for pairs, that of their inputs."""
    return [source, source.inputs] if isinstance(source, PairedSource) else [source]

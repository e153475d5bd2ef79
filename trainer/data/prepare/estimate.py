"""Estimate of the size, the time and the rejected images of a conversion, from a sample of its images."""

import contextlib
import dataclasses
import time

from trainer.data.prepare.conversion_plan import ConversionOptions, ConversionPlan
from trainer.data.prepare.examples import encode_examples
from trainer.data.prepare.shard_commit import Rejected
from trainer.data.prepare.sources import Source
from trainer.data.tfrecord_writer import record_bytes
from trainer.storage import scratch_folder

MAX_SAMPLED = 1000
"""Maximum number of images in the sample."""
_MAX_SECS = 60.0
_NUM_STARTING = 16
"""Number of images whose time also contains the start of the decoding processes, and does not count."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Results for a sample of the images of a conversion.

    Attributes:
        num_images: Number of images of the conversion.
        num_sampled: Number of images in the sample, in [1, num_images].
        rejected: Images of the sample that would not be in the dataset.
        sample_bytes: Size of the records of the other images of the sample in bytes.
        images_per_sec: Speed of this machine in images per second, rejected ones included.
    """

    num_images: int
    num_sampled: int
    rejected: tuple[Rejected, ...]
    sample_bytes: int
    images_per_sec: float

    @property
    def num_bytes(self) -> int:
        """Size of all shards in bytes."""
        return self.sample_bytes * self.num_images // self.num_sampled

    @property
    def bad_images(self) -> list[Rejected]:
        """Images of the sample that cannot be used."""
        return [image for image in self.rejected if not image.is_filtered]

    def allows_bad_images(self, options: ConversionOptions) -> bool:
        """Returns whether the options allow as many images that cannot be used as the sample leads to expect."""
        expected = len(self.bad_images) * self.num_images / self.num_sampled
        return expected <= options.max_bad(self.num_images)


def estimate_conversion(source: Source, plan: ConversionPlan, options: ConversionOptions) -> Estimate:
    """Encodes up to `MAX_SAMPLED` images for about a minute at most, and writes nothing.

    The images are the first ones of the dataset, which is shuffled, so that they are a random sample.

    Args:
        source: Source of images.
        plan: Result of `plan_conversion` for this source.
        options: Options of the conversion.

    Raises:
        DataError: If a decoding process was killed.
    """
    indices, labels = plan.indices[:MAX_SAMPLED].tolist(), plan.labels[:MAX_SAMPLED].tolist()
    rejected: list[Rejected] = []
    sample_bytes = 0
    start_time = time.perf_counter()
    times = []
    with scratch_folder() as scratch:
        examples = encode_examples(source, indices, plan.target, plan.input_target, options.num_processes, scratch)
        with contextlib.closing(examples):
            for index, label, example in zip(indices, labels, examples, strict=True):
                image = example.rejection(source, index)
                if image is not None:
                    rejected.append(image)
                else:
                    sample_bytes += record_bytes(*example.encoded_images, label=label)
                times.append(time.perf_counter() - start_time)
                if times[-1] > _MAX_SECS:
                    break
    return Estimate(
        num_images=len(plan.indices),
        num_sampled=len(times),
        rejected=tuple(rejected),
        sample_bytes=sample_bytes,
        images_per_sec=_speed(times),
    )


def _speed(times: list[float]) -> float:
    """Returns the images per second, without the start of the decoding processes if the sample is large enough.

    Args:
        times: Seconds from the start to the end of each image.
    """
    num_starting = _NUM_STARTING if len(times) > 4 * _NUM_STARTING else 0
    secs = times[-1] - (times[num_starting - 1] if num_starting else 0.0)
    return (len(times) - num_starting) / max(secs, 1e-9)

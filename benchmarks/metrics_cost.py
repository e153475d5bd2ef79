"""Measures the time and memory of the image metrics, from features that are already extracted.

    python -m benchmarks.metrics_cost                                       5,000 images, and 336 features as `photos`
    python -m benchmarks.metrics_cost --num_images=50000 --num_features=2048

Features are random numbers, as many real as fake ones. Prints one JSON object with the seconds for the statistics of
the real images (computed once per dataset), the seconds of one evaluation, the processor time of both in seconds, and
the peak memory of the process in GiB, with TensorFlow and both sets of features.
"""

import json
import os
import resource
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import flags as absl_flags

from trainer.cli import app
from trainer.logging import install_handler
from trainer.metrics.comparison import compare, feature_statistics
from trainer.metrics.real_statistics import fake_subsets, real_subsets


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_integer(
        "num_images", 5000, "Number of real images, and of fake ones.", lower_bound=12, flag_values=values
    )
    absl_flags.DEFINE_integer("num_features", 336, "Number of features of an image.", lower_bound=1, flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Measures one evaluation."""
    install_handler(uses_stderr=True)
    num_images, num_features = values.num_images, values.num_features
    random = np.random.Generator(np.random.PCG64(0))
    # Rectified values of decreasing variance, as those of the network of the literature.
    scales = np.geomspace(1.0, 0.05, num_features, dtype=np.float32)

    def features() -> np.ndarray:
        sample = random.standard_normal((num_images, num_features), np.float32)
        np.maximum(sample, 0.0, out=sample)
        sample *= scales
        return sample

    started = time.monotonic()
    real = feature_statistics(features(), "real_features", real_subsets(num_images))
    real_secs = time.monotonic() - started
    started = time.monotonic()
    metrics = compare(real, feature_statistics(features(), "fake_features", fake_subsets(num_images, num_images)))
    result = {
        "num_images": num_images,
        "num_features": num_features,
        "real_secs": round(real_secs, 1),
        "evaluation_secs": round(time.monotonic() - started, 1),
        "cpu_secs": round(time.process_time(), 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "metrics": metrics,
    }
    print(json.dumps(result))


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))

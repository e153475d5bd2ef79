"""Measures the time and memory of the image metrics, from features that are already extracted.

    python -m benchmarks.metrics_cost                                       5,000 images and 384 features
    python -m benchmarks.metrics_cost --num_images=50000 --num_features=2048

Features are random numbers, as many real as fake ones. Prints one JSON object with the seconds for the statistics of
the real images (computed once per data set), the seconds of one evaluation, the processor time of both in seconds, and
the peak memory of the process in GiB, with TensorFlow and both sets of features.
"""

import json
import os
import resource
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags

from trainer.metrics.comparison import compare, feature_statistics
from trainer.metrics.real_statistics import fake_subsets, real_subsets

_NUM_IMAGES = flags.DEFINE_integer("num_images", 5000, "Number of real images, and of fake ones.", lower_bound=12)
_NUM_FEATURES = flags.DEFINE_integer("num_features", 384, "Number of features of an image.", lower_bound=1)


def main(_: list[str]) -> None:
    """Measures one evaluation."""
    num_images, num_features = _NUM_IMAGES.value, _NUM_FEATURES.value
    random = np.random.Generator(np.random.PCG64(0))
    # Rectified values of decreasing variance, as those of the network of the literature.
    scales = np.geomspace(1.0, 0.05, num_features, dtype=np.float32)

    def features() -> np.ndarray:
        values = random.standard_normal((num_images, num_features), np.float32)
        np.maximum(values, 0.0, out=values)
        values *= scales
        return values

    started = time.monotonic()
    real = feature_statistics(features(), "real_features", real_subsets(num_images))
    real_secs = time.monotonic() - started
    started = time.monotonic()
    values = compare(real, feature_statistics(features(), "fake_features", fake_subsets(num_images, num_images)))
    result = {
        "num_images": num_images,
        "num_features": num_features,
        "real_secs": round(real_secs, 1),
        "evaluation_secs": round(time.monotonic() - started, 1),
        "cpu_secs": round(time.process_time(), 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "metrics": values,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)

"""Datasets: descriptions here, without TensorFlow; pixels in `trainer.data.loading`."""

from trainer.data.datasets import DatasetInfo, default_num_chunks, describe, num_examples

__all__ = ["DatasetInfo", "default_num_chunks", "describe", "num_examples"]

"""Where images come from: descriptions here, without TensorFlow; pixels in `trainer.data.loading`."""

from trainer.data.catalogue import DatasetInfo, describe, num_examples, windows_of

__all__ = ["DatasetInfo", "describe", "num_examples", "windows_of"]

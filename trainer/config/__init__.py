"""Settings of a run, recipes, and the rules for which settings work together. Nothing here imports TensorFlow."""

from trainer.config.suites import SUITES
from trainer.config.train_config import TrainConfig, check_batch, check_divisible, check_micro_batches

__all__ = ["SUITES", "TrainConfig", "check_batch", "check_divisible", "check_micro_batches"]

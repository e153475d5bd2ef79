"""Settings of a run, recipes, and the rules for which settings work together. Nothing here imports TensorFlow."""

from trainer.config.train_config import TrainConfig, check_batch, check_divisible, check_micro_batches

__all__ = ["TrainConfig", "check_batch", "check_divisible", "check_micro_batches"]

"""Settings of a run, recipes, and the rules for which settings go together. Nothing here imports TensorFlow."""

from trainer.config.train_config import SUITES, TrainConfig, check_batch, check_shares

__all__ = ["SUITES", "TrainConfig", "check_batch", "check_shares"]

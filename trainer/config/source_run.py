"""The value of `init_from`: a run, and which of its checkpoints."""

import os
import re
from dataclasses import dataclass

from trainer.config.train_config import TrainConfig
from trainer.errors import ConfigError
from trainer.storage import parse_path, path_text, place_of, without_mount

BEST = "best"
_CHECKPOINT = re.compile(f"{BEST}|latest|[0-9]{{1,18}}")


@dataclass(frozen=True)
class SourceRun:
    """A run with whose weights another one begins.

    Attributes:
        path: Run directory, a local path or `gs://BUCKET/NAME`, without a slash at its end.
        checkpoint: `best`, `latest`, or a step.
    """

    path: str
    checkpoint: str = BEST

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> "SourceRun":
        """Parses `RUN`, which is the same as `RUN@best`, `RUN@latest`, or `RUN@STEP`.

        An `@` before anything else belongs to the path.

        Raises:
            ConfigError: If the path is no text, or neither local nor in a bucket; see `parse_path`.
        """
        text = path_text(text)
        path, _, checkpoint = text.rpartition("@")
        if _CHECKPOINT.fullmatch(checkpoint) is None or "@" not in text:
            path, checkpoint = text, BEST
        path = without_mount(parse_path(path))
        return cls(path.rstrip("/") or path, str(int(checkpoint)) if checkpoint.isdecimal() else checkpoint)

    def __str__(self) -> str:
        return f"{self.path}@{self.checkpoint}"

    @property
    def has_step(self) -> bool:
        """True if the checkpoint is that of a step."""
        return self.checkpoint.isdecimal()

    def may_be(self, other: "SourceRun") -> bool:
        """Returns whether `other`, the checkpoint of a step, can be the checkpoint that this value has chosen."""
        is_same_run = place_of(self.path) == place_of(other.path)
        return is_same_run and (not self.has_step or self.checkpoint == other.checkpoint)

    def is_inside(self, folder: str) -> bool:
        """Returns whether the run is in a folder or is the folder itself."""
        return f"{place_of(self.path)}/".startswith(f"{place_of(folder)}/")


def check_source_run(config: TrainConfig) -> None:
    """Checks the settings with which a run begins with the weights of another one.

    Raises:
        ConfigError: If `init_from` is malformed or is the run's own directory, or if layers with random weights would
            be frozen.
    """
    if config.init_from is None:
        if config.freeze_discriminator_layers:
            raise ConfigError(
                f"freeze_discriminator_layers={config.freeze_discriminator_layers} would freeze random weights; set "
                "init_from to a run with trained weights, or omit it."
            )
        return
    source = SourceRun.parse(config.init_from)
    if config.job_dir is not None and source.is_inside(config.job_dir):
        raise ConfigError(
            f"init_from={config.init_from} is in the run's own job_dir={config.job_dir}; omit it to resume that run, "
            "or choose another job_dir for a new one."
        )

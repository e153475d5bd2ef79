"""What happens between windows, as Keras callbacks. One that acts at certain steps says so in `every_steps`."""

from trainer.callbacks.animation import Animation
from trainer.callbacks.checkpoint import Checkpoint
from trainer.callbacks.evaluation import Evaluation
from trainer.callbacks.events import EventLog
from trainer.callbacks.metrics_log import MetricsLog
from trainer.callbacks.progress import Progress
from trainer.callbacks.samples import SampleGrid
from trainer.callbacks.tuning_report import TuningReport
from trainer.callbacks.watchdog import Watchdog

__all__ = [
    "Animation",
    "Checkpoint",
    "Evaluation",
    "EventLog",
    "MetricsLog",
    "Progress",
    "SampleGrid",
    "TuningReport",
    "Watchdog",
]

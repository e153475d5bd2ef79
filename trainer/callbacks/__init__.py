"""Keras callbacks that run between executions. Those that act at certain steps have the attribute `every_steps`."""

from trainer.callbacks.animation import Animation
from trainer.callbacks.base import Periodic, Priority
from trainer.callbacks.checkpoint import Checkpoint, Restore
from trainer.callbacks.collapse import CollapseAlarm
from trainer.callbacks.evaluation import Evaluation
from trainer.callbacks.event_log import EventLog
from trainer.callbacks.lease_check import LeaseCheck
from trainer.callbacks.metrics_log import MetricsLog
from trainer.callbacks.progress import Progress
from trainer.callbacks.report_writer import ReportWriter
from trainer.callbacks.sample_grid import SampleGrid
from trainer.callbacks.session_log import SessionLog
from trainer.callbacks.trackers import check_trackers
from trainer.callbacks.tracking import Tracking
from trainer.callbacks.tuning_report import TuningReport
from trainer.callbacks.watchdog import Heartbeat, Watchdog

__all__ = [
    "Animation",
    "Checkpoint",
    "CollapseAlarm",
    "Evaluation",
    "EventLog",
    "Heartbeat",
    "LeaseCheck",
    "MetricsLog",
    "Periodic",
    "Priority",
    "Progress",
    "ReportWriter",
    "Restore",
    "SampleGrid",
    "SessionLog",
    "Tracking",
    "TuningReport",
    "Watchdog",
    "check_trackers",
]

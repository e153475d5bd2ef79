"""The end of training: as planned, or by SIGTERM."""

from typing import Any


def is_interrupted(model: Any, num_steps: int) -> bool:
    """Returns whether SIGTERM has stopped training before its last step.

    If not, training that ended without an exception has all steps that it should have, also if a callback such as
    `CollapseAlarm` has stopped it. An evaluation of the last step may be missing.

    Args:
        model: GAN that was trained.
        num_steps: Step to stop at.
    """
    return bool(model.preempted and model.step < num_steps)

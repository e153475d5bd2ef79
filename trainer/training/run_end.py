"""The end of a run: whether its newest checkpoint takes no more steps, and which settings keep it from continuing.

`trainer.training.run_state` applies the functions in the run directory, and `submit` before it sends a job.
"""

from collections.abc import Mapping
from typing import Any

from trainer.config import TrainConfig
from trainer.training.checkpoint.manifest import CheckpointManifest

COLLAPSE, EVALUATION = "collapse", "evaluation"
"""Names of the states of `CollapseAlarm` and `Evaluation` in checkpoints."""
IS_COLLAPSED, PENDING_STEP = "is_collapsed", "pending_step"
"""Names in these states of a flag that is 1 for a collapsed generator, and of the step of an abandoned evaluation."""


CHANGE_ADVICE = "--allow_config_change to resume it anyway, which needs networks and optimizers of the same kind"
"""End of every message about changed settings of a run."""


def has_pending_evaluation(state: Mapping[str, float], step: int) -> bool:
    """Returns whether the evaluation of `step` is pending in the state of an `Evaluation`."""
    return state.get(PENDING_STEP) == step


def is_finished(manifest: CheckpointManifest, config: TrainConfig) -> bool:
    """Returns whether a run whose newest checkpoint has this manifest takes no more steps.

    It has taken all steps, or its generator has collapsed and `config.stop_on_collapse` is True; and SIGTERM has not
    abandoned the evaluation of its last step.
    """
    if config.has_metrics and has_pending_evaluation(manifest.callbacks.get(EVALUATION, {}), manifest.step):
        return False
    return _has_all_steps(manifest, config) or (config.stop_on_collapse and _is_collapsed(manifest))


def describe_end(manifest: CheckpointManifest, config: TrainConfig) -> str:
    """Returns a clause about a finished run, with what to do to continue it, to be placed after its subject."""
    if _has_all_steps(manifest, config):
        return f"is finished at step {manifest.step}; specify more --steps to continue it"
    of_steps = "" if config.steps is None else f" of {config.steps}"
    return (
        f"stopped at step {manifest.step}{of_steps} because its generator collapsed; pass "
        "--nostop_on_collapse to continue it"
    )


def describe_changes(requested: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """Returns the settings that differ from those of a stored run, such as `seed=0, not seed=7`; empty if none do.

    Args:
        requested: Settings of the run that would continue, by name.
        stored: Settings of the stored run, with all of these names.
    """
    changed = [(name, value) for name, value in requested.items() if stored[name] != value]
    return "; ".join(f"{name}={stored[name]}, not {name}={value}" for name, value in changed)


def _has_all_steps(manifest: CheckpointManifest, config: TrainConfig) -> bool:
    """Returns whether a run has taken all steps; False if the number of steps is not known yet."""
    return config.steps is not None and manifest.step >= config.steps


def _is_collapsed(manifest: CheckpointManifest) -> bool:
    return bool(manifest.callbacks.get(COLLAPSE, {}).get(IS_COLLAPSED))

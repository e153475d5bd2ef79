"""Fingerprints of the settings and data of a run since its first step, which its checkpoints must match."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.training.checkpoint.manifest import CheckpointManifest

SEED = "seed"
"""Name of the seed among the fingerprints of a run without a config. Checkpoints without it may have any seed."""
_EARLIER = "earlier_settings"
"""Name of the fingerprint of all settings and data that a run had before the current ones."""


@dataclass(frozen=True)
class Revision:
    """Settings and data of a run.

    Attributes:
        from_step: Step of the first checkpoint that can have them; 0 for the first revision, and otherwise the step
            after the checkpoint from which the run resumed with them.
        fingerprints: SHA-256 of settings and data, by name.
    """

    from_step: int
    fingerprints: Mapping[str, str]


@dataclass(frozen=True)
class RunHistory:
    """The revisions of a run. Steps before the first revision, and runs without revisions, have unknown settings.

    Two runs with equal revisions compute the same state, so a checkpoint belongs to a run if it was written under the
    same revisions.
    """

    revisions: tuple[Revision, ...] = ()

    @classmethod
    def start(cls, fingerprints: Mapping[str, str]) -> "RunHistory":
        """Returns the history of a new run."""
        return cls((Revision(0, dict(fingerprints)),))

    @classmethod
    def from_json(cls, values: Any) -> "RunHistory":
        """Parses what `to_json` returned.

        Raises:
            ValueError: If the values have another form.
        """
        try:
            revisions = tuple(
                Revision(value["from_step"], {k: v for k, v in value.items() if k != "from_step"}) for value in values
            )
            starts = [revision.from_step for revision in revisions]
            is_valid = (
                bool(revisions)
                and all(type(start) is int and start >= 0 for start in starts)
                and starts == sorted(set(starts))
                and all(isinstance(text, str) for revision in revisions for text in revision.fingerprints.values())
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError("the fingerprints are malformed") from error
        if not is_valid:
            raise ValueError("the fingerprints are malformed")
        return cls(revisions)

    def to_json(self) -> list[dict[str, Any]]:
        """Returns the revisions as plain JSON values."""
        return [{"from_step": revision.from_step, **revision.fingerprints} for revision in self.revisions]

    def at(self, step: int) -> dict[str, str]:
        """Returns the fingerprints of a checkpoint of `step`; empty if they are unknown."""
        revisions = [revision for revision in self.revisions if revision.from_step <= step]
        if not revisions:
            return {}
        *earlier, last = RunHistory(tuple(revisions)).to_json()
        from_step = last.pop("from_step")
        if not earlier:
            return last
        return last | {_EARLIER: hashlib.sha256(json.dumps([earlier, from_step]).encode()).hexdigest()}

    @property
    def first_step(self) -> int:
        """Step of the checkpoint from which the run continued with its current settings and data; 0 for a new run."""
        return max(self.revisions[-1].from_step - 1, 0) if self.revisions else 0

    def after(self, step: int) -> Mapping[str, str]:
        """Returns the fingerprints of the settings and data that continue from `step`; empty if they are unknown."""
        return next((item.fingerprints for item in reversed(self.revisions) if item.from_step <= step + 1), {})

    def resumed(self, step: int, fingerprints: Mapping[str, str]) -> "RunHistory":
        """Returns the history of a run that continues from `step` with these settings and data."""
        revisions = [revision for revision in self.revisions if revision.from_step <= step + 1]
        if self.after(step) != fingerprints:
            revisions = [revision for revision in revisions if revision.from_step <= step]
            if RunHistory(tuple(revisions)).after(step) != fingerprints:
                revisions.append(Revision(step + 1, dict(fingerprints)))
        return RunHistory(tuple(revisions))

    def changed_settings(self, manifest: CheckpointManifest, settings: Mapping[str, str | float]) -> set[str]:
        """Returns the names of settings that have changed since a checkpoint.

        Manifests of earlier versions have no settings. Then all count as changed if the fingerprints have changed.

        Args:
            manifest: Manifest of the checkpoint.
            settings: Current settings, as they were before training changed them.
        """
        current = self.after(manifest.step)
        if not manifest.settings and any(
            current.get(name, value) != value for name, value in manifest.fingerprints.items()
        ):
            return set(settings)
        return {name for name, value in settings.items() if manifest.settings.get(name, value) != value}

    def problem(self, manifest: CheckpointManifest) -> str:
        """Returns the reason why a checkpoint does not belong to the run; an empty string if it belongs to it."""
        expected, stored = self.at(manifest.step), manifest.fingerprints
        if not expected:
            return ""
        names = {*expected, *({_EARLIER} & set(stored))} - ({SEED} - set(stored))
        if manifest.format_version == 1:  # these manifests have no fingerprints after a change of settings
            names &= set(stored)
        differing = sorted(name for name in names if stored.get(name) != expected.get(name))
        return f"was written with another {' and '.join(differing)}" if differing else ""

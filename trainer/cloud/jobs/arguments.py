"""Checks the args of a job against the trainer's flags before any machine starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from absl import flags as absl_flags

from trainer.cloud.jobs.worker_pools import TRAINER, Container, PythonPackage
from trainer.config import TrainConfig, compatibility, flags as config_flags, recipes
from trainer.config.choices import Size
from trainer.errors import ConfigError, quote
from trainer.logging import quiet_import

ARGS_HELP = (
    "Comma-separated args that replace those of every pool, as in gcloud; if an arg contains a comma: ^:^ONE:TWO."
)
"""Help text of the flag --args, which `split_list` reads."""
_STARTS = (
    *((TRAINER,), ("-m", "trainer", "train"), ("gan-trainer", "train")),
    *((f"-m{TRAINER}",), ("-mtrainer", "train")),
)
"""Words of a command line that start the trainer."""


@dataclass(frozen=True, kw_only=True)
class ParsedArgs:
    """Args of the trainer, parsed."""

    flags: Mapping[str, Any]
    """Settings that the args contain."""
    config: TrainConfig
    """Config of the recipe and the flags. A custom recipe is not loaded: its settings have their default values. A
    recipe that takes a context has chosen its settings for typical images and a CPU, not for those of the job."""
    waits_for_lease: bool
    """True if the args contain `--wait_for_lease`."""
    knows_batch: bool
    """True if `config` has the batch of the job: the recipe is loaded and takes no context, or a flag sets it."""

    @property
    def has_custom_recipe(self) -> bool:
        """True if the recipe is `MODULE:FUNCTION`, whose module may exist only in the job's image."""
        return ":" in self.config.recipe


def check_args(args: Sequence[str], path: str, *, is_trial: bool = False) -> ParsedArgs:
    """Parses args and applies all checks of the trainer that need no data.

    A custom recipe may register losses, architectures and models, so with one every name is accepted.

    Args:
        args: Arguments of `python -m trainer.task`.
        path: Path to the args in the file, for error messages.
        is_trial: Whether the args are those of a trial, in which settings may have no effect.

    Raises:
        ConfigError: If a flag, a recipe or a registered name is unknown, a value does not fit its flag, or settings do
            not fit each other.
    """
    parsed = parse_args(args, path)
    if parsed.has_custom_recipe:
        return parsed
    with quiet_import():
        from trainer.cloud.jobs import config_checks
    try:
        config_checks.check_config(parsed.config)
        if not is_trial:
            _check_effects(parsed)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return parsed


def _check_effects(parsed: ParsedArgs) -> None:
    """Checks that the flags of a registered recipe have an effect, or the values of the recipe."""
    recipe = parsed.config.recipe
    accepted = TrainConfig(), None if recipes.takes_context(recipe) else recipes.get(recipe)
    with quiet_import():
        from trainer.models.factory import traits
    clauses = compatibility.describe_settings_without_effect(
        parsed.config, parsed.flags, *accepted, translates=traits(parsed.config).translates
    )
    if clauses:
        raise compatibility.no_effect_error(clauses[0])


def parse_args(args: Sequence[str], path: str) -> ParsedArgs:
    """Parses args; see `check_args` for the arguments.

    Raises:
        ConfigError: If a flag or a recipe is unknown, or a value does not fit its flag or the recipe.
    """
    flags, switches = parse_flags(args, path)
    recipe = flags.get("recipe", TrainConfig().recipe)
    try:
        if recipes.is_custom(recipe):
            config, is_fixed = TrainConfig(), False
        else:
            recipes.check_settings(recipe, flags)
            config, is_fixed = recipes.get(recipe, _typical_context(flags)), not recipes.takes_context(recipe)
        config = config.override(**flags | {"recipe": recipe})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    knows_batch = is_fixed or "global_batch_size" in flags
    return ParsedArgs(flags=flags, config=config, waits_for_lease=switches["wait_for_lease"], knows_batch=knows_batch)


def parse_flags(args: Sequence[str], path: str) -> tuple[dict[str, Any], dict[str, bool]]:
    """Parses args without a recipe, because a study may vary it; see `check_args` for the arguments.

    Returns:
        The settings that the args contain, and the values of `--dry_run` and `--wait_for_lease`.

    Raises:
        ConfigError: If a flag is unknown, or a value does not fit its flag.
    """
    values = absl_flags.FlagValues()
    config_flags.define_config(values)
    config_flags.define_command(values)
    try:
        extra = values([TRAINER, *(config_flags.with_underscores(arg) for arg in args)])[1:]
        if extra:
            raise ConfigError(f"{quote(extra[0])} is not a flag; flags are written --name=value.")
        flags = config_flags.parsed_settings(values)
        TrainConfig().override(**flags)
    except absl_flags.Error as error:
        raise ConfigError(f"{path}: {config_flags.explain(error, values)}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return flags, {name: bool(values[name].value) for name in ("dry_run", "wait_for_lease")}


def _typical_context(flags: Mapping[str, Any]) -> recipes.RecipeContext:
    """Returns a context for a recipe that is checked while the data and the devices of the job are not known."""
    return recipes.RecipeContext(
        image_shape=(64, 64, 3), num_images=10_000, size=flags.get("size", Size.AUTO.value), settings=flags
    )


def split_list(text: str) -> list[str]:
    """Splits a list as gcloud's --args does: `a,b`, or `^:^a:b` for members that contain commas."""
    delimiter = ","
    if text.startswith("^") and "^" in text[2:]:
        delimiter, _, text = text[1:].partition("^")
    return [part for part in text.split(delimiter) if part]


def split_lists(texts: Sequence[str] | None) -> list[str] | None:
    """Returns the args in the values of `--args`, or None if there are none: as in gcloud, those of the file stay."""
    return [arg for text in texts or () for arg in split_list(text)] or None


def trainer_args(program: Container | PythonPackage) -> tuple[str, ...] | None:
    """Returns the args that the trainer receives, or None if the program is not the trainer.

    A container without a command runs the entrypoint of its image, which is the trainer in this package's Dockerfile.
    """
    if isinstance(program, PythonPackage):
        return _args_after_trainer(("-m", program.python_module, *program.args))
    args = _args_after_trainer((*program.command, *program.args))
    return program.args if args is None and not program.command else args


def _args_after_trainer(words: Sequence[str]) -> tuple[str, ...] | None:
    """Returns the words after the one that starts the trainer, or None if none does."""
    for index in range(len(words)):
        for start in _STARTS:
            if tuple(words[index : index + len(start)]) == start:
                return tuple(words[index + len(start) :])
    return None

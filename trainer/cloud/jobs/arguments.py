"""Holds the args of a job against the trainer's own flags, before a machine is started to refuse them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from absl import flags as absl_flags

from trainer.cloud.jobs.known import OPTIONS, PARTS, named, traits
from trainer.cloud.jobs.worker_pools import PACKAGE, TRAINER, Container, PythonPackage
from trainer.config import TrainConfig, compatibility, flags as config_flags, recipes
from trainer.errors import ConfigError
from trainer.registry import check_known, did_you_mean

ARGS_HELP = "Args, comma-separated, in place of those of every pool, as gcloud has it; with commas inside: ^:^ONE:TWO."
"""Of the flag --args, which `listed` reads."""


@dataclass(frozen=True, kw_only=True)
class ParsedArgs:
    """What args ask of the trainer."""

    given: Mapping[str, Any]
    """The settings that they give."""
    config: TrainConfig
    """With the values of the recipe; those of one's own are not at hand, and count as the defaults."""
    is_dry_run: bool

    @property
    def has_own_recipe(self) -> bool:
        """Whether the recipe is `MODULE:FUNCTION`, whose module may be in the image alone."""
        return ":" in self.config.recipe


def check_args(args: Sequence[str], where: str) -> ParsedArgs:
    """What args ask of the trainer, which would not refuse them before it looks at its data.

    A recipe of one's own may bring losses, architectures and models of its own, so under one every name may be right.

    Args:
        args: Of `python -m trainer.task`.
        where: What they are, for the sentence.

    Raises:
        ConfigError: A flag, a recipe or what a flag names is unknown, a value does not fit its flag, or settings do not
            fit each other.
    """
    found = asked(args, where)
    if found.has_own_recipe:
        return found
    try:
        _check_names(found.config)
        compatibility.check(found.config, traits(found.config))
        _check_options(found.config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return found


def _check_names(config: TrainConfig) -> None:
    """Refuses a loss, an architecture, a model, a penalty or an augmentation that the trainer does not have."""
    for kind, known in PARTS.items():
        for name in named(config, kind):
            check_known(kind, name, known)


def _check_options(config: TrainConfig) -> None:
    """Refuses an option that the architecture or the model does not take, as that of another recipe's."""
    for kind, options in OPTIONS.items():
        name = getattr(config, kind)
        for option in getattr(config, f"{kind}_options"):
            check_known(f"option of {kind} {name}", option, options[name])


def asked(args: Sequence[str], where: str) -> ParsedArgs:
    """What args ask of the trainer: flags it has, and values that fit them.

    Raises:
        ConfigError: A flag or a recipe is unknown, or a value does not fit its flag.
    """
    values = absl_flags.FlagValues()
    config_flags.define_config(values)
    absl_flags.DEFINE_bool("dry_run", False, "", flag_values=values)
    try:
        extra = values([TRAINER, *(config_flags.with_underscores(arg) for arg in args)])[1:]
        if extra:
            raise ConfigError(f"{extra[0]!r} is not a flag; flags are written --name=value.")
        given = config_flags.given(values)
        recipe = given.get("recipe", "digits")
        config = TrainConfig() if ":" in recipe else recipes.get(recipe)
        config = config.override(**given | {"recipe": recipe})
    except absl_flags.Error as error:
        raise ConfigError(f"{where}: {_sentence(error, values)}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return ParsedArgs(given=given, config=config, is_dry_run=bool(values["dry_run"].value))


def listed(text: str) -> list[str]:
    """The members of a list as gcloud reads its --args: `a,b`, or `^:^a:b` where a member has commas."""
    delimiter = ","
    if text.startswith("^") and "^" in text[2:]:
        delimiter, _, text = text[1:].partition("^")
    return [part for part in text.split(delimiter) if part]


def trainer_args(program: Container | PythonPackage) -> tuple[str, ...] | None:
    """The args that the trainer gets; None where the program is another one.

    A container without a command runs its image's entrypoint: that of this package's Dockerfile is the trainer. Other
    packages may have a module of the trainer's name.
    """
    if isinstance(program, PythonPackage):
        is_ours = any(uri.rpartition("/")[2].startswith(PACKAGE) for uri in program.package_uris)
        return program.args if program.python_module == TRAINER and (is_ours or not program.package_uris) else None
    words = (*program.command, *program.args)
    if TRAINER in words:
        return words[words.index(TRAINER) + 1 :]
    return None if program.command else program.args


def _sentence(error: absl_flags.Error, values: absl_flags.FlagValues) -> str:
    """What absl has against a command line, with what to do."""
    if isinstance(error, absl_flags.UnrecognizedFlagError):
        near = did_you_mean(error.flagname, list(values))
        return f"--{error.flagname} is not a flag of the trainer; {near or 'python -m trainer.task --help lists them.'}"
    found = re.match(r"flag --(\w+)=(.*?): ", str(error), re.DOTALL)
    if found is None:
        return f"{str(error).rstrip('.')}; write --name=value."
    name, value = found.groups()
    wanted = values[name].parser.syntactic_help or "true or false"
    return f"--{name}={value} does not fit; --{name} takes {wanted}."

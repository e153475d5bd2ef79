"""Registries of named members, which the `@register_*` decorators fill, and errors for unknown names."""

import difflib
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from trainer.errors import ConfigError, quote

Member = TypeVar("Member")
_MAX_COMPARED_CHARACTERS = 200


class Registry(Generic[Member]):
    """Members of one kind by name. The error for an unknown name suggests the nearest one.

    Args:
        kind: Kind of the members, such as `loss`, for error messages.
    """

    def __init__(self, kind: str):
        self._kind = kind
        self._members: dict[str, Member] = {}
        self._names_of_package: set[str] = set()

    def add(self, name: str, member: Member, source: Any = None) -> Member:
        """Registers a member and returns it. A member of a user's own may be replaced, as a notebook does.

        Args:
            name: Name of the member.
            member: Member to register.
            source: Class or function that the member describes. None: the member itself.

        Raises:
            ConfigError: If the name is that of a member of this package, and the new one is not of this package.
        """
        if is_from_package(member if source is None else source):
            self._names_of_package.add(name)
        elif name in self._names_of_package:
            raise ConfigError(
                f"{quote(name)} is the {self._kind} of that name of this package, which cannot be replaced; register "
                "yours under another name."
            )
        self._members[name] = member
        return member

    def names(self) -> list[str]:
        """Returns the names of the registered members, sorted."""
        return sorted(self._members)

    def check_name(self, name: str) -> None:
        """Checks that a name is registered.

        Raises:
            ConfigError: If the name is unknown.
        """
        check_known(self._kind, name, self.names())

    def __getitem__(self, name: str) -> Member:
        """Returns the member with a name.

        Raises:
            ConfigError: If the name is unknown.
        """
        self.check_name(name)
        return self._members[name]


def is_from_package(member: Any) -> bool:
    """Returns whether a class or a function is one of this package, not of its user."""
    return str(member.__module__).partition(".")[0] == __name__.partition(".")[0]


def check_known(kind: str, name: str, known: Iterable[str]) -> None:
    """Checks that a name is one of the known names.

    Args:
        kind: Kind of the names, such as `loss`, for the error message.
        name: Name to check.
        known: Known names.

    Raises:
        ConfigError: If the name is unknown. The message suggests the nearest known name.
    """
    known = list(known)
    if name not in known:
        advice = f"choose one of {', '.join(known)}." if known else "there are no names to choose from."
        raise ConfigError(f"{quote(name)} is an unknown {kind}; {did_you_mean(str(name), known, advice)}")


def did_you_mean(name: str, known: Iterable[str], advice: str = "") -> str:
    """Returns the end of an error message about an unknown name, to be placed after a semicolon.

    Args:
        name: Unknown name.
        known: Known names.
        advice: What the user can do, starting with a lowercase letter.

    Returns:
        A question that suggests the nearest known name, if one is similar, followed by the advice.
    """
    nearest = nearest_name(name, known)
    return f"did you mean {nearest}? {advice[:1].upper()}{advice[1:]}".rstrip() if nearest else advice


def nearest_name(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Returns the known name that is most similar to a name, or None if no name is similar.

    Args:
        name: Unknown name. A very long one is not compared, which would take minutes.
        known: Known names.
        cutoff: Smallest similarity, in [0, 1].
    """
    nearest = difflib.get_close_matches(name[: _MAX_COMPARED_CHARACTERS + 1], list(known), n=1, cutoff=cutoff)
    return nearest[0] if nearest and len(name) <= _MAX_COMPARED_CHARACTERS else None

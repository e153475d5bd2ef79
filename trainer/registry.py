"""Registries of members by name, which the `@register_*` decorators fill."""

import difflib
from collections.abc import Iterable
from typing import Generic, TypeVar

from trainer.errors import ConfigError

Member = TypeVar("Member")


class Registry(Generic[Member]):
    """The members of one kind; an unknown name is answered with the nearest.

    Args:
        kind: What a member is, such as `loss`, for that answer.
    """

    def __init__(self, kind: str):
        self._kind = kind
        self._members: dict[str, Member] = {}

    def add(self, name: str, member: Member) -> Member:
        """Registers a member, and returns it."""
        self._members[name] = member
        return member

    def names(self) -> list[str]:
        """The registered members, sorted."""
        return sorted(self._members)

    def check_name(self, name: str) -> None:
        """Raises ConfigError, naming the nearest member, where `name` is not registered."""
        check_known(self._kind, name, self.names())

    def __getitem__(self, name: str) -> Member:
        """A member by its name.

        Raises:
            ConfigError: The name is unknown.
        """
        self.check_name(name)
        return self._members[name]


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raises ConfigError, naming the nearest one, where `name` is not among the names of `what` that are known."""
    known = list(known)
    if name in known:
        return
    listed = f"known are {', '.join(known) or 'none'}."
    raise ConfigError(f"{name!r} is an unknown {what}; {did_you_mean(name, known, listed)}")


def did_you_mean(name: str, known: Iterable[str], advice: str = "") -> str:
    """The end of a sentence about a name that is not known, for after a semicolon.

    Args:
        name: As it was given.
        known: What it may be.
        advice: What to do, begun with a small letter.

    Returns:
        A question that names the nearest known name, where one is near, and the advice.
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}? {advice[:1].upper()}{advice[1:]}".rstrip() if near else advice

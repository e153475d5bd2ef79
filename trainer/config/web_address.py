"""Addresses on the internet in settings."""

import re
import urllib.parse

from trainer.errors import UNSAFE, ConfigError, quote

_SCHEME = re.compile(r"https?:", re.IGNORECASE)
_MAY_BE_SECRET = re.compile(r"[@?#]")


def is_web_address(value: str) -> bool:
    """Returns whether a value is an `http:` or `https:` address, and not a path."""
    return _SCHEME.match(value) is not None


def check_web_address(name: str, value: str) -> None:
    """Checks the value of a setting if it is a web address. A path passes.

    Settings are stored in `config.json` and in job files, so an address must not contain a password or a signature.

    Args:
        name: Name of the setting, for errors.
        value: Address or path.

    Raises:
        ConfigError: If an address is malformed, or has a user name, a password, a query, or a fragment.
    """
    if not (scheme := _SCHEME.match(value)):
        return
    try:
        parts = urllib.parse.urlsplit(value)
        has_secret = "@" in parts.netloc or "?" in value or "#" in value
        is_valid = bool(parts.hostname) and parts.port != 0 and value.isascii()
    except ValueError:  # a port that is not a number, or a malformed IPv6 address
        has_secret = is_valid = False
    shown = quote(f"{scheme[0]}//…" if _MAY_BE_SECRET.search(value) else value)
    if has_secret:
        raise ConfigError(
            f"{name}={shown} has a user name, a password, or a query (?…), which would be stored with the run; fetch "
            "the file with curl, and give its path or gs://BUCKET/NAME."
        )
    if not is_valid or " " in value or UNSAFE.search(value):
        raise ConfigError(
            f"{name}={shown} is not a valid address; write https://HOST/PATH, with other characters than ASCII as %XX."
        )

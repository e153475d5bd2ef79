"""Assembles a page from its content and the files in `static/`."""

import base64
import hashlib
import html
import json
import string
from collections.abc import Mapping
from importlib import resources
from typing import Any


def render(title: str, content: Mapping[str, Any]) -> bytes:
    """Returns a self-contained HTML page.

    The page may run only the scripts of this package, and send no requests: its content security policy names their
    hashes. The content is data that the script inserts as text.

    Args:
        title: Title of the page.
        content: JSON values that `static/page.js` shows.
    """
    style = _read("uplot.css") + _read("page.css")
    script = f"{_read('uplot.js')}\n{_read('page.js')}"
    policy = (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )
    return (
        string.Template(_read("page.html"))
        .substitute(
            title=html.escape(title),
            policy=html.escape(policy),
            license=html.escape(_read("uplot.LICENSE").replace("--", "- -"), quote=False),
            style=style,
            script=script,
            content=_escaped_json({"title": title, **content}),
        )
        .encode("utf-8", "replace")
    )


def _read(name: str) -> str:
    return resources.files(__package__).joinpath("static").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _escaped_json(value: Mapping[str, Any]) -> str:
    """Returns JSON that cannot end the element of the page that contains it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")

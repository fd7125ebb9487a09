"""One HTML file with its style, script and data in it, which loads nothing over a network.

Its Content-Security-Policy names the hashes of its own script and style. Data are JSON in an
element of their own, which the script writes into the page as text, never as markup.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from audiotrain.utils.files import finite_or_none

ASSETS = Path(__file__).parent / "assets"


def document(
    template: Path, styles: Sequence[Path], scripts: Sequence[Path], title: str, data: Any,
    media: str = "blob:",
    body: str = "",
    kind: str = "song",
) -> str:  # fmt: skip
    """The page of a template with `{{head}} {{title}} {{data}} {{script}}` in it.

    `data` is what JSON can hold; NaN and infinities become null. `media` says where the policy
    allows sound from; `body` is markup for `{{body}}`, escaped by the caller. The page's generator
    is "audiotrain" and its `kind`.
    """
    style = "".join(path.read_text(encoding="utf-8") for path in styles)
    parts = [path.read_text(encoding="utf-8") for path in scripts]
    script = '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n" if parts else ""
    content = {
        "policy": f"default-src 'none'; script-src '{digest(script)}'; "
        f"style-src '{digest(style)}'; img-src data:; media-src {media}; base-uri 'none'; "
        "form-action 'none'",
        "title": escape(title),
        "style": style,
        "data": as_island(data),
        "body": body,
        "kind": kind,
        "script": script,
    }
    head = (ASSETS / "head.html").read_text(encoding="utf-8").rstrip()
    text = template.read_text(encoding="utf-8").replace("{{head}}", head)
    return re.sub(r"\{\{(\w+)\}\}", lambda match: content[match[1]], text)


def digest(text: str) -> str:
    """A Content-Security-Policy's name of an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def as_island(data: Any) -> str:
    """JSON that may stand inside a script element whatever texts are in it.

    >>> as_island({"title": "</script>"})
    '{"title":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(finite_or_none(data), separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

"""What mkdocstrings runs on each docstring: it makes Markdown's lists of terms of ours.

A term, or several, stands on a line of its own, and the text below it is indented.
"""

import re
from typing import Any

import griffe

TERM = re.compile(r"^(?P<terms>[A-Za-z_][\w, ]*)\n(?P<text>(?: {4}.*\n|\n(?= {4}))+)", re.MULTILINE)


class Terms(griffe.Extension):
    """Turn `name`, and an indented text below it, into an item of a list of terms."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = TERM.sub(_item, obj.docstring.value + "\n")


def _item(found: re.Match[str]) -> str:
    terms = ", ".join(f"`{term.strip()}`" for term in found["terms"].split(","))
    return f"\n{terms}\n:   {found['text'].lstrip()}\n"

"""Where the pictures that pages have in Mermaid are drawn, and whether they still fit."""

import hashlib
import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
# A comment with a name and a description, and a block of Mermaid below it.
PICTURE = re.compile(r"<!-- picture: (\S+): ([^>]+) -->\n```mermaid\n(.*?)```\n", re.DOTALL)
SCHEMES = ("light", "dark")


def path_of(name: str, scheme: str) -> str:
    """Return the path of a drawn picture in `docs`."""
    return f"pictures/{name}-{scheme}.svg"


def mark(source: str) -> str:
    """Return what the drawn picture ends with, by which one knows what it was drawn from."""
    return f"<!-- {hashlib.sha256(source.encode()).hexdigest()} -->\n"


def is_drawn(name: str, source: str) -> bool:
    """Return whether a picture of this source is there in both schemes."""
    paths = [DOCS / path_of(name, scheme) for scheme in SCHEMES]
    return all(path.exists() and path.read_text().endswith(mark(source)) for path in paths)

"""The pictures that pages have in Mermaid, as they are drawn for the site."""

from xml.etree import ElementTree

import pytest
from site_tools.drawn import DOCS, PICTURE, SCHEMES, is_drawn, path_of

from tests.docs.pages import pages

PICTURES = [found for page in pages() for found in PICTURE.findall(page.text)]


@pytest.mark.parametrize(("name", "source"), [(name, source) for name, _, source in PICTURES])
def test_a_picture_is_drawn_from_what_the_page_has(name: str, source: str) -> None:
    """`site_tools/pictures.py` has drawn it since the page has changed it last, and the result is XML."""
    assert is_drawn(name, source)
    for scheme in SCHEMES:
        assert ElementTree.parse(DOCS / path_of(name, scheme)).getroot().tag.endswith("svg")


def test_every_block_of_mermaid_is_a_picture() -> None:
    """A block without a name would load Mermaid from elsewhere."""
    blocks = [block for page in pages() for block in page.blocks if block.language == "mermaid"]
    assert len(blocks) == len(PICTURES) > 0

"""What `mkdocs build --strict` complains about, without MkDocs: links that lead nowhere, pages without a place."""

import re

import pytest

from tests.docs.pages import Page, pages
from tests.processes import ROOT

PAGES = pages()
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Page) -> set[str]:
    """Return the anchors of a page's headings, as MkDocs and GitHub make them."""
    prose = re.sub(r"^ *```.*?^ *```$", "", page.text, flags=re.MULTILINE | re.DOTALL)
    texts = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", text).strip().lower() for text in texts]
    return {re.sub(r"[-\s]+", "-", text) for text in words}


def links(page: Page) -> list[str]:
    prose = re.sub(r"^ *```.*?^ *```$", "", page.text, flags=re.MULTILINE | re.DOTALL)
    return [link for link in LINK.findall(re.sub(r"`[^`\n]*`", "", prose)) if not re.match("[a-z]+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_links_lead_somewhere(page: Page) -> None:
    """The file is there, and a heading with the anchor's name, too."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = ((ROOT / page.path).parent / path).resolve() if path else ROOT / page.path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(Page(str(target.relative_to(ROOT)))), link


def test_every_page_is_in_the_navigation() -> None:
    """The list in mkdocs.yml has each page of `docs`, and no other."""
    text = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE)
    from_outside = {"index.md", "changelog.md", "contributing.md", "security.md"}
    assert len(listed) == len(set(listed))
    assert set(listed) - from_outside == {
        page.path.removeprefix("docs/") for page in PAGES if page.path.startswith("docs/")
    }

"""Rules for all pages: a test runs each block of code, and the numbers of things are right."""

import inspect
import re
from pathlib import Path

import pytest

from bridge import ASGIToWSGI, WSGIToASGI
from tests.docs.pages import BLOCK, NOT_RUN, Page, pages
from tests.processes import ROOT

PAGES = pages()
# Its commands are those by which the suite has written it.
WRITTEN_BY_ITS_COMMANDS = "docs/server-conformance.md"
TESTS = {path: path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_every_block_is_named_and_run(page: Page) -> None:
    """Some test module names the page and each of its blocks, so that no block is left out."""
    texts = [text for path, text in TESTS.items() if _names(path, text, page.path)]
    for block in page.blocks:
        if block.language not in NOT_RUN and page.path != WRITTEN_BY_ITS_COMMANDS:
            assert block.name, f"{page.path}: a block has no <!-- name --> above it:\n{block.text}"
            assert any(f'"{block.name}"' in text for text in texts), f"{page.path}: no test runs {block.name!r}"


def _names(test: Path, text: str, page: str) -> bool:
    """Return whether a test module names a page, or is about the example whose page it is."""
    parts = page.split("/")
    joined = " / ".join(f'"{part}"' for part in parts)
    return f'"{page}"' in text or joined in text or (parts[0] == "examples" and test.stem == f"test_{parts[1]}")


def test_names_of_blocks_are_unique() -> None:
    """Two blocks of a page must not have the same name."""
    for page in PAGES:
        names = [block.name for block in page.blocks if block.name]
        assert len(names) == len(set(names)), page.path


def test_every_fence_is_closed() -> None:
    """The pattern for blocks finds all that there are."""
    for page in PAGES:
        fences = re.findall(r"^ *```", page.text, re.MULTILINE)
        assert len(fences) == 2 * len(page.blocks), page.path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_no_line_becomes_an_item_by_its_number(page: Page) -> None:
    """A sentence whose line begins with "202. " would become an item of a list."""
    numbers = [int(number) for number in re.findall(r"^ *([0-9]+)\. ", BLOCK.sub("", page.text), re.MULTILINE)]
    for before, number in zip([0, *numbers], numbers, strict=False):
        assert number in (1, before + 1), f"{page.path}: a line begins with {number}."


def test_frameworks_and_servers_are_counted_as_the_table_has_them() -> None:
    """A framework counts once, whatever it is mounted in, and a server once, however it is configured."""
    table = Page("docs/compatibility.md").text
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    frameworks = {name.removesuffix(" (ASGI)") for row in rows if row[0] in ("Flask", "FastAPI") for name in row}
    configurations = [row[0] for row in rows if re.match("[✓✗]", row[1])]
    servers = {name.partition("-")[0] for name in configurations}
    mounted = {name for name in frameworks if " mounted in " in name}
    text = " ".join(Page("README.md").text.split())
    assert (
        f"{len(frameworks - mounted)} frameworks on {len(servers)} servers in {len(configurations)} configurations"
        in text
    )


def test_readme_is_short() -> None:
    """It says what decides, and leaves the rest to the other pages."""
    assert len(Page("README.md").text.splitlines()) <= 150


def test_every_option_is_described() -> None:
    """Each option of each adapter has a heading on the page of options, below its adapter's."""
    sections = re.split(r"^## ", Page("docs/options.md").text, flags=re.MULTILINE)
    for adapter in (WSGIToASGI, ASGIToWSGI):
        (section,) = [section for section in sections if section.startswith(f"`{adapter.__name__}`")]
        headings = " ".join(line for line in section.splitlines() if line.startswith("### "))
        for name in inspect.signature(adapter).parameters:
            assert name == "app" or f"`{name}`" in headings, name

"""What MkDocs runs while it builds the documentation: `mkdocs build --strict`.

README, CHANGELOG, CONTRIBUTING and SECURITY become pages of the site, links out of `docs/` lead to the repository, and
pictures drawn by Mermaid are replaced by the SVGs in `docs/pictures`, so that the site needs nothing from elsewhere.
"""

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

sys.path.insert(0, str(Path(__file__).parent.parent))

from site_tools.drawn import PICTURE, SCHEMES, is_drawn, path_of
from site_tools.tables import with_marked_cells

ROOT = Path(__file__).parent.parent
# Files of the repository that are pages of the site, too.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"(?<=\]\()([^)\s#]*)(#[^)\s]*)?(?=\))")
BLOCK = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"^ *<!-- [^>]* -->\n(?= *```)", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose text stands outside `docs/`."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite a page as the site needs it."""
    uri = page.file.src_uri
    sources = {target: source for source, target in PAGES.items()}
    source = sources.get(uri, f"docs/{uri}")
    markdown = PICTURE.sub(lambda found: _picture(found[1], found[2], found[3], uri), markdown)
    markdown = NAME.sub("", markdown)
    repository = str(config.repo_url).rstrip("/")
    parts = BLOCK.split(markdown)  # every second one is a block of code
    parts[::2] = [_escaped(part) for part in parts[::2]]
    markdown = "".join(parts)
    return LINK.sub(lambda found: _link(found[1], source, uri, repository) + (found[2] or ""), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark the cells of a page's tables."""
    return with_marked_cells(html, get_relative_url("clauses/", page.url))


def _picture(name: str, description: str, source: str, uri: str) -> str:
    """Return the drawn picture, for light and for dark pages."""
    if not is_drawn(name, source):
        raise PluginError(f"docs/{uri}: the picture {name} has changed: draw it by site_tools/pictures.py")
    pictures = [f"![{description}]({path_of(name, scheme)}#only-{scheme}){{ .picture }}" for scheme in SCHEMES]
    return "\n".join(pictures) + "\n"


def _escaped(prose: str) -> str:
    """Return Markdown without blocks of code in which brackets that belong to no link are only brackets."""
    code = re.findall(r"`[^`]*`", prose)
    text = re.sub(r"`[^`]*`", "\0", prose)
    text = re.sub(r"\[(?![^\]]*\]\()", r"\\[", text)
    return re.sub("\0", lambda _: code.pop(0), text)


def _link(target: str, source: str, uri: str, repository: str) -> str:
    """Return where a link of a page leads on the site: to another page, or to a file in the repository."""
    for prefix in (f"{repository}/blob/main/", f"{repository}/raw/main/"):
        if target.startswith(prefix):
            path = target.removeprefix(prefix)
            break
    else:
        if not target or re.match(r"[a-z]+:|/", target):
            return target
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path in PAGES:
        path = f"docs/{PAGES[path]}"
    elif not (ROOT / path).exists():
        return target  # MkDocs says so
    if path.startswith("docs/") and not (ROOT / path).is_dir():
        return posixpath.relpath(path.removeprefix("docs/"), posixpath.dirname(uri) or ".")
    return f"{repository}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}"

"""What the site adds to tables: classes for `docs/site.css`, and links from clauses to their texts."""

import html
import re

CELL = re.compile(r"<td( [^>]*)?>(.*?)</td>", re.DOTALL)
CLAUSE = re.compile(r"[A-Z0-9]+(-[A-Z0-9]+)*-\d{3}")
# A cell with more characters than this needs room, so that it does not become a column of single words.
LONG = 30


def with_marked_cells(page: str, clauses: str) -> str:
    """Return a page's HTML in which long cells have the class `prose`, and clauses lead to the page at `clauses`."""

    def marked(found: re.Match[str]) -> str:
        attributes, content = found[1] or "", found[2]
        if CLAUSE.fullmatch(content):
            return f'<td{attributes} class="clause"><a href="{clauses}#{content.lower()}">{content}</a></td>'
        if len(html.unescape(re.sub(r"<[^>]*>", "", content))) > LONG:
            return f'<td{attributes} class="prose">{content}</td>'
        return found[0]

    return CELL.sub(marked, page)

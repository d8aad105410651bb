"""Draw the pictures that pages have in Mermaid, for readers without a network and for both colour schemes.

    npm pack mermaid && tar xf mermaid-*.tgz
    python site_tools/pictures.py package/dist/mermaid.min.js

needs Chromium. GitHub draws the same blocks itself.
"""

import html
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from site_tools.drawn import DOCS, PICTURE, mark, path_of

THEMES = {"light": "neutral", "dark": "dark"}
PAGE = """<!DOCTYPE html><meta charset="utf-8"><script src="{script}"></script>
<pre class="mermaid" style="width: 900px">{source}</pre>
<script>mermaid.initialize({{startOnLoad: true, theme: "{theme}", fontFamily: "sans-serif", htmlLabels: false,
flowchart: {{htmlLabels: false, useMaxWidth: true}}, sequence: {{useMaxWidth: true, mirrorActors: false}},
deterministicIds: true, deterministicIDSeed: "picture"}})</script>
"""


def draw(source: str, theme: str, script: Path) -> str:
    """Return a picture as SVG."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(
            PAGE.format(script=script.absolute().as_uri(), source=html.escape(source), theme=theme, width=900)
        )
        command = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=10000",
            "--dump-dom",
        ]
        done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r"<svg.*?</svg>", done.stdout, re.DOTALL)
    if found is None or "Syntax error" in found[0]:
        raise ValueError(f"expected a picture, got {done.stdout[-2000:]}")
    # What HTML leaves out, XML needs.
    svg = found[0].replace("<br>", "<br/>")
    width = re.search(r"max-width: ([\d.]+)px", svg)
    assert width
    svg = svg.replace('width="100%"', f'width="{width[1]}"', 1)  # a small picture stays small on a wide page
    return (
        svg if "xmlns=" in svg.partition(">")[0] else svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    )


def main() -> None:
    for page in sorted(DOCS.rglob("*.md")):
        for name, _, source in PICTURE.findall(page.read_text()):
            for scheme, theme in THEMES.items():
                path = DOCS / path_of(name, scheme)
                path.parent.mkdir(exist_ok=True)
                path.write_text(draw(source, theme, Path(sys.argv[1])) + mark(source))
                print(path)


if __name__ == "__main__":
    main()

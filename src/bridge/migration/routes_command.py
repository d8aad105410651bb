"""The command `bridge routes`."""

import argparse
import json
from typing import Any

from bridge.migration.loading import CannotRun, load_app
from bridge.migration.output import aligned, coloured, markdown_table
from bridge.migration.routers import maybe_router
from bridge.migration.routes import Row, compare_routes

_EXAMPLES = """\
examples:
  bridge routes shop.api:app shop.legacy:app
  bridge routes shop.api:app 'shop.legacy:create_app()' --markdown >> moved.md

exit code: 0, or 2 if it could not run
"""


def add_routes(commands: Any) -> None:
    """Add the command to argparse's sub-commands."""
    parser = commands.add_parser(
        "routes",
        help="tell which of the old app's routes the new app answers",
        description="Tell for each rule and method of the old app which app answers it if both are\nin a fallback.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("new", metavar="NEW", help="the new app: module:app, or module:factory()")
    parser.add_argument("old", metavar="OLD", help="the old app, in the same form")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.set_defaults(run=run_routes)


def run_routes(arguments: argparse.Namespace) -> int:
    """Print which app answers each rule; return 0. Raises CannotRun."""
    rows = compare_routes(_load(arguments.new), _load(arguments.old))
    if arguments.json:
        print(json.dumps(_as_json(rows), indent=2))
    elif arguments.markdown:
        print("\n".join([*markdown_table(_cells(rows)), "", *_summary(rows)]))
    else:
        lines = aligned(_cells(rows))
        colours = ["", *(_colour_of(row) for row in rows)]
        print(
            "\n".join(coloured(line, colour) if colour else line for line, colour in zip(lines, colours, strict=True))
        )
        print("\n".join(["", *_summary(rows)]))
    return 0


def _load(name: str) -> Any:
    app = load_app(name)
    if maybe_router(app) is None:
        raise CannotRun(
            f"the routes of {name} cannot be seen: name the Starlette, FastAPI, Flask, Quart or Django app itself, not "
            "middleware around it"
        )
    return app


def _cells(rows: list[Row]) -> list[list[str]]:
    return [["old rule", "method", "answered by", "rule of the new app"], *(_cells_of(row) for row in rows)]


def _cells_of(row: Row) -> list[str]:
    who = {"both": "new or old", "unknown": "?"}.get(row.who, row.who)
    return [row.rule, row.method, who, f"{row.by}  hides the old one" if row.hidden else row.by]


def _colour_of(row: Row) -> str:
    return "yellow" if row.hidden or row.who in ("both", "unknown") else "green" if row.who == "new" else ""


def _summary(rows: list[Row]) -> list[str]:
    counts = {who: sum(row.who == who for row in rows) for who in ("new", "both", "unknown")}
    hidden = sum(row.hidden for row in rows)
    lines = [f"{counts['new']} of {len(rows)} answered by the new app"]
    if counts["both"]:
        lines.append(f"{counts['both']} answered by the new app or the old one, depending on the value of a parameter")
    if hidden:
        lines.append(f"warning: {hidden} hidden by a rule of the new app that has another shape")
    if counts["unknown"]:
        lines.append(f"warning: {counts['unknown']} not tried, because no value was found for a parameter")
    return lines


def _as_json(rows: list[Row]) -> dict[str, Any]:
    counts = {who: sum(row.who == who for row in rows) for who in ("new", "old", "both", "unknown")}
    return {
        "total": len(rows),
        **counts,
        "hidden": sum(row.hidden for row in rows),
        "rules": [row._asdict() for row in rows],
    }

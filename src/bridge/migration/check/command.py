"""The command `bridge check`."""

import argparse
import contextlib
import json
import sys
from typing import Any

from bridge.migration.check.about import about
from bridge.migration.check.report import CheckReport
from bridge.migration.check.run import check_app
from bridge.migration.diff.command import ignored, positive, redactor_for
from bridge.migration.diff.compare import Options
from bridge.migration.diff.report import lines_of
from bridge.migration.diff.requests import read_requests
from bridge.migration.loading import load_app
from bridge.migration.output import ProgressLine

_EXAMPLES = """\
APP is module:app or module:factory(). The requests are played to it without an
adapter, in two processes one after the other, and then through the adapter in
this process, one at a time and eight at once. Play different requests, such as
those of two users, to see whether the app mixes them up.

examples:
  bridge check shop.legacy:app
  bridge check shop.legacy:app --path '/orders?user=1' --path '/orders?user=2'
  bridge check 'shop.api:create_app()' --requests access.log --json

exit code: 0 nothing found, 1 findings, 2 could not tell
"""


def add_check(commands: Any) -> None:
    """Add the command to argparse's sub-commands."""
    parser = commands.add_parser(
        "check",
        help="tell how to serve an app on either kind of server, and whether it works there",
        description="Tell what APP is, and how to serve it on either kind of server. Play safe\n"
        "requests to it, without an adapter and through one, and tell what differs.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("app", metavar="APP", help="the app")
    parser.add_argument("--path", action="append", default=[], help="GET this path; may be repeated (default: /)")
    parser.add_argument("--requests", metavar="FILE", help="a HAR, an access log or a list; - is standard input")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="WHAT", help="a header, or a JSON path such as '$.items[*].id'"
    )
    parser.add_argument("--timeout", type=positive, default=10.0, metavar="S", help="seconds for an answer (10)")
    parser.add_argument(
        "--send-credentials", action="store_true", help="send the recording's cookies and Authorization headers"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.set_defaults(run=run_check)


def run_check(arguments: argparse.Namespace) -> int:
    """Check, and print what was found; return the exit code. Raises CannotRun."""
    paths = arguments.path or ([] if arguments.requests else ["/"])
    requests = read_requests(arguments.requests, paths, False, arguments.send_credentials)
    options = Options(frozenset(map(ignored, arguments.ignore)))
    progress = ProgressLine()
    with contextlib.redirect_stdout(sys.stderr):  # what the app prints is not the command's output
        app = load_app(arguments.app)
        described = about(app, arguments.app)
        try:
            result = check_app(
                app, described, requests.played, arguments.timeout, redactor_for(requests), options, progress
            )
        finally:
            progress.clear()
    report = CheckReport(described, result, len(requests.played), requests.left_out)
    if arguments.json:
        print(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
    else:
        print(lines_of(report.as_markdown() if arguments.markdown else report.as_text()), end="")
    return report.exit_code()

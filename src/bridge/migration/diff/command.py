"""The command `bridge diff`."""

import argparse
import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from bridge.migration.diff.accepted import Accepted, accepted_as_text, read_accepted
from bridge.migration.diff.compare import Options, compare
from bridge.migration.diff.exchange import Player, URLPlayer, is_url, remote_host
from bridge.migration.diff.in_process import player_of
from bridge.migration.diff.redact import Redactor
from bridge.migration.diff.report import Report, lines_of
from bridge.migration.diff.requests import SAFE, Requests, read_requests
from bridge.migration.loading import CannotRun, load_app
from bridge.migration.output import ProgressLine

_EXAMPLES = """\
OLD and NEW are each module:app, module:factory(), or a URL. Requests come from
a HAR that a browser has saved, an access log (common or combined), a list of
lines like GET /orders, or standard input (--requests -).

examples:
  bridge diff shop.legacy:app shop.api:app --path / --path /orders
  bridge diff shop.legacy:app shop.api:app --requests access.log --json x.json
  bridge diff http://127.0.0.1:8000 http://127.0.0.1:8001 \\
      --requests site.har --ignore '$.items[*].id'
  bridge diff shop.legacy:app shop.api:app \\
      --requests paths.txt --write-accept expected.json
  bridge diff shop.legacy:app shop.api:app \\
      --requests paths.txt --accept expected.json

exit code: 0 alike, 1 different, 2 could not run or compare
"""


def add_diff(commands: Any) -> None:
    """Add the command to argparse's sub-commands."""
    parser = commands.add_parser(
        "diff",
        help="play the same requests to both apps, and show where the answers differ",
        description="Play requests to OLD, to NEW and to OLD again, and tell what differs. What\n"
        "differs between the two passes of OLD is noise: it is listed, and does not\ncount.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("old", metavar="OLD", help="the old app")
    parser.add_argument("new", metavar="NEW", help="the new app")
    parser.add_argument("--requests", metavar="FILE", help="a HAR, an access log or a list; - is standard input")
    parser.add_argument("--path", action="append", default=[], help="also GET this path; may be repeated")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="WHAT", help="a header, or a JSON path such as '$.items[*].id'"
    )
    parser.add_argument("--strict", action="store_true", help="treat 10 and 10.0 as different")
    parser.add_argument("--rate", type=positive, metavar="N", help="send at most N requests a second")
    parser.add_argument("--timeout", type=positive, default=10.0, metavar="S", help="seconds for an answer (10)")
    parser.add_argument("--unsafe", action="store_true", help="also play POST and other methods that may change data")
    parser.add_argument(
        "--may-change",
        action="append",
        default=[],
        metavar="HOST",
        help="with --unsafe: a remote host that may change",
    )
    parser.add_argument(
        "--send-credentials", action="store_true", help="send the recording's cookies and Authorization headers"
    )
    parser.add_argument("--accept", metavar="FILE", help="a file with the differences that are expected")
    parser.add_argument("--write-accept", metavar="FILE", help="write the differences to a file for --accept")
    parser.add_argument("--json", metavar="FILE", help="write JSON; - is standard output, instead of the text")
    parser.add_argument("--markdown", metavar="FILE", help="write Markdown; - as for --json")
    parser.set_defaults(run=run_diff)


def run_diff(arguments: argparse.Namespace) -> int:
    """Compare the apps, print and write the result, and return the exit code. Raises CannotRun."""
    accepted = read_accepted(arguments.accept) if arguments.accept else Accepted()
    options = Options(frozenset(map(ignored, arguments.ignore)), arguments.strict, arguments.rate)
    requests = read_requests(arguments.requests, arguments.path, arguments.unsafe, arguments.send_credentials)
    _check_hosts(arguments, requests)
    redactor = redactor_for(requests)
    with contextlib.ExitStack() as closing:
        # Only the command writes to stdout, not the apps.
        closing.enter_context(contextlib.redirect_stdout(sys.stderr))
        old, new = _players(arguments, closing)
        report = Report(old.name, new.name, requests.left_out, accepted)
        progress = ProgressLine()
        try:
            for compared in compare(old, new, requests.played, redactor, options, progress):
                report.add(compared)
        finally:
            progress.clear()
    _write(arguments, report)
    return report.exit_code()


def redactor_for(requests: Requests) -> Redactor:
    """Return a redactor that knows the secrets of the requests."""
    redactor = Redactor()
    for name, value in requests.credentials:
        redactor.learn_cookies(value) if name.lower().startswith("cookie") else redactor.learn(value.split(" ")[-1])
    for request in requests.played:
        redactor.learn_target(request.target)
    return redactor


def _players(arguments: argparse.Namespace, closing: contextlib.ExitStack) -> tuple[Player, Player]:
    players = []
    for name in (arguments.old, arguments.new):
        player: Player
        player = URLPlayer(name, arguments.timeout) if is_url(name) else _load(name, arguments.timeout)
        closing.callback(player.close)
        players.append(player)
    return players[0], players[1]


def _load(name: str, timeout: float) -> Player:
    return player_of(load_app(name), name, timeout)


def _check_hosts(arguments: argparse.Namespace, requests: Requests) -> None:
    """Raise CannotRun if an unsafe method would go to another machine that --may-change does not name."""
    hosts = [host for name in (arguments.old, arguments.new) if (host := remote_host(name)) is not None]
    if all(request.method in SAFE for request in requests.played):
        return
    for host in hosts:
        if host not in arguments.may_change:
            raise CannotRun(f"--unsafe may change data on {host}: if that is intended, add --may-change {host}")


def positive(text: str) -> float:
    """Return the value of an option as a number above 0; argparse shows the error."""
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def ignored(text: str) -> str:
    """Return the value of --ignore in the notation of `Options`. Raises CannotRun."""
    if not text.startswith("$"):
        return text.lower()
    path = re.sub(r"\[\*\]", "[]", text)
    if not re.fullmatch(r"\$(\.[\w-]+|\[\]|\['[^']*'\])*", path):
        raise CannotRun(f"--ignore {text}: expected a header, or a JSON path such as $.items[*].id")
    return path


def _write(arguments: argparse.Namespace, report: Report) -> None:
    forms = {
        arguments.json: json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n",
        arguments.markdown: lines_of(report.as_markdown()),
    }
    if arguments.write_accept:
        _write_file(arguments.write_accept, accepted_as_text(report.all_kinds()))
    if "-" not in forms:
        print(lines_of(report.as_text()), end="")
    for name, text in forms.items():
        if name == "-":
            print(text, end="")
        elif name is not None:
            _write_file(name, text)


def _write_file(name: str, text: str) -> None:
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotRun(f"{name} cannot be written: {error.strerror}") from None

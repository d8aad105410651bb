"""The command `wsgi-asgi-conformance`, which judges a server or adapters, and runs pytest for that."""

import argparse
import os
import sys
from collections.abc import Sequence

import pytest

_EXAMPLES = """\
examples:
  wsgi-asgi-conformance asgi-server --command "uvicorn {app} --port {port}"
  wsgi-asgi-conformance wsgi-server --command "gunicorn {app} -b 127.0.0.1:{port}"
  wsgi-asgi-conformance adapter --wsgi-to-asgi a2wsgi:WSGIMiddleware -n 4

In a command, {app} is the app as MODULE:ATTRIBUTE, {module} and {attribute} are its parts, {port} is a free port of
127.0.0.1, {python} is this Python, and {folder} a folder for the server's files. Other options go to pytest:
--clauses, --advised, --deviations, --deadline, --conformance-json, --conformance-markdown, --conformance-badge, --tb.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests of a server or of adapters; return the exit status of pytest."""
    parser = argparse.ArgumentParser(
        prog="wsgi-asgi-conformance", epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="asgi-server | wsgi-server | adapter")
    for kind, what in (("asgi-server", "an ASGI server"), ("wsgi-server", "a WSGI server")):
        of_kind = kinds.add_parser(kind, help=f"judge {what}")
        of_kind.add_argument("--command", required=True, help="command that starts it, with {app} and {port}")
    kinds.add_parser("adapter", help="judge adapters, by --wsgi-to-asgi MODULE:CLASS and --asgi-to-wsgi MODULE:CLASS")
    known, others = parser.parse_known_args(arguments)
    package = __package__ or ""
    # An installed package registers the plugin under the same name, so that it is not registered twice.
    options = ["-p", f"{package}.plugin", "-p", "no:cacheprovider", "--pyargs", "-q"]
    # pytest cannot rewrite assertions in this module, which has none.
    options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning", *others]
    if known.kind == "adapter":
        folders = [f"{package}.wsgi_to_asgi", f"{package}.asgi_to_wsgi"]
    else:
        folders = [f"{package}.{known.kind.replace('-', '_')}s"]
        options += [f"--{known.kind}", known.command]
    sys.path.insert(0, os.getcwd())  # an adapter may be in the current folder
    return int(pytest.main([*options, *folders]))


if __name__ == "__main__":
    sys.exit(main())

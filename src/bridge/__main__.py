"""The command line: `bridge`, or `python -m bridge`."""

import argparse
import io
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from bridge.migration.check.command import add_check
from bridge.migration.diff.command import add_diff
from bridge.migration.loading import CannotRun
from bridge.migration.routes_command import add_routes

# Once a command is done, this is how many seconds the apps that it has loaded may take to end their threads.
_EXIT_TIMEOUT = 3.0
# Each function adds its command to the parser and sets `run`, which returns the exit code.
_COMMANDS = (add_routes, add_check, add_diff)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, by default the one of `sys.argv`; return the exit code, 2 if it could not run."""
    parser = argparse.ArgumentParser(
        prog="bridge",
        description="Move a web app from one framework to another, or from one kind of server to the other.",
        epilog="bridge COMMAND --help tells more, with examples.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for add_command in _COMMANDS:
        add_command(commands)
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except CannotRun as error:
        print(f"bridge {arguments.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # as in `bridge routes ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit would complain
        return 2
    except KeyboardInterrupt:
        return 130
    return code


def run() -> NoReturn:
    """Run the command of `sys.argv`, and exit with its code, even if a thread of an app does not end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # some terminals cannot show arrows
    code = main()
    # The interpreter joins threads that are not daemons, such as those of asyncio.to_thread.
    watchdog = threading.Timer(_EXIT_TIMEOUT, os._exit, [code])
    watchdog.daemon = True
    watchdog.start()
    sys.exit(code)


if __name__ == "__main__":
    run()

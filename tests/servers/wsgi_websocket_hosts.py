"""The WSGI servers on which WebSockets are tested, and how to start each."""

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.processes import Server, serving
from tests.servers.wsgi_servers import WSGIREF

APP = "tests.servers.websocket_apps:wsgi_app"
# How many seconds the servers wait for requests in flight at shutdown.
GRACE = 8
HOOKS = "from bridge.gunicorn import post_worker_init, worker_exit"


class Host(NamedTuple):
    """One way to run a server, and how it differs from the others."""

    name: str
    command: tuple[str, ...]
    optional: str | None = None  # the tests skip the server without this module
    env: dict[str, str] = {}  # noqa: RUF012  # read only
    tls: bool = False
    crowd: int = 200  # how many WebSockets it can serve at once
    goodbye: bool = True  # lets apps end at SIGTERM, so that clients get 1012
    answers_errors: bool = True  # answers 500 for an app that raises; otherwise it hangs up
    core: bool = False


def gunicorn(name: str, *options: str, **traits: Any) -> Host:
    command = ("{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--graceful-timeout", str(GRACE))
    return Host(f"gunicorn-{name}", (*command, *options, APP), **traits)


def script(name: str, code: str, before: str = "", at_exit: str = "", **traits: Any) -> Host:
    """Return a server that some lines of Python start. SIGTERM ends it as Ctrl-C would."""
    exit_on_term = f"import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: ({at_exit} sys.exit()))"
    lines = (before, f"from {APP.replace(':', ' import ')} as app", exit_on_term, code)
    return Host(name, ("{python}", "-c", "\n".join(lines)), **traits)


def uwsgi(name: str, *options: str, **traits: Any) -> Host:
    command = (
        *(str(Path(sys.executable).parent / "uwsgi"), "--home", sys.prefix, "--master", "--need-app"),
        *("--die-on-term", "--worker-reload-mercy", str(GRACE), *options, "--module", APP),
    )
    return Host(f"uwsgi-{name}", command, optional="uwsgidecorators", answers_errors=False, **traits)


# Expected tracebacks: an app's, the adapter's about an app, and gevent's about the check whether the port is open.
MEANT = ("Deliberate", "without answering", "do_handshake")
GTHREAD = ("-k", "gthread", "--threads")
TLS = ("--certfile", "{{folder}}/cert.pem", "--keyfile", "{{folder}}/key.pem")
GEVENT_SERVER = "from gevent.pywsgi import WSGIServer\nWSGIServer(('127.0.0.1', {port}), app{tls}).serve_forever()"
EVENTLET_SERVER = (
    "import eventlet, eventlet.wsgi\nlistener = eventlet.listen(('127.0.0.1', {port}))\n{tls}"
    "eventlet.wsgi.server(listener, app)"
)
EVENTLET_TLS = (
    "listener = eventlet.wrap_ssl("
    "listener, keyfile='{{folder}}/key.pem', certfile='{{folder}}/cert.pem', server_side=True)\n"
)
WAITRESS = "import waitress\nwaitress.serve(app, host='127.0.0.1', port={port}, threads=4)"
# For a server that, before it exits, waits for WebSockets that hold a thread, or cuts them off.
GOODBYE = "app.close_websockets(),"
NO_WARNING = "import warnings\nwarnings.simplefilter('ignore')\n"
HOSTS = [
    gunicorn("sync"),
    gunicorn("gthread", *GTHREAD, "4", core=True),
    gunicorn("gthread-trio", *GTHREAD, "4", env={"BACKEND": "trio"}),
    gunicorn("gthread-held", "-c", "{{folder}}/hooks.py", *GTHREAD, "24", env={"WEBSOCKET": "hold"}, crowd=16),
    gunicorn("gthread-tls", "-c", "{{folder}}/hooks.py", *GTHREAD, "24", *TLS, tls=True, crowd=16),
    gunicorn("gevent", "-c", "{{folder}}/hooks.py", "-k", "gevent", optional="gevent"),
    gunicorn("gevent-tls", "-c", "{{folder}}/hooks.py", "-k", "gevent", *TLS, optional="gevent", tls=True),
    gunicorn("gevent_pywsgi", "-c", "{{folder}}/hooks.py", "-k", "gevent_pywsgi", optional="gevent"),
    uwsgi("threads", "--http-socket", "127.0.0.1:{port}", "--threads", "4"),
    uwsgi("enable-threads", "--http-socket", "127.0.0.1:{port}", "--enable-threads"),
    uwsgi("http-router", "--http", "127.0.0.1:{port}", "--http-websockets", "--threads", "4", goodbye=False),
    uwsgi("gevent", "--http-socket", "127.0.0.1:{port}", "--gevent", "250", goodbye=False),
    script("waitress", WAITRESS),
    script(
        "cheroot",
        "from cheroot.wsgi import Server\nServer(('127.0.0.1', {port}), app, shutdown_timeout=2).safe_start()",
        optional="cheroot",
    ),
    script(
        "cheroot-tls",
        "from cheroot.wsgi import Server\nfrom cheroot.ssl.builtin import BuiltinSSLAdapter\n"
        "server = Server(('127.0.0.1', {port}), app, numthreads=24, shutdown_timeout=2)\n"
        "server.ssl_adapter = BuiltinSSLAdapter('{{folder}}/cert.pem', '{{folder}}/key.pem')\nserver.safe_start()",
        at_exit=GOODBYE,
        optional="cheroot",
        tls=True,
        crowd=16,
    ),
    script("werkzeug", "from werkzeug.serving import run_simple\nrun_simple('127.0.0.1', {port}, app, threaded=True)"),
    script(
        "werkzeug-tls",
        "from werkzeug.serving import run_simple\n"
        "files = ('{{folder}}/cert.pem', '{{folder}}/key.pem')\n"
        "run_simple('127.0.0.1', {port}, app, threaded=True, ssl_context=files)",
        tls=True,
    ),
    script(
        "wsgiref",
        WSGIREF,
    ),
    script(
        "gevent-pywsgi",
        GEVENT_SERVER.replace("{tls}", ""),
        before="from gevent import monkey\nmonkey.patch_all()",
        optional="gevent",
        goodbye=False,  # it kills its greenlets
    ),
    script("gevent-pywsgi-unpatched", GEVENT_SERVER.replace("{tls}", ""), optional="gevent", goodbye=False),
    script(
        "gevent-pywsgi-unpatched-tls",
        GEVENT_SERVER.replace("{tls}", ", keyfile='{{folder}}/key.pem', certfile='{{folder}}/cert.pem'"),
        optional="gevent",
        tls=True,
        goodbye=False,
    ),
    script(
        "eventlet",
        EVENTLET_SERVER.replace("{tls}", ""),
        before=f"{NO_WARNING}import eventlet\neventlet.monkey_patch()",
        at_exit=GOODBYE,
        optional="eventlet",
        goodbye=False,  # SystemExit may land in any greenlet
        crowd=50,  # its select() is slow
    ),
    script(
        "eventlet-unpatched",
        EVENTLET_SERVER.replace("{tls}", ""),
        before=NO_WARNING,
        at_exit=GOODBYE,
        optional="eventlet",
        goodbye=False,
    ),
    script(
        "eventlet-unpatched-tls",
        EVENTLET_SERVER.replace("{tls}", EVENTLET_TLS),
        before=NO_WARNING,
        at_exit=GOODBYE,
        optional="eventlet",
        tls=True,
        goodbye=False,
    ),
]


@contextlib.contextmanager
def running(host: Host, **env: str) -> Iterator[Server]:
    """Run the server, or skip the test if it is missing; fail if it logs a traceback that is not expected."""
    if host.optional is not None and importlib.util.find_spec(host.optional) is None:
        pytest.skip(f"{host.optional} is not installed")
    with tempfile.TemporaryDirectory() as folder:
        if host.tls:
            make_certificate(folder)
        Path(folder, "hooks.py").write_text(HOOKS)
        command = [part.replace("{{folder}}", folder) for part in host.command]
        with serving(command, env={**host.env, "XDG_RUNTIME_DIR": folder, **env}) as server:
            yield server
            for traceback in server.output().split("Traceback (most recent call last):")[1:]:
                assert any(word in traceback for word in MEANT), server.output()


def make_certificate(folder: str) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-subj", "/CN=localhost", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    try:
        subprocess.run([*command, *files], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")

"""The WSGI servers: how to run each, and what it can do."""

import contextlib
import importlib.util
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.processes import ROOT, Server, serving, wait_until

# How many seconds the servers wait for requests in flight at shutdown, unless a test sets more.
GRACE = 1

APACHE = Path("/usr/sbin/apache2")
APACHE_MODULES = Path("/usr/lib/apache2/modules")
# Apache and Passenger run as users who may not read a virtual environment, so they run this, with our packages.
SYSTEM_PYTHON = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
# Where the package's module finds the standard library.
MOD_WSGI_HOME = os.environ.get("MOD_WSGI_HOME", sys.base_prefix)


def of_scripts(name: str) -> str:
    """Return the path of a command that a package has installed beside Python."""
    return str(Path(sys.executable).parent / name)


class Kind(NamedTuple):
    """One way to run a server, and what it can do for any WSGI app."""

    name: str
    command: tuple[str, ...]
    optional: str | None = None  # the tests skip the server without this module
    workers: int = 1
    parallel: bool = True  # accepts another request while it serves one
    shows_client: bool = False  # lets an app see that its client has left
    streams_uploads: bool = True  # calls the app before it has received the whole body
    takes_chunks: bool = True  # passes a chunked body on
    continues: bool = True  # answers Expect: 100-continue
    runs_between_requests: bool = True  # lets other threads run while it waits for a request
    variant: bool = False  # differs from another one in a single point, so that few tests need it


def gunicorn(name: str, *options: str, optional: str | None = None, **traits: Any) -> Kind:
    command = ("{python}", "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "{grace}")
    return Kind(f"gunicorn-{name}", (*command, *options, "{app}"), optional, shows_client=True, **traits)


def uwsgi(name: str, *options: str, **traits: Any) -> Kind:
    command = (
        *(of_scripts("uwsgi"), "--http-socket", "127.0.0.1:{port}", "--home", sys.prefix),
        *("--master", "--need-app", "--die-on-term", "--worker-reload-mercy", "{grace}"),
    )
    return Kind(
        f"uwsgi-{name}",
        (*command, *options, "--module", "{app}"),
        "uwsgidecorators",
        shows_client=True,
        takes_chunks=False,
        continues=False,
        **traits,
    )


# Lines that run wsgiref's server, with threads.
WSGIREF = """from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server
class Threading(ThreadingMixIn, WSGIServer):
    daemon_threads, request_queue_size = True, 64
make_server('127.0.0.1', {port}, app, Threading).serve_forever()"""


def _script(name: str, code: str, before: str = "", optional: str | None = None, **traits: Any) -> Kind:
    """Return a server that some lines of Python start. SIGTERM ends it as Ctrl-C would."""
    exit_on_term = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit())"
    lines = (before, exit_on_term, "from {module} import {attribute} as app", code)
    return Kind(name, ("{python}", "-c", "\n".join(lines)), optional, **traits)


def _apache(name: str, **traits: Any) -> Kind:
    command = (str(APACHE), "-DNO_DETACH", "-DFOREGROUND", "-c", "Listen 127.0.0.1:{port}")
    return Kind(name, (*command, "-f", "{folder}/httpd.conf"), **traits)


KINDS = {
    kind.name: kind
    for kind in (
        gunicorn("sync", parallel=False),
        gunicorn("gthread", "-k", "gthread", "--threads", "8"),
        gunicorn(
            "gthread-preload", "-k", "gthread", "--threads", "4", "--workers", "2", "--preload", workers=2, variant=True
        ),
        gunicorn("gevent", "-k", "gevent", optional="gevent"),
        uwsgi("threads", "--processes", "2", "--threads", "4", workers=2),
        uwsgi("lazy-apps", "--processes", "1", "--threads", "4", "--lazy-apps", variant=True),
        uwsgi("one-thread", "--processes", "1", parallel=False, runs_between_requests=False),
        # It reads the whole body before it calls the app, and then no longer looks at the client, so that
        # `waitress.client_disconnected` stays False unless channel_request_lookahead is set.
        _script(
            "waitress",
            "import waitress\nwaitress.serve(app, host='127.0.0.1', port={port}, threads=8)",
            streams_uploads=False,
        ),
        _script(
            "waitress-lookahead",
            "import waitress\nwaitress.serve(app, host='127.0.0.1', port={port}, channel_request_lookahead=5)",
            streams_uploads=False,
            shows_client=True,
            variant=True,
        ),
        _script(
            "cheroot",
            "from cheroot.wsgi import Server\nServer(('127.0.0.1', {port}), app, shutdown_timeout=2).safe_start()",
            optional="cheroot",
        ),
        _script(
            "werkzeug",
            "from werkzeug.serving import run_simple\nrun_simple('127.0.0.1', {port}, app, threaded=True)",
            shows_client=True,
            optional="werkzeug",
        ),
        _script(
            "wsgiref",
            WSGIREF,
            takes_chunks=False,
            continues=False,
        ),
        _script(
            "gevent-pywsgi",
            "from gevent.pywsgi import WSGIServer\nWSGIServer(('127.0.0.1', {port}), app).serve_forever()",
            before="from gevent import monkey\nmonkey.patch_all()",
            optional="gevent",
        ),
        _apache("mod_wsgi"),
        # The package's module, newer than Debian's, in the main interpreter, and in a sub-interpreter of its own lock.
        _apache("mod_wsgi-package", optional="mod_wsgi", variant=True),
        _apache("mod_wsgi-own-gil", optional="mod_wsgi", variant=True),
        # By default it reads the whole body before it calls the app; otherwise it passes chunks on with their
        # framing.
        _apache("passenger", parallel=False, streams_uploads=False),
        _apache("passenger-unbuffered", parallel=False, takes_chunks=False, variant=True),
        # By default it has as many threads as the machine has cores.
        Kind(
            "granian-wsgi",
            (
                *("{python}", "-m", "granian", "--interface", "wsgi", "--port", "{port}", "--blocking-threads", "8"),
                *("--log-level", "warning", "{app}"),
            ),
            optional="granian",
            variant=True,
        ),
        # It reads the whole body before it calls the app.
        Kind(
            "m0serve-wsgi",
            (
                *(of_scripts("m0serve"), "--protocol", "wsgi", "--host", "127.0.0.1", "--port", "{port}"),
                *("--blocking-threads", "8", "--max-body", "1g", "{app}"),
            ),
            optional="m0serve",
            streams_uploads=False,
            variant=True,
        ),
        Kind(
            "peregrine-wsgi",
            (
                *("{python}", "-m", "peregrine", "--protocol", "wsgi", "--port", "{port}", "--wsgi-threads", "8"),
                *("--max-body", str(2**30), "--graceful-timeout", "{grace}000", "{app}"),
            ),
            optional="peregrine",
            variant=True,
        ),
        Kind(
            "pyvoy-wsgi",
            (of_scripts("pyvoy"), "--interface", "wsgi", "--port", "{port}", "--worker-threads", "8", "{app}"),
            optional="pyvoy",
            variant=True,
        ),
    )
}


# --- Apache, which needs configuration files ---------------------------------------------------------

HTTPD_CONF = """
ServerName localhost
ServerRoot {folder}
PidFile {folder}/httpd.pid
Mutex pthread
ErrorLog /dev/stderr
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
User www-data
Group www-data
AllowEncodedSlashes On
KeepAliveTimeout 1
<Directory {folder}>
    Require all granted
</Directory>
"""
MOD_WSGI_CONF = """
{load_mod_wsgi}
WSGISocketPrefix {folder}/wsgi
WSGIDaemonProcess bridge threads=8 shutdown-timeout={grace}
WSGIProcessGroup bridge
WSGIApplicationGroup {interpreter}
WSGIChunkedRequest On
# Else signal.signal() says nothing when it is called outside the main thread, by which trio knows where it is.
WSGIRestrictSignal Off
WSGIScriptAlias / {folder}/app.wsgi
"""
PASSENGER_CONF = """
LoadModule passenger_module {modules}/mod_passenger.so
PassengerRoot /usr/lib/ruby/vendor_ruby/phusion_passenger/locations.ini
PassengerInstanceRegistryDir {folder}/instances
PassengerDisableSecurityUpdateCheck On
PassengerDisableAnonymousTelemetry On
PassengerPython {python}
PassengerMaxPoolSize 1
PassengerAllowEncodedSlashes On
PassengerBufferUpload {buffer_upload}
# How much of a response may wait on disk for its client: 128 MiB by default.
PassengerResponseBufferHighWatermark 1000000
PassengerAppRoot {folder}
DocumentRoot {folder}/public
"""


def maybe_missing(kind: Kind) -> str | None:
    """Return the name of what is missing to run the server, or None."""
    if kind.name == "mod_wsgi":
        module = APACHE_MODULES / f"mod_wsgi.so-{sys.version_info.major}.{sys.version_info.minor}"
        return next((path.name for path in (APACHE, module) if not path.exists()), None)
    if kind.name.startswith("mod_wsgi-"):
        if kind.name == "mod_wsgi-own-gil" and sys.version_info < (3, 12):
            return "Python 3.12"
        if not all(path.stat().st_mode & 0o5 == 0o5 for path in (Path(MOD_WSGI_HOME), *Path(MOD_WSGI_HOME).parents)):
            return "a Python that Apache's user may read"
        return None if APACHE.exists() and importlib.util.find_spec("mod_wsgi") else "mod_wsgi"
    if kind.name.startswith("passenger"):
        needed = (APACHE, APACHE_MODULES / "mod_passenger.so", SYSTEM_PYTHON)
        return next((path.name for path in needed if not path.exists()), None)
    return kind.optional if kind.optional and is_missing(kind.optional) else None


def is_missing(module: str) -> bool:
    """Return whether a module, perhaps of a package, is not installed."""
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:  # neither is its package
        return True


def _load_mod_wsgi(name: str) -> str:
    """Return the directives that load Debian's module, or that of the package `mod_wsgi`."""
    if name == "mod_wsgi":
        return f"LoadModule wsgi_module {APACHE_MODULES}/mod_wsgi.so"
    if not name.startswith("mod_wsgi-"):
        return ""
    (module,) = Path(sysconfig.get_path("platlib"), "mod_wsgi", "server").glob("mod_wsgi-py*.so")
    own_gil = "\nWSGIPerInterpreterGIL On" if name == "mod_wsgi-own-gil" else ""
    return f"LoadModule wsgi_module {module}\nWSGIPythonHome {MOD_WSGI_HOME}{own_gil}"


@contextlib.contextmanager
def running(kind: Kind, app: str, env: dict[str, str] | None = None, grace: int = GRACE) -> Iterator[Server]:
    """Run the server for the app named as `module:attribute`, or skip the test if the server is missing."""
    missing = maybe_missing(kind)
    if missing is not None:
        pytest.skip(f"{kind.name}: {missing} is not installed")
    module, _, attribute = app.partition(":")
    with tempfile.TemporaryDirectory() as folder:
        instances = Path(folder, "instances")
        if kind.command[0] == str(APACHE):
            os.chmod(folder, 0o755)  # other users must read it
            path = [str(ROOT / "src"), str(ROOT), sysconfig.get_path("purelib")]
            conf = HTTPD_CONF + (MOD_WSGI_CONF if kind.name.startswith("mod_wsgi") else PASSENGER_CONF)
            conf = conf.format(
                folder=folder,
                modules=APACHE_MODULES,
                load_mod_wsgi=_load_mod_wsgi(kind.name),
                interpreter="bridge" if kind.name == "mod_wsgi-own-gil" else "%{GLOBAL}",
                grace=grace,
                python=SYSTEM_PYTHON,
                buffer_upload="Off" if kind.streams_uploads else "On",
            )
            Path(folder, "httpd.conf").write_text(conf)
            # Passenger does not pass its environment on to the app.
            script = f"import os, sys\nsys.path[:0] = {path}\nos.environ.update({env or {}})\n"
            script += f"from {module} import {attribute} as application\n"
            for name in ("app.wsgi", "passenger_wsgi.py"):
                Path(folder, name).write_text(script)
            instances.mkdir()
            Path(folder, "public").mkdir()
        names = {"app": app, "module": module, "attribute": attribute, "folder": folder, "grace": grace}
        command = [part.format(**names, port="{port}", python="{python}") for part in kind.command]
        try:
            with serving(command, env=env) as server:
                yield server
        finally:
            # Passenger runs on for a while after Apache has ended, and then removes its files here.
            wait_until(lambda: not instances.exists() or not any(instances.iterdir()))

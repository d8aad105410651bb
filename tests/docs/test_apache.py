"""The pages about mod_wsgi and Passenger, with an Apache that listens on a free port."""

import contextlib
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.commands import check_dialogue, check_install
from tests.docs.pages import Page
from tests.processes import ROOT, Server, serving, wait_until
from tests.servers import wsgi_servers

FASTAPI = Page("docs/quickstarts/fastapi.md")
MOD_WSGI = Page("docs/deployment/mod_wsgi.md")
PASSENGER = Page("docs/deployment/passenger.md")
PATHS = [str(ROOT / "src"), sysconfig.get_path("purelib")]
# What Debian's own files say to Apache, or to the module.
OF_DEBIAN = {
    "mod_wsgi": "LoadModule wsgi_module {modules}/mod_wsgi.so\nWSGISocketPrefix {folder}/wsgi\n",
    "passenger": """
LoadModule passenger_module {modules}/mod_passenger.so
PassengerRoot /usr/lib/ruby/vendor_ruby/phusion_passenger/locations.ini
PassengerInstanceRegistryDir {folder}/instances
PassengerDisableSecurityUpdateCheck On
PassengerDisableAnonymousTelemetry On
""",
}


@contextlib.contextmanager
def apache(name: str, page: Page, files: dict[str, str], replaced: dict[str, str]) -> Iterator[Server]:
    """Run Apache with the configuration of a page, for an app of some files, in a folder that its user may read."""
    missing = wsgi_servers.maybe_missing(wsgi_servers.KINDS[name])
    if missing is not None:
        pytest.skip(f"{name}: {missing} is not installed")
    with tempfile.TemporaryDirectory() as folder:
        instances = Path(folder, "instances")
        for path in (Path(folder, "public"), instances):
            path.mkdir()
        Path(folder).chmod(0o755)
        for file, text in files.items():
            Path(folder, file).write_text(text)
        before = (wsgi_servers.HTTPD_CONF + OF_DEBIAN[name]).format(folder=folder, modules=wsgi_servers.APACHE_MODULES)
        conf = page["hello.conf"]
        for old, new in {**replaced, "/srv/hello": folder, "*:80": "*"}.items():
            assert old in conf, old
            conf = conf.replace(old, new)
        Path(folder, "httpd.conf").write_text(before + conf)
        command = [str(wsgi_servers.APACHE), "-DNO_DETACH", "-DFOREGROUND", "-c", "Listen 127.0.0.1:{port}"]
        try:
            with serving([*command, "-f", f"{folder}/httpd.conf"]) as server:
                yield server
        finally:
            # Passenger goes on for a while when Apache has ended, and then takes away what it had here.
            wait_until(lambda: not instances.exists() or not any(instances.iterdir()), timeout=30)


def check_setup(page: Page) -> None:
    """Check the commands that surround the configuration: packages of Debian's, a folder, an environment."""
    *of_the_system, environment, install = page.commands("install")
    assert all(command[0] == "sudo" for command in of_the_system)
    assert environment[1:] == ["-m", "venv", "/srv/hello/.venv"]
    assert install[0] == "/srv/hello/.venv/bin/pip"
    check_install(install)
    assert all(command[:2][0] == "sudo" for command in page.commands("serve"))


def test_mod_wsgi() -> None:
    """The app of the quickstart answers."""
    check_setup(MOD_WSGI)
    replaced = {" python-home=/srv/hello/.venv": "", "python-path=/srv/hello": "python-path=" + ":".join(PATHS)}
    with apache("mod_wsgi", MOD_WSGI, {"hello.py": FASTAPI["hello"]}, replaced) as server:
        check_dialogue(MOD_WSGI, "ask", server)
        assert server.client.post("/", content=iter([b"chunked"])).status_code == 405  # by the app, not 411


def test_passenger() -> None:
    """The app of the quickstart answers."""
    check_setup(PASSENGER)
    for command in PASSENGER.commands("install in cpanel"):
        check_install(command)
    files = {
        "hello.py": FASTAPI["hello"],
        "passenger_wsgi.py": f"import sys\nsys.path[:0] = {PATHS}\n" + PASSENGER["passenger_wsgi.py"],
    }
    replaced = {"/srv/hello/.venv/bin/python": str(wsgi_servers.SYSTEM_PYTHON)}
    with apache("passenger", PASSENGER, files, replaced) as server:
        check_dialogue(PASSENGER, "ask", server)
        assert server.client.get("/a%2Fb").json() == {"detail": "Not Found"}  # by the app

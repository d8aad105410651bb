"""`python -m tests.conformance.apache MODULE:ATTRIBUTE PORT FOLDER` runs an app on Apache with Debian's mod_wsgi."""

import os
import sys
import sysconfig
from pathlib import Path

from tests.processes import ROOT
from tests.servers.wsgi_servers import APACHE, APACHE_MODULES, HTTPD_CONF, MOD_WSGI_CONF
from wsgi_asgi_conformance.notes import FOLDER


def main(app: str, port: str, folder: str) -> None:
    """Write the configuration into the folder, which Apache's user must be able to read, and become the server."""
    conf = (HTTPD_CONF + MOD_WSGI_CONF).format(
        folder=folder,
        modules=APACHE_MODULES,
        load_mod_wsgi=f"LoadModule wsgi_module {APACHE_MODULES}/mod_wsgi.so",
        interpreter="%{GLOBAL}",
        grace=1,
    )
    Path(folder, "httpd.conf").write_text(conf, encoding="utf-8")
    # Not all of sys.path: the module has a Python of its own, with a standard library of its own.
    path = [str(ROOT / "conformance" / "src"), str(ROOT), str(ROOT / "src"), sysconfig.get_path("purelib")]
    module, _, attribute = app.partition(":")
    script = f"import os, sys\nsys.path[:0] = {path}\nos.environ[{FOLDER!r}] = {os.environ[FOLDER]!r}\n"
    script += f"from {module} import {attribute} as application\n"
    Path(folder, "app.wsgi").write_text(script, encoding="utf-8")
    options = ["-DNO_DETACH", "-DFOREGROUND", "-c", f"Listen 127.0.0.1:{port}", "-f", f"{folder}/httpd.conf"]
    os.execv(APACHE, [str(APACHE), *options])


if __name__ == "__main__":
    main(*sys.argv[1:])

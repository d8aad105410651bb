"""Generated apps and requests: the choice equals what both apps answer alone."""

import random
import sys
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.routing import Mount, Router

from bridge.migration import ASGIFallback, WSGIFallback
from bridge.migration.choice import Choice
from bridge.wsgi_to_asgi.adapter import WSGIToASGI
from tests.fakes import WSGIServer, http_environ, http_scope, request
from tests.migration import apps

SEEDS = range(7)
QUESTIONS = 100  # a seed
METHODS = ["GET", "HEAD", "POST", "PUT", "OPTIONS"]
SEGMENTS = ["a", "b", "1", "22", "x"]
RULES = [*SEGMENTS[:3], "{p}", "{p:int}"]


def routes_of(rng: random.Random) -> apps.Routes:
    """Return a few rules of up to three segments, with and without a slash at the end."""
    routes: dict[str, list[str]] = {}
    for _ in range(rng.randint(1, 6)):
        segments = rng.choices(RULES, k=rng.randint(0, 3))
        parts = [part.replace("p", f"p{number}", 1) for number, part in enumerate(segments)]
        if rng.random() < 0.1:
            parts.append("{rest:path}")
        path = "/" + "/".join(parts) + rng.choice(["", "/"] if parts else [""])
        routes[path] = sorted({*rng.choices(["GET", "POST", "PUT"], k=rng.randint(1, 3))})
    return routes


def path_of(rng: random.Random, *tables: apps.Routes) -> str:
    """Return a path that is near to one of the rules, or any."""
    if rng.random() < 0.2:
        return "/" + "/".join(rng.choices(SEGMENTS, k=rng.randint(0, 4)))
    path = rng.choice([rule for table in tables for rule in table] or ["/"])
    while "{" in path:
        before, _, rest = path.partition("{")
        path = before + rng.choice(SEGMENTS) + rest.partition("}")[2]
    return rng.choice([path, path, path, path.rstrip("/"), f"{path}/", path.replace("/", "//", 1)]) or "/"


def new_of(rng: random.Random, kind: str) -> tuple[Any, apps.Routes]:
    """Return an app; one of Starlette's kind has a mount or two, before its routes or behind."""
    routes = dict(routes_of(rng))
    app: Any = apps.ASGI[kind]("new", routes)
    for _ in range(rng.randint(0, 2) if kind != "quart" else 0):
        inner = routes_of(rng)
        prefix = rng.choice(["/a", "/b", "/a/b", "/{m}"])
        mounted: Any = (
            apps.ASGI[kind]("inner", inner) if rng.random() < 0.7 else Router(apps.starlette("", inner).routes)
        )
        position = rng.choice([0, len(app.router.routes)])
        app.router.routes.insert(position, Mount(prefix, mounted))
        routes.update({prefix + path: methods for path, methods in inner.items()})
    return app, routes


async def alone(app: Any, method: str, path: str) -> tuple[int, bytes, str]:
    """Return what an app answers without the fallback."""
    server = await request(app, http_scope(method, path))
    return server.status, server.body, dict(server.headers).get(b"location", b"").decode()


async def level_of(app: Any, method: str, path: str) -> int:
    """Return 0 for a 404, 1 for a 405 or a redirect that leads on, 2 for whatever is an answer."""
    status, _, location = await alone(app, method, path)
    if status in (301, 307, 308):
        return 1 if (await alone(app, method, urlsplit(location).path))[0] != 404 else 0
    return {404: 0, 405: 1}.get(status, 2)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kind", list(apps.ASGI))
@pytest.mark.parametrize("seed", SEEDS)
async def test_the_choice_is_what_both_apps_answer_alone(seed: int, kind: str) -> None:
    """Each request has the answer of the app that is right for it: cold, warm, and from eight threads."""
    rng = random.Random(f"{seed} {kind}")
    new, of_new = new_of(rng, kind)
    of_old = routes_of(rng)
    questions = [(rng.choice(METHODS), path_of(rng, of_new, of_old)) for _ in range(QUESTIONS)]
    with apps.django_urls(apps.django_patterns("old", of_old)):
        old: Any = apps.flask("old", of_old) if seed % 2 else apps.django_wsgi()
        old_asgi = WSGIToASGI(old)
        expected = {}
        for method, path in questions:
            known = await level_of(new, method, path)
            is_new = known == 2 or (known == 1 and await level_of(old_asgi, method, path) == 0)
            expected[method, path] = is_new
        fallback = ASGIFallback(new, old_asgi, header="X-Who")
        for method, path in [*questions, *questions]:
            server = await request(fallback, http_scope(method, path))
            is_new = expected[method, path]
            assert server.headers[-1] == (b"x-who", b"new" if is_new else b"old"), (method, path, of_new, of_old)
            native = await alone(new if is_new else old_asgi, method, path)
            assert (server.status, server.body) == native[:2]
            assert native[0] != 404 or await level_of(old_asgi, method, path) == 0
        _ask_from_threads(Choice(new, old, None), expected)
        with WSGIFallback(new, old, header="X-Who") as wsgi_fallback:
            for method, path in questions[:10]:
                wsgi_server = WSGIServer(wsgi_fallback, http_environ(method, path))
                wsgi_server.run()
                assert wsgi_server.headers[-1] == ("X-Who", "new" if expected[method, path] else "old")


def _ask_from_threads(choice: Choice, expected: dict[tuple[str, str], bool]) -> None:
    wrong: list[object] = []

    def ask() -> None:
        for (method, path), is_new in [*expected.items(), *expected.items()]:
            if choice.is_new_for_scope(http_scope(method, path)) is not is_new:
                wrong.append((method, path))
            if choice.is_new_for_environ(http_environ(method, path)) is not is_new:
                wrong.append((method, path, "environ"))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []

import ast
import graphlib
import re
from pathlib import Path

import pytest

import bridge
import wsgi_asgi_conformance

SOURCE = Path(bridge.__file__).parent
# Which rooms each room may import from; what is not named here is public, or imports nothing of ours.
ROOMS = {
    "errors": set[str](),
    "types": set[str](),
    "runtime": {"errors"},
    "sansio": {"errors", "types"},
    "validate": {"errors", "types", "sansio"},
    "wsgi_to_asgi": {"errors", "types", "runtime", "sansio"},
    "asgi_to_wsgi": {"errors", "types", "runtime", "sansio"},
    "migration": {"errors", "types", "runtime", "sansio", "validate", "wsgi_to_asgi", "asgi_to_wsgi"},
    "__main__": {"migration"},
    "gunicorn": {"errors", "asgi_to_wsgi"},
    "__init__": {"errors", "wsgi_to_asgi", "asgi_to_wsgi"},
}
# Modules that would give a room what it must do without: sansio has no thread, loop, socket or clock.
KEPT_OUT = {"sansio": {"anyio", "asyncio", "queue", "select", "socket", "threading", "time", "trio"}}
# The conformance suite judges any adapter, so it needs none: it may use what is public, where that is installed.
SUITE = Path(wsgi_asgi_conformance.__file__).parent
PUBLIC = {"bridge.errors", "bridge.validate"}
MODULES = sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return the dotted names of all modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_what_it_may(path: Path) -> None:
    """Each module keeps to the table of rooms above."""
    room = room_of(path)
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("bridge.")}
    assert ours <= ROOMS[room] | {room}
    assert not {name.split(".")[0] for name in imported(path)} & KEPT_OUT.get(room, set())


def test_the_conformance_suite_is_a_room_of_its_own() -> None:
    """It imports nothing of the tests, and of `bridge` only the validator, in one place that does without it."""
    for path in sorted(SUITE.rglob("*.py")):
        ours = {name for name in imported(path) if name.split(".")[0] in ("bridge", "tests")}
        assert ours <= (PUBLIC if path.name == "lint.py" else set()), path


def test_the_directions_are_twins() -> None:
    """Both directions have the same modules, but for what only one of them needs."""
    modules = {
        direction: {str(path.relative_to(SOURCE / direction)) for path in (SOURCE / direction).rglob("*.py")}
        for direction in ("wsgi_to_asgi", "asgi_to_wsgi")
    }
    shared = {"__init__.py", "adapter.py", "lifespan.py", "runner.py", "statistics.py"}
    shared |= {f"http/{name}.py" for name in ("__init__", "body", "call", "exchange", "hop", "streams")}
    shared |= {f"websocket/{name}.py" for name in ("__init__", "exchange", "handshake")}
    assert modules["wsgi_to_asgi"] == shared | {
        *("outcome.py", "http/environ.py"),
        *(f"websocket/{name}.py" for name in ("environ", "messages", "pair", "server", "simple_websocket", "thread")),
    }
    assert modules["asgi_to_wsgi"] == shared | {
        *("carry.py", "http/serve.py", "loop.py", "servers.py", "sockets.py", "tasks.py"),
        *(f"websocket/{name}.py" for name in ("connection", "frames", "inbox", "options", "transport")),
        *(
            f"http/{name}.py"
            for name in (
                "access",
                "client",
                "detached",
                "detaching",
                "late",
                "leaving",
                "output",
                "patience",
                "place",
                "serve",
            )
        ),
    }


def test_no_module_imports_itself_by_way_of_others() -> None:
    """The modules have an order in which each imports only those before it; TYPE_CHECKING is no way around that."""
    names = {path: ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in MODULES}
    imports = {name.removesuffix(".__init__"): imported(path) for path, name in names.items()}
    graph = {name: {other for other in others if other in imports} for name, others in imports.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle
    assert set(order) == set(imports)


def test_what_is_exported_is_what_is_public() -> None:
    """`bridge.__all__` is sorted, and all of it is there."""
    assert bridge.__all__ == sorted(bridge.__all__)
    assert all(hasattr(bridge, name) for name in bridge.__all__)


def test_errors_are_drawn_in_their_docstring() -> None:
    """The tree in the docstring of `errors` has every class that is there."""
    from bridge import errors

    assert errors.__doc__ is not None
    for name, value in vars(errors).items():
        if isinstance(value, type):
            assert f" {name} " in f"{errors.__doc__} ".replace("\n", " ")
            assert issubclass(value, errors.BridgeError)


def test_the_architecture_page_names_files_that_exist() -> None:
    """docs/architecture.md refers to modules by their paths in `src/bridge`, and each of them is there."""
    page = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([\w/]+\.py)`", page)) - {"tests/test_rooms.py"}
    assert "sansio/request.py" in named
    assert {name for name in named if not (SOURCE / name).is_file()} == set()

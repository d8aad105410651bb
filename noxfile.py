"""The tests on every Python, and with the lowest dependencies: `nox`, or `nox -s tests-3.12 -- tests/sansio`, say.

An interpreter that is not installed is skipped by name.
"""

import nox

nox.options.error_on_missing_interpreters = False

PYPROJECT = nox.project.load_toml("pyproject.toml")
PROJECT = PYPROJECT["project"]
PYTHONS = nox.project.python_versions(PYPROJECT)
# As in the README's test command, where no tests are named.
ALL = ("-n", "4", "--dist", "loadfile")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the default tests, or those that are named."""
    session.install("-e", ".", "--group", "test")
    session.run("python", "-m", "pytest", *(session.posargs or ALL))


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run the tests on the oldest Python, with the lowest versions that pyproject.toml allows the package."""
    lines = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["websocket"]
    session.install("-e", ".", "--group", "test", *(line.replace(">=", "==") for line in lines))
    session.run("python", "-m", "pytest", *(session.posargs or ALL))


# They compile code that is not made for a Python without the lock, or that no package brings for it.
LOCKED = ("daphne", "granian", "litestar", "mypy")


@nox.session(python=["3.13t", "3.14t"])
def free_threaded(session: nox.Session) -> None:
    """Run the tests without the interpreter's lock, which extensions that are not made for that would turn on again."""
    # Litestar's msgspec is not made for 3.13t, and newer versions of what is named below have to be compiled, by Rust.
    lines = [line for line in PYPROJECT["dependency-groups"]["test"] if not line.startswith((*LOCKED, PROJECT["name"]))]
    package = ".[examples,websocket]"
    session.install("--prefer-binary", "--only-binary=hypothesis,pydantic-core", "-e", package, *lines)
    session.run("python", "-m", "pytest", *session.posargs, env={"PYTHON_GIL": "0"})


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Check style and types."""
    session.install("-e", ".", "--group", "test")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from bridge.migration.loading import CannotRun, load_app

SHOP = """
from flask import Flask, request
from fastapi import FastAPI

print("imported")
app, number = Flask("shop"), 3


class namespace:
    inner = FastAPI()


def create_app():
    return app


def create_number():
    return number


async def create_later():
    return app


def broken():
    raise ValueError("no database")


def create_with(name):
    return app
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules, in which the command is called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "shop_of_a_test.py").write_text(SHOP)
    (tmp_path / "raising_of_a_test.py").write_text("\n\n1 / 0\n")
    (tmp_path / "exiting_of_a_test.py").write_text("import sys\nsys.exit('no settings')\n")
    (tmp_path / "missing_of_a_test.py").write_text("import a_package_that_is_not_there\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.endswith("_of_a_test")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["shop_of_a_test:app", "shop_of_a_test:create_app()"])
def test_an_app_is_found(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An app is found by name or through a factory, and what its import prints stays out of the command's output."""
    assert isinstance(load_app(name), Flask)
    assert capsys.readouterr() == ("", "imported\n")


def test_an_app_within_an_object_is_found() -> None:
    """Dots in the name lead to attributes."""
    assert type(load_app("shop_of_a_test:namespace.inner")).__name__ == "FastAPI"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("shop", r"'shop' does not name an app: write module:app"),
        ("shop.py:app", r"\('shop.py' is a file\)"),
        ("src/shop:app", r"\('src/shop' is a file\)"),
        (":app", "does not name an app"),
        ("nowhere:app", "there is no module 'nowhere'"),
        ("shop_of_a_test.inner:app", "there is no module 'shop_of_a_test.inner'"),
        (
            "missing_of_a_test:app",
            r"raised ModuleNotFoundError: .*a_package_that_is_not_there.*missing_of_a_test.py, line 1",
        ),
        ("raising_of_a_test:app", r"raised ZeroDivisionError: division by zero \(.*raising_of_a_test.py, line 3\)"),
        ("exiting_of_a_test:app", "raised SystemExit: no settings"),
        ("shop_of_a_test:ap", "the module 'shop_of_a_test' has no 'ap'; it has 'app'$"),
        ("raising_of_a_test.x:app", "raised ZeroDivisionError"),
        ("sys:pathh", "is it 'path'"),
        ("shop_of_a_test:create_app", r"write shop_of_a_test:create_app\(\) if it creates the app"),
        ("shop_of_a_test:create_with", "expected a WSGI or an ASGI app, got function"),
        ("shop_of_a_test:create_with()", "the factory raised TypeError: .*'name'$"),
        ("shop_of_a_test:create_number()", "got int"),
        ("shop_of_a_test:create_later()", "expected a plain function"),
        ("shop_of_a_test:broken()", r"the factory raised ValueError: no database \(.*shop_of_a_test.py, line 26\)"),
        ("shop_of_a_test:app()", r"expected a factory, got an object of flask.app.Flask: leave out the \(\)"),
        ("shop_of_a_test:number()", "expected a factory, got an object of int"),
        ("shop_of_a_test:number", "got int"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_a_sentence(name: str, sentence: str) -> None:
    """It says what was expected, what came, and what to write."""
    with pytest.raises(CannotRun, match=sentence):
        load_app(name)

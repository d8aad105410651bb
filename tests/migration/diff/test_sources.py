import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge.migration.diff.requests import Request, read_requests
from bridge.migration.loading import CannotRun
from tests.migration.diff.test_differences import entry


def read(text: str, tmp_path: Path, **options: Any) -> Any:
    (tmp_path / "source").write_text(text)
    return read_requests(str(tmp_path / "source"), [], **{"unsafe": False, "send_credentials": False, **options})


COMMON = '127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a?b=1 HTTP/1.0" 200 2326'


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        (COMMON, ["/a?b=1"]),
        (f'{COMMON} "http://x/" "Mozilla/5.0 (X; \\"y\\")"\n{COMMON}', ["/a?b=1"]),
        ("# a list\nGET /a\n\n/b\nHEAD /c\n", ["/a", "/b", "/c"]),
        (COMMON.replace("GET /a", "POST /a") + f"\n{COMMON}", ["/a?b=1"]),
        (f'{COMMON}\n127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "\\x16\\x03" 400 0', ["/a?b=1"]),
        ("GET /ä b\nGET /c", None),
        ("GET /ä", ["/%C3%A4"]),
    ],
)
def test_requests_are_read(text: str, targets: list[str] | None, tmp_path: Path) -> None:
    """From a log or a list, each once."""
    if targets is None:
        with pytest.raises(CannotRun, match="its first line is none of them"):
            read(text, tmp_path)
    else:
        assert [request.target for request in read(text, tmp_path).played] == targets


def test_requests_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name -; paths come after it."""
    stdin = io.TextIOWrapper(io.BytesIO(b"GET /a\nDELETE /b\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    requests = read_requests("-", ["/c"], unsafe=False, send_credentials=False)
    assert requests.played == [Request("GET", "/a"), Request("GET", "/c")]
    assert requests.left_out == {"DELETE is not safe (--unsafe plays it)": 1}


def test_a_har_is_played_without_its_host_and_credentials(tmp_path: Path) -> None:
    """What other hosts answered is left out, and so are headers of the connection."""
    names = ["Cookie", "Authorization", "Host", ":authority", "Content-Length", "Accept"]
    headers = [{"name": name, "value": "v"} for name in names]
    first = entry("GET", "https://shop.example/a?b=1")
    first["request"]["headers"] = headers
    har = {
        "log": {"entries": [first, entry("GET", "https://tracker.example/"), entry("POST", "https://shop.example/")]}
    }
    requests = read(json.dumps(har), tmp_path)
    assert requests.played == [Request("GET", "/a?b=1", (("Accept", "v"),))]
    assert requests.credentials == [("Cookie", "v"), ("Authorization", "v")]
    assert sum(requests.left_out.values()) == 2
    sent = read(json.dumps(har), tmp_path, send_credentials=True, unsafe=True)
    assert [name for name, _ in sent.played[0].headers] == ["Cookie", "Authorization", "Accept"]
    assert sent.played[1].method == "POST"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"log": {"entries": [{"request": {"meth', "is not complete JSON .*cut off"),
        ('{"log": {"entries": [NaN]}}', "NaN is not a JSON number"),
        ('{"log": {"entries": [], "entries": []}}', "a duplicate key"),
        ("[" * 100_000, "valid JSON"),
        ("{}", "no log.entries"),
        ("[]", "no log.entries"),
        ('{"log": {"entries": [{}]}}', "request 1 has no usable method"),
        (json.dumps({"log": {"entries": [entry("GET X", "http://x/")]}}), "request 1 has no usable method"),
        ("", "there are no requests to play"),
        ("hello", "its first line is none of them"),
        ("POST /a", "1 left out: POST is not safe"),
    ],
)
def test_a_source_that_cannot_be_read_is_told_in_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    """It names the file and what was expected."""
    with pytest.raises(CannotRun, match=sentence):
        read(text, tmp_path)


def test_a_har_of_100_megabytes_is_refused(tmp_path: Path) -> None:
    """Without reading all of it; the sentence says what to do."""
    with (tmp_path / "source").open("wb") as file:
        file.write(b'{"log": ')
        file.truncate(100_000_000)
    with pytest.raises(CannotRun, match="larger than 64 MiB: save the HAR without"):
        read_requests(str(tmp_path / "source"), [], unsafe=False, send_credentials=False)
    with pytest.raises(CannotRun, match="cannot be read: No such file"):
        read_requests(str(tmp_path / "nowhere"), [], unsafe=False, send_credentials=False)

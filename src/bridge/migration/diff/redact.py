"""Makes values fit to be shown: no secrets, no control characters, at most 200 characters."""

import hashlib
import re
import secrets
from urllib.parse import unquote

_SECRET_KEY = re.compile(
    r"passw|passphrase|token|secret|session|csrf|xsrf|credential|cookie|authori[sz]ation|api[-_]?key|private[-_]?key|"
    r"signature|jwt|^(sid|auth|pwd|otp|pin)$",
    re.IGNORECASE,
)
# A run of letters and digits that is too long for a word is probably a token.
_TOKEN = re.compile(r"(?=[\w+=-]*\d)(?=[\w+=-]*[A-Za-z])[\w+=-]{24,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HIDDEN = re.compile(r"••• \([0-9a-f]{4}\)")
_PARAMETER = re.compile(r"([^?&;=]*)=([^&;]*)")
_LONGEST = 200
# A shorter secret would match by chance all over a text.
_SHORTEST = 4


def is_secret(name: str) -> bool:
    """Return whether a header, cookie, parameter or JSON key of this name holds a secret."""
    return _SECRET_KEY.search(name) is not None


class Redactor:
    """Replaces secrets by a hash with a salt of this run."""

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)
        self._known: set[str] = set()

    def learn(self, value: str) -> None:
        """Hide `value` wherever it appears from now on."""
        for known in {value, unquote(value)}:
            if len(known) >= _SHORTEST:
                self._known.add(known)

    def learn_cookies(self, header: str) -> None:
        """Hide the value of each cookie of a Cookie header."""
        for cookie in header.split(";"):
            self.learn(cookie.partition("=")[2].strip().strip('"'))

    def learn_target(self, target: str) -> None:
        """Hide the values of a target's secret parameters."""
        for match in _PARAMETER.finditer(target.partition("?")[2]):
            if is_secret(unquote(match[1])):
                self.learn(match[2])

    def digest(self, value: str | bytes) -> str:
        """Return a short hash, by which values of one run can be told apart."""
        data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, key=self._salt).hexdigest()[:4]

    def hidden(self, value: str) -> str:
        """Return what is shown instead of a secret."""
        return f"••• ({self.digest(value)})"

    def shown(self, text: str, secret: bool = False) -> str:
        """Return `text` in a form that may be shown; only its hash if it is a `secret`."""
        if secret:
            return self.hidden(text)
        text = self._without_known(text)
        text = _TOKEN.sub(lambda match: match[0] if _UUID.fullmatch(match[0]) else self.hidden(match[0]), text)
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: 2 * _LONGEST])
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"

    def _without_known(self, text: str) -> str:
        for known in sorted((known for known in self._known if known in text), key=len, reverse=True):
            text = text.replace(known, self.hidden(known))
        return text

    def name(self, name: str) -> str:
        """Return the name of a place in a form that may be shown, and that is the same in each run."""
        return stable(self._without_known(name))

    def line(self, line: str) -> str:
        """Return a line of a text in a form that may be shown; only its hash if it contains the name of a secret."""
        return self.shown(line, secret=is_secret(line))

    def target(self, target: str) -> str:
        """Return a path with its query in a form that may be shown."""
        path, mark, query = target.partition("?")

        def parameter(match: re.Match[str]) -> str:
            return f"{match[1]}={self.shown(match[2], secret=is_secret(unquote(match[1])))}"

        return stable(self.shown(path) + mark + self.shown(_PARAMETER.sub(parameter, query)))


def stable(text: str) -> str:
    """Return a shown text without its hashes, which differ between runs."""
    return _HIDDEN.sub("•••", text)

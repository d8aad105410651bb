"""Text and bytes <-> the "native strings" of WSGI: bytes decoded as latin-1 (PEP 3333, A Note On String Types)."""


def native_from_text(text: str) -> str:
    """Return the UTF-8 bytes of `text` as WSGI carries bytes; a surrogate escape becomes the byte it stands for."""
    if str.isascii(text):  # bytes, which have an isascii() of their own, raise TypeError here
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("latin-1")


def bytes_from_native(native: str) -> bytes:
    """Return the bytes of a WSGI string; text beyond latin-1, which a server should not send, becomes UTF-8."""
    try:
        return native.encode("latin-1")
    except UnicodeEncodeError:
        return native_from_text(native).encode("latin-1")

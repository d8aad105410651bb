"""`WebSocketOptions`: what users can set for the WebSockets of an `ASGIToWSGI`."""

from dataclasses import dataclass

from bridge.sansio.options import check_count, check_flag, check_seconds


@dataclass(frozen=True)
class WebSocketOptions:
    """Options for `ASGIToWSGI(websocket_options=)`.

    ping_interval
        Seconds of silence after which the adapter pings a client (RFC 6455 5.5.2). Default: 20.
        None disables pings.
    pong_timeout
        Seconds that a pinged client may take to send anything. Default: 20. Then the adapter sends
        a Close frame with code 1011, and the app receives `websocket.disconnect`.
    max_message_size
        The largest message that a client may send, in bytes, after decompression. Default: 16 MiB.
        A larger one ends the WebSocket with code 1009.
    compression
        Whether to compress messages (permessage-deflate, RFC 7692) if the client offers it. Default:
        False, because compression costs about 300 KiB for each connection, and time on the loop.

    Raises TypeError for a value of the wrong type and ValueError for one that is out of range.
    """

    ping_interval: float | None = 20.0
    pong_timeout: float = 20.0
    max_message_size: int = 16 * 1024 * 1024
    compression: bool = False

    def __post_init__(self) -> None:
        check_seconds("ping_interval", self.ping_interval, " (or None for no pings)")
        check_seconds("pong_timeout", self.pong_timeout)
        check_count("max_message_size", self.max_message_size, 1)
        check_flag("compression", self.compression)

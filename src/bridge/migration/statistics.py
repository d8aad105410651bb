"""What the two apps of a fallback are doing, in numbers."""

from dataclasses import dataclass
from typing import TypeAlias

from bridge.asgi_to_wsgi.statistics import ASGIToWSGIStatistics
from bridge.wsgi_to_asgi.statistics import WSGIToASGIStatistics

Statistics: TypeAlias = "ASGIToWSGIStatistics | WSGIToASGIStatistics | FallbackStatistics | None"


@dataclass(frozen=True, kw_only=True)
class FallbackStatistics:
    """What the adapters of a fallback's two apps are doing in this process."""

    new: Statistics
    """The new app's. None if it runs without an adapter, because it has the interface of the server."""
    old: Statistics
    """The old app's, likewise."""

"""Channels in front of the Django app on ASGI: a WebSocket beside its views."""

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path  # type: ignore[import-untyped]  # Django brings no types

from bridge import ASGIToWSGI
from tests.servers.frameworks import parts
from tests.servers.frameworks.django_asgi_app import django_app


class Echo(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels brings no types, either
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


app = ProtocolTypeRouter(
    {"http": django_app, "websocket": URLRouter([path("ws", Echo.as_asgi())]), "lifespan": parts.serve_lifespan}
)
adapted = ASGIToWSGI(app)

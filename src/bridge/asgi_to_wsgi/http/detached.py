"""A response that has left its WSGI thread: the private loop answers the client, on the server's connection."""

import contextvars
import socket

from bridge.asgi_to_wsgi.http.client import Client
from bridge.asgi_to_wsgi.http.exchange import HTTPExchange
from bridge.asgi_to_wsgi.http.output import Output
from bridge.asgi_to_wsgi.http.place import Place
from bridge.asgi_to_wsgi.tasks import AsyncioTasks
from bridge.runtime import Event
from bridge.sansio.http1 import ResponseWriter

# The system of any client takes this many bytes before the client has read them.
_SMALL_BODY = 16 * 1024


class DetachedResponse(Output):
    """One response on its way from the app to the client, on the private loop.

    It replaces the WSGI thread: it takes what the app puts into the exchange's outbox. The app's `send`
    writes that to the connection. A task does what has to wait: for a client that reads slowly, for a
    file, or for the client to hang up. On asyncio, the task is made only when it is needed, because most
    responses never need one.
    """

    _running = False
    _closed = False
    _event: Event | None = None  # while the task waits for the app
    _tasks: AsyncioTasks | None = None  # while there is no task

    def __init__(
        self,
        exchange: HTTPExchange,
        sock: socket.socket,
        writer: ResponseWriter,
        place: Place,
        is_last: bool = False,
    ) -> None:
        """`sock` is ours from now on, and does not block; `is_last` says that the client wants it closed."""
        super().__init__(exchange, Client(sock, exchange.loop), writer, place, is_last)
        self.context = contextvars.Context()
        exchange.detached = True

    # IN ANY THREAD

    @property
    def is_to_finish(self) -> bool:
        """Whether the loop, if it is about to end, waits until the client has it all: not for an event stream."""
        return bool(self._place.requests) and not self.exchange.response.is_event_stream

    def fail(self, error: BaseException) -> None:
        """End a response whose loop ends."""
        with self._lock:
            if self._closed:
                return
            self._answer_with_error()
            if self._writer.ends_by_close:
                self._client.cut_before_reset()
            else:
                self._client.cut()
            if not self._running:
                self._close()
        if self._tasks is not None and self.exchange.loop.on_its_thread():
            self._end()

    def _close(self, reset: bool = False) -> None:
        self._closed = True
        self._client.close(reset)
        self._place.free()
        self._place.note(self._status, self._size, self._complete and not self._client.unsent)

    # ON THE LOOP

    def stop(self) -> None:
        """The loop is about to end: the exchange ends its event stream, and other responses may finish."""

    def begin(self, tasks: AsyncioTasks) -> None:
        """Answer the client without a task, until something has to wait."""
        self._tasks = tasks
        if self._starts():
            self._client.watch(self._lose)
            self.wake()
        else:
            self._end_without_task()

    async def run(self) -> None:
        """Answer the client, and close the connection."""
        if not self._starts():
            return
        try:
            async with self._client.reading(self._lose):
                try:
                    await self._answer()
                except OSError:  # the client has left, or does not read
                    self._lose()
        finally:
            self._end()

    def _starts(self) -> bool:
        """Take over what the app sends from now on; return False if `fail` was faster."""
        with self._lock:
            self._running = not self._closed
        if self._running:
            self.exchange.wake = self.wake
        return self._running

    def _end(self) -> None:
        """Close the connection; tell the app, unless its client has everything."""
        self.exchange.wake = _nothing
        is_whole = self._complete and not self._client.unsent
        if not (is_whole or any(isinstance(item, BaseException) for item in self.exchange.outbox)):
            self.exchange.leave()  # the app may still run, for example if only this task was cancelled
        with self._lock:
            self._answer_with_error()  # if this task was cancelled before it sent anything
            # An ordinary close would look like the body's end, also to a client that has only ended its own side.
            self._close(reset=self._writer.ends_by_close and not is_whole)
        self._end_without_task()

    def _end_without_task(self) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.ended(self)

    def wake(self) -> None:
        """Send what is in the outbox, as far as the system takes it; leave the rest, if there is any, to the task."""
        if self._event is None and self._tasks is None:
            return  # the task is about to look
        self._pump()
        client = self._client
        if client.unsent or client.gone or self._complete or self._cut or self.exchange.outbox:
            self._go_on()

    def _go_on(self) -> None:
        """Wake the task; if there is none, end the response, or make a task if something has to wait."""
        client = self._client
        if self._event is not None:
            self._event.set()
        elif self._tasks is not None:
            if client.gone or self._cut or (self._complete and not client.unsent and self._hangs_up_at_once):
                self._end()
            else:
                tasks, self._tasks = self._tasks, None
                try:
                    tasks.start(self)
                except Exception as error:
                    self._tasks = tasks
                    self.fail(error)

    @property
    def _hangs_up_at_once(self) -> bool:
        """Whether the connection of a complete response can be closed without waiting for the client to do so."""
        return self._is_last and self._size <= _SMALL_BODY

    async def _answer(self) -> None:
        """Do what has to wait, until the response has ended and the client has hung up."""
        client = self._client
        while True:
            self._pump()
            if client.gone or self._cut:
                return
            if client.unsent:
                await client.await_room()
            elif self._complete:
                self._place.note(self._status, self._size, True)
                if not self._hangs_up_at_once:
                    await client.let_hang_up()
                return
            elif self.exchange.outbox:
                await self._send_file()
            else:
                self._event = self.exchange.loop.event()
                await self._event.wait()
                self._event = None

    def _lose(self) -> None:
        """Give up on the client; tell the app, unless the client has everything."""
        self._client.give_up()
        if not self._complete or self._client.unsent:
            self.exchange.leave()
        self._go_on()


def _nothing() -> None:
    pass

"""Run an operation with the HTTP library: blocking, or under asyncio."""

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, TypeVar

import httpx2

from seequeue.core.protocol import Chunk, Disconnected, Emit, Next, Operation, Request, Response, Sleep, Stream

T = TypeVar("T")
C = TypeVar("C", httpx2.Client, httpx2.AsyncClient)

CONNECT_TIMEOUT = 5.0  # seconds
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30)


class _Connections(Generic[C]):
    """One HTTP client a process, and under asyncio one an event loop: connections cannot be shared between those."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = {"Accept-Encoding": "identity", **headers}
        self.clients: dict[Any, C] = {}
        self.lock = threading.Lock()
        self.pid = os.getpid()

    def get(self, kind: type[C], loop: Any = None) -> C:
        """Return the client of this process and loop, made when it is first needed."""
        if self.pid != os.getpid():  # a child of a fork: its parent goes on using the connections
            self.lock, self.pid, self.clients = threading.Lock(), os.getpid(), {}
        client = self.clients.get(loop)
        if client is None:
            with self.lock:
                client = self.clients.get(loop)
                if client is None:
                    client = kind(headers=self.headers, limits=LIMITS)
                    self.clients[loop] = client
        return client


def _options(request: Request, extensions: dict[str, Any] | None = None) -> dict[str, Any]:
    timeout = httpx2.Timeout(request.timeout, connect=CONNECT_TIMEOUT)
    headers = dict(request.headers)
    return {"content": request.content, "headers": headers, "timeout": timeout, "extensions": extensions or {}}


def _disconnected(error: httpx2.TransportError) -> Disconnected:
    return Disconnected(not isinstance(error, NOT_SENT), str(error) or type(error).__name__)


class Driver:
    """Runs operations with blocking I/O. Threads can share it."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers
        self.connections = _Connections[httpx2.Client](headers)
        self.extensions: dict[str, Any] = {}

    def run(self, operation: Operation[T]) -> T:
        """Return the result of an operation that is no stream."""
        value = None
        try:
            while True:
                value = self._perform(operation.send(value))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _perform(self, effect: Any) -> Any:
        if isinstance(effect, Sleep):
            return time.sleep(effect.seconds)
        if isinstance(effect, Next):
            raise TypeError("An async iterable needs an AsyncQueue.")
        try:
            options = _options(effect, self.extensions)
            found = self.connections.get(httpx2.Client).request(effect.method, effect.url, **options)
        except httpx2.TransportError as error:
            return _disconnected(error)
        return Response(found.status_code, found.headers, found.content)

    def iterate(self, operation: Operation[Any]) -> Iterator[Any]:
        """Yield the items of a stream. Its connection is closed when the iteration ends."""
        stream: httpx2.Response | None = None
        chunks: Iterator[bytes] = iter(())
        value: Any = None
        try:
            while True:
                effect, value = operation.send(value), None
                if isinstance(effect, Emit):
                    yield effect.item
                elif isinstance(effect, Stream):
                    if stream:
                        stream.close()
                    stream, value = self._open(effect.request)
                    chunks = stream.iter_bytes() if stream else iter(())
                elif isinstance(effect, Chunk):
                    try:
                        value = next(chunks, b"")
                    except httpx2.TransportError as error:
                        value = _disconnected(error)
                else:
                    value = self._perform(effect)
        except StopIteration:
            return
        finally:
            if stream:
                stream.close()

    def _open(self, request: Request) -> tuple[httpx2.Response | None, Response | Disconnected]:
        client = self.connections.get(httpx2.Client)
        try:
            found = client.send(client.build_request(request.method, request.url, **_options(request)), stream=True)
            content = b"" if found.status_code == 200 else found.read()
        except httpx2.TransportError as error:
            return None, _disconnected(error)
        return found, Response(found.status_code, found.headers, content)

    def close(self) -> None:
        """Close all connections of this process."""
        if self.connections.pid == os.getpid():
            clients, self.connections.clients = self.connections.clients, {}
            for client in clients.values():
                client.close()


class PollDriver(Driver):
    """A driver of one thread, whose request another thread can end."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(headers)
        self.extensions = {"trace": self._trace}
        self.is_interrupted = False
        self._socket: socket.socket | None = None

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")
            if self.is_interrupted:
                self.interrupt()

    def interrupt(self) -> None:
        """Break the connection: the request ends with an error, unless its answer has arrived. The next ones fail."""
        self.is_interrupted = True
        if self._socket:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # of the connection below TLS, too


class AsyncDriver:
    """Runs operations under asyncio. Each event loop has connections of its own."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.connections = _Connections[httpx2.AsyncClient](headers)

    def _client(self) -> httpx2.AsyncClient:
        return self.connections.get(httpx2.AsyncClient, asyncio.get_running_loop())

    async def run(self, operation: Operation[T]) -> T:
        """Return the result of an operation that is no stream."""
        value = None
        try:
            while True:
                value = await self._perform(operation.send(value))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def _perform(self, effect: Any) -> Any:
        if isinstance(effect, Sleep):
            return await asyncio.sleep(effect.seconds)
        if isinstance(effect, Next):
            async for item in effect.items:
                return [item]
            return []
        try:
            found = await self._client().request(effect.method, effect.url, **_options(effect))
        except httpx2.TransportError as error:
            return _disconnected(error)
        return Response(found.status_code, found.headers, found.content)

    async def iterate(self, operation: Operation[Any]) -> AsyncIterator[Any]:
        """Yield the items of a stream. Its connection is closed when the iteration ends."""
        stream: httpx2.Response | None = None
        chunks: AsyncIterator[bytes] | None = None
        value: Any = None
        try:
            while True:
                try:
                    effect, value = operation.send(value), None
                except StopIteration:
                    return
                if isinstance(effect, Emit):
                    yield effect.item
                elif isinstance(effect, Stream):
                    if stream:
                        await stream.aclose()
                    stream, value = await self._open(effect.request)
                    chunks = stream.aiter_bytes() if stream else None
                elif isinstance(effect, Chunk):
                    try:
                        value = await anext(chunks, b"") if chunks else b""
                    except httpx2.TransportError as error:
                        value = _disconnected(error)
                else:
                    value = await self._perform(effect)
        finally:
            if stream:
                await stream.aclose()

    async def _open(self, request: Request) -> tuple[httpx2.Response | None, Response | Disconnected]:
        client = self._client()
        try:
            made = client.build_request(request.method, request.url, **_options(request))
            found = await client.send(made, stream=True)
            content = b"" if found.status_code == 200 else await found.aread()
        except httpx2.TransportError as error:
            return None, _disconnected(error)
        return found, Response(found.status_code, found.headers, content)

    async def close(self) -> None:
        """Close the connections of this event loop."""
        client = self.connections.clients.pop(asyncio.get_running_loop(), None)
        if client and self.connections.pid == os.getpid():
            await client.aclose()

"""Queue and AsyncQueue: the same operations, blocking and awaitable."""

import functools
import inspect
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args

from seequeue.core import streams, tidying, verbs
from seequeue.core.protocol import Operation
from seequeue.core.verbs import Client, M, Reserved
from seequeue.drivers import AsyncDriver, Driver
from seequeue.work.consumer import AsyncConsumer, ConsumeOptions, Consumer, consume
from seequeue.work.worker import AsyncWorker, Worker, WorkerOptions, worker

DEFAULT_URL = "http://localhost:5000"

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D", Driver, AsyncDriver)
S = TypeVar("S")  # what has a `driver`: a queue, or a message


def _driver(owner: Any) -> Any:
    return owner.driver


def _describe(method: Any, operation: Callable[..., Any]) -> None:
    """Let `help` show the parameters of an operation, and what the method returns instead of a generator."""
    functools.update_wrapper(method, operation)
    signature = inspect.signature(operation)
    first, *others = signature.parameters.values()
    *_, returned = get_args(signature.return_annotation) or [signature.return_annotation]
    parameters = [first.replace(name="self", annotation=inspect.Parameter.empty), *others]
    method.__signature__ = signature.replace(parameters=parameters, return_annotation=returned)


def blocking(operation: Callable[Concatenate[S, P], Operation[T]]) -> Callable[Concatenate[S, P], T]:
    """Make a method of an operation: it returns when the operation is done."""

    def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _driver(self).run(operation(self, *args, **kwargs))  # type: ignore[no-any-return]

    _describe(method, operation)
    return method


def awaitable(
    operation: Callable[Concatenate[S, P], Operation[T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a coroutine method of an operation."""

    async def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await _driver(self).run(operation(self, *args, **kwargs))  # type: ignore[no-any-return]

    _describe(method, operation)
    return method


def iterating(
    operation: Callable[Concatenate[S, P], Operation[Iterable[T]]],
) -> Callable[Concatenate[S, P], Iterator[T]]:
    """Make a method that returns an iterator of a stream."""

    def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return _driver(self).iterate(operation(self, *args, **kwargs))  # type: ignore[no-any-return]

    _describe(method, operation)
    return method


def async_iterating(
    operation: Callable[Concatenate[S, P], Operation[Iterable[T]]],
) -> Callable[Concatenate[S, P], AsyncIterator[T]]:
    """Make a method that returns an async iterator of a stream."""

    def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return _driver(self).iterate(operation(self, *args, **kwargs))  # type: ignore[no-any-return]

    _describe(method, operation)
    return method


Options = TypeVar("Options")
R = TypeVar("R")


def making(parse: Callable[P, Options], make: Callable[[S, Options], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method that takes the parameters of `parse`, and returns what `make` makes of the options."""

    @functools.wraps(parse)
    def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return make(self, parse(*args, **kwargs))

    return method


class Message(Reserved):
    """A reserved message of a Queue: its bytes, with `text` and `json()`."""

    client: "Queue"

    @property
    def driver(self) -> Driver:
        return self.client.driver

    ack = blocking(verbs.ack)
    release = blocking(verbs.release)
    reject = blocking(verbs.reject)
    extend = blocking(verbs.extend)


def _consumer(queue: "Queue", options: ConsumeOptions) -> Consumer[Message]:
    return Consumer(queue, options)


def _worker(queue: "Queue", options: WorkerOptions) -> Callable[[Callable[[Any], Any]], Worker]:
    return functools.partial(Worker, queue, options)


class AsyncMessage(Reserved):
    """A reserved message of an AsyncQueue: its bytes, with `text` and `json()`."""

    client: "AsyncQueue"

    @property
    def driver(self) -> AsyncDriver:
        return self.client.driver

    ack = awaitable(verbs.ack)
    release = awaitable(verbs.release)
    reject = awaitable(verbs.reject)
    extend = awaitable(verbs.extend)


def _async_consumer(queue: "AsyncQueue", options: ConsumeOptions) -> AsyncConsumer[AsyncMessage]:
    return AsyncConsumer(queue, options)


def _async_worker(queue: "AsyncQueue", options: WorkerOptions) -> Callable[[Callable[[Any], Any]], AsyncWorker]:
    return functools.partial(AsyncWorker, queue, options)


def _url(url: str | None) -> str:
    return url or os.environ.get("SEEQUEUE_URL") or DEFAULT_URL


def _headers(token: str | None) -> dict[str, str]:
    token = os.environ.get("SEEQUEUE_TOKEN") if token is None else token
    return {"Authorization": f"Bearer {token}"} if token else {}


class _Connected(Client[M], Generic[M, D]):
    """A server, and the driver that runs its operations."""

    driver_type: type[D]

    def __init__(
        self,
        name: str | Iterable[str] | None = None,
        *,
        url: str | None = None,
        token: str | None = None,
        timeout: float = 60,
    ) -> None:
        super().__init__(_url(url), name, timeout)
        self.driver: D = self.driver_type(_headers(token))


class Queue(_Connected[Message, Driver]):
    """A queue of a Seequeue server. Threads can share it; a forked process opens connections of its own.

    `name` can be several names, in order: `pop` and `reserve` then take from the first of them that has a message.
    Without a name it is the server's default queue. `url` is by default SEEQUEUE_URL or http://localhost:5000, and
    may have a path; `token` is by default SEEQUEUE_TOKEN. `timeout` is how long an operation goes on trying while the
    server is away, in seconds.

    Raises:
        Refused: not a name of a queue.
        ValueError: not an http or https URL, or no positive timeout.
    """

    message_type, driver_type = Message, Driver

    def __enter__(self) -> "Queue":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A queue that is used again opens new ones."""
        self.driver.close()

    push = blocking(verbs.push)
    push_many = blocking(streams.push_many)
    pop = blocking(verbs.pop)
    reserve = blocking(verbs.reserve)
    consume = making(consume, _consumer)
    worker = making(worker, _worker)
    settle = blocking(verbs.settle)
    result = blocking(verbs.result)
    set_result = blocking(verbs.set_result)
    count = blocking(verbs.count)
    queues = blocking(verbs.queues)
    consumers = blocking(verbs.consumers)
    reasons = blocking(verbs.reasons)
    all = iterating(streams.all)
    reserved = iterating(streams.reserved)
    delayed = iterating(streams.delayed)
    export = iterating(streams.export)
    import_lines = blocking(streams.import_lines)
    events = iterating(streams.events)
    follow_queues = iterating(streams.follow_queues)
    settings = blocking(tidying.settings)
    pause = blocking(tidying.pause)
    resume = blocking(tidying.resume)
    clear = blocking(tidying.clear)
    restore = blocking(tidying.restore)
    move = blocking(tidying.move)
    remove = blocking(tidying.remove)


class AsyncQueue(_Connected[AsyncMessage, AsyncDriver]):
    """A queue of a Seequeue server under asyncio: the operations of `Queue`, with await."""

    message_type, driver_type = AsyncMessage, AsyncDriver

    async def __aenter__(self) -> "AsyncQueue":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of this event loop. A queue that is used again opens new ones."""
        await self.driver.close()

    push = awaitable(verbs.push)
    push_many = awaitable(streams.push_many)
    pop = awaitable(verbs.pop)
    reserve = awaitable(verbs.reserve)
    consume = making(consume, _async_consumer)
    worker = making(worker, _async_worker)
    settle = awaitable(verbs.settle)
    result = awaitable(verbs.result)
    set_result = awaitable(verbs.set_result)
    count = awaitable(verbs.count)
    queues = awaitable(verbs.queues)
    consumers = awaitable(verbs.consumers)
    reasons = awaitable(verbs.reasons)
    all = async_iterating(streams.all)
    reserved = async_iterating(streams.reserved)
    delayed = async_iterating(streams.delayed)
    export = async_iterating(streams.export)
    import_lines = awaitable(streams.import_lines)
    events = async_iterating(streams.events)
    follow_queues = async_iterating(streams.follow_queues)
    settings = awaitable(tidying.settings)
    pause = awaitable(tidying.pause)
    resume = awaitable(tidying.resume)
    clear = awaitable(tidying.clear)
    restore = awaitable(tidying.restore)
    move = awaitable(tidying.move)
    remove = awaitable(tidying.remove)

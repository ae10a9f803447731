"""`consume()`: iterate over messages, each of which is settled when the body of the loop is done with it."""

import asyncio
import contextlib
import os
import threading
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from seequeue.core.protocol import check_lease, check_wait
from seequeue.core.verbs import M
from seequeue.errors import LeaseExpired
from seequeue.work import background, signals
from seequeue.work.aio import AsyncPump
from seequeue.work.hand import Hand, Job
from seequeue.work.link import Link, log
from seequeue.work.outcomes import NOTHING, Events, RetryDelay, backoff, success
from seequeue.work.threads import Pump, is_inner

LEFT = "the consumer left its loop"


class Flag(Protocol):
    """A threading.Event or an asyncio.Event."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class ConsumeOptions:
    """What `consume` was given."""

    names: tuple[str, ...]
    lease: float
    wait: float
    by: str | None
    retry_delay: RetryDelay
    until_empty: bool
    stop: Flag | None

    def link(self, client: Any) -> Link[Any]:
        hand = Hand(lease=self.lease)
        return Link(client, hand, names=self.names, wait=self.wait, by=self.by, until_empty=self.until_empty)


def consume(
    *more_queues: str,
    lease: float = 30,
    wait: float = 20,
    by: str | None = None,
    retry_delay: RetryDelay = backoff,
    until_empty: bool = False,
    stop: Flag | None = None,
) -> ConsumeOptions:
    """Iterate over messages, reserved for `lease` seconds (1 to 43,200), until SIGTERM.

        for message in queue.consume():
            with message:
                work(message)

    In the `with` block the lease is renewed. If the block ends, the message is acked when the loop asks for the next
    one. If it raises an error, the message is delivered again after `retry_delay`: seconds, or a function of the number
    of deliveries; by default 1 to 2 seconds, doubling each time. The reason is kept. After the last delivery, or at
    once for a `Reject`, the message becomes a dead letter. `break`, `return`, SystemExit and KeyboardInterrupt give it
    back to the front of the queue; call `message.ack()` before `break` if it is done. Without a `with` block a message
    is acked when the loop asks for the next one, and its lease is not renewed.

    A few messages are reserved ahead while the work is quick. `more_queues` are taken from when those before are empty;
    one request for a message waits for `wait` seconds (0 to 60). `by` is the name to show, by default host:pid.
    `until_empty` ends the loop when there is no message; `stop` is an event that ends it. While the server is away the
    loop waits for it, with one warning. Threads can share the iterator. `close()` ends it.

    Raises:
        SeequeueError: the server refuses for good: the token is wrong, or the key is not a list.
    """
    return ConsumeOptions(more_queues, check_lease(lease), check_wait(wait), by, retry_delay, until_empty, stop)


class _Held(Generic[M]):
    """A message in the body of a loop: its `with` block."""

    def __init__(self, pump: Pump | AsyncPump, job: Job, events: Events) -> None:
        self.pump, self.job, self.events, self.pid = pump, job, events, os.getpid()

    def enter(self) -> None:
        """Begin the `with` block."""
        self.pump.renew(self.job, is_on=True)

    def leave(self, error: BaseException | None) -> bool:
        """End the `with` block; return whether its error is dealt with."""
        if self.pid != os.getpid():
            return False  # a child of a fork: the message is its parent's
        self.pump.renew(self.job, is_on=False)
        message = self.job.message
        if error is None:
            return False  # it is acked when the loop goes on, as a break looks the same here
        if not isinstance(error, Exception):
            self.pump.give_back(self.job, LEFT)
            return False
        if message.is_settled and isinstance(error, LeaseExpired):
            log.warning("The lease of message %s ended before it was done, so it is delivered again.", message.id)
        elif message.is_settled:
            log.warning("The work on a message that was settled already failed.", exc_info=error)
        self.pump.finish(self.job, NOTHING if message.is_settled else self.events.failed(message, error))
        return True

    def go_on(self) -> None:
        """Ack the message: the body of the loop is done with it."""
        message = self.job.message
        self.pump.finish(self.job, NOTHING if message.is_settled else success(message, None, has_result=False))


class _Loop(Generic[M]):
    """What the two kinds of consumers share: the message that each thread or task has."""

    def __init__(self, client: Any, options: ConsumeOptions) -> None:
        self._client, self._options = client, options
        self._events = Events(retry_delay=options.retry_delay)
        self._link = options.link(client)
        self._held: dict[Any, _Held[M]] = {}
        self._is_closed = False

    def _go_on(self, who: Any) -> None:
        """Settle the message that a thread or task had."""
        if held := self._held.pop(who, None):
            held.go_on()

    def _hand_out(self, who: Any, pump: Pump | AsyncPump, job: Job) -> M:
        pump.renew(job, is_on=False)  # until its `with` block begins
        held: _Held[M] = _Held(pump, job, self._events)
        self._held[who] = held
        message: M = job.message  # type: ignore[assignment]
        message.held = held
        return message

    def _check(self) -> None:
        """Raise the error that ended the loop, once."""
        if self._link.error:
            error, self._link.error = self._link.error, None
            raise error

    def _leave(self, pump: Pump | AsyncPump) -> None:
        """Give back the messages whose bodies have not finished."""
        for held in list(self._held.values()):
            if held.job.message.is_settled:
                pump.finish(held.job, NOTHING)
            else:
                pump.give_back(held.job, LEFT)
        self._held.clear()


class Consumer(_Loop[M]):
    """An iterator over messages. Threads can share it: each has a message of its own."""

    def __init__(self, client: Any, options: ConsumeOptions) -> None:
        super().__init__(client, options)
        self._pump: Pump | None = None
        self._lock = threading.RLock()

    def __iter__(self) -> "Consumer[M]":
        return self

    def __next__(self) -> M:
        me = threading.get_ident()
        self._go_on(me)
        with self._lock:
            if self._pump is None and not self._is_closed:
                self._pump = Pump(self._link, self._client.driver)
                signals.start(self._pump.stop)
            pump = self._pump
        if pump and (jobs := pump.take(self._options.stop)):
            return self._hand_out(me, pump, jobs[0])
        if not self._held:  # else another thread still works
            self.close()
        self._check()
        raise StopIteration

    def close(self) -> None:
        """End the loop, and give back the messages that its body has not finished."""
        with self._lock:
            pump, self._pump, self._is_closed = self._pump, None, True
        if pump:
            signals.end(pump.stop)
            self._leave(pump)
            pump.close()

    def __enter__(self) -> "Consumer[M]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the end of the interpreter anything may be gone
            if not is_inner():
                self.close()
            elif self._pump:  # the garbage collector happened to run in a thread that must not wait
                background.later(self._pump.close)


class AsyncConsumer(_Loop[M]):
    """An async iterator over messages. Tasks can share it: each has a message of its own."""

    def __init__(self, client: Any, options: ConsumeOptions) -> None:
        super().__init__(client, options)
        self._pump: AsyncPump | None = None

    def __aiter__(self) -> "AsyncConsumer[M]":
        return self

    async def __anext__(self) -> M:
        me = asyncio.current_task()
        self._go_on(me)
        if self._pump is None and not self._is_closed:
            self._pump = AsyncPump(self._link, self._client.driver)
            signals.start(self._pump.stop_soon)
        pump = self._pump
        if pump and (jobs := await pump.take(self._options.stop)):
            return self._hand_out(me, pump, jobs[0])
        if not self._held:  # else another task still works
            await self.aclose()
        self._check()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the loop, and give back the messages that its body has not finished."""
        if pump := self._end():
            self._leave(pump)
            await pump.close()

    def _end(self) -> AsyncPump | None:
        pump, self._pump, self._is_closed = self._pump, None, True
        if pump:
            signals.end(pump.stop_soon)
        return pump

    async def __aenter__(self) -> "AsyncConsumer[M]":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the event loop, or the interpreter, may have ended
            if pump := self._end():
                pump.loop.call_soon_threadsafe(pump.begin_to_close, LEFT)

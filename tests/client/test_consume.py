"""consume(): each message is settled when the loop is done with it, however it leaves its body."""

import asyncio
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from seequeue import AsyncQueue, LeaseExpired, Message, OutcomeUnknown, Queue, Refused, Reject, Unauthorized
from seequeue.work import background, threads

from broker.queue import ReliableQueue
from tests.broker.helpers import end_leases
from tests.client.helpers import HttpProxy, dead, facts
from tests.servers import App, Store, until


@pytest.fixture(autouse=True)
def restored_sigterm() -> Iterator[None]:
    """Check that no test leaves a handler of SIGTERM behind; one that comes late must not end the tests."""
    before = signal.signal(signal.SIGTERM, handler := lambda *_: None)
    yield
    gc.collect()
    left = signal.signal(signal.SIGTERM, before)
    assert left == handler


def test_each_message_is_acked_when_its_body_is_done(queue: Queue) -> None:
    queue.push_many(["a", b"\xff\0:", "c"])
    seen = []
    for message in queue.consume(until_empty=True):
        with message:
            assert bytes(message) in [*queue.reserved()]
            seen.append((bytes(message), message.deliveries, message.queue))
    assert seen == [(b"a", 1, queue.name), (b"\xff\0:", 1, queue.name), (b"c", 1, queue.name)]
    assert facts(queue) == (0, 0, 0, 0)


def test_a_body_without_a_with_block_acks_too(queue: Queue) -> None:
    queue.push_many("ab")
    assert [bytes(message) for message in queue.consume(until_empty=True)] == [b"a", b"b"]
    assert facts(queue) == (0, 0, 0, 0)


def test_an_error_is_the_reason_and_the_message_comes_back_later(queue: Queue) -> None:
    queue.push_many(["bad", "good"])
    for message in queue.consume(until_empty=True, retry_delay=100):
        with message:
            if message == b"bad":
                raise ZeroDivisionError("no such number")
    [delayed] = queue.delayed()
    assert (delayed, delayed.reason, delayed.deliveries) == (b"bad", "ZeroDivisionError: no such number", 1)
    assert delayed.deadline and abs(delayed.deadline - time.time() - 100) < 50
    assert facts(queue) == (0, 0, 1, 0)


def test_the_last_error_is_the_reason_of_the_dead_letter(queue: Queue) -> None:
    queue.settings(max_deliveries=2)
    queue.push("bad")
    for message in queue.consume(until_empty=True, retry_delay=0):
        with message:
            raise ValueError(f"try {message.deliveries} of {message.max_deliveries}")
    assert dead(queue) == [(b"bad", 2, "ValueError: try 2 of 2")]


def test_a_rejected_message_is_buried_at_once(queue: Queue) -> None:
    class Never(Reject):
        pass

    queue.push_many("ab")
    for message in queue.consume(until_empty=True):
        with message:
            raise Never("x" * 2000) if message == b"b" else Reject("not a job")
    assert dead(queue) == [(b"a", 1, "Reject: not a job"), (b"b", 1, ("Never: " + "x" * 2000)[:1000])]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class NoText(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("a\ud800b\0\n"), "ValueError: a?b\0\n"),
        (Unprintable(), "Unprintable"),
        (NoText(), "NoText"),
        (ValueError(), "ValueError"),
        (MemoryError(), "MemoryError"),
        (StopIteration(), "StopIteration"),
        (OutcomeUnknown("disconnected", "of another queue"), "OutcomeUnknown: of another queue"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_an_error_says_the_loop_goes_on(
    queue: Queue, error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "seequeue")  # pytest-xdist cannot send a log that has a lone surrogate
    queue.push_many("ab")
    seen = []
    for message in queue.consume(until_empty=True, retry_delay=60):
        with message:
            seen.append(bytes(message))
            if message == b"a":
                raise error
    assert seen == [b"a", b"b"]
    assert [(one, one.reason) for one in queue.delayed()] == [(b"a", reason)]


def raises(deliveries: int) -> float:
    raise RuntimeError("no delay")


@pytest.mark.parametrize("delay", [raises, lambda _: None, lambda _: "soon", lambda _: float("nan")], ids=lambda _: "")
def test_a_retry_delay_that_fails_backs_off(queue: Queue, delay: Any, caplog: pytest.LogCaptureFixture) -> None:
    queue.push_many("ab")
    for message in queue.consume(until_empty=True, retry_delay=delay):
        with message:
            raise ValueError
    assert facts(queue)[2:] == (2, 0)
    assert "backing off instead" in caplog.text


def test_a_retry_delay_is_kept_within_its_bounds(queue: Queue) -> None:
    queue.settings(max_deliveries=2)
    queue.push_many("ab")
    for message in queue.consume(until_empty=True, retry_delay=lambda deliveries: -5 if deliveries == 1 else 1e12):
        with message:
            raise ValueError
    assert len(dead(queue)) == 2
    queue.settings(max_deliveries=3)
    queue.push("c")
    for message in queue.consume(until_empty=True, retry_delay=1e12):
        with message:
            raise ValueError
    assert [*queue.delayed()] == [b"c"]


# --- leaving the loop


def leave_by_break(loop: Any) -> None:
    for message in loop:
        with message:
            break


def leave_by_return(loop: Any) -> Any:
    for message in loop:
        with message:
            return message
    return None


def leave_by_exit(loop: Any) -> None:
    for message in loop:
        with message:
            raise SystemExit


def leave_by_interrupt(loop: Any) -> None:
    for message in loop:
        with message:
            raise KeyboardInterrupt


def leave_by_an_error(loop: Any) -> None:
    for _ in loop:
        raise ZeroDivisionError


LEAVES = [leave_by_break, leave_by_return, leave_by_exit, leave_by_interrupt, leave_by_an_error]


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("is_kept", [False, True], ids=["", "kept in a variable"])
def test_a_message_whose_loop_is_left_comes_back(queue: Queue, leave: Callable[[Any], Any], is_kept: bool) -> None:
    queue.push_many("ab")
    loop = queue.consume()
    try:
        leave(loop) if is_kept else leave(queue.consume())
    except BaseException as error:
        error.with_traceback(None)
    if is_kept:
        loop.close()  # its end does it too: test_work_processes.py
    assert [(one, one.reason) for one in queue.all(details=True)] == [
        (b"a", "the consumer left its loop"),
        (b"b", None),
    ]
    assert facts(queue) == (2, 0, 0, 0)


def test_a_message_that_was_acked_before_the_break_is_done(queue: Queue) -> None:
    queue.push_many("ab")
    for message in queue.consume():
        with message:
            message.ack()
            break
    assert [*queue.all()] == [b"b"]


def test_a_body_can_settle_its_message_itself(queue: Queue) -> None:
    queue.push_many(["acked", "released", "rejected", {"job": 7}])
    for message in queue.consume(until_empty=True):
        with message:
            if message.job:
                message.ack(result={"sum": 3})
            elif message == b"acked":
                message.ack()
                raise ValueError("after the ack")
            elif message == b"released":
                message.release(delay=60, reason="busy")
            else:
                message.reject("no")
    assert facts(queue) == (0, 0, 1, 1)
    assert queue.result(7) == b'{"sum":3}'


def test_a_loop_that_is_collected_in_a_thread_of_its_own_gives_back_its_message(queue: Queue) -> None:
    queue.push("a")
    loops = [queue.consume()]

    def collect() -> None:
        threads._inner.is_pump = True
        next(loops[0])
        loops.clear()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join()
    until(lambda: facts(queue) == (1, 0, 0, 0))


def test_a_paused_queue_ends_a_loop_until_empty(queue: Queue) -> None:
    queue.push("a")
    queue.pause()
    assert [*queue.consume(until_empty=True)] == []
    queue.resume()


def test_a_closed_loop_is_at_its_end(queue: Queue) -> None:
    queue.push_many("ab")
    with queue.consume() as loop:
        assert next(loop) == b"a"
    assert [*loop] == []
    assert facts(queue) == (2, 0, 0, 0)


def test_only_a_message_of_a_loop_has_a_with_block(queue: Queue) -> None:
    queue.push("a")
    message = queue.reserve()
    assert message
    with pytest.raises(RuntimeError, match="consume"), message:
        pass


@pytest.mark.parametrize(
    "options", [{"lease": 0.5}, {"lease": 50_000}, {"lease": float("nan")}, {"wait": -1}, {"wait": 61}], ids=repr
)
def test_what_the_server_would_refuse_is_refused_at_the_call(queue: Queue, options: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        queue.consume(**options)
    with pytest.raises(Refused):
        queue.consume("no name")


# --- stopping


def test_an_event_stops_a_loop_that_waits_in_a_thread(queue: Queue) -> None:
    stop, seen = threading.Event(), []

    def run() -> None:
        for message in queue.consume(stop=stop, wait=60):
            with message:
                seen.append(bytes(message))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    queue.push("a")
    until(lambda: seen and facts(queue) == (0, 0, 0, 0))
    until(lambda: queue.count().waiters)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    until(lambda: not queue.count().waiters)


def test_sigterm_ends_the_loop_after_its_body(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "later", lambda call: None)  # as if its thread were slow
    queue.push_many("abc")
    seen = []
    for message in queue.consume():
        with message:
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append(bytes(message))
    assert (seen, [*queue.all()]) == ([b"a"], [b"b", b"c"])


def test_loops_that_are_closed_in_the_wrong_order_leave_sigterm_as_it_was(queue: Queue) -> None:
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("mine"))
    try:
        queue.push_many("abcd")
        first, second = queue.consume(), queue.consume()
        next(first), next(second)
        first.close()
        os.kill(os.getpid(), signal.SIGTERM)
        assert [*second] == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == ["mine", "mine"]  # also while a loop ran, as for a web server that it runs in
    finally:
        signal.signal(signal.SIGTERM, before)


# --- threads, processes


def test_threads_share_a_loop_and_each_message_starts_once(queue: Queue) -> None:
    queue.push_many(range(60))
    loop, seen = queue.consume(until_empty=True), []

    def run() -> None:
        for message in loop:
            with message:
                seen.append(message.json())

    sharing = [threading.Thread(target=run, daemon=True) for _ in range(30)]
    for thread in sharing:
        thread.start()
    for thread in sharing:
        thread.join()
    assert sorted(seen) == [*range(60)]
    assert facts(queue) == (0, 0, 0, 0)


def test_a_thread_that_ends_leaves_the_messages_of_others_alone(queue: Queue) -> None:
    queue.push("a")
    stop, begun, go_on = threading.Event(), threading.Event(), threading.Event()
    loop = queue.consume(stop=stop)

    def run() -> None:
        for message in loop:
            with message:
                begun.set()
                go_on.wait(20)

    working = threading.Thread(target=run, daemon=True)
    working.start()
    assert begun.wait(20)
    stop.set()
    assert [*loop] == []
    assert facts(queue) == (0, 1, 0, 0)
    go_on.set()
    working.join()
    until(lambda: facts(queue) == (0, 0, 0, 0))


def test_a_forked_child_that_leaves_the_body_leaves_the_message_to_its_parent(queue: Queue) -> None:
    queue.push("a")
    for message in queue.consume(until_empty=True):
        with message:
            child = os.fork()
            if not child:
                try:
                    with message:
                        raise ValueError("in the child")
                except ValueError:  # it is the child's own
                    message.held.pump.close()
                    os._exit(0)
                os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            assert facts(queue) == (0, 1, 0, 0)
    assert facts(queue) == (0, 0, 0, 0)


# --- leases


def test_a_lease_is_renewed_while_the_block_runs(queue: Queue) -> None:
    queue.push("a")
    for message in queue.consume(lease=1, until_empty=True):
        with message:
            first = next(queue.reserved()).deadline
            until(lambda first=first: next(queue.reserved()).deadline > first + 1.1)  # type: ignore[misc]
    assert facts(queue) == (0, 0, 0, 0)


@pytest.mark.parametrize("is_explicit", [False, True], ids=["", "its own ack"])
def test_a_late_ack_is_a_warning(
    queue: Queue, valkey: Store, is_explicit: bool, caplog: pytest.LogCaptureFixture
) -> None:
    queue.push("a")
    loop = queue.consume()
    with next(loop) as message:
        end_leases(ReliableQueue(valkey.client(), str(queue.name)))
        if is_explicit:
            message.ack()
    again = next(loop)
    assert (again, again.deliveries) == (b"a", 2)
    until(lambda: "is delivered again" in caplog.text)
    assert "failed" not in caplog.text
    loop.close()


def test_a_break_whose_loop_is_kept_lets_the_lease_end(queue: Queue) -> None:
    queue.push("a")
    loop = queue.consume(lease=1)
    for message in loop:
        with message:
            break
    until(lambda: facts(queue) == (1, 0, 0, 0))
    loop.close()


# --- faults of the server


def test_a_server_that_is_away_is_waited_for_with_one_warning(
    flaky: Queue, front: HttpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seequeue")
    flaky.push("a")
    loop = flaky.consume()
    with next(loop) as message:
        assert message == b"a"
        front.refuse()

    def push() -> None:
        until(lambda: loop._link.failures > 2)
        front.accept()
        flaky.push("b")

    thread = threading.Thread(target=push, daemon=True)
    thread.start()
    assert next(loop) == b"b"
    thread.join()
    loop.close()
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING and "until it does" in one.message]
    assert (len(warnings), "answers again" in caplog.text) == (1, True)
    assert [*flaky.all()] == [b"b"]


@pytest.mark.parametrize("operation", ["/reserve", "/settle"])
def test_a_lost_answer_neither_loses_nor_doubles_the_work(
    queue: Queue, flaky: Queue, front: HttpProxy, valkey: Store, operation: str
) -> None:
    queue.push_many("ab")
    front.lose(operation)
    seen = []
    loop = flaky.consume()
    threading.Thread(target=_end_lost_leases, args=(queue, valkey, front, operation), daemon=True).start()
    for message in loop:
        with message:
            seen.append(bytes(message))
        if sorted(seen) == [b"a", b"b"]:
            message.ack()
            break
    loop.close()
    assert (sorted(seen), facts(queue)) == ([b"a", b"b"], (0, 0, 0, 0))


def _end_lost_leases(queue: Queue, valkey: Store, front: HttpProxy, operation: str) -> None:
    """End the lease of a message that was reserved, but whose answer was lost."""
    if operation == "/reserve":
        until(lambda: len(front.requests) > 1 and facts(queue)[1] == 1)
        end_leases(ReliableQueue(valkey.client(), str(queue.name)))


@pytest.mark.parametrize(("status", "error"), [(503, "busy"), (429, "too_many_blocked_clients"), (502, "")])
def test_a_busy_server_is_asked_again(flaky: Queue, front: HttpProxy, status: int, error: str) -> None:
    flaky.push("a")
    front.answer("/reserve", status, times=2, error=error)
    front.answer("/settle", status, times=2, error=error)
    assert [bytes(message) for message in flaky.consume(until_empty=True)] == [b"a"]
    assert facts(flaky) == (0, 0, 0, 0)


def test_an_error_for_good_ends_the_loop(flaky: Queue, front: HttpProxy) -> None:
    front.answer("/reserve", 401, error="token_required")
    with pytest.raises(Unauthorized):
        next(flaky.consume())


def test_several_queues_are_consumed_in_order_and_acked_where_they_came_from(site: App, name: str) -> None:
    queues = [Queue(f"{name}.{one}", url=site.url) for one in ("urgent", "normal", "low")]
    for queue in reversed(queues):
        queue.push(queue.name)
    seen = [message.queue for message in queues[0].consume(*(str(one.name) for one in queues[1:]), until_empty=True)]
    assert seen == [one.name for one in queues]
    assert [facts(queue) for queue in queues] == [(0, 0, 0, 0)] * 3


def test_a_consumer_is_listed_by_its_name(queue: Queue) -> None:
    queue.push("a")
    with queue.consume() as loop, next(loop):
        assert str(next(queue.reserved()).by).endswith(f":{os.getpid()}")
    queue.pop()
    queue.push("b")
    with queue.consume(by="me") as loop, next(loop):
        assert [one.by for one in queue.reserved()] == ["me"]


# --- asyncio


def test_an_async_loop_consumes_too(site: App, name: str) -> None:
    async def run() -> list[bytes]:
        seen = []
        async with AsyncQueue(name, url=site.url) as queue:
            await queue.push_many(["good", "bad", {"job": 1}])
            async for message in queue.consume(until_empty=True, retry_delay=60):
                with message:
                    seen.append(bytes(message))
                    if message == b"bad":
                        raise ValueError("bad")
                    if message.job:
                        await message.ack(result="done")
            assert await queue.result(1) == b"done"
        return seen

    assert asyncio.run(run()) == [b"good", b"bad", b'{"job":1}']
    assert facts(Queue(name, url=site.url)) == (0, 0, 1, 0)


@pytest.mark.parametrize("is_kept", [False, True], ids=["", "kept in a variable"])
def test_a_message_whose_async_loop_is_left_comes_back(queue: Queue, is_kept: bool) -> None:
    queue.push_many("ab")
    kept: list[Any] = []

    async def run() -> None:
        async_queue = AsyncQueue(queue.name, url=queue.url)
        loop = async_queue.consume()
        kept.extend([loop] if is_kept else [])
        async for message in loop:
            with message:
                break

    asyncio.run(run())
    assert [*queue.all()] == [b"a", b"b"]
    assert facts(queue) == (2, 0, 0, 0)


def test_an_event_or_sigterm_stops_an_async_loop(queue: Queue) -> None:
    async def run(stop: asyncio.Event | None) -> None:
        async_queue = AsyncQueue(queue.name, url=queue.url)
        loop = asyncio.get_running_loop()
        loop.call_later(0.3, stop.set if stop else lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert [one async for one in async_queue.consume(stop=stop)] == []

    asyncio.run(run(None))

    async def with_event() -> None:
        await run(asyncio.Event())

    asyncio.run(with_event())


def test_a_message_that_was_acked_cannot_be_released(queue: Queue) -> None:
    queue.push("a")
    with queue.consume() as loop:
        message: Message = next(loop)
        message.ack()
        message.ack()  # harmless
        with pytest.raises(LeaseExpired):
            message.release()

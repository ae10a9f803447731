"""A lost connection, or a server that is away, neither loses nor doubles a message."""

import asyncio
import json
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from seequeue import AsyncQueue, OutcomeUnknown, Queue, SeequeueError, Unavailable
from seequeue.errors import from_answer
from seequeue.work.outcomes import is_lasting

from tests.client.helpers import HttpProxy
from tests.servers import App, Store, free_port, until


def test_a_push_whose_answer_is_lost_is_stored_once(flaky: Queue, front: HttpProxy) -> None:
    front.lose("/push", times=2)
    assert flaky.push("a").count == 1
    assert [*flaky.all()] == [b"a"]
    assert len({headers["idempotency-key"] for headers in front.headers[:3]}) == 1


def test_a_stream_of_messages_whose_answers_are_lost_is_stored_once(flaky: Queue, front: HttpProxy) -> None:
    front.lose("/push", times=2)
    assert flaky.push_many(iter(range(2500))) == 2500
    assert [message.json() for message in flaky.all()] == [*range(2500)]


def test_a_pop_whose_answer_is_lost_returns_the_message(flaky: Queue, front: HttpProxy) -> None:
    flaky.push_many("ab")
    front.lose("/pop")
    assert (flaky.pop(), flaky.pop(max=2)) == (b"a", [b"b"])


def test_a_pop_of_several_queues_is_not_repeated(front: HttpProxy, name: str) -> None:
    both = Queue([name, name + ".low"], url=front.url, timeout=5)
    front.lose("/pop")
    with pytest.raises(OutcomeUnknown):
        both.pop()
    front.answer("/pop", 503, error="busy")
    assert both.pop() is None


@pytest.mark.parametrize(
    ("status", "error", "retry_after"),
    [
        (503, "busy", None),
        (503, "outcome_unknown", None),
        (429, "too_many_blocked_clients", 0),
        (507, "redis_full", None),
    ],
)
def test_a_busy_server_is_asked_again(
    flaky: Queue, front: HttpProxy, status: int, error: str, retry_after: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    front.answer("/push", status, times=3, error=error, retry_after=retry_after)
    assert flaky.push("a").count == 1
    assert len(caplog.records) == 1  # one warning, not one a try


def test_an_answer_for_good_is_not_repeated(flaky: Queue, front: HttpProxy) -> None:
    front.answer("/push", 413, error="message_too_large")
    with pytest.raises(SeequeueError, match="A planned answer") as caught:
        flaky.push("a")
    assert (caught.value.code, caught.value.status, len(front.requests)) == ("message_too_large", 413, 1)


def test_a_clear_whose_answer_is_lost_is_not_repeated(flaky: Queue, front: HttpProxy) -> None:
    front.lose("/clear")
    with pytest.raises(OutcomeUnknown):
        flaky.clear()
    front.answer("/clear", 503, error="busy")
    assert flaky.clear().count == 0


def test_an_ack_and_a_release_whose_answers_are_lost_are_done(flaky: Queue, front: HttpProxy) -> None:
    flaky.push_many("ab")
    first, second = flaky.reserve(max=2)
    front.lose("/ack")
    front.lose("/release")
    first.ack()
    second.release()
    assert [*flaky.all()] == [b"b"]


def test_a_server_that_is_away_is_waited_for(flaky: Queue, front: HttpProxy, caplog: pytest.LogCaptureFixture) -> None:
    front.refuse()
    thread = threading.Thread(target=flaky.push, args=("a",), daemon=True)
    thread.start()
    until(lambda: caplog.records)
    front.accept()
    thread.join()
    assert [*flaky.all()] == [b"a"]
    assert len(caplog.records) == 1


def test_a_server_that_stays_away_is_given_up_in_time() -> None:
    queue = Queue("a", url=f"http://127.0.0.1:{free_port()}", timeout=0.3)
    with pytest.raises(Unavailable, match="Cannot reach the server"):
        queue.push("a")
    with pytest.raises(Unavailable):
        asyncio.run(_push(AsyncQueue("a", url=queue.url, timeout=0.3)))


async def _push(queue: AsyncQueue) -> Any:
    return await queue.push("a")


def test_a_list_that_breaks_off_says_so(flaky: Queue, front: HttpProxy) -> None:
    flaky.push_many(f"{number:0100}" for number in range(1000))
    front.lose("/all")  # before it began: it is asked for again
    assert len([*flaky.all()]) == 1000
    front.lose("/all", after=50_000)
    found: list[bytes] = []
    with pytest.raises(OutcomeUnknown, match="in the middle"):
        found.extend(flaky.all())
    assert isinstance(asyncio.run(_list(flaky, front)), OutcomeUnknown)


async def _list(queue: Queue, front: HttpProxy) -> Exception | None:
    front.lose("/all", after=50_000)
    try:
        async for _ in AsyncQueue(queue.name, url=queue.url).all():
            pass
    except OutcomeUnknown as error:
        return error
    return None


def test_events_go_on_after_a_lost_connection(flaky: Queue, front: HttpProxy) -> None:
    events = flaky.events()
    assert next(events)["count"] == 0
    front.refuse()
    front.accept()
    flaky.push("a")
    assert next(events)["count"] == 1


def test_an_answer_that_is_not_of_seequeue_says_so(flaky: Queue, front: HttpProxy) -> None:
    front._plans.append(["/count", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"])
    with pytest.raises(SeequeueError, match="is it Seequeue"):
        flaky.count()


@pytest.mark.slow
def test_pushes_survive_a_server_that_is_killed(
    serve: Callable[..., App], own_store: Callable[..., Store], name: str
) -> None:
    app = serve(REDIS_URL=own_store("valkey").url)
    queue = Queue(name, url=app.url)

    restart = threading.Thread(target=app.start, daemon=True)

    def numbers() -> Any:
        for number in range(5000):
            if number == 2500:
                app.end(signal.SIGKILL)
                restart.start()
            yield number

    assert queue.push_many(numbers()) == 5000
    restart.join()
    assert [message.json() for message in queue.all()] == [*range(5000)]


@pytest.mark.parametrize("code", ["incomplete_body", "body_timeout"])
def test_a_body_that_broke_off_on_the_way_is_sent_again(code: str) -> None:
    answer = json.dumps({"success": False, "error": code, "message": "The body is shorter."}).encode()
    error = from_answer(400, answer, {})
    assert isinstance(error, Unavailable) and not is_lasting(error)

"""Queue and AsyncQueue on a real server: each operation, and what they refuse before they send anything."""

import asyncio
import os
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import pytest
import seequeue
from seequeue import (
    AsyncQueue,
    JobFailed,
    LeaseExpired,
    Limited,
    Message,
    Paused,
    Payload,
    Queue,
    Refused,
    Unauthorized,
)

from tests.client.helpers import HttpProxy
from tests.servers import App, until


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("hellö", "hellö".encode()),
        (b"\xff\0", b"\xff\0"),
        (bytearray(b"a"), b"a"),
        ({"to": "ö", "n": 1.5}, '{"to":"ö","n":1.5}'.encode()),
        ({"base64": "aGk="}, b'{"base64":"aGk="}'),
        (17, b"17"),
        ("null", b"null"),
    ],
    ids=repr,
)
def test_a_message_comes_back_as_it_was_pushed(queue: Queue, value: Any, stored: bytes) -> None:
    assert queue.push(value).count == 1
    assert queue.push_many([value]) == 1
    assert list(queue.all()) == [stored, stored]
    first, second = queue.pop(), queue.reserve()
    assert (first, second) == (stored, stored)
    assert queue.pop() is None


@pytest.mark.parametrize("value", ["", b"", None, "\ud800", {"a": "\ud800"}, float("nan"), [float("inf")]], ids=repr)
def test_what_is_no_message_is_refused_before_it_is_sent(queue: Queue, value: Any) -> None:
    for push in (queue.push, lambda value: queue.push_many([value])):
        with pytest.raises(Refused):
            push(value)
    assert queue.count().count == 0


def test_a_message_tells_its_text_and_json(queue: Queue) -> None:
    queue.push({"n": 1})
    message = queue.pop()
    assert message is not None
    assert_type(message, Payload)
    assert (message.text, message.json(), bytes(message)) == ('{"n":1}', {"n": 1}, b'{"n":1}')
    assert type(bytes(message)) is bytes


def test_pushes_go_to_the_front_and_wait_for_their_delay(queue: Queue) -> None:
    queue.push("a")
    queue.push("b", front=True)
    pushed = queue.push("c", delay=60)
    assert [*queue.all()] == [b"b", b"a"]
    [delayed] = queue.delayed()
    assert (delayed, delayed.id) == (b"c", pushed.id)
    queue.push("", front=True)  # what was popped can always be put back
    assert queue.pop() == b""


def test_the_same_key_stores_a_message_once(queue: Queue) -> None:
    assert (queue.push("a", key="k"), queue.push("a", key="k")) == (queue.push("a", key="k"), seequeue.Pushed(1))
    with pytest.raises(seequeue.SeequeueError) as caught:
        queue.push("b", key="k")
    assert (caught.value.code, caught.value.status) == ("conflict", 409)


def test_a_reservation_is_extended_released_rejected_and_acked(queue: Queue) -> None:
    queue.push("a")
    message = queue.reserve(lease=100, by="me")
    assert message is not None
    assert_type(message, Message)
    assert (message.deliveries, message.max_deliveries, message.queue) == (1, 5, queue.name)
    deadline = message.deadline
    assert message.extend(4000) == message.deadline > deadline + 3000
    assert [one.by for one in queue.reserved()] == ["me"]
    assert [one.by for one in queue.consumers()] == ["me"]
    message.release(reason="not now")
    [again] = queue.reserve(max=5)
    assert again.deliveries == 2
    again.reject("n" * 2000 + "\ud800")
    [dead] = Queue(f"{queue.name}.dead", url=queue.url).all(details=True)
    assert (dead, dead.reason, dead.deliveries) == (b"a", "n" * 1000, 2)
    assert queue.reasons()[0].count == 1
    for late in (message.ack, again.release, lambda: again.extend(5)):
        with pytest.raises(LeaseExpired) as caught:
            late()
        assert (caught.value.code, caught.value.status, caught.value.answer["stale"]) == (
            "stale",
            409,
            caught.value.answer["stale"],
        )
    queue.push("b")
    last = queue.reserve()
    assert last is not None
    last.ack()
    assert queue.count().reserved == 0


def test_a_delayed_release_comes_back_later(queue: Queue) -> None:
    queue.push("a")
    message = queue.reserve()
    assert message is not None
    message.release(delay=60, reason="later")
    [delayed] = queue.delayed()
    assert (delayed, delayed.reason, queue.count().delayed) == (b"a", "later", 1)


def test_several_messages_are_settled_each_for_itself(queue: Queue) -> None:
    queue.push_many(range(4))
    done, failed, kept, _ = (one.id for one in queue.reserve(max=4))
    settled = queue.settle([done, "gone"], [{"id": failed, "dead": True}], [{"id": kept, "lease": 90}])
    assert settled == seequeue.Settled(acked=1, released=1, dead=1, extended=1, stale=("gone",))
    assert queue.settle() == seequeue.Settled()


@pytest.mark.parametrize("job", ["sum-1", 17])
def test_a_result_comes_back_to_its_producer(queue: Queue, job: Any) -> None:
    assert queue.result(job) is None
    for value, stored in (({"sum": 3}, b'{"sum":3}'), (None, b"null"), ("", b'""'), (b"\xff", b"\xff")):
        queue.push({"job": job})
        message = queue.reserve()
        assert message is not None
        message.ack(result=value, job=job)
        found = queue.result(job)
        assert found == stored
    queue.set_result(job, "new", keep=60)
    assert queue.result(job, wait=5) == b"new"


def test_a_failed_job_tells_its_producer_why(queue: Queue) -> None:
    queue.push({"job": 17})
    message = queue.reserve()
    assert message is not None
    message.reject("no such number")
    with pytest.raises(JobFailed, match="no such number"):
        queue.result(17)


@pytest.mark.parametrize(
    "message", [{"job": True}, {"job": {}}, {"job": "a b"}, {"job": ""}, ["job"], '"job"', b'{"job"']
)
def test_a_message_without_a_valid_job_name_has_no_job(queue: Queue, message: Any) -> None:
    queue.push(message)
    reserved = queue.reserve()
    assert reserved is not None
    assert reserved.job is None
    with pytest.raises(ValueError, match="name of a job"):
        reserved.ack(result=1)


def test_an_empty_a_paused_and_a_limited_queue_differ(queue: Queue) -> None:
    assert (queue.pop(), queue.reserve(), queue.pop(max=3), queue.reserve(max=3)) == (None, None, [], [])
    queue.push_many("abc")
    queue.pause()
    assert queue.count().paused
    with pytest.raises(Paused):
        queue.pop()
    queue.resume()
    assert queue.settings(at_once=1) == queue.settings()
    assert queue.reserve(max=3) == [b"a"]
    with pytest.raises(Limited) as caught:
        queue.reserve()
    assert caught.value.retry_after is not None


def test_messages_are_cleared_restored_moved_and_removed(queue: Queue) -> None:
    queue.push_many("abcd")
    cleared = queue.clear()
    assert (cleared.count, queue.count().count, queue.restore(cleared.undo or "")) == (4, 0, 4)
    removed = queue.remove(messages=[(1, "b"), (3, "not d")])
    assert (removed.count, [*queue.all()]) == (1, [b"a", b"c", b"d"])
    assert queue.restore(removed.undo or "") == 1
    other = Queue(f"{queue.name}.other", url=queue.url)
    moved = queue.move(f"{queue.name}.other", contains="c")
    assert (moved.count, [*other.all()]) == (1, [b"c"])
    assert queue.restore(moved.undo or "") == 1
    with pytest.raises(LeaseExpired):
        queue.restore(moved.undo or "")
    assert {one.name: one.count for one in queue.queues(f"{queue.name}*")} == {queue.name: 4}


def test_several_queues_are_taken_from_in_order(site: App, name: str) -> None:
    urgent, low = f"{name}.urgent", f"{name}.low"
    both = Queue([urgent, low], url=site.url)
    Queue(low, url=site.url).push("later")
    Queue(urgent, url=site.url).push("first")
    first, second = both.reserve(), both.reserve()
    assert first and second
    assert (first, first.queue, second, second.queue) == (b"first", urgent, b"later", low)
    second.ack()
    assert both.pop() is None
    with pytest.raises(ValueError, match="several queues"):
        both.push("where?")


@pytest.mark.parametrize(
    "names", ["a b", "", "a/b", "ä", "a" * 129, ["a", "a"], ["a", ""], list("abcdefghijk"), [1]], ids=repr
)
def test_a_name_that_the_server_refuses_is_refused_at_once(names: Any) -> None:
    with pytest.raises(Refused) as caught:
        Queue(names)
    assert (caught.value.code, caught.value.status) == ("bad_name", 400)


def test_numbers_are_refused_with_the_words_of_the_server(queue: Queue, front: HttpProxy) -> None:
    queue.push("a")
    message = queue.reserve()
    assert message is not None
    away = Queue("a", url=front.url)
    cases: list[tuple[Any, str, dict[str, Any]]] = [
        (lambda: away.reserve(lease=0.5), "reserve", {"lease": 0.5}),
        (lambda: away.reserve(lease=50_000), "reserve", {"lease": 50_000}),
        (lambda: away.pop(wait=61), "pop", {"wait": 61}),
        (lambda: away.pop(wait=float("nan")), "pop", {"wait": "nan"}),
        (lambda: away.push("a", delay=-1), "push", {"message": "a", "delay": -1}),
        (lambda: away.result("a", wait=-1), "result", {"job": "j", "wait": -1}),
    ]
    for refused, operation, fields in cases:
        with pytest.raises(Refused) as caught:
            refused()
        with pytest.raises(Refused) as said:
            queue.driver.run(_ask(queue, operation, fields))
        if operation != "result":
            assert caught.value.message == said.value.message
        assert (caught.value.code, caught.value.status) == ("bad_parameter", 400)
    assert front.requests == []


def _ask(queue: Queue, operation: str, fields: dict[str, Any]) -> Any:
    from seequeue.core.protocol import call, post  # noqa: PLC0415

    return call(queue, post(queue.path(operation), **fields))


@pytest.mark.slow
def test_a_wrong_token_is_an_error_of_its_own(
    serve: Any, valkey: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    app = serve(REDIS_URL=valkey.url, API_TOKEN="secret-token-of-the-test", URL_PREFIX="/inner")
    for url in (app.url + "/inner", app.url + "/inner/"):
        monkeypatch.setenv("SEEQUEUE_URL", url)
        with pytest.raises(Unauthorized):
            Queue(name).push("a")
        monkeypatch.setenv("SEEQUEUE_TOKEN", "secret-token-of-the-test")
        assert Queue(name).push("a").count >= 1
        assert Queue(name, token="secret-token-of-the-test").count().count >= 1
        monkeypatch.delenv("SEEQUEUE_TOKEN")


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="http"):
        Queue("a", url="localhost:5000")


def test_threads_share_a_queue(queue: Queue) -> None:
    threads = [threading.Thread(target=queue.push, args=(str(number),)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(queue.all()) == sorted(str(number).encode() for number in range(20))


def test_a_forked_child_opens_connections_of_its_own(queue: Queue) -> None:
    queue.push("parent")
    child = os.fork()
    if not child:
        try:
            queue.push("child")
            queue.close()
        finally:
            os._exit(0)
    queue.push("parent")
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(queue.all()) == [b"child", b"parent", b"parent"]


def test_an_async_queue_has_the_same_operations(site: App, name: str) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(2500):
            yield number

    async def run() -> None:
        async with AsyncQueue(name, url=site.url) as queue:
            assert await queue.push_many(numbers()) == 2500
            assert [message.json() async for message in queue.all()] == [*range(2500)]
            message = await queue.reserve()
            assert message is not None
            assert_type(message, seequeue.AsyncMessage)
            await message.extend(60)
            await message.ack()
            first, second = await asyncio.gather(queue.pop(), queue.pop())
            assert {first, second} == {b"1", b"2"}
            async for event in queue.events(next=1):
                assert (event["count"], event["next"]) == (2497, [{"preview": "3", "bytes": 1}])
                break
            async for queues in queue.follow_queues(name):
                assert [one.count for one in queues] == [2497]
                break

    asyncio.run(run())


def test_an_async_queue_serves_one_event_loop_after_the_other(site: App, name: str) -> None:
    queue = AsyncQueue(name, url=site.url)
    assert [asyncio.run(_push(queue)) for _ in range(2)] == [1, 2]


async def _push(queue: AsyncQueue) -> int:
    return (await queue.push("a")).count


def test_events_follow_the_queue(queue: Queue) -> None:
    events = queue.events()
    assert next(events)["count"] == 0
    queue.push("a")
    assert next(events)["next"] == [{"preview": "a", "bytes": 1}]
    lists = queue.follow_queues(queue.name)
    assert [one.count for one in next(lists)] == [1]
    queue.pop()
    until(lambda: next(lists) == [])


def test_a_stream_of_any_length_is_pushed_and_listed_with_progress(queue: Queue) -> None:
    def numbers() -> Iterator[int]:
        yield from range(3500)

    seen: list[tuple[int, int | None]] = []
    assert queue.push_many(numbers(), progress=lambda *done: seen.append(done)) == 3500
    assert seen == [(1000, None), (2000, None), (3000, None), (3500, None)]
    seen.clear()
    found = [message.json() for message in queue.all(offset=500, progress=lambda *done: seen.append(done))]
    assert (found, seen[-1]) == ([*range(500, 3500)], (3000, 3000))
    seen.clear()
    assert queue.push_many(["a"] * 10, progress=lambda *done: seen.append(done)) == 10
    assert seen == [(10, 10)]
    assert [(one, one.position) for one in queue.all(contains="349", limit=2)] == [(b"349", 349), (b"1349", 1349)]


def test_streams_take_constant_memory(queue: Queue) -> None:
    tracemalloc.start()
    try:
        queue.push_many("x" * 1000 for _ in range(20_000))
        assert sum(len(message) for message in queue.all()) == 20_000_000
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_batch_has_about_a_mebibyte(queue: Queue) -> None:
    sizes = []
    queue.push_many(["x" * 400_000] * 5, progress=lambda done, _: sizes.append(done))
    assert sizes == [2, 4, 5]


def test_the_messages_before_a_refused_one_are_stored(queue: Queue) -> None:
    with pytest.raises(Refused):
        queue.push_many([*range(1500), ""])
    assert queue.count().count == 1000


def test_an_async_iterable_needs_an_async_queue(queue: Queue) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match="AsyncQueue"):
        queue.push_many(numbers())

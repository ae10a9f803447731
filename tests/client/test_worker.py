"""Workers: functions that are called with messages by threads, by tasks and in a process pool."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from seequeue import AsyncQueue, AsyncWorker, JobFailed, Queue, Refused, Reject, Unauthorized, Worker

from broker.queue import ReliableQueue
from tests.broker.helpers import end_leases
from tests.client.helpers import HttpProxy, dead, facts
from tests.servers import App, Store, until

Run = Callable[..., Any]


class Threads:
    """Runs the worker of a Queue, in a thread."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def make(self, function: Callable[[Any], Any], **options: Any) -> Any:
        return self.queue.worker(**options)(function)

    def run(self, worker: Any) -> None:
        worker.run()


class Tasks:
    """Runs the worker of an AsyncQueue, in the event loop of a thread."""

    def __init__(self, queue: Queue) -> None:
        self.queue = AsyncQueue(queue.name, url=queue.url)

    def make(self, function: Callable[[Any], Any], **options: Any) -> Any:
        async def call(message: Any) -> Any:
            return function(message)

        return self.queue.worker(**options)(call)

    def run(self, worker: Any) -> None:
        asyncio.run(worker.run())


@pytest.fixture(params=[Threads, Tasks])
def kind(request: pytest.FixtureRequest, queue: Queue) -> Any:
    return request.param(queue)


@pytest.fixture
def running(kind: Any) -> Iterator[Run]:
    """Run a function as a worker until the end of the test: running(function, concurrency=3)."""
    started: list[tuple[Any, threading.Thread]] = []

    def start(function: Callable[[Any], Any], **options: Any) -> Any:
        worker = kind.make(function, **options)
        thread = threading.Thread(target=kind.run, args=(worker,))
        thread.start()
        started.append((worker, thread))
        return worker

    yield start
    for worker, _ in started:
        worker.stop()
    for _, thread in started:
        thread.join(30)
        assert not thread.is_alive()


def test_each_message_is_worked_on_once(queue: Queue, running: Run) -> None:
    seen: list[int] = []
    running(lambda message: seen.append(message.json()), concurrency=8)
    queue.push_many(range(3000))
    until(lambda: facts(queue) == (0, 0, 0, 0))
    assert sorted(seen) == [*range(3000)]


def test_one_thread_works_in_the_order_of_the_queue(queue: Queue, running: Run) -> None:
    seen: list[int] = []
    queue.push_many(range(1000))
    running(lambda message: seen.append(message.json()))
    until(lambda: facts(queue) == (0, 0, 0, 0))
    assert seen == [*range(1000)]


def test_errors_retry_and_rejections_bury(queue: Queue, running: Run) -> None:
    queue.settings(max_deliveries=2)
    queue.push_many(["reject", "fail", "good"])

    def work(message: Any) -> None:
        if message == b"reject":
            raise Reject("never")
        if message == b"fail":
            raise ValueError(f"try {message.deliveries}")

    running(work, retry_delay=0)
    until(lambda: facts(queue) == (0, 0, 0, 2))
    assert sorted(dead(queue)) == [(b"fail", 2, "ValueError: try 2"), (b"reject", 1, "Reject: never")]


def test_a_batch_is_one_call(queue: Queue, running: Run) -> None:
    calls: list[list[int]] = []
    queue.push_many(range(25))

    def work(messages: Any) -> None:
        calls.append([message.json() for message in messages])
        if 7 in calls[-1] and messages[0].deliveries == 1:
            raise ValueError

    running(work, batch=10, retry_delay=0)
    until(lambda: facts(queue) == (0, 0, 0, 0))
    assert {number for call in calls for number in call} == {*range(25)}
    assert len(calls[0]) == 10
    assert sum(7 in call for call in calls) == 2


def test_the_result_of_a_job_comes_back_to_its_producer(queue: Queue, running: Run) -> None:
    def work(message: Any) -> Any:
        value = message.json()["value"]
        if value == "error":
            raise Reject("no such value")
        return {"set": {1}, "large": "x" * 2_000_000}.get(str(value), value)

    running(work)
    for job, value in {"dict": {"sum": 3}, "none": None, "text": "hello", "empty": ""}.items():
        queue.push({"job": job, "value": value})
    results = {job: queue.result(job, wait=20) for job in ("dict", "none", "text", "empty")}
    assert results == {"dict": b'{"sum":3}', "none": b"null", "text": b"hello", "empty": b'""'}
    failures = [(17, "error", "no such value"), ("a", "large", "larger than"), ("b", "set", "not JSON serializable")]
    for name, value, reason in failures:
        queue.push({"job": name, "value": value})
        with pytest.raises(JobFailed, match=reason):
            queue.result(str(name), wait=20)
    assert facts(queue) == (0, 0, 0, 3)


def test_a_result_that_is_refused_does_not_hold_up_the_others(queue: Queue, running: Run) -> None:
    queue.push_many([*range(300), {"job": "large"}, *range(300, 600)])
    seen: list[bytes] = []

    def work(message: Any) -> Any:
        seen.append(bytes(message))
        return "x" * 2_000_000 if message.job else None

    running(work)
    until(lambda: facts(queue) == (0, 0, 0, 1))
    assert (len(seen), [one[0] for one in dead(queue)]) == (601, [b'{"job":"large"}'])


def test_a_message_of_the_wrong_shape_never_ends_the_worker(queue: Queue, running: Run) -> None:
    queue.settings(max_deliveries=1)
    shapes = [
        b"\xff",
        "[]",
        "null",
        "{",
        '"',
        "[" * 5000,
        {"job": [1]},
        {"job": "a b"},
        {"job": 1.5},
        {"job": "x" * 256},
    ]
    queue.push_many([*shapes, {"job": "good", "to": "me"}])
    running(lambda message: message.json()["to"])
    assert queue.result("good", wait=20) == b"me"
    until(lambda: facts(queue) == (0, 0, 0, len(shapes)))


def test_hooks_are_called_and_a_hook_that_fails_changes_nothing(queue: Queue, running: Run) -> None:
    queue.settings(max_deliveries=2)
    queue.push_many(["good", "bad", "never"])
    calls: list[Any] = []

    def hook(name: str) -> Callable[..., None]:
        def call(message: Any, *more: Any) -> None:
            calls.append((name, bytes(message), *[repr(one) for one in more]))
            raise RuntimeError("in a hook")

        return call

    def work(message: Any) -> str:
        if message == b"good":
            return "done"
        raise Reject("no") if message == b"never" else ValueError("bad")

    hooks = {name: hook(name) for name in ("on_start", "on_done", "on_retry", "on_reject")}
    running(work, retry_delay=0, **hooks)
    until(lambda: facts(queue) == (0, 0, 0, 2))
    assert sorted(calls) == sorted(
        [
            *[("on_start", name) for name in (b"good", b"bad", b"bad", b"never")],
            ("on_done", b"good", "'done'"),
            ("on_retry", b"bad", "ValueError('bad')", "0.0"),
            ("on_reject", b"bad", "ValueError('bad')"),
            ("on_reject", b"never", "Reject('no')"),
        ]
    )


def test_what_the_work_settled_itself_is_left_alone(queue: Queue) -> None:
    queue.push_many(["acked", "released", "failed after"])

    @queue.worker()
    def work(message: Any) -> None:
        if message == b"released":
            message.release(delay=60)
        else:
            message.ack()
        if message == b"failed after":
            raise ValueError

    _run_until(work, lambda: facts(queue) == (0, 0, 1, 0))


def _run_until(worker: Worker, is_met: Callable[[], Any]) -> None:
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(is_met)
    worker.stop()
    thread.join(30)
    assert not thread.is_alive()


# --- leases, prefetching


def test_the_leases_of_a_batch_are_renewed_in_one_request(flaky: Queue, front: HttpProxy) -> None:
    flaky.push_many(range(10))
    go_on = threading.Event()

    @flaky.worker(lease=1, batch=10)
    def work(messages: Any) -> None:
        assert len(messages) == 10
        go_on.wait(30)

    def is_extended() -> bool:
        settles = [body for line, body in zip(front.requests, front.bodies, strict=True) if "/settle" in line]
        go_on.set() if len(settles) >= 4 else None
        return go_on.is_set() and facts(flaky) == (0, 0, 0, 0)

    _run_until(work, is_extended)
    settles = [body for line, body in zip(front.requests, front.bodies, strict=True) if "/settle" in line]
    assert [body.count(b'"lease"') for body in settles] == [10] * (len(settles) - 1) + [0]


def test_a_job_that_waits_in_hand_is_given_to_another_worker(queue: Queue, running: Run) -> None:
    slow = threading.Event()
    first: list[bytes] = []
    second: list[bytes] = []

    def one(message: Any) -> None:
        first.append(bytes(message))
        if message == b"slow":
            slow.wait(30)

    queue.push_many(["quick"] * 200 + ["slow"] + [f"after{number}" for number in range(5)])
    worker = queue.worker()(one)
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: b"slow" in first)
    running(lambda message: second.append(bytes(message)))
    until(lambda: len(second) == 5)
    assert second == [f"after{number}".encode() for number in range(5)]
    slow.set()
    worker.stop()
    thread.join()
    assert facts(queue) == (0, 0, 0, 0)


def test_no_more_are_reserved_than_the_queue_allows_at_once(queue: Queue, running: Run) -> None:
    queue.settings(at_once=2)
    queue.push_many(range(30))
    working, most = set(), []

    def work(message: Any) -> None:
        working.add(message)
        most.append(len(working))
        time.sleep(0.01)
        working.discard(message)

    running(work, concurrency=8)
    until(lambda: facts(queue) == (0, 0, 0, 0))
    assert max(most) <= 2


def test_a_late_ack_is_a_warning(queue: Queue, running: Run, valkey: Store, caplog: pytest.LogCaptureFixture) -> None:
    queue.push("a")
    seen: list[int] = []

    def work(message: Any) -> None:
        seen.append(message.deliveries)
        if len(seen) == 1:
            end_leases(ReliableQueue(valkey.client(), str(queue.name)))

    running(work)
    until(lambda: seen == [1, 2] and facts(queue) == (0, 0, 0, 0))
    assert "is delivered again" in caplog.text


# --- the end of a worker


def test_a_worker_ends_when_its_queue_is_empty(queue: Queue, kind: Any) -> None:
    queue.settings(max_deliveries=3)
    queue.push_many(range(200))
    seen: list[int] = []

    def work(message: Any) -> None:
        seen.append(message.json())
        if message == b"7":
            raise ValueError

    kind.run(kind.make(work, concurrency=4, until_empty=True, retry_delay=0))
    assert sorted(seen) == sorted([*range(200), 7, 7])
    assert facts(queue) == (0, 0, 0, 1)


def test_a_stop_lets_the_work_finish_and_gives_back_the_rest(queue: Queue, running: Run) -> None:
    queue.push_many(range(5))
    begun, go_on = threading.Event(), threading.Event()

    def work(message: Any) -> None:
        begun.set()
        go_on.wait(30)

    worker = running(work)
    begun.wait(30)
    worker.stop()
    go_on.set()
    until(lambda: facts(queue) == (4, 0, 0, 0))
    assert [message.json() for message in queue.all()] == [1, 2, 3, 4]


def test_what_is_not_done_within_the_grace_goes_back(queue: Queue) -> None:
    queue.push_many("ab")
    begun, go_on = threading.Event(), threading.Event()

    @queue.worker(grace=0.1)
    def work(message: Any) -> None:
        begun.set()
        go_on.wait(30)

    thread = threading.Thread(target=work.run)
    thread.start()
    begun.wait(30)
    work.stop()
    thread.join(30)
    assert not thread.is_alive()
    go_on.set()
    assert [*queue.all()] == [b"a", b"b"]


def test_tasks_that_are_not_done_within_the_grace_are_cancelled(queue: Queue) -> None:
    queue.push("a")
    ends: list[str] = []

    async def run() -> None:
        async_queue = AsyncQueue(queue.name, url=queue.url)

        @async_queue.worker(grace=0.1)
        async def work(message: Any) -> None:
            work.stop()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise

        await work.run()

    asyncio.run(run())
    assert (ends, [*queue.all()]) == (["cancelled"], [b"a"])


def test_a_cancelled_worker_ends_in_order(queue: Queue) -> None:
    queue.push("a")

    async def run() -> None:
        async_queue = AsyncQueue(queue.name, url=queue.url)

        @async_queue.worker()
        async def work(message: Any) -> None:
            task.cancel()
            await asyncio.sleep(0.1)

        task = asyncio.ensure_future(work.run())
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert facts(queue) == (0, 0, 0, 0)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, KeyboardInterrupt])
def test_an_error_that_is_no_exception_ends_the_worker_and_gives_the_message_back(
    queue: Queue, kind: Any, error: type[BaseException]
) -> None:
    queue.push("a")

    def work(message: Any) -> None:
        raise error

    with pytest.raises(error):
        kind.run(kind.make(work))
    assert facts(queue) == (1, 0, 0, 0)


def test_an_error_for_good_ends_the_worker(flaky: Queue, front: HttpProxy) -> None:
    front.answer("/reserve", 401, error="token_required", times=2)
    with pytest.raises(Unauthorized):
        flaky.worker()(print).run()
    with pytest.raises(Unauthorized):
        asyncio.run(AsyncQueue(flaky.name, url=flaky.url).worker()(print).run())


def test_sigterm_ends_workers_of_both_kinds(queue: Queue) -> None:
    for kind in (Threads(queue), Tasks(queue)):
        queue.push_many("ab")

        def work(message: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        kind.run(kind.make(work))
        assert facts(queue) == (1, 0, 0, 0)
        queue.clear()


def test_a_worker_waits_for_a_server_that_is_away(flaky: Queue, front: HttpProxy) -> None:
    seen: list[bytes] = []

    @flaky.worker(concurrency=2)
    def work(message: Any) -> None:
        seen.append(bytes(message))
        if message == b"a":
            front.refuse()

    def is_back() -> bool:
        if work.link.failures > 1 and not accepted:
            front.accept()
            accepted.append(True)
            flaky.push("b")
        return b"b" in seen and facts(flaky) == (0, 0, 0, 0)

    accepted: list[bool] = []
    flaky.push("a")
    _run_until(work, is_back)
    assert seen == [b"a", b"b"]


# --- asyncio


def test_the_event_loop_never_stands_still(queue: Queue) -> None:
    queue.push_many(range(3000))
    turns = [0]

    async def count_turns() -> None:
        while True:
            await asyncio.sleep(0)
            turns[0] += 1

    async def run() -> None:
        async_queue = AsyncQueue(queue.name, url=queue.url)
        counting = asyncio.ensure_future(count_turns())
        within: list[int] = []

        @async_queue.worker(concurrency=4)
        async def quick(message: Any) -> None:
            within.append(turns[0])
            if len(within) == 3000:
                quick.stop()

        @async_queue.worker()
        def blocking(message: Any) -> None:
            before = turns[0]
            until(lambda: turns[0] > before)  # the loop goes on while this function blocks
            blocking.stop()

        await quick.run()
        assert len(set(within)) > 2
        await async_queue.push("a")
        await blocking.run()
        assert await async_queue.pop() is None
        counting.cancel()

    asyncio.run(run())
    assert facts(queue) == (0, 0, 0, 0)


def test_a_coroutine_function_needs_an_async_queue(queue: Queue) -> None:
    async def work(message: Any) -> None: ...

    with pytest.raises(TypeError, match="AsyncQueue"):
        queue.worker()(work)
    assert isinstance(AsyncQueue(queue.name, url=queue.url).worker()(work), AsyncWorker)


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"batch": 0}, {"batch": 1001}, {"lease": 0}, {"grace": -1}], ids=repr
)
def test_what_cannot_work_is_refused_at_the_call(queue: Queue, options: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        queue.worker(**options)


# --- executors


def square(message: Any) -> Any:
    """Work in the process of a pool."""
    value = message.json()["value"]
    if value == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if value == "reject":
        raise Reject(f"not a number: {message.queue is not None}")
    return {"square": value * value, "pid": os.getpid()}


def test_a_process_pool_does_the_work(queue: Queue) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        made = queue.worker(concurrency=2, executor=pool)(square)
        thread = threading.Thread(target=made.run)
        thread.start()
        queue.push({"job": 1, "value": 7})
        queue.push({"job": 2, "value": "reject"})
        result = queue.result(1, wait=30)
        assert result
        assert (result.json()["square"], result.json()["pid"] != os.getpid()) == (49, True)
        with pytest.raises(JobFailed, match="not a number: True"):
            queue.result(2, wait=30)
        made.stop()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "tasks"])
def test_a_process_that_is_killed_costs_one_delivery(queue: Queue, is_async: bool) -> None:
    queue.settings(max_deliveries=2)

    def make() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    source: Any = AsyncQueue(queue.name, url=queue.url) if is_async else queue
    worker = source.worker(executor=make, retry_delay=0)(square)
    thread = threading.Thread(target=lambda: asyncio.run(worker.run()) if is_async else worker.run())
    thread.start()
    queue.push({"job": 1, "value": "kill"})
    with pytest.raises(JobFailed, match="BrokenProcessPool"):
        queue.result(1, wait=60)
    queue.push({"job": 2, "value": 3})
    assert queue.result(2, wait=60)
    worker.stop()
    thread.join(30)
    assert not thread.is_alive()


def test_a_function_that_a_process_cannot_find_is_refused_at_the_start(queue: Queue) -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(ValueError, match="at the top of its module"):
        queue.worker(executor=pool)(lambda message: None).run()


def test_a_pool_of_threads_does_the_work_of_tasks(queue: Queue, site: App) -> None:
    queue.push_many(range(3))
    names: set[str] = set()

    async def run() -> None:
        async_queue = AsyncQueue(queue.name, url=queue.url)
        with ThreadPoolExecutor(2, thread_name_prefix="mine") as pool:

            @async_queue.worker(executor=pool)
            def work(message: Any) -> None:
                names.add(threading.current_thread().name[:4])
                if message == b"2":
                    work.stop()

            await work.run()

    asyncio.run(run())
    assert (names, facts(queue)) == ({"mine"}, (0, 0, 0, 0))


def test_a_worker_can_be_called_as_the_function_that_it_is(queue: Queue) -> None:
    @queue.worker()
    def double(message: bytes) -> bytes:
        """Double it."""
        return message * 2

    assert (double(b"a"), double.__name__, double.__doc__) == (b"aa", "double", "Double it.")

"""Stops and restarts under load: every client gets an answer, and no message is lost."""

import http.client
import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broker.queue import ReliableQueue
from RedisQueue import RedisQueue
from tests.servers import ROOT, App, Store, until
from web.live.long_poll import ANSWER_TIMEOUT

EMPTY = {"success": False, "error": "empty", "message": "The queue is empty."}


def call(app: App, path: str, fields: dict[str, Any] | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
    try:
        body = None if fields is None else json.dumps(fields)
        connection.request("GET" if fields is None else "POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def waiters(app: App, name: str) -> int:
    return int(call(app, f"/api/queue/{name}/count")[1]["waiters"])


def test_the_timeouts_are_in_order() -> None:
    """The longest wait ends before gunicorn kills its workers, and gunicorn stops before the container is killed."""
    conf = (ROOT / "gunicorn.conf.py").read_text()
    compose = (ROOT / "docker-compose.yaml").read_text()
    [graceful] = re.findall(r"^graceful_timeout = (\d+)", conf, re.MULTILINE)
    web = compose[compose.index("\n  web:") : compose.index("\n  redis:")]
    [grace] = re.findall(r"^ +stop_grace_period: (\d+)s", web, re.MULTILINE)
    assert ANSWER_TIMEOUT < int(graceful) < int(grace)
    comment = f"longest wait ({ANSWER_TIMEOUT:g}) < graceful_timeout ({graceful}) < stop_grace_period"
    assert comment in conf
    assert f"({grace})" in conf


@pytest.mark.slow
def test_sigterm_answers_every_waiting_client(serve: Callable[..., App], valkey: Store, name: str) -> None:
    app = serve(REDIS_URL=valkey.url)
    paths = [f"/api/queue/{name}/{operation}?wait=60" for operation in ("pop", "reserve")] * 10
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(call, app, path, {}) for path in paths]
        until(lambda: waiters(app, name) == 20)
        app.process.send_signal(signal.SIGTERM)
        assert [answer.result() for answer in answers] == [(200, EMPTY)] * 20
    assert app.process.wait() == 0
    RedisQueue(valkey.client(), name).push(b"a")
    assert RedisQueue(valkey.client(), name).all() == [b"a"]
    log = app.log.read_text()
    assert "Traceback" not in log
    assert "Error" not in log


@pytest.mark.slow
def test_a_reload_under_load_neither_loses_nor_duplicates_messages(
    serve: Callable[..., App], valkey: Store, name: str
) -> None:
    """Clients keep pushing, popping, reserving and acking while all workers are replaced twice."""
    app = serve(REDIS_URL=valkey.url)
    pushed, taken = [Counter[str]() for _ in range(2)], [Counter[str]() for _ in range(2)]
    unknown, done = Counter[str](), threading.Event()
    unexpected: list[Any] = []

    def produce(number: int) -> None:
        count = 0
        while not done.is_set():
            count += 1
            text = f"{number}-{count}"
            try:
                status, _ = call(app, f"/api/queue/{name}/push", {"message": text})
            except (OSError, http.client.HTTPException):
                unknown[text] += 1  # a stopping worker may close a connection that it has just accepted
                continue
            (pushed[number] if status == 200 else unknown)[text] += 1
            unexpected.extend([] if status == 200 else [status])

    def consume(number: int) -> None:
        while not done.is_set():
            try:
                status, answer = call(app, f"/api/queue/{name}/{'pop' if number else 'reserve'}", {"wait": 0.5})
            except (OSError, http.client.HTTPException):
                continue  # a pop that is cut off loses its message, so it must not have had one
            unexpected.extend([] if status == 200 else [status])
            if not answer["success"]:
                continue
            taken[number][answer["message"]] += 1
            if not number:
                unexpected.extend([] if ack(answer["id"]) else ["ack"])

    def ack(id: str) -> bool:
        for _ in range(3):
            try:
                return call(app, f"/api/queue/{name}/ack", {"id": id})[0] == 200
            except (OSError, http.client.HTTPException):
                pass
        return False

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(role, number) for role in (produce, consume) for number in range(2)]
        for _ in range(2):
            before = set(app.workers())
            seen = sum(map(len, taken))
            until(lambda: sum(map(len, taken)) > seen + 50)  # noqa: B023
            app.process.send_signal(signal.SIGHUP)
            until(lambda: len(app.workers()) == 2 and not before & set(app.workers()), 60)  # noqa: B023
        done.set()
        for future in futures:
            future.result()
    rest = Counter(text.decode() for text in RedisQueue(valkey.client(), name).all())
    sure, seen_all = sum(pushed, Counter()), sum(taken, rest)
    assert unexpected == []
    assert ReliableQueue(valkey.client(), name).state().counts.reserved == 0
    assert sure - seen_all == Counter()
    assert seen_all - sure - unknown == Counter()
    assert len(sure) > 100


@pytest.mark.slow
def test_a_response_in_progress_is_completed_before_the_app_stops(
    serve: Callable[..., App], valkey: Store, name: str
) -> None:
    app = serve(REDIS_URL=valkey.url)
    count = 20_000  # 20 MB, more than socket buffers hold
    RedisQueue(valkey.client(), name).push(*[b"%1000d" % number for number in range(count)])
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
    connection.request("GET", f"/api/queue/{name}/all", headers={"Accept": "application/x-ndjson"})
    response = connection.getresponse()
    response.readline()
    app.process.send_signal(signal.SIGTERM)
    assert response.read().count(b"\n") == count - 1  # gunicorn lets requests in progress finish
    connection.close()
    assert app.process.wait() == 0


@pytest.mark.slow
def test_reservations_survive_a_kill_of_redis_and_the_app(
    own_store: Callable[..., Store], serve: Callable[..., App], name: str
) -> None:
    store = own_store("valkey", "--appendonly", "yes", "--appendfsync", "always")
    app = serve(REDIS_URL=store.url)
    call(app, f"/api/queue/{name}/push", {"messages": ["a", "b", "c"]})
    held = call(app, f"/api/queue/{name}/reserve", {"lease": 1000})[1]
    acked = call(app, f"/api/queue/{name}/reserve", {"lease": 1000})[1]
    call(app, f"/api/queue/{name}/ack", {"id": acked["id"]})
    store.end(signal.SIGKILL)
    app.end(signal.SIGKILL)
    store.start()
    app.start()
    counts = call(app, f"/api/queue/{name}/count")[1]
    assert (counts["count"], counts["reserved"]) == (1, 1)
    assert call(app, f"/api/queue/{name}/ack", {"id": acked["id"]})[0] == 200
    assert call(app, f"/api/queue/{name}/release", {"id": held["id"]})[0] == 200
    assert call(app, f"/api/queue/{name}/all")[1]["messages"] == ["a", "c"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_ends_is_replaced_and_no_message_is_lost(
    serve: Callable[..., App], valkey: Store, name: str, how: signal.Signals
) -> None:
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1")
    call(app, f"/api/queue/{name}/push", {"message": "a"})
    [worker] = app.workers()
    os.kill(worker, how)
    until(lambda: [each for each in app.workers() if each != worker])
    assert call(app, f"/api/queue/{name}/pop", {})[1] == {"success": True, "message": "a"}

"""A real Celery, producer and worker: its lists are shown in the order in which its worker takes them."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.servers import ROOT, App, Store, running, until
from tests.web.celery_app import app as celery
from tests.web.celery_app import note
from tests.web.lists import Follower, ask

pytestmark = pytest.mark.slow


@contextmanager
def worker(store: Store, prefetch: int = 1) -> Iterator[None]:
    """Run a Celery worker with one process in a `with` block."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "tests.web.celery_app",
        "worker",
        "--pool=solo",
        "--loglevel=error",
    ]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    env = {**os.environ, "CELERY_URL": store.url, "CELERY_PREFETCH": str(prefetch)}
    process = subprocess.Popen(command, cwd=ROOT, env=env)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def site_of_celery(folder: Path, stopping_apps: list[App]) -> Iterator[tuple[Store, App]]:
    """A store, and an app that shows its Celery."""
    with running(Store("valkey", folder / "celery")) as store:
        app = App(folder / "celery-app", REDIS_URL=store.url, LISTS="celery", WEB_CONCURRENCY="1")
        yield store, app
        app.stop()
        stopping_apps.append(app)


@pytest.fixture
def send(site_of_celery: tuple[Store, App]) -> Iterator[Any]:
    """Return the store, empty, the app, and a function that sends a task: send(number, priority=...)."""
    store, app = site_of_celery
    store.client().flushdb()
    with celery.connection_for_write(store.url) as connection:

        def send(number: int, **options: Any) -> None:
            note.apply_async((number,), connection=connection, **options)

        yield store, app, send


def numbers(messages: list[str]) -> list[int]:
    """Return the argument of each task."""
    return [json.loads(base64.b64decode(json.loads(message)["body"]))[0][0] for message in messages]


def done(store: Store) -> list[int]:
    return [int(number) for number in store.client().lrange("done", 0, -1)]


def test_the_order_on_the_page_is_that_of_the_work(send: Any) -> None:
    store, app, send_task = send
    for number in range(20):
        send_task(number, priority=(0, 3, 6, 9)[number % 4])
    shown: list[int] = []
    for name in ("celery", "celery-priority-3", "celery-priority-6", "celery-priority-9"):
        shown += numbers(ask(app, f"/api/queue/{name}/all")["messages"])
    assert sorted(shown) == list(range(20)) and shown != list(range(20))
    with worker(store):
        until(lambda: len(done(store)) == 20)
    assert done(store) == shown


def test_what_a_worker_holds_and_what_is_due_later_is_counted_beside_the_list(send: Any) -> None:
    store, app, send_task = send
    later = datetime.now(UTC) + timedelta(hours=1)
    for number in range(3):
        send_task(number, eta=later)
    follower = Follower(app, "/api/queue/celery/events")
    follower.until_count(3)
    with worker(store, prefetch=8):
        until(lambda: follower.last["beside"] == {"unacked": 3} and follower.last["count"] == 0)
        send_task(3)
        until(lambda: done(store) == [3])
        assert ask(app, "/api/queue/celery/count")["beside"] == {"unacked": 3}


def test_looking_during_the_work_loses_and_doubles_nothing(send: Any) -> None:
    store, app, send_task = send
    for number in range(1000):
        send_task(number)
    follower, board = Follower(app, "/api/queue/celery/events"), Follower(app, "/api/events")
    with worker(store, prefetch=4):
        while len(done(store)) < 1000:
            lines = ask(app, "/api/queue/celery/all", "application/x-ndjson").splitlines()
            waiting = numbers([json.loads(line) for line in lines])
            assert waiting == sorted(set(waiting))
            ask(app, "/api/queue/celery/all?contains=note&preview=10")
    assert done(store) == list(range(1000))
    follower.until_count(0)
    until(lambda: board.last["queues"] and board.last["queues"][0]["count"] == 0)

"""The wall clock of the server jumps by an hour, while nobody calls."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.queue import ReliableQueue
from tests.clocked import ClockedStore, has_faketime
from tests.servers import App, running, until

pytestmark = pytest.mark.slow

HOUR = 3600  # seconds


@pytest.fixture
def store(folder: Path, name: str) -> Iterator[ClockedStore]:
    if not has_faketime():
        pytest.skip("faketime is not installed")
    with running(ClockedStore(folder / f"clock{name}")) as made:
        yield made


def test_what_is_due_after_a_jump_returns_though_nobody_asks(
    store: ClockedStore, serve: Callable[..., App], name: str
) -> None:
    queue = ReliableQueue(store.client(), name)
    serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    until(lambda: store.client().client_list(_type="pubsub"))
    queue.push(b"reserved")
    queue.reserve(lease=1800)
    queue.push_later(1800, [b"delayed"])
    store.set_clock(HOUR)
    until(lambda: store.client().llen(queue.key) == 2, 30)


@pytest.mark.parametrize("first", ["push later", "reserve", "extend", "release", "state", "sweeper"])
def test_no_lease_lasts_longer_because_the_clock_was_set_back(
    store: ClockedStore, serve: Callable[..., App], name: str, first: str
) -> None:
    """Whichever command is the first one afterwards."""
    queue = ReliableQueue(store.client(), name)
    store.set_clock(HOUR)
    queue.push(b"a", b"b", b"c")
    ids = [one.id for one in queue.reserve(60, 2).messages]
    queue.push_later(60, [b"delayed"])
    store.set_clock(0)
    if first == "push later":
        queue.push_later(30, [b"d"])
    elif first == "reserve":
        queue.reserve(60)
    elif first == "extend":
        queue.extend(ids[0], 60)
    elif first == "release":
        queue.release(ids[0], delay=60)
    elif first == "state":
        queue.state()
    else:
        serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    until(lambda: latest_due(store, queue) - store.client().time()[0] < HOUR / 2)


def latest_due(store: ClockedStore, queue: ReliableQueue) -> float:
    """Return when the last lease or delay ends, in seconds."""
    found = [store.client().zrange(queue.key_prefix + key, -1, -1, withscores=True) for key in ("reserved", "delayed")]
    return max((pairs[0][1] / 1000 for pairs in found if pairs), default=math.inf)


def test_the_waiters_of_a_queue_survive_a_clock_that_is_set_back(store: ClockedStore, name: str) -> None:
    queue = ReliableQueue(store.client(), name)
    store.set_clock(HOUR)
    queue.report_waiters("killed", 3, 30)
    store.set_clock(0)
    queue.report_waiters("alive", 1, 30)
    assert queue.state().counts.waiters == 1


def test_the_last_acks_are_remembered_though_the_clock_was_set_back(store: ClockedStore, name: str) -> None:
    queue = ReliableQueue(store.client(), name)
    store.set_clock(HOUR)
    now = queue.client.time()[0] * 1000
    queue.client.zadd(queue.key_prefix + "acked", {f"old{n}": now + n for n in range(10_000)})
    store.set_clock(0)
    queue.push(b"a")
    [delivery] = queue.reserve().messages
    assert [queue.ack(delivery.id) for _ in range(2)] == [1, 1]

"""The list of all queues where there are very many, or some with names that the app cannot serve."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from broker import listing
from broker.listing import MAX_QUEUES, Listing, QueueLister
from broker.queue import ReliableQueue
from tests.servers import App, Store

MANY = 300_000
UNNAMED = ["a space", "a/slash", "caf\u00e9", "\u961f", "", "a\nline", "{braces}", "x" * 129]


def names(found: Listing) -> list[str]:
    return [queue.name for queue in found.queues]


def fill(client: Any, keys: list[Any]) -> None:
    for start in range(0, len(keys), 5000):
        pipeline = client.pipeline(transaction=False)
        for key in keys[start : start + 5000]:
            pipeline.lpush(key, "x")
        pipeline.execute()


# --- very many


@pytest.fixture
def crowded(own_store: Callable[..., Store]) -> Store:
    """A store with 300,000 queues."""
    store = own_store("valkey")
    fill(store.client(), [f"queue:n{number}" for number in range(MANY)])
    return store


@pytest.mark.soak
@pytest.mark.slow
def test_300000_queues_are_listed_in_bounded_time_and_hold_nobody_up(crowded: Store, serve: Callable[..., App]) -> None:
    site = serve(REDIS_URL=crowded.url, WEB_CONCURRENCY="1")

    def ask(path: str, body: bytes | None = None) -> tuple[Any, float]:
        started = time.monotonic()
        with urllib.request.urlopen(urllib.request.Request(site.url + path, body), timeout=60) as answer:
            found = json.load(answer)
        return found, time.monotonic() - started

    memory = resident(site.workers()[0])
    with ThreadPoolExecutor(8) as pool:
        listings = [pool.submit(ask, f"/api/queues?match={match}") for match in ("*", "*", "n*", "*1*", "n?9*")]
        pushes = [ask("/api/queue/push", b"message=a")[1] for _ in range(20)]
        answered = [one.result() for one in listings]
    assert max(seconds for _, seconds in answered) < 15  # five scans at once; it took that long for one
    assert max(pushes) < 5
    for found, _ in answered:
        assert found["complete"] is False
        assert 0 < len(found["queues"]) <= MAX_QUEUES
        assert found["queues"] == sorted(found["queues"], key=lambda queue: str(queue["name"]))
        assert all(queue["count"] == 1 for queue in found["queues"])
    assert resident(site.workers()[0]) - memory < 100 << 20


def resident(process: int) -> int:
    """Return the bytes of memory that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096


def test_counting_ends_in_time_too(backend: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scanning is a small part: each queue's counts are asked for as well."""
    fill(backend, [f"queue:{name}.{number}" for number in range(listing.SCAN_COUNT * 3)])
    lister = QueueLister(backend, "queue:", 5)
    monkeypatch.setattr(listing, "LIST_TIMEOUT", -1.0)
    found = lister.list_queues(f"{name}.*")
    assert not found.complete
    assert len(found.queues) < listing.SCAN_COUNT * 3


def test_a_listing_has_no_more_than_so_many_queues(backend: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LIST_TIMEOUT", 60.0)
    fill(backend, [f"queue:{name}.{number}" for number in range(10)])
    assert QueueLister(backend, "queue:", 5).list_queues(f"{name}.*").complete
    monkeypatch.setattr(listing, "MAX_QUEUES", 9)
    found = QueueLister(backend, "queue:", 5).list_queues(f"{name}.*")
    assert (found.complete, len(found.queues)) == (False, 9)


class Slow:
    """A client whose scans wait until they may go on, and are counted."""

    def __init__(self, client: Any, error: Exception | None = None) -> None:
        self.client, self.error = client, error
        self.scans = 0
        self.go_on = threading.Event()

    def scan(self, *args: Any, **kwargs: Any) -> Any:
        self.scans += 1
        self.go_on.wait(20)
        if self.error:
            raise self.error
        return self.client.scan(*args, **kwargs)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self.client, attribute)


def test_those_who_ask_at_once_share_a_listing(valkey: Store, name: str) -> None:
    valkey.client().lpush(f"queue:{name}", "x")
    slow = Slow(valkey.client())
    lister = QueueLister(slow, "queue:", 5)
    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(lister.list_queues, name) for _ in range(5)]
        slow.go_on.set()
    scans = slow.scans
    assert [names(one.result()) for one in answers] == [[name]] * 5
    slow.scans = 0
    QueueLister(slow, "queue:", 5).list_queues(name)
    assert scans == slow.scans


def test_an_error_is_told_to_those_who_ask_and_not_kept(valkey: Store, name: str) -> None:
    slow = Slow(valkey.client(), ValueError("away"))
    slow.go_on.set()
    lister = QueueLister(slow, "queue:", 5)
    with pytest.raises(ValueError, match="away"):
        lister.list_queues(name)
    slow.error = None
    assert lister.list_queues(name).complete


# --- names that cannot be served


@pytest.mark.parametrize("prefix", ["queue:", "", "q*[:"])
def test_lists_with_other_names_are_counted(backend: Any, name: str, prefix: str) -> None:
    backend.flushdb()
    fill(backend, [(prefix + text).encode() for text in UNNAMED if prefix + text])
    fill(backend, [prefix.encode() + b"\xff\xfe", f"{prefix}{name}.dead"])
    backend.lpush(f"{prefix}{name}", "x")
    found = QueueLister(backend, prefix, 5).list_queues()
    assert (names(found), found.complete) == ([name], True)
    assert found.unnamed == len(UNNAMED) + 2 - (prefix == "")


def test_what_belongs_to_queues_is_not_counted(backend: Any, name: str) -> None:
    for prefix in ("", "queue:"):
        backend.flushdb()
        queue = ReliableQueue(backend, name, prefix, 1)
        queue.push(b"a", b"b", b"c", b"d")
        queue.reserve(60)
        queue.release(queue.reserve(60).messages[0].id)
        queue.push_once("key", [b"e"])
        queue.clear()
        queue.push(b"a")
        queue.report_waiters("process", 1, 30)
        dead = ReliableQueue(backend, f"{name}.dead", prefix, 1)
        dead.release(dead.reserve(60).messages[0].id)
        backend.set("{" + prefix + "}:revoked:session", "1")
        found = QueueLister(backend, prefix, 5).list_queues()
        assert (found.unnamed, found.complete) == (0, True)
        assert set(names(found)) >= {name}


def test_what_is_no_list_or_has_another_prefix_is_not_counted(backend: Any) -> None:
    backend.flushdb()
    backend.set("queue:a text", "x")
    backend.hset("queue:a hash", "x", "x")
    backend.lpush("a list", "x")
    backend.lpush("my queue:a list", "x")
    backend.lpush("queue", "x")
    assert QueueLister(backend, "queue:", 5).list_queues() == Listing([], True, 0)


def test_the_pattern_holds_for_them_too(backend: Any) -> None:
    backend.flushdb()
    fill(backend, ["queue:job one", "queue:job two", "queue:mail one"])
    assert QueueLister(backend, "queue:", 5).list_queues("job*").unnamed == 2
    assert QueueLister(backend, "queue:", 5).list_queues("* one").unnamed == 2


def test_the_route_has_the_number(site: App, valkey: Store, name: str) -> None:
    valkey.client().lpush(f"queue:{name} with a space", "x")
    with urllib.request.urlopen(f"{site.url}/api/queues?match={name}*", timeout=20) as answer:
        assert json.load(answer) == {"success": True, "queues": [], "complete": True, "unnamed": 1}

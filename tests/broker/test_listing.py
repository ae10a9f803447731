"""The list of all queues: which keys are a queue, what is counted, and that a listing never takes long."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from broker import listing
from broker.connections.connection import connect
from broker.listing import MAX_QUEUES, ListedQueue, Listing, QueueLister
from broker.models import QueueCounts
from broker.queue import ReliableQueue
from broker.revoked_sessions import RevokedSessions
from tests.broker.helpers import end_leases, use_every_operation
from tests.engines import Cluster
from tests.servers import App, Store, until

MANY = 300_000
UNNAMED = ["a space", "a/slash", "caf\u00e9", "\u961f", "", "a\nline", "{braces}", "x" * 129]


@pytest.fixture
def client(valkey: Store) -> Any:
    return valkey.client()


@pytest.fixture
def empty(valkey: Store) -> Any:
    """A client of an empty database."""
    client = connect(valkey.url.removesuffix("/0") + "/2")
    client.flushdb()
    return client


def list_queues(client: Any, match: str = "*", prefix: str = "queue:") -> Listing:
    """Return a new listing."""
    return QueueLister(client, prefix, 5).list_queues(match)


def found(client: Any, match: str = "*", prefix: str = "queue:") -> dict[str, QueueCounts]:
    """Return the counts of each queue by its name, from a complete listing."""
    answer = list_queues(client, match, prefix)
    assert answer.complete
    return {queue.name: queue.counts for queue in answer.queues}


def names(listing: Listing) -> list[str]:
    return [queue.name for queue in listing.queues]


def queue_of(client: Any, name: str, prefix: str = "queue:") -> ReliableQueue:
    """Return a queue that buries a message after one delivery."""
    return ReliableQueue(client, name, prefix, 1)


def fill(client: Any, keys: list[Any]) -> None:
    """Push a message to each list."""
    for start in range(0, len(keys), 5000):
        pipeline = client.pipeline(transaction=False)
        for key in keys[start : start + 5000]:
            pipeline.lpush(key, "x")
        pipeline.execute()


# --- what is listed


def test_each_queue_that_is_not_empty_is_listed_with_its_counts(client: Any, name: str) -> None:
    queue_of(client, f"{name}.waiting").push(b"a", b"b")
    reserved = queue_of(client, f"{name}.reserved")
    reserved.push(b"a")
    reserved.reserve(100)
    buried = queue_of(client, f"{name}.buried")
    buried.push(b"a")
    buried.release(buried.reserve().messages[0].id)
    queue_of(client, f"{name}.delayed").push_later(100, [b"a"])
    queue_of(client, f"{name}.paused").pause()
    emptied = queue_of(client, f"{name}.emptied")
    emptied.push(b"a")
    emptied.pop()
    queue_of(client, f"{name}.waited-on").report_waiters("process", 1, 30)
    assert found(client, f"{name}*") == {
        f"{name}.waiting": QueueCounts(count=2),
        f"{name}.reserved": QueueCounts(reserved=1),
        f"{name}.buried": QueueCounts(dead=1),
        f"{name}.delayed": QueueCounts(delayed=1),
        f"{name}.paused": QueueCounts(paused=True),
    }


def test_a_listing_as_json_has_the_counts_beside_the_name() -> None:
    listing = Listing([ListedQueue("jobs", QueueCounts(1, 2, 3, 4, 5, True))], True, 6)
    counts = {"count": 1, "reserved": 2, "delayed": 3, "dead": 4, "waiters": 5, "paused": True}
    assert listing.as_dict() == {"queues": [{"name": "jobs", **counts}], "complete": True, "unnamed": 6}


def test_messages_whose_leases_ended_are_counted_as_waiting(client: Any, name: str) -> None:
    queue = ReliableQueue(client, name)
    queue.push(b"a")
    queue.reserve()
    end_leases(queue)
    assert found(client, name) == {name: QueueCounts(count=1)}


def test_keys_that_are_not_queues_are_left_out(empty: Any) -> None:
    empty.set("queue:text", "x")
    empty.set("queue:no name", "x")
    empty.hset("queue:a hash", "x", "x")
    empty.lpush("elsewhere:queue:other", "x")
    empty.lpush("my queue:a list", "x")
    empty.lpush("queue", "x")
    empty.lpush("{queue:cleared}:cleared:undo", "x")
    empty.lpush("queue:list", "x")
    assert list_queues(empty) == Listing([ListedQueue("list", QueueCounts(count=1))], True, 0)


def test_a_broken_queue_does_not_hide_the_others(client: Any, name: str) -> None:
    broken = queue_of(client, f"{name}.broken")
    broken.push(b"a", b"b")
    broken.reserve(100)
    client.set(broken.key_prefix + "waiters", "a string")
    queue_of(client, f"{name}.whole").push(b"a")
    assert found(client, f"{name}*") == {
        f"{name}.broken": QueueCounts(count=1, reserved=1),
        f"{name}.whole": QueueCounts(count=1),
    }


def test_dead_letters_are_counted_with_their_queue(client: Any, name: str) -> None:
    queue_of(client, f"{name}.dead").push(b"a")
    assert found(client, f"{name}*") == {name: QueueCounts(dead=1)}


def test_reserved_dead_letters_are_listed_as_a_queue_of_their_own(client: Any, name: str) -> None:
    queue_of(client, f"{name}.dead").push(b"a")
    queue_of(client, f"{name}.dead").reserve(100)
    assert found(client, f"{name}*") == {f"{name}.dead": QueueCounts(reserved=1)}


@pytest.mark.parametrize(
    ("match", "expected"),
    [("*", "abc"), ("a", "a"), ("[ab]", "ab"), ("?", "abc"), ("d", ""), ("[", ""), ("*a*" * 30, "")],
)
def test_a_pattern_selects_queues_by_name(empty: Any, match: str, expected: str) -> None:
    fill(empty, [f"queue:{each}" for each in "abc"])
    assert set(found(empty, match)) == set(expected)


@pytest.mark.parametrize("prefix", ["", "q", "a*b?[c]:", "queue:"])
def test_every_prefix_is_taken_literally(empty: Any, prefix: str) -> None:
    queue_of(empty, "jobs", prefix).push(b"x")
    reserved = queue_of(empty, "held", prefix)
    reserved.push(b"x")
    reserved.reserve(100)
    empty.lpush("axb1c:foreign", "x")
    others = {"axb1c:foreign"} if prefix == "" else set()
    assert set(found(empty, "*", prefix)) == {"jobs", "held"} | others


# --- what can be counted again


def test_the_queues_to_which_keys_belong_are_counted_again(client: Any, name: str) -> None:
    lister, queue = QueueLister(client, "queue:", 5), queue_of(client, name)
    keys = [queue.key, queue.key_prefix + "waiters", queue.key_prefix + "bodies", f"queue:{name}.dead", "other"]
    assert [lister.names_of([key.encode()]) for key in keys] == [{name}, {name}, set(), set(), set()]
    queue.push(b"a")
    assert lister.count_queues([name, f"{name}.none"]) == [ListedQueue(name, QueueCounts(count=1))]


def test_a_primary_that_is_unavailable_is_an_error_where_queues_are_counted_again(cluster: Cluster, name: str) -> None:
    client = connect(cluster.url)
    client.lpush(f"queue:{name}", "a")
    client.map.client = lambda node: Unavailable()
    lister = QueueLister(client, "queue:", 5)
    assert lister._count([name]) == []
    with pytest.raises(redis.ConnectionError):
        lister.count_queues([name])


class Unavailable:
    """A client whose server does not answer."""

    def pipeline(self, transaction: bool) -> "Unavailable":
        return self

    def execute_command(self, *args: Any, **options: Any) -> None:
        pass

    def execute(self, raise_on_error: bool) -> None:
        raise redis.ConnectionError("unavailable")


# --- a listing is made once, and in time


def test_a_listing_is_cached_for_a_second(client: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    lister = QueueLister(client, "queue:", 5)
    monkeypatch.setattr(listing, "CACHE_TTL", 0.0)
    assert lister.list_queues(name + "?").queues == lister.list_queues(name).queues == []
    monkeypatch.setattr(listing, "CACHE_TTL", 1000.0)
    assert lister.list_queues(name).queues == []
    queue_of(client, name).push(b"a")
    assert lister.list_queues(name).queues == []
    assert len(lister._cache) == 1  # expired listings are dropped
    assert len(lister.list_queues(name + "*").queues) == 1  # another pattern is another listing


class Slow:
    """A client whose scans wait until they may continue, and are counted."""

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


def test_concurrent_callers_share_a_listing(client: Any, name: str) -> None:
    client.lpush(f"queue:{name}", "x")
    slow = Slow(client)
    lister = QueueLister(slow, "queue:", 5)
    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(lister.list_queues, name) for _ in range(5)]
        slow.go_on.set()
    scans = slow.scans
    assert [names(one.result()) for one in answers] == [[name]] * 5
    slow.scans = 0
    QueueLister(slow, "queue:", 5).list_queues(name)
    assert scans == slow.scans


def test_an_error_is_raised_to_the_callers_and_not_cached(client: Any, name: str) -> None:
    slow = Slow(client, ValueError("unavailable"))
    slow.go_on.set()
    lister = QueueLister(slow, "queue:", 5)
    with pytest.raises(ValueError, match="unavailable"):
        lister.list_queues(name)
    slow.error = None
    assert lister.list_queues(name).complete


def test_a_large_keyspace_is_scanned_in_steps_for_a_limited_time(
    own_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    client = own_store().client()
    client.mset({f"foreign:{name}:{number}": "x" for number in range(20_000)})
    queue_of(client, name).push(b"a")
    client.config_resetstat()
    monkeypatch.setattr(listing, "LIST_TIMEOUT", 60.0)
    assert set(found(client, name)) == {name}
    stats = client.info("commandstats")
    assert stats["cmdstat_scan"]["calls"] >= 5
    assert "cmdstat_keys" not in stats
    monkeypatch.setattr(listing, "LIST_TIMEOUT", 0.0)
    client.config_resetstat()
    assert not list_queues(client, name).complete
    assert client.info("commandstats")["cmdstat_scan"]["calls"] == 1


def test_a_queue_that_was_found_before_does_not_vanish_from_an_incomplete_listing(
    own_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    client = own_store().client()
    client.mset({f"foreign:{name}:{number}": "x" for number in range(20_000)})
    fill(client, [f"queue:{name}.{number}" for number in range(9)])
    lister = QueueLister(client, "queue:", 5)
    assert lister.list_now(timeout=60).complete
    for _ in range(2):
        answer = lister.list_now(timeout=0)
        assert (len(answer.queues), answer.complete) == (9, False)
    client.delete(f"queue:{name}.0")
    assert len(lister.list_now(timeout=0).queues) == 8
    assert names(lister.list_now("*.3", 0)) == [f"{name}.3"]


@pytest.mark.slow
def test_listings_that_run_out_of_time_find_all_queues_together(own_store: Callable[..., Store], name: str) -> None:
    """Each goes on where the one before stopped, also for the queues that it was not asked for."""
    client = own_store().client()
    queues = [f"{name}.{number}" for number in range(30)]
    fill(client, [f"queue:{queue}" for queue in queues])
    client.mset({f"foreign:{name}:{number}": "x" for number in range(20_000)})
    lister = QueueLister(client, "queue:", 5)
    listings = [lister.list_now(match, timeout=0) for match in ("none", f"{name}.*") * listing.SCAN_COUNT]
    found = [set(names(one)) for one in listings[1::2]]
    at = found.index(set(queues))
    assert at <= 2 * 20_000 // listing.SCAN_COUNT
    assert all(one == set(queues) for one in found[at:])
    assert not any(one.complete for one in listings)
    answer = lister.list_now(timeout=60)  # it begins in the middle, and then scans all keys
    assert (set(names(answer)), answer.complete) == (set(queues), True)
    client.lpush(f"queue:{name}.new", "x")
    assert f"{name}.new" in names(lister.list_now(timeout=60))


def test_a_scan_goes_on_with_the_primary_of_a_cluster_where_it_stopped(cluster: Cluster, name: str) -> None:
    client = connect(cluster.url)
    queues = [f"{name}.{number}" for number in range(30)]
    fill(client, [f"queue:{queue}" for queue in queues])
    lister = QueueLister(client, "queue:", 5)
    for _ in range(100):
        answer = lister.list_now(f"{name}.*", timeout=0)
        assert not answer.complete
        if names(answer) == sorted(queues):
            break
    assert names(answer) == sorted(queues)
    lister._scanned_to = 2, 0
    answer = lister.list_now(f"{name}.*", timeout=60)
    assert (names(answer), answer.complete) == (sorted(queues), True)
    lister._scanned_to = 7, 123  # of a primary that has left
    assert lister.list_now(f"{name}.*", timeout=60).complete


@pytest.mark.slow
@pytest.mark.parametrize("key", ["key", "{queue:jobs}:result"])
def test_a_million_other_keys_do_not_hide_queues(own_store: Callable[..., Store], name: str, key: str) -> None:
    """Keys of strangers, and results of jobs."""
    client = own_store("valkey", "--enable-debug-command", "yes").client()
    client.execute_command("DEBUG", "POPULATE", 1_000_000, key)
    queues = [f"{name}.{number}" for number in range(5)]
    fill(client, [f"queue:{queue}" for queue in queues])
    client.config_resetstat()
    lister = QueueLister(client, "queue:", 5)
    until(lambda: set(queues) <= set(names(lister.list_now())))
    assert client.info("commandstats")["cmdstat_scan"]["calls"] < 2500
    until(lambda: lister.list_now(timeout=60).complete)


def test_counting_ends_in_time_too(empty: Any) -> None:
    """Scanning is a small part: the counts of each queue are read as well."""
    fill(empty, [f"queue:n{number}" for number in range(listing.COUNT_BATCH * 3)])
    lister = QueueLister(empty, "queue:", 5)
    lister.list_now(timeout=0)  # scans
    answer = lister.list_now(timeout=0)
    assert (len(answer.queues), answer.complete) == (listing.COUNT_BATCH, False)


def test_a_listing_has_a_maximum_number_of_queues(client: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LIST_TIMEOUT", 60.0)
    fill(client, [f"queue:{name}.{number}" for number in range(10)])
    assert list_queues(client, f"{name}.*").complete
    monkeypatch.setattr(listing, "MAX_QUEUES", 9)
    answer = list_queues(client, f"{name}.*")
    assert (answer.complete, len(answer.queues)) == (False, 9)


@pytest.fixture
def crowded(own_store: Callable[..., Store]) -> Store:
    """A store with 300,000 queues."""
    store = own_store("valkey")
    fill(store.client(), [f"queue:n{number}" for number in range(MANY)])
    return store


@pytest.mark.soak
@pytest.mark.slow
def test_300000_queues_are_listed_in_bounded_time_and_delay_no_other_request(
    crowded: Store, serve: Callable[..., App]
) -> None:
    site = serve(REDIS_URL=crowded.url, WEB_CONCURRENCY="1")

    def ask(path: str, body: bytes | None = None) -> tuple[Any, float]:
        started = time.monotonic()
        with urllib.request.urlopen(urllib.request.Request(site.url + path, body), timeout=60) as answer:
            return json.load(answer), time.monotonic() - started

    memory = resident_bytes(site.workers()[0])
    with ThreadPoolExecutor(8) as pool:
        listings = [pool.submit(ask, f"/api/queues?match={match}") for match in ("*", "*", "n*", "*1*", "n?9*")]
        pushes = [ask("/api/queue/push", b"message=a")[1] for _ in range(20)]
        answered = [one.result() for one in listings]
    assert max(seconds for _, seconds in answered) < 15  # five scans at once; it took that long for one
    assert max(pushes) < 5
    for answer, _ in answered:
        assert answer["complete"] is False
        assert 0 < len(answer["queues"]) <= MAX_QUEUES
        assert answer["queues"] == sorted(answer["queues"], key=lambda queue: str(queue["name"]))
        assert all(queue["count"] == 1 for queue in answer["queues"])
    assert resident_bytes(site.workers()[0]) - memory < 100 << 20


def resident_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096


# --- lists whose names are not valid


@pytest.mark.parametrize("prefix", ["queue:", "", "q*[:"])
def test_lists_with_other_names_are_counted(empty: Any, prefix: str) -> None:
    fill(empty, [(prefix + text).encode() for text in UNNAMED if prefix + text])
    fill(empty, [prefix.encode() + b"\xff\xfe", f"{prefix}jobs.dead", f"{prefix}jobs"])
    answer = list_queues(empty, "*", prefix)
    assert (names(answer), answer.complete) == (["jobs"], True)
    assert answer.unnamed == len(UNNAMED) + 2 - (prefix == "")


@pytest.mark.parametrize("prefix", ["queue:", ""])
def test_the_other_keys_of_queues_are_not_counted(empty: Any, prefix: str) -> None:
    use_every_operation(ReliableQueue(empty, "jobs", prefix))
    RevokedSessions(empty, prefix).add("session", 60)
    answer = list_queues(empty, "*", prefix)
    assert (answer.unnamed, answer.complete) == (0, True)
    assert names(answer) == ["jobs", "jobs.dead"]  # a dead letter is reserved


def test_the_pattern_applies_to_other_names_too(empty: Any) -> None:
    fill(empty, ["queue:job one", "queue:job two", "queue:mail one"])
    assert list_queues(empty, "job*").unnamed == 2
    assert list_queues(empty, "* one").unnamed == 2

"""The list of all queues: which keys are a queue, what is counted, and that a listing never takes long."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from broker import listing
from broker.connections.connection import connect
from broker.listing import QueueLister
from broker.queue import ReliableQueue
from tests.broker.helpers import end_leases
from tests.engines import Cluster
from tests.servers import FakeRedis, Store


def list_queues(client: Any, match: str = "*", prefix: str = "queue:") -> dict[str, Any]:
    """Return a fresh listing."""
    return QueueLister(client, prefix, 5).list_queues(match).as_dict()


def found(client: Any, match: str = "*", prefix: str = "queue:") -> dict[str, dict[str, int]]:
    """Return the counts of each queue by its name, from a complete listing."""
    answer = list_queues(client, match, prefix)
    assert answer["complete"] is True
    return {each.pop("name"): each for each in answer["queues"]}


def counts_of(count: int, reserved: int, dead: int, **others: Any) -> dict[str, Any]:
    """Return what a listing says of a queue."""
    none = {"delayed": 0, "waiters": 0, "paused": False}
    return {"count": count, "reserved": reserved, "dead": dead, **none, **others}


def queue_of(client: Any, name: str, prefix: str = "queue:") -> ReliableQueue:
    """Return a queue that buries a message after one delivery."""
    return ReliableQueue(client, name, prefix, 1)


def test_each_queue_that_holds_something_is_listed_with_its_counts(backend: Any, name: str) -> None:
    queue_of(backend, f"{name}.waiting").push(b"a", b"b")
    reserved = queue_of(backend, f"{name}.reserved")
    reserved.push(b"a")
    reserved.reserve(100)
    buried = queue_of(backend, f"{name}.buried")
    buried.push(b"a")
    buried.release(buried.reserve().messages[0].id)
    emptied = queue_of(backend, f"{name}.emptied")
    emptied.push(b"a")
    emptied.pop()
    queue_of(backend, f"{name}.waited-on").report_waiters("process", 1, 30)
    assert found(backend, f"{name}*") == {
        f"{name}.waiting": counts_of(2, 0, 0),
        f"{name}.reserved": counts_of(0, 1, 0),
        f"{name}.buried": counts_of(0, 0, 1),
    }


def test_messages_whose_leases_ended_are_counted_as_waiting(backend: Any, name: str) -> None:
    queue = ReliableQueue(backend, name)
    queue.push(b"a")
    queue.reserve()
    end_leases(queue)
    assert list_queues(backend, name)["queues"] == [counts_of(1, 0, 0, name=name)]


def test_keys_that_are_not_queues_are_left_out(backend: Any, name: str) -> None:
    backend.set(f"queue:{name}.text", "x")
    backend.set(f"queue:{name} no name", "x")
    backend.lpush(f"queue:{name} no name either", "x")
    backend.lpush(f"elsewhere:queue:{name}.other", "x")
    backend.lpush(f"{{queue:{name}.cleared}}:cleared:undo", "x")
    backend.lpush(f"queue:{name}.\xff".encode("latin-1"), "x")
    backend.lpush(f"queue:{name}.list", "x")
    assert set(found(backend, f"{name}*")) == {f"{name}.list"}


def test_a_broken_queue_does_not_hide_the_others(backend: Any, name: str) -> None:
    broken = queue_of(backend, f"{name}.broken")
    broken.push(b"a", b"b")
    broken.reserve(100)
    backend.set(broken.key_prefix + "waiters", "a string")
    queue_of(backend, f"{name}.whole").push(b"a")
    assert found(backend, f"{name}*") == {
        f"{name}.broken": counts_of(1, 1, 0),
        f"{name}.whole": counts_of(1, 0, 0),
    }


def test_the_queues_that_keys_belong_to_are_counted_again(backend: Any, name: str) -> None:
    lister, queue = QueueLister(backend, "queue:", 5), queue_of(backend, name)
    keys = [queue.key, queue.key_prefix + "waiters", queue.key_prefix + "bodies", f"queue:{name}.dead", "other"]
    assert [lister.names_of([key.encode()]) for key in keys] == [{name}, {name}, set(), set(), set()]
    queue.push(b"a")
    assert [queue.counts.count for queue in lister.count_queues([name, f"{name}.none"])] == [1]


def test_a_primary_that_is_away_is_an_error_where_queues_are_counted_again(cluster: Cluster, name: str) -> None:
    client = connect(cluster.url)
    client.lpush(f"queue:{name}", "a")
    away = redis.ConnectionError("It is away.")
    client.map.client = lambda node: Away(away)
    lister = QueueLister(client, "queue:", 5)
    assert lister._count([name]) == []
    with pytest.raises(redis.ConnectionError):
        lister.count_queues([name])


class Away:
    """A client whose server does not answer."""

    def __init__(self, error: redis.RedisError) -> None:
        self.error = error

    def pipeline(self, transaction: bool) -> "Away":
        return self

    def execute_command(self, *args: Any, **options: Any) -> None:
        pass

    def execute(self, raise_on_error: bool) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("match", "names"),
    [("*", "abc"), ("a", "a"), ("[ab]", "ab"), ("?", "abc"), ("", "abc"), ("d", ""), ("[", ""), ("*a*" * 30, "")],
)
def test_a_pattern_selects_queues_by_name(match: str, names: str) -> None:
    client = FakeRedis()
    client.flushall()
    for each in "abc":
        queue_of(client, each).push(b"x")
    assert set(found(client, match or "*")) == set(names)


@pytest.mark.parametrize("prefix", ["", "q", "a*b?[c]:", "queue:"])
def test_every_prefix_is_taken_literally(prefix: str) -> None:
    client = FakeRedis()
    client.flushall()
    queue_of(client, "jobs", prefix).push(b"x")
    reserved = queue_of(client, "held", prefix)
    reserved.push(b"x")
    reserved.reserve(100)
    client.lpush("axb1c:foreign", "x")
    assert {"jobs", "held"} <= set(found(client, "*", prefix))
    if prefix:
        assert set(found(client, "*", prefix)) == {"jobs", "held"}


def test_dead_letters_are_listed_with_their_queue(backend: Any, name: str) -> None:
    queue_of(backend, f"{name}.dead").push(b"a")
    assert found(backend, f"{name}*") == {name: counts_of(0, 0, 1)}


def test_reserved_dead_letters_are_listed_as_a_queue_of_their_own(backend: Any, name: str) -> None:
    queue, dead = queue_of(backend, name), queue_of(backend, f"{name}.dead")
    queue.push(b"a")
    queue.release(queue.reserve().messages[0].id)
    assert found(backend, f"{name}*") == {name: counts_of(0, 0, 1)}
    dead.reserve(100)
    assert found(backend, f"{name}*") == {f"{name}.dead": counts_of(0, 1, 0)}


def test_a_listing_is_kept_for_a_second(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    client = FakeRedis()
    lister = QueueLister(client, "queue:", 5)
    monkeypatch.setattr(listing, "CACHE_TTL", 0.0)
    assert lister.list_queues(name + "?").queues == lister.list_queues(name).queues == []
    monkeypatch.setattr(listing, "CACHE_TTL", 1000.0)
    assert lister.list_queues(name).queues == []
    queue_of(client, name).push(b"a")
    assert lister.list_queues(name).queues == []
    assert len(lister._cache) == 1  # listings that are too old are forgotten
    assert len(lister.list_queues(name + "*").queues) == 1  # another pattern is another listing


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
    assert stats["cmdstat_scan"]["calls"] >= 20
    assert "cmdstat_keys" not in stats
    monkeypatch.setattr(listing, "LIST_TIMEOUT", 0.0)
    client.config_resetstat()
    assert list_queues(client, name)["complete"] is False
    assert client.info("commandstats")["cmdstat_scan"]["calls"] == 1

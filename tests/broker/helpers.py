"""What the tests of the broker share: short forms of common steps, and every verb at once."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.models import Delivery, Search
from broker.queue import ReliableQueue

# For tests that make thousands of script calls, which fakeredis does slowly, or that ask the server who waits.
on_real_servers = pytest.mark.parametrize("backend", ["valkey", "redis"], indirect=True)


def end_leases(queue: ReliableQueue, *ids: str) -> None:
    """Let leases end long ago, in the order of the ids; without ids all of them, in the order they would end.

    Time is moved by the test: it rewrites the ends of the leases, where the queue keeps them.
    """
    key = queue.key_prefix + "reserved"
    if expired := [id.encode() for id in ids] or queue.client.zrange(key, 0, -1):
        queue.client.zadd(key, {id: number for number, id in enumerate(expired, 1)})


def reserve(queue: ReliableQueue, max: int = 1, lease: float = 30) -> list[Delivery]:
    return queue.reserve(lease, max).messages


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def counts(queue: ReliableQueue) -> tuple[int, int, int]:
    """Return how many messages wait, are reserved and are dead."""
    counts = queue.state().counts
    return counts.count, counts.reserved, counts.dead


def dead_letters(queue: ReliableQueue) -> ReliableQueue:
    """Return the queue of the dead letters of a queue."""
    return ReliableQueue(queue.client, queue.name + ".dead", queue.prefix)


def with_one_delivery(queue: ReliableQueue) -> ReliableQueue:
    """Return the same queue with one delivery allowed: a message that is not acked is buried."""
    return ReliableQueue(queue.client, queue.name, queue.prefix, max_deliveries=1)


def each_verb(queue: ReliableQueue, id: str = "no such id") -> dict[str, Callable[[], Any]]:
    """Return a call of every verb that is a script on all keys, on a queue and one reservation of it."""
    return {
        "pop": lambda: queue.pop(2),
        "pop with a key": lambda: queue.pop_batch(2, "key"),
        "reserve": lambda: queue.reserve(30, 2),
        "ack": lambda: queue.ack(id),
        "release": lambda: queue.release(id),
        "release later": lambda: queue.release(id, delay=9, reason="why"),
        "bury": lambda: queue.release(id, dead=True),
        "ack with a result": lambda: queue.ack_with(id, "job", b"result"),
        "extend": lambda: queue.extend(id, 30),
        "reserved": lambda: queue.in_flight("reserved", 9, 9),
        "delayed": lambda: queue.in_flight("delayed", 9, 9),
        "find": lambda: queue.find("a", 9, 9, Search(), details=True),
        "move what is found": lambda: queue.find_and_move(queue.name + "x", "a", 9, Search()),
        "details": lambda: queue.details(9, 0, 9),
        "remove": lambda: queue.remove(0, b"a"),
        "clear": lambda: queue.clear(),
        "move": lambda: queue.move(queue.name + "x", 2),
        "move one": lambda: queue.move_one(queue.name + "x", 0, b"a"),
        "restore": lambda: queue.restore("undo"),
        "state": lambda: queue.state(2, 0, 9),
        "stats": lambda: queue.stats(),
        "report_waiters": lambda: queue.report_waiters("process", 1, 30),
    }


def use_every_verb(queue: ReliableQueue) -> None:
    """Use every verb, and leave every kind of key behind."""
    queue.push(*numbered(20))
    queue.push_once("push", [b"20"])
    queue.pop_batch(1, "pop")
    single = with_one_delivery(queue)
    single.release(reserve(single)[0].id)
    kept, acked, returned = reserve(queue, 3)
    queue.extend(kept.id, 60)
    queue.ack(acked.id)
    queue.release(returned.id)
    queue.report_waiters("process", 1, 30)
    _, undo = queue.clear()
    queue.push(*numbered(9, 100))
    queue.release(reserve(queue)[0].id)
    queue.remove(0, b"100")
    queue.restore(str(undo))
    queue.clear()
    queue.push(*numbered(9, 100))
    queue.release(reserve(queue)[0].id)
    dead = dead_letters(queue)
    dead.push(b"d", b"e")
    reserve(dead)
    queue.move(dead.name, 1)
    queue.release(reserve(queue)[0].id)
    queue.push_later(1000, [b"later", b"at last"], "later")
    dead_id, later_id = (one.id for one in reserve(queue, 2))
    queue.release(dead_id, dead=True, reason="bad")
    queue.release(later_id, delay=100, reason="try again")
    queue.release(reserve(single)[0].id)
    queue.push(b"done")
    queue.ack_with(reserve(queue)[0].id, "job", b"result")
    queue.store_result("other", b"result")
    queue.find("1", 5, 5, Search(), details=True)
    queue.find_and_move(dead.name, "10", 1, Search())
    dead.move_one(queue.name, 0, dead.all(0, 1)[0])
    queue.details(9, 0, 9)
    queue.in_flight("delayed", 9, 9)
    queue.pause()
    queue.pop()
    queue.resume()
    queue.pause()
    queue.pop_batch(1, "paused")
    queue.resume()
    queue.release(reserve(queue)[0].id)
    queue.client.set(queue.key_prefix + "paused", 1)  # as if it was resumed just before
    queue.state(9, 0, 9)
    queue.all()
    queue.stats()

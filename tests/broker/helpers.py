"""Shared by the tests of queues: short forms of common steps, and every operation at once."""

import time
from collections.abc import Callable
from itertools import chain
from typing import Any

from broker.models import Ack, Delivery, Details, Exported, Extend, Found, Release
from broker.queue import ReliableQueue


def end_leases(queue: ReliableQueue, *ids: str) -> None:
    """Let leases end long ago, in the order of the ids; without ids all of them, in the order they would end."""
    _end(queue, "reserved", *ids)


def end_delays(queue: ReliableQueue, *ids: str) -> None:
    """Let delays end long ago, in the order of the ids; without ids all of them, in the order they would end."""
    _end(queue, "delayed", *ids)


def _end(queue: ReliableQueue, kind: str, *ids: str) -> None:
    """Move time by rewriting the deadlines, of which the clock would know."""
    key = queue.key_prefix + kind
    queue.client.delete(queue.key_prefix + "clock")
    if ended := [id.encode() for id in ids] or queue.client.zrange(key, 0, -1):
        queue.client.zadd(key, {id: number for number, id in enumerate(ended, 1)})


def reserve(queue: ReliableQueue, max: int = 1, lease: float = 30) -> list[Delivery]:
    return queue.reserve(lease, max).messages


def bury(queue: ReliableQueue, message: bytes, reason: str) -> None:
    """Push a message and make it a dead letter; the queue must be empty."""
    queue.push(message)
    queue.release(reserve(queue)[0].id, dead=True, reason=reason)


def found(queue: ReliableQueue, text: str, offset: int = 0, details: bool = False) -> list[Found]:
    """Return the messages that contain a text, with their first 50 bytes."""
    return list(chain.from_iterable(queue.find(text, 50, offset, details)))


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def counts(queue: ReliableQueue) -> tuple[int, int, int]:
    """Return the number of waiting, reserved and dead messages."""
    counts = queue.state().counts
    return counts.count, counts.reserved, counts.dead


def dead_letters(queue: ReliableQueue) -> ReliableQueue:
    """Return the queue of a queue's dead letters."""
    return ReliableQueue(queue.client, queue.name + ".dead", queue.prefix)


def with_one_delivery(queue: ReliableQueue) -> ReliableQueue:
    """Return the same queue with one delivery allowed: a message that is not acked becomes a dead letter."""
    return ReliableQueue(queue.client, queue.name, queue.prefix, max_deliveries=1)


def imported() -> list[Exported]:
    """Return a message in each state."""
    died = Details(5, reason="why", died=1.0)
    return [
        Exported(b"waiting", details=Details(2, 1.0, "why")),
        Exported(b"moved back", details=died),
        Exported(b"delayed", "delayed", Details(2, 1.0, "why"), time.time() + 900),
        Exported(b"dead", "dead", died),
    ]


def each_operation(
    queue: ReliableQueue,
    id: str = "1-1-a-1",
    delayed: str = "1-1-a-0-d",
    cleared: str = "c",
    removed: str = "r",
    moved: str = "m:x",
) -> dict[str, Callable[[], Any]]:
    """Return a call of every operation that is a script.

    They work on a reservation `id`, a delayed message, what `clear` and `remove` returned, and the undo of a move.
    """
    to = queue.name + "x"
    return {
        "push to the front": lambda: queue.push(b"new", front=True),
        "push once": lambda: queue.push_once("push", [b"new"]),
        "push later": lambda: queue.push_later(100, [b"new"]),
        "import": lambda: queue.import_messages(imported()),
        "pop": lambda: queue.pop(2),
        "pop once": lambda: queue.pop_batch(2, "pop"),
        "reserve": lambda: queue.reserve(30, 2, "worker"),
        "requeue": lambda: queue.requeue(b"popped"),
        "ack": lambda: queue.ack(id),
        "ack a delayed message": lambda: queue.ack(delayed),
        "ack with a result": lambda: queue.ack_with(id, "job", b"result"),
        "release": lambda: queue.release(id, delayed),
        "release later": lambda: queue.release(id, delayed, delay=9, reason="why"),
        "bury": lambda: queue.release(id, delayed, dead=True),
        "bury with a job": lambda: queue.release(id, dead=True, reason="why", job="job"),
        "extend": lambda: queue.extend([id, delayed], 30),
        "extend a delay": lambda: queue.extend(delayed, 30),
        "settle by an ack": lambda: queue.settle([Ack(id, "job", b"result")], [Release(delayed)]),
        "settle by a release": lambda: queue.settle([], [Release(id, dead=True, job="job")], [Extend(delayed)]),
        "sweep": lambda: queue.sweep(),
        "store a result": lambda: queue.store_result("job", b"result"),
        "remove": lambda: queue.remove(0, b"a"),
        "remove for an hour": lambda: queue.remove(0, b"a", undo=True),
        "clear": lambda: queue.clear(),
        "restore cleared messages": lambda: queue.restore(cleared),
        "restore a removed message": lambda: queue.restore(removed),
        "move": lambda: queue.move(to, 2),
        "move one": lambda: queue.move_one(to, 0, b"a"),
        "find and move": lambda: sum(queue.find_and_move(to, "a", 9)),
        "find and remove": lambda: sum(queue.find_and_remove("a")[1]),
        "remove many": lambda: sum(queue.remove_many([(0, b"a")])[1]),
        "move back": lambda: queue.restore(moved),
        "reasons": lambda: queue.reasons(),
        "find by reason": lambda: list(queue.find("", 9, reason="why")),
        "pause": lambda: queue.pause(),
        "resume": lambda: queue.resume(),
        "state": lambda: queue.state(2, 0, 9),
        "details": lambda: queue.details(9, 0, 9),
        "reserved": lambda: queue.in_flight("reserved", 9, 9),
        "delayed": lambda: queue.in_flight("delayed", 9, 9),
        "find": lambda: found(queue, "a", details=True),
        "stats": lambda: queue.stats(),
        "report waiters": lambda: queue.report_waiters("process", 1, 30),
        "consumers": lambda: queue.consumers(),
        "settings": lambda: queue.settings(),
        "set the settings": lambda: queue.set_settings(at_once=1000, per_second=100_000, max_deliveries=0),
    }


def settlement(acked: str, buried: str, extended: str) -> tuple[list[Ack], list[Release], list[Extend]]:
    """Return the arguments of a `settle` of three reservations, whose jobs are "done" and "failed"."""
    ack = Ack(acked, "done", b"result")
    return [ack], [Release(buried, dead=True, reason="why", job="failed")], [Extend(extended, 100)]


def use_every_operation(queue: ReliableQueue) -> None:
    """Use every operation, and leave every kind of key behind."""
    queue.push(*numbered(20))
    queue.push_once("push", [b"20"])
    queue.pop_batch(1, "pop")
    queue.import_messages(imported(), "import")
    single = with_one_delivery(queue)
    single.release(reserve(single)[0].id)
    kept, acked, released = reserve(queue, 3)
    queue.extend(kept.id, 60)
    queue.ack(acked.id)
    queue.release(released.id)
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
    queue.push(*numbered(3, 200))
    queue.settle(*settlement(*(one.id for one in reserve(queue, 3))))
    found(queue, "1", details=True)
    sum(queue.find_and_move(dead.name, "10", 1))
    sum(queue.find_and_remove("10", 1)[1])
    dead.move_one(queue.name, 0, dead.all(0, 1)[0])
    undo = queue.new_undo(dead.name)
    queue.move(dead.name, 1, undo)
    queue.restore(undo)
    queue.move_one(dead.name, 1, queue.all(1, 1)[0], undo)
    queue.restore(undo)
    queue.move(dead.name, 1, queue.new_undo(dead.name))
    queue.reasons()
    queue.details(9, 0, 9)
    queue.in_flight("delayed", 9, 9)
    queue.pause()
    queue.pop()
    queue.resume()
    queue.pause()
    queue.pop_batch(1, "paused")
    queue.resume()
    queue.release(reserve(queue)[0].id)
    queue.set_settings(at_once=1000, per_second=0.001, max_deliveries=9)
    queue.release(reserve(queue)[0].id)
    queue.client.set(queue.key_prefix + "paused", 1)  # to leave this key behind as well
    queue.state(9, 0, 9)
    queue.all()
    queue.stats()

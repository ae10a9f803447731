"""What the processes of a run do, each with a URL, a book and dice."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from seequeue import LeaseExpired, Queue

from tests.ledger.api import QUEUE, Api

LEASE = 1.0  # seconds
MAX_DELIVERIES = 1000  # so that no message becomes a dead letter


class Book:
    """The operations of one process, one a line. A line is in the file when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, operation: str, *details: object) -> None:
        os.write(self.file, (" ".join([operation, *map(str, details)]) + "\n").encode())

    def received(self, id: str, message: str, deliveries: int) -> None:
        self.write("received", id, message, deliveries, time.time_ns() // 1000)


def produce(url: str, book: Book, dice: random.Random, name: str, number: str, *queues: str) -> None:
    """Push `number` messages, each exactly once: every push has a key and is repeated until it is answered."""
    apis, left = [Api(url, queue) for queue in queues], [f"{name}-{n}" for n in range(int(number))]
    while left:
        api = dice.choice(apis)
        size = dice.choice([1, 1, 1, 5])
        some, left = left[:size], left[size:]
        fields: dict[str, Any] = {"messages": some} if size > 1 else {"message": some[0]}
        key = some[0]
        if dice.random() < 0.2:
            fields["delay"] = round(dice.random(), 2)
        if dice.random() < 0.1:
            api.call("push", key, hang_up=True, **fields)
        status, answer = api.call_until_answered("push", key, **fields)
        for text in some:
            book.write("pushed" if status == 200 else f"unexpected push {status} {answer}", text)


def consume(url: str, book: Book, dice: random.Random, queue: str) -> None:
    """Reserve, work, ack; now and then disconnect, release a message, or hold it for too long."""
    api = Api(url, queue)
    while True:
        ids, _ = reserve(api, book, dice, wait=5, max=dice.randint(1, 5))
        if ids and dice.random() < 0.02:
            book.write("released", id := ids.pop())
            api.call_until_answered("release", id=id, delay=dice.choice([0, 0.2]), reason="tired")
        work(dice)
        ack(api, book, ids)


def reserve(api: Api, book: Book, dice: random.Random, **fields: Any) -> tuple[list[str], str]:
    """Reserve messages; return their ids, and their queue if several were named. Now and then disconnect instead."""
    status, answer = api.call("reserve", hang_up=dice.random() < 0.02, lease=LEASE, **fields)
    if status == 503:
        time.sleep(0.05)
    elif status not in (0, 200):
        book.write("unexpected", "reserve", status, answer)
    found = answer.get("messages", []) if status == 200 else []
    for taken in found:
        book.received(taken["id"], taken["message"], taken["deliveries"])
    return [taken["id"] for taken in found], answer.get("queue", "")


def work(dice: random.Random) -> None:
    """Take a moment; now and then longer than a lease."""
    time.sleep(LEASE * 1.2 if dice.random() < 0.005 else 0.002)


def ack(api: Api, book: Book, ids: list[str]) -> None:
    """Ack reservations, except those whose lease has expired."""
    while ids:
        for id in ids:
            book.write("acking", id)
        status, answer = api.call_until_answered("ack", ids=ids)
        stale = answer.get("stale", []) if status == 409 else []
        for id in ids if status == 200 else stale:
            book.write("acked" if status == 200 else "late", id)
        if status not in (200, 409):
            book.write("unexpected", "ack", status, answer)
        ids = [] if status != 409 else [id for id in ids if id not in stale]


def consume_in_python(url: str, book: Book, dice: random.Random) -> None:
    """Like `consume`, with the loop of the Python client."""
    for message in Queue(QUEUE, url=url, timeout=600).consume(lease=LEASE, wait=5):
        book.received(message.id, message.text, message.deliveries)
        work(dice)
        book.write("acking", message.id)
        try:
            message.ack()
        except LeaseExpired:
            book.write("late", message.id)
        else:
            book.write("acked", message.id)


def stop_signals() -> list[int]:
    """Return a list that SIGTERM makes non-empty, instead of ending the process in the middle of a call."""
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    return received


def pop(url: str, book: Book, dice: random.Random) -> None:
    """Pop with a key, and repeat each request until it is answered.

    If this process were killed in between, a popped message would be lost, so it is not. It ends at SIGTERM, once it
    has written what it popped last.
    """
    api, stop = Api(url), stop_signals()
    while not stop:
        key = f"{dice.random()}"
        if dice.random() < 0.2:
            api.call("pop", key, hang_up=True, wait=1)
        status, answer = api.call_until_answered("pop", key, wait=1)
        if status == 200 and answer["success"]:
            id = f"{time.time_ns() // 1000}-{key}"  # begins with the time, as those of reservations do
            book.received(id, answer["message"], 0)
            book.write("acking", id)
            book.write("acked", id)
        elif status != 200:
            book.write("unexpected", "pop", status, answer)

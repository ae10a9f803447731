"""Roles beyond push, pop, reserve and ack.

Messages are reserved from two queues in order and settled in batches; they are moved, cleared, removed and restored;
and the limits of a queue change.
"""

import contextlib
import os
import random
import time
from typing import Any

from broker.connections.connection import connect
from broker.models import NotFound
from broker.queue import ReliableQueue
from tests.ledger.api import QUEUE, Api
from tests.ledger.roles import LEASE, Book, reserve, stop_signals, work

URGENT = "ledger-urgent"
QUEUES = (URGENT, QUEUE)


def settle(url: str, book: Book, dice: random.Random) -> None:
    """Reserve from both queues, work, and settle a batch: ack most, release some, extend some and ack those later."""
    apis = {name: Api(url, name) for name in QUEUES}
    several, by = Api(url, ",".join(QUEUES)), f"settler-{os.getpid()}"
    while True:
        ids, queue = reserve(several, book, dice, wait=1, max=dice.randint(1, 10), by=by)
        work(dice)
        while ids:
            ids = settle_some(apis[queue], book, dice, ids)


def settle_some(api: Api, book: Book, dice: random.Random, ids: list[str]) -> list[str]:
    """Settle reservations, and return those that were extended."""
    releases = [id for id in ids if dice.random() < 0.02]
    extends = [id for id in ids if id not in releases and dice.random() < 0.1]
    acks = [id for id in ids if id not in releases and id not in extends]
    for operation, some in (("released", releases), ("acking", acks)):
        for id in some:
            book.write(operation, id)
    status, answer = api.call_until_answered(
        "settle",
        acks=[{"id": id, "job": id, "result": "done"} if dice.random() < 0.1 else id for id in acks],
        releases=[{"id": id, "delay": dice.choice([0, 0.2]), "reason": "tired"} for id in releases],
        extends=[{"id": id, "lease": LEASE} for id in extends],
    )
    if status != 200:
        book.write("unexpected", "settle", status, answer)
        return []
    for id in acks:
        book.write("late" if id in answer["stale"] else "acked", id)
    return [id for id in extends if id not in answer["stale"]]


def tidy(url: str, book: Book, dice: random.Random) -> None:
    """Pause, move and clear, and undo it, until SIGTERM. If an answer is lost, `undo_all` undoes that call later."""
    stop = stop_signals()
    apis = {name: Api(url, name) for name in QUEUES}

    def call(name: str, operation: str, **fields: Any) -> Any:
        status, answer = apis[name].call_until_answered(operation, **fields)
        if status not in (200, 409):  # a message can have moved, or been restored by a request whose answer was lost
            book.write("unexpected", operation, status, answer)
        book.write("tidied", operation)
        return answer

    while not stop:
        name, other = dice.sample(QUEUES, 2)
        kind = dice.choice(["pause", "move", "move", "clear", "remove one", "limits", "remove"])
        answer = {}
        if kind == "pause":
            call(name, "pause")
            time.sleep(0.05)
            call(name, "resume")
        elif kind == "limits":
            call(name, "settings", at_once=dice.choice([0, 1, 20]), per_second=dice.choice([0, 0, 300]))
        elif kind == "move":
            answer = call(name, "move", to=other, max=dice.randint(1, 50), **dice.choice([{}, {"contains": "7"}]))
        elif kind == "clear":
            answer = call(name, "clear")
        elif kind == "remove":
            answer = call(name, "remove", contains="7")
        elif found := call(name, "all").get("messages"):
            position = dice.randrange(len(found))
            answer = call(name, "remove", position=position, message=found[position], undo=True)
        time.sleep(dice.choice([0, 0.05]))
        if undo := answer.get("undo"):
            call(name, "restore", undo=undo)
        time.sleep(0.2)


def undo_all(url: str, app_url: str) -> None:
    """Resume both queues, lift their limits, and restore what is still removed."""
    for name in QUEUES:
        api, queue = Api(app_url, name), ReliableQueue(connect(url), name)
        api.call_until_answered("resume")
        api.call_until_answered("settings", at_once=0, per_second=0)
        for key in list(queue.client.scan_iter(match=queue.key_prefix + "cleared:*", count=10_000)):
            with contextlib.suppress(NotFound):
                queue.restore(key.decode().rpartition(":")[2])

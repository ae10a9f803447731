"""A ledger of a busy queue: which process pushed, received and acked each message, while anything can fail.

Producers and consumers are processes that use this app over HTTP (one consumer uses broker.consumer.consume, and one
takes from an urgent queue first), with two gunicorn workers, and a proxy between them and Valkey. Consumers, workers
and the store are killed with SIGKILL and replaced, replies are lost, connections dropped; clients disconnect before
they have read an answer, or hold a lease too long. Each process writes a line to its own file before and after every
operation, so a killed one leaves its lines too.

    python -m tests.ledger     a long run; SOAK_MESSAGES, SOAK_EVENTS (disasters) and SOAK_CONSUMERS set its size
"""

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from broker.connections.connection import connect
from broker.consumer import consume as consume_messages
from broker.models import LeaseExpired
from broker.queue import ReliableQueue
from tests.servers import ROOT, App, Proxy, Store, running, until

QUEUE, URGENT = "ledger", "ledger-urgent"
LEASE = 1.0  # seconds
MAX_DELIVERIES = 1000  # so that no message becomes a dead letter
# With everysec the store can hold back a write while it syncs the one before, and SIGKILL loses it.
STORE = ("--appendonly", "yes", "--appendfsync", "always")


class Api:
    """One client of the app on one connection, which it opens again when it is lost."""

    def __init__(self, url: str, queue: str = QUEUE) -> None:
        self.netloc, self.queue = urlsplit(url).netloc, queue
        self.connection: http.client.HTTPConnection | None = None

    def call(self, operation: str, key: str | None = None, hang_up: bool = False, **fields: Any) -> tuple[int, Any]:
        """Return the status and the answer; (0, {}) if there was none or it was not read: the outcome is unknown."""
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        method, body = ("GET", None) if operation == "count" else ("POST", json.dumps(fields))
        try:
            self.connection = self.connection or http.client.HTTPConnection(self.netloc, timeout=30)
            self.connection.request(method, f"/api/queue/{self.queue}/{operation}", body, headers)
            if not hang_up:
                response = self.connection.getresponse()
                return response.status, json.loads(response.read())
        except TimeoutError:  # a missing answer is a fault
            raise
        except (OSError, http.client.HTTPException):
            pass
        if self.connection:
            self.connection.close()
        self.connection = None
        return 0, {}

    def call_until_answered(self, operation: str, key: str | None = None, **fields: Any) -> tuple[int, Any]:
        """Repeat the call until its answer is definite."""
        while True:
            status, answer = self.call(operation, key, **fields)
            if status not in (0, 503):
                return status, answer
            time.sleep(0.05)


class Book:
    """The operations of one process, one a line. A line is in the file when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, operation: str, *details: object) -> None:
        os.write(self.file, (" ".join([operation, *map(str, details)]) + "\n").encode())


def produce(url: str, book: Book, dice: random.Random, name: str, number: str) -> None:
    """Push `number` messages, each once: with a key, and repeated until there is an answer."""
    left = [f"{name}-{n}" for n in range(int(number))]
    apis = [Api(url), Api(url), Api(url, URGENT)]
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


def consume(url: str, book: Book, dice: random.Random, names: str = QUEUE) -> None:
    """Reserve, work, ack; now and then disconnect, release a message, or hold it for too long."""
    line, apis = Api(url, names), {name: Api(url, name) for name in names.split(",")}
    while True:
        options: dict[str, Any] = {"lease": LEASE, "wait": 5, "max": dice.randint(1, 5), "by": names}
        status, answer = line.call("reserve", hang_up=dice.random() < 0.02, **options)
        api = apis[answer.get("queue", QUEUE)]
        if status == 503:
            time.sleep(0.05)
        elif status not in (0, 200):
            book.write("unexpected", "reserve", status, answer)
        for taken in answer.get("messages", []) if status == 200 else []:
            book.write("received", taken["id"], taken["message"], taken["deliveries"])
        ids = [taken["id"] for taken in answer.get("messages", [])] if status == 200 else []
        if ids and dice.random() < 0.02:
            book.write("released", id := ids.pop())
            api.call_until_answered("release", id=id, delay=dice.choice([0, 0.2]), reason="tired")
        time.sleep(LEASE * 1.2 if dice.random() < 0.005 else 0.002)
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
    """Do the same with the broker's consumer."""
    original = ReliableQueue.ack

    def ack(self: ReliableQueue, *ids: str) -> int:
        book.write("acking", *ids)
        try:
            number = original(self, *ids)
        except LeaseExpired:
            book.write("late", *ids)
            raise
        book.write("acked", *ids)
        return number

    queue = ReliableQueue(connect(url), QUEUE, max_deliveries=MAX_DELIVERIES)
    with mock.patch.object(ReliableQueue, "ack", ack):
        for message in consume_messages(queue, lease=LEASE, wait=5):
            book.write("received", message.id, message.decode(), message.deliveries)
            time.sleep(LEASE * 1.2 if dice.random() < 0.005 else 0.002)


def consume_urgent_first(url: str, book: Book, dice: random.Random) -> None:
    consume(url, book, dice, f"{URGENT},{QUEUE}")


ROLES: dict[str, Callable[..., None]] = {
    "produce": produce,
    "consume": consume,
    "urgent": consume_urgent_first,
    "python": consume_in_python,
}


@dataclass
class Figures:
    """The results of a run. A disaster is a process killed, a reply lost, or all connections dropped."""

    pushed: int = 0  # messages whose push succeeded
    lost: int = 0  # pushed messages that no consumer can have acked
    invented: int = 0  # received messages that were never pushed
    doubled: int = 0  # deliveries of a message beyond its first, except those after a release
    expired: int = 0  # leases that expired, by the store's number of deliveries
    redelivered: int = 0  # deliveries beyond the first, by that number
    received_after_ack: int = 0  # deliveries of a message after its ack
    same_delivery: int = 0  # deliveries that two consumers received
    late: int = 0  # acks refused because the lease had expired
    unexpected: int = 0  # answers that no client must get
    dead: int = 0
    seconds: float = 0

    def __str__(self) -> str:
        return ", ".join(f"{each.name} {getattr(self, each.name):g}" for each in fields(self))


class Ledger:
    """The books of all processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ends: Counter[Path] = Counter()
        self.lines: list[list[str]] = []
        self.operations: Counter[str] = Counter()

    def read(self) -> "Ledger":
        """Read the lines written since the last call."""
        for path in self.folder.glob("*.book"):
            with path.open("rb") as file:
                file.seek(self.ends[path])
                whole = file.read().rpartition(b"\n")
            self.ends[path] += len(whole[0]) + len(whole[1])
            for line in whole[0].decode().splitlines():
                self.lines.append(line.split())
                self.operations[self.lines[-1][0]] += 1
        return self

    def figures(self) -> Figures:
        pushed = {line[1] for line in self.lines if line[0] == "pushed"}
        released = {line[1] for line in self.lines if line[0] == "released"}
        acked = {line[1] for line in self.lines if line[0] == "acked"}
        late = {line[1] for line in self.lines if line[0] == "late"}
        maybe_acked = {line[1] for line in self.lines if line[0] == "acking"} - late
        received: dict[str, list[tuple[str, int]]] = {}
        for line in self.lines:
            if line[0] == "received":
                received.setdefault(line[2], []).append((line[1], int(line[3])))
        found = Figures(pushed=len(pushed), late=self.operations["late"], unexpected=self.operations["unexpected"])
        found.lost = sum(not any(id in maybe_acked for id, _ in received.get(text, ())) for text in pushed)
        found.invented = len(received.keys() - pushed)
        for deliveries in received.values():
            found.redelivered += sum(number > 1 for _, number in deliveries)
            found.doubled += max(0, sum(id not in released for id, _ in deliveries) - 1)
            found.expired += max(number for _, number in deliveries) - 1 - sum(id in released for id, _ in deliveries)
            found.same_delivery += len(deliveries) - len(set(deliveries))
            done = [id for id, _ in deliveries if id in acked]
            found.received_after_ack += sum(id > min(done) for id, _ in deliveries) if done else 0
        return found


class World:
    """All processes of a run, and the disasters that can strike them."""

    def __init__(self, folder: Path, store: Store, proxy: Proxy, app: App, dice: random.Random) -> None:
        self.folder, self.store, self.proxy, self.app, self.dice = folder, store, proxy, app, dice
        self.number = 0
        self.producers: list[subprocess.Popen[bytes]] = []
        self.consumers: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, role: str, *arguments: str) -> subprocess.Popen[bytes]:
        self.number += 1
        url = self.proxy.url if role == "python" else self.app.url
        command = [sys.executable, "-m", "tests.ledger", role, url, str(self.folder / f"{self.number}.book")]
        with open(self.folder / "processes.log", "ab") as log:
            return subprocess.Popen([*command, str(self.number), *arguments], cwd=ROOT, stdout=log, stderr=log)

    def add_consumer(self, role: str) -> None:
        self.consumers.append((role, self.start(role)))

    def kill_a_consumer(self) -> None:
        role, process = self.consumers.pop(self.dice.randrange(len(self.consumers)))
        process.kill()
        process.wait()
        self.add_consumer(role)

    def kill_a_worker(self) -> None:
        how = self.dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.dice.choice(until(self.app.workers)), how)

    def reload_the_app(self) -> None:
        self.app.process.send_signal(signal.SIGHUP)

    def kill_the_store(self) -> None:
        self.store.end(signal.SIGKILL)
        self.store.start()

    def cut_a_reply(self) -> None:
        self.proxy.cut(self.dice.choice([None, "EVALSHA", "EVALSHA", "BLMOVE"]), before=self.dice.random() < 0.3)

    def drop_connections(self) -> None:
        self.proxy.drop()

    def change_the_limits(self) -> None:
        settings: dict[str, Any] = {"at_once": self.dice.choice([0, 1, 5]), "per_second": self.dice.choice([0, 300])}
        Api(self.app.url).call_until_answered("settings", **settings)

    def end(self) -> None:
        for process in self.producers + [process for _, process in self.consumers]:
            process.terminate()
            process.wait()


def disasters(world: World, number: int) -> list[Callable[[], None]]:
    """Return `number` disasters of all kinds, in random order."""
    kills = [world.kill_a_consumer, world.kill_a_worker, world.kill_the_store, world.reload_the_app]
    kinds = [*kills, world.drop_connections, world.change_the_limits, *[world.cut_a_reply] * 9]
    found = [kinds[n % len(kinds)] for n in range(number)]
    world.dice.shuffle(found)
    return found


@contextlib.contextmanager
def world_in(folder: Path, dice: random.Random) -> Iterator[World]:
    with (
        running(Store("valkey", folder / "store", *STORE)) as store,
        running(Proxy(store.port)) as proxy,
        running(App(folder / "app", REDIS_URL=proxy.url, MAX_DELIVERIES=str(MAX_DELIVERIES))) as app,
        running(World(folder, store, proxy, app, dice)) as world,
    ):
        yield world


def run(
    folder: Path, messages: int, events: int, consumers: int = 3, report: Callable[[str], object] = print
) -> Figures:
    """Push and consume `messages` messages through `events` disasters; drain the queue, and return the figures."""
    begin, dice, ledger = time.monotonic(), random.Random(1), Ledger(folder)
    with world_in(folder, dice) as world:
        for _ in range(consumers):
            world.add_consumer("consume")
        world.add_consumer("python")
        world.add_consumer("urgent")
        halves = messages // 2, messages - messages // 2
        world.producers = [world.start("produce", f"p{n}", str(half)) for n, half in enumerate(halves)]
        apis = [Api(world.app.url, name) for name in (QUEUE, URGENT)]
        for done, disaster in enumerate(disasters(world, events), 1):
            due = messages * 0.95 * done / events  # disasters are spread over the messages, not over time
            until(lambda due=due: ledger.read().operations["acked"] >= due or finished(world, apis), 120)  # type: ignore[misc]
            disaster()
            if done % max(1, events // 20) == 0:
                report(f"{time.monotonic() - begin:6.1f} s, {done} of {events} disasters: {dict(ledger.operations)}")
        world.proxy.heal()
        for producer in world.producers:
            assert producer.wait(120) == 0, (folder / "processes.log").read_text()
        report(f"{time.monotonic() - begin:6.1f} s, all messages are pushed")
        until(lambda: drained(apis), 120)
        report(f"{time.monotonic() - begin:6.1f} s, all messages are acked")
        ended = [process.args for _, process in world.consumers if process.poll() is not None]
        assert not ended, (ended, (folder / "processes.log").read_text())
        figures = ledger.read().figures()
        figures.dead = sum(api.call_until_answered("count")[1]["dead"] for api in apis)
    figures.seconds = time.monotonic() - begin
    return figures


def finished(world: World, apis: list[Api]) -> bool:
    """Return whether nothing is left to do. Lost messages are never acked, so waiting for acks alone would not end."""
    return all(producer.poll() == 0 for producer in world.producers) and drained(apis)


def drained(apis: list[Api]) -> bool:
    counts = [api.call("count") for api in apis]
    return all(
        status == 200 and answer["count"] == answer["reserved"] == answer["delayed"] == 0 for status, answer in counts
    )


def main() -> None:
    messages, events, consumers = (
        int(os.environ.get(f"SOAK_{name}", default))
        for name, default in (("MESSAGES", "30000"), ("EVENTS", "300"), ("CONSUMERS", "6"))
    )
    with tempfile.TemporaryDirectory(prefix="ledger") as folder:
        figures = run(Path(folder), messages, events, consumers, lambda line: print(line, flush=True))
    print(figures)
    faults = figures.lost + figures.invented + figures.received_after_ack + figures.same_delivery + figures.unexpected
    sys.exit(bool(faults or figures.doubled > figures.expired or figures.pushed != messages))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        role, url, path, seed, *arguments = sys.argv[1:]
        ROLES[role](url, Book(Path(path)), random.Random(int(seed)), *arguments)
    else:
        main()

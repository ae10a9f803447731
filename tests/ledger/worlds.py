"""The processes of a run, and the disasters that can strike them."""

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.ledger.roles import MAX_DELIVERIES
from tests.servers import ROOT, App, Proxy, Store, running, until

# With everysec the store can hold back a write while it syncs the one before, and SIGKILL loses it.
STORE = ("--appendonly", "yes", "--appendfsync", "always")


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

    def end(self) -> None:
        for process in self.producers + [process for _, process in self.consumers]:
            process.terminate()
            process.wait()


def disasters(world: World, number: int) -> list[Callable[[], None]]:
    """Return `number` disasters of all kinds, in random order."""
    kills = [world.kill_a_consumer, world.kill_a_worker, world.kill_the_store, world.reload_the_app]
    kinds = [*kills, world.drop_connections, *[world.cut_a_reply] * 10]
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

"""The worlds in which a run takes place: the app, its clients and its store, and the disasters that can strike them.

A disaster that spoils something (the clock, the disk, the log) mends it when it strikes again.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import redis

from tests.clocked import ClockedStore, has_faketime
from tests.embedded.helpers import server_of, supervisor_of
from tests.engines import SentinelSet
from tests.ledger.books import JUMP, Ledger
from tests.ledger.roles import LEASE, MAX_DELIVERIES
from tests.servers import ROOT, App, Proxy, Store, running, until
from tests.small_disk import disk_if_permitted, fill

# With everysec the store can hold back a write while it syncs the one before, and SIGKILL loses it.
STORE = ("--appendonly", "yes", "--appendfsync", "always")
COUNTS_DISK = 8  # MiB


class World:
    """The app, its producers and its consumers."""

    def __init__(self, ledger: Ledger, seed: int, disk: Path | None, url: str = "") -> None:
        """Start the app on the store at `url`, or with its embedded one."""
        self.ledger, self.folder, self.seed, self.dice = ledger, ledger.folder, seed, random.Random(seed)
        self.number = 0
        self.producers: list[subprocess.Popen[bytes]] = []
        self.others: Sequence[subprocess.Popen[bytes]] = ()  # clients that are never killed
        self.consumers: list[tuple[tuple[str, ...], subprocess.Popen[bytes]]] = []
        self.disk, self.log, self.log_reader = disk, self.folder / "requests.log", -1
        os.mkfifo(self.log)
        self.open_the_log()
        env = {"LOG_REQUESTS": "1", "MAX_DELIVERIES": str(MAX_DELIVERIES)}
        env |= {"REDIS_URL": url} if url else {}
        env |= {"GUNICORN_CMD_ARGS": f"--worker-tmp-dir {disk}"} if disk else {}
        self.app = App(self.folder / "app", f">{self.log}", **env)
        self.url = url or f"unix://{self.app.folder}/valkey.sock"

    def start(self, role: str, *arguments: str) -> subprocess.Popen[bytes]:
        self.number += 1
        book = str(self.folder / f"{self.number}.book")
        command = [sys.executable, "-m", "tests.ledger.process", role, self.app.url, book]
        seed = str(self.seed * 100_000 + self.number)
        env = {**os.environ, "PYTHONPATH": str(ROOT / "client/python")}
        with open(self.folder / "processes.log", "ab") as log:
            return subprocess.Popen([*command, seed, *arguments], cwd=ROOT, env=env, stdout=log, stderr=log)

    def add_consumer(self, *role: str) -> None:
        self.consumers.append((role, self.start(*role)))

    def clients(self) -> list[subprocess.Popen[bytes]]:
        return [*self.producers, *self.others, *(process for _, process in self.consumers)]

    def app_processes(self) -> list[int]:
        return [self.app.process.pid, *self.app.workers()]

    def all_processes(self) -> list[int]:
        return [*self.app_processes(), *(process.pid for process in self.clients())]

    # --- disasters

    def kinds(self) -> list[Callable[[], None]]:
        """Return the disasters, each as often as its share of all."""
        found = [self.kill_a_consumer, self.kill_a_worker, self.reload_the_app, self.stop_the_app, self.spoil_the_log]
        return [*found, self.spoil_the_disk] if self.disk else found

    def kill_a_consumer(self) -> None:
        role, process = self.consumers.pop(self.dice.randrange(len(self.consumers)))
        process.kill()
        process.wait()
        self.add_consumer(*role)

    def kill_a_worker(self) -> None:
        how = self.dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        send(how, self.dice.choice(until(self.app.workers)))

    def reload_the_app(self) -> None:
        self.app.process.send_signal(signal.SIGHUP)

    def stop_the_app(self) -> None:
        """Send each process of the app a signal, as systemd does, and start the app again."""
        how = self.dice.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGKILL])
        send(how, *self.app_processes())
        assert self.app.process.wait(90) == (-how if how == signal.SIGKILL else 0)
        self.open_the_log()
        self.app.start()

    def pause(self) -> None:
        """Stop all processes for longer than a lease: a laptop sleeps, a container is paused."""
        processes = self.all_processes()
        send(signal.SIGSTOP, *processes)
        end = time.monotonic() + 2 * LEASE
        until(lambda: time.monotonic() > end)
        self.dice.shuffle(processes)
        send(signal.SIGCONT, *processes)

    def spoil_the_disk(self) -> None:
        """Fill the disk of the workers' counters, or free it again."""
        assert self.disk
        filling = self.disk / "filling"
        if filling.exists():
            filling.unlink()
        else:
            fill(self.disk)

    def spoil_the_log(self) -> None:
        """Close the pipe to which the app logs each request. While it is open it is full, as nobody reads from it."""
        if self.log_reader < 0:
            self.open_the_log()
        else:
            self.close_the_log()

    def open_the_log(self) -> None:
        self.close_the_log()
        self.log_reader = os.open(self.log, os.O_RDONLY | os.O_NONBLOCK)

    def close_the_log(self) -> None:
        if self.log_reader >= 0:
            os.close(self.log_reader)
        self.log_reader = -1

    # ---

    def heal(self) -> None:
        """Undo the disasters that do not end by themselves."""

    def end(self) -> None:
        for process in self.clients():
            process.kill()
            process.wait()
        self.app.end()
        self.close_the_log()


class OnStore(World):
    """With a proxy between the app and a Valkey that syncs each write."""

    def __init__(self, ledger: Ledger, seed: int, disk: Path | None, store: Store, proxy: Proxy) -> None:
        self.store, self.proxy, self.offset = store, proxy, 0
        super().__init__(ledger, seed, disk, proxy.url)

    def all_processes(self) -> list[int]:
        assert self.store.process
        return [self.store.process.pid, *super().all_processes()]

    def kinds(self) -> list[Callable[[], None]]:
        found = [*super().kinds(), self.kill_the_store, self.drop_connections, self.pause]
        return [*found, *([self.set_the_clock] * 2 if self.has_clock() else []), *[self.cut_a_reply] * 10]

    def has_clock(self) -> bool:
        return isinstance(self.store, ClockedStore)

    def kill_the_store(self) -> None:
        self.store.end(signal.SIGKILL)
        self.store.start()

    def set_the_clock(self) -> None:
        """Set the clock of the store forward, or back."""
        assert isinstance(self.store, ClockedStore)
        self.offset = 0 if self.offset else JUMP
        self.store.set_clock(self.offset)

    def cut_a_reply(self) -> None:
        self.proxy.cut(self.dice.choice([None, "EVALSHA", "EVALSHA", "BLMOVE"]), before=self.dice.random() < 0.3)

    def drop_connections(self) -> None:
        self.proxy.drop()

    def heal(self) -> None:
        self.proxy.heal()


class Embedded(World):
    """On the server that the app starts itself."""

    def app_processes(self) -> list[int]:
        server = until(lambda: server_of(self.app.folder))
        return [server, supervisor_of(self.app.folder), *super().app_processes()]

    def kinds(self) -> list[Callable[[], None]]:
        return [*super().kinds(), self.pause, self.kill_the_server, self.kill_the_supervisor]

    def kill_the_server(self) -> None:
        send(signal.SIGKILL, until(lambda: server_of(self.app.folder)))

    def kill_the_supervisor(self) -> None:
        send(signal.SIGKILL, supervisor_of(self.app.folder))


class BehindSentinels(World):
    """On a primary with two replicas, behind Sentinels."""

    def __init__(self, ledger: Ledger, seed: int, disk: Path | None, sentinels: SentinelSet) -> None:
        self.sentinels = sentinels
        for one in sentinels.sentinels:  # a busy machine must not lead to a failover that nobody planned
            one.ask("SENTINEL", "SET", sentinels.SERVICE, "down-after-milliseconds", 60_000)
        until(self.is_settled)
        super().__init__(ledger, seed, disk, f"{sentinels.url}?client_name=ledger")

    def kinds(self) -> list[Callable[[], None]]:
        return [self.fail_over, self.fail_over_without_loss, *super().kinds()]

    def fail_over(self) -> None:
        """Have the Sentinels promote a replica. Only what is acknowledged before all of them name it may be lost."""
        before = self.begin_failover()
        self.ledger.at_risk += self.ledger.read().operations - before

    def fail_over_without_loss(self) -> None:
        self.begin_failover("COORDINATED")

    def begin_failover(self, *how: str) -> Counter[str]:
        """Fail over, and wait until no client uses the old primary. Return the counts of operations from before it."""
        until(self.is_settled, 120)
        old, before = self.sentinels.primary(), self.ledger.read().operations.copy()
        self.sentinels.sentinels[0].ask("SENTINEL", "FAILOVER", self.sentinels.SERVICE, *how)
        addresses = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.sentinels.SERVICE)
        until(lambda: all(int(one.ask(*addresses)[1]) != old.port for one in self.sentinels.sentinels))
        until(lambda: b" name=ledger " not in old.ask("CLIENT", "LIST"), 5)  # the Sentinels demote it after 11 seconds
        old.ask("REPLICAOF", "127.0.0.1", self.sentinels.primary().port)
        return before

    def is_settled(self) -> bool:
        """Return whether the last failover is over: both replicas follow the primary."""
        with contextlib.suppress(redis.RedisError):
            found = self.sentinels.primary().client().info("replication")
            return all(found.get(f"slave{n}", {}).get("state") == "online" for n in range(2)) and all(
                b"slaves=2" in one.ask("INFO", "sentinel") and self.sentinels._is_ready(one)
                for one in self.sentinels.sentinels
            )
        return False


def send(how: signal.Signals, *processes: int) -> None:
    """Send a signal to processes, some of which may have ended."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, how)


@contextlib.contextmanager
def on_store(ledger: Ledger, seed: int, disk: Path | None) -> Iterator[World]:
    folder = ledger.folder / "store"
    store = ClockedStore(folder, *STORE) if has_faketime() else Store("valkey", folder, *STORE)
    with (
        running(store),
        running(Proxy(store.port)) as proxy,
        running(OnStore(ledger, seed, disk, store, proxy)) as made,
    ):
        yield made


@contextlib.contextmanager
def embedded(ledger: Ledger, seed: int, disk: Path | None) -> Iterator[World]:
    with running(Embedded(ledger, seed, disk)) as made:
        yield made


@contextlib.contextmanager
def behind_sentinels(ledger: Ledger, seed: int, disk: Path | None) -> Iterator[World]:
    with (
        running(SentinelSet("valkey", ledger.folder / "sentinels", replicas=2)) as sentinels,
        running(BehindSentinels(ledger, seed, disk, sentinels)) as made,
    ):
        yield made


WORLDS = {"store": on_store, "embedded": embedded, "sentinels": behind_sentinels}


@contextlib.contextmanager
def world_in(name: str, ledger: Ledger, seed: int) -> Iterator[World]:
    """Start a world of a kind, and end it afterwards."""
    with (
        disk_if_permitted(ledger.folder / "disk", COUNTS_DISK) as disk,
        WORLDS[name](ledger, seed, disk) as world,
    ):
        yield world


def disasters(world: World, number: int) -> list[Callable[[], None]]:
    """Return `number` disasters of all kinds, in random order."""
    kinds = world.kinds()
    found = [kinds[n % len(kinds)] for n in range(number)]
    world.dice.shuffle(found)
    return found

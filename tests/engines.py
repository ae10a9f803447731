"""Redis in its larger forms, for tests: a cluster, and servers that Sentinels monitor."""

import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from broker.connections.connection import connect
from tests.servers import Store, free_port, until

SLOTS = 16384
QUICK_REPLICA = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


class Cluster:
    """Primaries of a cluster, without replicas. If one is down, the others keep serving their slots."""

    def __init__(self, kind: str, folder: Path, primaries: int = 3, options: Sequence[str] = ()) -> None:
        self.kind, self.folder, self.options = kind, folder, options
        self.nodes: list[Store] = []
        for _ in range(primaries):
            self._start_node()
        for number, node in enumerate(self.nodes):
            start, end = number * SLOTS // primaries, (number + 1) * SLOTS // primaries - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", start, end)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self._meet(node)
        until(lambda: all(self._is_ok(node) for node in self.nodes))

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def client(self) -> Any:
        return connect(self.url)

    def add(self) -> Store:
        """Add a primary without slots."""
        node = self._start_node()
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", len(self.nodes))
        self._meet(node)
        until(lambda: all(self._knows_all(one) and self._is_ok(one) for one in self.nodes))
        return node

    def replicate(self, primary: Store) -> Store:
        """Add a replica of a primary, and wait until it is in sync."""
        replica = self.add()
        replica.ask("CLUSTER", "REPLICATE", self._id(primary))
        until(lambda: replica.client().info("replication").get("master_link_status") == "up")
        return replica

    def move_slot(self, key: str, to: Store) -> None:
        """Move the slot of a key to another primary, key by key, as `redis-cli --cluster reshard` does."""
        source = self.begin_move(key, to)
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", _slot(key), 1):
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        self.end_move(key, to, source)

    def begin_move(self, key: str, to: Store) -> Store:
        """Start moving the slot of a key to another primary; return the one that has it."""
        source = self.owner(key)
        to.ask("CLUSTER", "SETSLOT", _slot(key), "IMPORTING", self._id(source))
        source.ask("CLUSTER", "SETSLOT", _slot(key), "MIGRATING", self._id(to))
        return source

    def end_move(self, key: str, to: Store, source: Store) -> None:
        """Finish moving the slot of a key."""
        for node in [to, source, *(node for node in self.nodes if node not in (to, source))]:
            node.ask("CLUSTER", "SETSLOT", _slot(key), "NODE", self._id(to))

    def owner(self, key: str) -> Store:
        """Return the primary of a key."""
        slot = _slot(key)
        for start, end, primary, *_ in self.nodes[0].ask("CLUSTER", "SLOTS"):
            if start <= slot <= end:
                return next(node for node in self.nodes if node.port == primary[1])
        raise AssertionError(f"no node serves {key}")

    def end(self) -> None:
        for node in self.nodes:
            node.end(signal.SIGKILL)  # on SIGTERM they take long

    def _start_node(self) -> Store:
        options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "1000")
        more = ("--cluster-require-full-coverage", "no", "--cluster-allow-replica-migration", "no")
        self.nodes.append(
            Store(self.kind, self.folder / str(len(self.nodes)), *options, *more, *QUICK_REPLICA, *self.options)
        )
        return self.nodes[-1]

    def _meet(self, node: Store) -> None:
        node.ask("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, self.nodes[0].options[3])

    def _id(self, node: Store) -> bytes:
        found: bytes = node.ask("CLUSTER", "MYID")
        return found

    def _is_ok(self, node: Store) -> bool:
        info = node.ask("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_slots_ok:16384" in info

    def _knows_all(self, node: Store) -> bool:
        return len(node.ask("CLUSTER", "NODES").splitlines()) == len(self.nodes)


class SentinelSet:
    """A primary, its replicas, and three Sentinels, which promote a replica if the primary is down."""

    SERVICE = "main"

    def __init__(
        self, kind: str, folder: Path, options: Sequence[str] = (), password: str = "", replicas: int = 1
    ) -> None:
        self.password = password
        login = ("--requirepass", password, "--masterauth", password) if password else ()
        server_options = (*QUICK_REPLICA, *login, *options)
        self.servers = [Store(kind, folder / "primary", *server_options, password=password)]
        replica_of = ("--replicaof", "127.0.0.1", str(self.servers[0].port))
        for number in range(replicas):
            store = Store(kind, folder / f"replica{number}", *server_options, *replica_of, password=password)
            self.servers.append(store)
        until(lambda: all(self._is_in_sync(store) for store in self.servers[1:]))
        self.sentinels = [self._start_sentinel(kind, folder / f"sentinel{number}") for number in range(3)]
        until(lambda: all(self._is_ready(sentinel) for sentinel in self.sentinels))

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        login = f":{self.password}@" if self.password else ""
        more = f"?sentinel_password={self.password}-of-sentinels" if self.password else ""
        return f"redis+sentinel://{login}{hosts}/{self.SERVICE}/0{more}"

    def client(self) -> Any:
        return connect(self.url)

    def primary(self) -> Store:
        """Return the server that the Sentinels call the primary."""
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def end(self) -> None:
        for store in (*self.sentinels, *self.servers):
            store.end(signal.SIGKILL)

    def _start_sentinel(self, kind: str, folder: Path) -> Store:
        folder.mkdir(parents=True)
        name, port = self.SERVICE, self.servers[0].port
        lines = [
            f"sentinel monitor {name} 127.0.0.1 {port} 2",
            f"sentinel down-after-milliseconds {name} 500",
            f"sentinel failover-timeout {name} 5000",
        ]
        password = ""
        if self.password:
            password = f"{self.password}-of-sentinels"
            lines += [f"sentinel auth-pass {name} {self.password}", f"requirepass {password}"]
            lines += [f"sentinel sentinel-pass {password}"]
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
        return Store(kind, folder, password=password, first=("sentinel.conf", "--sentinel"))

    def _is_in_sync(self, replica: Store) -> bool:
        return bool(replica.client().info("replication").get("master_link_status") == "up")

    def _is_ready(self, sentinel: Store) -> bool:
        with contextlib.suppress(redis.RedisError):
            reply = sentinel.ask("SENTINEL", "MASTER", self.SERVICE)
            state = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
            replicas = b"%d" % (len(self.servers) - 1)
            found = [state[key] for key in (b"num-slaves", b"num-other-sentinels", b"flags")]
            return found == [replicas, b"2", b"master"]
        return False


def _slot(key: str) -> int:
    return key_slot(key.encode())

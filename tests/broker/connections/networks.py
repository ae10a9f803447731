"""Networks and servers that fail in ways that `Proxy` does not."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from tests.servers import Proxy, Store, until


class Forgetful(Proxy):
    """A proxy that forgets connections, as firewalls do with idle ones: it silently drops what is sent on them."""

    def __init__(self, port: int) -> None:
        self._forgotten: set[tuple[socket.socket, socket.socket]] = set()
        super().__init__(port)

    def forget(self) -> None:
        """Forget all connections that exist now; new ones work."""
        with self._lock:
            self._forgotten |= self._pairs
            self._pairs.clear()

    def end(self) -> None:
        super().end()
        for pair in self._forgotten:
            self._break(*pair)

    def _requests(self, client: socket.socket, store: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if (client, store) not in self._forgotten:
                    store.sendall(data)
        if (client, store) not in self._forgotten:
            self._break(client, store)


class Failover:
    """A primary and its replica behind one address. A failover leaves all connections as they are."""

    def __init__(self, start: Callable[..., Store], kind: str) -> None:
        self.primary = start(kind, "--repl-diskless-sync-delay", "0")
        self.replica = start(kind, "--replicaof", "127.0.0.1", str(self.primary.port))
        until(lambda: self.replica.client().info("replication").get("master_link_status") == "up")
        self.proxy = Proxy(self.primary.port)
        self.url = self.proxy.url

    def settle(self) -> None:
        """Wait until the replica is in sync."""
        client: Any = self.primary.client()
        client.set("settled", "")
        assert client.wait(1, 10_000) == 1

    def demote(self) -> None:
        """Make the primary a replica; the proxy still leads to it."""
        self.settle()
        self.replica.client().replicaof("NO", "ONE")
        self.primary.client().replicaof("127.0.0.1", str(self.replica.port))
        until(lambda: self.primary.client().info("replication")["role"] == "slave")

    def switch(self) -> None:
        """Fail over; new connections lead to the new primary."""
        self.proxy.target = self.replica.port
        self.demote()

    def end(self) -> None:
        self.proxy.end()


class Elsewhere(Proxy):
    """A proxy on another address of this machine, at the port of the server that it replaces."""

    def __init__(self, target: int, host: str, port: int) -> None:
        self._address = (host, port)
        super().__init__(target)

    def accept(self) -> None:
        self._listener = socket.create_server(self._address)
        threading.Thread(target=self._listen, args=(self._listener,), daemon=True).start()

"""Redis Cluster: one client in front of all primaries, each behind an ordinary client (`connection.py`).

redis-py has a cluster client, but in several places it sends a command again after a lost reply, and its connections
handle neither idle timeouts nor refusals. Compared with one server, a cluster needs little more: the slot of a key, the
primary of a slot, and redirections when a slot moves. A node that redirects a command has not run it, so the command is
sent to the other node; a command whose reply is lost is never sent again.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property, partial
from typing import Any

import redis
from redis.commands import CoreCommands
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from broker.connections.errors import NotSent, find_fault
from broker.connections.sentinel import ask_once

SLOTS = 16384
MIN_MAP_AGE = 0.5  # seconds between two reads of the map while it seems to be outdated
MAX_REDIRECTIONS = 5  # of one command
TRYAGAIN_TIMEOUT = 1.0  # seconds to wait for keys that are being moved
TRYAGAIN_INTERVAL = 0.02  # seconds between two tries
KEYLESS_COMMANDS = frozenset({"INFO", "SCAN"})  # commands whose arguments include no key

Node = tuple[str, int]  # host, port
Command = tuple[tuple[Any, ...], dict[str, Any]]


class _Replaced(NotSent):
    """The address of a node belongs to another server now."""


class ClusterMap:
    """The primary of each slot, and a client for each. It is read again once a node redirects or is unavailable."""

    def __init__(
        self, seeds: Sequence[Node], make_client: Callable[[str, int], Any], new_connection: Callable[..., Any]
    ) -> None:
        self._seeds = tuple(seeds)
        self._make_client, self._new_connection = make_client, new_connection
        self._owners: list[Node | None] | None = None  # by slot; None until the map has been read
        self._ids: dict[Node, bytes] = {}  # the id that each primary had when the map was read
        self._clients: dict[Node, Any] = {}  # never removed: a command can be in flight on a node that has left
        self._lock = threading.Lock()  # held while the map is read
        self._is_outdated = True
        self._failed: Node | None = None  # a node that did not respond, which is asked last
        self._read_at = -math.inf
        self._error: redis.RedisError | None = None  # why the last read failed

    def primaries(self) -> list[Node]:
        """Return the nodes that serve slots, at least one.

        Raises:
            redis.RedisError: no node can be reached, or none serves a slot.
        """
        if not (found := sorted({node for node in self._current_owners() if node})):
            self.mark_outdated()
            raise ClusterDownError("CLUSTERDOWN No node serves a slot")
        return found

    def owner(self, slot: int) -> Node:
        """Return the node that serves a slot.

        Raises:
            redis.RedisError: no node can be reached, or none serves this slot.
        """
        node = self._current_owners()[slot]
        if node is None:
            self.mark_outdated()
            raise ClusterDownError("CLUSTERDOWN Hash slot not served")
        return node

    def client(self, node: Node) -> Any:
        """Return the client of a node, always the same one."""
        client = self._clients.get(node)
        return client or self._clients.setdefault(node, self._make_client(*node))

    def verify(self, node: Node, connection: Any) -> None:
        """Check that a new connection leads to the node that had this address when the map was read.

        Raises:
            NotSent: the address belongs to another server by now.
        """
        if not (known := self._ids.get(node)):
            return
        try:
            connection.send_command("CLUSTER", "MYID")
            is_same = connection.read_response() == known
        except redis.ResponseError as error:  # a user without the permission, or a server outside any cluster
            is_same = not (fault := find_fault(error)) or fault.start in ("NOPERM", "ERR unknown command")
        if not is_same:
            self.mark_outdated(failed=node)
            raise _Replaced(f"{node[0]}:{node[1]} is another server now.", reason="another server has its address")

    def renew_after_fork(self) -> None:
        """Forget the lock: a thread of the parent process can hold it, which does not exist in this one."""
        self._lock, self._is_outdated = threading.Lock(), True

    def set_owner(self, slot: int, node: Node) -> None:
        """Record that a slot has moved to another node, after a redirection."""
        if self._owners:
            self._owners[slot] = node
        self.mark_outdated()

    def mark_outdated(self, failed: Node | None = None, older_than: float = 0) -> None:
        """Read the map again before the next command, if it is older than `older_than` seconds.

        Ask the `failed` node last.
        """
        self._failed = failed or self._failed
        if time.monotonic() - self._read_at >= older_than:
            self._is_outdated = True

    def _current_owners(self) -> list[Node | None]:
        """Return the owners by slot, read again if outdated. One caller reads; others wait only for the first map."""
        asked_at = time.monotonic()
        is_needed = self._is_outdated or self._owners is None  # the first read can be under way in another thread
        if is_needed and asked_at - self._read_at > MIN_MAP_AGE and self._lock.acquire(self._owners is None):
            try:
                if self._read_at < asked_at:
                    self._read()
            finally:
                self._lock.release()
        if self._owners is None:
            raise copy(self._error) if self._error else NotSent("No node of the cluster has been asked yet.")
        return self._owners

    def _read(self) -> None:
        """Ask the nodes until one knows the owners of all slots; a node that has just joined knows few."""
        known = list(dict.fromkeys([*filter(None, self._owners or ()), *self._seeds]))
        best: list[Node | None] | None = None
        ids: dict[Node, bytes] = {}
        replaced = 0
        self._is_outdated = False
        for node in sorted(known, key=lambda node: node == self._failed):
            try:
                owners, new_ids = self._ask(node)
            except (redis.AuthenticationError, redis.ResponseError, NotSent) as error:
                replaced += isinstance(error, _Replaced)
                self._error = error
                continue
            except redis.RedisError as error:
                self._error = NotSent(str(error))
                continue
            if best is None or owners.count(None) < best.count(None):
                best, ids = owners, new_ids
            if None not in owners:
                break
        if best or replaced == len(known):  # then the whole cluster is a new one, which the next read finds
            self._ids = ids
        self._owners, self._failed = best or self._owners, None
        self._is_outdated = self._is_outdated or best is None
        self._read_at = time.monotonic()

    def _ask(self, node: Node) -> tuple[list[Node | None], dict[Node, bytes]]:
        """Return the owners by slot, and their ids, according to one node."""
        owners: list[Node | None] = [None] * SLOTS
        ids: dict[Node, bytes] = {}
        check = partial(self.verify, node)
        reply = ask_once(lambda: self._new_connection(*node, verify=check), "CLUSTER", "SLOTS")
        for start, end, (host, port, *more), *_ in reply:
            owner = (host.decode() if host else node[0], port)  # without a host it is the node that was asked
            owners[start : end + 1] = [owner] * (end + 1 - start)
            ids[owner] = more[0]
        return owners, ids


class ClusterClient(CoreCommands):
    """A client that sends each command to the primary of its key. It refuses a command without a key: see each_primary.

    Redis itself refuses keys in different slots (CROSSSLOT).
    """

    _event_dispatcher: Any = None  # redis-py reads it
    lacks_flags = False  # Script sets it once a server has refused script flags

    def __init__(self, cluster_map: ClusterMap, *, batches: bool = True) -> None:
        self.map = cluster_map
        self._batches = batches

    @cached_property
    def unbatched(self) -> "ClusterClient":
        """A client on the same connections that sends each command alone, for replies that can be large."""
        return ClusterClient(self.map, batches=False)

    def each_primary(self) -> list[Any]:
        """Return a client for each primary, always the same ones."""
        return [self.map.client(node) for node in self.map.primaries()]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self.run_on_owner(_slot(args), lambda node, asking: self._execute(node, asking, args, options))

    def pipeline(self, transaction: bool = True) -> "ClusterPipeline":
        """Return a pipeline; the keys of a transaction must share one slot."""
        return ClusterPipeline(self, transaction)

    def run_on_owner(self, slot: int, run: Callable[[Node, bool], Any]) -> Any:
        """Run a function on the primary of a slot, following redirections, and return its result.

        `run` gets the node, and whether to send ASKING first: the slot is being moved to that node.
        """
        node, asking = self.map.owner(slot), False
        end = time.monotonic() + TRYAGAIN_TIMEOUT
        redirections = 0
        while redirections < MAX_REDIRECTIONS:
            try:
                return run(node, asking)
            except AskError as error:  # MovedError is a subclass
                redirections += 1
                node, asking = (error.host or node[0], error.port), not isinstance(error, MovedError)
                if not asking:
                    self.map.set_owner(slot, node)
            except TryAgainError:
                if time.monotonic() > end:
                    raise
                time.sleep(TRYAGAIN_INTERVAL)
                node, asking = self.map.owner(slot), False
            except redis.MaxConnectionsError:
                raise
            except (redis.ConnectionError, redis.TimeoutError, ClusterDownError):
                self.map.mark_outdated(failed=node)
                raise
        raise TryAgainError("TRYAGAIN Too many redirections: the slot keeps moving.")

    def client_of(self, node: Node) -> Any:
        """Return the client of a node, unbatched if this client is."""
        client = self.map.client(node)
        return client if self._batches else getattr(client, "unbatched", client)

    def _execute(self, node: Node, asking: bool, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        client = self.client_of(node)
        if not asking:
            return client.execute_command(*args, **options)
        with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("ASKING")
            pipeline.execute_command(*args, **options)
            reply = pipeline.execute(raise_on_error=False)[1]
        if isinstance(reply, Exception):
            raise reply
        return reply


class ClusterPipeline(CoreCommands):
    """Commands that are sent to each primary in one write, or as one transaction to one primary."""

    _event_dispatcher: Any = None

    def __init__(self, client: ClusterClient, transaction: bool) -> None:
        self._client, self._transaction = client, transaction
        self._commands: list[Command] = []

    def __enter__(self) -> "ClusterPipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self._commands = []

    def execute_command(self, *args: Any, **options: Any) -> "ClusterPipeline":
        self._commands.append((args, options))
        return self

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands and return their replies in order; without `raise_on_error` errors are among them."""
        commands, self._commands = self._commands, []
        if not commands:
            return []
        if self._transaction:
            slot = _slot(commands[0][0])
            return self._client.run_on_owner(  # type: ignore[no-any-return]
                slot, lambda node, asking: self._run_transaction(node, asking, commands, raise_on_error)
            )
        replies = self._scatter(commands)
        for reply in replies:
            if raise_on_error and isinstance(reply, Exception):
                raise reply
        return replies

    def _run_transaction(
        self, node: Node, asking: bool, commands: Sequence[Command], raise_on_error: bool
    ) -> list[Any]:
        """Run a transaction on one node: all or nothing, also where the node redirects it."""
        with self._client.client_of(node).pipeline(transaction=True) as pipeline:
            if asking:
                pipeline.immediate_execute_command("ASKING")  # holds until the transaction ends
            for args, options in commands:
                pipeline.execute_command(*args, **options)
            return pipeline.execute(raise_on_error)  # type: ignore[no-any-return]

    def _scatter(self, commands: Sequence[Command]) -> list[Any]:
        """Send each node its commands in one write, then the redirected ones again one by one."""
        replies: list[Any] = [None] * len(commands)
        groups: dict[Node, list[int]] = {}
        for number, (args, _) in enumerate(commands):
            groups.setdefault(self._client.map.owner(_slot(args)), []).append(number)
        for node, numbers in groups.items():
            for number, reply in zip(numbers, self._send(node, [commands[one] for one in numbers]), strict=True):
                if isinstance(reply, (AskError, TryAgainError)):
                    args, options = commands[number]
                    try:
                        reply = self._client.execute_command(*args, **options)
                    except redis.RedisError as error:
                        reply = error
                replies[number] = reply
        return replies

    def _send(self, node: Node, commands: Sequence[Command]) -> list[Any]:
        """Return the replies of one node, with errors among them."""
        pipeline = self._client.client_of(node).pipeline(transaction=False)
        for args, options in commands:
            pipeline.execute_command(*args, **options)
        try:
            return pipeline.execute(raise_on_error=False)  # type: ignore[no-any-return]
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self._client.map.mark_outdated(failed=node)
            return [error] * len(commands)


def each_primary(client: Any) -> list[Any]:
    """Return the clients of all servers that hold queues: one for each primary of a cluster, else the client itself."""
    return client.each_primary() if isinstance(client, ClusterClient) else [client]


def _slot(args: tuple[Any, ...]) -> int:
    """Return the slot of a command's first key.

    Raises:
        redis.DataError: it has no key, so it belongs to no particular node.
    """
    at = 3 if args[0] in ("EVAL", "EVALSHA") else 1
    if args[0] in KEYLESS_COMMANDS or len(args) <= at or (at == 3 and not int(args[2])):
        raise redis.DataError(f"{args[0]} names no key; send it to each primary of the cluster.")
    key = args[at]
    return key_slot(key.encode() if isinstance(key, str) else key)

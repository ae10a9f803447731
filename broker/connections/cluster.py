"""One client for all primaries of a Redis Cluster, each behind an ordinary client (`broker/connections/connection.py`).

redis-py's own cluster client is not used: it sends a command again after a lost reply, in several places, and its
connections know nothing of idle times and refusals. What is needed beyond one server is little: the slot of a key, the
primary of a slot, and to follow it when it moves. A command that a node redirects was not done there, so doing it
elsewhere is not doing it twice; a command whose reply is lost is never sent again.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import redis
from redis.commands import CoreCommands
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from broker.connections.errors import NotSent
from broker.connections.sentinel import ask_once

SLOTS = 16384
MAP_AGE = 0.5  # seconds until the map is read again, at the least, while it seems to be outdated
MAX_REDIRECTIONS = 5  # of one command
TRYAGAIN_TIMEOUT, TRYAGAIN_INTERVAL = (
    1.0,
    0.02,
)  # seconds for which keys that move are waited for, and between two tries

KEYLESS = frozenset({"INFO", "SCAN"})  # commands with arguments of which none is a key

Node = tuple[str, int]  # host, port
Command = tuple[tuple[Any, ...], dict[str, Any]]


class ClusterMap:
    """Which primary serves which slot, and the client of each. It is read again when a node redirects or is away."""

    def __init__(
        self, seeds: Sequence[Node], make_client: Callable[[str, int], Any], open_connection: Callable[[str, int], Any]
    ) -> None:
        self._seeds = tuple(seeds)
        self._make_client, self._open_connection = make_client, open_connection
        self._owners: list[Node | None] | None = None  # by slot; None until the map was read
        self._clients: dict[Node, Any] = {}  # those of nodes that are gone stay: a command may be under way
        self._lock = threading.Lock()  # held while the map is read
        self._is_outdated = True
        self._suspect: Node | None = None  # asked last
        self._read_at = -math.inf
        self._error: redis.RedisError | None = None  # why it could not be read last

    def primaries(self) -> list[Node]:
        """Return the nodes that serve slots.

        Raises:
            redis.RedisError: no node can be reached.
        """
        return sorted({node for node in self._current() if node})

    def owner(self, slot: int) -> Node:
        """Return the node that serves a slot.

        Raises:
            redis.RedisError: no node can be reached, or none serves this slot.
        """
        node = self._current()[slot]
        if node is None:
            self.note_change()
            raise ClusterDownError("CLUSTERDOWN Hash slot not served")
        return node

    def client(self, node: Node) -> Any:
        """Return the client of a node."""
        client = self._clients.get(node)
        return client or self._clients.setdefault(node, self._make_client(*node))

    def move(self, slot: int, node: Node) -> None:
        """Note what a node said: another one serves this slot now."""
        if self._owners:
            self._owners[slot] = node
        self.note_change()

    def note_change(self, suspect: Node | None = None, older_than: float = 0) -> None:
        """Let the map be read again before the next command if it is older than some seconds.

        `suspect` does not answer, so another node is asked.
        """
        self._suspect = suspect or self._suspect
        if time.monotonic() - self._read_at >= older_than:
            self._is_outdated = True

    def _current(self) -> list[Node | None]:
        """Return the owners by slot, read again if need be. One command reads; others wait only for the first map."""
        asked_at = time.monotonic()
        if self._is_outdated and asked_at - self._read_at > MAP_AGE and self._lock.acquire(self._owners is None):
            try:
                if self._read_at < asked_at:
                    self._read()
            finally:
                self._lock.release()
        if self._owners is None:
            raise copy(self._error) if self._error else NotSent("No node of the cluster was asked yet.")
        return self._owners

    def _read(self) -> None:
        """Ask the nodes until one knows the owners of all slots; a node that has just joined knows few."""
        known = list(dict.fromkeys([*filter(None, self._owners or ()), *self._seeds]))
        best: list[Node | None] | None = None
        self._is_outdated = False
        for node in sorted(known, key=lambda node: node == self._suspect):
            try:
                owners = self._ask(node)
            except (redis.AuthenticationError, redis.ResponseError) as error:
                self._error = error
                continue
            except redis.RedisError as error:
                self._error = NotSent(str(error))
                continue
            best = owners if best is None or owners.count(None) < best.count(None) else best
            if None not in owners:
                break
        self._owners, self._suspect = best or self._owners, None
        self._is_outdated = self._is_outdated or best is None
        self._read_at = time.monotonic()

    def _ask(self, node: Node) -> list[Node | None]:
        owners: list[Node | None] = [None] * SLOTS
        for start, end, (host, port, *_), *_ in ask_once(lambda: self._open_connection(*node), "CLUSTER", "SLOTS"):
            owner = (host.decode() if host else node[0], port)  # none: the one that was asked
            owners[start : end + 1] = [owner] * (end + 1 - start)
        return owners


class ClusterClient(CoreCommands):
    """A client whose commands go to the primary of their key. Commands without a key are refused: ask `each_primary`.

    Keys in different slots are refused by Redis itself (CROSSSLOT).
    """

    _event_dispatcher: Any = None  # redis-py asks for it
    lacks_flags = False  # see Script in broker/script.py

    def __init__(self, cluster_map: ClusterMap, *, shares: bool = True) -> None:
        self.map = cluster_map
        self._shares = shares

    @cached_property
    def unbatched(self) -> "ClusterClient":
        """A client on the same connections whose commands, with replies that may be large, share nothing."""
        return ClusterClient(self.map, shares=False)

    def each_primary(self) -> list[Any]:
        """Return a client for each primary, always the same ones."""
        return [self.map.client(node) for node in self.map.primaries()]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self.follow(_slot(args), lambda node, asks: self._execute(node, asks, args, options))

    def pipeline(self, transaction: bool = True) -> "ClusterPipeline":
        """Return what collects commands; in a transaction all their keys must share one slot."""
        return ClusterPipeline(self, transaction)

    def follow(self, slot: int, run: Callable[[Node, bool], Any]) -> Any:
        """Run something on the primary of a slot, and on the one that it names if the slot moves; return its answer.

        `run` gets the node, and whether it must send ASKING before: the slot is on its way to that node.
        """
        node, asks = self.map.owner(slot), False
        end = time.monotonic() + TRYAGAIN_TIMEOUT
        redirections = 0
        while redirections < MAX_REDIRECTIONS:
            try:
                return run(node, asks)
            except AskError as error:  # a MovedError is one too
                redirections += 1
                node, asks = (error.host or node[0], error.port), not isinstance(error, MovedError)
                if not asks:
                    self.map.move(slot, node)
            except TryAgainError:
                if time.monotonic() > end:
                    raise
                time.sleep(TRYAGAIN_INTERVAL)
                node, asks = self.map.owner(slot), False
            except redis.MaxConnectionsError:
                raise
            except (redis.ConnectionError, redis.TimeoutError, ClusterDownError):
                self.map.note_change(node)
                raise
        raise TryAgainError("TRYAGAIN The slot is moved again and again.")

    def client_of(self, node: Node) -> Any:
        """Return the client of a node as this client uses it."""
        client = self.map.client(node)
        return client if self._shares else getattr(client, "unbatched", client)

    def _execute(self, node: Node, asks: bool, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        client = self.client_of(node)
        if not asks:
            return client.execute_command(*args, **options)
        with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("ASKING")
            pipeline.execute_command(*args, **options)
            answer = pipeline.execute(raise_on_error=False)[1]
        if isinstance(answer, Exception):
            raise answer
        return answer


class ClusterPipeline(CoreCommands):
    """Commands that are sent together to each primary, or as one transaction to one primary."""

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
        """Send the commands and return their answers in order; without `raise_on_error` errors are among them."""
        commands, self._commands = self._commands, []
        if not commands:
            return []
        if self._transaction:
            slot = _slot(commands[0][0])
            return self._client.follow(slot, lambda node, asks: self._run(node, asks, commands, raise_on_error))  # type: ignore[no-any-return]
        answers = self._scatter(commands)
        for answer in answers:
            if raise_on_error and isinstance(answer, Exception):
                raise answer
        return answers

    def _run(self, node: Node, asks: bool, commands: Sequence[Command], raise_on_error: bool) -> list[Any]:
        """Run a transaction on one node. It is whole or nothing, also where a node redirects it."""
        with self._client.client_of(node).pipeline(transaction=True) as pipeline:
            if asks:
                pipeline.immediate_execute_command("ASKING")  # holds until the transaction ends
            for args, options in commands:
                pipeline.execute_command(*args, **options)
            return pipeline.execute(raise_on_error)  # type: ignore[no-any-return]

    def _scatter(self, commands: Sequence[Command]) -> list[Any]:
        """Send each node its commands at once; those that were redirected are sent again one by one."""
        answers: list[Any] = [None] * len(commands)
        groups: dict[Node, list[int]] = {}
        for number, (args, _) in enumerate(commands):
            groups.setdefault(self._client.map.owner(_slot(args)), []).append(number)
        for node, numbers in groups.items():
            for number, answer in zip(numbers, self._ask(node, [commands[one] for one in numbers]), strict=True):
                if isinstance(answer, (AskError, TryAgainError)):
                    args, options = commands[number]
                    try:
                        answer = self._client.execute_command(*args, **options)
                    except redis.RedisError as error:
                        answer = error
                answers[number] = answer
        return answers

    def _ask(self, node: Node, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._client.client_of(node).pipeline(transaction=False)
        for args, options in commands:
            pipeline.execute_command(*args, **options)
        try:
            return pipeline.execute(raise_on_error=False)  # type: ignore[no-any-return]
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self._client.map.note_change(node)
            return [error] * len(commands)


def each_primary(client: Any) -> list[Any]:
    """Return the clients of all servers that hold queues: the client itself, or one for each primary of a cluster."""
    return client.each_primary() if isinstance(client, ClusterClient) else [client]


def _slot(args: tuple[Any, ...]) -> int:
    """Return the slot of a command's first key.

    Raises:
        redis.DataError: it has none, so it is not known which node is meant.
    """
    at = 3 if args[0] in ("EVAL", "EVALSHA") else 1
    if args[0] in KEYLESS or len(args) <= at or (at == 3 and not int(args[2])):
        raise redis.DataError(f"{args[0]} names no key; on a cluster each primary must be asked.")
    key = args[at]
    return key_slot(key.encode() if isinstance(key, str) else key)

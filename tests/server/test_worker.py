"""Which connections the worker closes to keep some free for new clients."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from server import clock
from server.connection import READING_HEAD, Connection, Phase
from server.disconnect_poller import DisconnectPoller
from server.worker import MIN_EVICTION_WAIT, SPARE_CONNECTIONS, Worker
from web.fairness import FairScheduler

Connect = Callable[..., Connection]


@pytest.fixture
def worker() -> Any:
    """A worker with 20 connections, two of which are kept free."""
    worker = Worker.__new__(Worker)
    worker.worker_connections, worker.connections = 20, set()
    return worker


@pytest.fixture
def connect(worker: Any) -> Iterator[Connect]:
    with ExitStack() as stack:

        def connect(seconds: float, phase: Phase | None = None, sent: bytes = b"") -> Connection:
            """Return a connection that has waited for its client for `seconds`."""
            ours, theirs = socket.socketpair()
            connection: Connection = stack.enter_context(Connection(ours, FairScheduler(), DisconnectPoller()))
            stack.enter_context(theirs).sendall(sent)  # closed first: ours waits for that
            if phase:
                connection.enter(phase)
            connection.waiting_since = clock.now() - seconds
            worker.connections.add(connection)
            return connection

        yield connect


def evicted(*connections: Connection) -> list[bool]:
    return [connection.waiting_since is None for connection in connections]


def test_the_connection_that_has_waited_longest_is_evicted(worker: Any, connect: Connect) -> None:
    first, longest = connect(MIN_EVICTION_WAIT + 60), connect(MIN_EVICTION_WAIT + 70)
    for _ in range(15):
        connect(MIN_EVICTION_WAIT + 10)
    worker._evict()
    assert evicted(first, longest) == [False, False]  # three are free
    connect(MIN_EVICTION_WAIT + 10)
    worker._evict()
    assert evicted(first, longest) == [False, True]
    worker._evict(SPARE_CONNECTIONS)
    assert sum(evicted(*worker.connections)) == 2  # not more than needed


def test_a_client_whose_request_is_on_its_way_is_not_evicted(worker: Any, connect: Connect) -> None:
    new = [connect(MIN_EVICTION_WAIT / 2) for _ in range(10)]
    sending = [connect(MIN_EVICTION_WAIT + 60, sent=b"POST") for _ in range(9)]
    worker._evict(SPARE_CONNECTIONS)
    assert not any(evicted(*new, *sending))
    slow = connect(MIN_EVICTION_WAIT + 30, READING_HEAD, sent=b"x")  # it had enough time for the whole head
    worker._evict()
    assert evicted(slow) == [True] and not any(evicted(*new, *sending))

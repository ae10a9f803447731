"""Whom the worker closes to make room for new connections."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from server.worker import HEAD, MIN_PATIENCE, SPARE_CONNECTIONS, Connection, DisconnectPoller, Phase, Worker
from web.fairness import FairScheduler

Connect = Callable[..., Connection]


@pytest.fixture
def worker() -> Any:
    worker = Worker.__new__(Worker)
    worker.worker_connections, worker.connections = 20, set()  # two of them are kept free
    return worker


@pytest.fixture
def connect(worker: Any) -> Iterator[Connect]:
    with ExitStack() as stack:

        def connect(seconds: float, phase: Phase | None = None, sent: bytes = b"") -> Connection:
            """Return a connection that has waited so long for its client."""
            ours, theirs = socket.socketpair()
            connection: Connection = stack.enter_context(Connection(ours, FairScheduler(), DisconnectPoller()))
            stack.enter_context(theirs).sendall(sent)  # it ends first: the other end waits for that
            if phase:
                connection.enter(phase)
            connection.waiting_since = time.monotonic() - seconds
            worker.connections.add(connection)
            return connection

        yield connect


def cut(*connections: Connection) -> list[bool]:
    return [one.waiting_since is None for one in connections]


def test_the_connection_that_has_waited_longest_makes_room(worker: Any, connect: Connect) -> None:
    first, longest = connect(MIN_PATIENCE + 60), connect(MIN_PATIENCE + 70)
    for _ in range(15):
        connect(MIN_PATIENCE + 10)
    worker._make_room()
    assert cut(first, longest) == [False, False]  # three are free
    connect(MIN_PATIENCE + 10)
    worker._make_room()
    assert cut(first, longest) == [False, True]
    worker._make_room(SPARE_CONNECTIONS)
    assert sum(cut(*worker.connections)) == 2  # one more: no more than is kept free


def test_no_client_is_closed_whose_request_is_coming(worker: Any, connect: Connect) -> None:
    new = [connect(MIN_PATIENCE / 2) for _ in range(10)]
    sending = [connect(MIN_PATIENCE + 60, sent=b"POST") for _ in range(9)]
    worker._make_room(SPARE_CONNECTIONS)
    assert not any(cut(*new, *sending))
    slow = connect(MIN_PATIENCE + 30, HEAD, sent=b"x")  # it has had its time for the whole head
    worker._make_room()
    assert cut(slow) == [True] and not any(cut(*new, *sending))

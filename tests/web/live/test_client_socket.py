"""The client at the other end: one that has disconnected takes nothing, and one that is slow is given a limit."""

import socket
from collections.abc import Iterator

import pytest

from tests.conftest import Api
from tests.web.helpers import FakeSocket, push
from web.live.disconnects import ClientConnection

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The two ends of a connection: the client's, and the server's."""
    client, server = socket.socketpair()
    with client, server:
        yield client, server


@pytest.mark.parametrize("present", [[], [True]], ids=["before", "while it is served"])
@pytest.mark.parametrize("operation", ["pop", "reserve"])
def test_a_client_that_disconnects_takes_nothing(api: Api, operation: str, present: list[bool]) -> None:
    push(api, "a", "b", "c")
    environ = {"gunicorn.socket": FakeSocket(*present)}
    answer = api.post(operation, query_string={"wait": 1, "max": 2}, environ_overrides=environ)
    assert answer.json["error"] == "empty"
    assert api.messages() == [b"a", b"b", b"c"]
    assert api.get("count").json["reserved"] == 0


def test_a_client_that_disconnected_takes_nothing_with_an_idempotency_key_either(api: Api) -> None:
    push(api, "a")
    environ = {"gunicorn.socket": FakeSocket()}
    answer = api.post("pop", query_string={"wait": 1}, headers={"Idempotency-Key": "k"}, environ_overrides=environ)
    assert (answer.json["error"], api.messages()) == ("empty", [b"a"])


def test_a_client_without_a_socket_is_always_there() -> None:
    assert not ClientConnection({}).is_disconnected()


def test_a_client_is_gone_when_it_has_closed_and_all_that_it_sent_was_read(ends: Ends) -> None:
    client, server = ends
    found = ClientConnection({"gunicorn.socket": server})
    assert not found.is_disconnected()
    client.send(b"x")
    assert not found.is_disconnected()
    client.close()
    assert not found.is_disconnected()
    assert server.recv(10) == b"x"  # looking has taken nothing
    assert found.is_disconnected()


def test_a_connection_that_is_reset_or_closed_here_is_gone() -> None:
    class Reset(FakeSocket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            raise ConnectionResetError

    assert ClientConnection({"gunicorn.socket": Reset()}).is_disconnected()
    closed = socket.socket()
    closed.close()
    assert ClientConnection({"gunicorn.socket": closed}).is_disconnected()


def test_the_socket_under_a_gevent_socket_is_asked(ends: Ends) -> None:
    class Wrapper:
        _sock = ends[1]

    found = ClientConnection({"gunicorn.socket": Wrapper()})
    assert not found.is_disconnected()
    ends[0].close()
    assert found.is_disconnected()


class Draining:
    """A socket that knows the worker's limits."""

    def __init__(self, sock: socket.socket) -> None:
        self.recv, self.shutdown = sock.recv, sock.shutdown

    def begin_drain(self) -> None:
        pass


def test_what_a_client_still_sends_after_a_malformed_body_is_read_until_it_closes(ends: Ends) -> None:
    client, server = ends
    found = ClientConnection({"gunicorn.socket": Draining(server)})
    found.mark_malformed()
    client.send(b"x" * 1000)
    client.shutdown(socket.SHUT_WR)
    found.drain()
    assert client.recv(10) == b""  # this answer was the last
    assert server.recv(10) == b""
    with pytest.raises(OSError):
        server.send(b"x")

"""The event streams of one process, without HTTP: what an event looks like, and when polling ends."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from broker.connection import connect
from broker.reliable import ReliableQueue
from tests.servers import Proxy, until
from web import events
from web.events import Events


class Watched:
    """The streams of one process on a queue, read in this thread."""

    def __init__(self, client: Any, name: str) -> None:
        self.stopping = False
        self.gone = False
        self.events = Events(lambda: self.stopping)
        self.queue = ReliableQueue(client, name)

    def stream(self) -> Iterator[str]:
        return self.events.stream(self.queue, lambda: self.gone)


@pytest.fixture
def watched(backend: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(events, "POLL_INTERVAL", 0.01)
    return Watched(backend, name)


def watchers() -> int:
    return [thread.name for thread in threading.enumerate()].count("watch")


def test_an_event_is_one_line_of_data_whatever_a_message_holds(watched: Watched) -> None:
    text = "\n\r\n\r\u2028\x85\0 event: queue\ndata: {}\n\n"
    watched.queue.push(text.encode())
    stream = watched.stream()
    assert next(stream) == "retry: 1000\n\n"
    event = next(stream)
    first, second, *rest = event.split("\n")
    assert (first, second[:6], rest) == ("event: queue", "data: ", ["", ""])
    assert "\r" not in event
    assert json.loads(second[6:])["next"] == [{"preview": text, "bytes": len(text.encode())}]
    stream.close()  # type: ignore[attr-defined]


def test_a_quiet_queue_gets_comments(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PEER_CHECK_INTERVAL", 0.01)
    monkeypatch.setattr(events, "HEARTBEAT_INTERVAL", 0.03)
    stream = watched.stream()
    assert [next(stream)[:6] for _ in range(4)] == ["retry:", "event:", ": noth", ": noth"]
    watched.queue.push(b"a")
    while not (event := next(stream)).startswith("event"):
        pass
    assert '"count":1' in event
    stream.close()  # type: ignore[attr-defined]


def test_streams_share_one_watch_which_ends_after_the_last(watched: Watched) -> None:
    until(lambda: watchers() == 0)  # those of earlier tests
    streams = [watched.stream() for _ in range(20)]
    for stream in streams:
        next(stream), next(stream)
    assert (len(watched.events.watches), watchers()) == (1, 1)
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    until(lambda: not watched.events.watches and watchers() == 0)
    again = watched.stream()
    assert [next(again)[:6], next(again)[:6]] == ["retry:", "event:"]
    again.close()  # type: ignore[attr-defined]


def test_a_stream_ends_when_its_client_is_gone_or_the_server_stops(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PEER_CHECK_INTERVAL", 0.01)
    for reason in ("gone", "stopping"):
        stream = watched.stream()
        next(stream), next(stream)
        setattr(watched, reason, True)
        assert list(stream) == []
        watched.gone = False
    until(lambda: not watched.events.watches)


def test_a_stream_that_was_never_read_leaves_no_watch(watched: Watched) -> None:
    watched.stream().close()  # type: ignore[attr-defined]
    assert not watched.events.watches


def test_after_a_lost_reply_comes_a_fault_and_then_the_state_again(
    proxy: Proxy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "POLL_INTERVAL", 0.01)
    monkeypatch.setattr(events, "RETRY_DELAY", 0.01)
    watched = Watched(connect(proxy.url), name)
    stream = watched.stream()
    next(stream), next(stream)
    proxy.cut("EVALSHA")
    fault = next(stream)
    assert fault.startswith("event: fault\n")
    assert json.loads(fault.split("data: ")[1])["error"] == "redis_away"
    assert next(stream).startswith("event: queue\n")
    stream.close()  # type: ignore[attr-defined]
    until(lambda: not watched.events.watches)

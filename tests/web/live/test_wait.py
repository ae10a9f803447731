"""The one loop of all requests that are held open, and the slots that they use."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.web.live.fakes import FakeClient
from web.errors import ApiError
from web.live.disconnects import CHECK_INTERVAL, WATCHED_CHECK_INTERVAL, ClientConnection
from web.live.wait import Slots, Waiter


def not_stopping() -> bool:
    return False


def test_a_waiter_is_woken_from_another_thread() -> None:
    with Waiter(FakeClient(check_interval=1000), not_stopping) as waiter:
        threading.Timer(0.05, waiter.wake).start()
        waiter.wait()
        assert waiter.is_waiting()


def test_a_wake_between_two_waits_is_not_lost() -> None:
    with Waiter(FakeClient(check_interval=1000), not_stopping) as waiter:
        waiter.wake()
        waiter.wait()
        began = time.monotonic()
        waiter.wait(0.1)  # the wake counts once
        assert time.monotonic() - began >= 0.1


def test_a_waiter_waits_no_longer_than_its_time() -> None:
    with Waiter(FakeClient(check_interval=1000), not_stopping, 0.1) as waiter:
        assert waiter.is_waiting()
        waiter.wait()
        assert not waiter.is_waiting()
        waiter.wait()  # returns at once


@pytest.mark.parametrize("reason", ["disconnected", "stopping"])
def test_a_waiter_ends_at_a_disconnect_or_a_stop_at_the_next_check(reason: str) -> None:
    happened: set[str] = set()
    client = FakeClient(lambda: "disconnected" in happened, check_interval=0.05)
    with Waiter(client, lambda: "stopping" in happened) as waiter:
        assert waiter.is_waiting()
        happened.add(reason)
        waiter.wait()
        assert not waiter.is_waiting()


class WatchedSocket:
    """A connection of the worker that reports disconnects."""

    send_early = None

    def __init__(self) -> None:
        self.watchers: list[Callable[[], Any]] = []

    def watch(self, notify: Callable[[], Any]) -> None:
        self.watchers.append(notify)

    def unwatch(self) -> None:
        self.watchers.clear()


def test_the_worker_wakes_a_waiter_as_long_as_it_waits() -> None:
    sock = WatchedSocket()
    client = ClientConnection({"gunicorn.socket": sock})
    with Waiter(client, not_stopping) as waiter:
        assert sock.watchers == [waiter.wake]
        sock.watchers[0]()
        waiter.wait()
    assert sock.watchers == []
    assert client.watch(print) == WATCHED_CHECK_INTERVAL
    assert ClientConnection({}).watch(print) == CHECK_INTERVAL  # another server does not report disconnects


def test_slots_are_limited_and_free_again_after_a_request_also_if_it_fails() -> None:
    slots = Slots(1)
    with pytest.raises(ZeroDivisionError), slots:
        with pytest.raises(ApiError) as caught:
            slots.acquire()
        assert (caught.value.status, caught.value.error) == (429, "too_many_blocked_clients")
        raise ZeroDivisionError
    assert slots.used == 0
    with slots:
        assert slots.used == 1

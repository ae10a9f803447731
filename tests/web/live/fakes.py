"""Stand-ins for the parts of a request that the tests of this room do without."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from broker.changes.notifications import ChangeNotifications
from broker.changes.sweeper import Sweeper
from broker.queue import ReliableQueue
from web.live.disconnects import ClientConnection
from web.live.history import STEP_SECONDS
from web.live.long_poll import LongPoll
from web.live.wait import Slots

START = 1_000_000 * STEP_SECONDS


class Clock:
    """The clock of a history."""

    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now

    def pass_steps(self, steps: float = 1) -> None:
        self.now += steps * STEP_SECONDS


class FakeClient(ClientConnection):
    """A client without a socket, which has disconnected once `is_gone` returns true."""

    def __init__(self, is_gone: Callable[[], bool] = lambda: False, check_interval: float = 1.0) -> None:
        super().__init__({})
        self.is_gone, self.check_interval = is_gone, check_interval
        self.notify: Callable[[], object] = lambda: None  # as the worker does when a client may have disconnected

    def is_disconnected(self, confirm: bool = False) -> bool:
        return self.is_gone()

    def watch(self, notify: Callable[[], object]) -> float:
        self.notify = notify
        return self.check_interval


class NoNotifications(ChangeNotifications):
    """The tracker of a server that sends no change notifications."""

    def __init__(self) -> None:
        super().__init__(None, "")

    def _start(self) -> None:
        pass


def long_poll_on(
    client: Any,
    blocking: Any,
    maximum: int = 100,
    is_stopping: Callable[[], bool] = lambda: False,
    tracker: ChangeNotifications | None = None,
) -> LongPoll:
    """Return the waiting requests of one process, with a client for ordinary commands and one for those that block."""
    timer = Sweeper(client, "queue:", lambda name: ReliableQueue(client, name))
    return LongPoll(blocking, Slots(maximum), is_stopping, tracker or NoNotifications(), timer)


class WaitingClients:
    """A process without HTTP, whose clients wait, each in a thread. A subclass makes its `long_poll`."""

    long_poll: LongPoll

    def __init__(self) -> None:
        self.stopping = False
        self.clients: list[FakeClient] = []
        self.pool = ThreadPoolExecutor(100)

    def end(self) -> None:
        self.stopping = True
        for client in self.clients:
            client.notify()
        self.pool.shutdown()
        assert self.long_poll.slots.used == 0

"""Detect clients that disconnect while their requests wait: one poll of all sockets instead of a check for each."""

import select
from collections.abc import Callable

from gevent import monkey

HANGUP = select.POLLRDHUP if hasattr(select, "POLLRDHUP") else select.POLLHUP


class DisconnectPoller:
    """Calls back when a client may have disconnected, and when the worker stops."""

    def __init__(self) -> None:
        self._poll = monkey.get_original("select", "poll")()  # gevent's own would yield to other greenlets
        self._callbacks: dict[int, Callable[[], object]] = {}

    def add(self, file: int, callback: Callable[[], object]) -> None:
        """Call `callback` at each poll that finds that the peer has closed its sending side, until `remove`."""
        self._callbacks[file] = callback
        self._poll.register(file, HANGUP)

    def remove(self, file: int) -> None:
        """Stop watching a socket; harmless if it is not watched."""
        if self._callbacks.pop(file, None):
            self._poll.unregister(file)

    def poll(self) -> None:
        """Call back for each client that may have disconnected."""
        for file, _ in self._poll.poll(0):
            self._callbacks[file]()

    def notify_all(self) -> None:
        """Call back for every client: the worker is stopping."""
        for callback in list(self._callbacks.values()):
            callback()

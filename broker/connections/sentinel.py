"""Sentinels: every new connection asks them for the primary of a service.

After a failover, connections to the old primary break, time out, or are closed because it refuses (`errors.py`). The
next connection then leads to the primary that the Sentinels name by then, so no notification of the failover is needed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import redis

from broker.connections.errors import NotSent


class Sentinels:
    """The Sentinels of one service, the one that replied last first."""

    def __init__(self, service: str, openers: Sequence[Callable[[], Any]]) -> None:
        """Take an opener for each Sentinel, which returns a new connection to it."""
        self.service = service
        self.openers = list(openers)

    def find_primary(self) -> tuple[str, int]:
        """Return the host and port of the primary.

        Raises:
            redis.AuthenticationError: no Sentinel could be asked, and one of them refused the password.
            NotSent: no Sentinel can be reached, or none knows a primary.
        """
        refused: redis.AuthenticationError | None = None
        for opener in tuple(self.openers):
            try:
                primary = self.ask(opener)
            except redis.AuthenticationError as error:
                refused = error
                continue
            except redis.RedisError:
                continue
            if primary:
                self.openers.sort(key=lambda one: one is not opener)
                return primary
        raise refused or NotSent("No primary found.", reason=f"no Sentinel knows a primary of {self.service}")

    def ask(self, opener: Callable[[], Any]) -> tuple[str, int] | None:
        """Return the host and port of the primary according to one Sentinel; None if it does not know the service."""
        found = ask_once(opener, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return (found[0].decode(), int(found[1])) if found else None


def ask_once(opener: Callable[[], Any], *command: str) -> Any:
    """Return the reply to a command, sent on a connection that is opened for it and closed."""
    connection = opener()
    try:
        connection.connect()
        connection.send_command(*command)
        return connection.read_response()
    finally:
        connection.disconnect()

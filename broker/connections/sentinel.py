"""Finds the primary that Sentinels watch over, for every connection anew.

After a failover the connections to the old primary break, or are refused (`broker/connections/errors.py`), or time
out; the next connection then leads to the server that the Sentinels name by that time. Nobody needs to be told of a
failover.
"""

from collections.abc import Callable, Sequence
from typing import Any

import redis


class Sentinels:
    """The Sentinels of one service. The one that answered last is asked first."""

    def __init__(self, service: str, openers: Sequence[Callable[[], Any]]) -> None:
        """Ask by connections, of which each opener makes a new one to its Sentinel."""
        self.service = service
        self.openers = list(openers)

    def find_primary(self) -> tuple[str, int]:
        """Return the host and the port of the primary.

        Raises:
            redis.AuthenticationError: none could be asked, and one did not accept the password.
            redis.ConnectionError: no Sentinel can be reached, or none knows a primary.
        """
        refused: redis.AuthenticationError | None = None
        for opener in tuple(self.openers):
            try:
                address = self.ask(opener)
            except redis.AuthenticationError as error:
                refused = error
                continue
            except redis.RedisError:
                continue
            if address:
                self.openers.sort(key=lambda one: one is not opener)
                return address
        raise refused or redis.ConnectionError(f"No Sentinel knows a primary of {self.service}.")

    def ask(self, opener: Callable[[], Any]) -> tuple[str, int] | None:
        """Return where one Sentinel says that the primary is; None if it knows no such service."""
        found = ask_once(opener, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return (found[0].decode(), int(found[1])) if found else None


def ask_once(opener: Callable[[], Any], *command: str) -> Any:
    """Return the reply to a command on a connection of its own."""
    connection = opener()
    try:
        connection.connect()
        connection.send_command(*command)
        return connection.read_response()
    finally:
        connection.disconnect()

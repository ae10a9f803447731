"""The sessions of the page that were signed out. All others are valid by their signature and are not stored."""

import math
from typing import Any

from broker.keys import queue_keys


class RevokedSessions:
    """The revoked sessions, kept in Redis so that all processes share them."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self._key = queue_keys("", prefix)[1] + "revoked:"  # + the id of a session

    def add(self, session: str, seconds: float) -> None:
        """Revoke a session that would expire in `seconds`."""
        self.client.set(self._key + session, b"1", ex=math.ceil(seconds))

    def __contains__(self, session: str) -> bool:
        return bool(self.client.exists(self._key + session))

"""The sessions of the page that were signed out. All others are known by their signature and are kept nowhere."""

import math
from typing import Any

from broker.keys import revoked_session_key


class RevokedSessions:
    """Remembers in Redis which sessions have ended, so that all processes know."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self.prefix = prefix

    def add(self, session: str, seconds: float) -> None:
        """End a session, which would end by itself after `seconds`."""
        self.client.set(revoked_session_key(session, self.prefix), b"1", ex=math.ceil(seconds))

    def __contains__(self, session: str) -> bool:
        return bool(self.client.exists(revoked_session_key(session, self.prefix)))

"""The client of the app that all roles use."""

import http.client
import json
import random
import time
from typing import Any
from urllib.parse import urlsplit

QUEUE = "ledger"


class Api:
    """One client of the app on one connection, which it opens again when it is lost."""

    def __init__(self, url: str, queue: str = QUEUE) -> None:
        self.netloc, self.queue = urlsplit(url).netloc, queue
        self.connection: http.client.HTTPConnection | None = None

    def call(self, operation: str, key: str | None = None, hang_up: bool = False, **fields: Any) -> tuple[int, Any]:
        """Return the status and the answer; (0, {}) if there was none or it was not read: the outcome is unknown."""
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        method, body = ("GET", None) if operation in ("count", "all") else ("POST", json.dumps(fields))
        try:
            self.connection = self.connection or http.client.HTTPConnection(self.netloc, timeout=30)
            self.connection.request(method, f"/api/queue/{self.queue}/{operation}", body, headers)
            if not hang_up:
                response = self.connection.getresponse()
                return response.status, json.loads(response.read())
            time.sleep(random.random() / 100)  # the app notices a client that has gone before it gives a message to it
        except TimeoutError:  # no answer in 30 seconds is a bug
            raise
        except (OSError, http.client.HTTPException):
            pass
        if self.connection:
            self.connection.close()
        self.connection = None
        return 0, {}

    def call_until_answered(self, operation: str, key: str | None = None, **fields: Any) -> tuple[int, Any]:
        """Repeat the call until its answer is definite."""
        while True:
            status, answer = self.call(operation, key, **fields)
            if status not in (0, 503):
                return status, answer
            time.sleep(0.05)

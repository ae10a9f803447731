"""What the tests of the web side share: common answers and steps, the check of an error, and the socket of a client."""

import re
import socket
from collections.abc import Iterator
from typing import Any
from unittest.mock import ANY

from broker.models import QueueCounts
from tests.conftest import Api

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
TEXT, BYTES, NDJSON = "text/plain", "application/octet-stream", "application/x-ndjson"

EMPTY = {"success": False, "error": "empty", "message": "The queue is empty."}
NO_OTHERS = {name: value for name, value in QueueCounts().as_dict().items() if name != "count"} | {"age": ANY}


def push(api: Api, *texts: str) -> None:
    assert api.post("push", json={"messages": list(texts)}).json["success"]


def counts(api: Api) -> dict[str, int]:
    """Return how many messages wait, are reserved and are dead."""
    answer = api.get("count").json
    return {key: answer[key] for key in ("count", "reserved", "dead")}


def check_error(answer: Any, status: int, error: str) -> dict[str, Any]:
    """Return the JSON of an error, after checking that it has all that an error must have."""
    assert (answer.status_code, answer.json["success"], answer.json["error"]) == (status, False, error), answer.json
    assert re.fullmatch(r"[^\n]+ [^\n]+", answer.json["message"])  # a sentence, on one line
    assert answer.content_type == "application/json"
    assert ("Retry-After" in answer.headers) == (status in (429, 503))
    return dict(answer.json)


def everything(client: Any) -> dict[bytes, bytes]:
    """Return all keys of a store with their values, to be compared with a later state."""
    return {key: client.dump(key) for key in client.scan_iter()}


def in_blocks(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


class FakeSocket:
    """The socket of a client that is present at each check that `present` says so of, and gone afterwards."""

    def __init__(self, *present: bool) -> None:
        self.present = iter(present)
        self.timeouts: list[float | None] = []

    def recv(self, size: int, flags: int = 0) -> bytes:
        if flags & socket.MSG_PEEK and next(self.present, False):
            raise BlockingIOError
        return b""

    def settimeout(self, seconds: float | None) -> None:
        self.timeouts.append(seconds)

    def setsockopt(self, *option: int) -> None:
        pass

    def shutdown(self, how: int) -> None:
        pass

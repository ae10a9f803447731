"""Answers to what gunicorn itself refuses: malformed requests, which reach neither the app nor its checks.

Neither the log nor the answer repeats any of the request: it can be long, and hold a token, as in a header whose colon
is missing.
"""

import json
import re
import ssl
import time
from typing import Any

from gunicorn import util
from gunicorn.http.errors import (
    ConfigurationProblem,
    ExpectationFailed,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)

QUIET_SECONDS = 900.0  # without another of its kind, the count of a kind starts afresh
STATUSES = (  # the status, reason and sentence of a kind; all others are 400
    (LimitRequestLine, 414, "URI Too Long", "The URL is longer than 8,190 bytes."),
    (
        LimitRequestHeaders,
        431,
        "Request Header Fields Too Large",
        "A header is longer than 8,190 bytes, or there are more than 100.",
    ),
    (ExpectationFailed, 417, "Expectation Failed", "Unsupported Expect header."),
)


class RareLines:
    """Counts events by kind. The 1st, 2nd, 4th, 8th ... of a kind are worth a line, so nobody can fill the log."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}  # kind -> count, time of the last

    def count(self, kind: str) -> int:
        """Count an event; return the number of its kind lately if it is worth a line, else 0."""
        now = time.monotonic()
        number, last = self._seen.get(kind, (0, now))
        number = 1 if now - last > QUIET_SECONDS else number + 1
        self._seen[kind] = number, now
        return 0 if number & (number - 1) else number


def replace_error_answers(worker: Any) -> None:
    """Have a worker log and answer the errors of its parser as this module does."""
    lines = RareLines()

    def handle_error(req: Any, client: Any, addr: Any, error: Exception) -> None:
        kind = type(error).__name__
        number = lines.count(kind)
        if _is_of_client(error):
            status, reason, sentence = _describe(error, kind)
            if number:
                address = addr[0] if addr else "a unix socket"
                worker.log.warning("Malformed request from %s (%s): %d lately", address, kind, number)
        else:
            status, reason, sentence = 500, "Internal Server Error", ""
            if number:
                worker.log.error("Unexpected error while handling a request: %d lately", number, exc_info=error)
        try:
            util.write_error(client, status, reason, sentence)
        except Exception:
            worker.log.debug("Failed to send an error message.")

    worker.handle_error = handle_error


def _is_of_client(error: Exception) -> bool:
    ours = (ConfigurationProblem, InvalidResponseHeader, InvalidResponseHeaderName)
    return isinstance(error, (ParseException, ssl.SSLError)) and not isinstance(error, ours)


def _describe(error: Exception, kind: str) -> tuple[int, str, str]:
    """Return status, reason and sentence for a malformed request."""
    for kinds, status, reason, sentence in STATUSES:
        if isinstance(error, kinds):
            return status, reason, sentence
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", kind)  # InvalidHeaderName
    return 400, "Bad Request", f"The request is not valid HTTP: {words}."


def write_error(sock: Any, status: int, reason: str, message: str) -> None:
    """Answer what gunicorn itself refuses as the app does: in JSON, with an error code."""
    code = "internal" if status == 500 else reason.lower().replace(" ", "_")
    answer = {"success": False, "error": code, "message": message or f"{reason}."}
    body = json.dumps(answer, separators=(",", ":")) + "\n"
    head = [f"HTTP/1.1 {status} {reason}", "Connection: close", "Content-Type: application/json"]
    head += ["X-Content-Type-Options: nosniff", f"Content-Length: {len(body)}"]
    util.write_nonblock(sock, "\r\n".join([*head, "", body]).encode())

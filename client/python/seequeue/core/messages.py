"""Messages as bytes, and how a value becomes one."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from seequeue.core.protocol import to_json
from seequeue.errors import BadMessage, Refused

MAX_JOB_CHARACTERS = 255


class Payload(bytes):
    """The bytes of a message: `bytes(message)`, as `text`, or as the value of its JSON."""

    @property
    def text(self) -> str:
        """Return the message as text; BadMessage if it is not UTF-8."""
        try:
            return self.decode()
        except UnicodeDecodeError as error:
            raise BadMessage(f"The message is not UTF-8: {error.reason} at byte {error.start}") from error

    def json(self) -> Any:
        """Return the value of the message's JSON; BadMessage if it is not JSON."""
        try:
            return json.loads(self)
        except (ValueError, RecursionError) as error:
            raise BadMessage(f"The message is not JSON: {error}") from error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {bytes(self)!r}>"


class Listed(Payload):
    """A message that `all`, `reserved` or `delayed` lists; what the server did not say is None.

    `failed`, `died` and `deadline` are Unix time in seconds, by the clock of Redis.
    """

    id: str | None = None
    position: int | None = None
    deliveries: int | None = None
    deadline: float | None = None
    by: str | None = None
    reason: str | None = None
    failed: float | None = None
    died: float | None = None


def listed(answer: Any) -> Listed:
    """Return a listed message, of its value or of an object with its details."""
    if not isinstance(answer, dict) or "message" not in answer:
        return Listed(decode(answer))
    message = Listed(decode(answer["message"]))
    for name, value in answer.items():
        if name != "message":
            setattr(message, name, value)
    return message


def encode(value: Any) -> bytes:
    """Return the bytes of a message: a str as UTF-8, bytes as they are, any other value as its JSON."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if value is None:
        raise Refused("empty_message", "A message must not be empty or null.", status=400)
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            text = "A text is not valid UTF-8, or contains a lone surrogate."
            raise Refused("bad_utf8", text, status=400) from error
    return to_json(value)


def to_field(message: bytes) -> str | dict[str, str]:
    """Return a message as a value in JSON."""
    try:
        return message.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(message).decode()}


def decode(value: str | Mapping[str, str]) -> bytes:
    """Return the message that an answer holds as a value in JSON."""
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])


def job_of(message: bytes) -> str | None:
    """Return the name of the job that a message carries: the field `job` of a JSON object, a text or a number."""
    if b'"job"' not in message:
        return None
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return job_name(found.get("job")) if isinstance(found, dict) else None


def job_name(value: Any) -> str | None:
    """Return the name of a job; None if it is none that the server takes."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    name = str(value)
    visible = name.isascii() and name.isprintable() and " " not in name
    return name if visible and 1 <= len(name) <= MAX_JOB_CHARACTERS else None

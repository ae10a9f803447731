"""The errors of the client, each with the code, the status and the sentence of the server."""

import json
from collections.abc import Mapping
from typing import Any


class SeequeueError(Exception):
    """An error of the server, or of reaching it. `code` names the cause; all codes are in the API reference.

    `status` is 0 where no answer came, and `answer` the JSON of the answer, which may hold more: `stale`, `parameter`.
    """

    def __init__(self, code: str, message: str, *, status: int = 0, answer: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.answer = code, message, status, dict(answer or {})

    def __reduce__(self) -> Any:  # an error of a process pool comes home by pickle
        return _restored, (type(self), self.code, self.message, self.status, self.answer)

    @property
    def retry_after(self) -> float | None:
        """Return after how many seconds the server suggests to try again; None if it did not say."""
        seconds = self.answer.get("retry_after")
        return float(seconds) if isinstance(seconds, int | float) else None


def _restored(kind: type[SeequeueError], code: str, message: str, status: int, answer: dict[str, Any]) -> SeequeueError:
    return kind(code, message, status=status, answer=answer)


class Unavailable(SeequeueError):
    """The server, or its Redis, cannot do this now. Nothing was changed, and a later try may succeed."""


class OutcomeUnknown(SeequeueError):
    """The connection broke before the answer came: the request was carried out, or it was not."""


class Unauthorized(SeequeueError):
    """The token is missing, wrong or not enough."""


class LeaseExpired(SeequeueError):
    """The message is not held any more: its lease has ended, it has moved, or its undo has expired (`stale`)."""


class Paused(SeequeueError):
    """The queue is paused, and gives no messages."""


class Limited(SeequeueError):
    """The limits of the queue are reached; `retry_after` has the seconds after which to try again."""


class Refused(SeequeueError):
    """The request can never succeed: a parameter, a name or a message is wrong. Nothing was changed."""


class JobFailed(SeequeueError):
    """The message of a job became a dead letter; the text is the reason."""


class Reject(Exception):
    """Raise it for a message that can never succeed: it becomes a dead letter at once, and this error is its reason."""


class BadMessage(Reject, ValueError):
    """A message is not UTF-8 or not JSON, as the program expected. Raised in a worker, it makes it a dead letter."""


FAMILIES: dict[str, type[SeequeueError]] = {
    "body_timeout": Unavailable,  # bodies are sent whole: the connection, or the server, broke off
    "incomplete_body": Unavailable,
    "limited": Limited,
    "outcome_unknown": OutcomeUnknown,
    "paused": Paused,
    "stale": LeaseExpired,
    "too_many_attempts": Unauthorized,
}
STATUSES: dict[int, type[SeequeueError]] = {
    401: Unauthorized,
    403: Unauthorized,
    429: Unavailable,
    502: OutcomeUnknown,  # of a proxy, which may have passed the request on
    503: Unavailable,
    504: OutcomeUnknown,
    507: Unavailable,
}


def from_answer(status: int, content: bytes, headers: Mapping[str, str]) -> SeequeueError | dict[str, Any]:
    """Return the JSON of an answer, or the error that it reports."""
    try:
        answer = json.loads(content)
        is_ours = isinstance(answer, dict) and isinstance(answer.get("success"), bool)
    except ValueError:
        is_ours = False
    if not is_ours:  # of a proxy, or another server
        kind = OutcomeUnknown if status == 503 else STATUSES.get(status, SeequeueError)
        return kind("bad_answer", f"The server answered {status} without JSON; is it Seequeue?", status=status)
    if answer["success"]:
        return answer  # type: ignore[no-any-return]
    if headers.get("retry-after", "").isdigit():
        answer.setdefault("retry_after", int(headers["retry-after"]))
    code = str(answer.get("error"))
    kind = FAMILIES.get(code) or STATUSES.get(status) or (Refused if 400 <= status < 500 else SeequeueError)
    return kind(code, str(answer.get("message")), status=status, answer=answer)

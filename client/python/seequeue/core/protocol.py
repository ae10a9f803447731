"""What an operation needs from the outside, and how a request is repeated until it is answered.

An operation is a generator. It yields what it needs (a `Request`, a `Sleep`), is sent what came of it, and returns its
result. `drivers.py` runs it with a blocking or with an async HTTP client, so each operation is written once.
"""

import json
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

from seequeue.errors import LeaseExpired, OutcomeUnknown, Refused, SeequeueError, Unavailable, from_answer

log = logging.getLogger("seequeue")

MAX_BACKOFF = 5.0  # seconds between two tries
ANSWER_TIMEOUT = 20.0  # seconds for an answer to begin, in addition to `wait`; the server gives up on Redis after 5
# The bounds of the API.
MAX_NAMES = 10  # of queues in one path
MAX_BATCH = 1000  # messages of one request
MAX_WAIT = 60  # seconds
MIN_LEASE, MAX_LEASE = 1, 43_200  # seconds
MAX_DELAY = 2_592_000  # seconds, 30 days
NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
NAME_RULE = "1 to 128 characters: A-Z a-z 0-9 . _ - :"


@dataclass(frozen=True)
class Request:
    """A request to send; it gives a `Response` or `Disconnected`."""

    method: str
    url: str
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = ANSWER_TIMEOUT  # seconds between two parts of the answer


@dataclass(frozen=True)
class Response:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class Disconnected:
    """No whole answer came. `sent` is False if the request cannot have reached the server."""

    sent: bool
    cause: str


@dataclass(frozen=True)
class Sleep:
    """A number of seconds to wait for; it gives None."""

    seconds: float


@dataclass(frozen=True)
class Stream:
    """A request whose answer is read in chunks; it gives a `Response`, without content if its status is 200."""

    request: Request


class Chunk:
    """The next bytes of the open stream; b"" at its end."""


@dataclass(frozen=True)
class Next:
    """The next item of an async iterator, which only an async driver has; it gives a list, empty at the end."""

    items: AsyncIterator[Any]


@dataclass(frozen=True)
class Emit:
    """An item of the result of a stream."""

    item: Any


T = TypeVar("T")
Effect = Request | Sleep | Stream | Chunk | Next | Emit
Operation = Generator[Effect, Any, T]


class Server:
    """Where the server is, and how long to wait for it: what the operations need of a queue."""

    def __init__(self, url: str, name: str | Iterable[str] | None, timeout: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"The URL of the server must begin with http:// or https://: {url!r}")
        if not timeout > 0:
            raise ValueError("timeout must be more than 0 seconds.")
        self.url, self.timeout = url.rstrip("/"), timeout
        self.names = check_names(name)

    @property
    def name(self) -> str | None:
        """Return the name of the only queue; None stands for the default queue of the server."""
        if len(self.names) > 1:
            raise ValueError(f"Only pop, reserve, consume and worker take several queues: {','.join(self.names)}")
        return self.names[0] if self.names else None

    def path(self, operation: str, name: str | None = None) -> str:
        """Return the URL of an operation on the queue `name`, by default on the only one."""
        name = name or self.name
        return f"{self.url}/api/queue/{name}/{operation}" if name else f"{self.url}/api/queue/{operation}"

    def path_of_all(self, operation: str) -> str:
        """Return the URL of an operation on all queues, in order."""
        return self.path(operation, ",".join(self.names))


def check_names(name: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of queues; refuse what the server would refuse."""
    names = () if name is None else (name,) if isinstance(name, str) else tuple(name)
    if len(names) > MAX_NAMES:
        raise Refused("bad_name", f"One request can name at most {MAX_NAMES} queues.", status=400)
    for number, one in enumerate(names):
        if not isinstance(one, str) or not NAME.fullmatch(one):
            raise Refused("bad_name", f"Not a queue name: {one!r}. A queue name has {NAME_RULE}", status=400)
        if one in names[:number]:
            raise Refused("bad_name", f'The queue "{one}" is named twice.', status=400)
    return names


def check_number(name: str, value: float, minimum: float, maximum: float) -> float:
    """Return a number within its bounds; refuse any other with the sentence of the server."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
        text = f"{name} must be a number from {minimum:.12g} to {maximum:.12g}."
        raise Refused("bad_parameter", text, status=400, answer={"parameter": name})
    return value


def check_wait(value: float) -> float:
    return check_number("wait", value, 0, MAX_WAIT)


def check_lease(value: float) -> float:
    return check_number("lease", value, MIN_LEASE, MAX_LEASE)


def check_delay(value: float) -> float:
    return check_number("delay", value, 0, MAX_DELAY)


def get(url: str, *, timeout: float = ANSWER_TIMEOUT, accept: str = "", **parameters: Any) -> Request:
    """Return a GET; parameters that are None are left out."""
    headers = {"Accept": accept} if accept else {}
    return Request("GET", with_query(url, **parameters), headers=headers, timeout=timeout)


def with_query(url: str, **parameters: Any) -> str:
    """Return a URL with the parameters that are not None; True is sent as 1."""
    sent = {key: int(value) if isinstance(value, bool) else value for key, value in parameters.items()}
    query = urlencode({key: value for key, value in sent.items() if value is not None})
    return f"{url}?{query}" if query else url


JSON_HEADERS = {"Content-Type": "application/json"}


def post(url: str, *, timeout: float = ANSWER_TIMEOUT, key: str | None = None, **parameters: Any) -> Request:
    """Return a POST of a JSON object; parameters that are None are left out."""
    fields = {name: value for name, value in parameters.items() if value is not None}
    headers = {**JSON_HEADERS, "Idempotency-Key": key} if key else JSON_HEADERS
    return Request("POST", url, to_json(fields), headers, timeout)


def to_json(value: Any) -> bytes:
    """Return compact JSON in UTF-8; refuse NaN, infinities and lone surrogates."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        text = "A text is not valid UTF-8, or contains a lone surrogate."
        raise Refused("bad_utf8", text, status=400) from error
    except ValueError as error:
        raise Refused("bad_json", f"The message cannot be written as JSON: {error}", status=400) from error


def call(
    server: Server, request: Request, *, repeatable: bool = True, released: bool = False, empty: str = ""
) -> Operation[dict[str, Any]]:
    """Send a request until it is answered, for at most the timeout of the server's client, and return the answer.

    While the server is away or busy nothing was changed, so any request is repeated. After an unknown outcome only a
    `repeatable` one is: one that does no harm if it is carried out twice. `released` says that it ends a reservation:
    if the answer was lost and the repeated request finds none, the first one did it. For the code `empty`, return {}.
    """
    deadline = time.monotonic() + server.timeout + request.timeout - ANSWER_TIMEOUT
    attempt, was_lost = 0, False
    while True:
        answer = outcome((yield request))
        if not isinstance(answer, SeequeueError):
            return answer
        if empty and answer.code == empty:
            return {}
        was_lost = was_lost or isinstance(answer, OutcomeUnknown)
        if released and was_lost and isinstance(answer, LeaseExpired):
            return {"success": True}
        if not isinstance(answer, Unavailable) and not (repeatable and isinstance(answer, OutcomeUnknown)):
            raise answer
        delay = max(backoff_of(attempt), answer.retry_after or 0)
        if time.monotonic() + delay > deadline:
            raise answer
        if not attempt:
            log.warning("%s does not answer; trying again. %s", server.url, answer)
        attempt += 1
        yield Sleep(delay)


def once(request: Request, *, empty: str = "") -> Operation[dict[str, Any]]:
    """Send a request once, and return the answer; {} for the code `empty`."""
    answer = outcome((yield request))
    if not isinstance(answer, SeequeueError):
        return answer
    if empty and answer.code == empty:
        return {}
    raise answer


def outcome(response: Response | Disconnected) -> SeequeueError | dict[str, Any]:
    """Return the JSON of an answer, or what went wrong as an error."""
    if isinstance(response, Response):
        return from_answer(response.status, response.content, response.headers)
    if response.sent:
        return OutcomeUnknown("disconnected", f"The connection broke before the answer came: {response.cause}")
    return Unavailable("unreachable", f"Cannot reach the server: {response.cause}. Nothing was changed.")


def backoff_of(attempt: int) -> float:
    """Return the seconds until the next try: 0.05 to 0.1 after the first, doubling each time, 5 at most."""
    return min(MAX_BACKOFF, 0.1 * 2.0 ** min(attempt, 10)) * random.uniform(0.5, 1)

"""The operations on a queue. Each name, parameter and unit is that of the HTTP API."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar, overload

from seequeue.core.messages import Payload, decode, encode, job_name, job_of, to_field
from seequeue.core.models import (
    Consumer,
    Counts,
    Pushed,
    Reason,
    Settled,
    counts_of,
    parse,
)
from seequeue.core.protocol import (
    ANSWER_TIMEOUT,
    MAX_BATCH,
    Operation,
    Request,
    Server,
    call,
    check_delay,
    check_lease,
    check_number,
    check_wait,
    get,
    post,
    with_query,
)
from seequeue.errors import JobFailed, LeaseExpired, Refused

BYTES = {"Content-Type": "application/octet-stream"}


Self = TypeVar("Self", bound="Reserved")


class Reserved(Payload):
    """A reserved message. Its lease lasts until `deadline`: Unix time in seconds, by the clock of Redis.

    A consumer that renews the lease leaves `deadline` as it was. `queue` is the name of its queue, None for the
    server's default queue; `deliveries` counts this delivery too. After `max_deliveries` a message that is not acked
    becomes a dead letter.
    """

    id: str
    deliveries: int
    max_deliveries: int
    deadline: float
    queue: str | None
    client: "Client[Any]"
    held: Any = None  # by whom, if a consumer or a worker gave it
    is_settled = False  # by its own method; then there is nothing left to do

    def __enter__(self: Self) -> Self:
        if self.held is None:
            raise RuntimeError("Only a message of consume() has a with block; ack or release this one.")
        self.held.enter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return bool(self.held.leave(error))

    def __reduce__(self) -> Any:  # for the process of an executor
        facts = (self.id, self.deliveries, self.max_deliveries, self.deadline, self.queue)
        return unpickled, (type(self), bytes(self), facts)

    @property
    def job(self) -> str | None:
        """Return the name of the job that the message carries: the field `job` of its JSON object, if it has one."""
        return job_of(self)


M = TypeVar("M", bound=Reserved)


def unpickled(kind: type[M], content: bytes, facts: tuple[Any, ...]) -> M:
    """Return a message in another process. It cannot be settled there, as its consumer does that."""
    message = kind(content)
    message.id, message.deliveries, message.max_deliveries, message.deadline, message.queue = facts
    return message


class Client(Server, Generic[M]):
    """A server, and the class of the messages that are reserved there."""

    message_type: type[M]

    def message(self, answer: Mapping[str, Any], queue: str | None) -> M:
        """Return a reserved message of an answer."""
        message = self.message_type(decode(answer["message"]))
        message.client, message.queue, message.id = self, queue, answer["id"]
        message.deliveries, message.deadline = answer["deliveries"], answer["deadline"]
        message.max_deliveries = answer["max_deliveries"]
        return message


def new_key() -> str:
    """Return an Idempotency-Key."""
    return os.urandom(16).hex()


# --- push and pop


def push(
    client: Server, message: Any, *, delay: float = 0, front: bool = False, key: str | None = None
) -> Operation[Pushed]:
    """Add a message to the queue: a str, bytes, or a value that is stored as its JSON.

    `delay` is in seconds, up to 30 days; `front` is to be popped next. While the server is away the push is repeated
    for the `timeout` of the queue. An Idempotency-Key, `key` or one of its own, keeps it from being stored twice.

    Raises:
        Refused: the message is empty, not text that can be encoded, or too large.
        Unavailable, OutcomeUnknown: the server did not answer in time.
    """
    body = encode(message)
    if not body and not front:
        raise Refused("empty_message", "A message must not be empty or null.", status=400)
    url = with_query(client.path("push"), delay=check_delay(delay) or None, front=front or None)
    headers = {**BYTES, "Idempotency-Key": new_key() if key is None else key}
    answer = yield from call(client, Request("POST", url, body, headers))
    return parse(Pushed, answer)


@overload
def pop(client: Server, *, wait: float = 0, max: None = None, by: str | None = None) -> Operation[Payload | None]: ...
@overload
def pop(client: Server, *, wait: float = 0, max: int, by: str | None = None) -> Operation[list[Payload]]: ...
def pop(client: Server, *, wait: float = 0, max: int | None = None, by: str | None = None) -> Any:
    """Remove and return the next message; None if there is none after `wait` seconds (0 to 60).

    With `max`, return a list of up to that many (1 to 1,000). Of one queue, a pop whose answer was lost is repeated
    with its Idempotency-Key and returns the same messages; of several queues it raises OutcomeUnknown.

    Raises:
        Paused, Limited: the queue gives no messages now.
        OutcomeUnknown: a message may have been removed.
    """
    answer = yield from _take(client, "pop", key=new_key(), wait=wait, max=max, by=by)
    found = [Payload(decode(one)) for one in answer.get("messages", [answer.get("message")] if answer else [])]
    return found if max is not None else found[0] if found else None


@overload
def reserve(
    client: Client[M], *, lease: float = 30, wait: float = 0, max: None = None, by: str | None = None
) -> Operation[M | None]: ...
@overload
def reserve(
    client: Client[M], *, max: int, lease: float = 30, wait: float = 0, by: str | None = None
) -> Operation[list[M]]: ...
def reserve(
    client: Client[M], *, lease: float = 30, wait: float = 0, max: int | None = None, by: str | None = None
) -> Any:
    """Take the next message for `lease` seconds (1 to 43,200); None if there is none after `wait` seconds (0 to 60).

    With `max`, return a list of up to that many (1 to 1,000), all of the same queue. Ack each, or it is delivered again
    when its lease ends. `by` (1 to 64 visible ASCII characters) says who takes it.

    Raises:
        Paused, Limited: the queue gives no messages now.
    """
    answer = yield from _take(client, "reserve", lease=check_lease(lease), wait=wait, max=max, by=by)
    queue = answer.get("queue") or (client.names[0] if client.names else None)
    found = [client.message(one, queue) for one in answer.get("messages", [answer] if answer else [])]
    return found if max is not None else found[0] if found else None


def _take(
    client: Server, operation: str, *, wait: float, max: int | None, key: str | None = None, **parameters: Any
) -> Operation[dict[str, Any]]:
    """Pop or reserve; return {} if the queue is empty."""
    if max is not None:
        check_number("max", max, 1, MAX_BATCH)
    is_single = len(client.names) < 2
    timeout = ANSWER_TIMEOUT + check_wait(wait)
    url = client.path_of_all(operation)
    request = post(url, timeout=timeout, key=key if is_single else None, wait=wait or None, max=max, **parameters)
    return (yield from call(client, request, repeatable=operation == "reserve" or is_single, empty="empty"))


# --- reservations


def ack(message: Reserved, *, result: Any = None, job: str | int | None = None) -> Operation[None]:
    """Say that the message is done. With a `result`, store it for the producer in the same step.

    `job` is the name under which the producer asks for the result; by default the field `job` of the message's JSON.

    Raises:
        LeaseExpired: the message is not held any more: it is, or was, delivered again.
        ValueError: there is a result, but no name of a job.
    """
    item: dict[str, Any] = {"id": message.id}
    if result is not None or job is not None:
        name = job_name(job) if job is not None else message.job
        if name is None:
            raise ValueError("A result needs the name of a job: 1 to 255 visible ASCII characters.")
        item |= {"job": name, "result": encode_result(result)}
    yield from _settle(message, post(message.client.path("ack", message.queue), **item))


def encode_result(result: Any) -> str | dict[str, str]:
    """Return a result as a value in JSON: a message. None, "" and b"" are stored as JSON, as no message is empty."""
    return to_field(b"null" if result is None else encode(result) or b'""')


def release(message: Reserved, *, delay: float = 0, reason: str | None = None) -> Operation[None]:
    """Give the message back: to the front of the queue, now or after `delay` seconds (up to 30 days).

    After its last delivery it becomes a dead letter instead. `reason` is cut to 1,000 characters.

    Raises:
        LeaseExpired: the message is not held any more.
    """
    item = {"delay": check_delay(delay) or None, "reason": clean_reason(reason)}
    yield from _release(message, item)


def reject(message: Reserved, reason: str | None = None) -> Operation[None]:
    """Make the message a dead letter now. If it carries the name of a job, its producer gets the reason.

    Raises:
        LeaseExpired: the message is not held any more.
    """
    yield from _release(message, {"dead": True, "reason": clean_reason(reason)})


def _release(message: Reserved, item: dict[str, Any]) -> Operation[None]:
    request = post(message.client.path("release", message.queue), id=message.id, job=message.job, **item)
    yield from _settle(message, request, released=True)


def _settle(message: Reserved, request: Request, *, released: bool = False) -> Operation[None]:
    """End a reservation. A consumer that has the message in hand then leaves it alone."""
    try:
        yield from call(message.client, request, released=released)
    except LeaseExpired:
        message.is_settled = True
        raise
    message.is_settled = True


MAX_REASON = 1000  # characters


def clean_reason(reason: str | None) -> str | None:
    """Return a reason that the server takes: without lone surrogates, and cut."""
    return None if reason is None else reason.encode(errors="replace").decode()[:MAX_REASON]


def extend(message: Reserved, lease: float = 30) -> Operation[float]:
    """Let the lease end `lease` seconds (1 to 43,200) from now, and return its deadline.

    Raises:
        LeaseExpired: the message is not held any more.
    """
    request = post(message.client.path("extend", message.queue), id=message.id, lease=check_lease(lease))
    message.deadline = (yield from call(message.client, request))["deadline"]
    return message.deadline


Item = str | Mapping[str, Any]


def settle(
    client: Server, acks: Iterable[Item] = (), releases: Iterable[Item] = (), extends: Iterable[Item] = ()
) -> Operation[Settled]:
    """Ack, release and extend up to 1,000 messages in one atomic step, each for itself.

    Each is an id, or an object with `id` and what the operation takes: `job` and `result`; `delay`, `dead`, `reason`
    and `job`; `lease`. An id that is not held any more is in `stale`.
    """
    return (yield from settle_in(client, client.name, acks, releases, extends))


def settle_in(
    client: Server, queue: str | None, acks: Iterable[Item], releases: Iterable[Item], extends: Iterable[Item]
) -> Operation[Settled]:
    """Settle messages of the queue `queue`."""
    lists: dict[str, Any] = {"acks": list(acks), "releases": list(releases), "extends": list(extends)}
    if not any(lists.values()):
        return Settled()
    given: dict[str, Any] = {name: items for name, items in lists.items() if items}
    request = post(client.path("settle", queue), **given)
    answer = yield from call(client, request)
    return parse(Settled, {**answer, "stale": tuple(answer["stale"])})


# --- results


def result(client: Server, job: str | int, wait: float = 0) -> Operation[Payload | None]:
    """Return the result of a job; None if there is none after `wait` seconds (0 to 60), or it has expired.

    Raises:
        JobFailed: the message of the job became a dead letter; the text of the error is the reason.
    """
    request = get(client.path("result"), timeout=ANSWER_TIMEOUT + check_wait(wait), job=job, wait=wait or None)
    answer = yield from call(client, request, empty="no_result")
    if "failed" in answer:
        raise JobFailed("job_failed", answer["failed"], status=200, answer=answer)
    return Payload(decode(answer["result"])) if answer else None


def set_result(client: Server, job: str | int, result: Any, *, keep: int = 86_400) -> Operation[None]:
    """Store the result of a job for `keep` seconds (1 to 2,592,000), replacing an earlier one."""
    request = post(client.path("result"), job=str(job), result=encode_result(result), keep=keep)
    yield from call(client, request)


# --- looking


def count(client: Server) -> Operation[Counts]:
    """Return how many messages are waiting, reserved, delayed and dead, and how many clients wait."""
    return counts_of((yield from call(client, get(client.path("count")))))


def queues(client: Server, match: str | None = None) -> Operation[list[Counts]]:
    """Return the counts of all queues that hold something, by name; `match` is a pattern such as "mail*"."""
    answer = yield from call(client, get(f"{client.url}/api/queues", match=match))
    return [counts_of(one) for one in answer["queues"]]


def consumers(client: Server) -> Operation[list[Consumer]]:
    """Return who has reserved messages of the queue, or waits for one; the oldest reservation first."""
    answer = yield from call(client, get(client.path("consumers")))
    return [parse(Consumer, one) for one in answer["consumers"]]


def reasons(client: Server) -> Operation[list[Reason]]:
    """Return why messages failed, the most frequent reason first."""
    answer = yield from call(client, get(client.path("reasons")))
    return [parse(Reason, one) for one in answer["reasons"]]

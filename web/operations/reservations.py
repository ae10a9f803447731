"""reserve, ack, release and extend: messages that are taken for a limited time."""

from dataclasses import replace

from broker.models import Delivery, Limited, Paused
from broker.queue import ReliableQueue
from web.errors import ApiError
from web.input.codec import decode_message
from web.input.parameters import Flag, JobName, Message, Number, Text, one_or_many
from web.operations.operation import Answer, Example, operation
from web.operations.schemas import DELIVERY, NOTHING, TAKEN_FROM, fields, list_of, success, unix_time, whole
from web.operations.shared import (
    BY,
    ID,
    IDS,
    LEASE,
    MAX,
    MAX_DELAY,
    MAX_TEXT,
    MESSAGE_ERRORS,
    RESERVATIONS,
    WAIT,
    WAITING_ERRORS,
    batch_or_one,
    held,
    take,
)
from web.request import Request

HELD_ID = "1795489534022053-0001-c6c635c30e138159-1"


@operation(
    "POST",
    RESERVATIONS,
    LEASE,
    WAIT,
    MAX,
    BY,
    several=True,
    answers=(
        success("Reserved", DELIVERY, queue=TAKEN_FROM),
        success(
            "ReservedMany",
            {"messages": list_of(fields(DELIVERY), "The reservations, each with the fields above.")},
            when="with `max`",
            queue=TAKEN_FROM,
        ),
        NOTHING,
    ),
    errors=("empty", "paused", "limited", *WAITING_ERRORS),
    example=Example(
        {"success": True, "id": HELD_ID, "message": "hello", "deliveries": 1, "deadline": 1795489594.022},
        {"lease": 60, "by": "worker-1"},
    ),
)
def reserve(
    request: Request, queues: list[ReliableQueue], lease: float, wait: float, max: int | None, by: str | None
) -> Answer:
    """Take the next message, or a batch, for a limited time.

    Without an `ack` a message returns to the front of the queue within a second after its lease ends, even if no client
    calls. After `MAX_DELIVERIES` deliveries it becomes a dead letter instead.

    `POST /api/queue/urgent,normal,low/reserve` takes from the first of these queues that has a message and is not
    paused, or waits for the first message of any of them. The answer names the `queue`, to which the `ack` must go. Up
    to 10 queues can be named, each once. With `max` all messages come from the same queue. The error is `paused` only
    if all of them are paused.
    """

    def give_back(queue: ReliableQueue, deliveries: list[Delivery]) -> None:
        queue.release(*(delivery.id for delivery in deliveries))

    try:
        batch = take(request, queues, wait, lambda queue: queue.reserve(lease, max or 1, by or ""), give_back, by)
    except (Paused, Limited) as error:
        return held(error, max)
    return batch_or_one(
        request,
        [
            {"id": one.id, "message": decode_message(one), "deliveries": one.deliveries, "deadline": one.deadline}
            for one in batch.messages
        ],
        max,
    )


@operation(
    "POST",
    RESERVATIONS,
    ID,
    IDS,
    JobName("job", "The job whose `result` to store, for a day. Send both with one `id`."),
    Message("result", "The result: any JSON value but null, or the text of a form field."),
    answers=(success("Acked", {"acked": whole("Number of reservations ended.")}),),
    errors=("stale", *MESSAGE_ERRORS, "redis_full"),
    example=Example({"success": True, "acked": 1}, {"id": HELD_ID}),
)
def ack(
    request: Request, queue: ReliableQueue, id: str | None, ids: list[str] | None, job: str | None, result: bytes | None
) -> Answer:
    """Acknowledge messages: end their reservations, and forget them.

    If any of the ids is no longer held, nothing is changed. Acking the same id again within an hour is harmless.

    A result is stored in the same atomic step as the ack, so a late ack stores none. GET `result` returns it.
    """
    found = one_or_many(id, ids, "id")
    if job is None and result is None:
        return {"success": True, "acked": queue.ack(*found)}
    if job is None or result is None or id is None:
        raise ApiError("bad_parameter", "To store a result, send job, result and one id.", parameter="job")
    queue.ack_with(id, job, result)
    return {"success": True, "acked": 1}


@operation(
    "POST",
    RESERVATIONS,
    ID,
    IDS,
    Number(
        "delay",
        "Time until the messages return, to retry with backoff. Until then they are `delayed`, under new ids.",
        default=0,
        maximum=MAX_DELAY,
        unit="seconds",
    ),
    Flag("dead", "Make the messages dead letters now."),
    Text("reason", "Why they failed. `all` with `details` returns it.", default="", maximum=MAX_TEXT),
    answers=(
        success(
            "Released",
            {
                "released": whole("Number of reservations ended."),
                "dead": whole("Number of those that became dead letters: by `dead`, or after their last delivery."),
            },
        ),
    ),
    errors=("stale",),
    example=Example({"success": True, "released": 1, "dead": 0}, {"id": HELD_ID, "delay": 60, "reason": "timed out"}),
)
def release(
    request: Request,
    queue: ReliableQueue,
    id: str | None,
    ids: list[str] | None,
    delay: float,
    dead: bool,
    reason: str,
) -> Answer:
    """Return reserved messages to the front of the queue, now or later, or make them dead letters.

    If any of the ids is no longer held, nothing is changed.
    """
    found = one_or_many(id, ids, "id")
    if dead and delay:
        raise ApiError("bad_parameter", "Send either delay or dead.", parameter="delay")
    buried = queue.release(*found, delay=delay, dead=dead, reason=reason)
    return {"success": True, "released": len(found), "dead": buried}


@operation(
    "POST",
    RESERVATIONS,
    replace(ID, required=True),
    LEASE,
    answers=(success("Extended", {"deadline": unix_time("When the lease ends now.")}),),
    errors=("stale",),
    example=Example({"success": True, "deadline": 1795489594.022}, {"id": HELD_ID, "lease": 60}),
)
def extend(request: Request, queue: ReliableQueue, id: str, lease: float) -> Answer:
    """Extend a lease, or the delay of a delayed message, to end `lease` seconds from now."""
    return {"success": True, "deadline": queue.extend(id, lease)}

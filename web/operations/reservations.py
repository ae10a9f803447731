"""reserve, ack, release, extend and settle: messages that are taken for a limited time."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from broker.models import Ack, Delivery, Extend, Release
from broker.queue import ReliableQueue
from web.errors import ApiError, quoted
from web.input.codec import decode_message
from web.input.object_list import ObjectList
from web.input.parameters import AsciiName, Flag, Number, Text, one_or_many
from web.metrics.instrumentation import record_messages
from web.operations.operation import Answer, Example, operation
from web.operations.schemas import DELIVERY, NOTHING, TAKEN_FROM, fields, list_of, success, unix_time, whole
from web.operations.shared import (
    BY,
    EXAMPLE_ID,
    ID,
    IDS,
    LEASE,
    MAX,
    MAX_BATCH,
    MAX_DELAY,
    MAX_TEXT,
    MESSAGE_ERRORS,
    RESERVATIONS,
    RESULT,
    WAIT,
    WAITING_ERRORS,
    batch_or_one,
    take,
)
from web.request import Request

RESULT_JOB = AsciiName("job", "Store `result` as the result of this job, for a day. Send both with one `id`.")
DELAY = Number(
    "delay",
    "Time until the messages return, to retry with backoff. Until then they are `delayed`, under new ids.",
    default=0,
    maximum=MAX_DELAY,
    unit="seconds",
)
DEAD = Flag("dead", "Make the messages dead letters now.")
UNSTARTED = Flag(
    "unstarted",
    "The work was not started: the messages return now, this delivery does not count, and none becomes a dead letter.",
)
WHY_FAILED = Text("reason", "Why they failed. `all` with `details` returns it.", default="", maximum=MAX_TEXT)
FAILED_JOB = AsciiName(
    "job", "With one `id`: if the message becomes a dead letter, keep `reason` as the `result` of this job, for a day."
)
ITEM_ID = replace(ID, required=True)
DEAD_COUNT = whole("Number of those that became dead letters: by `dead`, or after their last delivery.")


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
        {
            "success": True,
            "id": EXAMPLE_ID,
            "message": "hello",
            "deliveries": 1,
            "max_deliveries": 5,
            "deadline": 1795489594.022,
        },
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
        queue.release(*(delivery.id for delivery in deliveries), unstarted=True)

    batch = take(request, queues, wait, lambda queue: queue.reserve(lease, max or 1, by or ""), give_back, by)
    return batch_or_one(request, batch, reservation, max)


def reservation(delivery: Delivery) -> Answer:
    """Return the fields of a reservation."""
    return {
        "id": delivery.id,
        "message": decode_message(delivery),
        "deliveries": delivery.deliveries,
        "max_deliveries": delivery.max_deliveries,
        "deadline": delivery.deadline,
    }


@operation(
    "POST",
    RESERVATIONS,
    ID,
    IDS,
    RESULT_JOB,
    RESULT,
    answers=(success("Acked", {"acked": whole("Number of reservations ended.")}),),
    errors=("stale", *MESSAGE_ERRORS, "redis_full"),
    example=Example({"success": True, "acked": 1}, {"id": EXAMPLE_ID}),
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
    DELAY,
    DEAD,
    UNSTARTED,
    WHY_FAILED,
    FAILED_JOB,
    answers=(success("Released", {"released": whole("Number of reservations ended."), "dead": DEAD_COUNT}),),
    errors=("stale", "redis_full"),
    example=Example(
        {"success": True, "released": 1, "dead": 0}, {"id": EXAMPLE_ID, "delay": 60, "reason": "timed out"}
    ),
)
def release(
    request: Request,
    queue: ReliableQueue,
    id: str | None,
    ids: list[str] | None,
    delay: float,
    dead: bool,
    unstarted: bool,
    reason: str,
    job: str | None,
) -> Answer:
    """Return reserved messages to the front of the queue, now or later, or make them dead letters.

    If any of the ids is no longer held, nothing is changed.

    With `job`, the producer learns that its job has failed, and why: GET `result` then answers `failed`.
    """
    found = one_or_many(id, ids, "id")
    if bool(dead) + bool(delay) + unstarted > 1:
        raise ApiError("bad_parameter", "Send only one of delay, dead and unstarted.", parameter="delay")
    if job is not None and id is None:
        raise ApiError("bad_parameter", "To keep the failure of a job, send job and one id.", parameter="job")
    buried = queue.release(*found, delay=delay, dead=dead, unstarted=unstarted, reason=reason, job=job)
    return {"success": True, "released": len(found), "dead": buried}


@operation(
    "POST",
    RESERVATIONS,
    ID,
    IDS,
    LEASE,
    answers=(success("Extended", {"deadline": unix_time("The new deadline of the leases.")}),),
    errors=("stale",),
    example=Example({"success": True, "deadline": 1795489594.022}, {"id": EXAMPLE_ID, "lease": 60}),
)
def extend(request: Request, queue: ReliableQueue, id: str | None, ids: list[str] | None, lease: float) -> Answer:
    """Extend leases, or the delays of delayed messages, to end `lease` seconds from now.

    If any of the ids is no longer held, nothing is changed.
    """
    return {"success": True, "deadline": queue.extend(one_or_many(id, ids, "id"), lease)}


@operation(
    "POST",
    RESERVATIONS,
    ObjectList(
        "acks",
        "What is done: ids, or objects with `id`, `job` and `result` as in `ack`.",
        fields=(ITEM_ID, RESULT_JOB, RESULT),
        default=(),
    ),
    ObjectList(
        "releases",
        "What failed: ids, or objects with `id`, `delay`, `dead`, `reason` and `job` as in `release`.",
        fields=(ITEM_ID, DELAY, DEAD, UNSTARTED, WHY_FAILED, FAILED_JOB),
        default=(),
    ),
    ObjectList(
        "extends",
        "What takes longer: ids, or objects with `id` and `lease` as in `extend`.",
        fields=(ITEM_ID, LEASE),
        default=(),
    ),
    answers=(
        success(
            "Settled",
            {
                "acked": whole("Number of messages acked."),
                "released": whole("Number of messages released."),
                "dead": DEAD_COUNT,
                "extended": whole("Number of leases and delays extended."),
                "stale": list_of({"type": "string"}, "The ids that are not held any more."),
            },
        ),
    ),
    errors=(*MESSAGE_ERRORS, "too_many_values", "redis_full"),
    example=Example(
        {"success": True, "acked": 1, "released": 0, "dead": 0, "extended": 0, "stale": ["gone"]},
        {"acks": [EXAMPLE_ID], "releases": [{"id": "gone", "delay": 60, "reason": "timed out"}]},
    ),
)
def settle(
    request: Request,
    queue: ReliableQueue,
    acks: Sequence[dict[str, Any]],
    releases: Sequence[dict[str, Any]],
    extends: Sequence[dict[str, Any]],
) -> Answer:
    """Ack, release and extend up to 1,000 messages, independently of one another: all a worker reports of a batch.

    An id that is no longer held is in `stale` and changes nothing; the others are settled all the same, in one atomic
    step. Each id may be named once.
    """
    ids = [item["id"] for item in (*acks, *releases, *extends)]
    if not 0 < len(ids) <= MAX_BATCH:
        sentence = f"Send 1 to {MAX_BATCH:,} ids in acks, releases and extends together."
        raise ApiError("bad_parameter", sentence, parameter="acks")
    if len(set(ids)) < len(ids):
        twice = next(id for number, id in enumerate(ids) if id in ids[:number])
        raise ApiError("bad_parameter", f"The id {quoted(twice)} is named twice.", parameter="acks")
    for name, items in (("acks", acks), ("releases", releases)):
        for number, item in enumerate(items):
            _check_item(item, f"{name}[{number}]")
    found = queue.settle(
        [Ack(**(item | {"result": item["result"] or b""})) for item in acks],
        [Release(**item) for item in releases],
        [Extend(**item) for item in extends],
    )
    answer: Answer = {"success": True, **vars(found)}
    for name in ("ack", "release"):
        record_messages(request.services, name, queue.name, answer)
    return answer


def _check_item(item: dict[str, Any], place: str) -> None:
    """Refuse a result without its job, a job without its result, and a release in more than one way (400)."""
    if "result" in item and (item["job"] is None) != (item["result"] is None):
        raise ApiError("bad_parameter", f"{place}: send both job and result.", parameter=place)
    if sum(bool(item.get(name)) for name in ("delay", "dead", "unstarted")) > 1:
        raise ApiError("bad_parameter", f"{place}: send only one of delay, dead and unstarted.", parameter=place)

"""count, all, reserved, delayed, consumers, reasons and events: look into a queue without taking anything."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from typing import Any

from flask import Response

from broker.attached.queue import AttachedQueue
from broker.keys import DEAD_SUFFIX
from broker.models import QueueCounts
from broker.queue import ReliableQueue
from web import answers
from web.input.body import JSON
from web.input.parameters import Flag, Integer
from web.input.raw_json import NDJSON
from web.live.age import age_of, record_state
from web.live.queue_feed import MAX_NEXT, QueueFeed, QueueReader, attached_facts
from web.operations.operation import Answer, Example, operation
from web.operations.schemas import (
    AGE,
    ATTACHED,
    BESIDE,
    COUNTS,
    fields,
    flag,
    list_of,
    message,
    ref,
    success,
    text,
    whole,
)
from web.operations.shared import CONTAINS, EXAMPLE_ID, READING, REASON, WAITING_ERRORS, WINDOW, prefers, stream_answer
from web.request import Request

EVENTS = "text/event-stream"
EXAMPLE_HELD = {"id": EXAMPLE_ID, "message": "hello", "deliveries": 1, "deadline": 1795489594.022, "by": "worker-1"}


@operation(
    "GET",
    READING,
    answers=(
        success(
            "Counts",
            {"message": text("`count` as text.", pattern="^[0-9]+$"), **COUNTS, "age": AGE},
            attached=ATTACHED,
            beside=BESIDE,
        ),
    ),
    example=Example(
        {"success": True, "message": "1", **QueueCounts(1).as_dict(), "age": {"seconds": 402, "at_least": False}}
    ),
)
def count(request: Request, queue: ReliableQueue) -> Answer:
    """Count the messages of a queue, and the clients that wait for one.

    `age` says how long the next message has waited, as far as this instance knows from the last half hour.
    docs/guarantees.md says when it is exact.

    A list of another program (`LISTS`) also has `attached` and `beside`, here, in `events`, and in the list of all
    queues `attached` alone.
    """
    state, history = queue.state(1), request.services.history
    age = age_of(record_state(history, queue.name, state), history)
    return {
        "success": True,
        "message": str(state.counts.count),
        **state.counts.as_dict(),
        "age": age,
        **attached_facts(queue),
    }


@operation(
    "GET",
    READING,
    *WINDOW,
    replace(CONTAINS, doc="Search: list only messages that contain this text. ASCII letters match in either case."),
    replace(REASON, doc="List only messages that failed for this reason, as `reasons` returns it."),
    Flag("details", "Return the number of deliveries of each message, and why it failed last."),
    name="all",
    answers=(
        success(
            "Messages",
            {
                "messages": list_of(
                    {"anyOf": [message(), ref("ListedMessage")]},
                    "The messages. Each is an object if `preview`, `contains`, `reason` or `details` was sent.",
                ),
                "count": whole("Length of the queue."),
            },
        ),
    ),
    media=(NDJSON,),
    example=Example({"success": True, "messages": ["hello"], "count": 1}, {"limit": 10}),
)
def all_messages(
    request: Request,
    queue: ReliableQueue,
    offset: int,
    limit: int | None,
    preview: int | None,
    contains: str | None,
    reason: str | None,
    details: bool,
) -> Answer | Response:
    """List the waiting messages, starting with the one to be popped next.

    With `Accept: application/x-ndjson` the answer has one line of JSON per message, which `push` accepts.

    With `contains` or `reason` the whole queue is searched from `offset` on, and `limit` is the maximum number of
    matches. A message that waits throughout the search is found exactly once, even if others come and go.

    If the last lease ended without an `ack`, the reason is "lease expired". The details of a failed message are kept
    for an hour, those of a dead letter as long as it exists. A dead letter that is moved back keeps them until it
    is acked or popped, at most a week. Identical dead letters share the latest details.

    Messages in a list of another program have a `summary` where their shape is known, and `contains` searches it too.
    """
    count = queue.state().counts.count  # this also returns the messages that are due
    size = min(max(0, count - offset), count if limit is None else limit)
    if contains is not None or reason is not None:
        chunks: Iterator[list[Any]] = answers.iter_found(queue, contains, reason, offset, limit, preview, details)
        if preview is None and not details and prefers(request, NDJSON):  # lines that `push` accepts
            chunks = ([one["message"] for one in chunk] for chunk in chunks)
    elif details:
        chunks = answers.iter_details(queue, offset, size, preview)
    elif preview is None:
        chunks = answers.iter_waiting(queue, offset, limit)
    else:
        chunks = answers.iter_previews(queue, offset, size, preview)
    return list_answer(request, chunks, count, size)


def list_answer(
    request: Request, chunks: Iterator[list[Any]], count: int, size: int | None = None
) -> Response | Answer:
    """Return an answer with a list of messages, as JSON or NDJSON; `size` is its length, None if unknown."""
    first = next(chunks, [])  # read before the answer begins, so that an early failure becomes an error status
    chunks = chain([first], chunks)
    if prefers(request, NDJSON):
        return Response(answers.as_ndjson(chunks), content_type=NDJSON)
    if len(first) == size:
        return {"success": True, "messages": answers.decode_all(first), "count": count}
    return Response(answers.as_json(chunks, {"count": count}), content_type=JSON)


@operation(
    "GET",
    READING,
    name="export",
    id="export_queue",
    media=(NDJSON,),
    example=Example('{"message":"hello","state":"reserved","deliveries":1}\n', pipe="head -n 1"),
)
def export_queue(request: Request, queue: ReliableQueue) -> Response:
    """Export all messages with what is known of them, one object per line, for `import` on any server.

    First those that are reserved and delayed, then those that wait, in pop order, then the dead letters of the queue,
    the oldest first. `import` describes the fields; those without a value are left out. Ids, leases, results and
    settings are not exported.

    Of a list of another program, the waiting messages are exported.

    Messages that others take or return meanwhile can be missed. For an exact copy, pause the queue first: then no
    message is missed, and one that returns meanwhile is exported twice.
    """
    queue.sweep()
    is_attached = isinstance(queue, AttachedQueue)
    dead = None if is_attached else request.services.queue(queue.name + DEAD_SUFFIX)
    chunks = answers.iter_exported(queue, dead)
    first = next(chunks, [])  # as in `list_answer`
    return Response(answers.as_ndjson(chain([first], chunks)), content_type=NDJSON)


HELD_MESSAGES = success(
    "HeldMessages",
    {"messages": list_of(ref("HeldMessage"), "The messages."), "count": whole("Total number, whatever `limit` is.")},
)


@operation(
    "GET",
    READING,
    *WINDOW,
    answers=(HELD_MESSAGES,),
    media=(NDJSON,),
    example=Example({"success": True, "messages": [EXAMPLE_HELD], "count": 1}),
)
def reserved(
    request: Request, queue: ReliableQueue, offset: int, limit: int | None, preview: int | None
) -> Answer | Response:
    """List the reserved messages, earliest deadline first.

    The `id` of a message is all that a client needs to release, extend or ack it, or to make it a dead letter.
    """
    chunks = answers.iter_held(queue, "reserved", offset, limit, preview)
    return list_answer(request, chunks, queue.state().counts.reserved)


@operation(
    "GET",
    READING,
    *WINDOW,
    answers=(HELD_MESSAGES,),
    media=(NDJSON,),
    example=Example(
        {"success": True, "messages": [{**EXAMPLE_HELD, "reason": "timed out", "failed": 1795489534.5}], "count": 1},
        {"limit": 10},
    ),
)
def delayed(
    request: Request, queue: ReliableQueue, offset: int, limit: int | None, preview: int | None
) -> Answer | Response:
    """List the delayed messages, earliest deadline first.

    They were pushed or released with a `delay`. Use the `id` of a message to release it (it joins the queue now),
    extend it (later), ack it (never), or make it a dead letter.
    """
    chunks = answers.iter_held(queue, "delayed", offset, limit, preview)
    return list_answer(request, chunks, queue.state().counts.delayed)


@operation(
    "GET",
    READING,
    answers=(
        success(
            "Consumers",
            {
                "consumers": list_of(
                    fields(
                        {
                            "by": text("The name that it sent as `by`; empty for all that sent none."),
                            "reserved": whole("Messages reserved."),
                            "oldest": {
                                "type": ["number", "null"],
                                "description": "Seconds since it reserved the oldest of them; null if it has none.",
                            },
                            "waiting": whole("Its requests that are blocked in `pop` or `reserve`."),
                        }
                    ),
                    "The consumers, the one with the oldest reservation first.",
                ),
                "complete": flag("False if there are more than 1,000 names; then some are left out."),
            },
        ),
    ),
    example=Example(
        {
            "success": True,
            "consumers": [{"by": "worker-1", "reserved": 1, "oldest": 1.204, "waiting": 0}],
            "complete": True,
        }
    ),
)
def consumers(request: Request, queue: ReliableQueue) -> Answer:
    """List who has reserved messages of a queue, and who waits for one, by the name that each sends as `by`.

    Those that send no `by` are one consumer together. A consumer that neither waits nor has a reservation is not
    listed. While more than 1,000 messages are reserved, one that is extended or ends meanwhile can be counted twice or
    missed.
    """
    found, is_complete = queue.consumers()
    return {"success": True, "consumers": [asdict(one) for one in found], "complete": is_complete}


@operation(
    "GET",
    READING,
    Integer("next", "Number of messages to preview, from the front of the queue.", default=MAX_NEXT, maximum=MAX_NEXT),
    Flag("history", "Include the last 30 minutes."),
    media=(EVENTS,),
    errors=WAITING_ERRORS,
    example=Example(
        "retry: 1000\n\nevent: queue\n"
        'data: {"name":"default","count":0,"reserved":0,"delayed":0,"dead":0,"waiters":0,"paused":false,"age":null,'
        '"next":[]}\n'
    ),
)
def events(request: Request, queue: ReliableQueue, next: int, history: bool) -> Response:
    """Follow a queue: its state as server-sent events, at once and after every change, whoever made it.

    `event: queue` has one line of JSON: `name`, the fields of `count`, and `next`, the previews of the first messages.
    `next` is left out while it is the same as in the event before. `age` is as of the moment the event is sent; its
    growth alone sends no event. `event: fault` reports, with `error` and `message`, that Redis is unavailable or
    refuses commands. After 15 seconds without an event, a comment line is sent.

    With `history=1` the first event has `history`, and later events have the steps that have ended since. `at` is when
    the first step began (Unix time, in seconds) and `step` the length of a step in seconds. `max`, `count`, `in` and
    `out` have a number for each step, null where it is unknown: the highest number of waiting messages, the number
    waiting at its end, and the numbers that came in and went out. `in` and `out` are lower bounds. They count the
    messages pushed (without a delay), popped and reserved through this instance, plus any more that the number of
    waiting messages implies: if it grows by 10 while 2 were counted in and 1 out, there were 11 in and 1 out.
    """
    services, reader = request.services, partial(QueueReader, max_next=next, with_history=history)
    tracker = services.attached_tracker if isinstance(queue, AttachedQueue) else services.tracker
    return stream_answer(request, QueueFeed(queue, tracker, services.history), reader)


@operation(
    "GET",
    READING,
    answers=(
        success(
            "Reasons",
            {
                "reasons": list_of(ref("FailureReason"), "The reasons, most frequent first; at most 1,000."),
                "complete": flag("Whether all failures were counted; false if there are too many."),
            },
        ),
    ),
    example=Example(
        {
            "success": True,
            "reasons": [
                {"reason": "timed out", "count": 1, "first": 1795489534.5, "last": 1795489534.5, "example": "timed out"}
            ],
            "complete": True,
        }
    ),
)
def reasons(request: Request, queue: ReliableQueue) -> Answer:
    """Count why messages failed: the dead letters, and those that wait to be retried.

    Reasons that differ only in numbers and ids are one: `#` stands for each number, and `<id>` for each UUID, each
    hexadecimal number that begins with `0x`, each word of 8 or more hexadecimal digits with both digits and letters,
    and each word of 16 or more letters and digits with both. `all`, `move` and `remove` take such a reason, or an
    example of it.

    For `jobs.dead`, only its own dead letters are counted. Counting stops at 100,000 failures or 1,000 reasons. A
    returned message counts for an hour after its failure. A dead letter that was moved back counts again once it fails
    again. Messages that other Redis clients removed can still be counted.
    """
    found, complete = queue.reasons()
    return {"success": True, "reasons": [asdict(reason) for reason in found], "complete": complete}

"""push, pop and import."""

from dataclasses import replace
from functools import partial

from flask import Response

from broker.attached.queue import AttachedQueue
from broker.models import Exported, Pushed
from broker.queue import ReliableQueue
from web.errors import ApiError
from web.input.body import BYTES, TEXT, iter_body, lines_kind, read_body
from web.input.codec import decode_message
from web.input.exported import FIELDS, read_exported
from web.input.lines import import_lines, push_lines
from web.input.parameters import Choice, Flag, Message, MessageList, Number, one_or_many
from web.metrics.instrumentation import record_messages
from web.operations.operation import Answer, Counted, Example, Result, operation
from web.operations.schemas import NOTHING, TAKEN_FROM, list_of, message, success, text, whole
from web.operations.shared import (
    BY,
    MAX,
    MAX_BATCH,
    MAX_DELAY,
    MESSAGE_ERRORS,
    PUSH_AND_POP,
    RAW,
    WAIT,
    WAITING_ERRORS,
    batch_or_one,
    prefers,
    take,
)
from web.request import Request


def is_put_back(request: Request) -> bool:
    """Return whether the query string has front=1, which puts a popped message back."""
    return bool(request.args) and request.args.getlist("front") in (["1"], ["true"])


@operation(
    "POST",
    PUSH_AND_POP,
    Message("message", "The message: any JSON value but null, or the text of a form field."),
    MessageList("messages", "Several messages, instead of `message`. All are stored, or none."),
    Flag("front", "Push to the front, to be popped next. In the query string, it lifts the limits for new messages."),
    Number(
        "delay",
        "Time until the message joins the back of the queue. Until then it is `delayed`.",
        default=0,
        maximum=MAX_DELAY,
        unit="seconds",
    ),
    Choice("each", "With a `text/plain` body: push one message per line.", words=("line",), in_body=False),
    RAW,
    idempotent=True,
    raw_body=True,
    streams=True,
    is_new=lambda request: not is_put_back(request),
    answers=(
        success(
            "Pushed",
            {
                "message": message("The message as it was stored."),
                "count": whole("Length of the queue after the push."),
            },
            id=text("With `delay`: the id of the delayed message."),
        ),
        success(
            "PushedMany",
            {"pushed": whole("Number of messages pushed."), "count": whole("Length of the queue after the push.")},
            when="with `messages`, or for a stream of lines",
            ids=list_of({"type": "string"}, "With `delay`: the ids of the delayed messages, in order."),
        ),
    ),
    errors=(*MESSAGE_ERRORS, "bad_message", "too_many_messages", "conflict", "redis_full"),
    example=Example({"success": True, "message": "hello", "count": 1}, {"message": "hello"}),
)
def push(
    request: Request,
    queue: ReliableQueue,
    key: str | None,
    message: bytes | None,
    messages: list[bytes] | None,
    front: bool,
    delay: float,
    each: str | None,
    raw: bool,
) -> Result:
    """Add one message, or several at once.

    Several messages keep their order. Either all of them are stored, or none.

    A stream of lines is stored as it arrives, within tens of milliseconds. If it breaks off, the complete lines are
    stored: `pushed` is the number of messages, and `line` the number of the first line that was not stored. A stream
    takes no Idempotency-Key, `front` or `delay`.

    Limits apply to new messages only. With `front=1` in the query string, any popped message can be put back: it can be
    empty, and message and body can have up to 512 MiB, the limit of Redis. Send a large one as
    `application/octet-stream`, because JSON makes it larger.

    A UTF-8 byte order mark is dropped at the start of a stream, a JSON body or a form. A single message as `text/plain`
    keeps it.
    """
    if kind := lines_kind(request):
        return push_stream(request, queue, kind, key=key, front=front, delay=delay, raw=raw)
    found = one_or_many(message, messages, "message", "bad_message")
    if delay and front:
        sentence = "Send either delay or front: a delayed message joins the back of the queue."
        raise ApiError("bad_parameter", sentence, parameter="front")
    if delay and isinstance(queue, AttachedQueue):
        raise ApiError("bad_parameter", "A list of another program takes no delay.", parameter="delay")
    if delay:
        pushed = queue.push_later(delay, found, key)
    else:
        pushed = queue.push_once(key, found, front=front) if key else Pushed(queue.push(*found, front=front))
    if messages is None:
        answer: Answer = {"success": True, "message": decode_message(found[0]), "count": pushed.count}
    else:
        answer = {"success": True, "pushed": len(found), "count": pushed.count}
    if delay:
        answer |= {"id": pushed.ids[0]} if messages is None else {"ids": pushed.ids}
    return Counted(answer) if pushed.is_repeated else answer


def push_stream(request: Request, queue: ReliableQueue, kind: str, key: str | None, **refused: float) -> Counted:
    """Push a stream of lines, counting its messages as they arrive."""
    for name, value in refused.items():
        if value:
            raise ApiError("bad_parameter", f"A stream of lines does not take {name}.", parameter=name)
    if key:
        raise ApiError("bad_idempotency_key", "A stream of lines does not take an Idempotency-Key.")
    record = partial(record_messages, request.services, "push", queue.name)
    blocks = iter_body(request, eager=True)
    pushed, count = push_lines(queue, blocks, kind, request.settings.max_message_bytes, record)
    return Counted({"success": True, "pushed": pushed, "count": count})


@operation(
    "POST",
    PUSH_AND_POP,
    WAIT,
    MAX,
    replace(BY, doc="Who waits, such as `host:pid`. `consumers` shows it."),
    several=True,
    idempotent=True,
    answers=(
        success("Popped", {"message": message()}, queue=TAKEN_FROM),
        success("PoppedMany", {"messages": list_of(message(), "The messages.")}, when="with `max`", queue=TAKEN_FROM),
        NOTHING,
    ),
    media=(TEXT, BYTES),
    errors=("empty", "paused", "limited", "conflict", *WAITING_ERRORS),
    example=Example({"success": True, "message": "hello"}, {"wait": 5}),
)
def pop(
    request: Request, queues: list[ReliableQueue], key: str | None, wait: float, max: int | None, by: str | None
) -> Result:
    """Remove and return the next message, or a batch.

    With `Accept: text/plain` and without `max` the body of the answer is the message itself; if there is none the
    status is 204. A client that disconnects while it waits takes no message with it.

    With an Idempotency-Key the messages are kept in Redis for 24 hours, so that a repeated request returns them again.
    An answer without messages is not kept.

    `POST /api/queue/urgent,normal,low/pop` pops from the first of these queues that has a message, as `reserve` does,
    and the answer names the `queue`; with `Accept: text/plain` the header `Queue` does. That form takes no
    Idempotency-Key.
    """
    give_back = None if key else lambda queue, messages: queue.requeue(*messages)
    batch = take(request, queues, wait, lambda queue: queue.pop_batch(max or 1, key), give_back, by)
    if max is None and prefers(request, TEXT):
        answer: Answer | Response = text_answer(batch.messages, request.taken_from)
    else:
        answer = batch_or_one(request, batch, lambda message: {"message": decode_message(message)}, max)
    return Counted(answer) if batch.is_repeated else answer


def text_answer(taken: list[bytes], queue: str) -> Response:
    """Return an answer whose body is the message itself, 204 if there is none; a header names its queue, if given."""
    if not taken:
        return Response(status=204)
    is_text = isinstance(decode_message(taken[0]), str)
    headers = {"Queue": queue} if queue else {}
    return Response(taken[0], headers=headers, content_type=f"{TEXT}; charset=utf-8" if is_text else BYTES)


@operation(
    "POST",
    PUSH_AND_POP,
    name="import",
    id="import_queue",
    idempotent=True,
    lines=FIELDS,
    answers=(
        success(
            "Imported",
            {"imported": whole("Number of messages stored."), "count": whole("Length of the queue after the import.")},
        ),
    ),
    errors=(*MESSAGE_ERRORS, "too_many_messages", "conflict", "redis_full"),
    example=Example({"success": True, "imported": 1, "count": 1}, {"message": "hello"}),
)
def import_queue(request: Request, queue: ReliableQueue, key: str | None) -> Answer:
    """Add messages from an `export`, each in the state in which it was.

    Messages that waited or were reserved join the back of the queue, in order. Delayed ones wait until their deadline,
    and dead letters join those of the queue. Importing the same lines twice doubles the messages.

    Lines are stored as they arrive, up to 1,000 at once. If the import fails midway, `imported` is the number of
    messages stored, and `line` the number of the first line that was not stored. With an `Idempotency-Key` there can be
    up to 1,000 lines, and either all of them are stored, or none.

    Deliveries and failures of a waiting message are kept for an hour, as for any message that came back, unless more
    than 100 messages that never came back wait in front of it. A dead letter that was moved back before the export can
    be delivered `MAX_DELIVERIES` times again.
    """
    settings, checkpoint = request.settings, request.services.scheduler.checkpoint
    if key is None:
        blocks = iter_body(request, eager=True)
        imported, count = import_lines(queue, blocks, settings.max_message_bytes, checkpoint)
    else:
        messages = list[Exported]()
        for number, line in enumerate(read_body(request, settings.max_body_bytes).splitlines(), 1):
            if line and len(messages) == MAX_BATCH:
                raise ApiError("too_many_messages", limit=MAX_BATCH)
            try:
                messages += [read_exported(line, settings.max_message_bytes, checkpoint)] if line else []
            except ApiError as error:
                raise error.with_details(imported=0, line=number) from None
        imported, count = len(messages), queue.import_messages(messages, key).count
    return {"success": True, "imported": imported, "count": count}

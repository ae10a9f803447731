"""remove, clear, restore, move, pause, resume and settings: what an operator does to a queue."""

from collections.abc import Iterator
from dataclasses import replace

import redis

from broker.attached.queue import AttachedQueue
from broker.queue import ReliableQueue
from web.answers import in_turns
from web.errors import ApiError, from_redis
from web.input.codec import decode_message
from web.input.parameters import Flag, Integer, Message, Number, PlacedMessageList, QueueName, Text
from web.operations.operation import Answer, Example, operation
from web.operations.schemas import flag, message, success, text, whole
from web.operations.shared import CONTAINS, MAX_BATCH, MESSAGE_ERRORS, RAW, REASON, TIDYING
from web.request import Request

UNDO = "bc5d3c2e8a97e73a"
PAUSED = success("Paused", {"paused": flag("Whether the queue is paused now.")})
MIDWAY = "if the request fails midway, the error has this number too"
UNDO_FIELD = {"type": ["string", "null"], "description": "The token for `restore`; null if there was no message."}


@operation(
    "POST",
    TIDYING,
    Integer("position", "Position of the message; 0 is popped next."),
    Message("message", "With `position`: the message that should be there."),
    replace(CONTAINS, doc="Remove all messages that contain this text. ASCII letters match in either case."),
    replace(REASON, doc="Remove all messages that failed for this reason, as `reasons` returns it."),
    PlacedMessageList("messages", "Remove these messages, each if it is still at its position.", maximum=MAX_BATCH),
    Flag("undo", "With `position`: keep the message for one hour, so that `restore` can put it back."),
    RAW,
    raw_body=True,
    is_new=lambda _: False,
    answers=(
        success(
            "Removed",
            {"message": message("The message that was removed.")},
            undo=text("With `undo`: the token for `restore`."),
        ),
        success(
            "RemovedMany",
            {"removed": whole(f"Number of messages removed; {MIDWAY}."), "undo": UNDO_FIELD},
            when="with `contains`, `reason` or `messages`",
        ),
    ),
    errors=("stale", "too_many_values", *MESSAGE_ERRORS),
    example=Example({"success": True, "message": "hello"}, {"position": 0, "message": "hello"}),
)
def remove(
    request: Request,
    queue: ReliableQueue,
    position: int | None,
    message: bytes | None,
    contains: str | None,
    reason: str | None,
    messages: list[tuple[int, bytes]] | None,
    undo: bool,
    raw: bool,
) -> Answer:
    """Remove one waiting message, if it is still at that position; or many.

    The message can be empty, or larger than `MAX_MESSAGE_BYTES`, since limits apply to new messages only.

    With `contains` or `reason`, the whole queue is searched. `messages` has up to 1,000 objects such as `{"position":
    0, "message": "hello"}`, and those that have moved stay. Many are removed in batches, between which other clients
    are served. They are always kept for one hour; `restore` puts them to the front.
    """
    is_search = contains is not None or reason is not None
    ways = {"contains": contains, "reason": reason, "messages": messages}
    chosen = [name for name, value in ways.items() if value is not None]
    if chosen and ((is_search and messages is not None) or position is not None or message is not None):
        sentence = "Send either position and message, or contains or reason, or messages."
        raise ApiError("bad_parameter", sentence, parameter=chosen[-1])
    if is_search:  # at most as many as wait now, or new pushes could keep it running
        token, steps = queue.find_and_remove(contains or "", queue.count(), reason)
        return removed_many(token, in_turns(steps))
    if messages is not None:
        return removed_many(*queue.remove_many(messages))
    place = at(position, message)
    kept = queue.remove(*place, undo=undo)
    return {"success": True, "message": decode_message(place[1]), **({"undo": kept} if undo else {})}


def at(position: int | None, message: bytes | None) -> tuple[int, bytes]:
    """Return the position and the message that should be there; refuse one without the other (400)."""
    if position is None or message is None:
        name = "position" if position is None else "message"
        raise ApiError("bad_parameter", f"Missing parameter: {name}.", parameter=name)
    return position, message


def removed_many(undo: str, steps: Iterator[int]) -> Answer:
    """Return the answer for messages that are removed in steps."""
    removed = add_up(steps, "removed", undo=undo)
    return {"success": True, "removed": removed, "undo": undo if removed else None}


@operation(
    "POST",
    TIDYING,
    answers=(success("Cleared", {"cleared": whole("Number of messages removed."), "undo": UNDO_FIELD}),),
    example=Example({"success": True, "cleared": 1, "undo": UNDO}),
)
def clear(request: Request, queue: ReliableQueue) -> Answer:
    """Remove every waiting message at once.

    They can be restored for one hour, and use memory until then.
    """
    cleared, undo = queue.clear()
    return {"success": True, "cleared": cleared, "undo": undo}


@operation(
    "POST",
    TIDYING,
    Text("undo", "The `undo` that `clear`, `remove` or `move` returned.", required=True),
    answers=(success("Restored", {"restored": whole(f"Number of messages put back; {MIDWAY}.")}),),
    errors=("stale", "redis_full"),
    example=Example({"success": True, "restored": 1}, {"undo": UNDO}),
)
def restore(request: Request, queue: ReliableQueue, undo: str) -> Answer:
    """Undo a `clear`, a `remove` or a `move`.

    Cleared messages, and those removed with many, return ahead of everything pushed since. A single removed message
    returns to its place behind the message that was ahead of it, or to the front if that one has left the queue.

    Moved messages that still wait in the other queue return to the front, in their order; one that was moved from a
    `position` returns to its place as a removed one does. The others stay where they are. Messages have no identity
    but their bytes, so an equal message that was pushed there since can return instead.
    """
    return {"success": True, "restored": add_up(queue.restore_in_batches(undo), "restored")}


@operation(
    "POST",
    TIDYING,
    QueueName("to", "The queue to move the messages to.", required=True),
    Integer("max", "Maximum number of messages to move. By default, all that wait now.", minimum=1),
    replace(CONTAINS, doc="Move only messages that contain this text. ASCII letters match in either case."),
    replace(REASON, doc="Move only messages that failed for this reason, as `reasons` returns it."),
    Integer(
        "position", "Move only the message at this position; 0 is popped next. Not with `max`, `contains` or `reason`."
    ),
    Message("message", "With `position`: the message that should be there."),
    is_new=lambda _: False,
    answers=(
        success(
            "Moved",
            {
                "moved": whole(f"Number of messages moved; {MIDWAY}."),
                "undo": UNDO_FIELD
                | {"description": "The token for `restore` of this queue; null if no message was moved."},
            },
        ),
    ),
    errors=("same_queue", "stale", "cross_slot", "redis_full", *MESSAGE_ERRORS),
    example=Example({"success": True, "moved": 1, "undo": f"{UNDO}:jobs"}, {"to": "jobs"}),
)
def move(
    request: Request,
    queue: ReliableQueue,
    to: str,
    max: int | None,
    contains: str | None,
    reason: str | None,
    position: int | None,
    message: bytes | None,
) -> Answer:
    """Move messages to another queue, the oldest first, in order.

    No message is lost or duplicated. To return the dead letters of `jobs`, move from `jobs.dead` to `jobs`: they can
    be delivered `MAX_DELIVERIES` times again, and `all` shows their earlier deliveries and reason until they succeed.
    With `position` and `message`, one message is moved, if it is still at that position.

    For an hour, `restore` of this queue moves back those that still wait in the other queue, up to 100,000.
    """
    target = request.services.queue(to)
    if target.key == queue.key:
        raise ApiError("same_queue", parameter="to")
    if isinstance(target, AttachedQueue) and "push" not in target.may:
        raise ApiError("attached_list", parameter="to")
    undo = queue.new_undo(to)
    if position is not None or message is not None:
        for name, value in (("max", max), ("contains", contains), ("reason", reason)):
            if value is not None:
                raise ApiError("bad_parameter", f"A move of one message does not take {name}.", parameter=name)
        queue.move_one(to, *at(position, message), undo)
        return {"success": True, "moved": 1, "undo": undo}
    left = queue.state().counts.count if max is None else max
    moved = add_up(batches(queue, to, left, contains, reason, undo), "moved", undo=undo)
    return {"success": True, "moved": moved, "undo": undo if moved else None}


def add_up(sizes: Iterator[int], field: str, **details: str) -> int:
    """Return the sum of the sizes of batches. An error midway has the sum so far in `field`, and the details."""
    done = 0
    try:
        for size in sizes:
            done += size
    except redis.RedisError as error:
        raise from_redis(error).with_details(**{field: done}, **details) from error
    return done


def batches(
    queue: ReliableQueue, to: str, left: int, contains: str | None, reason: str | None, undo: str
) -> Iterator[int]:
    """Move up to `left` messages in batches, those that are found if a text or a reason is given; yield their sizes."""
    if contains is None and reason is None:
        while left > 0 and (batch := queue.move(to, left, undo)):
            left -= batch
            yield batch
        return
    yield from in_turns(queue.find_and_move(to, contains or "", left, reason, undo))


@operation("POST", TIDYING, answers=(PAUSED,), example=Example({"success": True, "paused": True}))
def pause(request: Request, queue: ReliableQueue) -> Answer:
    """Pause delivery: `pop` and `reserve` answer `paused`, and waiting clients keep waiting.

    All other operations work. Clients that use the Redis list directly are not affected.
    """
    queue.pause()
    return {"success": True, "paused": True}


@operation("POST", TIDYING, answers=(PAUSED,), example=Example({"success": True, "paused": False}))
def resume(request: Request, queue: ReliableQueue) -> Answer:
    """Resume delivery.

    Waiting clients get messages at once.
    """
    queue.resume()
    return {"success": True, "paused": False}


SETTINGS = (
    Integer("at_once", "Maximum number of messages reserved at a time.", maximum=100_000, empty="0"),
    Number(
        "per_second",
        "Maximum number of messages popped or reserved per second, such as 0.5.",
        maximum=100_000,
        empty="0",
    ),
    Integer(
        "max_deliveries",
        "Deliveries after which a message becomes a dead letter, instead of `MAX_DELIVERIES`.",
        maximum=1000,
        empty="0",
    ),
)
ALL_SETTINGS = success("Settings", {one.name: one.schema() | {"description": one.doc} for one in SETTINGS})


@operation(
    "GET",
    TIDYING,
    name="settings",
    id="get_settings",
    answers=(ALL_SETTINGS,),
    example=Example({"success": True, "at_once": 3, "per_second": 0.5, "max_deliveries": 0}),
)
def get_settings(request: Request, queue: ReliableQueue) -> Answer:
    """Return the limits of a queue; 0 stands for none."""
    return {"success": True, **queue.settings().as_dict()}


@operation(
    "POST",
    TIDYING,
    *SETTINGS,
    name="settings",
    id="set_settings",
    answers=(ALL_SETTINGS,),
    example=Example(
        {"success": True, "at_once": 3, "per_second": 0.5, "max_deliveries": 0}, {"at_once": 3, "per_second": 0.5}
    ),
)
def set_settings(
    request: Request, queue: ReliableQueue, at_once: int | None, per_second: float | None, max_deliveries: int | None
) -> Answer:
    """Limit how fast a queue is consumed.

    Settings that are not sent stay as they are; 0, or an empty text, removes one. A queue keeps its settings when it is
    empty. Its dead letters, `<name>.dead`, have settings of their own.

    While `at_once` messages are reserved, or while messages are taken faster than `per_second`, `pop` and `reserve`
    answer `limited` with `retry_after`, and waiting clients keep waiting. A batch holds what the limits allow. The ack,
    release or expiry of a reservation makes room for another. Clients that use the Redis list directly are not limited.

    The rate is a token bucket that holds the messages of a tenth of a second, at least one. So in any second, at most
    `per_second` and that many are delivered.
    """
    sent: dict[str, float | None] = {"at_once": at_once, "per_second": per_second, "max_deliveries": max_deliveries}
    changed = {name: value for name, value in sent.items() if value is not None}
    return {"success": True, **queue.set_settings(**changed).as_dict()}

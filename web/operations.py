"""The JSON API: one short view a verb, and at the end the table of verbs with what each takes.

docs/api.md is the reference; a test holds it to this table.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Any

import redis
from flask import Blueprint, Response

from broker.connections.health import check_server, find_warning
from broker.queue import RESULT_SECONDS, Batch, Delivery, Paused, ReliableQueue, Search
from web import __version__, metrics, streams
from web.auth import session_watch
from web.errors import ApiError, bad_request, from_redis
from web.input.body import JSON, iter_body, lines_kind, read_fields, refuse_body, release_memory
from web.input.codec import BY_REDIS, Limits, decode_message
from web.input.parameters import (
    VISIBLE_ASCII,
    Choice,
    Flag,
    Integer,
    JobName,
    Message,
    MessageList,
    MessageParameter,
    Number,
    Parameter,
    QueueName,
    Text,
    TextList,
    one_or_many,
    parse,
    validate_name,
)
from web.input.raw_json import NDJSON
from web.instrumentation import record_messages
from web.live.disconnects import Peer
from web.live.long_poll import MAX_WAIT, M
from web.live.queue_feed import MAX_NEXT
from web.live.results import wait_for_result
from web.request import Request, current_request

Answer = dict[str, object]
View = Callable[..., Answer | Response]

MAX_BATCH = 1000  # messages, or ids, in one request
MAX_LEASE = 43200  # seconds
MAX_DELAY = 2_592_000  # seconds, 30 days; a result is kept as long at most
MAX_REASON = 1000  # characters
MAX_TEXT = 1000  # characters to look for
MAX_FIELDS_BYTES = 1 << 18  # of a body without messages: a list of MAX_BATCH ids has 50 kB

api = Blueprint("api", __name__)


# --- push and pop


def push(
    request: Request,
    queue: ReliableQueue,
    key: str | None,
    message: bytes | None,
    messages: list[bytes] | None,
    front: bool,
    delay: float,
    each: str | None,
) -> Answer:
    """Add one message, or many: all of them or none. A stream of lines is stored as it comes."""
    lines = lines_kind(request)
    if lines:
        for name, value in (("front", front), ("delay", delay)):
            if value:
                raise bad_request(f"A stream of lines cannot have {name}.", "bad_parameter", parameter=name)
        if key:
            raise bad_request("A stream of lines does not keep an Idempotency-Key.", "bad_idempotency_key")
        request.is_counted = True
        record = partial(record_messages, request.services, "push", queue.name)
        blocks = iter_body(request, eager=True)
        pushed, count = streams.push_lines(queue, blocks, lines, request.settings.max_message_bytes, record)
        return {"success": True, "pushed": pushed, "count": count}
    found = one_or_many(message, messages, "message", "bad_message")
    if delay:
        return push_later(queue, key, found, messages is not None, front, delay)
    count = queue.push_once(key, found, front=front) if key else queue.push(*found, front=front)
    return push_answer(found, messages is not None, count)


def push_later(
    queue: ReliableQueue, key: str | None, found: list[bytes], many: bool, front: bool, delay: float
) -> Answer:
    """Add messages that join the back of the queue later."""
    if front:
        raise bad_request(
            "Send either delay or front: a delayed message joins the back.", "bad_parameter", parameter="front"
        )
    ids, count = queue.push_later(delay, found, key)
    return push_answer(found, many, count) | ({"ids": ids} if many else {"id": ids[0]})


def push_answer(found: list[bytes], many: bool, count: int) -> Answer:
    """Answer what was pushed, and the queue's length after that."""
    if many:
        return {"success": True, "pushed": len(found), "count": count}
    return {"success": True, "message": decode_message(found[0]), "count": count}


def pop(request: Request, queue: ReliableQueue, key: str | None, wait: float, max: int | None) -> Answer | Response:
    """Take the next message, or up to `max`, waiting for one up to `wait` seconds."""
    give_back = None if key else lambda messages: queue.requeue(*messages)
    as_text = max is None and prefers(request, "text/plain")
    try:
        taken = take(request, queue, wait, lambda: queue.pop_batch(max or 1, key), give_back)
    except Paused:
        return text_answer([]) if as_text else nothing(PAUSED, max)
    if as_text:
        return text_answer(taken)
    return batch_or_one([{"message": decode_message(message)} for message in taken], max)


def take(
    request: Request,
    queue: ReliableQueue,
    wait: float,
    attempt: Callable[[], Batch[M]],
    give_back: Callable[[list[M]], object] | None,
) -> list[M]:
    """Return what `attempt` takes, waiting up to `wait` seconds for it; a client that has left takes nothing."""
    peer = Peer(request.environ)
    leaving = (peer.is_gone, peer.confirm_gone, peer.watch)
    return request.services.waiting.take(queue, wait, attempt, give_back, *leaving)


def text_answer(taken: list[bytes]) -> Response:
    """Answer a message as the body itself, 204 for none."""
    if not taken:
        return Response(status=204)
    is_text = isinstance(decode_message(taken[0]), str)
    return Response(taken[0], content_type="text/plain; charset=utf-8" if is_text else "application/octet-stream")


def batch_or_one(found: list[dict[str, Any]], max: int | None) -> Answer:
    """Answer what was taken: with `max` as a list."""
    if not found:
        return nothing(EMPTY, max)
    if max is None:
        return {"success": True, **found[0]}
    return {"success": True, "messages": [one["message"] if len(one) == 1 else one for one in found]}


EMPTY = ("empty", "The queue is empty.")
PAUSED = ("paused", "The queue is paused; nothing is given out until it is resumed.")


def nothing(why: tuple[str, str], max: int | None) -> Answer:
    """Answer that nothing was taken, which is not an error of status, but no success."""
    error, message = why
    answer: Answer = {"success": False, "error": error, "message": message}
    return answer if max is None else {**answer, "messages": []}


# --- looking


def count(request: Request, queue: ReliableQueue) -> Answer:
    """How many messages wait, are reserved, delayed and dead, how many clients wait, and whether it is paused."""
    state = queue.state()
    return {"success": True, "message": str(state.count), **state.counts()}


def all_messages(
    request: Request,
    queue: ReliableQueue,
    offset: int,
    limit: int | None,
    preview: int | None,
    contains: str | None,
    details: bool,
) -> Answer | Response:
    """The waiting messages, next to be popped first, or those that hold a text; none is taken."""
    count = queue.count()
    size = min(max(0, count - offset), count if limit is None else limit)
    if contains is not None:
        chunks: Iterator[list[Any]] = streams.iter_found(queue, contains, offset, limit, preview, details)
        if preview is None and not details and prefers(request, NDJSON):  # as without `contains`: what push takes
            chunks = ([one["message"] for one in chunk] for chunk in chunks)
    elif details:
        chunks = streams.iter_details(queue, offset, size, preview)
    elif preview is None:
        chunks = streams.iter_waiting(queue, offset, limit)
    else:
        chunks = streams.iter_previews(queue, offset, size, preview)
    return list_answer(request, chunks, count, size)


def list_answer(
    request: Request, chunks: Iterator[list[Any]], count: int, size: int | None = None
) -> Response | Answer:
    """Answer a list of `size` messages (None: it is not known) as it is read, as JSON or a line each."""
    if prefers(request, NDJSON):
        return Response(streams.as_ndjson(streams.prefetch(chunks)), content_type=NDJSON)
    first = next(chunks, [])
    if len(first) == size:
        return {"success": True, "messages": streams.decode_all(first), "count": count}
    return Response(streams.as_json(chain([first], chunks), {"count": count}), content_type=JSON)


def held(
    kind: str, request: Request, queue: ReliableQueue, offset: int, limit: int | None, preview: int | None
) -> Answer | Response:
    """The messages that are "reserved" or "delayed", the soonest to come back first."""
    count = queue.state().counts()[kind]
    return list_answer(request, streams.iter_held(queue, kind, offset, limit, preview), count)


def events(request: Request, queue: ReliableQueue, next: int, history: bool) -> Response:
    """The queue's state as server-sent events: at once, and after every change."""
    open_stream = partial(request.services.events.stream, queue, max_next=next, with_history=history)
    return stream_answer(request, open_stream)


def stream_answer(request: Request, open_stream: Callable[..., Iterator[str]]) -> Response:
    """Answer a stream of events, which is told whether and when to ask if its client is gone."""
    waiting, peer = request.services.waiting, Peer(request.environ)
    waiting.acquire()
    peer.shrink_buffer()
    is_signed_out = session_watch(request)
    stream = open_stream(lambda: peer.is_gone() or is_signed_out(), peer.watch)
    response = Response(stream, content_type="text/event-stream; charset=utf-8")
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(waiting.release)
    return response


# --- reservations


def reserve(request: Request, queue: ReliableQueue, lease: float, wait: float, max: int | None) -> Answer:
    """Take the next message, or up to `max`, for a lease; without an ack it comes back."""

    def give_back(deliveries: list[Delivery]) -> None:
        queue.release(*(delivery.id for delivery in deliveries))

    try:
        taken = take(request, queue, wait, lambda: queue.reserve(lease, max or 1), give_back)
    except Paused:
        return nothing(PAUSED, max)
    return batch_or_one(
        [
            {"id": one.id, "message": decode_message(one), "deliveries": one.deliveries, "deadline": one.deadline}
            for one in taken
        ],
        max,
    )


def ack(
    request: Request, queue: ReliableQueue, id: str | None, ids: list[str] | None, job: str | None, result: bytes | None
) -> Answer:
    """End reservations for good: all that are named, or none. With one the result of its job can be kept."""
    found = one_or_many(id, ids, "id")
    if job is None and result is None:
        return {"success": True, "acked": queue.ack(*found)}
    if job is None or result is None or id is None:
        raise bad_request("A result needs job, result and one id.", "bad_parameter", parameter="job")
    queue.ack_with(id, job, result)
    return {"success": True, "acked": 1}


def release(
    request: Request,
    queue: ReliableQueue,
    id: str | None,
    ids: list[str] | None,
    delay: float,
    dead: bool,
    reason: str,
) -> Answer:
    """Return reserved messages, to be popped next, now or later, or bury them.

    `dead` of them were buried: those that were delivered often enough are, in any case.
    """
    found = one_or_many(id, ids, "id")
    if dead and delay:
        raise bad_request("Send either delay or dead.", "bad_parameter", parameter="delay")
    buried = queue.release(*found, delay=delay, dead=dead, reason=reason)
    return {"success": True, "released": len(found), "dead": buried}


def extend(request: Request, queue: ReliableQueue, id: str, lease: float) -> Answer:
    """Let a lease end `lease` seconds from now."""
    return {"success": True, "deadline": queue.extend(id, lease)}


# --- tidying up


def remove(request: Request, queue: ReliableQueue, position: int, message: bytes, undo: bool) -> Answer:
    """Remove the message at a position, if it is this very message."""
    token = queue.remove(position, message, undo=undo)
    return {"success": True, "message": decode_message(message), **({"undo": token} if undo else {})}


def clear(request: Request, queue: ReliableQueue) -> Answer:
    """Remove every waiting message; `undo` restores them within an hour."""
    cleared, undo = queue.clear()
    return {"success": True, "cleared": cleared, "undo": undo}


def restore(request: Request, queue: ReliableQueue, undo: str) -> Answer:
    """Put back what a clear or a removal removed."""
    return {"success": True, "restored": queue.restore(undo)}


def move(
    request: Request,
    queue: ReliableQueue,
    to: str,
    max: int | None,
    contains: str | None,
    position: int | None,
    message: bytes | None,
) -> Answer:
    """Move messages, oldest first: those that wait now, or up to `max`; with `contains` those that hold a text.

    With `position` and `message`, move this one alone.
    """
    if request.services.queue(to).key == queue.key:
        raise bad_request("A queue cannot be moved to itself.", "same_queue", parameter="to")
    if position is not None or message is not None:
        for name, value in (("max", max), ("contains", contains)):
            if value is not None:
                raise bad_request(f"A move of one message cannot have {name}.", "bad_parameter", parameter=name)
        return move_one(queue, to, position, message)
    left, moved = queue.count() if max is None else max, 0
    try:
        for number in batches(queue, to, left, contains):
            moved += number
    except redis.RedisError as error:
        raise from_redis(error).with_details(moved=moved) from error
    return {"success": True, "moved": moved}


def move_one(queue: ReliableQueue, to: str, position: int | None, message: bytes | None) -> Answer:
    """Move the message at a position, if it is this very message."""
    if position is None or message is None:
        name = "position" if position is None else "message"
        raise bad_request("To move one message send its position and the message.", "bad_parameter", parameter=name)
    queue.move_one(to, position, message)
    return {"success": True, "moved": 1}


def batches(queue: ReliableQueue, to: str, left: int, contains: str | None) -> Iterator[int]:
    """Move up to `left` messages, some at a time, and yield how many each time."""
    if contains is None:
        while left > 0 and (batch := queue.move(to, left)):
            left -= batch
            yield batch
        return
    search = Search()
    while left > 0 and not search.is_over:
        batch, search = queue.find_and_move(to, contains, min(left, MAX_BATCH), search)
        left -= batch
        yield batch


def pause(request: Request, queue: ReliableQueue) -> Answer:
    """Let pop and reserve give nothing out."""
    queue.pause()
    return {"success": True, "paused": True}


def resume(request: Request, queue: ReliableQueue) -> Answer:
    """Let pop and reserve give messages out again; those that wait get them at once."""
    queue.resume()
    return {"success": True, "paused": False}


# --- results


def store_result(request: Request, queue: ReliableQueue, job: str, result: bytes, keep: int) -> Answer:
    """Keep the result of a job, which its producer asks for."""
    queue.store_result(job, result, keep)
    return {"success": True, "job": job}


def get_result(request: Request, queue: ReliableQueue, job: str, wait: float) -> Answer:
    """The result of a job, waiting for it up to `wait` seconds; it stays."""
    found = wait_for_result(request, queue, job, wait)
    if found is None:
        return nothing(("no_result", "There is no result of this job yet, or no more."), None)
    return {"success": True, "job": job, "result": decode_message(found.result), "at": found.at}


# --- the table of verbs


@dataclass(frozen=True)
class Verb:
    """What a verb takes, and the view that does it."""

    name: str
    method: str
    view: View
    parameters: tuple[Parameter, ...] = ()
    idempotent: bool = False  # whether it takes an Idempotency-Key
    raw_body: bool = False  # whether the body may be the message itself
    streams: bool = False  # whether the body may be a stream of messages
    is_new: Callable[[Request], bool] = lambda _: True  # whether the message is new, so that the settings limit it

    @cached_property
    def takes_messages(self) -> bool:
        """Whether a message may be in the body, so that it may be large."""
        return any(isinstance(parameter, MessageParameter) for parameter in self.parameters)


MAX = Integer("max", minimum=1, maximum=MAX_BATCH)
WAIT = Number("wait", default=0, minimum=0, maximum=MAX_WAIT, unit="seconds")
LEASE = Number("lease", default=30, minimum=1, maximum=MAX_LEASE, unit="seconds")
PREVIEW = Integer("preview", minimum=1, maximum=10_000, unit="characters")
IDS = (Text("id"), TextList("ids", maximum=MAX_BATCH))
DELAY = Number("delay", default=0, minimum=0, maximum=MAX_DELAY, unit="seconds")
CONTAINS = Text("contains", minimum=1, maximum=MAX_TEXT)
WINDOW = (Integer("offset", default=0), Integer("limit"), PREVIEW)
JOB = JobName("job", required=True)
KEEP = Integer("keep", default=RESULT_SECONDS, minimum=1, maximum=MAX_DELAY, unit="seconds")


def is_put_back(request: Request) -> bool:
    """Return whether the query has front=1, so that what is pushed may have been popped before."""
    return request.args.getlist("front") in (["1"], ["true"])


VERBS = (
    Verb(
        "push",
        "POST",
        push,
        (
            *(Message("message"), MessageList("messages"), Flag("front"), DELAY),
            Choice("each", words=("line",), in_body=False),
        ),
        idempotent=True,
        raw_body=True,
        streams=True,
        is_new=lambda request: not is_put_back(request),
    ),
    Verb("pop", "POST", pop, (WAIT, MAX), idempotent=True),
    Verb("count", "GET", count),
    Verb("all", "GET", all_messages, (*WINDOW, CONTAINS, Flag("details"))),
    Verb("events", "GET", events, (Integer("next", default=MAX_NEXT, maximum=MAX_NEXT), Flag("history"))),
    Verb("reserve", "POST", reserve, (LEASE, WAIT, MAX)),
    Verb("ack", "POST", ack, (*IDS, JobName("job"), Message("result"))),
    Verb("release", "POST", release, (*IDS, DELAY, Flag("dead"), Text("reason", default="", maximum=MAX_REASON))),
    Verb("extend", "POST", extend, (Text("id", required=True), LEASE)),
    Verb("reserved", "GET", partial(held, "reserved"), WINDOW),
    Verb("delayed", "GET", partial(held, "delayed"), WINDOW),
    Verb(
        "remove",
        "POST",
        remove,
        (Integer("position", required=True), Message("message", required=True), Flag("undo")),
        raw_body=True,
        is_new=lambda _: False,
    ),
    Verb("clear", "POST", clear),
    Verb("restore", "POST", restore, (Text("undo", required=True),)),
    Verb(
        "move",
        "POST",
        move,
        (
            *(QueueName("to", required=True), Integer("max", minimum=1), CONTAINS),
            *(Integer("position"), Message("message")),
        ),
        is_new=lambda _: False,
    ),
    Verb("pause", "POST", pause),
    Verb("resume", "POST", resume),
    Verb("result", "POST", store_result, (JOB, Message("result", required=True), KEEP)),
    Verb("result", "GET", get_result, (JOB, WAIT)),
)

LIST_PARAMETERS = (Text("match", default="*", maximum=133),)  # of GET /api/queues: a name with `.dead` has up to 133
ALL_EVENTS_PARAMETERS = (*LIST_PARAMETERS, Flag("history"))  # of GET /api/events


def call(request: Request, verb: Verb, name: str | None) -> Answer | Response:
    """Check what the request holds for a verb, and run its view on the queue `name` (None: the default queue)."""
    queue = request.services.queue(validate_name(request.settings.queue_name if name is None else name))
    answer: Answer | Response = {}
    try:
        if verb.idempotent:
            answer = verb.view(request, queue, key=idempotency_key(request), **arguments(request, verb))
        else:
            refuse_idempotency_key(request)
            answer = verb.view(request, queue, **arguments(request, verb))
        return answer
    except ApiError as error:
        answer = error.details  # a stream that failed half way says how many messages it has pushed
        raise
    finally:
        if not queue.is_repeated and not request.is_counted:
            record_messages(request.services, verb.name, queue.name, answer)
        release_memory(request)


def arguments(request: Request, verb: Verb) -> dict[str, Any]:
    """Return the value of each parameter of a verb."""
    if verb.method == "GET":
        return query_arguments(request, verb.parameters)
    if verb.streams and lines_kind(request):
        return parse(request, verb.parameters, {})
    limits = Limits(request.settings.max_message_bytes) if verb.is_new(request) else BY_REDIS
    max_bytes = max_body_bytes(verb, limits, request.settings.max_body_bytes)
    return parse(request, verb.parameters, read_fields(request, max_bytes, verb.raw_body), limits)


def max_body_bytes(verb: Verb, limits: Limits, setting: int) -> int:
    """Return how large a body can be that a verb needs: as the setting says, or smaller, or as large as a message."""
    if not verb.takes_messages:
        return min(setting, MAX_FIELDS_BYTES)
    return setting if limits.is_new else max(setting, limits.max_bytes)


def query_arguments(request: Request, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """Return the value of each parameter of a GET; fields in a body are refused (400), for they would be ignored."""
    refuse_body(request)
    return parse(request, parameters, {})


def refuse_idempotency_key(request: Request) -> None:
    """Refuse an Idempotency-Key (400) where none is kept: repeating the request would do the work again."""
    if request.headers.get("Idempotency-Key") is not None:
        verbs = " and ".join(verb.name for verb in VERBS if verb.idempotent)
        raise bad_request(f"An Idempotency-Key is kept by {verbs} alone.", "bad_idempotency_key")


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key header; one that is not 1 to 255 visible ASCII characters is refused (400)."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not VISIBLE_ASCII.fullmatch(key):
        raise bad_request("An Idempotency-Key has 1 to 255 visible ASCII characters.", "bad_idempotency_key")
    return key


def prefers(request: Request, kind: str) -> bool:
    """Return whether the client prefers `kind` to JSON."""
    if kind.partition("/")[0] not in request.headers.get("Accept", "").lower():
        return False  # at once: few clients ask
    return request.accept_mimetypes.best_match([JSON, kind]) == kind


# --- routes

QUEUE_PATH = "/api/queue/"  # + <verb> for the default queue, + <name>/<verb> for any
_VERBS = {(verb.method, verb.name): verb for verb in VERBS}


def find_verb(method: str, path: str) -> tuple[Verb | None, str | None]:
    """Return the verb at an address, and the name of the queue (None: the default queue)."""
    if not path.startswith(QUEUE_PATH):
        return None, None
    name, slash, word = path[len(QUEUE_PATH) :].rpartition("/")
    return _VERBS.get((method, word)), name if slash else None


def _add_routes(verb: Verb) -> None:
    def handle(name: str | None) -> Answer | Response:
        return call(current_request(), verb, name)

    methods, endpoint = [verb.method], f"{verb.method.lower()}_{verb.name}"
    api.add_url_rule(QUEUE_PATH + verb.name, endpoint, handle, methods=methods, defaults={"name": None})
    api.add_url_rule(f"{QUEUE_PATH}<any:name>/{verb.name}", endpoint, handle, methods=methods)


for _verb in VERBS:
    _add_routes(_verb)


# --- beside the queues


@api.get("/api/queues")
def queues() -> Answer:
    """The queues that hold something, by name."""
    request = current_request()
    refuse_idempotency_key(request)
    match = query_arguments(request, LIST_PARAMETERS)["match"]
    return {"success": True, **request.services.lister.list_queues(match or "*").as_dict()}


@api.get("/api/events")
def all_events() -> Response:
    """The queues that hold something as server-sent events: all at once, and after every change what is new."""
    request = current_request()
    refuse_idempotency_key(request)
    wanted = query_arguments(request, ALL_EVENTS_PARAMETERS)
    open_stream = partial(
        request.services.queue_list_feed.stream, wanted["match"] or "*", with_history=wanted["history"]
    )
    return stream_answer(request, open_stream)


@api.get("/healthz")
def healthz() -> Answer:
    """Whether Redis would run the queue's scripts (else 503). A `warning` says what may lose messages."""
    request = current_request()
    refuse_idempotency_key(request)
    query_arguments(request, ())
    services = request.services
    queue = (services.client, services.settings.queue_name, services.settings.queue_prefix)
    check_server(*queue)
    warning = find_warning(*queue)
    return {"success": True, "version": __version__} | ({"warning": warning} if warning else {})


@api.get("/metrics")
def prometheus() -> Response:
    """What the queues hold and what this instance has done, for Prometheus."""
    request = current_request()
    refuse_idempotency_key(request)
    query_arguments(request, ())
    text, content_type = metrics.render(request.services, request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)

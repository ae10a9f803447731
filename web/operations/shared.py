"""What several operations share: their parameters, and how they take messages and answer."""

from collections.abc import Callable, Sequence
from typing import Any

from flask import Response

from broker.models import Batch
from broker.queue import ReliableQueue
from web.access.auth import session_watch
from web.errors import ERRORS, ApiError
from web.input.body import JSON
from web.input.parameters import AsciiName, Flag, Integer, Message, Number, Text, TextList
from web.live.disconnects import ClientConnection
from web.live.feed import F, Reader
from web.live.long_poll import ANSWER_TIMEOUT, MAX_WAIT, Attempt, M
from web.operations.operation import Answer
from web.request import Request

PUSH_AND_POP, READING, RESERVATIONS = "Push and pop", "Reading a queue", "Reservations"
RESULTS, TIDYING, SERVICE = "Results", "Tidying up", "All queues, health and metrics"
GROUPS = {  # of operations, in the order of the reference -> what they are for
    PUSH_AND_POP: "Add messages to a queue, and take them out.",
    READING: "Look into a queue without taking anything.",
    RESERVATIONS: "Take messages for a limited time: at-least-once delivery, retries and dead letters.",
    RESULTS: "Hand the result of a job back to its producer.",
    TIDYING: "Remove, clear, restore and move messages; pause, resume and limit delivery.",
    SERVICE: "Everything that is not about one queue.",
}

MAX_BATCH = 1000  # messages, or ids, in one request
MAX_LEASE = 43_200  # seconds
MAX_DELAY = 2_592_000  # seconds, 30 days; also the longest time to keep a result
MAX_TEXT = 1000  # characters to search for, or of a reason

MAX = Integer(
    "max",
    "Maximum number of messages to return, as a list. A batch also ends once it reaches 16 MiB.",
    minimum=1,
    maximum=MAX_BATCH,
)
WAIT = Number(
    "wait",
    f"How long to wait if there is nothing yet. Capped at {ANSWER_TIMEOUT:.0f}, because proxies time out after 60.",
    default=0,
    maximum=MAX_WAIT,
    unit="seconds",
)
LEASE = Number("lease", "Lease duration, from now.", default=30, minimum=1, maximum=MAX_LEASE, unit="seconds")
BY = AsciiName("by", "Who takes the message, such as `host:pid`. `reserved` and `consumers` show it.", maximum=64)
PREVIEW = Integer(
    "preview",
    "Return the first characters and the size of each message instead of the message.",
    minimum=1,
    maximum=10_000,
    unit="characters",
)
WINDOW = (Integer("offset", "Number to skip.", default=0), Integer("limit", "Maximum number to return."), PREVIEW)
RAW = Flag("raw", "With an `application/json` body: it is the message itself, byte for byte.", in_body=False)
CONTAINS = Text("contains", minimum=1, maximum=MAX_TEXT)
REASON = Text("reason", minimum=1, maximum=MAX_TEXT)
ID, IDS = Text("id", "Id of a reservation."), TextList("ids", "Several ids, instead of `id`.", maximum=MAX_BATCH)
RESULT = Message("result", "The result: any JSON value but null, or the text of a form field.")
EXAMPLE_ID = "1795489534022053-0001-c6c635c30e138159-1"

MESSAGE_ERRORS = ("empty_message", "bad_base64", "message_too_large")
WAITING_ERRORS = ("too_many_blocked_clients",)


def take(
    request: Request,
    queues: Sequence[ReliableQueue],
    wait: float,
    attempt: Attempt[M],
    give_back: Callable[[ReliableQueue, list[M]], object] | None,
    by: str | None,
) -> Batch[M]:
    """Return the batch that `attempt` takes, waiting up to `wait` seconds. A client that disconnects takes nothing.

    It comes from the first of the queues that gives any; if there are several, `request.taken_from` is that queue.
    """
    services, client = request.services, ClientConnection(request.environ)

    def attempt_if_ours(queue: ReliableQueue) -> Batch[M]:
        if services.attached_lists.find(queue.name):  # another program began to use it during the wait
            raise ApiError("attached_list")
        return attempt(queue)

    queue, batch = services.long_poll.take(queues, wait, attempt_if_ours, give_back, client, by or "")
    if len(queues) > 1 and batch.messages:
        request.taken_from = queue.name
    return batch


def batch_or_one(request: Request, batch: Batch[M], fields: Callable[[M], dict[str, Any]], max: int | None) -> Answer:
    """Return the answer with the messages taken, a list if `max` was sent, and their queue if several were named.

    If there are none, it says whether the queue is empty or paused, or its limits are reached.
    """
    if batch.limited:
        return {**nothing("limited", max), "retry_after": batch.retry_after}
    if not batch.messages:
        return nothing("paused" if batch.paused else "empty", max)
    found = list(map(fields, batch.messages))
    queue = {"queue": request.taken_from} if request.taken_from else {}
    if max is None:
        return {"success": True, **found[0], **queue}
    return {"success": True, "messages": [one["message"] if len(one) == 1 else one for one in found], **queue}


def nothing(error: str, max: int | None = None) -> Answer:
    """Return the answer when there is nothing to return: `success` is false, but the status is 200."""
    answer: Answer = {"success": False, "error": error, "message": ERRORS[error].sentence}
    return answer if max is None else {**answer, "messages": []}


def stream_answer(request: Request, feed: F, make_reader: Callable[[F], Reader]) -> Response:
    """Answer with the events of a feed, until the client disconnects or its session ends.

    Raises:
        ApiError: too many clients are blocked (429).
    """
    slots, client = request.services.slots, ClientConnection(request.environ)
    slots.acquire()
    client.shrink_buffer()
    stream = request.services.event_streams.stream(feed, make_reader, client, session_watch(request))
    response = Response(stream, content_type="text/event-stream; charset=utf-8")
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(slots.release)
    return response


def prefers(request: Request, kind: str) -> bool:
    """Return whether the client prefers the media type `kind` to JSON."""
    if kind.partition("/")[0] not in request.headers.get("Accept", "").lower():
        return False  # the common case, at little cost
    return request.accept_mimetypes.best_match([JSON, kind]) == kind

"""The operations that are not on one queue: the list of all queues, health and metrics."""

from functools import partial

from flask import Response

from broker.attached.queue import AttachedQueue
from broker.connections.health import check_server, find_warning
from broker.models import QueueCounts
from web import __version__
from web.input.body import TEXT
from web.input.parameters import Flag, Text
from web.live.age import find_age
from web.live.queue_list_feed import QueueListFeed, QueueListReader
from web.metrics import exposition as metrics
from web.operations.operation import Answer, Example, operation
from web.operations.reading import EVENTS
from web.operations.schemas import AGE, ATTACHED, COUNTS, fields, flag, list_of, success, text, whole
from web.operations.shared import SERVICE, WAITING_ERRORS, stream_answer
from web.request import Request

MATCH = Text("match", "Only queues whose name matches this pattern of `*`, `?` and `[abc]`.", default="*", maximum=133)


@operation(
    "GET",
    SERVICE,
    MATCH,
    path="/api/queues",
    answers=(
        success(
            "Queues",
            {
                "queues": list_of(
                    fields({"name": text("Name of the queue."), **COUNTS, "age": AGE}, attached=ATTACHED),
                    "The queues, by name.",
                ),
                "complete": flag("False if queues may be missing."),
                "unnamed": whole("Number of matching lists that cannot be opened: their names are not valid here."),
            },
        ),
    ),
    example=Example(
        {
            "success": True,
            "queues": [{"name": "jobs", **QueueCounts(1).as_dict(), "age": None}],
            "complete": True,
            "unnamed": 0,
        },
        {"match": "job*"},
    ),
)
def queues(request: Request, match: str) -> Answer:
    """List the queues that hold something, or are paused.

    The list is not complete if the scan of the keys takes more than 1.5 seconds, if there are more than 10,000 queues,
    or if a primary of a Cluster does not reply. The next request continues the scan where time ran
    out, and still lists the queues found before. The list is cached for a second.
    """
    services = request.services
    found = services.lister.list_queues(match or "*").as_dict()
    for queue in found["queues"]:
        queue["age"] = find_age(services.history, queue["name"], queue["count"])
    return {"success": True, **found}


@operation(
    "GET",
    SERVICE,
    MATCH,
    Flag("history", "Include the last ten minutes."),
    path="/api/events",
    id="queues_events",
    media=(EVENTS,),
    errors=WAITING_ERRORS,
    example=Example(
        'retry: 1000\n\nevent: queues\ndata: {"queues":[],"complete":true,"unnamed":0}\n', {"match": "mail*"}
    ),
)
def events(request: Request, match: str, history: bool) -> Response:
    """Follow all queues: the same list as server-sent events, whole at first, then after every change.

    `event: queues` has one line of JSON: `queues`, `complete` and `unnamed`, as in `GET /api/queues` (here `unnamed`
    counts all, whatever `match` is). It replaces everything sent before. It is sent at once, after a fault, and to a
    client that reads too slowly to receive every change.

    `event: changed` has in `queues` those that are new or whose counts have changed, and in `removed` the names of
    those that no longer hold anything. It is sent within 100 milliseconds of a change, less often while thousands of
    queues keep changing. `event: fault` has `error` and `message`. After 15 seconds without an event, a comment line is
    sent.

    With `history=1`, up to 100 queues of `event: queues` have a `history`: first those with dead letters, then the
    longest. `at` is when its first step began (Unix time, in seconds) and `step` the length of a step in seconds.
    `count` and `out` have a number for each step, null where it is unknown: the number of messages waiting at its end,
    and a lower bound of the number taken during it.
    """
    services, reader = request.services, partial(QueueListReader, match=match or "*", with_history=history)
    attached = services.attached_tracker if services.settings.lists else None
    return stream_answer(request, QueueListFeed(services.lister, services.tracker, services.history, attached), reader)


@operation(
    "GET",
    SERVICE,
    path="/healthz",
    answers=(
        success(
            "Health",
            {"version": text("Version of the app.")},
            warning=text("A risk of losing, refusing or delaying messages."),
        ),
    ),
    example=Example({"success": True, "version": __version__}),
)
def healthz(request: Request) -> Answer:
    """Check that Redis replies and would run the commands of a queue; if not, answer 503 with the cause.

    A read-only replica is `redis_readonly`, a server that is still loading its data `redis_loading`. In a Cluster every
    primary must reply, and every slot must be served. This route needs no token, and accepts any Host and HTTP/1.0.

    If the default queue is a list of another program, only that list is read.

    `warning` says that Redis evicts keys when its memory is full (its `maxmemory-policy` is not `noeviction`), that
    its memory is full now, or which permissions its user lacks to notice due messages and changes at once.
    """
    services = request.services
    queue = services.queue(services.settings.queue_name)
    if isinstance(queue, AttachedQueue):
        queue.count()
        return {"success": True, "version": __version__}
    place = (services.client, queue.name, services.settings.queue_prefix)
    check_server(*place)
    warning = find_warning(*place)
    return {"success": True, "version": __version__} | ({"warning": warning} if warning else {})


@operation(
    "GET",
    SERVICE,
    path="/livez",
    answers=(success("Liveness", {}),),
    example=Example({"success": True}),
)
def livez(request: Request) -> Answer:
    """Check that the process answers requests, whether or not Redis is available: a restart would not help Redis.

    It needs no token, and accepts any Host and HTTP/1.0, as `GET /healthz`.
    """
    return {"success": True}


@operation(
    "GET",
    SERVICE,
    path="/metrics",
    id="metrics",
    media=(TEXT, "application/openmetrics-text"),
    example=Example('queue_waiting_messages{queue="default"} 0.0\n', pipe="grep '^queue_waiting_messages.*default'"),
)
def prometheus(request: Request) -> Response:
    """Return the metrics in the text format of Prometheus, or as OpenMetrics if `Accept` asks for it.

    From Redis, so the same in every instance: `queue_waiting_messages`, `queue_reserved_messages`,
    `queue_delayed_messages`, `queue_paused`, `queue_dead_messages`, `queue_waiters`, `queue_expired_total`,
    `queue_buried_total`.

    From the history of this instance: `queue_head_age_seconds`, how long the next message has waited, or at least that
    long (`age` of `count`); 0 for an empty queue, missing where it is unknown.

    Counted by the processes of this instance, to be summed over instances: `queue_pushed_total`, `queue_popped_total`,
    `queue_reserved_total`, `queue_acked_total`, `queue_released_total`, `queue_requests_total` (by `operation` and
    `status`), `queue_request_seconds` (a histogram by `operation`; for a stream the time until it begins),
    `queue_redis_errors_total` (by error `code`).

    `queue_redis_up` is 0 while Redis is unavailable; then all metrics from Redis are missing.

    At most 500 queues have a label of their own: the default queue, the largest, then those used through this instance.
    All others are added up under `(others)`. `queue_queues_unlabelled` is their number, and `queue_listing_complete` is
    0 if Redis has too many keys to scan.
    """
    rendered, content_type = metrics.render(request.services, request.headers.get("Accept", ""))
    return Response(rendered, content_type=content_type)

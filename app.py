"""A message queue that people can see: a web page and a JSON API over a plain Redis list."""

import os
import re
import socket
import sys
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeVar

import redis
import simplejson
from flask import Flask, Response, make_response, render_template, request
from flask.json.provider import JSONProvider
from werkzeug.exceptions import BadRequest, HTTPException

import settings
from broker.connection import connect
from broker.listing import queues as all_queues
from broker.reliable import Conflict, ReliableQueue, Stale
from web import body as messages
from web import errors as answers
from web import security as guard
from web import streams
from web.body import Parameters, compact, value_of
from web.errors import Refusal, bad
from web.events import Events
from web.pages import AnyText, checked_name, pages, sign_in
from web.waiting import Waiting

# --- settings

app = Flask(__name__)
app.config.from_mapping(settings.from_environment())
app.config["STOPPING"] = lambda: False
app.url_map.merge_slashes = False


class SimpleJSON(JSONProvider):
    """Answers are compact UTF-8 JSON with a newline at the end, for terminals."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return compact(obj)

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return simplejson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        return Response(self.dumps(self._prepare_response_obj(args, kwargs)) + "\n", mimetype="application/json")


app.json = SimpleJSON(app)


app.url_map.converters["any"] = AnyText


def client() -> Any:
    """Return this process's Redis client; the first command opens a connection."""
    if "CLIENT" not in app.config:
        app.config["CLIENT"] = connect(app.config["REDIS_URL"])
    return app.config["CLIENT"]


def queue(name: str | None) -> ReliableQueue:
    """Return the queue of that name, the default one for None; what is no name is refused (400)."""
    return ReliableQueue(client(), checked_name(name), app.config["QUEUE_PREFIX"], app.config["MAX_DELIVERIES"])


def waiting() -> Waiting:
    """Return what this process's waiting clients share."""
    if "WAITING" not in app.config:
        blocking = connect(app.config["REDIS_URL"], blocking=True)
        app.config["WAITING"] = Waiting(blocking, app.config["MAX_WAITING"], stopping)
    waiting: Waiting = app.config["WAITING"]
    return waiting


def events_of() -> Events:
    """Return what this process's event streams share."""
    if "EVENTS" not in app.config:
        app.config["EVENTS"] = Events(stopping)
    events: Events = app.config["EVENTS"]
    return events


def stopping() -> bool:
    """Return whether this process was told to end; gunicorn.conf.py says how to know."""
    return bool(app.config["STOPPING"]())


def hung_up() -> Callable[[], bool]:
    """Return a function that tells whether the client of this request has closed its connection."""
    sock = request.environ.get("gunicorn.socket")
    plain = getattr(sock, "_sock", sock)  # gevent's socket would wait in spite of MSG_DONTWAIT

    def gone() -> bool:
        try:
            return plain is not None and plain.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    return gone


View = TypeVar("View", bound=Callable[..., Any])


def queue_route(verb: str, method: str) -> Callable[[View], View]:
    """Route /api/queue/<verb> and /api/queue/<name>/<verb> to a view that takes the name."""

    def decorate(view: View) -> View:
        app.add_url_rule(f"/api/queue/{verb}", verb, view, methods=[method], defaults={"name": None})
        app.add_url_rule(f"/api/queue/<any:name>/{verb}", verb, view, methods=[method])
        return view

    return decorate


# --- guard

app.before_request(guard.check)
app.after_request(guard.add_headers)
app.after_request(messages.read_on)


# --- errors


@app.errorhandler(Exception)
def failed(error: Exception) -> Response:
    """Answer every failure: JSON under /api/ and to a health probe, the 404 page elsewhere."""
    if isinstance(error, Stale):
        error = answers.stale(error.ids)
    elif isinstance(error, Conflict):
        error = answers.conflict()
    elif isinstance(error, redis.RedisError):
        error = answers.from_redis(error, reading=request.method in guard.SAFE)
    elif isinstance(error, HTTPException):
        error = from_http(error)
    elif not isinstance(error, Refusal):
        app.logger.exception("A request failed for a reason of our own: %s", request.path)
        error = Refusal(500, "internal", "Something is wrong in this app; its log says what.")
    no_links = isinstance(request.routing_exception, BadRequest)  # a malformed Host: a page's links cannot be made
    if request.path.startswith("/api/") or request.endpoint == "healthz" or no_links:
        response = make_response({"success": False, "error": error.error, "message": error.message, **error.more})
    elif error.status == 401:
        response = make_response(sign_in(request.path))
    else:
        response = make_response(render_template("404.html", refusal=error))
    response.status_code = error.status
    response.headers.extend(error.headers)
    return response


def from_http(error: HTTPException) -> Refusal:
    """Return the refusal for what Flask itself refused."""
    if error.code == 404:
        return Refusal(404, "not_found", "There is nothing at this address.")
    if error.code == 405:
        allowed = sorted(getattr(error, "valid_methods", None) or [])
        meant = " or ".join(method for method in allowed if method not in ("HEAD", "OPTIONS"))
        return Refusal(405, "method_not_allowed", f"Use {meant} here.", {"Allow": ", ".join(allowed)})
    code = error.code or 500
    return Refusal(code, error.name.lower().replace(" ", "_"), error.description or error.name)


# --- pages

app.register_blueprint(pages)


@app.get("/healthz")
def healthz() -> dict[str, Any]:
    """Whether the queue can be used: Redis answers (else 503)."""
    queue(None).client.ping()
    return {"success": True}


# --- queue routes


@queue_route("push", "POST")
def push(name: str | None) -> dict[str, Any]:
    """Add one message, or many: all of them or none. A stream of lines is stored as it comes."""
    target, once, lines = queue(name), idempotency_key(), messages.line_kind()
    if lines:
        if once or Parameters().flag("next"):
            raise bad("A stream of lines goes without next and Idempotency-Key.", "bad_parameter")
        pushed, count = streams.push_lines(target, messages.blocks(), lines == "json")
        return {"success": True, "pushed": pushed, "count": count}
    found, many, given = messages.pushed()
    first = Parameters(given).flag("next")
    count = target.push_once(once, found, next=first) if once else target.push(*found, next=first)
    if many:
        return {"success": True, "pushed": len(found), "count": count}
    return {"success": True, "message": value_of(found[0]), "count": count}


@queue_route("pop", "POST")
def pop(name: str | None) -> dict[str, Any] | Response:
    """Take the next message, or up to `max`, waiting for one up to `wait` seconds."""
    source, given, once = queue(name), Parameters(messages.fields()), idempotency_key()
    most, seconds = given.whole("max", 1, 1000), given.number("wait", 0, LONGEST_WAIT, 0)
    gone = hung_up()
    taken = waiting().take(source, seconds, lambda: source.take(most or 1, once), gone)
    if taken and seconds and not once and gone():  # left during the last step; a kept answer stays for who asks again
        source.put_back(*taken)
        taken = []
    if wants("text/plain") and most is None:
        return as_text(taken)
    found = [value_of(message) for message in taken]
    if most is not None:
        return {"success": True, "messages": found} if found else {**EMPTY, "messages": []}
    return {"success": True, "message": found[0]} if found else EMPTY


EMPTY = {"success": False, "error": "empty", "message": "The queue is empty."}
LONGEST_WAIT = 60  # seconds; gunicorn.conf.py has the order of time limits


def idempotency_key() -> str | None:
    """Return the Idempotency-Key header; one that is not 1 to 255 visible ASCII characters is refused (400)."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch("[!-~]{1,255}", key):
        raise bad("An Idempotency-Key is 1 to 255 visible ASCII characters.", "bad_idempotency_key")
    return key


def wants(kind: str) -> bool:
    """Return whether the client would rather have `kind` than JSON."""
    return request.accept_mimetypes.best_match(["application/json", kind]) == kind


def as_text(taken: list[bytes]) -> Response:
    """Answer a message as the body itself, 204 for none."""
    if not taken:
        return Response(status=204)
    kind = "text/plain; charset=utf-8" if isinstance(value_of(taken[0]), str) else "application/octet-stream"
    return Response(taken[0], content_type=kind)


@queue_route("count", "GET")
def count(name: str | None) -> dict[str, Any]:
    """How many messages wait, are reserved and are dead, and how many clients wait."""
    state = queue(name).state()
    counts = {"count": state.count, "reserved": state.reserved, "dead": state.dead, "waiters": state.waiters}
    return {"success": True, "message": str(state.count), **counts}


@queue_route("all", "GET")
def all(name: str | None) -> dict[str, Any] | Response:
    """The waiting messages, next to be popped first; none is taken."""
    source, given = queue(name), Parameters()
    offset = given.whole("offset", 0, 10**12) or 0
    limit = given.whole("limit", 0, 10**12)
    preview = given.whole("preview", 1, 10_000)
    count = source.count()
    size = min(max(0, count - offset), count if limit is None else limit)
    if preview is None:
        pieces = streams.values(source, offset, limit)
    else:
        pieces = streams.previews(source, offset, size, preview)
    if wants(messages.NDJSON):
        return Response(streams.as_ndjson(streams.started(pieces)), content_type=messages.NDJSON)
    first = next(pieces, [])
    if len(first) == size:
        return {"success": True, "messages": first, "count": count}
    return Response(streams.as_json(chain([first], pieces), {"count": count}), content_type=messages.JSON)


@queue_route("reserve", "POST")
def reserve(name: str | None) -> dict[str, Any]:
    """Take the next message, or up to `max`, for a lease; without an ack it comes back."""
    source, given = queue(name), Parameters(messages.fields())
    most, seconds = given.whole("max", 1, 1000), given.number("wait", 0, LONGEST_WAIT, 0)
    lease = given.number("lease", 1, LONGEST_LEASE, 30)
    gone = hung_up()
    taken = waiting().take(source, seconds, lambda: source.reserve(lease, most or 1), gone)
    if taken and seconds and gone():
        source.release(*(delivery.id for delivery in taken))
        taken = []
    found = [{"id": d.id, "message": value_of(d), "deliveries": d.deliveries, "deadline": d.deadline} for d in taken]
    if most is not None:
        return {"success": True, "messages": found} if found else {**EMPTY, "messages": []}
    return {"success": True, **found[0]} if found else EMPTY


LONGEST_LEASE = 43200  # seconds


@queue_route("ack", "POST")
def ack(name: str | None) -> dict[str, Any]:
    """End reservations for good: all that are named, or none."""
    ids = Parameters(messages.fields()).texts("id", "ids", 1000)
    return {"success": True, "acked": queue(name).ack(*ids)}


@queue_route("release", "POST")
def release(name: str | None) -> dict[str, Any]:
    """Give reserved messages back, to be popped next; `dead` of them were delivered often enough."""
    ids = Parameters(messages.fields()).texts("id", "ids", 1000)
    buried = queue(name).release(*ids)
    return {"success": True, "released": len(ids), "dead": buried}


@queue_route("extend", "POST")
def extend(name: str | None) -> dict[str, Any]:
    """Let a lease end `lease` seconds from now."""
    given = Parameters(messages.fields())
    return {
        "success": True,
        "deadline": queue(name).extend(given.needed("id"), given.number("lease", 1, LONGEST_LEASE, 30)),
    }


@queue_route("remove", "POST")
def remove(name: str | None) -> dict[str, Any]:
    """Remove the message at a position, if it is this very message."""
    given = messages.fields()
    position = Parameters(given).whole("position", 0, 10**12)
    if position is None or given.get("message") is None:
        raise bad("Send position and message.", "bad_parameter")
    message = messages.message_of(given["message"])
    queue(name).remove(position, message)
    return {"success": True, "message": value_of(message)}


@queue_route("clear", "POST")
def clear(name: str | None) -> dict[str, Any]:
    """Take every waiting message away; `undo` gives them back within an hour."""
    cleared, undo = queue(name).clear()
    return {"success": True, "cleared": cleared, "undo": undo}


@queue_route("restore", "POST")
def restore(name: str | None) -> dict[str, Any]:
    """Put back what a clear took."""
    undo = Parameters(messages.fields()).needed("undo")
    return {"success": True, "restored": queue(name).restore(undo)}


@queue_route("move", "POST")
def move(name: str | None) -> dict[str, Any]:
    """Move messages to another queue, oldest first: all that wait, or up to `max`."""
    source, given = queue(name), Parameters(messages.fields())
    to = queue(given.needed("to"))
    if to.key == source.key:
        raise bad("A queue cannot be moved to itself.", "bad_parameter", parameter="to")
    most = given.whole("max", 1, 10**12)
    left, moved = source.count() if most is None else most, 0
    try:
        while left > 0 and (some := source.move(to.name, left)):
            moved, left = moved + some, left - some
    except redis.RedisError as error:
        refusal = answers.from_redis(error)
        refusal.more["moved"] = moved
        raise refusal from error
    return {"success": True, "moved": moved}


@queue_route("events", "GET")
def events(name: str | None) -> Response:
    """The queue's state as server-sent events: at once, and after every change."""
    source, gone, sock = queue(name), hung_up(), request.environ.get("gunicorn.socket")
    waiting().enter()
    if sock is not None:  # a client that stops reading is dropped
        sock.settimeout(STALLED)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    response = Response(events_of().stream(source, gone), content_type="text/event-stream; charset=utf-8")
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(waiting().leave)
    return response


STALLED = 10  # seconds an event may take to be sent


@app.get("/api/queues")
def queues() -> dict[str, Any]:
    """The queues that hold something, by name."""
    match = Parameters().text("match") or "*"
    if len(match) > 128:
        raise bad("match is longer than a name can be.", "bad_parameter", parameter="match")
    found = all_queues(client(), app.config["QUEUE_PREFIX"], match, app.config["MAX_DELIVERIES"])
    return {"success": True, **found}


if __name__ == "__main__":
    os.chdir(app.root_path)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn"])

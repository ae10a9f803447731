"""A message queue that people can see: a web page and a JSON API over a plain Redis list."""

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import redis
import simplejson
from flask import Flask, Response, make_response, render_template, request
from flask.json.provider import JSONProvider
from werkzeug.exceptions import HTTPException

import answers
import guard
import messages
import settings
from answers import Refusal
from connection import connect
from messages import Parameters, value_of
from pages import AnyText, checked_name, pages
from RedisQueue import RedisQueue

# --- settings

app = Flask(__name__)
app.config.from_mapping(settings.from_environment())
app.url_map.merge_slashes = False


class SimpleJSON(JSONProvider):
    """Answers are compact UTF-8 JSON with a newline at the end, for terminals."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return simplejson.dumps(obj, ensure_ascii=False, separators=(",", ":"))

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return simplejson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        return Response(self.dumps(self._prepare_response_obj(args, kwargs)) + "\n", mimetype="application/json")


app.json = SimpleJSON(app)


app.url_map.converters["any"] = AnyText


def queue(name: str | None) -> RedisQueue:
    """Return the queue of that name, the default one for None; what is no name is refused (400)."""
    name = checked_name(name)
    if "CLIENT" not in app.config:
        app.config["CLIENT"] = connect(app.config["REDIS_URL"])
    return RedisQueue(app.config["CLIENT"], name, app.config["QUEUE_PREFIX"])


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


# --- errors


@app.errorhandler(Exception)
def failed(error: Exception) -> Response:
    """Answer every failure: JSON under /api/, the 404 page elsewhere."""
    if isinstance(error, redis.RedisError):
        error = answers.from_redis(error)
        if error.error == "unknown" and request.method in guard.SAFE:
            error = answers.unavailable("redis_away", "Redis did not answer.")
    elif isinstance(error, HTTPException):
        error = from_http(error)
    elif not isinstance(error, Refusal):
        app.logger.exception("A request failed for a reason of our own: %s", request.path)
        error = Refusal(500, "internal", "Something is wrong in this app; its log says what.")
    if request.path.startswith("/api/"):
        response = make_response({"success": False, "error": error.error, "message": error.message, **error.more})
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
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
        return Refusal(405, "method_not_allowed", f"Use {allowed} here.", {"Allow": allowed})
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
    """Add one message, or many: all of them or none."""
    found, many = messages.pushed()
    count = queue(name).push(*found, next=Parameters().flag("next"))
    if many:
        return {"success": True, "pushed": len(found), "count": count}
    return {"success": True, "message": value_of(found[0]), "count": count}


@queue_route("pop", "POST")
def pop(name: str | None) -> dict[str, Any] | Response:
    """Take the next message, or up to `max`."""
    source, given = queue(name), Parameters(messages.fields())
    most = given.whole("max", 1, 1000)
    taken = source.pop(most or 1)
    if wants("text/plain") and most is None:
        return as_text(taken)
    found = [value_of(message) for message in taken]
    if most is not None:
        return {"success": True, "messages": found} if found else {**EMPTY, "messages": []}
    return {"success": True, "message": found[0]} if found else EMPTY


EMPTY = {"success": False, "error": "empty", "message": "The queue is empty."}


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
    """How many messages wait."""
    number = queue(name).count()
    return {"success": True, "count": number, "message": str(number)}


@queue_route("all", "GET")
def all(name: str | None) -> dict[str, Any]:
    """The waiting messages, next to be popped first; none is taken."""
    source, given = queue(name), Parameters()
    offset = given.whole("offset", 0, 10**12, 0) or 0
    limit = given.whole("limit", 0, 10**12)
    preview = given.whole("preview", 1, 10_000)
    count, found = source.count(), source.all(offset, limit)
    if preview is None:
        return {"success": True, "messages": [value_of(m) for m in found], "count": count}
    cut = [messages.preview_of(m[: 4 * preview], len(m), preview) for m in found]
    return {"success": True, "messages": cut, "count": count}


if __name__ == "__main__":
    os.chdir(app.root_path)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn"])

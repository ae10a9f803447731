"""The WSGI app in front of Flask's: it answers the verbs of queues by itself, and adds the security headers to all.

A verb is answered by the same checks and the same view as on its Flask route, without what Flask does for a request
beside: that takes about half of the time. Everything else, other methods of the same addresses too, goes to Flask.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug import Response

from web import auth as security
from web import errors
from web.input.body import JSON
from web.input.codec import compact
from web.instrumentation import kind_of, record_answer, record_error
from web.live import disconnects as peer
from web.operations import call, find_verb
from web.proxy import adapt
from web.request import Request

HEADERS = list(security.HEADERS.items())
UNCACHED_HEADERS = [*HEADERS, ("Cache-Control", "no-store")]
STATIC_PATH = "/static/"  # only what is there may be cached


class FastPath:
    """The WSGI app."""

    def __init__(self, flask_app: Callable[..., Iterable[bytes]], request_class: type[Request]) -> None:
        self.flask_app = flask_app
        self.request_class = request_class

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        services, began = self.request_class.services, time.monotonic()
        adapt(environ, services.settings)
        path = environ["PATH_INFO"]
        added = HEADERS if path.startswith(STATIC_PATH) else UNCACHED_HEADERS

        verb, name = find_verb(environ["REQUEST_METHOD"], path)
        kind = verb.name if verb else kind_of(path)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            queue = "" if verb is None else services.settings.queue_name if name is None else name
            record_answer(services, environ, kind, queue, status, time.monotonic() - began)
            return start_response(status, headers + added, exc_info)

        if verb is None:
            return self.flask_app(environ, start)
        request = self.request_class(environ)
        answer: dict[str, object] | Response
        try:
            security.check_request(request)
            answer = call(request, verb, name)
        except Exception as exception:
            error = errors.from_exception(exception, reading=verb.method in security.SAFE_METHODS)
            record_error(request, error)
            answer = Response(compact(error.answer()) + "\n", error.status, error.headers, content_type=JSON)
        if isinstance(answer, Response):
            return peer.drain_body(request, answer)(environ, start)
        body = compact(answer).encode() + b"\n"
        start("200 OK", [("Content-Type", JSON), ("Content-Length", str(len(body)))])
        return [body]

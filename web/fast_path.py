"""The WSGI app in front of Flask: it serves queue operations itself, and adds the security headers to every response.

The checks and the view are those of the Flask route. Skipping the rest of Flask saves about half of a request's time.
Everything else goes to Flask, including other methods on the same paths.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug import Response

from web import errors
from web.access import auth as security
from web.access.proxy import adapt
from web.api import find_operation
from web.input.body import JSON
from web.input.codec import compact, encode
from web.live import disconnects as peer
from web.metrics.instrumentation import label_of, record_answer, record_error
from web.operations.operation import call
from web.request import Request

HEADERS = list(security.HEADERS.items())
UNCACHED_HEADERS = [*HEADERS, ("Cache-Control", "no-store")]


class FastPath:
    """The WSGI app."""

    def __init__(self, flask_app: Callable[..., Iterable[bytes]], request_class: type[Request]) -> None:
        self.flask_app = flask_app
        self.request_class = request_class

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        services, began = self.request_class.services, time.monotonic()
        adapt(environ, services.settings)
        operation, name = find_operation(environ["REQUEST_METHOD"], environ["PATH_INFO"])

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if operation:
                label, queue = operation.id, services.settings.queue_name if name is None else name
                queue = request.taken_from or queue
            else:
                label, queue = label_of(environ), ""
            record_answer(services, environ, label, queue, status, time.monotonic() - began)
            return start_response(status, headers + (HEADERS if label == "static" else UNCACHED_HEADERS), exc_info)

        if operation is None:
            return self.flask_app(environ, start)
        request = self.request_class(environ, populate_request=False)  # or only the garbage collector could free it
        answer: dict[str, object] | Response
        try:
            security.check_request(request)
            answer = call(request, operation, name)
        except Exception as exception:
            answer = _error_answer(request, exception, reading=operation.method in security.SAFE_METHODS)
        if isinstance(answer, Response):
            return peer.drain_body(request, answer)(environ, start)
        body = encode(answer) + b"\n"
        start("200 OK", [("Content-Type", JSON), ("Content-Length", str(len(body)))])
        return [body]


def _error_answer(request: Request, exception: Exception, reading: bool) -> Response:
    """Return the answer of a request that failed. A caller that kept the error would be kept by its traceback."""
    error = errors.from_exception(exception, reading)
    record_error(request, error)
    return Response(compact(error.answer()) + "\n", error.status, error.headers, content_type=JSON)

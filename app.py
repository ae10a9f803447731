"""Seequeue, a message queue you can see: the application factory and the error handler."""

import os
import sys
from typing import Any

import simplejson
from flask import Flask, Response, make_response, render_template, request
from flask.json.provider import JSONProvider
from werkzeug.exceptions import BadRequest

from settings import ROOT, Settings, from_environment
from web import errors
from web.access import auth as security
from web.api import OPERATIONS, api
from web.assets.assets import Assets, compress_page
from web.fast_path import FastPath
from web.input.codec import compact
from web.live import disconnects as peer
from web.metrics.instrumentation import record_error
from web.operations.operation import API_PREFIX
from web.pages import AnyText, pages, render_sign_in
from web.request import Request, current_request
from web.services import Services


class SimpleJSON(JSONProvider):
    """Compact UTF-8 JSON, with a newline at the end for terminals."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return compact(obj)

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return simplejson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        return Response(self.dumps(self._prepare_response_obj(args, kwargs)) + "\n", mimetype="application/json")


def create_app(settings: Settings, client: Any = None) -> Flask:
    """Return the app for some settings. Nothing is opened or started before the first request.

    `client`, if given, is used instead of a connection to the Redis server in the settings.
    """
    app = Flask(__name__, static_folder=None)
    app.json = SimpleJSON(app)
    app.url_map.merge_slashes = False
    app.url_map.converters["any"] = AnyText
    services = app.extensions["queue"] = Services(settings, client)
    request_class = app.request_class = type("AppRequest", (Request,), {"services": services})
    app.before_request(lambda: security.check_request(current_request()))
    app.after_request(lambda response: peer.drain_body(current_request(), response))
    app.after_request(compress_page)
    app.register_error_handler(Exception, render_error)
    assets = Assets(ROOT / "static")
    app.add_url_rule("/static/<path:filename>", "static", assets.serve)
    app.url_defaults(assets.add_digest)
    app.register_blueprint(api)
    app.register_blueprint(pages)
    app.wsgi_app = FastPath(app.wsgi_app, request_class)  # type: ignore[method-assign]
    return app


def is_for_programs(request: Request) -> bool:
    """Return whether a request is for the API, whatever its method, rather than for a page."""
    if request.blueprint:
        return request.blueprint == api.name
    paths = (path for operation in OPERATIONS for path in operation.paths)
    return request.path.startswith(API_PREFIX) or request.path in paths


def render_error(exception: Exception) -> Response:
    """Return the answer to a failed request: JSON for programs, a page for people."""
    error = errors.from_exception(exception, reading=request.method in security.SAFE_METHODS)
    no_links = isinstance(request.routing_exception, BadRequest)  # a malformed Host: a page cannot build its links
    record_error(current_request(), error)
    if is_for_programs(current_request()) or no_links:
        response = make_response(error.answer())
    elif error.status == 401:
        response = make_response(render_sign_in(request.path))
    else:
        response = make_response(render_template("404.html", error=error))
    response.status_code = error.status
    response.headers.extend(error.headers)
    return response


app = create_app(from_environment())

if __name__ == "__main__":
    os.chdir(app.root_path)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn"])

"""The request class of the web layer: Flask's, plus the services of the app. It works without Flask's contexts too."""

from functools import lru_cache
from typing import Any, cast

import flask
from werkzeug.datastructures import EnvironHeaders, ImmutableMultiDict, MultiDict
from werkzeug.http import parse_options_header
from werkzeug.utils import cached_property

from settings import Settings
from web.fairness import HeldBody
from web.services import Services

USER = "seequeue.user"  # in the environ: who the client is, according to a trusted proxy
NO_ARGUMENTS: MultiDict[str, str] = ImmutableMultiDict()


class Headers(EnvironHeaders):
    """The headers of a request. Each request reads a dozen, most of which are missing, so `get` must be cheap."""

    def get(self, key: str, default: Any = None, type: Any = None) -> Any:  # type: ignore[override]  # noqa: A002
        if type is not None:
            return super().get(key, default, type)
        return self.environ.get(_environ_key(key), default)


@lru_cache(maxsize=100)
def _environ_key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


@lru_cache(maxsize=100)
def _parse_media_type(text: str) -> tuple[str, str]:
    kind, options = parse_options_header(text)
    return kind.lower(), options.get("charset", "utf-8").lower()


class Request(flask.Request):
    """A request. `create_app` makes a subclass that has the `services` of its app."""

    services: Services
    held_body: HeldBody | None = None  # its body in `services.body_memory`, if it is counted there
    is_body_read = False  # to its end
    taken_from = ""  # the queue that its messages come from, if its path names several
    session_token: bytes | None = None  # that started its session, b"" without a session; None until looked up

    def __init__(self, environ: dict[str, Any], *args: Any, **options: Any) -> None:
        super().__init__(environ, *args, **options)
        self.headers = Headers(environ)

    @property
    def settings(self) -> Settings:
        """The settings of the app."""
        return self.services.settings

    @property
    def user(self) -> str:
        """Who sent it, according to a trusted proxy and USER_HEADER; "" if unknown."""
        name: str = self.environ.get(USER, "")
        return name

    @cached_property
    def media(self) -> tuple[str, str]:
        """The media type of the body and its charset, in lower case."""
        return _parse_media_type(self.environ.get("CONTENT_TYPE", ""))

    @cached_property
    def args(self) -> MultiDict[str, str]:
        """The parameters in the query string."""
        return super().args if self.query_string else NO_ARGUMENTS


def current_request() -> Request:
    """Return the request that Flask is serving."""
    return cast(Request, flask.request._get_current_object())  # type: ignore[attr-defined]

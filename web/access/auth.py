"""Access control: the Host, origin and token checks of every request, sessions, and the security headers."""

import contextlib
import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from functools import lru_cache

import redis
from itsdangerous import BadSignature, TimestampSigner
from werkzeug import Response

from settings import Settings
from web.errors import ApiError
from web.request import Request

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
PROBES = ("api.healthz", "api.livez")  # asked by machines: these need no trusted Host either
PUBLIC_ENDPOINTS = ("static", *PROBES, "pages.llms", "pages.login", "pages.login_page")  # these need no token
HOST_PATTERN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_SESSION_SECONDS = 12 * 3600
MAX_CLOCK_SKEW = 60  # seconds that the clock of another instance, which began a session, may be ahead of ours
SESSION_CHECK_INTERVAL = 10.0  # seconds between two checks whether the session of a stream has ended
HEADERS = {  # of every response
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer makes the Origin of a form on plain HTTP null
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def check_request(request: Request) -> Response | None:
    """Refuse an untrusted Host (400), a cross-site request (403), and a request that its token does not allow.

    Host and token are not checked for the probes, nor for OPTIONS, which only lists the methods of a path.
    """
    if request.environ.get("RAW_URI") == "*":  # OPTIONS of the server itself
        return Response(headers={"Allow": "GET, HEAD, OPTIONS, POST"})
    is_options = request.method == "OPTIONS" and request.routing_exception is None
    if not is_options and request.endpoint not in PROBES:
        check_host(request)
    check_cross_site(request)
    if not is_options and request.endpoint not in PUBLIC_ENDPOINTS:
        check_access(request)
    return None


def check_access(request: Request) -> None:
    """Refuse a request without a token (401), and a change with a read-only token (403)."""
    access = access_of(request)
    if access is Access.NONE:
        raise ApiError("token_required")
    if access is Access.READ and request.method not in SAFE_METHODS and request.endpoint != "pages.logout":
        raise ApiError("read_only")


def check_host(request: Request) -> None:
    """Refuse an untrusted Host: another site can point a name of its own at this machine (DNS rebinding)."""
    host = request.headers.get("Host", "")
    if not is_trusted_host(host, request.settings.trusted_hosts):
        raise ApiError("untrusted_host")


def check_cross_site(request: Request) -> None:
    """Refuse a request made by a page of another site, except a link that its visitor follows.

    Such a page could not read the responses, but it could change a queue, and keep the server and its connections busy.
    An Origin must match even if the browser says same-origin: that only means that the page used its own name.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    is_foreign = origin is not None and not is_own_origin(origin, request)
    is_cross_site = is_foreign or site not in (None, "same-origin", "none")
    if is_cross_site and not (request.method in SAFE_METHODS and _is_link(request)):
        raise ApiError("cross_site")


def _is_link(request: Request) -> bool:
    """Return whether the request opens a page in a tab. A frame does not count: it can be hidden from the visitor."""
    headers = request.headers
    return headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest", "document") == "document"


def is_own_origin(origin: str, request: Request) -> bool:
    """Return whether an Origin is the app's own, judging by the Host header.

    Browsers omit the default port of a scheme; some proxies add it. If the app itself listens on another port, a Host
    without a port came through a proxy that dropped it; then only the names can be compared.
    """
    scheme, _, address = origin.lower().partition("://")
    host = request.headers.get("Host", "").lower()
    own, other = HOST_PATTERN.fullmatch(host), HOST_PATTERN.fullmatch(address)
    if scheme not in DEFAULT_PORTS or own is None or other is None:
        return False
    if own[1].rstrip(".") != other[1].rstrip("."):
        return False
    default = DEFAULT_PORTS[scheme]
    if own[2] is None and request.settings.port not in DEFAULT_PORTS.values():
        return True
    return int(other[2] or default) == int(own[2] or default)


@lru_cache(maxsize=1000)
def is_trusted_host(host: str, trusted_hosts: tuple[str, ...]) -> bool:
    """Return whether a Host header is trusted: a local name, any IP address, or one of TRUSTED_HOSTS.

    An IP address is always safe: DNS rebinding needs a name.
    """
    match = HOST_PATTERN.fullmatch(host)
    if not match:
        return False
    name = match[1].lower().rstrip(".")
    for trusted in trusted_hosts:
        if name == trusted or (trusted.startswith(".") and ("." + name).endswith(trusted)):
            return True
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


# --- tokens


class Access(IntEnum):
    """The access that a token gives."""

    NONE = 0
    READ = 1
    WRITE = 2


def access_of(request: Request) -> Access:
    """Return the access that the token or session of a request gives: all of it if the settings have no tokens.

    The answer to a wrong token is delayed (see `verify_token`).
    """
    settings = request.settings
    if not settings.tokens:
        return Access.WRITE
    sent = bearer_token(request)
    token = find_token(sent, settings) or session_token(request) or verify_token(sent, request)
    if token in settings.api_tokens:
        return Access.WRITE
    return Access.READ if token else Access.NONE


def bearer_token(request: Request) -> str:
    """Return the token in the Authorization header, "" without one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def find_token(text: str, settings: Settings) -> bytes:
    """Return the token that equals a text, b"" if none does. The time it takes reveals nothing about any token."""
    sent, found = text.encode("utf-8", "replace"), b""
    for token in settings.tokens:
        if hmac.compare_digest(sent, token):
            found = token
    return found


def verify_token(text: str, request: Request) -> bytes:
    """Return the token that equals a text, b"" if none does. A wrong one is recorded, which delays the answer.

    Raises:
        ApiError: too many wrong tokens from this IP address (429).
    """
    token = find_token(text, request.settings)
    if text and not token:
        request.services.auth_throttle.record_failure(request.remote_addr or "")
    return token


# --- sessions: a signed cookie with a random id and a time. Redis stores only those that were revoked by signing out.


def session_token(request: Request) -> bytes:
    """Return the token that started the session of a request, b"" without a valid session.

    While Redis is unavailable, revoked sessions count as valid: they can do nothing without Redis.
    """
    if request.session_token is None:
        request.session_token = _find_session_token(request)
    return request.session_token


def _find_session_token(request: Request) -> bytes:
    for token, session in _sessions(request):
        with contextlib.suppress(redis.RedisError):
            if session in request.services.revoked_sessions:
                continue
        return token
    return b""


def session_watch(request: Request) -> Callable[[], bool]:
    """Return a function that reports whether the session of an event stream has ended.

    It asks Redis once every SESSION_CHECK_INTERVAL.
    """
    if not request.settings.tokens or find_token(bearer_token(request), request.settings):
        return lambda: False
    checked_at, has_ended = time.monotonic(), False

    def ended() -> bool:
        nonlocal checked_at, has_ended
        if time.monotonic() - checked_at >= SESSION_CHECK_INTERVAL:
            checked_at, has_ended = time.monotonic(), not _find_session_token(request)
        return has_ended

    return ended


def start_session(request: Request, response: Response, token: bytes) -> None:
    """Start a session for a token: set its cookie."""
    value = _signer(token).sign(secrets.token_hex(16)).decode()
    response.set_cookie(
        cookie_name(token),
        value,
        max_age=MAX_SESSION_SECONDS,
        httponly=True,
        samesite="Strict",
        secure=request.is_secure,
        path=cookie_path(request),
    )


def forget_session(request: Request, response: Response) -> None:
    """Delete the session cookies from the browser."""
    for name in map(cookie_name, request.settings.tokens):
        if name in request.cookies:
            response.delete_cookie(
                name, httponly=True, samesite="Strict", secure=request.is_secure, path=cookie_path(request)
            )


def end_session(request: Request) -> None:
    """Revoke the session of a request, for every copy of its cookie.

    It stays revoked until the cookie has expired for an instance whose clock is behind too.

    Raises:
        redis.RedisError: Redis failed, so the session may still be valid.
    """
    for _, session in _sessions(request):
        request.services.revoked_sessions.add(session, MAX_SESSION_SECONDS + 2 * MAX_CLOCK_SKEW)


def cookie_name(token: bytes) -> str:
    """Return the name of a session cookie. Browsers share cookies between ports, so each token has its own name."""
    return "queue_session_" + hmac.digest(token, b"name of the cookie", "sha256").hex()[:12]


def cookie_path(request: Request) -> str:
    """Return the path of the app on its site."""
    return request.settings.url_prefix or "/"


def _sessions(request: Request) -> Iterator[tuple[bytes, str]]:
    """Yield the token and the id of each session whose cookie is validly signed and has not expired."""
    for token in request.settings.tokens if request.headers.get("Cookie") else ():
        cookie = request.cookies.get(cookie_name(token), "")
        with contextlib.suppress(BadSignature):
            session, began = _signer(token).unsign(cookie, return_timestamp=True)
            if -MAX_CLOCK_SKEW <= time.time() - began.timestamp() <= MAX_SESSION_SECONDS:
                yield token, session.decode()


def _signer(token: bytes) -> TimestampSigner:
    """Return a signer with a key derived from a token: all workers share it, and it lasts as long as the token."""
    key = hmac.digest(token, b"sessions of the page", "sha256")
    return TimestampSigner(key, salt="session", digest_method=hashlib.sha256)

"""What every request passes first: the checks of Host, origin and token; and the security headers of every answer."""

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Callable
from functools import lru_cache

import redis
from itsdangerous import BadSignature, TimestampSigner
from werkzeug import Response

from web.errors import ApiError, bad_request
from web.request import Request

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
PUBLIC_ENDPOINTS = ("static", "api.healthz", "pages.login", "pages.login_page")  # these need no token
HOST_PATTERN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_SESSION_SECONDS = 12 * 3600
SESSION_CHECK_INTERVAL = 10.0  # how often a stream checks whether its session has ended, seconds
HEADERS = {  # of every answer
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
    """Refuse a foreign Host (400), a request made by another site (403), and a request without the token (401).

    Health probes pass: /healthz, and OPTIONS, which tells no more than the methods of an address.
    """
    if request.environ.get("RAW_URI") == "*":  # OPTIONS asks about the server itself
        return Response(headers={"Allow": "GET, HEAD, OPTIONS, POST"})
    is_options = request.method == "OPTIONS" and request.routing_exception is None
    if not is_options and request.endpoint != "api.healthz":
        check_host(request)
    check_site(request)
    if not is_options and request.endpoint not in PUBLIC_ENDPOINTS and not is_authorized(request):
        raise ApiError(
            401, "token_required", "Send the token: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"}
        )
    return None


def check_host(request: Request) -> None:
    """Refuse a Host that is not served: another site can point a name of its own at this machine (DNS rebinding)."""
    host = request.headers.get("Host", "")
    if not is_trusted_host(host, request.settings.trusted_hosts):
        raise bad_request(f"This Host is not served here: {host[:80]!a}. Add it to TRUSTED_HOSTS.", "untrusted_host")


def check_site(request: Request) -> None:
    """Refuse what a page of another site requests: it may only lead its visitor here, with a link.

    It could not read the answers, but it could change a queue, and keep connections and the server busy.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        is_foreign = site not in ("same-origin", "none")
    else:
        is_foreign = origin is not None and not is_own_origin(origin, request)
    if is_foreign and not (request.method in SAFE_METHODS and _is_link(request)):
        raise ApiError(403, "cross_site", "A page of another site may not use this queue.")


def _is_link(request: Request) -> bool:
    """Return whether the request opens a page in a tab; in a frame, which is hidden from the visitor, it does not."""
    headers = request.headers
    return headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest", "document") == "document"


def is_own_origin(origin: str, request: Request) -> bool:
    """Return whether an Origin is that of the app, as the Host header names it.

    Browsers leave out a scheme's default port, some proxies name it. Where the app itself has another port, a Host
    without one came through a proxy that left it out: then only the names can be compared.
    """
    scheme, _, address = origin.lower().partition("://")
    host = request.headers.get("Host", "").lower()
    own, found = HOST_PATTERN.fullmatch(host), HOST_PATTERN.fullmatch(address)
    if scheme not in DEFAULT_PORTS or own is None or found is None:
        return False
    if own[1].rstrip(".") != found[1].rstrip("."):
        return False
    default = DEFAULT_PORTS[scheme]
    if own[2] is None and request.settings.port not in DEFAULT_PORTS.values():
        return True
    return int(found[2] or default) == int(own[2] or default)


@lru_cache(maxsize=1000)
def is_trusted_host(host: str, trusted_hosts: tuple[str, ...]) -> bool:
    """Return whether a Host header may be answered: a local name, any IP address, or one of TRUSTED_HOSTS.

    An address is always safe: only names can be pointed elsewhere.
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


# --- token


def is_authorized(request: Request) -> bool:
    """Return whether no token is needed, or the request carries it, or a session that was started with it.

    A wrong token is answered late: see `is_right_token`.
    """
    if not request.settings.api_token:
        return True
    sent = bearer_token(request)
    return is_token(sent, request) or has_session(request) or is_right_token(sent, request)


def bearer_token(request: Request) -> str:
    """Return the token in the Authorization header, "" without one."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def is_token(text: str, request: Request) -> bool:
    """Return whether a text is the token, in a time that tells nothing about it."""
    token = request.settings.api_token
    return bool(token) and hmac.compare_digest(text.encode("utf-8", "replace"), token)


def is_right_token(text: str, request: Request) -> bool:
    """Return whether a text is the token; count a wrong one, and wait before it is answered.

    Raises:
        ApiError: too many wrong ones from this address are waiting (429).
    """
    is_right = is_token(text, request)
    if text and not is_right:
        request.runtime.wrong_tokens.report(request.remote_addr or "")
    return is_right


# --- sessions: a cookie that holds a random id and a time, signed. Only those that were signed out are kept (in Redis).


def has_session(request: Request) -> bool:
    """Return whether the request has a session that was started with the present token and not signed out.

    While Redis is away a session that was signed out holds: what it could do needs Redis too.
    """
    if request.has_session is None:
        request.has_session = bool(request.settings.api_token) and session_check(request)()
    return request.has_session


def session_check(request: Request) -> Callable[[], bool]:
    """Return a function that returns whether the session of this request holds; it works after the request as well."""
    token, ended = request.settings.api_token, request.runtime.ended_sessions
    cookie, signer = request.cookies.get(cookie_name(token), ""), _signer(token)

    def holds() -> bool:
        session = _session_in(cookie, signer)
        if session is None:
            return False
        try:
            return session not in ended
        except redis.RedisError:
            return True

    return holds


def session_watch(request: Request) -> Callable[[], bool]:
    """Return a function for a stream, which returns whether the session that it was opened with has ended meanwhile.

    It asks Redis every SESSION_CHECK_INTERVAL.
    """
    if not request.settings.api_token or is_token(bearer_token(request), request):
        return lambda: False
    holds, checked_at, has_ended = session_check(request), time.monotonic(), False

    def ended() -> bool:
        nonlocal checked_at, has_ended
        if time.monotonic() - checked_at >= SESSION_CHECK_INTERVAL:
            checked_at, has_ended = time.monotonic(), not holds()
        return has_ended

    return ended


def start_session(request: Request, response: Response) -> None:
    """Let the browser prove from now on that it knew the token."""
    token = request.settings.api_token
    value = _signer(token).sign(secrets.token_hex(16)).decode()
    response.set_cookie(
        cookie_name(token),
        value,
        max_age=MAX_SESSION_SECONDS,
        httponly=True,
        samesite="Strict",
        secure=request.is_secure,
    )


def forget_session(request: Request, response: Response) -> None:
    """Let the browser forget its session."""
    name = cookie_name(request.settings.api_token)
    response.delete_cookie(name, httponly=True, samesite="Strict", secure=request.is_secure)


def end_session(request: Request) -> None:
    """End the request's session for everybody who has its cookie.

    Raises:
        redis.RedisError: it could not be ended.
    """
    token = request.settings.api_token
    session = _session_in(request.cookies.get(cookie_name(token), ""), _signer(token))
    if session is not None:
        request.runtime.ended_sessions.add(session, MAX_SESSION_SECONDS)


def cookie_name(token: bytes) -> str:
    """Return the name of the session's cookie. Cookies do not tell ports apart, so each token has a name of its own."""
    return "queue_session_" + hmac.digest(token, b"name of the cookie", "sha256").hex()[:12]


def _session_in(cookie: str, signer: TimestampSigner) -> str | None:
    """Return the id of the session in a cookie; None if its signature is not ours or too old."""
    try:
        return signer.unsign(cookie, max_age=MAX_SESSION_SECONDS).decode()
    except BadSignature:
        return None


def _signer(token: bytes) -> TimestampSigner:
    """Sign with a key made of the token: every worker has it, it survives a restart, a new token ends all sessions."""
    key = hmac.digest(token, b"sessions of the page", "sha256")
    return TimestampSigner(key, salt="session", digest_method=hashlib.sha256)

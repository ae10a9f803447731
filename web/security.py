"""What every request passes first: the checks of Host, origin and token; and the security headers of every answer."""

import hashlib
import hmac
import ipaddress
import re

import werkzeug
from flask import Response, request
from itsdangerous import BadSignature, TimestampSigner

from web.errors import ApiError, bad_request
from web.runtime import settings

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
PUBLIC_ENDPOINTS = ("static", "api.healthz", "pages.login", "pages.login_page")  # these need no token
COOKIE = "queue_session"  # cookies do not tell ports apart: another app on localhost may have a "session"
MAX_SESSION_SECONDS = 30 * 24 * 3600
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def check_request() -> None:
    """Refuse a foreign Host (400), a change requested by another site (403), and a request without the token (401)."""
    check_host()
    check_site()
    if request.endpoint not in PUBLIC_ENDPOINTS and not is_authorized():
        raise ApiError(
            401, "token_required", "Send the token: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"}
        )


def check_host() -> None:
    """Refuse a Host that is not served: another site can point a name of its own at this machine (DNS rebinding)."""
    host = request.headers.get("Host", "")
    if not is_trusted_host(host):
        raise bad_request(f"This Host is not served here: {host[:80]!a}. Add it to TRUSTED_HOSTS.", "untrusted_host")


def check_site() -> None:
    """Refuse a change requested by a page of another site."""
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None:
        is_foreign = site not in ("same-origin", "none")
    else:
        host = request.headers.get("Host", "").lower()
        is_foreign = origin is not None and origin.lower().partition("://")[2] != host
    if is_foreign:
        raise ApiError(403, "cross_site", "Another site may not change a queue.")


def is_trusted_host(host: str) -> bool:
    """Return whether a Host header may be answered: a local name, any IP address, or one of TRUSTED_HOSTS.

    An address is always safe: only names can be pointed elsewhere.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", host)
    if not match:
        return False
    name = match[1].lower().rstrip(".")
    for trusted in settings().trusted_hosts:
        if name == trusted or (trusted.startswith(".") and ("." + name).endswith(trusted)):
            return True
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def add_headers(response: Response) -> Response:
    """Add the security headers to an answer; only static files may be cached."""
    response.headers.extend(HEADERS)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response


# --- token


def is_authorized() -> bool:
    """Return whether no token is needed, or the request carries it, or a session that was started with it."""
    if not settings().api_token:
        return True
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return (scheme.lower() == "bearer" and is_token(token.strip())) or has_session()


def is_token(text: str) -> bool:
    """Return whether a text is the token, in a time that tells nothing about it."""
    token = settings().api_token
    return bool(token) and hmac.compare_digest(text.encode("utf-8", "replace"), token)


def has_session() -> bool:
    """Return whether the request has a session that was started with the present token."""
    if not settings().api_token:
        return False
    try:
        _signer().unsign(request.cookies.get(COOKIE, ""), max_age=MAX_SESSION_SECONDS)
    except BadSignature:
        return False
    return True


def start_session(response: werkzeug.Response) -> None:
    """Let the browser prove from now on that it knew the token."""
    value = _signer().sign(b"in").decode()
    response.set_cookie(
        COOKIE, value, max_age=MAX_SESSION_SECONDS, httponly=True, samesite="Strict", secure=request.is_secure
    )


def end_session(response: werkzeug.Response) -> None:
    """Let the browser forget its session."""
    response.delete_cookie(COOKIE, httponly=True, samesite="Strict", secure=request.is_secure)


def _signer() -> TimestampSigner:
    """Sign with a key made of the token: every worker has it, it survives a restart, a new token ends all sessions."""
    key = hmac.digest(settings().api_token, b"sessions of the page", "sha256")
    return TimestampSigner(key, salt="session", digest_method=hashlib.sha256)

"""What stands in front of every request: is it meant for us, from our own page or a program, and has it the token?"""

import hashlib
import hmac
import ipaddress
import re

import werkzeug
from flask import Response, current_app, request
from itsdangerous import BadSignature, TimestampSigner

from web.errors import Refusal, bad

SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("static", "healthz", "pages.login", "pages.login_page")  # what can be had without the token
COOKIE = "queue_session"  # cookies do not tell ports apart: another app on localhost may have a "session"
LONGEST_SESSION = 30 * 24 * 3600  # seconds
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


def check() -> None:
    """Refuse a foreign Host (400), a change asked for by a foreign site (403), and a request without the token (401).

    The Host is checked because a foreign site can point a name of its own at this machine (DNS rebinding).
    """
    check_origin()
    if request.endpoint not in OPEN and not allowed():
        raise Refusal(
            401, "token_required", "Send the token: Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"}
        )


def check_origin() -> None:
    """Refuse a foreign Host and a foreign site's change."""
    host = request.headers.get("Host", "")
    if not trusted(host):
        raise bad(f"This Host is not served here: {host[:80]!a}. Add it to TRUSTED_HOSTS.", "untrusted_host")
    if request.method in SAFE:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and origin.lower().partition("://")[2] != host.lower()
    if foreign:
        raise Refusal(403, "cross_site", "Another site may not change a queue.")


def trusted(host: str) -> bool:
    """Return whether a Host header may be answered: a local name, any IP address, or one of TRUSTED_HOSTS.

    An address is always safe: only names can be pointed elsewhere.
    """
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", host)
    if not match:
        return False
    name = match[1].lower().rstrip(".")
    for allowed in current_app.config["ALLOWED_HOSTS"]:
        if name == allowed or (allowed.startswith(".") and ("." + name).endswith(allowed)):
            return True
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def add_headers(response: Response) -> Response:
    """Add the security headers to an answer; what is not a static file is never cached."""
    response.headers.extend(HEADERS)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response


# --- token


def allowed() -> bool:
    """Return whether no token is needed, or the request has it, or a session that was given for it."""
    if not current_app.config["API_TOKEN"]:
        return True
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return (scheme.lower() == "bearer" and same_token(given.strip())) or has_session()


def same_token(given: str) -> bool:
    """Return whether a text is the token, in a time that tells nothing about it."""
    token: bytes = current_app.config["API_TOKEN"]
    return bool(token) and hmac.compare_digest(given.encode("utf-8", "replace"), token)


def _signer() -> TimestampSigner:
    """Sign with a key made of the token: every worker has it, a restart keeps it, and a new token ends all sessions."""
    key = hmac.digest(current_app.config["API_TOKEN"], b"sessions of the page", "sha256")
    return TimestampSigner(key, salt="session", digest_method=hashlib.sha256)


def has_session() -> bool:
    """Return whether the request has a session that was given for the present token."""
    if not current_app.config["API_TOKEN"]:
        return False
    try:
        _signer().unsign(request.cookies.get(COOKIE, ""), max_age=LONGEST_SESSION)
    except BadSignature:
        return False
    return True


def give_session(response: werkzeug.Response) -> None:
    """Let the browser prove from now on that it knew the token."""
    value = _signer().sign(b"in").decode()
    response.set_cookie(
        COOKIE, value, max_age=LONGEST_SESSION, httponly=True, samesite="Strict", secure=request.is_secure
    )


def end_session(response: werkzeug.Response) -> None:
    """Let the browser forget its session."""
    response.delete_cookie(COOKIE, httponly=True, samesite="Strict", secure=request.is_secure)

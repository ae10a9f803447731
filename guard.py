"""What stands in front of every request: is it meant for us, is it from our own page or a program?"""

import ipaddress
import re
from urllib.parse import urlsplit

from flask import Response, current_app, request

from answers import Refusal, bad

SAFE = ("GET", "HEAD", "OPTIONS")
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
    """Refuse a request for a foreign Host (400) and a change asked for by a foreign site (403).

    The Host is checked because a foreign site can point a name of its own at this machine (DNS rebinding).
    """
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
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
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

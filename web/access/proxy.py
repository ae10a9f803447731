"""Undo what a proxy in front of the app changes: the path's prefix, the client's IP address, scheme and Host.

Only headers from TRUSTED_PROXIES are trusted: anyone else could forge them.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Any

from settings import Network, Settings
from web.request import USER

FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST")
MAX_USER = 64  # characters
WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")  # as some proxies write an IP address


def adapt(environ: dict[str, Any], settings: Settings) -> None:
    """Change the environ of a request to what its client sent."""
    if settings.trusted_proxies and is_trusted(environ.get("REMOTE_ADDR", ""), settings.trusted_proxies):
        _apply_headers(environ, settings.trusted_proxies)
        if settings.user_header:
            environ[USER] = _user(environ.get("HTTP_" + settings.user_header.upper().replace("-", "_"), ""))
    if settings.url_prefix:
        _strip_prefix(environ, settings.url_prefix)


def _strip_prefix(environ: dict[str, Any], prefix: str) -> None:
    """Move the prefix from the path to SCRIPT_NAME, which links start with. The proxy may have stripped it already."""
    path = environ["PATH_INFO"]
    if path == prefix or path.startswith(prefix + "/"):
        environ["PATH_INFO"] = path[len(prefix) :] or "/"
    environ["SCRIPT_NAME"] = prefix


def _apply_headers(environ: dict[str, Any], proxies: tuple[Network, ...]) -> None:
    forwarded_for, scheme, host = (environ.get(name, "") for name in FORWARDED)
    environ["REMOTE_ADDR"] = client_address(environ["REMOTE_ADDR"], forwarded_for, proxies)
    if (scheme := _last(scheme).lower()) in ("http", "https"):
        environ["wsgi.url_scheme"] = scheme
    if host:
        environ["HTTP_HOST"] = _last(host)


def client_address(peer: str, forwarded_for: str, proxies: tuple[Network, ...]) -> str:
    """Return the last IP address that is not one of our proxies. The client can forge anything before it.

    >>> client_address("10.0.0.1", "10.9.9.9, 203.0.113.7, 10.0.0.2", (ipaddress.ip_network("10.0.0.0/24"),))
    '203.0.113.7'
    """
    client = peer
    for text in reversed(forwarded_for.split(",")):
        match = WITH_PORT.fullmatch(text.strip())
        address = match[1] or match[2] if match else text.strip()
        if not _parse(address):
            break
        client = address
        if not is_trusted(address, proxies):
            break
    return client


@lru_cache(maxsize=1000)
def is_trusted(address: str, proxies: tuple[Network, ...]) -> bool:
    """Return whether an IP address belongs to one of our proxies."""
    parsed = _parse(address)
    return any(parsed in network for network in proxies) if parsed else False


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return (parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None) or parsed


def _user(value: str) -> str:
    """Return a name from a header, which proxies send as UTF-8 and WSGI hands over as latin-1."""
    name = value.encode("latin-1", "replace").decode("utf-8", "replace").strip()[:MAX_USER]
    return name if name.isprintable() else ascii(name)[1:-1]


def _last(values: str) -> str:
    """Return the value that the nearest proxy has appended to a header."""
    return values.rpartition(",")[2].strip()

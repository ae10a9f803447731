"""What a proxy in front of the app changes: the path's prefix, and the client's address, scheme and Host.

Headers that say so are believed from TRUSTED_PROXIES alone: anybody else could pretend to be another client.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Any

from settings import Network, Settings

FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST")
WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")  # as some proxies write an address


def adapt(environ: dict[str, Any], settings: Settings) -> None:
    """Let a request look as it left its client."""
    if settings.trusted_proxies and is_trusted(environ.get("REMOTE_ADDR", ""), settings.trusted_proxies):
        _believe_headers(environ, settings.trusted_proxies)
    if settings.url_prefix:
        _take_off_prefix(environ, settings.url_prefix)


def _take_off_prefix(environ: dict[str, Any], prefix: str) -> None:
    """Move the prefix from the path to SCRIPT_NAME, from where links get it. A proxy may have taken it off already."""
    path = environ["PATH_INFO"]
    if path == prefix or path.startswith(prefix + "/"):
        environ["PATH_INFO"] = path[len(prefix) :] or "/"
    environ["SCRIPT_NAME"] = prefix


def _believe_headers(environ: dict[str, Any], proxies: tuple[Network, ...]) -> None:
    forwarded_for, scheme, host = (environ.get(name, "") for name in FORWARDED)
    environ["REMOTE_ADDR"] = client_address(environ["REMOTE_ADDR"], forwarded_for, proxies)
    if (scheme := _last(scheme).lower()) in ("http", "https"):
        environ["wsgi.url_scheme"] = scheme
    if host:
        environ["HTTP_HOST"] = _last(host)


def client_address(peer: str, forwarded_for: str, proxies: tuple[Network, ...]) -> str:
    """Return the last address that is not one of our proxies: what stands before it the client may have made up.

    >>> client_address("10.0.0.1", "10.9.9.9, 203.0.113.7, 10.0.0.2", (ipaddress.ip_network("10.0.0.0/24"),))
    '203.0.113.7'
    """
    client = peer
    for text in reversed(forwarded_for.split(",")):
        found = WITH_PORT.fullmatch(text.strip())
        address = found[1] or found[2] if found else text.strip()
        if not _parse(address):
            break
        client = address
        if not is_trusted(address, proxies):
            break
    return client


@lru_cache(maxsize=1000)
def is_trusted(address: str, proxies: tuple[Network, ...]) -> bool:
    """Return whether an address is that of one of our proxies."""
    parsed = _parse(address)
    return any(parsed in network for network in proxies) if parsed else False


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return (parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None) or parsed


def _last(values: str) -> str:
    """Return what the nearest proxy has added to a header."""
    return values.rpartition(",")[2].strip()

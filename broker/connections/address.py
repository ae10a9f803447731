"""Where Redis is: what a REDIS_URL says.

    redis://h1:6379/0                          one server (rediss:// with TLS, unix:// on a socket)
    redis+sentinel://h1,h2:26379/service/0     the primary of a service that Sentinels watch over
    redis+cluster://h1,h2:6379                 a Redis Cluster; some of its nodes are enough

`rediss+...` uses TLS everywhere. A name and a password before the hosts are those of the servers; Sentinels have their
own, in the options `sentinel_username` and `sentinel_password`.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, urlencode

SENTINEL_PORT, CLUSTER_PORT = 26379, 6379  # where a host has none
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")

_SEVERAL_HOSTS = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://(?:(?P<user>[^@/?#]*)@)?(?P<hosts>[^@/?#]*)"
    r"(?P<path>/[^?#]*)?(?:\?(?P<options>[^#]*))?"
)
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_SERVICE_PATH = re.compile(r"/(?P<service>[A-Za-z0-9._-]+)(?:/(?P<db>[0-9]{1,5})?)?")


class Kind(Enum):
    """What runs behind an address."""

    SERVER = "one server"
    SENTINEL = "servers that Sentinels watch over"
    CLUSTER = "a cluster"


@dataclass(frozen=True)
class Address:
    """Where Redis is. `url` leads to a server, as redis-py reads it; with several hosts it names the first of them."""

    kind: Kind
    url: str = field(repr=False)  # it may hold a password
    hosts: tuple[tuple[str, int], ...] = ()  # Sentinels, or nodes of a cluster
    service: str = ""  # what the Sentinels call the primary
    sentinel_login: dict[str, str] = field(default_factory=dict, repr=False)  # username, password


def parse_address(url: str) -> Address:
    """Return what a URL says; it is not checked whether redis-py knows its options.

    Raises:
        ValueError: a host, the service or the database is malformed. The text says which, and holds no password.
    """
    if not re.match(r"rediss?\+", url):
        return Address(Kind.SERVER, url)
    found = _SEVERAL_HOSTS.fullmatch(url)
    if not found:
        raise ValueError("must look like redis+sentinel://host,host/service or redis+cluster://host,host")
    kind = Kind.SENTINEL if found["kind"] == "sentinel" else Kind.CLUSTER
    hosts = _hosts(found["hosts"], SENTINEL_PORT if kind is Kind.SENTINEL else CLUSTER_PORT)
    service, db = _service(found["path"] or "", kind)
    options = parse_qsl(found["options"] or "", keep_blank_values=True)
    login = {name.removeprefix("sentinel_"): value for name, value in options if name in SENTINEL_OPTIONS}
    rest = urlencode([(name, value) for name, value in options if name not in SENTINEL_OPTIONS])
    user = f"{found['user']}@" if found["user"] else ""
    host, port = hosts[0]
    host = f"[{host}]" if ":" in host else host
    one = f"{found['scheme']}://{user}{host}:{port}/{db}" + (f"?{rest}" if rest else "")
    return Address(kind, one, hosts, service, login)


def _hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for part in text.split(","):
        found = _HOST.fullmatch(part)
        port = int(found["port"] or default_port) if found else 0
        if not found or not 0 < port < 65536:
            raise ValueError(f"has a malformed host or port: {part[:60]!a}")
        hosts.append((found["ipv6"] or found["name"], port))
    return tuple(hosts)


def _service(path: str, kind: Kind) -> tuple[str, str]:
    """Return the service of Sentinels, "" for a cluster, and the number of the database."""
    if kind is Kind.CLUSTER:
        if path not in ("", "/", "/0"):
            raise ValueError("must end after the hosts of a cluster, which has no database but 0")
        return "", "0"
    found = _SERVICE_PATH.fullmatch(path)
    if not found:
        raise ValueError("must name the Sentinels' service after the hosts, as in redis+sentinel://host/mymaster/0")
    return found["service"], found["db"] or "0"

"""Parse REDIS_URL, and refuse URLs that redis-py would misread.

    redis://h1:6379/0                          one server (rediss:// with TLS, unix:// for a socket)
    redis+sentinel://h1,h2:26379/service/0     the primary of a service that Sentinels monitor
    redis+cluster://h1,h2:6379                 a Redis Cluster; some of its nodes are enough

`rediss+...` uses TLS everywhere. The user and password before the hosts are those of the servers; Sentinels have their
own, in the options `sentinel_username` and `sentinel_password`.

redis-py's own parser ignores a malformed database, and accepts options that send a command twice. Besides, gunicorn's
master reads the settings, and must not import redis-py: it binds functions that gevent has not patched by then.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, urlencode, urlsplit

SENTINEL_PORT, CLUSTER_PORT = 26379, 6379  # where a host has none

OPTIONS = {  # after the ?; options that retry or decode are left out
    "db": r"[0-9]{1,5}",
    "username": r".+",
    "password": r".+",
    "client_name": r"[!-~]+",
    "socket_timeout": r"(?=.*[1-9])[0-9]{1,4}(\.[0-9]+)?",
    "socket_connect_timeout": r"(?=.*[1-9])[0-9]{1,4}(\.[0-9]+)?",
    "socket_keepalive": r"true|false",
}
TLS_OPTIONS = {
    "ssl_cert_reqs": r"none|optional|required",
    "ssl_check_hostname": r"true|false",
    "ssl_ca_certs": r".+",
    "ssl_ca_path": r".+",
    "ssl_certfile": r".+",
    "ssl_keyfile": r".+",
}
SENTINEL_OPTIONS = {"sentinel_username": r".+", "sentinel_password": r".+"}

_SEVERAL_HOSTS = re.compile(r"(?:(?P<user>[^/?]*)@)?(?P<hosts>[^@/?]*)(?P<path>/[^@?]*)?")
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_SERVICE_PATH = re.compile(r"/(?P<service>[A-Za-z0-9._-]+)(?:/(?P<db>[0-9]{1,5})?)?")


class Kind(Enum):
    """The kind of Redis behind a URL."""

    SERVER = "one server"
    SENTINEL = "servers that Sentinels monitor"
    CLUSTER = "a cluster"


SCHEMES = {
    "redis": Kind.SERVER,
    "rediss": Kind.SERVER,
    "unix": Kind.SERVER,
    "redis+sentinel": Kind.SENTINEL,
    "rediss+sentinel": Kind.SENTINEL,
    "redis+cluster": Kind.CLUSTER,
    "rediss+cluster": Kind.CLUSTER,
}


@dataclass(frozen=True)
class Address:
    """A parsed REDIS_URL. `url` is that of one server, for redis-py; with several hosts it names the first."""

    kind: Kind
    url: str = field(repr=False)  # it can hold a password
    hosts: tuple[tuple[str, int], ...] = ()  # Sentinels, or nodes of a cluster
    service: str = ""  # the name that the Sentinels have for the primary
    sentinel_login: dict[str, str] = field(default_factory=dict, repr=False)  # username, password


def parse_address(url: str) -> Address:
    """Return the address in a URL.

    Raises:
        ValueError: the URL is malformed. The text continues a sentence, "REDIS_URL ...", and quotes nothing of the URL,
            in which a password can stand anywhere if it is not encoded.
    """
    if not re.fullmatch(r"[!-~]+", url) or "#" in url:
        raise ValueError("must be printable ASCII without spaces and #; write other characters as %XX")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError(f"must start with {', '.join(f'{known}://' for known in SCHEMES)}")
    kind = SCHEMES[scheme]
    rest, _, query = rest.partition("?")
    options = _parse_options(query, scheme, kind)
    if kind is Kind.SERVER:
        _check_server(url)
        return Address(kind, url)
    found = _SEVERAL_HOSTS.fullmatch(rest)
    if not found:
        raise ValueError("must look like redis+sentinel://host,host/service or redis+cluster://host,host")
    hosts = _parse_hosts(found["hosts"], SENTINEL_PORT if kind is Kind.SENTINEL else CLUSTER_PORT)
    service, db = _parse_path(found["path"] or "", kind)
    login = {name.removeprefix("sentinel_"): value for name, value in options if name in SENTINEL_OPTIONS}
    query = urlencode([(name, value) for name, value in options if name not in SENTINEL_OPTIONS])
    user = f"{found['user']}@" if found["user"] else ""
    host, port = hosts[0]
    host = f"[{host}]" if ":" in host else host
    one = f"{scheme.partition('+')[0]}://{user}{host}:{port}/{db}" + (f"?{query}" if query else "")
    _check_server(one)
    return Address(kind, one, hosts, service, login)


def without_secrets(url: str) -> str:
    """Return a valid URL without user, password and options."""
    return re.sub("//.*@", "//", url.partition("?")[0])


def _parse_options(query: str, scheme: str, kind: Kind) -> list[tuple[str, str]]:
    known = OPTIONS | (TLS_OPTIONS if scheme.startswith("rediss") else {})
    if kind is Kind.SENTINEL:
        known |= SENTINEL_OPTIONS
    if kind is Kind.CLUSTER:
        del known["db"]  # a cluster has one
    try:
        options = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError("has a malformed option; options look like ?name=value&name=value") from None
    for name, value in options:
        if name not in known:
            raise ValueError(f"has an unknown option; the known ones are {', '.join(known)}")
        if not re.fullmatch(known[name], value, re.IGNORECASE):
            raise ValueError(f"has a malformed value for the option {name}")
    return options


def _check_server(url: str) -> None:
    """Check host, port and path of the URL of one server."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("has a malformed host or port") from None
    if parts.scheme == "unix":
        if host or not parts.path.startswith("/"):
            raise ValueError("must hold the absolute path of the socket, as in unix:///path/to/the.sock")
    elif not re.fullmatch(r"/?[0-9]{0,5}", parts.path):
        raise ValueError("must end with a database number, as in /0, or without a path")


def _parse_hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for number, part in enumerate(text.split(","), 1):
        found = _HOST.fullmatch(part)
        port = int(found["port"] or default_port) if found else 0
        if not found or not 0 < port < 65536:
            raise ValueError(f"has a malformed host or port, number {number} in its list")
        hosts.append((found["ipv6"] or found["name"], port))
    return tuple(hosts)


def _parse_path(path: str, kind: Kind) -> tuple[str, str]:
    """Return the service of Sentinels, "" for a cluster, and the number of the database."""
    if kind is Kind.CLUSTER:
        if path not in ("", "/", "/0"):
            raise ValueError("must end after the hosts: a cluster has no database but 0")
        return "", "0"
    found = _SERVICE_PATH.fullmatch(path)
    if not found:
        raise ValueError("must name the service of the Sentinels after the hosts, as in redis+sentinel://host/main/0")
    return found["service"], found["db"] or "0"

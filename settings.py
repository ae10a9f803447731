"""The settings: read from the environment once, checked, with one clear line for every bad value."""

import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from broker.connections.address import SENTINEL_OPTIONS, Kind, parse_address
from broker.keys import NAME_RULE, is_name

ROOT = Path(__file__).parent  # what relative paths are relative to
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
URL_OPTIONS = {  # what may follow the ? of REDIS_URL; options that re-send or decode are left out
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


class BadSetting(ValueError):
    """A setting that cannot be used; its text is one line that says which and why."""


@dataclass(frozen=True)
class Settings:
    """What an app is made with. The defaults are those of an empty environment."""

    redis_url: str = field(default="", repr=False)  # "": the embedded server; it may hold a password
    queue_name: str = "default"
    queue_prefix: str = "queue:"
    api_tokens: tuple[bytes, ...] = field(default=(), repr=False)  # with none of either kind, none is needed
    read_tokens: tuple[bytes, ...] = field(default=(), repr=False)  # with one of these, nothing can be changed
    trusted_hosts: tuple[str, ...] = ()
    url_prefix: str = ""  # where a proxy serves the app: "" or like "/queue"
    trusted_proxies: tuple[Network, ...] = ()  # whose X-Forwarded-... headers are believed
    max_message_bytes: int = 1 << 20
    max_body_bytes: int = 16 << 20
    max_deliveries: int = 5
    max_blocked_clients: int = 5000
    data_dir: Path = ROOT / "instance"
    host: str = "localhost"  # both loopback addresses
    port: int = 5000
    allow_unauthenticated: bool = False  # may other machines come in without a token?
    web_concurrency: int = 2
    log_requests: bool = False  # one JSON line for each request

    @cached_property
    def tokens(self) -> tuple[bytes, ...]:
        """All tokens."""
        return self.api_tokens + self.read_tokens

    @property
    def embedded(self) -> bool:
        """Whether the app runs a server of its own."""
        return not self.redis_url

    @property
    def server_url(self) -> str:
        """The URL of the Redis server, the embedded one too."""
        return self.redis_url or f"unix://{quote(os.fsencode(self.data_dir / 'valkey.sock'))}"


def read(env: Mapping[str, str]) -> Settings:
    """Return the settings that an environment holds. Relative paths are relative to the app's folder.

    Raises:
        BadSetting: a value is malformed or out of range.
    """
    default = Settings()
    return Settings(
        redis_url=_redis_url(env),
        queue_name=_queue_name(env, default.queue_name),
        queue_prefix=_queue_prefix(env, default.queue_prefix),
        api_tokens=_tokens(env, "API_TOKEN"),
        read_tokens=_read_tokens(env),
        trusted_hosts=_hosts(env),
        url_prefix=_url_prefix(env),
        trusted_proxies=_networks(env, "TRUSTED_PROXIES"),
        max_message_bytes=_number(env, "MAX_MESSAGE_BYTES", default.max_message_bytes, 1, 512 << 20),
        max_body_bytes=_number(env, "MAX_BODY_BYTES", default.max_body_bytes, 1, 1 << 30),
        max_deliveries=_number(env, "MAX_DELIVERIES", default.max_deliveries, 1, 1_000_000),
        max_blocked_clients=_number(env, "MAX_BLOCKED_CLIENTS", default.max_blocked_clients, 0, 100_000),
        data_dir=_data_dir(env, default.data_dir),
        host=_host(env, default.host),
        port=_number(env, "PORT", default.port, 1, 65535),
        allow_unauthenticated=_flag(env, "ALLOW_UNAUTHENTICATED"),
        web_concurrency=_number(env, "WEB_CONCURRENCY", default.web_concurrency, 1, 256),
        log_requests=_flag(env, "LOG_REQUESTS"),
    )


def from_environment() -> Settings:
    """Return the settings of this process; a bad one ends it with one line (exit code 2)."""
    try:
        return read(os.environ)
    except BadSetting as error:
        print(f"Cannot start: {error}.", file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def _data_dir(env: Mapping[str, str], default: Path) -> Path:
    data_dir = (ROOT / (env.get("DATA_DIR") or default)).absolute()
    try:
        os.fsencode(data_dir).decode("utf-8")  # a locale may be of another encoding: what counts is the file's name
    except UnicodeError:
        raise BadSetting(f"DATA_DIR must be valid UTF-8 and is {str(data_dir)!a}") from None
    return data_dir


def _queue_name(env: Mapping[str, str], default: str) -> str:
    name = env.get("QUEUE_NAME") or default
    if not is_name(name):
        raise BadSetting(f"QUEUE_NAME must have {NAME_RULE} and is {name!r}")
    return name


def _queue_prefix(env: Mapping[str, str], default: str) -> str:
    prefix = env.get("QUEUE_PREFIX", default)
    if not re.fullmatch(r"[!-z|~]*", prefix):
        raise BadSetting(f"QUEUE_PREFIX must be printable ASCII without spaces and braces and is {prefix!r}")
    return prefix


def _host(env: Mapping[str, str], default: str) -> str:
    host = env.get("HOST") or default
    if not re.fullmatch(r"\[?[A-Za-z0-9._:%-]+\]?", host):
        raise BadSetting(f"HOST must be a name or an address and is {host!a}")
    return host.strip("[]")


def _number(env: Mapping[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    text = env.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,12}", text) or not minimum <= int(text) <= maximum:
        raise BadSetting(f"{name} must be a whole number from {minimum} to {maximum} and is {text!r}")
    return int(text)


def _flag(env: Mapping[str, str], name: str) -> bool:
    return _number(env, name, 0, 0, 1) == 1


def _redis_url(env: Mapping[str, str]) -> str:
    """Return REDIS_URL, "" for none. It may hold a password, so no error repeats it."""
    url = env.get("REDIS_URL", "")
    if not url:
        return ""
    if not re.fullmatch(r"[!-~]+", url):
        raise BadSetting("REDIS_URL must be printable ASCII without spaces; write other characters as %XX")
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise BadSetting(f"REDIS_URL must start with {', '.join(f'{known}://' for known in SCHEMES)}")
    try:
        address = parse_address(url)
    except ValueError as error:
        raise BadSetting(f"REDIS_URL {error}") from None
    try:
        parts = urlsplit(address.url)
        host, _ = parts.hostname, parts.port
        query = url.partition("?")[2]
        options = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise BadSetting("REDIS_URL has a malformed host, port or option") from None
    if scheme == "unix" and (host or not parts.path.startswith("/")):
        raise BadSetting("REDIS_URL must hold the socket's absolute path, as in unix:///path/to/the.sock")
    if scheme != "unix" and not re.fullmatch(r"/?[0-9]{0,5}", parts.path):
        raise BadSetting("REDIS_URL must end in a database number, as in /0, or in nothing")
    _check_url_options(options, _known_options(scheme, address.kind))
    return url


def _known_options(scheme: str, kind: Kind) -> dict[str, str]:
    known = URL_OPTIONS | (TLS_OPTIONS if scheme.startswith("rediss") else {})
    if kind is Kind.SENTINEL:
        known |= dict.fromkeys(SENTINEL_OPTIONS, r".+")
    if kind is Kind.CLUSTER:
        del known["db"]  # a cluster has one
    return known


def _check_url_options(options: list[tuple[str, str]], known: Mapping[str, str]) -> None:
    for name, value in options:
        if name not in known:
            raise BadSetting(f"REDIS_URL has the option {name!a}; the known ones are {', '.join(known)}")
        if not re.fullmatch(known[name], value, re.IGNORECASE):
            raise BadSetting(f"REDIS_URL has a malformed value for {name}")


def _hosts(env: Mapping[str, str]) -> tuple[str, ...]:
    hosts = tuple(host.strip().lower() for host in env.get("TRUSTED_HOSTS", "").split(",") if host.strip())
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", host):
            raise BadSetting(f"TRUSTED_HOSTS must be names without ports, separated by commas, and holds {host!r}")
    return hosts


def _url_prefix(env: Mapping[str, str]) -> str:
    prefix = env.get("URL_PREFIX", "").rstrip("/")
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]*[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", prefix):
        raise BadSetting(f"URL_PREFIX must be a path like /queue, of letters, digits and . _ ~ -, and is {prefix!a}")
    return prefix


def _networks(env: Mapping[str, str], name: str) -> tuple[Network, ...]:
    texts = [text.strip() for text in env.get(name, "").split(",") if text.strip()]
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise BadSetting(f"{name} must be addresses or networks, separated by commas: {error}") from None


def _tokens(env: Mapping[str, str], name: str) -> tuple[bytes, ...]:
    """Return the tokens in a setting or in the file that it names, separated by commas or lines."""
    text, file = env.get(name, ""), env.get(f"{name}_FILE", "")
    if text and file:
        raise BadSetting(f"{name} and {name}_FILE are both set; keep one")
    if file:
        try:
            text = (ROOT / file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadSetting(f"{name}_FILE {file!r} cannot be read ({error})") from None
    tokens = tuple(part.strip() for part in re.split(r"[,\n]", text) if part.strip())
    if (text or file) and not (tokens and all(re.fullmatch(r"[!-~]{8,1024}", token) for token in tokens)):
        holder = f"{name}_FILE must hold" if file else f"{name} must be"
        raise BadSetting(
            f"{holder} 8 to 1024 printable ASCII characters without spaces and commas; several are separated by commas"
        )
    return tuple(token.encode() for token in tokens)


def _read_tokens(env: Mapping[str, str]) -> tuple[bytes, ...]:
    tokens = _tokens(env, "READ_TOKEN")
    if set(tokens) & set(_tokens(env, "API_TOKEN")):
        raise BadSetting("READ_TOKEN and API_TOKEN have a token in common; it can be only one of them")
    return tokens

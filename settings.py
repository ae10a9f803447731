"""The settings: read from the environment once, checked, with a clear line for every bad value."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

HERE = Path(__file__).parent  # what relative paths are relative to
NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}(?:\.dead)?")  # the longest name has dead letters too
SCHEMES = ("redis", "rediss", "unix")
URL_OPTIONS = {  # what may follow the ? of REDIS_URL; anything that re-sends or decodes may not
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


def read(env: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings as Flask config. Relative paths are relative to the app's folder.

    Raises:
        BadSetting: a value is malformed or out of range.
    """
    data_dir = (HERE / (env.get("DATA_DIR") or "instance")).absolute()
    try:
        str(data_dir).encode()
    except UnicodeEncodeError:
        raise BadSetting(f"DATA_DIR must be valid UTF-8, and is {str(data_dir)!a}") from None
    url = _redis_url(env)
    queue_name = env.get("QUEUE_NAME") or "default"
    if not NAME.fullmatch(queue_name):
        raise BadSetting(f"QUEUE_NAME must be 1 to 128 of A-Z a-z 0-9 . _ - : and is {queue_name!r}")
    prefix = env.get("QUEUE_PREFIX", "queue:")
    if not re.fullmatch(r"[!-z|~]*", prefix):
        raise BadSetting(f"QUEUE_PREFIX must be printable ASCII without spaces and braces, and is {prefix!r}")
    return {
        "DATA_DIR": data_dir,
        "EMBEDDED": not url,
        "REDIS_URL": url or f"unix://{quote(str(data_dir / 'valkey.sock'))}",
        "QUEUE_NAME": queue_name,
        "QUEUE_PREFIX": prefix,
        "API_TOKEN": _token(env),
        "ALLOWED_HOSTS": _hosts(env),
        "MAX_MESSAGE_BYTES": _number(env, "MAX_MESSAGE_BYTES", 1 << 20, 1, 512 << 20),
        "MAX_BODY_BYTES": _number(env, "MAX_BODY_BYTES", 16 << 20, 1, 1 << 30),
        "MAX_DELIVERIES": _number(env, "MAX_DELIVERIES", 5, 1, 1_000_000),
        "MAX_WAITING": _number(env, "MAX_WAITING", 5000, 0, 100_000),
        "HOST": _host(env),
        "PORT": _number(env, "PORT", 5000, 1, 65535),
        "WEB_CONCURRENCY": _number(env, "WEB_CONCURRENCY", 2, 1, 256),
    }


def from_environment() -> dict[str, Any]:
    """Return the settings of this process; a bad one ends it with one line (exit code 2)."""
    try:
        return read(os.environ)
    except BadSetting as bad:
        print(f"Cannot start: {bad}.", file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def _host(env: Mapping[str, str]) -> str:
    host = env.get("HOST") or "127.0.0.1"
    if not re.fullmatch(r"\[?[A-Za-z0-9._:%-]+\]?", host):
        raise BadSetting(f"HOST must be a name or an address, and is {host!a}")
    return host.strip("[]")


def _number(env: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = env.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
        raise BadSetting(f"{name} must be a whole number from {least} to {most} and is {text!r}")
    return int(text)


def _redis_url(env: Mapping[str, str]) -> str:
    """Return REDIS_URL, "" for none. It may hold a password, so no complaint repeats it."""
    url = env.get("REDIS_URL", "")
    if not url:
        return ""
    if not re.fullmatch(r"[!-~]+", url):
        raise BadSetting("REDIS_URL must be printable ASCII without spaces; write other characters as %XX")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise BadSetting("REDIS_URL has a malformed host, port or option") from None
    if parts.scheme not in SCHEMES:
        raise BadSetting("REDIS_URL must start with redis://, rediss:// or unix://")
    if parts.scheme == "unix" and (host or not parts.path.startswith("/")):
        raise BadSetting("REDIS_URL must name a socket by its whole path, as unix:///path/to/the.sock")
    if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]{0,5}", parts.path):
        raise BadSetting("REDIS_URL must end in the number of a database, as /0, or in nothing")
    known = URL_OPTIONS | TLS_OPTIONS if parts.scheme == "rediss" else URL_OPTIONS
    for name, value in options:
        if name not in known:
            raise BadSetting(f"REDIS_URL has the option {name!a}; known here are {', '.join(known)}")
        if not re.fullmatch(known[name], value, re.IGNORECASE):
            raise BadSetting(f"REDIS_URL has a malformed value for {name}")
    return url


def _hosts(env: Mapping[str, str]) -> tuple[str, ...]:
    hosts = tuple(host.strip().lower() for host in env.get("TRUSTED_HOSTS", "").split(",") if host.strip())
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", host):
            raise BadSetting(f"TRUSTED_HOSTS must be names without ports, separated by commas, and has {host!r}")
    return hosts


def _token(env: Mapping[str, str]) -> bytes:
    token, file = env.get("API_TOKEN", ""), env.get("API_TOKEN_FILE", "")
    if token and file:
        raise BadSetting("API_TOKEN and API_TOKEN_FILE are both set; keep one")
    if file:
        try:
            token = (HERE / file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadSetting(f"API_TOKEN_FILE {file!r} cannot be read ({error})") from None
    if (token or file) and not re.fullmatch(r"[!-~]{8,1024}", token):
        name = "API_TOKEN_FILE must hold" if file else "API_TOKEN must be"
        raise BadSetting(f"{name} 8 to 1024 printable ASCII characters without spaces")
    return token.encode()

"""The settings. Each field of `Settings` describes an environment variable: name, default, allowed values and meaning.

docs/settings.md lists the same rows (`SETTINGS`).
"""

import contextlib
import difflib
import ipaddress
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from broker.attached.names import ListsSetting, parse_lists, with_names
from broker.connections.address import parse_address, without_secrets
from broker.keys import NAME_RULE, is_name

ROOT = Path(__file__).parent  # relative paths start here
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
TOKEN_RULE = "tokens of 8 to 1024 printable ASCII characters without spaces, separated by commas or newlines"
PREFIX_RULE = "printable ASCII without spaces and braces"
MIN_LIKENESS = 0.88  # of a variable to the setting that is meant: REDIS_URI is as like REDIS_URL, CF_API_TOKEN is not
MAX_LABEL = 24
HOST_RULE = "a host name or an IP address"


class BadSetting(ValueError):
    """An invalid setting. The text is one line that names the setting and the reason, and holds no password."""


@dataclass(frozen=True)
class Setting:
    """An environment variable."""

    name: str
    default: str
    parse: Callable[[str], Any]  # raises ValueError with a text that continues a sentence: "must be ..."
    allowed: str
    doc: str
    can_be_empty: bool = False  # otherwise an empty value counts as not set

    def read(self, env: Mapping[str, str]) -> Any:
        """Return the value in an environment.

        Raises:
            BadSetting: it is malformed or out of range.
        """
        text = env.get(self.name)
        if text is None or not (text or self.can_be_empty):
            text = self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise BadSetting(f"{self.name} {error}") from None


# --- parsers: each returns the value of a text


def _url(text: str) -> str:
    if text:
        parse_address(text)
    return text


def _path(text: str) -> Path:
    path = (ROOT / text).absolute()
    try:
        os.fsencode(path).decode("utf-8")  # the name must be UTF-8 even if the locale has another encoding
    except UnicodeError:
        raise ValueError(f"must be valid UTF-8, not {str(path)!a}") from None
    return path


def _queue_name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"must have {NAME_RULE}, not {text!a}")
    return text


def _matching(pattern: str, rule: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {rule}, not {text!a}")
        return text

    return parse


def _host(text: str) -> str:
    return _matching(r"\[?[A-Za-z0-9._:%-]+\]?", HOST_RULE)(text).strip("[]")


def _url_prefix(text: str) -> str:
    pattern = r"(/[A-Za-z0-9._~-]*[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*"
    return _matching(pattern, "a path like /queue, of letters, digits and . _ ~ -")(text.rstrip("/"))


def _label(text: str) -> str:
    if len(text) > MAX_LABEL or not text.isprintable():
        raise ValueError(f"must have at most {MAX_LABEL} printable characters, not {text[:60]!a}")
    return text


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(_split(text.lower()))
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]", host):
            raise ValueError(f"must be host names without ports, separated by commas; it has {host!a}")
    return hosts


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part) for part in _split(text))
    except ValueError as error:
        raise ValueError(f"must be IP addresses or networks, separated by commas: {error}") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(_queue_name(name) for name in _split(text))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _tokens(text: str) -> tuple[bytes, ...]:
    tokens = [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    if text and not (tokens and all(re.fullmatch(r"[!-~]{8,1024}", token) for token in tokens)):
        raise ValueError(f"must be {TOKEN_RULE}")
    return tuple(token.encode() for token in tokens)


def _token_file(path: str) -> tuple[bytes, ...]:
    if not path:
        return ()
    try:
        text = (ROOT / path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {error}") from None
    return _tokens(text or ",")  # an empty file is an error


# --- fields of Settings, each with its row


def _setting(
    name: str,
    default: str,
    parse: Callable[[str], Any],
    allowed: str,
    doc: str,
    *,
    secret: bool = False,
    can_be_empty: bool = False,
) -> Any:
    row = Setting(name, default, parse, allowed, doc, can_be_empty)
    return field(default=parse(default), repr=not secret, metadata={"rows": (row,)})


def _number(name: str, default: int, minimum: int, maximum: int, doc: str) -> Any:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"must be an integer from {minimum} to {maximum}, not {text[:60]!a}")
        return int(text)

    return _setting(name, str(default), parse, f"{minimum} to {maximum}", doc)


def _flag(name: str, doc: str) -> Any:
    def parse(text: str) -> bool:
        if text not in ("0", "1"):
            raise ValueError(f"must be 0 or 1, not {text[:60]!a}")
        return text == "1"

    return _setting(name, "0", parse, "0 or 1", doc)


def _token_list(name: str, doc: str) -> Any:
    """Return a field of tokens, from the variable or from the file that NAME_FILE names."""
    about_file = "a file with one such token on each line; read again on SIGHUP"
    rows = Setting(name, "", _tokens, TOKEN_RULE, doc), Setting(f"{name}_FILE", "", _token_file, "a path", about_file)
    return field(default=(), repr=False, metadata={"rows": rows})


@dataclass(frozen=True)
class Settings:
    """The settings of an app. The defaults are those of an empty environment."""

    redis_url: str = _setting(
        "REDIS_URL",
        "",
        _url,
        "a URL",
        "the Redis server to use; without it, Seequeue runs its own Valkey",
        secret=True,  # it can hold a password
    )
    data_dir: Path = _setting(  # noqa: RUF009 (it returns a field)
        "DATA_DIR", "instance", _path, "a path", "the data folder of that Valkey"
    )
    queue_name: str = _setting(
        "QUEUE_NAME", "default", _queue_name, NAME_RULE, "the queue of `/` and of `/api/queue/push`"
    )
    queue_prefix: str = _setting(
        "QUEUE_PREFIX",
        "queue:",
        _matching(r"[!-z|~]*", PREFIX_RULE),
        PREFIX_RULE,
        "the prefix of Redis keys, in front of the queue's name; can be empty",
        can_be_empty=True,
    )
    lists: ListsSetting = _setting(  # noqa: RUF009 (it returns a field)
        "LISTS",
        "",
        parse_lists,
        "`[name=]key[@left]`, separated by commas, or `*`",
        "lists of other programs on this Redis, to be looked at as queues, see [Lists](lists.md); `*`: all of them",
    )
    lists_writable: bool = _flag(
        "LISTS_WRITABLE", "1: allow push, remove, clear, restore and move on those lists; never pop or reserve"
    )
    own_lists: tuple[str, ...] = _setting(
        "OWN_LISTS",
        "",
        _names,
        "names of queues, separated by commas",
        "queues that are Seequeue's although Sidekiq names them as its own",
    )
    host: str = _setting(
        "HOST",
        "localhost",
        _host,
        HOST_RULE,
        "the address to listen on; `localhost` means both loopback addresses, `0.0.0.0` all addresses",
    )
    port: int = _number("PORT", 5000, 0, 65535, "the port to listen on; 0: a free one, which the start prints")
    trusted_hosts: tuple[str, ...] = _setting(
        "TRUSTED_HOSTS",
        "",
        _hosts,
        "host names without ports, separated by commas",
        "host names to answer to, besides `localhost` and IP addresses; `.example.com` covers its subdomains",
    )
    url_prefix: str = _setting(
        "URL_PREFIX",
        "",
        _url_prefix,
        "a path like `/queue`",
        "the path at which a proxy serves Seequeue, if it is not the root",
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        "TRUSTED_PROXIES",
        "",
        _networks,
        "IP addresses or networks, separated by commas",
        "the proxies whose `X-Forwarded-For`, `-Proto` and `-Host` headers are trusted",
    )
    user_header: str = _setting(
        "USER_HEADER",
        "",
        _matching(r"[A-Za-z0-9-]{0,64}", "a header's name"),
        "a header like `Remote-User`",
        "the header in which those proxies name the user: pages show it, and each change is logged with it",
    )
    api_tokens: tuple[bytes, ...] = _token_list(
        "API_TOKEN", "tokens that allow everything; once one is set, every request needs a token"
    )
    read_tokens: tuple[bytes, ...] = _token_list(
        "READ_TOKEN", "tokens that allow only `GET` and `HEAD`; if only these are set, nobody can change anything"
    )
    allow_unauthenticated: bool = _flag(
        "ALLOW_UNAUTHENTICATED",
        "1: allow listening beyond this machine without a token; with 0, Seequeue then refuses to start",
    )
    max_message_bytes: int = _number("MAX_MESSAGE_BYTES", 1 << 20, 1, 512 << 20, "the maximum size of a message")
    max_body_bytes: int = _number(
        "MAX_BODY_BYTES", 16 << 20, 1, 1 << 30, "the maximum size of a request body; a stream of lines has no limit"
    )
    max_deliveries: int = _number(
        "MAX_DELIVERIES",
        5,
        1,
        1_000_000,
        "the deliveries after which a message that was not acked becomes a dead letter, "
        "unless the queue has its own `max_deliveries`",
    )
    max_blocked_clients: int = _number(
        "MAX_BLOCKED_CLIENTS",
        5000,
        0,
        100_000,
        "the maximum number of clients per process that wait for a message or follow events",
    )
    web_concurrency: int = _number(
        "WEB_CONCURRENCY", 2, 1, 256, "the number of worker processes; set it to the number of cores to use"
    )
    log_requests: bool = _flag(
        "LOG_REQUESTS", "1: print one line of JSON per request, without query, headers, body or token"
    )
    label: str = _setting(
        "LABEL",
        "",
        _label,
        f"at most {MAX_LABEL} characters",
        "what the bar and the title of each page show: staging, say",
    )
    open_browser: bool = _flag("OPEN_BROWSER", "1: open the page in a browser once it is served")

    @cached_property
    def tokens(self) -> tuple[bytes, ...]:
        """All tokens."""
        return self.api_tokens + self.read_tokens

    @property
    def embedded(self) -> bool:
        """Whether the app runs its own Valkey."""
        return not self.redis_url

    @property
    def server_url(self) -> str:
        """The URL of the Redis server, the embedded one included."""
        return self.redis_url or f"unix://{quote(os.fsencode(self.data_dir / 'valkey.sock'))}"

    @property
    def storage(self) -> str:
        """Where the messages are, as a phrase for people."""
        return without_secrets(self.redis_url) if self.redis_url else f"{self.data_dir} (the embedded Valkey)"


SETTINGS: tuple[Setting, ...] = tuple(row for one in fields(Settings) for row in one.metadata["rows"])


def read(env: Mapping[str, str]) -> Settings:
    """Return the settings in an environment.

    Raises:
        BadSetting: a value is malformed or out of range, or two contradict each other.
    """
    settings = Settings(**{one.name: _read_field(env, *one.metadata["rows"]) for one in fields(Settings)})
    if set(settings.api_tokens) & set(settings.read_tokens):
        raise BadSetting("READ_TOKEN and API_TOKEN have a token in common; remove it from one of them")
    if settings.user_header and not settings.trusted_proxies:
        raise BadSetting("USER_HEADER needs TRUSTED_PROXIES, since anyone else could forge that header; set them too")
    try:
        with_names(settings.lists, settings.queue_prefix)
    except ValueError as error:
        raise BadSetting(f"LISTS {error}") from None
    if settings.lists and settings.embedded:
        raise BadSetting("LISTS needs REDIS_URL, the Redis on which those lists are; set it too")
    return settings


def find_misspelled(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are no setting but look like one, each with the name of that setting."""
    names = [row.name for row in SETTINGS]
    close = {name: difflib.get_close_matches(name, names, 1, MIN_LIKENESS) for name in sorted({*env} - {*names})}
    return {name: found[0] for name, found in close.items() if found}


def _read_field(env: Mapping[str, str], row: Setting, file_row: Setting | None = None) -> Any:
    value, in_file = row.read(env), file_row and file_row.read(env)
    if file_row and value and in_file:
        raise BadSetting(f"{row.name} and {file_row.name} are both set; keep one")
    return in_file or value


def from_environment() -> Settings:
    """Return the settings of this process. Exit with code 2 and one line on stderr if one is invalid."""
    try:
        return read(os.environ)
    except BadSetting as error:
        with contextlib.suppress(OSError):  # nobody can read it
            print(f"Cannot start: {error}.", file=sys.stderr, flush=True)
        raise SystemExit(2) from None

"""Errors of Redis: how each reply starts, the stable code of its cause, and how to recover."""

import re
from dataclasses import dataclass, replace
from enum import Enum

import redis


class NotSent(redis.ConnectionError):
    """The command was never sent, so nothing has changed.

    `server` is the host and port, or the path of the socket, and `reason` is why it cannot be reached, as part of a
    sentence. Both are "" if unknown, and neither holds a password.
    """

    def __init__(self, *args: object, server: str = "", reason: str = "", status_code: str | None = None) -> None:
        super().__init__(*args, status_code=status_code)
        self.server = server
        self.reason = reason


class LacksPermissions(redis.exceptions.NoPermissionError):
    """The Redis user lacks permissions that the queue needs. `missing` names commands and keys."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"The Redis user lacks permissions: {missing}.", status_code="NOPERM")


class Recovery(Enum):
    """How to recover from a fault. Redis changed nothing in any of them, so a retry is safe."""

    REPAIR = "somebody must change something first"
    WAIT = "retry later"
    RECONNECT = "retry on a new connection: another server might be the primary now"


_REPAIR, _WAIT, _RECONNECT = Recovery


@dataclass(frozen=True)
class RedisFault:
    """One reason why Redis refuses commands."""

    start: str  # of the error reply; case is ignored
    code: str
    recovery: Recovery = _REPAIR
    message: str = ""  # only where a code has several causes


_AOF_ERROR = "MISCONF Errors writing to the AOF file: "

# The first match counts.
FAULTS = (
    RedisFault("WRONGTYPE", "wrong_type"),
    RedisFault("OOM", "redis_full", _WAIT),
    RedisFault("LOADING", "redis_loading", _RECONNECT),
    RedisFault("READONLY", "redis_readonly", _RECONNECT, "Redis is a read-only replica."),
    RedisFault("UNBLOCKED", "redis_readonly", _RECONNECT, "Redis has just become a read-only replica."),
    RedisFault("NOREPLICAS", "redis_readonly", _RECONNECT, "Redis refuses writes: it has too few replicas."),
    RedisFault("MASTERDOWN", "redis_unavailable", _RECONNECT, "This Redis replica has lost its primary."),
    RedisFault("CLUSTERDOWN", "redis_unavailable", _RECONNECT, "The Redis Cluster is down."),
    RedisFault("TRYAGAIN", "redis_busy", _WAIT, "The Redis Cluster is moving these keys."),
    RedisFault("BUSY", "redis_busy", _WAIT, "Redis is busy running a script."),
    RedisFault("ERR max number of clients", "redis_busy", _WAIT, "Redis has reached its connection limit."),
    RedisFault("MOVED", "redis_misconfigured", _REPAIR, "REDIS_URL names a Cluster node; use redis+cluster://."),
    RedisFault(
        "ERR This instance has cluster support disabled",
        "redis_misconfigured",
        _REPAIR,
        "REDIS_URL names a server that is not in cluster mode; use redis://.",
    ),
    RedisFault("CROSSSLOT", "cross_slot"),
    RedisFault(f"{_AOF_ERROR}No space left on device", "disk_full", _RECONNECT),
    RedisFault(f"{_AOF_ERROR}Disk quota exceeded", "disk_full", _RECONNECT),
    RedisFault("MISCONF", "redis_misconfigured", _RECONNECT, "Redis refuses writes: it cannot save its data to disk."),
    RedisFault("NOAUTH", "redis_misconfigured", _REPAIR, "Redis requires a password; set it in REDIS_URL."),
    RedisFault("WRONGPASS", "redis_misconfigured", _REPAIR, "Redis refuses the password in REDIS_URL."),
    RedisFault("NOPERM", "redis_misconfigured", _REPAIR, "The Redis user lacks a permission that the queue needs."),
    RedisFault("DENIED", "redis_misconfigured", _REPAIR, "Redis is in protected mode and refuses this machine."),
    RedisFault("ERR unknown command", "redis_too_old"),
    RedisFault("ERR unknown Redis command", "redis_too_old"),
    RedisFault("ERR wrong number of arguments", "redis_too_old"),
    RedisFault("ERR Error compiling script", "redis_too_old"),
)

_IN_PIPELINE = re.compile(r"Command # \d+ .* of pipeline caused error: ", re.DOTALL)  # .* can match a whole message
_IN_TRANSACTION = re.compile(r"(?:EXECABORT )?Transaction discarded because of: ")
_IN_OLD_SCRIPT = re.compile(r"(?:ERR )?Error running script .*?: -(?=[A-Z]+ )", re.DOTALL)  # before Redis 7.0


def error_text(error: redis.RedisError) -> str:
    """Return the error reply as the server sent it, without the text that redis-py and scripts add around it."""
    text = _after(_IN_PIPELINE, str(error))
    # redis-py strips the codes it knows from the text.
    text = _after(_IN_TRANSACTION, f"{error.status_code} {text}" if error.status_code else text)
    return _after(_IN_OLD_SCRIPT, text)


def _after(wrapping: re.Pattern[str], text: str) -> str:
    found = wrapping.match(text)
    return text[found.end() :] if found else text


def find_fault(error: redis.RedisError) -> RedisFault | None:
    """Return the fault behind an error; None if Redis is unavailable or the reply is unknown."""
    reply = error_text(error).upper()
    fault = next((fault for fault in FAULTS if reply.startswith(fault.start.upper())), None)
    if fault and isinstance(error, LacksPermissions):
        return replace(fault, message=str(error))
    return fault


def needs_reconnect(error: redis.RedisError) -> bool:
    """Return whether another server might have taken over from the one that refused."""
    fault = find_fault(error)
    return fault is not None and fault.recovery is _RECONNECT


def lacks_flags(error: redis.RedisError) -> bool:
    """Return whether a server refused a script because it does not support the first line, `#!lua flags=...`."""
    reply = error_text(error)
    return any(part in reply for part in ("ompil", "shebang", "unexpected symbol near '#'"))


def is_transient(error: redis.RedisError) -> bool:
    """Return whether a retry can succeed without a repair: Redis is unavailable, or refuses for now."""
    if fault := find_fault(error):
        return fault.recovery is not _REPAIR
    if isinstance(error, (redis.AuthenticationError, redis.exceptions.AuthorizationError)):
        return False
    return isinstance(error, (redis.ConnectionError, redis.TimeoutError))

"""What Redis refuses, in one table: how each refusal starts, its stable code, and what helps."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import redis


class NotSent(redis.ConnectionError):
    """No connection could be made, so the command was never sent and nothing has changed.

    `server` and `reason` say which server could not be reached and why, "" where that is not known.
    """

    def __init__(self, *args: Any, server: str = "", reason: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.server = server
        self.reason = reason


class Recovery(Enum):
    """What helps against a fault. In every case nothing was done, so trying again is safe."""

    REPAIR = "somebody must change something first"
    WAIT = "it passes"
    RECONNECT = "it passes, and by then another server may have taken over the address"


@dataclass(frozen=True)
class RedisFault:
    """One cause for which Redis refuses commands."""

    start: str  # of the error, the case of letters aside
    code: str
    message: str = ""  # where the sentence of the code (web/errors.py) is not precise enough
    recovery: Recovery = Recovery.REPAIR


_AOF_ERROR = "MISCONF Errors writing to the AOF file: "
_BECAME_REPLICA = "Redis has just become a read-only replica."
_ONE_NODE = "REDIS_URL names one node of a cluster; it must start with redis+cluster://."
_NO_CLUSTER = "REDIS_URL names a server that is not in cluster mode; it must start with redis://."

# The first that matches counts.
FAULTS = (
    RedisFault("WRONGTYPE", "wrong_type"),
    RedisFault("OOM", "redis_full", recovery=Recovery.WAIT),
    RedisFault("LOADING", "redis_loading", recovery=Recovery.RECONNECT),
    RedisFault("READONLY", "redis_readonly", "Redis is a read-only replica.", Recovery.RECONNECT),
    RedisFault("UNBLOCKED", "redis_readonly", _BECAME_REPLICA, Recovery.RECONNECT),
    RedisFault("MASTERDOWN", "redis_unavailable", "This Redis replica has lost its primary.", Recovery.RECONNECT),
    RedisFault("CLUSTERDOWN", "redis_unavailable", "The Redis cluster is down.", Recovery.RECONNECT),
    RedisFault("TRYAGAIN", "redis_busy", "The Redis cluster is moving these keys.", Recovery.WAIT),
    RedisFault("NOREPLICAS", "redis_readonly", "Redis refuses writes: it has too few replicas.", Recovery.RECONNECT),
    RedisFault("BUSY", "redis_busy", "Redis is busy with a script.", Recovery.WAIT),
    RedisFault(
        "ERR max number of clients",
        "redis_busy",
        "Redis accepts no more connections. Nothing was changed.",
        Recovery.WAIT,
    ),
    RedisFault("MOVED", "redis_misconfigured", _ONE_NODE),
    RedisFault("ERR This instance has cluster support disabled", "redis_misconfigured", _NO_CLUSTER),
    RedisFault("CROSSSLOT", "cross_slot"),
    RedisFault(f"{_AOF_ERROR}No space left on device", "disk_full", recovery=Recovery.RECONNECT),
    RedisFault(f"{_AOF_ERROR}Disk quota exceeded", "disk_full", recovery=Recovery.RECONNECT),
    RedisFault(
        "MISCONF", "redis_misconfigured", "Redis refuses writes because it cannot save to disk.", Recovery.RECONNECT
    ),
    RedisFault("NOAUTH", "redis_misconfigured", "Redis requires a password; set it in REDIS_URL."),
    RedisFault("WRONGPASS", "redis_misconfigured", "Redis refuses the password in REDIS_URL."),
    RedisFault("NOPERM", "redis_misconfigured", "The Redis user lacks permission for a command that the queue needs."),
    RedisFault("DENIED", "redis_misconfigured", "Redis is in protected mode and refuses this machine."),
    RedisFault("ERR unknown command", "redis_too_old"),
    RedisFault("ERR unknown Redis command", "redis_too_old"),
    RedisFault("ERR wrong number of arguments", "redis_too_old"),
    RedisFault("ERR Error compiling script", "redis_too_old"),
)

_IN_PIPELINE = re.compile(r"Command # \d+ .* of pipeline caused error: ", re.DOTALL)  # the dots may hold a message
_IN_TRANSACTION = re.compile(r"(?:EXECABORT )?Transaction discarded because of: ")
_IN_OLD_SCRIPT = re.compile(r"(?:ERR )?Error running script .*?: -(?=[A-Z]+ )", re.DOTALL)  # of a Redis before 7.0


def error_text(error: redis.RedisError) -> str:
    """Return what the server said; redis-py takes the codes that it knows off the text."""
    text = _after(_IN_PIPELINE, str(error))
    text = _after(_IN_TRANSACTION, f"{error.status_code} {text}" if error.status_code else text)
    return _after(_IN_OLD_SCRIPT, text)


def _after(wrapping: re.Pattern[str], text: str) -> str:
    found = wrapping.match(text)
    return text[found.end() :] if found else text


def find_fault(error: redis.RedisError) -> RedisFault | None:
    """Return the refusal that an error tells of; None if Redis is away, or refused for an unknown cause."""
    said = error_text(error).upper()
    return next((fault for fault in FAULTS if said.startswith(fault.start.upper())), None)


def needs_reconnect(error: redis.RedisError) -> bool:
    """Return whether another server may have taken over from the one that refused."""
    fault = find_fault(error)
    return fault is not None and fault.recovery is Recovery.RECONNECT


def lacks_flags(error: redis.RedisError) -> bool:
    """Return whether a server refused a script because it does not know its first line, `#!lua flags=...`."""
    said = error_text(error)
    return any(part in said for part in ("ompil", "shebang", "unexpected symbol near '#'"))


def is_transient(error: redis.RedisError) -> bool:
    """Return whether an error passes by itself: Redis is away, or refuses for a while."""
    if fault := find_fault(error):
        return fault.recovery is not Recovery.REPAIR
    if isinstance(error, (redis.AuthenticationError, redis.exceptions.AuthorizationError)):
        return False
    return isinstance(error, (redis.ConnectionError, redis.TimeoutError))

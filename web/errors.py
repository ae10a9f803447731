"""The failures: every cause has one status, one stable code for programs and one sentence for people."""

from typing import Any

import redis

from broker.connection import NotSent


class Refusal(Exception):
    """A request that is answered without success. Raised anywhere, answered by the one error handler."""

    def __init__(self, status: int, error: str, message: str, headers: dict[str, str] | None = None, **more: Any):
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.headers = headers or {}
        self.more = more


def bad(message: str, error: str = "bad_request", **more: Any) -> Refusal:
    """Return the refusal of a malformed request (400)."""
    return Refusal(400, error, message, **more)


_TOO_OLD = "This Redis is too old for this act; 7.0 or later has what it needs."


def stale(ids: list[str]) -> Refusal:
    """Return the refusal of what is not there any more (409), with the ids that are not held."""
    if ids:
        return Refusal(
            409, "stale", "These reservations have ended, or were never made; nothing was changed.", stale=ids
        )
    return Refusal(409, "stale", "What you name is not there any more; nothing was changed.")


def conflict() -> Refusal:
    """Return the refusal of an Idempotency-Key that came with another request (409)."""
    return Refusal(409, "conflict", "This Idempotency-Key was used with another request; nothing was changed.")


# What a Redis error starts with -> status, code, sentence. The first match counts.
_REPLIES = [
    ("WRONGTYPE", 409, "wrong_type", "Redis holds something other than a list under this name."),
    ("OOM", 507, "redis_full", "Redis has no memory left; nothing was stored."),
    ("LOADING", 503, "redis_loading", "Redis is still loading its data."),
    ("READONLY", 503, "redis_readonly", "Redis is a read-only replica."),
    ("MASTERDOWN", 503, "redis_away", "This Redis replica has lost its primary."),
    ("CLUSTERDOWN", 503, "redis_away", "The Redis cluster is down."),
    ("NOREPLICAS", 503, "redis_readonly", "Redis takes no writes: it has too few replicas."),
    ("BUSY", 503, "redis_busy", "Redis is busy with a script."),
    ("ERR max number of clients", 503, "redis_busy", "Redis takes no more connections; nothing was changed."),
    ("CROSSSLOT", 409, "cross_slot", "The two queues lie in different Cluster slots; nothing was moved."),
    ("MISCONF", 503, "redis_misconfigured", "Redis refuses to write because it cannot save to disk."),
    ("NOAUTH", 503, "redis_misconfigured", "Redis asks for a password; set it in REDIS_URL."),
    ("WRONGPASS", 503, "redis_misconfigured", "Redis does not accept the password in REDIS_URL."),
    ("NOPERM", 503, "redis_misconfigured", "The Redis user may not run a command that the queue needs."),
    ("DENIED", 503, "redis_misconfigured", "Redis is in protected mode and refuses this machine."),
    ("ERR unknown command", 503, "redis_too_old", _TOO_OLD),
    ("ERR unknown Redis command", 503, "redis_too_old", _TOO_OLD),
    ("ERR wrong number of arguments", 503, "redis_too_old", _TOO_OLD),
    ("ERR Error compiling script", 503, "redis_too_old", _TOO_OLD),
]


def from_redis(error: redis.RedisError, reading: bool = False) -> Refusal:
    """Return the refusal that tells the cause of a Redis error; when `reading`, a lost reply leaves nothing unknown."""
    code = error.status_code  # redis-py takes the codes that it knows off the text
    text = f"{code} {error}" if code else str(error)
    for start, status, name, message in _REPLIES:
        if text.upper().startswith(start.upper()):
            return Refusal(status, name, message, {"Retry-After": "1"} if status == 503 else None)
    if isinstance(error, NotSent):
        return unavailable("redis_away", "Redis cannot be reached; nothing was changed.")
    if isinstance(error, redis.AuthenticationError):
        return unavailable("redis_misconfigured", "Redis does not accept the password in REDIS_URL.")
    if isinstance(error, redis.MaxConnectionsError) or "No connection available" in text:
        return unavailable("busy", "All connections to Redis are in use; nothing was changed.")
    if isinstance(error, (redis.ResponseError, redis.DataError)):
        return unavailable("redis_error", f"Redis refused: {text[:200]}.")
    if reading:
        return unavailable("redis_away", "Redis did not answer.")
    return unavailable("unknown", "The reply of Redis was lost, so it is unknown whether this was done.")


def unavailable(error: str, message: str) -> Refusal:
    return Refusal(503, error, message, {"Retry-After": "1"})

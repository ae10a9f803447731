"""Every failure: each cause has one status, one stable code for programs and one sentence for people."""

import logging
from typing import Any

import redis
from werkzeug.exceptions import HTTPException

from broker.connection import NotSent
from broker.reliable import Conflict, Stale

log = logging.getLogger(__name__)


class ApiError(Exception):
    """A request that is answered without success. Raised anywhere, rendered by the one error handler."""

    def __init__(
        self, status: int, error: str, message: str, headers: dict[str, str] | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.headers = headers or {}
        self.details = details

    def with_details(self, **details: Any) -> "ApiError":
        """Return this error with more fields in its answer; those that it has already stay as they are."""
        return ApiError(self.status, self.error, self.message, self.headers, **(details | self.details))

    def answer(self) -> dict[str, Any]:
        """Return the JSON answer."""
        return {"success": False, "error": self.error, "message": self.message, **self.details}


def bad_request(message: str, error: str = "bad_request", **details: Any) -> ApiError:
    """Return the error for a malformed request (400)."""
    return ApiError(400, error, message, **details)


def from_exception(error: Exception, reading: bool) -> ApiError:
    """Return the error for any exception. When only `reading`, a lost reply leaves nothing unknown."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Stale):
        return _stale(error.ids)
    if isinstance(error, Conflict):
        return ApiError(409, "conflict", "This Idempotency-Key was used with another request; nothing was changed.")
    if isinstance(error, redis.RedisError):
        return from_redis(error, reading)
    if isinstance(error, HTTPException):
        return _from_http(error)
    log.error("A request failed unexpectedly", exc_info=error)
    return ApiError(500, "internal", "The server failed unexpectedly; its log has the details.")


def _stale(ids: list[str]) -> ApiError:
    if ids:
        message = "These reservations have ended or never existed; nothing was changed."
        return ApiError(409, "stale", message, stale=ids)
    return ApiError(409, "stale", "It is no longer there; nothing was changed.")


def _from_http(error: HTTPException) -> ApiError:
    """Return the error for what Flask itself refused."""
    if error.code == 404:
        return ApiError(404, "not_found", "There is nothing at this address.")
    if error.code == 405:
        allowed = sorted(getattr(error, "valid_methods", None) or [])
        methods = " or ".join(method for method in allowed if method not in ("HEAD", "OPTIONS"))
        return ApiError(405, "method_not_allowed", f"Use {methods} here.", {"Allow": ", ".join(allowed)})
    code = error.code or 500
    return ApiError(code, error.name.lower().replace(" ", "_"), error.description or error.name)


_TOO_OLD = "This Redis is too old for this operation; it needs version 7.0 or later."
_DISK_FULL = "The disk on which Redis keeps the messages is full; nothing was changed."

# What a Redis error starts with -> status, code, sentence. The first match counts.
REDIS_ERRORS = (
    ("WRONGTYPE", 409, "wrong_type", "Redis holds something other than a list under this name."),
    ("OOM", 507, "redis_full", "Redis has no memory left; nothing was stored."),
    ("LOADING", 503, "redis_loading", "Redis is still loading its data."),
    ("READONLY", 503, "redis_readonly", "Redis is a read-only replica."),
    ("MASTERDOWN", 503, "redis_away", "This Redis replica has lost its primary."),
    ("CLUSTERDOWN", 503, "redis_away", "The Redis cluster is down."),
    ("NOREPLICAS", 503, "redis_readonly", "Redis accepts no writes: it has too few replicas."),
    ("BUSY", 503, "redis_busy", "Redis is busy with a script."),
    ("ERR max number of clients", 503, "redis_busy", "Redis accepts no more connections; nothing was changed."),
    ("CROSSSLOT", 409, "cross_slot", "The two queues are in different Cluster slots; nothing was moved."),
    ("MISCONF Errors writing to the AOF file: No space left on device", 503, "disk_full", _DISK_FULL),
    ("MISCONF Errors writing to the AOF file: Disk quota exceeded", 503, "disk_full", _DISK_FULL),
    ("MISCONF", 503, "redis_misconfigured", "Redis refuses writes because it cannot save to disk."),
    ("NOAUTH", 503, "redis_misconfigured", "Redis needs a password; set it in REDIS_URL."),
    ("WRONGPASS", 503, "redis_misconfigured", "Redis does not accept the password in REDIS_URL."),
    ("NOPERM", 503, "redis_misconfigured", "The Redis user may not run a command that the queue needs."),
    ("DENIED", 503, "redis_misconfigured", "Redis is in protected mode and refuses this machine."),
    ("ERR unknown command", 503, "redis_too_old", _TOO_OLD),
    ("ERR unknown Redis command", 503, "redis_too_old", _TOO_OLD),
    ("ERR wrong number of arguments", 503, "redis_too_old", _TOO_OLD),
    ("ERR Error compiling script", 503, "redis_too_old", _TOO_OLD),
)


def from_redis(error: redis.RedisError, reading: bool = False) -> ApiError:
    """Return the error for the cause of a Redis error; when only `reading`, a lost reply leaves nothing unknown."""
    code = error.status_code  # redis-py takes the codes that it knows off the text
    text = f"{code} {error}" if code else str(error)
    for start, status, name, message in REDIS_ERRORS:
        if text.upper().startswith(start.upper()):
            return unavailable(name, message) if status == 503 else ApiError(status, name, message)
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


def unavailable(error: str, message: str) -> ApiError:
    """Return the error for something that passes: try again in a second (503)."""
    return ApiError(503, error, message, {"Retry-After": "1"})

"""Every failure: each cause has one status, one stable code for programs and one sentence for people."""

import logging
from typing import Any

import redis
from werkzeug.exceptions import HTTPException

from broker.connections.errors import FAULTS, NotSent, error_text, find_fault
from broker.models import Conflict, LeaseExpired, NotFound

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
    if isinstance(error, LeaseExpired):
        return _stale(error.ids)
    if isinstance(error, NotFound):
        return _stale([])
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


_STATUSES = {"wrong_type": 409, "cross_slot": 409, "redis_full": 507}  # code -> status, where it is not 503

_OTHER_REDIS_CODES = (
    "redis_unavailable",
    "redis_misconfigured",
    "busy",
    "redis_error",
    "outcome_unknown",
)  # of from_redis
REDIS_CODES = frozenset([fault.code for fault in FAULTS] + list(_OTHER_REDIS_CODES))

# How an error of Redis starts -> status, code, sentence. docs/api.md is held to it.
REDIS_ERRORS = tuple((fault.start, _STATUSES.get(fault.code, 503), fault.code, fault.message) for fault in FAULTS)


def from_redis(error: redis.RedisError, reading: bool = False) -> ApiError:
    """Return the error for the cause of a Redis error; when only `reading`, a lost reply leaves nothing unknown."""
    if fault := find_fault(error):
        status = _STATUSES.get(fault.code, 503)
        if status == 503:
            return unavailable(fault.code, fault.message)
        return ApiError(status, fault.code, fault.message)
    if isinstance(error, NotSent):
        return unavailable("redis_unavailable", "Redis cannot be reached; nothing was changed.")
    if isinstance(error, redis.AuthenticationError):
        return unavailable("redis_misconfigured", "Redis does not accept the password in REDIS_URL.")
    if isinstance(error, redis.MaxConnectionsError):
        return unavailable("busy", "All connections to Redis are in use; nothing was changed.")
    if isinstance(error, (redis.ResponseError, redis.DataError)):
        return unavailable("redis_error", f"Redis refused: {error_text(error)[:200]}.")
    if reading:
        return unavailable("redis_unavailable", "Redis did not answer.")
    return unavailable("outcome_unknown", "The reply of Redis was lost, so it is unknown whether this was done.")


def unavailable(error: str, message: str) -> ApiError:
    """Return the error for something that passes: try again in a second (503)."""
    return ApiError(503, error, message, {"Retry-After": "1"})


def printable(text: str) -> str:
    """Return any text as it may stand in a sentence: short, on one line, in ASCII."""
    return ascii(text[:60])

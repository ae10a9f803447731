"""How the end of a job is settled: acked, with its result, or released, with its reason. Nothing here may fail."""

import logging
import math
import random
from collections.abc import Callable
from typing import Any

from seequeue.core.protocol import MAX_DELAY
from seequeue.core.verbs import Reserved, clean_reason, encode_result
from seequeue.errors import Reject, SeequeueError, Unavailable

log = logging.getLogger("seequeue")

MAX_BACKOFF = 3600.0  # seconds

RetryDelay = float | Callable[[int], float]


def backoff(deliveries: int) -> float:
    """Return the seconds until a retry: 1 to 2 after the first delivery, doubling each time, an hour at most.

    They are random, so that messages that failed together are not retried together.
    """
    return min(MAX_BACKOFF, 2.0 ** min(deliveries, 30)) * random.uniform(0.5, 1)


def reason_of(error: BaseException) -> str:
    """Return why a job failed, such as "ValueError: text", whatever the error's `str` does."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        return kind
    return clean_reason(f"{kind}: {text}" if text else kind) or kind


def delay_of(retry_delay: RetryDelay, deliveries: int) -> float:
    """Return the seconds until a retry; those of `backoff` if `retry_delay` fails or gives no number."""
    try:
        delay = float(retry_delay(deliveries) if callable(retry_delay) else retry_delay)
        if not math.isnan(delay):
            return max(0.0, min(delay, MAX_DELAY))
        log.warning("retry_delay gave no number; backing off instead.")
    except Exception:
        log.warning("retry_delay failed; backing off instead.", exc_info=True)
    return backoff(deliveries)


Outcome = tuple[str, str | dict[str, Any], int]  # the list of settle, the item there, the bytes of a result
NOTHING: Outcome = ("", "", 0)  # the work settled its message itself


def success(message: Reserved, result: Any, *, has_result: bool) -> Outcome:
    """Return the ack of a message, with its result if it carries the name of a job."""
    job = message.job if has_result else None
    if job is None:
        return "acks", message.id, 0
    try:
        encoded = encode_result(result)
    except Exception as error:
        return without_result(message, reason_of(error))
    size = len(encoded) if isinstance(encoded, str) else len(encoded["base64"])
    return "acks", {"id": message.id, "job": job, "result": encoded}, size


def without_result(message: Reserved, cause: str) -> Outcome:
    """Bury a message that was worked on, but whose result cannot be stored: to work again would not help."""
    log.error("The result of a job cannot be stored, so its message is rejected: %s", cause)
    return burial(message, f"The work was done, but its result cannot be stored: {cause}")


def burial(message: Reserved, reason: str) -> Outcome:
    """Return the release that makes a message a dead letter."""
    item: dict[str, Any] = {"id": message.id, "dead": True, "reason": clean_reason(reason)}
    return "releases", with_job(message, item), 0


def retry(message: Reserved, reason: str, delay: float) -> Outcome:
    """Return the release that delivers a message again after `delay` seconds, or buries it at its last delivery."""
    return "releases", with_job(message, {"id": message.id, "delay": delay, "reason": reason}), 0


def with_job(message: Reserved, item: dict[str, Any]) -> dict[str, Any]:
    """Let the producer of a job learn that it failed."""
    return {**item, "job": message.job} if message.job is not None else item


class Events:
    """What is logged of a job, and the hooks of a worker. A hook that fails is logged, and changes nothing."""

    def __init__(
        self,
        *,
        retry_delay: RetryDelay = backoff,
        on_start: Callable[[Any], object] | None = None,
        on_done: Callable[[Any, Any], object] | None = None,
        on_retry: Callable[[Any, BaseException, float], object] | None = None,
        on_reject: Callable[[Any, BaseException], object] | None = None,
    ) -> None:
        self.retry_delay = retry_delay
        self.on_start, self.on_done, self.on_retry, self.on_reject = on_start, on_done, on_retry, on_reject

    def call(self, hook: Callable[..., object] | None, *arguments: Any) -> None:
        """Call a hook, if there is one."""
        if hook is None:
            return
        try:
            hook(*arguments)
        except Exception:
            log.exception("The hook %r failed.", hook)

    def failed(self, message: Reserved, error: BaseException) -> Outcome:
        """Return the outcome of a message whose work raised an error."""
        reason = reason_of(error)
        if isinstance(error, Reject):
            log.warning("A message was rejected: %s", reason)
            self.call(self.on_reject, message, error)
            return burial(message, reason)
        log.warning("Delivery %d of a message failed: %s", message.deliveries, reason, exc_info=error)
        delay = delay_of(self.retry_delay, message.deliveries)
        if message.deliveries >= message.max_deliveries:
            self.call(self.on_reject, message, error)
        else:
            self.call(self.on_retry, message, error, delay)
        return retry(message, reason, delay)


def is_lasting(error: SeequeueError) -> bool:
    """Return whether an error of the server needs somebody: a wrong token, a name that is no queue."""
    passes = isinstance(error, Unavailable) or error.status in (408, 429) or error.code == "stale"
    return 400 <= error.status < 500 and not passes

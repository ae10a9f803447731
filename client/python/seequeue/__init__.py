"""A client of Seequeue, a message queue over HTTP: push messages, and process them with workers that lose none."""

from seequeue.core.messages import Listed, Payload
from seequeue.core.models import Age, Consumer, Counts, Pushed, Reason, Removed, Settings, Settled
from seequeue.errors import (
    BadMessage,
    JobFailed,
    LeaseExpired,
    Limited,
    OutcomeUnknown,
    Paused,
    Refused,
    Reject,
    SeequeueError,
    Unauthorized,
    Unavailable,
)
from seequeue.queue import AsyncMessage, AsyncQueue, Message, Queue
from seequeue.work.worker import AsyncWorker, Worker

__version__ = "2.0.0.dev0"

__all__ = [
    "Age",
    "AsyncMessage",
    "AsyncQueue",
    "AsyncWorker",
    "BadMessage",
    "Consumer",
    "Counts",
    "JobFailed",
    "LeaseExpired",
    "Limited",
    "Listed",
    "Message",
    "OutcomeUnknown",
    "Paused",
    "Payload",
    "Pushed",
    "Queue",
    "Reason",
    "Refused",
    "Reject",
    "Removed",
    "SeequeueError",
    "Settings",
    "Settled",
    "Unauthorized",
    "Unavailable",
    "Worker",
]

"""What the thread driver and the asyncio driver of a consumer share: its requests, and what their answers mean."""

import logging
import os
import re
import socket
from collections.abc import Iterable
from typing import Any, Generic

from seequeue.core.models import Settled, parse
from seequeue.core.protocol import ANSWER_TIMEOUT, Operation, backoff_of, check_names, once, post
from seequeue.core.verbs import Client, M
from seequeue.errors import Limited, Paused, Refused, SeequeueError
from seequeue.work.hand import Hand, Job, Settlement
from seequeue.work.outcomes import is_lasting, without_result

log = logging.getLogger("seequeue")

CLOSE_SECONDS = 5.0  # for which the end of a consumer waits for a server that is away


def default_name() -> str:
    """Return the name of this process as a consumer: host:pid."""
    host = re.sub("[^!-~]", "-", socket.gethostname())
    return f"{host[:50]}:{os.getpid()}"


class Link(Generic[M]):
    """The requests of a consumer, and whether the server answers them."""

    def __init__(
        self, client: Client[M], hand: Hand, *, names: Iterable[str], wait: float, by: str | None, until_empty: bool
    ) -> None:
        self.client, self.hand, self.by, self.until_empty = client, hand, by, until_empty
        self.names = check_names((*client.names, *names))
        self.wait = 0 if until_empty else wait
        self.failures = 0  # requests without an answer, since the last one with an answer
        self.is_warned = False
        self.error: SeequeueError | None = None  # one that needs somebody

    def reserve(self, max: int) -> Operation[list[M]]:
        """Reserve up to `max` messages, once."""
        joined = ",".join(self.names)
        url = self.client.path("reserve", joined or None)
        request = post(
            url,
            timeout=ANSWER_TIMEOUT + self.wait,
            max=max,
            lease=self.hand.lease,
            wait=self.wait or None,
            by=self.by or default_name(),
        )
        try:
            answer = yield from once(request, empty="empty")
        except Paused:
            if not self.until_empty:
                raise
            return []  # it has no message to give
        queue = answer.get("queue") or (self.names[0] if self.names else None)
        return [self.client.message(one, queue) for one in answer.get("messages", ())]

    def settle(self, request: Settlement) -> Operation[Settled]:
        """Settle, once; if the request is refused, each job for itself, so that one cannot hold up the others."""
        url = self.client.path("settle", request.queue)
        try:
            given: dict[str, Any] = {name: items for name, items in request.items(self.hand.lease).items() if items}
            answer = yield from once(post(url, **given))
            return parse(Settled, {**answer, "stale": tuple(answer["stale"])})
        except Refused as error:
            if len(request.finished) + len(request.extended) > 1:
                stale: list[str] = []
                for job in request.finished:
                    alone = Settlement(request.queue, request.sent, [job])
                    stale += (yield from self.settle(alone)).stale
                return Settled(stale=tuple(stale))
            self._refused(request, error)
            if request.finished and request.finished[0].kind:
                return (yield from self.settle(request))
            return Settled()

    def _refused(self, request: Settlement, error: Refused) -> None:
        """Replace an ack whose result is refused by a rejection; give up what is refused without a result."""
        for job in request.finished:
            if job.kind == "acks" and isinstance(job.item, dict):
                job.kind, job.item, job.size = without_result(job.message, error.message)
            else:
                log.error("A message was not settled, and comes back when its lease ends: %s", error)
                job.kind = ""

    def answered(self) -> None:
        """Note that the server answers."""
        self.failures = 0
        if self.is_warned:
            self.is_warned = False
            log.info("%s answers again.", self.client.url)

    def failed(self, error: Exception) -> float | None:
        """Note an error, and return after how many seconds to try again; None if somebody must do something."""
        if isinstance(error, Paused | Limited):
            self.answered()
            return min(1.0, error.retry_after or 1.0)
        if not isinstance(error, SeequeueError) or is_lasting(error):
            return None
        if not self.is_warned:
            self.is_warned = True
            log.warning("%s does not answer; trying again until it does. %s", self.client.url, error)
        self.failures += 1
        return max(backoff_of(self.failures), error.retry_after or 0)

    def report_lost(self, jobs: Iterable[Job]) -> None:
        """Warn of jobs whose leases ended before they were settled."""
        for job in jobs:
            what = "was settled" if job.kind else "was done"
            log.warning("The lease of message %s ended before it %s, so it is delivered again.", job.message.id, what)

    def report_given_up(self, number: int) -> None:
        """Warn of messages that cannot be settled, as the server does not answer."""
        if number:
            log.warning(
                "%s does not answer. Messages that come back when their leases end: %d", self.client.url, number
            )

"""What a consumer has in hand, and what to ask the server next. No I/O and no clock: each method is given the time.

A message in hand waits (it was prefetched), runs, or is finished and to be settled. As many are prefetched as the
measured time of a job lets start within about 100 ms. What has waited for half a second is given back, as another
consumer may be idle. It goes to the front, and its delivery does not count, as no work was started.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from seequeue.core.models import Settled
from seequeue.core.protocol import MAX_BATCH
from seequeue.core.verbs import Reserved

MAX_PREFETCH = MAX_BATCH  # messages, what one reserve can take
MAX_PREFETCH_BYTES = 8 << 20
PREFETCH_SECONDS = 0.1  # of work that is prefetched
MAX_WAIT_IN_HAND = 0.5  # seconds until a message that waits is given back
LINGER = 0.005  # seconds in which finished jobs gather, so that one request settles many
MAX_SETTLED = 500  # messages in one request
MAX_SETTLED_BYTES = 4 << 20  # of results
RENEW_AFTER = 1 / 3  # of a lease
RETRY_SECONDS = 0.5  # until a request that was not answered is repeated
KEPT_SECONDS = 5.0  # for which a settlement is repeated after the end of its lease
WEIGHT = 0.2  # of the last job in the mean time of jobs


class Job:
    """A message in hand."""

    __slots__ = (
        "expires",
        "is_lost",
        "is_renewed",
        "is_sent",
        "item",
        "kind",
        "message",
        "received",
        "size",
        "started",
    )

    def __init__(self, message: Reserved, now: float, expires: float) -> None:
        self.message, self.received, self.expires = message, now, expires
        self.started = 0.0
        self.is_renewed = True
        self.is_lost = False  # its lease has ended: another consumer may have it
        self.is_sent = False  # it may have been settled: the answer was lost
        self.kind = ""  # "acks" or "releases", once it is finished
        self.item: str | dict[str, Any] = message.id
        self.size = 0  # bytes of its result


@dataclass
class Settlement:
    """One request to settle, about jobs of one queue."""

    queue: str | None
    sent: float
    finished: list[Job] = field(default_factory=list)
    returned: list[Job] = field(default_factory=list)
    extended: list[Job] = field(default_factory=list)

    def items(self, lease: float) -> dict[str, list[Any]]:
        """Return the lists that settle takes."""
        lists: dict[str, list[Any]] = {"acks": [], "releases": []}
        for job in (*self.finished, *self.returned):
            lists[job.kind].append(job.item)
        return {**lists, "extends": [{"id": job.message.id, "lease": lease} for job in self.extended]}


class Hand:
    """What a consumer with `slots` places to work has in hand; a place takes up to `batch` messages at once."""

    def __init__(self, *, slots: int = 1, batch: int = 1, lease: float = 30) -> None:
        self.slots, self.batch, self.lease = slots, batch, lease
        self.idle = 0  # places that wait for a message; the driver counts them
        self.waiting: deque[Job] = deque()
        self.running: dict[Job, None] = {}
        self.finished: deque[Job] = deque()
        self.returned: list[Job] = []  # what goes back to the front, in the order of the queue
        self.settling: list[Job] = []
        self.waiting_bytes = 0
        self.mean: float | None = None  # seconds a job
        self.last_start = -math.inf
        self.renew_at = math.inf  # no lease is to be renewed before
        self.retry_at = -math.inf  # when the next request may be sent, after one that was not answered
        self.is_stopping = False

    @property
    def is_clear(self) -> bool:
        """Whether nothing is in hand."""
        return not (self.waiting or self.running or self.finished or self.returned or self.settling)

    # --- taking

    def want(self, now: float) -> int:
        """Return how many messages to reserve now."""
        if self.is_stopping:
            return 0
        places, prefetch = self.idle * self.batch, self._prefetch(now)
        if len(self.waiting) >= places and len(self.waiting) > prefetch // 2:
            return 0  # ask again when half of it has been used
        return max(0, min(places + prefetch - len(self.waiting), MAX_PREFETCH))

    def _prefetch(self, now: float) -> int:
        """Return how many messages may wait in hand, beside those for idle places."""
        if self.mean is None or self.waiting_bytes > MAX_PREFETCH_BYTES:
            return 0
        if not self.idle and now - self.last_start > PREFETCH_SECONDS:
            return 0  # what runs now takes long, whatever it took before
        return int(min(MAX_PREFETCH, PREFETCH_SECONDS * self.slots * self.batch / max(self.mean, 1e-6)))

    def receive(self, messages: Iterable[Reserved], now: float) -> None:
        """Take messages in hand that were reserved just now."""
        for message in messages:
            self.waiting.append(Job(message, now, now + self.lease))
            self.waiting_bytes += len(message)
        self.renew_at = min(self.renew_at, now + self.lease * RENEW_AFTER)

    def take(self, now: float) -> list[Job]:
        """Start the next jobs: up to `batch`, all of one queue. Return [] if there are none.

        A message that was delivered before is started alone: it may be the one that made its batch fail.
        """
        jobs: list[Job] = []
        while self.waiting and len(jobs) < self.batch and not self.is_stopping:
            job = self.waiting[0]
            if jobs and (job.message.queue != jobs[0].message.queue or job.message.deliveries > 1):
                break
            self.waiting.popleft()
            self.waiting_bytes -= len(job.message)
            if job.expires > now:  # else it has been in hand for longer than its lease
                job.started = self.last_start = now
                self.running[job] = None
                jobs.append(job)
                if job.message.deliveries > 1:
                    break
        return jobs

    def renew(self, job: Job, *, is_on: bool) -> None:
        """Renew the lease of a running job from now on, or not."""
        job.is_renewed = is_on
        if is_on:
            self.renew_at = min(self.renew_at, job.expires - self.lease * (1 - RENEW_AFTER))

    # --- finishing

    def finish(self, job: Job, kind: str, item: str | dict[str, Any], now: float, size: int = 0) -> None:
        """End a job that runs: `kind` is "acks" or "releases", `item` what settle takes there; "" if it is settled."""
        if job not in self.running:
            return  # given back at the end of the grace
        seconds = now - job.started
        self.mean = seconds if self.mean is None else self.mean + WEIGHT * (seconds - self.mean)
        del self.running[job]
        job.kind, job.item, job.size = kind, item, size
        if kind and not job.is_lost:
            self.finished.append(job)

    def give_back(self, job: Job, reason: str | None = None) -> None:
        """Release a job that runs to the front, without a delay, and what waits behind it, so that the order holds."""
        if job in self.running:
            del self.running[job]
            job.kind, job.item = "releases", {"id": job.message.id, "reason": reason} if reason else job.message.id
            self.return_waiting()
            self.returned.insert(0, job)

    def stop(self) -> None:
        """Take no more messages, and start none of those that wait. `return_waiting` follows, when no more can come."""
        self.is_stopping = True

    def return_waiting(self) -> None:
        """Give back what waits."""
        for job in self.waiting:
            job.kind, job.item = "releases", {"id": job.message.id, "unstarted": True}
        self.returned += self.waiting
        self.waiting.clear()
        self.waiting_bytes = 0

    # --- settling

    def settlement(self, now: float) -> Settlement | None:
        """Return the next request to send, or None. `settled` or `unanswered` must follow, before the next one."""
        if now < self.retry_at or self.settling:
            return None
        if now >= self._late_at():
            self.return_waiting()
        extended = self._to_extend(now)
        if not extended and now < self._settle_at():
            return None
        queue = (extended or self.finished or self.returned[-1:])[0].message.queue
        request = Settlement(queue, now, extended=[job for job in extended if job.message.queue == queue][:MAX_SETTLED])
        kept: deque[Job] = deque()
        size = 0
        while self.finished and len(request.finished) < MAX_SETTLED and size <= MAX_SETTLED_BYTES:
            job = self.finished.popleft()
            if job.message.queue == queue:
                request.finished.append(job)
                size += job.size
            else:
                kept.append(job)
        self.finished.extendleft(reversed(kept))
        room = MAX_SETTLED - len(request.finished)
        while self.returned and len(request.returned) < room and self.returned[-1].message.queue == queue:
            request.returned.insert(0, self.returned.pop())  # the last first: what is released later is ahead of it
        self.settling = request.finished + request.returned
        return request

    def _settle_at(self) -> float:
        """Return when to settle what is finished; it lingers only while more is to come."""
        if self.returned:
            return -math.inf
        if not self.finished:
            return math.inf
        is_due = self.is_stopping or not self.waiting or len(self.finished) >= MAX_SETTLED
        return -math.inf if is_due else self.finished[0].started + LINGER

    def _late_at(self) -> float:
        """Return when the first of what waits is to be given back."""
        return self.waiting[0].received + MAX_WAIT_IN_HAND if self.waiting else math.inf

    def _to_extend(self, now: float) -> list[Job]:
        """Return the jobs whose leases are to be renewed: all, as soon as one of them is due."""
        if now < self.renew_at:
            return []
        held = [job for job in (*self.running, *self.waiting) if job.is_renewed and not job.is_lost]
        self.renew_at = min((job.expires for job in held), default=math.inf) - self.lease * (1 - RENEW_AFTER)
        return held if now >= self.renew_at else []

    def settled(self, request: Settlement, answer: Settled) -> list[Job]:
        """Note the answer to a request. Return those that others may have, as their leases had ended."""
        self.settling, self.retry_at = [], -math.inf
        stale = set(answer.stale)
        for job in request.extended:
            job.expires = request.sent + self.lease
        lost = [job for job in (*request.finished, *request.extended) if job.message.id in stale]
        for job in lost:
            job.is_lost = True
        if lost:
            self.waiting = deque(job for job in self.waiting if not job.is_lost)
            self.waiting_bytes = sum(len(job.message) for job in self.waiting)
        self.renew_at = -math.inf if request.extended else self.renew_at  # it is computed anew
        return [job for job in lost if not job.is_sent]

    def unanswered(self, request: Settlement, now: float) -> list[Job]:
        """Keep what a request without an answer was to settle for the next one. Return the jobs that are given up."""
        self.settling, self.retry_at = [], now + RETRY_SECONDS
        for job in request.finished:
            job.is_sent = True
        self.finished.extendleft(job for job in reversed(request.finished) if job.expires + KEPT_SECONDS > now)
        self.returned += [job for job in request.returned if job.expires > now]
        return [job for job in request.finished if job.expires + KEPT_SECONDS <= now]

    def next_time(self) -> float:
        """Return when `settlement` will have something to send if nothing happens; infinity if never."""
        return max(min(self._settle_at(), self._late_at(), self.renew_at), self.retry_at)

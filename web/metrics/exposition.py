"""`GET /metrics` in the formats of Prometheus: the state of the queues and the counts of this instance.

The state comes from Redis and is the same in every instance. The counts must be summed over all instances.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import redis
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from broker.connections.errors import is_transient
from broker.listing import Listing
from broker.models import QueueCounts, QueueStats
from web import __version__
from web.counters import BOUNDS, MAX_QUEUES, OTHERS, Key
from web.live.age import age_of, record_state
from web.services import Services

REDIS_UP = "1 if Redis answered this scrape."
# Metrics of each queue -> help, and the value, None if it is unknown.
GAUGES: dict[str, tuple[str, Callable[["_Queue"], float | None]]] = {
    "queue_waiting_messages": ("Waiting messages.", lambda queue: queue.counts.count),
    "queue_reserved_messages": ("Reserved messages.", lambda queue: queue.counts.reserved),
    "queue_delayed_messages": ("Delayed messages.", lambda queue: queue.counts.delayed),
    "queue_paused": ("1 if the queue is paused.", lambda queue: queue.counts.paused),
    "queue_dead_messages": ("Dead letters.", lambda queue: queue.counts.dead),
    "queue_waiters": ("Clients waiting for a message.", lambda queue: queue.counts.waiters),
    "queue_head_age_seconds": (
        "Seconds for which the next message has waited, or at least that many. Missing if it is unknown.",
        lambda queue: queue.age,
    ),
}
REDIS_COUNTERS: dict[str, tuple[str, Callable[["_Queue"], float | None]]] = {
    "queue_expired": ("Leases that have expired, counted in Redis.", lambda queue: queue.stats.expired),
    "queue_buried": ("Messages that became dead letters, counted in Redis.", lambda queue: queue.stats.buried),
}
COUNTERS = {  # of this instance's processes: metric -> help, event, labels
    "queue_pushed": ("Messages pushed through this instance.", "pushed", ["queue"]),
    "queue_popped": ("Messages popped through this instance.", "popped", ["queue"]),
    "queue_reserved": ("Messages reserved through this instance.", "reserved", ["queue"]),
    "queue_acked": ("Messages acked through this instance.", "acked", ["queue"]),
    "queue_released": ("Messages released through this instance.", "released", ["queue"]),
    "queue_requests": ("Requests by operation, or kind of page, and status.", "requests", ["operation", "status"]),
    "queue_redis_errors": ("Answers with a Redis error, by error code.", "redis_errors", ["code"]),
}


@dataclass(frozen=True)
class _Queue:
    name: str
    counts: QueueCounts
    stats: QueueStats
    age: int | None  # of the next message; 0 if there is none


def render(services: Services, accept: str) -> tuple[bytes, str]:
    """Return the metrics and their content type, in the format that an Accept header prefers."""
    encode, content_type = choose_encoder(accept)
    return encode(Metrics(services)), content_type


class Metrics:
    """The metrics of one scrape. At most MAX_QUEUES queues have a label of their own, the largest ones."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.counts = services.counters.totals()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; while Redis is unavailable, only the counts of this instance."""
        info = GaugeMetricFamily("queue_info", "Always 1; the label has the version.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield from self._counters()
        yield self._seconds()
        try:
            state = list(self._from_redis())
        except redis.RedisError:
            yield GaugeMetricFamily("queue_redis_up", REDIS_UP, 0)
        else:
            yield GaugeMetricFamily("queue_redis_up", REDIS_UP, 1)
            yield from state

    # --- the counts of this instance

    def _counters(self) -> Iterator[Metric]:
        for metric, (about, event, labels) in COUNTERS.items():
            numbers: Counter[Key] = Counter()
            for (kind, *values), (number, _) in self.counts.items():
                if kind == event:
                    numbers[tuple(values[: len(labels)])] += int(number)
            family = CounterMetricFamily(metric, about, labels=labels)
            for key in sorted(numbers):
                family.add_metric(key, numbers[key])
            yield family

    def _seconds(self) -> Metric:
        about = "Seconds from a request to the start of its answer, including long polling."
        family = HistogramMetricFamily("queue_request_seconds", about, labels=["operation"])
        requests = [(key, *counts) for key, counts in self.counts.items() if key[0] == "requests"]
        for operation in sorted({key[1] for key, *_ in requests}):
            rows = [(key[3], number, seconds) for key, number, seconds in requests if key[1] == operation]
            family.add_metric([operation], _buckets(rows), sum(seconds for *_, seconds in rows))
        return family

    # --- the state of the queues

    def _from_redis(self) -> Iterator[Metric]:
        listing = self.services.lister.list_queues()
        named = self._choose(listing)
        others = [queue for queue in listing.queues if queue.name not in named]
        queues = [queue for name in named if (queue := self._measure(name))]
        yield GaugeMetricFamily("queue_queues", "Queues that hold something.", len(listing.queues))
        about = f"Queues without a label of their own, because there are more than {MAX_QUEUES}."
        yield GaugeMetricFamily("queue_queues_unlabelled", about, len(others))
        about = "0 if Redis has too many keys to scan all of them, so queues may be missing."
        yield GaugeMetricFamily("queue_listing_complete", about, listing.complete)
        rest = {
            "queue_waiting_messages": sum(queue.counts.count for queue in others),
            "queue_reserved_messages": sum(queue.counts.reserved for queue in others),
            "queue_dead_messages": sum(queue.counts.dead for queue in others),
        }
        for metric, (about, value_of) in (GAUGES | REDIS_COUNTERS).items():
            kind = GaugeMetricFamily if metric in GAUGES else CounterMetricFamily
            family = kind(metric, about, labels=["queue"])
            for queue in queues:
                if (value := value_of(queue)) is not None:
                    family.add_metric([queue.name], value)
            if others and metric in rest:
                family.add_metric([OTHERS], rest[metric])
            yield family

    def _choose(self, listing: Listing) -> list[str]:
        """Return the queues that get a label: the default queue, the largest ones, then those used in this instance."""
        largest = sorted(
            listing.queues, key=lambda queue: -(queue.counts.count + queue.counts.reserved + queue.counts.dead)
        )
        used = sorted(key[1] for key in self.counts if key[0] in ("pushed", "popped", "reserved"))
        names = [self.services.settings.queue_name, *(queue.name for queue in largest), *used]
        return [name for name in dict.fromkeys(names) if name != OTHERS][:MAX_QUEUES]

    def _measure(self, name: str) -> _Queue | None:
        queue, history = self.services.queue(name), self.services.history
        try:
            state, stats = queue.state(1), queue.stats()
        except redis.ResponseError as error:
            if is_transient(error):
                raise
            return None  # one broken queue must not hide the others
        arrival = record_state(history, name, state)
        age = age_of(arrival, history) if state.counts.count else {"seconds": 0}
        return _Queue(name, state.counts, stats, age["seconds"] if age else None)


def _buckets(counts: list[tuple[str, float, float]]) -> list[tuple[str, float]]:
    """Return the cumulative number of requests for each bound, from rows of bound, number and seconds."""
    numbers: Counter[str] = Counter()
    for bound, number, _ in counts:
        numbers[bound] += int(number)
    return list(zip(BOUNDS, accumulate(numbers[bound] for bound in BOUNDS), strict=True))

"""Jobs: messages that are reserved, then acked."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import load
from benchmarks.measure import CLIENTS, FORM, ROUNDS, alternate, loaded, ratio
from benchmarks.results import NO_GOAL, Row, at_least, at_most
from broker.models import Ack, Extend, Release
from broker.queue import ReliableQueue
from tests.servers import App, Store

NUMBER = 1000  # messages of a round
MESSAGE = b"a message of a few words"
RESERVE, POP = load.request("/api/queue/reserve"), load.request("/api/queue/pop")
PUSH = load.request("/api/queue/push", FORM)


def reserve_or_ack(answer: bytes) -> bytes:
    """Return the request of a worker after an answer: to ack what it has reserved, or to reserve."""
    _, found, rest = answer.partition(b'"id":"')
    return load.request("/api/queue/ack", b"id=" + rest.partition(b'"')[0]) if found else RESERVE


def push_or_pop(answer: bytes) -> bytes:
    """Return a pop after a push, and a push after a pop."""
    return POP if b'"count":' in answer else PUSH


def jobs(ours: App, store: Store) -> Iterator[Row]:
    """Jobs over HTTP, and what they cost Redis."""
    client = store.client()
    print("Jobs", flush=True)

    def fill() -> None:
        client.flushall()
        for _ in range(40):
            client.lpush("queue:default", *[MESSAGE] * NUMBER)

    found = alternate(
        {"reserve and ack": loaded(ours, reserve_or_ack, fill), "push and pop": loaded(ours, push_or_pop, fill)}
    )
    value, detail = ratio(found, "reserve and ack", "push and pop")
    yield at_least("reserve and ack : push and pop", value, 0.85, detail)
    yield from redis_time(client, ReliableQueue(client, "bench"))
    client.flushall()


def redis_time(client: Any, queue: ReliableQueue) -> Iterator[Row]:
    """The time that Redis takes for each operation, beside that of the usual pattern: LMOVE, later LREM."""
    found: dict[str, list[float]] = {}

    def measure(name: str, operation: Callable[[Any], Any], arguments: Sequence[Any], *commands: str) -> list[Any]:
        """Call an operation with each argument, many at once, as the clients of a busy server do."""
        client.config_resetstat()
        with ThreadPoolExecutor(CLIENTS) as pool:
            results = list(pool.map(operation, arguments))
        stats = client.info("commandstats")
        time = sum(stats[f"cmdstat_{one}"]["usec"] for one in commands)
        found.setdefault(name, []).append(time / len(arguments))
        return results

    def move_and_remove(_: int) -> None:
        client.lrem("bench:work", 1, client.lmove("bench:queue", "bench:work", "RIGHT", "LEFT"))

    for round_ in range(ROUNDS + 1):
        if round_ == 1:
            found.clear()  # the first warms up
        queue.push(*[MESSAGE] * NUMBER)
        ids = measure("reserve", lambda _: queue.reserve().messages[0].id, range(NUMBER), "evalsha")
        measure("ack", queue.ack, ids, "evalsha")
        queue.push(*[MESSAGE] * NUMBER)
        ids = [one.id for one in queue.reserve(max=NUMBER).messages]
        batch = [Ack(id) for id in ids[:400]], [Release(id) for id in ids[400:800]], [Extend(id) for id in ids[800:]]
        measure("settle", lambda batch: queue.settle(*batch), [batch], "evalsha")
        queue.clear()
        client.lpush("bench:queue", *[MESSAGE] * NUMBER)
        measure("plain", move_and_remove, range(NUMBER), "lmove", "lrem")
    reserve, ack, settle, plain = (statistics.median(found[name]) for name in ("reserve", "ack", "settle", "plain"))
    yield Row("Redis time, reserve and ack : LMOVE and LREM", (reserve + ack) / plain, NO_GOAL, True, f"{plain:.1f} us")
    yield at_most("us of Redis for a reserve", reserve, 20, f"at best {min(found['reserve']):.1f}")
    yield at_most("us of Redis for an ack", ack, 20, f"at best {min(found['ack']):.1f}")
    yield at_most("ms of Redis to settle 1,000 messages", settle / 1000, 20)

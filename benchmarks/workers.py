"""Workers of the Python client: jobs that do nothing, from the queue to the last ack."""

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seequeue import AsyncQueue, Queue

from benchmarks.measure import cpu
from benchmarks.results import NO_GOAL, Row, at_least
from tests.servers import App, Store, running

JOBS = 20_000
ROUNDS = 5
CONCURRENCY = 16
MESSAGE = "a message of a few words"


def workers(plain: Store, folder: Path) -> Iterator[Row]:
    """Jobs a second on plain Redis and with `appendfsync always`, and how soon a job starts on a quiet queue."""
    print("Workers of the Python client", flush=True)
    with running(App(folder / "workers", REDIS_URL=plain.url)) as app:
        for name, run in {"threads": with_threads, "tasks": with_tasks}.items():
            yield rate(f"jobs/s of a worker with {CONCURRENCY} {name}", app, run, 12_000)
        yield Row("ms from a push to the start of its work, median", idle(Queue("idle", url=app.url)), NO_GOAL, True)
    with running(App(folder / "workers-embedded")) as app:
        yield rate(f"jobs/s of a worker with {CONCURRENCY} threads, embedded server", app, with_threads, 6_000)


def with_threads(url: str) -> None:
    Queue("jobs", url=url).worker(concurrency=CONCURRENCY, until_empty=True)(lambda _: None).run()


def with_tasks(url: str) -> None:
    async def work(_: Any) -> None: ...

    async def run() -> None:
        async with AsyncQueue("jobs", url=url) as queue:
            await queue.worker(concurrency=CONCURRENCY, until_empty=True)(work).run()

    asyncio.run(run())


def rate(title: str, app: App, run: Callable[[str], None], goal: float) -> Row:
    """Return the median number of jobs per second, and the CPU time of the client and of the server for each."""
    queue = Queue("jobs", url=app.url)
    rates, ours, theirs = [], [], []
    for _ in range(ROUNDS):
        queue.push_many([MESSAGE] * JOBS)
        server, client, start = cpu(app.workers()), time.process_time(), time.perf_counter()
        run(app.url)
        rates.append(JOBS / (time.perf_counter() - start))
        ours.append(1e6 * (time.process_time() - client) / JOBS)
        theirs.append(1e6 * (cpu(app.workers()) - server) / JOBS)
        assert queue.count().count == queue.count().reserved == 0
    detail = (
        f"{statistics.median(ours):.1f} us CPU of the client, {statistics.median(theirs):.1f} of the server's workers"
    )
    print(f"    {title}: {statistics.median(rates):,.0f}, {detail}", flush=True)
    return at_least(title, statistics.median(rates), goal, detail)


def idle(queue: Queue) -> float:
    """Return the milliseconds from the call of push to the start of the work, on a queue that was empty."""
    started, waits = threading.Event(), list[float]()

    @queue.worker(concurrency=CONCURRENCY)
    def work(message: Any) -> None:
        waits.append(1000 * (time.time() - float(message.text)))
        started.set()

    thread = threading.Thread(target=work.run, daemon=True)
    thread.start()
    for _ in range(100):
        started.clear()
        queue.push(str(time.time()))
        started.wait(10)
    work.stop()
    thread.join()
    return statistics.median(waits)

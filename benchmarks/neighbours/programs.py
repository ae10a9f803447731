"""A program for each library: `python -m benchmarks.neighbours.programs NAME fill|send|work`.

REDIS_URL names the server. `fill` enqueues JOBS jobs, `send` one for each line of standard input, and `work` runs the
worker. All settings are the library's defaults, except for the number of concurrent jobs and the log, which is off.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.neighbours.job import JOBS, job

URL = os.environ["REDIS_URL"]
CONCURRENCY = 16


@dataclass
class Program:
    """How a library enqueues a job, runs its worker, and enqueues JOBS jobs, if it has a quicker way for many."""

    push: Callable[[int], Any]
    work: Callable[[], Any]
    fill: Callable[[], Any] | None = None


def seequeue() -> Program:
    from seequeue import Queue

    queue = Queue("jobs")
    worker = queue.worker(concurrency=CONCURRENCY)(lambda message: job(int(message)))
    return Program(lambda sent: queue.push(str(sent)), worker.run, lambda: queue.push_many(["0"] * JOBS))


def seequeue_tasks() -> Program:
    from seequeue import AsyncQueue

    async def one(message: Any) -> None:
        job(int(message))

    async def work() -> None:
        async with AsyncQueue("jobs") as queue:
            await queue.worker(concurrency=CONCURRENCY)(one).run()

    return replace(seequeue(), work=lambda: asyncio.run(work()))


def rq() -> Program:
    from redis import Redis
    from rq import Queue, SimpleWorker

    connection = Redis.from_url(URL)
    queue = Queue(connection=connection)
    worker = SimpleWorker([queue], connection=connection)
    return Program(lambda sent: queue.enqueue(job, sent), lambda: worker.work(logging_level="WARNING"))


def celery(pool: str) -> Program:
    from celery import Celery, maybe_patch_concurrency

    arguments = ["--quiet", "worker", f"--pool={pool}", f"--concurrency={CONCURRENCY}", "--loglevel=WARNING"]
    if sys.argv[2] == "work":
        maybe_patch_concurrency(["celery", *arguments])
    app = Celery(broker=URL)
    return Program(app.task(job).delay, lambda: app.worker_main(arguments))


def huey() -> Program:
    from huey import RedisHuey

    app = RedisHuey(url=URL)
    return Program(app.task()(job), lambda: app.create_consumer(workers=CONCURRENCY).run())


def dramatiq() -> Program:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=URL)
    dramatiq.set_broker(broker)
    actor = dramatiq.actor(job)

    def work() -> None:
        dramatiq.Worker(broker, worker_threads=CONCURRENCY).start()
        signal.pause()

    return Program(actor.send, work)


PROGRAMS: dict[str, Callable[[], Program]] = {
    "Seequeue": seequeue,
    "Seequeue, tasks": seequeue_tasks,
    "RQ": rq,
    "Celery, gevent": lambda: celery("gevent"),
    "Celery, threads": lambda: celery("threads"),
    "huey": huey,
    "dramatiq": dramatiq,
}


def main() -> None:
    program = PROGRAMS[sys.argv[1]]()
    if sys.argv[2] == "work":
        program.work()
    elif sys.argv[2] == "send":
        for _ in sys.stdin:
            program.push(time.monotonic_ns())
    elif program.fill:
        program.fill()
    else:
        for _ in range(JOBS):
            program.push(0)


if __name__ == "__main__":
    main()

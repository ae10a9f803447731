"""One program a neighbour: `python -m benchmarks.neighbours.programs NAME fill|send|work`. REDIS_URL names the server.

`fill` enqueues JOBS jobs, `send` one for each line of standard input, and `work` runs the worker. All settings are the
neighbour's own, except for the number of concurrent jobs and for logs, which are off.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.neighbours.job import JOBS, job

URL = os.environ["REDIS_URL"]
CONCURRENCY = 16
Program = tuple[Callable[[int], Any], Callable[[], Any]]  # enqueues a job and runs the worker


def rq() -> Program:
    from redis import Redis
    from rq import Queue, SimpleWorker

    connection = Redis.from_url(URL)
    queue = Queue(connection=connection)
    worker = SimpleWorker([queue], connection=connection)
    return lambda sent: queue.enqueue(job, sent), lambda: worker.work(logging_level="WARNING")


def celery(pool: str) -> Program:
    from celery import Celery, maybe_patch_concurrency

    arguments = ["--quiet", "worker", f"--pool={pool}", f"--concurrency={CONCURRENCY}", "--loglevel=WARNING"]
    if sys.argv[2] == "work":
        maybe_patch_concurrency(["celery", *arguments])
    app = Celery(broker=URL)
    return app.task(job).delay, lambda: app.worker_main(arguments)


def huey() -> Program:
    from huey import RedisHuey

    app = RedisHuey(url=URL)
    return app.task()(job), lambda: app.create_consumer(workers=CONCURRENCY).run()


def dramatiq() -> Program:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=URL)
    dramatiq.set_broker(broker)
    actor = dramatiq.actor(job)

    def work() -> None:
        dramatiq.Worker(broker, worker_threads=CONCURRENCY).start()
        signal.pause()

    return actor.send, work


PROGRAMS: dict[str, Callable[[], Program]] = {
    "RQ": rq,
    "Celery, gevent": lambda: celery("gevent"),
    "Celery, threads": lambda: celery("threads"),
    "huey": huey,
    "dramatiq": dramatiq,
}


def main() -> None:
    push, work = PROGRAMS[sys.argv[1]]()
    if sys.argv[2] == "work":
        work()
    elif sys.argv[2] == "fill":
        for _ in range(JOBS):
            push(0)
    else:
        for _ in sys.stdin:
            push(time.monotonic_ns())


if __name__ == "__main__":
    main()

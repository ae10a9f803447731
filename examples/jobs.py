"""A worker whose jobs are retried with back-off, buried with a reason, and answered with a result.

Run `python -m examples.jobs` from the project's root; stop it with SIGTERM. A job is JSON like
{"job": "sum-1", "numbers": [1, 2, 3]}, and its result is the sum. `fail` lets so many deliveries fail, as if another
service were away; `seconds` lets the work take so long.
"""

import json
import logging
import time

from broker.connections.connection import connect
from broker.consumer import Message, Reject, consume
from broker.queue import ReliableQueue
from settings import from_environment


def work(message: Message) -> None:
    """Do a job, and keep its result."""
    try:
        task = json.loads(message)
        job, numbers = task["job"], [float(number) for number in task["numbers"]]
    except (ValueError, TypeError, KeyError) as error:
        raise Reject(f"not a job: {error!r}") from None  # trying again would not help
    print(f"{job}: delivery {message.deliveries}", flush=True)
    if message.deliveries <= task.get("fail", 0):
        raise ConnectionError("the other service is away")
    time.sleep(task.get("seconds", 0))
    message.result = job, f"{sum(numbers):g}".encode()


def main() -> None:
    logging.basicConfig(format="%(message)s")
    settings = from_environment()  # REDIS_URL, or the embedded server that `make run` has started
    queue = ReliableQueue(
        connect(settings.server_url), settings.queue_name, settings.queue_prefix, settings.max_deliveries
    )
    for message in consume(queue, lease=5):
        with message:
            work(message)


if __name__ == "__main__":
    main()

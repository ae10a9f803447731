"""A consumer that loses nothing. Run `python -m examples.worker` from the project's root; stop it with SIGTERM."""

import sys

from broker.connections.connection import connect
from broker.consumer import consume
from broker.queue import ReliableQueue
from settings import from_environment

settings = from_environment()  # REDIS_URL, or the embedded server that `make run` has started
queue = ReliableQueue(
    connect(settings.server_url), settings.queue_name, settings.queue_prefix, max_deliveries=settings.max_deliveries
)
for message in consume(queue, lease=30, wait=20):
    sys.stdout.buffer.write(message + b"\n")  # as it is, whatever the locale
    sys.stdout.flush()

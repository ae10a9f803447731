"""A consumer that loses nothing: start as many as you like, stop them with SIGTERM."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from broker.connection import connect
from RedisQueue import RedisQueue
from settings import from_environment

settings = from_environment()  # REDIS_URL, or the embedded server that `make run` has started
queue = RedisQueue(connect(settings["REDIS_URL"]), settings["QUEUE_NAME"], settings["QUEUE_PREFIX"])
for message in queue.consume(lease=30, wait=20):
    print(message.decode(errors="replace"), flush=True)

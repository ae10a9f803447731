"""A consumer that loses nothing: run it as often as you like, stop it with SIGTERM."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import redis

from RedisQueue import RedisQueue

queue = RedisQueue(redis.Redis.from_url(os.environ["REDIS_URL"]), os.environ.get("QUEUE_NAME", "default"))
print("waiting for messages", flush=True)
for message in queue.consume(lease=30, wait=20):
    print(message.decode(errors="replace"), flush=True)

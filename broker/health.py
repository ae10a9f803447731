"""Does the Redis server serve the queue, and keep what it is given?"""

import contextlib
from typing import Any

import redis

# A script that does nothing. It may write, as those of the queue may, so it is refused when they are: on a replica, or
# when Redis cannot save.
CHECK_SCRIPT = "#!lua flags=allow-oom\nreturn 1"


def check_server(client: Any) -> None:
    """Return if the queue can be used.

    Raises:
        redis.RedisError: Redis is away, or would refuse the queue's scripts.
    """
    client.eval(CHECK_SCRIPT, 0)


def find_warning(client: Any) -> str:
    """Return a sentence about a setting of the server that can lose messages, "" if there is none.

    Raises:
        redis.ConnectionError: the server cannot be reached.
    """
    with contextlib.suppress(redis.ResponseError):  # a user that may not run INFO cannot be warned
        policy = client.info("memory").get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            return f"Redis deletes messages when its memory is full: its maxmemory-policy is {policy}, not noeviction."
    return ""

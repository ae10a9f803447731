"""Is the Redis server set up so that it keeps what it is given?"""

import contextlib
from typing import Any

import redis


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

"""RESP3 pushes: messages that a server sends on its own, read on a dedicated connection."""

from collections.abc import Generator, Sequence
from typing import Any

import redis

from broker.connections.errors import lacks_flags
from broker.connections.health import CHECK_SCRIPT


def iter_pushes(client: Any, command: Sequence[str], check_interval: float) -> Generator[list[Any]]:
    """Send a command on a new connection, then yield what the server pushes.

    Yield [] once the command has succeeded, and whenever nothing came for `check_interval` seconds. The connection is
    then checked, and given up if nothing comes for as long again. It is closed with the iterator.

    Raises:
        redis.RedisError: the connection was lost or refused, or the server has become a replica.
    """
    pool = client.connection_pool
    connection = pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})
    try:
        connection.connect()
        connection._parser.set_invalidation_push_handler(lambda push: push)
        connection.send_command(*command)
        connection.read_response(push_request=True)
        yield []
        is_checked = False
        while True:
            try:
                push = connection.read_response(push_request=True, timeout=check_interval, disconnect_on_error=False)
                is_checked = False
            except redis.TimeoutError:
                if is_checked:
                    raise
                connection.send_command("EVAL", CHECK_SCRIPT, 0)  # refused by a server that has become a replica
                push, is_checked = [], True
            except redis.ResponseError as error:
                if not lacks_flags(error):
                    raise
                push, is_checked = [], False
            yield push if isinstance(push, list) else []
    finally:
        connection.disconnect()

"""What a Redis server says without being asked, on a connection of its own."""

from collections.abc import Generator, Sequence
from typing import Any

import redis

from broker.connections.errors import lacks_flags
from broker.connections.health import CHECK_SCRIPT


def iter_pushes(client: Any, command: Sequence[str], check_interval: float) -> Generator[list[Any]]:
    """Yield what the server pushes after a command, and [] once it has run it and whenever nothing came for a while.

    After `check_interval` seconds of silence the connection is checked, and after as many more given up. It is closed
    with the iterator.

    Raises:
        redis.RedisError: the connection was lost, or refused; or the server has become a replica.
    """
    pool = client.connection_pool
    connection = pool.connection_class(**{**pool.connection_kwargs, "protocol": 3})
    try:
        connection.connect()
        connection._parser.set_invalidation_push_handler(lambda notice: notice)
        connection.send_command(*command)
        yield [connection.read_response(push_request=True)][:0]
        is_checked = False
        while True:
            try:
                push = connection.read_response(push_request=True, timeout=check_interval, disconnect_on_error=False)
                is_checked = False
            except redis.TimeoutError:
                if is_checked:
                    raise
                connection.send_command("EVAL", CHECK_SCRIPT, 0)  # a server that has become a replica refuses this
                push, is_checked = [], True
            except redis.ResponseError as error:
                if not lacks_flags(error):
                    raise
                push, is_checked = [], False
            yield push if isinstance(push, list) else []
    finally:
        connection.disconnect()

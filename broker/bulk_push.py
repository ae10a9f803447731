"""Pushes that are too large for one command: some Redis services limit the number of arguments.

The commands run in one transaction, so all messages are pushed or none: if Redis rejects one command, for example
because its memory is full, it rejects the whole transaction.
"""

from collections.abc import Sequence
from typing import Any

MAX_COMMAND_MESSAGES = 1000  # in one command


def bulk_push(client: Any, key: str, messages: Sequence[bytes]) -> int:
    """Push messages to the left of a list, all or none, and return its new length."""
    with client.pipeline() as transaction:
        for start in range(0, len(messages), MAX_COMMAND_MESSAGES):
            transaction.lpush(key, *messages[start : start + MAX_COMMAND_MESSAGES])
        return int(_execute(transaction)[-1])


# In front of a script: append the staged arguments to ARGV, and drop their list, the last of KEYS.
UNSTAGE = """for _, argument in ipairs(redis.call('LRANGE', KEYS[#KEYS], 0, -1)) do ARGV[#ARGV + 1] = argument end
redis.call('DEL', KEYS[#KEYS])
KEYS[#KEYS] = nil
"""


class StagingClient:
    """A client for scripts that begin with UNSTAGE: it passes them more arguments than one command should have.

    The arguments go through a list, `key`, that exists only within the transaction.
    """

    def __init__(self, client: Any, key: str, arguments: Sequence[bytes]) -> None:
        self.client, self.key, self.arguments = client, key, arguments

    @property
    def lacks_flags(self) -> bool:
        """Whether the server rejects the first line of scripts; see Script."""
        return bool(getattr(self.client, "lacks_flags", False))

    @lacks_flags.setter
    def lacks_flags(self, value: bool) -> None:
        self.client.lacks_flags = value

    def evalsha(self, *script: Any) -> Any:
        return self._run("EVALSHA", script)

    def eval(self, *script: Any) -> Any:
        return self._run("EVAL", script)

    def _run(self, command: str, script: Sequence[Any]) -> Any:
        with self.client.pipeline() as transaction:
            for start in range(0, len(self.arguments), MAX_COMMAND_MESSAGES):
                transaction.rpush(self.key, *self.arguments[start : start + MAX_COMMAND_MESSAGES])
            transaction.execute_command(command, *script)
            transaction.delete(self.key)  # in case the script did not run
            return _execute(transaction)[-2]


def _execute(transaction: Any) -> list[Any]:
    """Run a transaction and return its replies, or raise the first error among them."""
    replies: list[Any] = transaction.execute(raise_on_error=False)  # else redis-py's error would contain the messages
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies

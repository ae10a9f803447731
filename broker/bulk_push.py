"""Pushes of more messages than one command may have: some services take no more than a few thousand arguments.

A transaction does several commands whole or not at all: Redis refuses all of them when it refuses one, for full memory
too, and does nothing before it has read the last.
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


class StagedScript:
    """Runs a script that begins with `staged.lua`, with more arguments than a command may have, as a client would.

    They are staged in a list, the last of the script's keys, which no one sees: it is made, read and removed in one
    transaction.
    """

    def __init__(self, client: Any, key: str, arguments: Sequence[bytes]) -> None:
        self.client, self.key, self.arguments = client, key, arguments

    @property
    def lacks_flags(self) -> bool:
        """Whether the server does not know the first line of scripts; see Script."""
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
            transaction.delete(self.key)  # where the script did not run
            return _execute(transaction)[-2]


def _execute(transaction: Any) -> list[Any]:
    answers: list[Any] = transaction.execute(raise_on_error=False)  # else redis-py writes the messages in the error
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers

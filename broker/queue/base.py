"""What all operations of a queue share: its keys, and how they run a script."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from broker import script
from broker.keys import ANSWER_KEYS, POP_ONE_KEYS, SCRIPT_KEYS, LeftKey, digest_of, queue_keys
from RedisQueue import RedisQueue


class ScriptedQueue(RedisQueue):
    """A RedisQueue whose further operations are scripts. All keys of a queue share one Cluster slot."""

    def __init__(self, client: Any, name: str = "default", prefix: str = "queue:", max_deliveries: int = 5) -> None:
        super().__init__(client, name, prefix)
        self.prefix = prefix
        self.client_for_large = getattr(client, "unbatched", client)  # for commands with a large reply
        self.max_deliveries = max_deliveries
        self.siblings: Callable[[str], ScriptedQueue] | None = None
        self._set_keys(*queue_keys(name, prefix))

    def _set_keys(self, key: str, key_prefix: str) -> None:
        """Use these keys: that of the list, and the prefix of the others."""
        self.key, self.key_prefix = key, key_prefix
        beside, self._answer_keys, pop_one = _keys_beside(key_prefix)
        self._keys, self._pop_one_keys = [key, *beside], [key, *pop_one]

    def sibling(self, name: str) -> "ScriptedQueue":
        """Return another queue on the same Redis, as `siblings` finds it."""
        return self.siblings(name) if self.siblings else type(self)(self.client, name, self.prefix, self.max_deliveries)

    def result_key(self, job: str) -> str:
        """Return the key of a job's result."""
        return self.key_prefix + "result:" + digest_of(job.encode())

    @property
    def _resumed_key(self) -> str:
        return self.key_prefix + "resumed"

    def _cleared_key(self, undo: str) -> str:
        return self.key_prefix + "cleared:" + undo

    def _removed_keys(self, undo: str) -> list[str]:
        """Return the keys of messages that were removed, and of their history."""
        return [self._cleared_key(undo), self._cleared_key(undo) + ":history"]

    def _run(
        self, commands: script.Script, command: str, *arguments: Any, extra: Sequence[Any] = (), large: bool = False
    ) -> list[Any]:
        """Run a command of a script. `extra` are more keys; `large` says that the reply may be large."""
        keys = [*self._keys, *filter(None, extra)]
        client = self.client_for_large if large else self.client
        return directed(commands, keys).run(client, keys, [command, self.max_deliveries, *arguments])


def directed(commands: script.Script, keys: Sequence[str]) -> script.Script:
    """Return a script for the directions of these lists."""
    if LeftKey not in map(type, keys):  # the common case, at little cost
        return commands
    return commands.mirrored(*(place for place, key in enumerate(keys, 1) if type(key) is LeftKey))


@lru_cache(maxsize=1000)  # each request makes a queue
def _keys_beside(key_prefix: str) -> tuple[list[str], list[str], list[str]]:
    """Return the keys beside a list for scripts, those for saved answers, and those for `pop_one`."""
    scripts, answers, pop_one = (
        [key_prefix + kind for kind in kinds] for kinds in (SCRIPT_KEYS, ANSWER_KEYS, POP_ONE_KEYS)
    )
    return scripts, answers, pop_one


def to_milliseconds(seconds: float) -> int:
    """Return the milliseconds of a time in seconds, as scripts expect it."""
    return round(seconds * 1000)


def to_seconds(milliseconds: int) -> float | None:
    """Return the seconds of a time that a script returned; None if it is unknown (-1)."""
    return None if milliseconds < 0 else milliseconds / 1000

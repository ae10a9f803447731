"""The Lua scripts that run in Redis. Their files, with the commands of each, are in `broker/lua`."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from broker.bulk_push import UNSTAGE
from broker.connections.errors import lacks_flags
from broker.models import Conflict

TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in (Path(__file__).parent / "lua").rglob("*.lua")}
DONE, CONFLICT = 0, 2  # the status in front of an answer, as in shared.lua; any other: call again


class Script:
    """A script made of files in `broker/lua`, named without .lua. Redis caches it by its digest after the first call.

    Its first line, `#!lua flags=...`, needs Redis 7. It is left out on a server that rejects it, which the client
    remembers as `lacks_flags`; there the script begins with `without_flags`.
    """

    def __init__(self, *files: str, flags: str, without_flags: str = "", prefix: str = "") -> None:
        self._files, self._options = files, {"flags": flags, "without_flags": without_flags, "prefix": prefix}
        text = prefix + "".join(TEXTS[name] for name in files)
        self._texts = (f"#!lua flags={flags}\n{text}", without_flags + text)
        self._digests = tuple(hashlib.sha1(text.encode()).hexdigest() for text in self._texts)

    @lru_cache(maxsize=100)  # noqa: B019 (scripts live as long as the process)
    def mirrored(self, *places: int) -> "Script":
        """Return the script for lists that are taken from the left, which have these places in KEYS, from 1."""
        mirrored = f"{self._options['prefix']}local MIRRORED = {{{','.join(map(str, places))}}}\n"
        after_shared = self._files.index("shared") + 1
        files = (*self._files[:after_shared], "mirror", *self._files[after_shared:])
        return Script(*files, **self._options | {"prefix": mirrored})

    def run(self, client: Any, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        """Call the script until it is done; return its answer without the status.

        Raises:
            Conflict: the Idempotency-Key was used with another request.
        """
        while True:
            status, *answer = self.run_once(client, keys, arguments)
            if status == CONFLICT:
                raise Conflict
            if status == DONE:
                return list(answer)

    def run_once(self, client: Any, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
        """Call the script once and return its answer. Each attempt that fails here was rejected before it ran."""
        plain = getattr(client, "lacks_flags", False)
        try:
            return client.evalsha(self._digests[plain], len(keys), *keys, *arguments)
        except NoScriptError:
            pass
        try:
            return client.eval(self._texts[plain], len(keys), *keys, *arguments)
        except ResponseError as error:
            if plain or not lacks_flags(error):
                raise
        answer = client.eval(self._texts[True], len(keys), *keys, *arguments)
        client.lacks_flags = True
        return answer


# A full server that does not know the flag `allow-oom` rejects a script whose first write needs memory. This write
# needs none and changes nothing: no id is empty.
FREE_WRITE = "redis.call('HDEL', KEYS[4], '')\n"


def _freeing(*files: str) -> Script:
    """Return a script that also runs on a full server, which it helps to empty."""
    return Script("time", *files, flags="allow-oom", without_flags=FREE_WRITE)


# Each file lists its commands. The parts stand in front of what needs them, those of the most frequent command first.
_RETURN = ("redeliveries", "leases")
_SETTLE = ("settle_one", "shared", "clock", "failure_reasons", "answers", *_RETURN, "settle")
_PUSH = ("shared", "clock", "failure_reasons", "redeliveries", "answers", "push")
_LOOK = ("shared", "clock", "failure_reasons", *_RETURN)
POP_ONE = Script("pop_one", flags="allow-oom")
TAKE = _freeing("reserve", *_LOOK, "answers", "limits", "take")
SETTLE = _freeing(*_SETTLE)
MOVE = _freeing(*_LOOK, "carry", "move")
TIDY = _freeing(*_LOOK, "walk", "carry", "tidy")
SHOW = _freeing(*_LOOK, "walk", "show")
REQUEUE = _freeing(*_PUSH)
# These store something new, so a full server rejects them.
PUSH = Script("time", *_PUSH, flags="")
PUSH_STAGED = Script("time", *_PUSH, flags="", prefix=UNSTAGE)
SETTLE_WITH_RESULT = Script("time", *_SETTLE, flags="")
COUNT_WITHIN = Script("count_within", flags="no-writes")

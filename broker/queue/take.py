"""Take: pop and reserve messages, or wait for them. The scripts are `broker/lua/take.lua` and `pop_one.lua`."""

import secrets
import time
from typing import Any

from redis.exceptions import OutOfMemoryError

from broker import script
from broker.keys import digest_of
from broker.models import Batch, Delivery, M
from broker.queue.base import ScriptedQueue, to_milliseconds, to_seconds

MIN_BLOCK_SECONDS = 0.02  # minimum duration of a wait on a server that cannot block
FULL_POLL_INTERVAL = 0.25  # seconds between attempts while Redis is full, which rejects BLMOVE but not RPOP


class TakeOperations(ScriptedQueue):
    """The operations that take messages, for good or for a lease."""

    def pop(self, max: int = 1) -> list[bytes]:
        """Remove and return up to `max` messages, oldest first; an empty list if none is waiting."""
        return self.pop_batch(max).messages

    def pop_batch(self, max: int = 1, idempotency_key: str | None = None) -> Batch[bytes]:
        """Pop up to `max` messages; a batch ends once it reaches 16 MiB.

        With an idempotency key, an answer that has messages is saved for 24 hours.

        Raises:
            Conflict: the key was used with another request.
        """
        if max == 1 and idempotency_key is None:
            found = script.POP_ONE.run_once(self.client, self._pop_one_keys)
            if found != 1:
                return Batch([found] if isinstance(found, bytes) else [])
        arguments: list[Any] = [max]
        if idempotency_key is not None:
            arguments += [digest_of(idempotency_key.encode()), digest_of(b"pop", str(max).encode())]
        keys = () if idempotency_key is None else self._answer_keys
        next_due, held, repeated, *messages = self._run(script.TAKE, "pop", *arguments, extra=keys, large=max > 1)
        return _batch(messages, next_due, held, repeated == 1)

    def reserve(self, lease: float = 30, max: int = 1, by: str = "") -> Batch[Delivery]:
        """Reserve up to `max` messages for `lease` seconds. `by` names the consumer, for `reserved` and `consumers`.

        Those not acked by then return to the queue or become dead letters. A batch ends once it reaches 16 MiB.
        """
        arguments = (max, to_milliseconds(lease), secrets.token_hex(8), *filter(None, [by]))
        next_due, held, deadline, *found = self._run(script.TAKE, "reserve", *arguments, large=max > 1)
        deliveries = [Delivery.from_reply(deadline, found[0], *found[i : i + 3]) for i in range(1, len(found), 3)]
        return _batch(deliveries, next_due, held)

    def wait(self, seconds: float, client: Any = None, paused: bool = False) -> None:
        """Block until the queue is not empty, or for `seconds`. No message is taken, so a lost reply loses none.

        If the queue is `paused`, block until it is resumed. `client` is the one to block, by default the queue's own.
        """
        started = time.monotonic()
        key = self._resumed_key if paused else self.key
        try:
            if (client or self.client).blmove(key, key, max(seconds, 0.01), "RIGHT", "RIGHT") is None:
                # A server that cannot block here replies at once: do not let the caller spin.
                time.sleep(max(0.0, min(MIN_BLOCK_SECONDS, seconds) - (time.monotonic() - started)))
        except OutOfMemoryError:
            time.sleep(min(seconds, FULL_POLL_INTERVAL))


def _batch(messages: list[M], next_due: int, held: int, is_repeated: bool = False) -> Batch[M]:
    """Return the batch of an answer; `held` says why nothing was taken, as in take.lua."""
    return Batch(messages, to_seconds(next_due), held == -1, max(0, held) / 1000, is_repeated)

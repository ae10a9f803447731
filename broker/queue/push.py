"""Push: add messages, now or later, and put back what was popped. Its script is `broker/lua/push.lua`."""

import secrets
from collections.abc import Sequence

from broker import script
from broker.bulk_push import MAX_COMMAND_MESSAGES, StagingClient, bulk_push
from broker.keys import digest_of
from broker.models import Exported, Pushed
from broker.queue.base import ScriptedQueue, directed, to_milliseconds


class PushOperations(ScriptedQueue):
    """The operations that add messages."""

    def push(self, *messages: bytes, front: bool = False) -> int:
        """Add messages as RedisQueue does, all or none, however many there are."""
        if front and messages:
            return self._push("push_front", messages).count
        if len(messages) > MAX_COMMAND_MESSAGES:
            return bulk_push(self.client, self.key, messages)
        return super().push(*messages)

    def push_once(self, idempotency_key: str, messages: Sequence[bytes], front: bool = False) -> Pushed:
        """Push as `push` does, once per idempotency key within 24 hours; a repeated call returns the first answer.

        Raises:
            Conflict: the key was used with another request.
        """
        command = "push_front" if front else "push"
        fingerprint = digest_of(b"push-front" if front else b"push", *messages)
        return self._push(command, messages, 0, fingerprint, idempotency_key)

    def push_later(self, delay: float, messages: Sequence[bytes], idempotency_key: str | None = None) -> Pushed:
        """Add messages to the back after `delay` seconds, in order, all or none; until then each is known by an id.

        With an idempotency key, a call repeated within 24 hours pushes nothing and returns the first answer.

        Raises:
            Conflict: the key was used with another request.
        """
        milliseconds = to_milliseconds(delay)
        fingerprint = digest_of(b"push-later", b"%d" % milliseconds, *messages) if idempotency_key else ""
        delayed = [(number, 0) for number in range(1, len(messages) + 1)]
        return self._push("push_later", messages, milliseconds, fingerprint, idempotency_key, delayed)

    def import_messages(self, messages: Sequence[Exported], idempotency_key: str | None = None) -> Pushed:
        """Add up to 1,000 messages in the states that they had in another queue, all or none.

        Those that waited or were reserved there join the back, in this order. Their deliveries and failures are kept
        for an hour, as if they had come back now, unless more than 100 messages without any wait in front of them. What
        is known of dead letters stays. One that had died and was moved back can be delivered as often as a new one.

        With an idempotency key, a call repeated within 24 hours adds nothing and returns the first answer.

        Raises:
            Conflict: the key was used with another request.
        """
        arguments = [argument for one in messages for argument in (_facts(one), one.message)]
        fingerprint = digest_of(b"import", *arguments) if idempotency_key else ""
        delayed = [(at, one.details.deliveries) for at, one in enumerate(messages, 1) if one.state == "delayed"]
        return self._push("import", arguments, 0, fingerprint, idempotency_key, delayed)

    def _push(
        self,
        command: str,
        messages: Sequence[bytes],
        delay: int = 0,
        fingerprint: str = "",
        idempotency_key: str | None = None,
        delayed: Sequence[tuple[int, int]] = (),
    ) -> Pushed:
        """Run a command of the script; `delayed` has the number and the deliveries in the id of each delayed one."""
        ordered = messages[::-1] if command == "push_front" else messages
        key = digest_of(idempotency_key.encode()) if idempotency_key is not None else ""
        answer_keys = self._answer_keys if key else ()
        arguments = [key, fingerprint, delay, secrets.token_hex(8)]
        if len(messages) > MAX_COMMAND_MESSAGES:
            staged = self.key_prefix + "staged:" + secrets.token_hex(8)
            keys = [*self._keys, *answer_keys, staged]
            client = StagingClient(self.client, staged, ordered)
            answer = directed(script.PUSH_STAGED, keys).run(client, keys, [command, self.max_deliveries, *arguments])
        else:
            answer = self._run(script.PUSH, command, *arguments, *ordered, extra=answer_keys)
        count, moment, random, repeated = answer
        ids = [f"{moment.decode()}-{number:06d}-{random.decode()}-{deliveries}-d" for number, deliveries in delayed]
        return Pushed(count, ids, repeated == 1)

    def requeue(self, *messages: bytes) -> None:
        """Undo a pop: put messages back to the front, in the same order, even if Redis is full."""
        self._run(script.REQUEUE, "push_front", "", "", 0, "", *reversed(messages))


def _facts(one: Exported) -> bytes:
    """Return what is known of an imported message, as the script expects it."""
    times = (one.details.failed, one.details.died, one.deadline)
    numbers = [one.details.deliveries, *(to_milliseconds(time or 0) for time in times)]
    return ":".join([one.state, *map(str, numbers), one.details.reason]).encode()

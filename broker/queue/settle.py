"""Settle: ack, release and extend reservations, and store results. The script is `broker/lua/settle.lua`."""

from collections.abc import Iterable, Sequence
from typing import Any

from broker import script
from broker.models import Ack, Extend, LeaseExpired, Release, Result, Settled
from broker.queue.base import ScriptedQueue, to_milliseconds, to_seconds

RESULT_SECONDS = 86400  # how long a result is kept by default


class SettleOperations(ScriptedQueue):
    """The operations that end or change reservations and delays."""

    def ack(self, *ids: str) -> int:
        """Acknowledge messages, which deletes them, and return their number; ids acked within the last hour count too.

        Raises:
            LeaseExpired: some leases have ended; nothing was changed.
        """
        unique = dict.fromkeys(ids)
        _raise_if_expired(self._run(script.SETTLE, "ack", *unique))
        return len(unique)

    def ack_with(self, id: str, job: str, result: bytes, keep: float = RESULT_SECONDS) -> None:
        """Acknowledge a message and store the result of its job, in one step.

        Raises:
            LeaseExpired: the lease has ended; nothing was changed or stored.
        """
        key = self.result_key(job)
        _raise_if_expired(self._run(script.SETTLE_WITH_RESULT, "ack_with", round(keep), result, id, extra=[key]))

    def release(
        self,
        *ids: str,
        delay: float = 0,
        dead: bool = False,
        unstarted: bool = False,
        reason: str = "",
        job: str | None = None,
    ) -> int:
        """Return messages to the front of the queue, now or in `delay` seconds, or bury all of them (`dead`).

        Return the number of messages buried, which includes those at their last delivery. `reason` says why they
        failed; it is kept for an hour after a message has returned, and as long as a dead letter exists. With one id
        and the name of its `job`, it becomes the result of the job if the message is buried.

        If their work is `unstarted`, this delivery does not count: they return now, and none is buried.

        Raises:
            LeaseExpired: some leases have ended; nothing was changed.
        """
        arguments = (_delay(delay, dead, unstarted), reason, RESULT_SECONDS)
        keys = [self.result_key(job)] if job is not None else []
        commands = script.SETTLE_WITH_RESULT if keys else script.SETTLE
        expired, buried, are_more = self._run(commands, "release", *arguments, *dict.fromkeys(ids), extra=keys)
        _raise_if_expired(expired)
        if are_more:
            self.sweep()
        return int(buried)

    def extend(self, ids: str | Sequence[str], lease: float) -> float:
        """Set leases or delays to end `lease` seconds from now, and return the new deadline.

        Raises:
            LeaseExpired: some have ended; nothing was changed.
        """
        unique = [ids] if isinstance(ids, str) else dict.fromkeys(ids)
        deadline, *expired = self._run(script.SETTLE, "extend", to_milliseconds(lease), *unique)
        _raise_if_expired(expired)
        return float(deadline / 1000)

    def settle(
        self, acks: Iterable[Ack] = (), releases: Iterable[Release] = (), extends: Iterable[Extend] = ()
    ) -> Settled:
        """Ack, release and extend messages, independently of one another; those whose lease has ended are `stale`.

        Ids acked within the last hour count as acked. An id that is named twice is stale the second time.
        """
        keys: list[str] = []

        def index_of(job: str | None) -> int:
            if job is None:
                return 0
            keys.append(self.result_key(job))
            return len(self._keys) + len(keys)

        arguments: list[Any] = [RESULT_SECONDS]
        for ack in acks:
            arguments += ["ack", ack.id, ack.result, 0, index_of(ack.job)]
        for one in releases:
            arguments += ["release", one.id, one.reason, _delay(one.delay, one.dead, one.unstarted), index_of(one.job)]
        for extend in extends:
            arguments += ["extend", extend.id, "", to_milliseconds(extend.lease), 0]
        commands = script.SETTLE_WITH_RESULT if keys else script.SETTLE
        acked, released, dead, extended, stale, are_more = self._run(commands, "settle", *arguments, extra=keys)
        if are_more:
            self.sweep()
        return Settled(acked, released, dead, extended, [id.decode(errors="replace") for id in stale])

    def sweep(self) -> float | None:
        """Return the messages whose lease or delay has ended to the queue, or bury them.

        Return the number of seconds until the next one ends; None if there is none.
        """
        return to_seconds(self._run(script.SHOW, "sweep")[0])

    def store_result(self, job: str, result: bytes, keep: float = RESULT_SECONDS) -> None:
        """Store the result of a job for `keep` seconds, replacing an earlier one."""
        self._run(script.PUSH, "store_result", round(keep), result, extra=[self.result_key(job)])

    def result(self, job: str) -> Result | None:
        """Return the result of a job; None if there is none yet, or it has expired."""
        found = self.client_for_large.lrange(self.result_key(job), 0, -1)
        if not found:
            return None
        at, text, *has_failed = found
        return Result(text, int(at) / 1000, text.decode(errors="replace") if has_failed else None)


def _delay(delay: float, dead: bool, unstarted: bool) -> int:
    """Return the delay of a release in milliseconds; -1 to bury, -2 if the work was not started."""
    return -2 if unstarted else -1 if dead else to_milliseconds(delay)


def _raise_if_expired(ids: list[bytes]) -> None:
    if ids:
        raise LeaseExpired([id.decode(errors="replace") for id in ids])

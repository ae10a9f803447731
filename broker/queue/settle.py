"""Settle: ack, release and extend reservations, and store results. The script is `broker/lua/settle.lua`."""

from broker import script
from broker.models import LeaseExpired, Result
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
        _raise_if_expired(self._run(script.SETTLE, "ack", *unique)[0])
        return len(unique)

    def ack_with(self, id: str, job: str, result: bytes, keep: float = RESULT_SECONDS) -> None:
        """Acknowledge a message and store the result of its job, in one step.

        Raises:
            LeaseExpired: the lease has ended; nothing was changed or stored.
        """
        key = self.result_key(job)
        _raise_if_expired(self._run(script.SETTLE_WITH_RESULT, "ack_with", round(keep), result, id, extra=[key])[0])

    def release(self, *ids: str, delay: float = 0, dead: bool = False, reason: str = "") -> int:
        """Return messages to the front of the queue, now or in `delay` seconds, or bury all of them (`dead`).

        Return the number of messages buried, which includes those at their last delivery. `reason` says why they
        failed; it is kept as long as they wait.

        Raises:
            LeaseExpired: some leases have ended; nothing was changed.
        """
        unique = dict.fromkeys(ids)
        arguments = (to_milliseconds(delay), int(dead), reason)
        expired, buried, are_more = self._run(script.SETTLE, "release", *arguments, *unique)
        _raise_if_expired(expired)
        if are_more:
            self.sweep()
        return int(buried)

    def extend(self, id: str, lease: float) -> float:
        """Let a lease or a delay end `lease` seconds from now, and return its new deadline.

        Raises:
            LeaseExpired: it has ended; nothing was changed.
        """
        deadline = self._run(script.SETTLE, "extend", to_milliseconds(lease), id)[0]
        if not deadline:
            raise LeaseExpired([id])
        return float(deadline / 1000)

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
        return Result(found[1], int(found[0]) / 1000) if found else None


def _raise_if_expired(ids: list[bytes]) -> None:
    if ids:
        raise LeaseExpired([id.decode(errors="replace") for id in ids])

"""The operations that tidy up a queue: pause, limit, clear, move and remove, and undo them."""

from collections.abc import Iterable
from typing import Any, cast

from seequeue.core.messages import encode, to_field
from seequeue.core.models import Removed, Settings, parse
from seequeue.core.protocol import ANSWER_TIMEOUT, Operation, Server, call, check_names, get, post


def settings(
    client: Server,
    *,
    at_once: int | None = None,
    per_second: float | None = None,
    max_deliveries: int | None = None,
) -> Operation[Settings]:
    """Return the limits of the queue, after changing those that are given; 0 removes a limit.

    `at_once` is the number of messages reserved at a time, `per_second` that of messages taken in a second.
    """
    url = client.path("settings")
    changes: dict[str, Any] = {"at_once": at_once, "per_second": per_second, "max_deliveries": max_deliveries}
    given = any(value is not None for value in changes.values())
    return parse(Settings, (yield from call(client, post(url, **changes) if given else get(url))))


def pause(client: Server) -> Operation[None]:
    """Give no messages until `resume`."""
    yield from call(client, post(client.path("pause")))


def resume(client: Server) -> Operation[None]:
    """Give messages again."""
    yield from call(client, post(client.path("resume")))


def clear(client: Server) -> Operation[Removed]:
    """Remove every waiting message; `restore` brings them back for an hour.

    Raises:
        OutcomeUnknown: they may have been removed. It is not repeated, as the first `undo` would be lost.
    """
    return (yield from _remove(client, "clear", "cleared"))


def restore(client: Server, undo: str) -> Operation[int]:
    """Undo a `clear`, `remove` or `move` of this queue, and return the number of messages put back.

    Raises:
        LeaseExpired: it was undone already, or is over an hour ago.
    """
    answer = yield from call(client, post(client.path("restore"), undo=undo), repeatable=False)
    return cast("int", answer["restored"])


def move(
    client: Server,
    to: str,
    *,
    max: int | None = None,
    contains: str | None = None,
    reason: str | None = None,
    position: int | None = None,
    message: Any = None,
) -> Operation[Removed]:
    """Move messages to the queue `to`, the oldest first: all, or those that hold a text or failed for a reason.

    With `position` and `message`, one message, if it is still there. `restore` of this queue undoes it for an hour.

    Raises:
        LeaseExpired: the message is not at that position.
        OutcomeUnknown: messages may have been moved.
    """
    check_names(to)
    chosen = {"contains": contains, "reason": reason, "position": position}
    held = None if message is None else to_field(encode(message))
    return (yield from _remove(client, "move", "moved", to=to, max=max, message=held, **chosen))


def remove(
    client: Server,
    *,
    contains: str | None = None,
    reason: str | None = None,
    messages: Iterable[tuple[int, Any]] | None = None,
) -> Operation[Removed]:
    """Remove waiting messages: those that hold a text or failed for a reason, or up to 1,000 of (position, message).

    A message that is not at its position any more stays. `restore` puts the others to the front, for an hour.

    Raises:
        OutcomeUnknown: messages may have been removed.
    """
    chosen = [{"position": position, "message": to_field(encode(one))} for position, one in messages or ()]
    return (yield from _remove(client, "remove", "removed", contains=contains, reason=reason, messages=chosen or None))


def _remove(client: Server, operation: str, field: str, **parameters: Any) -> Operation[Removed]:
    """Run an operation that takes messages away, which can take long, and is not repeated."""
    request = post(client.path(operation), timeout=max(client.timeout, ANSWER_TIMEOUT), **parameters)
    answer = yield from call(client, request, repeatable=False)
    return Removed(answer[field], answer["undo"])

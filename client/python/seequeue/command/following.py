"""tail: follow the messages of a queue."""

import sys

import click

from seequeue.command.base import Session, queue_argument, verb
from seequeue.command.messages import fields_of, print_message
from seequeue.core.messages import Listed
from seequeue.queue import Queue

KNOWN_MESSAGES = 100  # at the back of the queue, by which the new ones are found
MAX_READ_MESSAGES = 10_000  # at one look


@verb()
@queue_argument()
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(0, 1000),
    metavar="N",
    default=10,
    show_default=True,
    help="Begin with the last N.",
)
def tail(session: Session, queue: str, lines: int) -> None:
    """Print the messages that join a queue, as they come.

    It begins with the last few at the back of the queue, and ends with Ctrl-C. Nothing is taken. A message that a
    waiting consumer takes at once may not be seen. While the server is away, it is waited for.
    """
    with session.queue(queue) as source:
        back, is_first = Back(source), True
        for event in source.events():
            if is_first:
                new = back.look(event["count"], KNOWN_MESSAGES + lines)
                new = new[len(new) - min(lines, len(new)) :]
            else:
                new = back.look(event["count"])
            for message in new:
                print_message(session, message, fields_of(message))
            sys.stdout.flush()
            is_first = False


class Back:
    """The back of a queue, as it was seen last."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.known: list[Listed] = []
        self.total = 0

    def look(self, count: int, most: int | None = None) -> list[Listed]:
        """Return the messages that have joined the back, of a queue that holds about `count`; at first up to `most`."""
        size = KNOWN_MESSAGES + max(0, count - self.total) if most is None else most
        while True:
            offset = max(0, count - size)
            window = list(self.queue.all(offset=offset))
            new = news(self.known, window, offset + len(window) - self.total)
            if new is not None or offset == 0 or most is not None or size >= MAX_READ_MESSAGES:
                break
            size *= 4
        self.total = offset + len(window)
        self.known = window[-KNOWN_MESSAGES:]
        return window if new is None else new


def news(known: list[Listed], window: list[Listed], growth: int) -> list[Listed] | None:
    """Return the messages of a window behind those that are known; None if none of these is in it.

    If the queue grew, so many at least are new, unless messages were put in front: that tells equal messages apart.
    """
    for most in (len(window) - max(0, growth), len(window)):
        for end in range(most, 0, -1):
            number = min(end, len(known))
            if number and window[end - number : end] == known[-number:]:
                return window[end:]
    return None

"""export and import: a whole queue as lines of JSON."""

import sys
from collections.abc import Callable, Iterator

from seequeue.command.base import Session, progress, queue_argument, verb
from seequeue.command.messages import input_size
from seequeue.errors import SeequeueError


@verb(name="export")
@queue_argument()
def export_queue(session: Session, queue: str) -> None:
    """Print all messages of a queue, for `import`.

    The reserved, delayed and waiting messages and the dead letters are printed as lines of JSON, with their deliveries,
    reasons and times. Nothing is taken. Pause the queue first if it is in use, or messages that are taken meanwhile may
    be missing.

    \b
    seequeue export mails > mails.ndjson
    seequeue export mails | seequeue import mails --url http://other:5000
    """
    with session.queue(queue) as source:
        counts = source.count()
        with progress(counts.count + counts.reserved + counts.delayed + counts.dead, "Exporting") as show:
            for number, line in enumerate(source.export(), 1):
                sys.stdout.buffer.write(line + b"\n")
                if number % 100 == 0:
                    show(number)


@verb(name="import")
@queue_argument()
def import_queue(session: Session, queue: str) -> None:
    """Add the messages of an `export` to a queue.

    They come from standard input, and get the state in which they were. Those that waited or were reserved join the
    back of the queue. Batches are stored once each, also if a connection breaks; to import the same file twice doubles
    the messages.
    """
    with session.queue(queue) as target, progress(input_size(), "Importing") as show:
        try:
            imported = target.import_lines(input_lines(show))
        except SeequeueError as error:
            done, line = error.answer.get("imported", 0), error.answer.get("line")
            error.args = (f"{done:,} imported; {f'line {line:,}: ' if line else ''}{error}",)
            raise
    session.print({"imported": imported}, f"{imported:,} imported.")


def input_lines(show: Callable[[int], object]) -> Iterator[bytes]:
    """Yield the lines of standard input, and show how many bytes have been read."""
    size = 0
    for number, line in enumerate(sys.stdin.buffer, 1):
        yield line
        size += len(line)
        if number % 100 == 0:
            show(size)

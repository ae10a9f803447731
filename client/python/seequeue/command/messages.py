"""push, pop and list: the messages of a queue."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from seequeue.command.base import Nothing, Session, as_json, on_terminal, print_line, progress, queue_argument, verb
from seequeue.core.messages import Listed
from seequeue.core.protocol import MAX_BATCH, MAX_DELAY, MAX_WAIT
from seequeue.errors import SeequeueError
from seequeue.queue import Queue

READ_BYTES = 1 << 20
MAX_LINE_BYTES = 16 << 20  # a server takes no longer message, unless it is set up for that


@verb()
@queue_argument()
@click.argument("message", required=False)
@click.option("--each-line", is_flag=True, help="Push each line of standard input as a message, as it comes.")
@click.option("--delay", type=click.FloatRange(0, MAX_DELAY), metavar="SECONDS", default=0, help="Join the queue then.")
@click.option("--front", is_flag=True, help="Push to the front, to be popped next.")
@click.option("--key", metavar="KEY", help="Idempotency-Key: with the same one, it is pushed once in 24 hours.")
def push(
    session: Session, queue: str, message: str | None, each_line: bool, delay: float, front: bool, key: str | None
) -> None:
    """Push a message, or each line of standard input.

    The message is MESSAGE, or else all of standard input, byte for byte.

    \b
    seequeue push mails '{"to": "ada@example.com"}'
    seequeue push files < photo.jpg
    tail -f access.log | seequeue push log --each-line
    """
    if each_line and (message is not None or delay or front or key):
        raise click.UsageError("--each-line takes no MESSAGE, --delay, --front or --key.", click.get_current_context())
    with session.queue(queue) as target:
        if each_line:
            pushed = push_lines(target)
            session.print({"pushed": pushed}, f"{pushed:,} pushed.")
            return
        content = sys.stdin.buffer.read() if message is None else os.fsencode(message)
        done = target.push(content, delay=delay, front=front, key=key)
        held = {"id": done.id} if done.id else {}
        session.print(
            {"count": done.count, **held}, f"Pushed as {done.id}." if done.id else f"Pushed. {done.count:,} waiting."
        )


def push_lines(queue: Queue) -> int:
    """Push the lines of standard input as they come; empty ones are skipped. Return their number."""
    pushed, in_block = 0, 0

    def note(done: int, _: int | None) -> None:
        nonlocal in_block
        in_block = done

    with progress(input_size(), "Pushing") as show:
        read = 0
        for size, lines in input_lines():
            try:
                pushed, in_block = pushed + queue.push_many(lines, progress=note), 0
            except SeequeueError as error:
                error.args = (f"{pushed + in_block:,} pushed; {error}",)
                raise
            show(read := read + size)
    return pushed


def input_lines() -> Iterator[tuple[int, list[bytes]]]:
    """Yield the lines of each block of standard input, and the size of the block."""
    rest = b""
    for block in input_blocks():
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise click.ClickException(f"A line is longer than {MAX_LINE_BYTES >> 20} MiB.")
        yield len(block), [line for one in lines if (line := one.removesuffix(b"\r"))]
    if line := rest.removesuffix(b"\r"):
        yield 0, [line]


def input_blocks() -> Iterator[bytes]:
    """Yield standard input in blocks, each as soon as it is there."""
    while block := os.read(sys.stdin.fileno(), READ_BYTES):
        yield block


def input_size() -> int | None:
    """Return the size of standard input if it is a file, else None."""
    found = os.fstat(sys.stdin.fileno()).st_size
    return found or None


@verb()
@queue_argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@click.option("--wait", type=click.FloatRange(0, MAX_WAIT), metavar="SECONDS", default=0, help="Wait for a message.")
@click.option(
    "--max", "number", type=click.IntRange(1, MAX_BATCH), metavar="N", help="Pop up to N messages, a line each."
)
def pop(session: Session, queues: tuple[str, ...], wait: float, number: int | None) -> None:
    """Remove the next message and print it.

    It is printed byte for byte. Of several queues, the first that has a message gives it. A message that is popped is
    gone, whatever happens to it then; `work` takes messages safely. On a terminal, with --max and with --json, a line
    end follows each message.
    """
    with session.queue(*queues) as source:
        found = source.pop(wait=wait, max=number or 1)
    if not found:
        raise Nothing("" if session.as_json else "The queue is empty.")
    for message in found:
        print_message(session, message, {"message": message}, is_last_raw=number is None)


def print_message(
    session: Session, message: bytes, value: dict[str, Any], *, is_last_raw: bool = False, width: int | None = None
) -> None:
    """Print a message: as JSON, as one harmless line on a terminal, or as it is."""
    if session.as_json:
        print_line(as_json(value))
    elif sys.stdout.isatty():
        print_line(on_terminal(message, width))
    else:
        sys.stdout.buffer.write(bytes(message) + (b"" if is_last_raw else b"\n"))


@verb(name="list")
@queue_argument()
@click.option("--limit", type=click.IntRange(0), metavar="N", help="At most N messages.")
@click.option("--offset", type=click.IntRange(0), metavar="N", default=0, help="Skip the first N messages.")
@click.option("--contains", metavar="TEXT", help="Only messages that hold this text.")
@click.option("--reason", metavar="REASON", help="Only messages that failed for this reason.")
def list_messages(
    session: Session, queue: str, limit: int | None, offset: int, contains: str | None, reason: str | None
) -> None:
    """List the waiting messages, the next to be popped first. Nothing is taken.

    The dead letters of QUEUE are in the queue QUEUE.dead. With --json, each message comes with its deliveries, the
    reason of its last failure and, in a search, its position.
    """
    is_search = contains is not None or reason is not None
    width, found = terminal_width(), 0
    with session.queue(queue) as source:
        total = source.count().count if is_search and sys.stderr.isatty() and not sys.stdout.isatty() else None
        options: dict[str, Any] = {"contains": contains, "reason": reason, "offset": offset, "limit": limit}
        with progress(total, "Searching") as show:
            for message in source.all(**options, details=session.as_json):
                found += 1
                print_message(session, message, fields_of(message), width=width)
                show((message.position or 0) + 1)
    if not found:
        raise Nothing("" if session.as_json else "Nothing was found." if is_search else "The queue is empty.")


def terminal_width() -> int | None:
    """Return the columns of the terminal; None if standard output is none, or does not know."""
    return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None


def fields_of(message: Listed) -> dict[str, Any]:
    """Return a listed message as an object."""
    return {"message": message, **{name: value for name, value in vars(message).items() if value is not None}}

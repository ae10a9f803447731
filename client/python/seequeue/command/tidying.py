"""move, remove, clear, restore, pause, resume and settings: what an operator does to a queue."""

import os
from dataclasses import asdict

import click

from seequeue.command.base import Session, queue_argument, verb
from seequeue.core.models import Removed

CONTAINS = click.option("--contains", metavar="TEXT", help="Only messages that hold this text.")
REASON = click.option("--reason", metavar="REASON", help="Only messages that failed for this reason.")


def print_removed(session: Session, queue: str, done: str, found: Removed) -> None:
    """Print how many messages were removed, and how to undo it."""
    undo = f" Undo: seequeue restore {queue} {found.undo}" if found.undo else ""
    session.print({done: found.count, "undo": found.undo}, f"{found.count:,} {done}.{undo}")


@verb()
@queue_argument()
@queue_argument("to")
@click.option("--max", "number", type=click.IntRange(1), metavar="N", help="At most N messages.")
@CONTAINS
@REASON
def move(session: Session, queue: str, to: str, number: int | None, contains: str | None, reason: str | None) -> None:
    """Move messages to another queue.

    All that wait, or some, go to the back of the queue TO, the oldest first.

    \b
    seequeue move mails.dead mails --reason 'SMTP timed out'
    """
    with session.queue(queue) as source:
        print_removed(session, queue, "moved", source.move(to, max=number, contains=contains, reason=reason))


@verb()
@queue_argument()
@click.argument("message", required=False)
@click.option("--position", type=click.IntRange(0), metavar="N", help="MESSAGE, if it is at this position; 0 is next.")
@CONTAINS
@REASON
def remove(
    session: Session,
    queue: str,
    message: str | None,
    position: int | None,
    contains: str | None,
    reason: str | None,
) -> None:
    """Remove some of the waiting messages.

    Those that --contains or --reason finds, or one by its --position. `restore` puts them back for an hour.
    """
    is_search = contains is not None or reason is not None
    if (message is None) != (position is None) or is_search == (message is not None):
        raise click.UsageError(
            "Give --contains, --reason or both, or --position and MESSAGE.", click.get_current_context()
        )
    chosen = None if message is None or position is None else [(position, os.fsencode(message))]
    with session.queue(queue) as source:
        print_removed(session, queue, "removed", source.remove(contains=contains, reason=reason, messages=chosen))


@verb()
@queue_argument()
def clear(session: Session, queue: str) -> None:
    """Remove all waiting messages.

    `restore` puts them back for an hour.
    """
    with session.queue(queue) as source:
        print_removed(session, queue, "cleared", source.clear())


@verb()
@queue_argument()
@click.argument("undo")
def restore(session: Session, queue: str, undo: str) -> None:
    """Undo a clear, a remove or a move.

    UNDO is the token that it printed.
    """
    with session.queue(queue) as source:
        restored = source.restore(undo)
    session.print({"restored": restored}, f"{restored:,} restored.")


@verb()
@queue_argument()
def pause(session: Session, queue: str) -> None:
    """Give no messages to consumers until `resume`."""
    with session.queue(queue) as source:
        source.pause()
    session.print({"paused": True}, f"{queue} is paused.")


@verb()
@queue_argument()
def resume(session: Session, queue: str) -> None:
    """Give messages to consumers again."""
    with session.queue(queue) as source:
        source.resume()
    session.print({"paused": False}, f"{queue} is not paused.")


@verb()
@queue_argument()
@click.option("--at-once", type=click.IntRange(0), metavar="N", help="Messages that are reserved at a time.")
@click.option("--per-second", type=click.FloatRange(0), metavar="N", help="Messages that are taken in a second.")
@click.option(
    "--max-deliveries", type=click.IntRange(0), metavar="N", help="Deliveries until a message is a dead letter."
)
def settings(
    session: Session, queue: str, at_once: int | None, per_second: float | None, max_deliveries: int | None
) -> None:
    """Show or change the limits of a queue.

    Those that are given are changed, then all are printed. 0 is none; without
    --max-deliveries the server's own number holds.
    """
    with session.queue(queue) as source:
        found = source.settings(at_once=at_once, per_second=per_second, max_deliveries=max_deliveries)
    text = "\n".join(f"{name.replace('_', '-')}: {value:g}" for name, value in asdict(found).items())
    session.print(asdict(found), text)

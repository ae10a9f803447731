"""count and queues: how many messages there are."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from seequeue.command.base import Session, as_json, print_line, queue_argument, verb
from seequeue.core.models import Age, Counts

HEADS = ("queue", "waiting", "reserved", "delayed", "dead", "clients", "oldest", "")
HOME, END_OF_LINE, END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
CLEAR = "\x1b[2J"


@verb()
@queue_argument()
def count(session: Session, queue: str) -> None:
    """Count the waiting messages.

    With --json, print all that is counted: reserved, delayed and dead messages, clients that wait, the age.
    """
    with session.queue(queue) as source:
        counts = source.count()
    session.print(fields_of(counts), str(counts.count))


def fields_of(counts: Counts) -> dict[str, Any]:
    """Return the counts of a queue as an object."""
    return {name: value for name, value in asdict(counts).items() if name != "name" or value is not None}


@verb()
@click.argument("match", required=False)
def queues(session: Session, match: str | None) -> None:
    """Show all queues that hold something.

    Or those that MATCH, a pattern such as 'mail*'. On a terminal the table stays up to date, until Ctrl-C. Elsewhere,
    and with --json, it is printed once.
    """
    with session.queue() as server:
        if session.as_json or not sys.stdout.isatty():
            for line in json_lines(server.queues(match)) if session.as_json else table(server.queues(match)):
                print_line(line)
            return
        print_line(CLEAR)
        for found in server.follow_queues(match):
            lines = "".join(f"{line}{END_OF_LINE}\n" for line in table(found))
            print_line(HOME + lines + END_OF_SCREEN)


def json_lines(found: Sequence[Counts]) -> list[str]:
    return [as_json(asdict(one)) for one in found]


def table(found: Sequence[Counts]) -> list[str]:
    """Return the lines of a table of queues."""
    rows = [HEADS, *map(row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if 0 < at < len(HEADS) - 1 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in rows
    ]


def row(counts: Counts) -> tuple[str, ...]:
    """Return the cells of a queue."""
    numbers = (counts.count, counts.reserved, counts.delayed, counts.dead, counts.waiters)
    paused = "paused" if counts.paused else ""
    return (str(counts.name), *(f"{number:,}" for number in numbers), age_text(counts.age), paused)


def age_text(age: Age | None) -> str:
    """Return an age as text, such as "6 min"."""
    if age is None:
        return ""
    more = "> " if age.at_least else ""
    for seconds, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if age.seconds >= 2 * seconds:
            return f"{more}{age.seconds // seconds:.0f} {unit}"
    return f"{more}{age.seconds:.0f} s"

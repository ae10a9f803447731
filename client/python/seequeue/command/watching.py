"""watch: report when a queue gets into trouble, or empties."""

import os
import queue as stdlib_queue
import shlex
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import httpx2

from seequeue.command.base import Session, as_json, complete_queue, print_error, verb
from seequeue.command.queues import fields_of
from seequeue.core.models import Counts
from seequeue.queue import Queue

REPORT_TIMEOUT = 60.0  # seconds for a program, or the answer to a POST


@verb()
@click.argument("queues", nargs=-1, metavar="[QUEUE]...", shell_complete=complete_queue)
@click.option(
    "--after", type=click.FloatRange(0), metavar="SECONDS", default=60, show_default=True, help="See `unattended`."
)
@click.option("--post", metavar="URL", help="POST each event to this URL, as JSON; chats show its `text`.")
@click.option("--exec", "program", metavar="PROGRAM", help="Run this for each event, with its JSON on standard input.")
def watch(session: Session, queues: tuple[str, ...], after: float, post: str | None, program: str | None) -> None:
    """Report when a queue gets into trouble, or empties.

    All queues are watched, or those that are named, until Ctrl-C.

    \b
    dead        messages became dead letters
    unattended  messages wait, and for --after seconds nobody has taken one, or waited for one
    paused      the queue was paused, and messages wait
    empty       nothing waits, is reserved or delayed any more

    A program of --exec gets SEEQUEUE_QUEUE and SEEQUEUE_EVENT too. While the server is away, it is waited for.

    \b
    seequeue watch mails --exec 'notify-send Seequeue'
    """
    command = shlex.split(program) if program else []
    watched: dict[str, Watched] = {}
    with session.queue() as server:
        changes = Changes(server)
        while True:
            due = min((found for one in watched.values() if (found := one.due_at(after)) is not None), default=None)
            for counts in changes.next(None if due is None else max(0.0, due - time.monotonic())):
                if not queues or counts.name in queues:
                    watched.setdefault(str(counts.name), Watched()).see(counts, time.monotonic())
            for name, one in watched.items():
                for event, text in one.events(time.monotonic(), after):
                    report(
                        session,
                        {"queue": name, "event": event, "text": f"{name}: {text}", **fields_of(one.counts)},
                        post,
                        command,
                    )


class Changes:
    """Follows all queues in a thread, so that the caller can wait for a change or for a time."""

    def __init__(self, server: Queue) -> None:
        self.server = server
        self.found: stdlib_queue.SimpleQueue[Sequence[Counts] | BaseException] = stdlib_queue.SimpleQueue()
        self.names: set[str] = set()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        try:
            for found in self.server.follow_queues():
                self.found.put(found)
        except BaseException as error:
            self.found.put(error)

    def next(self, seconds: float | None) -> Sequence[Counts]:
        """Return the counts after a change, of queues that are empty now too; nothing if none came in time."""
        try:
            found = self.found.get(timeout=seconds)
        except stdlib_queue.Empty:
            return []
        if isinstance(found, BaseException):
            raise found
        names = {str(one.name) for one in found}
        gone = [Counts(0, 0, 0, 0, 0, False, name=name) for name in self.names - names]
        self.names |= names
        return [*found, *gone]


NONE = Counts(0, 0, 0, 0, 0, False)


@dataclass
class Watched:
    """What is known of a queue: its counts, and since when nobody has taken its messages."""

    counts: Counts = NONE
    since: float | None = None  # None while somebody does
    is_reported: bool = False
    pending: list[tuple[str, str]] = field(default_factory=list)

    def see(self, counts: Counts, now: float) -> None:
        """Note new counts."""
        before, self.counts = self.counts, counts
        if (new := counts.dead - before.dead) > 0:
            self.pending.append(("dead", f"dead letters: {new:,} new, {counts.dead:,} in all."))
        if counts.paused and counts.count and not (before.paused and before.count):
            self.pending.append(("paused", f"paused ({counts.count:,} waiting)."))
        if held(before) and not held(counts):
            self.pending.append(("empty", "empty."))
        is_attended = not counts.count or counts.waiters or counts.reserved or counts.paused
        if is_attended:
            self.since, self.is_reported = None, False
        elif self.since is None or counts.count < before.count:
            self.since, self.is_reported = now, False

    def due_at(self, after: float) -> float | None:
        """Return when the queue counts as unattended, unless that was reported."""
        return None if self.since is None or self.is_reported else self.since + after

    def events(self, now: float, after: float) -> list[tuple[str, str]]:
        """Return the events that are to be reported now, each with a text."""
        found, self.pending = self.pending, []
        due = self.due_at(after)
        if due is not None and now >= due:
            self.is_reported = True
            found.append(("unattended", f"nobody takes its messages ({self.counts.count:,} waiting)."))
        return found


def held(counts: Counts) -> int:
    """Return the number of messages that are not done."""
    return counts.count + counts.reserved + counts.delayed


def report(session: Session, event: dict[str, Any], post: str | None, command: Sequence[str]) -> None:
    """Print an event, and pass it on; what fails is printed."""
    session.print(event, event["text"])
    content = as_json(event)
    if post:
        try:
            headers = {"Content-Type": "application/json"}
            answer = httpx2.post(post, content=content, headers=headers, timeout=REPORT_TIMEOUT)
            if not answer.is_success:
                print_error(f"{post} answered {answer.status_code}.")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            print_error(f"{post}: {error}")
    if command:
        more = {"SEEQUEUE_QUEUE": event["queue"], "SEEQUEUE_EVENT": event["event"]}
        try:
            subprocess.run(command, input=content.encode(), env=os.environ | more, timeout=REPORT_TIMEOUT, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            print_error(str(error))

"""work and forward: process messages by a program, or by a web service."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import click
import httpx2

from seequeue.command.base import Session, as_json, print_line, queue_argument, verb
from seequeue.core.protocol import MAX_DELAY, MAX_LEASE, MIN_LEASE, log
from seequeue.errors import Reject
from seequeue.queue import Message, Queue

RETRY_LATER = 75  # EX_TEMPFAIL of sysexits.h
PROGRAM = "seequeue.program"  # in the context of click

OPTIONS = (
    click.option(
        "--concurrency",
        type=click.IntRange(1, 1000),
        metavar="N",
        default=1,
        show_default=True,
        help="How many messages to work on at a time.",
    ),
    click.option(
        "--lease",
        type=click.FloatRange(MIN_LEASE, MAX_LEASE),
        metavar="SECONDS",
        default=30,
        show_default=True,
        help="How long a message stays ours if we die. It is renewed during the work.",
    ),
    click.option(
        "--retry",
        type=click.FloatRange(0, MAX_DELAY),
        metavar="SECONDS",
        help="When to retry. By default after 1 to 2 seconds, doubling each time.",
    ),
    click.option(
        "--grace",
        type=click.FloatRange(0),
        metavar="SECONDS",
        default=30,
        show_default=True,
        help="How long work may go on after SIGTERM or Ctrl-C.",
    ),
    click.option("--until-empty", is_flag=True, help="End when nothing is left to do."),
)


def working(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a worker."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


class Failed(Exception):
    """The work failed, and is to be retried."""


def run_worker(session: Session, queue: Queue, work: Callable[[Message], str | None], **options: Any) -> None:
    """Let a function work on messages until SIGTERM or Ctrl-C. With --json, print a line about each.

    The function returns None when a message is done, or what became of one that it has settled itself.
    """

    def say(message: Message, outcome: str, error: BaseException | None = None) -> None:
        if session.as_json:
            about = {"queue": message.queue, "id": message.id, "deliveries": message.deliveries, "outcome": outcome}
            print_line(as_json(about | ({"reason": str(error)} if error else {})))
            sys.stdout.flush()

    retry = options.pop("retry")
    worker = queue.worker(
        **options,
        **({} if retry is None else {"retry_delay": retry}),
        on_done=lambda message, outcome: say(message, outcome or "done"),
        on_retry=lambda message, error, _: say(message, "retried", error),
        on_reject=lambda message, error: say(message, "rejected", error),
    )(work)
    worker.run()


class ProgramCommand(click.Command):
    """A verb whose arguments behind -- are a program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[PROGRAM] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@verb(cls=ProgramCommand, options_metavar="[OPTION]...")
@queue_argument("queues", nargs=-1, required=True, metavar="QUEUE... -- PROGRAM [ARGUMENT]...")
@working
@click.option("--reject", is_flag=True, help="Do not retry, unless the exit code is 75.")
def work(session: Session, queues: tuple[str, ...], reject: bool, **options: Any) -> None:
    """Run a program for each message.

    The message is its standard input. SEEQUEUE_QUEUE, SEEQUEUE_ID, SEEQUEUE_DELIVERIES, SEEQUEUE_MAX_DELIVERIES and
    SEEQUEUE_DEADLINE (Unix time at which its first lease ends) say more. Of several queues, the first that has a
    message gives it.

    \b
    exit code 0   the message is done
    exit code 75  it is retried, as after SIGKILL
    any other     it is retried, or with --reject becomes a dead letter at once

    After its last delivery, a message that failed becomes a dead letter. The last line on standard error is the reason.
    SIGTERM and Ctrl-C let what runs end within --grace; the rest goes back to the queue.

    \b
    seequeue work urgent normal --concurrency 4 -- ./send-mail --quiet
    """
    command: list[str] = click.get_current_context().meta[PROGRAM]
    if not command:
        raise click.UsageError("Name a program after --", click.get_current_context())
    if not shutil.which(command[0]):
        raise click.UsageError(f"There is no program {command[0]!r}", click.get_current_context())
    with session.queue(*queues) as source:
        known = {"SEEQUEUE_URL": source.url, **({"SEEQUEUE_TOKEN": session.token} if session.token else {})}
        program = Program(command, known, reject)
        try:
            run_worker(session, source, program, **options)
        finally:
            program.kill()


class Program:
    """Runs a program for a message."""

    def __init__(self, command: Sequence[str], known: Mapping[str, str], rejects: bool) -> None:
        self.command, self.known, self.rejects = command, known, rejects
        self.running: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.Lock()

    def __call__(self, message: Message) -> None:
        facts = {
            "QUEUE": message.queue,
            "ID": message.id,
            "DELIVERIES": message.deliveries,
            "MAX_DELIVERIES": message.max_deliveries,
            "DEADLINE": message.deadline,
        }
        env = {**os.environ, **self.known, **{f"SEEQUEUE_{name}": str(value) for name, value in facts.items()}}
        with tempfile.TemporaryFile() as file:  # a pipe would fill up before a program that does not read it
            file.write(message)
            file.seek(0)
            # In a session of its own, it does not get the Ctrl-C that lets it end first.
            process = subprocess.Popen(
                self.command, stdin=file, stderr=subprocess.PIPE, env=env, start_new_session=True
            )
        with self.lock:
            self.running.add(process)
        try:
            last = self._copy_errors(process)
            code = process.wait()
        finally:
            with self.lock:
                self.running.discard(process)
        if code:
            reason = ": ".join(filter(None, [f"exit code {code}" if code > 0 else _name_of(-code), last]))
            raise Reject(reason) if self.rejects and code not in (RETRY_LATER, -signal.SIGKILL) else Failed(reason)

    def _copy_errors(self, process: subprocess.Popen[bytes]) -> str:
        """Pass on what the program prints on standard error, and return the last line."""
        last = b""
        assert process.stderr
        for line in process.stderr:
            with contextlib.suppress(OSError):
                sys.stderr.buffer.write(line)
                sys.stderr.flush()
            last = line.strip() or last
        return last.decode(errors="replace")

    def kill(self) -> None:
        """End what still runs: its message has gone back to the queue."""
        with self.lock:
            for process in self.running:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)


def _name_of(number: int) -> str:
    """Return the name of a signal that ended a program."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@verb(options_metavar="[OPTION]...")
@queue_argument()
@click.argument("endpoint", metavar="ENDPOINT")
@working
@click.option("--header", "-H", multiple=True, metavar="'NAME: VALUE'", help="Send this too. Can be repeated.")
@click.option(
    "--within",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    default=60,
    show_default=True,
    help="How long to wait for the answer.",
)
def forward(
    session: Session, queue: str, endpoint: str, header: tuple[str, ...], within: float, **options: Any
) -> None:
    """POST each message to a web service.

    ENDPOINT is its URL. The body is the message, and the headers Seequeue-Queue, Seequeue-Id, Seequeue-Deliveries and
    Seequeue-Max-Deliveries say more.

    \b
    2xx          the message is done
    429, 5xx     it is retried, after Retry-After if the answer has it; so is one that got no answer
    any other    it becomes a dead letter, with the status as its reason

    \b
    seequeue forward orders https://example.com/orders --concurrency 8
    """
    if not is_url(endpoint):
        raise click.UsageError("ENDPOINT must be a URL with http:// or https://", click.get_current_context())
    more = {name.strip(): value.strip() for name, _, value in (one.partition(":") for one in header)}
    if not all(name and value for name, value in more.items()):
        raise click.UsageError("A header is written as 'NAME: VALUE'", click.get_current_context())
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=options["concurrency"])
    with session.queue(queue) as source, httpx2.Client(timeout=within, limits=limits) as http:
        run_worker(session, source, Poster(http, endpoint, more), **options)


def is_url(text: str) -> bool:
    """Return whether a text is the URL of a web service."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


class Poster:
    """Sends messages to a web service."""

    def __init__(self, http: httpx2.Client, url: str, headers: Mapping[str, str]) -> None:
        self.http, self.url, self.headers = http, url, headers

    def __call__(self, message: Message) -> str | None:
        facts = {
            "Seequeue-Queue": str(message.queue),
            "Seequeue-Id": message.id,
            "Seequeue-Deliveries": str(message.deliveries),
            "Seequeue-Max-Deliveries": str(message.max_deliveries),
        }
        headers = {"Content-Type": content_type(message), **facts, **self.headers}
        try:
            answer = self.http.post(self.url, content=bytes(message), headers=headers)
        except httpx2.TransportError as error:
            raise Failed(str(error) or type(error).__name__) from error
        if answer.status_code == 429 or answer.status_code >= 500:
            return retry_later(message, f"status {answer.status_code}", answer.headers.get("Retry-After", ""))
        if not answer.is_success:
            raise Reject(f"status {answer.status_code}")
        return None


def content_type(message: Message) -> str:
    """Return the media type of a message: JSON, text or bytes."""
    try:
        message.json()
    except ValueError:
        with contextlib.suppress(ValueError):
            return "text/plain; charset=utf-8" if message.text else ""
        return "application/octet-stream"
    return "application/json"


def retry_later(message: Message, reason: str, after: str) -> str:
    """Give a message back for the time of a Retry-After header, and return what became of it.

    Raises:
        Failed: there is no such time, so that it is retried as any other.
    """
    delay = retry_after(after)
    if delay is None:
        raise Failed(reason)
    log.warning("Delivery %d of a message failed: %s; it is retried after %.0f s.", message.deliveries, reason, delay)
    message.release(delay=min(delay, MAX_DELAY), reason=reason)
    return "retried" if message.deliveries < message.max_deliveries else "rejected"


def retry_after(text: str) -> float | None:
    """Return the seconds of a Retry-After header, which has a number or a date; None if it has neither."""
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None

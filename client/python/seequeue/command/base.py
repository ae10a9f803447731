"""What all verbs share: their options, how they print, and how they end."""

import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from seequeue import __version__
from seequeue.core.messages import to_field
from seequeue.errors import Limited, OutcomeUnknown, Paused, SeequeueError, Unavailable
from seequeue.queue import Queue

DONE, FAILED, USAGE, NOTHING, AWAY, INTERRUPTED = 0, 1, 2, 3, 4, 130
PIPE_CLOSED = 128 + 13  # as for a program that SIGPIPE ends

HELP = """Push messages to a Seequeue server, look at its queues, and work on them.

\b
The server is --url or SEEQUEUE_URL (http://localhost:5000), the token --token or SEEQUEUE_TOKEN.

\b
Exit codes:
  0  done
  1  refused by the server, or failed
  2  the command line is wrong
  3  nothing there: the queue is empty, paused or at its limit, or nothing was found
  4  the server is away, or did not answer in time
"""


class Nothing(Exception):
    """There is nothing to print; the text, if any, says why."""


class PipeClosed(Exception):
    """Nobody reads standard output any more."""


@click.group(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Take the verbs, each of which adds itself."""


@dataclass(frozen=True)
class Session:
    """The options that every verb takes."""

    url: str | None
    token: str | None
    timeout: float
    as_json: bool

    def queue(self, *names: str) -> Queue:
        """Return a queue of the server; of several names, those to take from in order."""
        try:
            return Queue(names or None, url=self.url, token=self.token, timeout=self.timeout)
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def print(self, value: dict[str, Any], text: str) -> None:
        """Print an answer: one line of JSON with --json, else a text."""
        print_line(as_json(value) if self.as_json else text)


OPTIONS = (
    click.option("--url", metavar="URL", help="The server. [SEEQUEUE_URL, or http://localhost:5000]"),
    click.option("--token", metavar="TOKEN", help="Its token. [SEEQUEUE_TOKEN]"),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(0.1),
        default=30,
        show_default=True,
        help="How long to try again while the server is away.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, one value per line."),
)


def verb(name: str | None = None, **settings: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Make a function a verb. It gets a Session, then the parameters that the decorators below it name."""

    def make(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(*, url: str | None, token: str | None, timeout: float, as_json: bool, **parameters: Any) -> None:
            try:
                function(Session(url, token, timeout, as_json), **parameters)
                sys.stdout.flush()
            except BrokenPipeError:
                raise PipeClosed from None  # click would exit with 1

        for option in reversed(OPTIONS):
            run = option(run)
        return cli.command(name or function.__name__, **settings)(run)

    return make


def complete_queue(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of queues that begin with a text, for the completion of a shell."""
    logging.disable()  # the terminal shows an unfinished command line
    options = context.params
    try:
        with Queue(url=options.get("url"), token=options.get("token"), timeout=1) as server:
            return [str(one.name) for one in server.queues() if str(one.name).startswith(incomplete)]
    except (SeequeueError, ValueError):
        return []


def queue_argument(name: str = "queue", **settings: Any) -> Callable[[Any], Any]:
    """Return an argument that is the name of a queue."""
    return click.argument(name, shell_complete=complete_queue, **settings)


# --- printing


def as_json(value: Any) -> str:
    """Return compact JSON, in which a message is a text, or {"base64": ...}."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=to_field)


def print_line(text: str) -> None:
    click.echo(text.encode(errors="replace"))


def print_error(text: str) -> None:
    """Print one line on standard error."""
    with contextlib.suppress(OSError):
        click.echo(f"seequeue: {' '.join(text.split())}".encode(errors="replace"), err=True)


def on_terminal(message: bytes, width: int | None = None) -> str:
    """Return a message as one line that a terminal can show: control characters could change the terminal."""
    text = message.decode(errors="backslashreplace")
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return shown if width is None or len(shown) <= width else shown[: width - 1] + "…"


class LineFormatter(logging.Formatter):
    """Writes the warnings of the client as the errors of the command: one line, and no traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return f"seequeue: {' '.join(record.getMessage().split())}"


@contextlib.contextmanager
def progress(total: int | None, label: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on standard error, if it is a terminal and the total is known.

    Yield a function that is called with what has been done by then.
    """
    if not total or not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield lambda done: bar.update(min(done, total) - bar.pos)


# --- the end


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and exit."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    """Run the command, print its error if it fails, and return its exit code."""
    try:
        return cli.main(arguments, prog_name="seequeue", standalone_mode=False) or DONE
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        sentence = error.format_message().rstrip(".") + "."
        print_error(sentence + (f" See: {context.command_path} --help" if context else ""))
        return USAGE if isinstance(error, click.UsageError) else FAILED
    except Nothing as nothing:
        if str(nothing):
            print_error(str(nothing))
        return NOTHING
    except SeequeueError as error:
        print_error(str(error))
        return exit_code_of(error)
    except PipeClosed:
        # The interpreter would flush at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:  # of a file, or of a program that cannot be run
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return FAILED
    except Exception as error:  # nobody who types a command wants a traceback
        print_error(f"{type(error).__name__}: {error}")
        return FAILED


def exit_code_of(error: SeequeueError) -> int:
    """Return the exit code of an error of the server."""
    if isinstance(error, Paused | Limited):
        return NOTHING
    return AWAY if isinstance(error, Unavailable | OutcomeUnknown) else FAILED

"""Programs for the tests of processes: python -m tests.client.programs NAME QUEUE; SEEQUEUE_URL has the server."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from seequeue import AsyncQueue, Queue

kept: list[Any] = []


def say(text: str) -> None:
    print(text, flush=True)


def kept_break(name: str) -> None:
    """Leave a loop that is kept in a variable by break."""
    kept.append(loop := Queue(name).consume())
    for message in loop:
        with message:
            break


def kept_exit(name: str) -> None:
    """Leave a loop that is kept in a variable by an exit."""
    kept.append(loop := Queue(name).consume())
    for message in loop:
        with message:
            sys.exit(3)


def kept_error(name: str) -> None:
    """Leave a loop that is kept in a variable by an error."""
    kept.append(loop := Queue(name).consume())
    for _ in loop:
        raise ZeroDivisionError


def consume(name: str) -> None:
    """Say each message, and take long for those that are "slow"."""
    for message in Queue(name).consume(lease=1):
        with message:
            say(message.text)
            time.sleep(60 if message == b"slow" else 0)


def worker(name: str, seconds: float = 1) -> None:
    """Say each message when its work begins and when it ends."""
    queue = Queue(name)

    @queue.worker(lease=1, grace=20)
    def work(message: Any) -> None:
        say(message.text)
        time.sleep(60 if message == b"stuck" else seconds)
        say(f"{message.text} done")

    work.run()


def async_worker(name: str) -> None:
    """Do the same under asyncio."""
    queue = AsyncQueue(name)

    @queue.worker(lease=1, grace=20)
    async def work(message: Any) -> None:
        say(message.text)
        await asyncio.sleep(60 if message == b"stuck" else 1)
        say(f"{message.text} done")

    asyncio.run(work.run())


if __name__ == "__main__":
    program: Callable[[str], None] = globals()[sys.argv[1]]
    program(sys.argv[2])

"""One run: messages go through a queue while disasters happen, and at the end the books are balanced."""

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from broker.connections.connection import connect
from broker.queue import ReliableQueue
from tests.ledger.api import QUEUE, Api
from tests.ledger.books import Figures, Ledger
from tests.ledger.mix import QUEUES, URGENT, undo_all
from tests.ledger.worlds import World, disasters, world_in
from tests.servers import until

# What gunicorn logs of an answer that had begun when Redis was lost.
BROKEN_STREAM = re.compile(
    r"(?ms)^\[[^\n]*Error handling request\n.*?^(?:broker\.connections\.errors|redis\.exceptions)\.[^\n]*\n"
    r"(?=\[|\d{3} |Cannot|\Z)"
)


def run(
    folder: Path,
    messages: int,
    events: int,
    consumers: int = 3,
    report: Callable[[str], object] = print,
    *,
    name: str = "store",
    seed: int = 1,
) -> Figures:
    """Push and consume `messages` messages through `events` disasters of the world `name`; return the figures."""
    begin, ledger = time.monotonic(), Ledger(folder)
    with world_in(name, ledger, seed) as world:
        for _ in range(consumers):
            world.add_consumer("consume", QUEUE)
            world.add_consumer("settle")
        world.add_consumer("consume", URGENT)
        world.add_consumer("python")
        world.others = tidier, popper = world.start("tidy"), world.start("pop")
        halves = messages // 2, messages - messages // 2
        world.producers = [world.start("produce", f"p{n}", str(half), *QUEUES) for n, half in enumerate(halves)]
        apis = [Api(world.app.url, queue) for queue in QUEUES]
        for done, disaster in enumerate(disasters(world, events), 1):
            due = messages * 0.95 * done / events  # disasters are spread over the messages, not over time
            until(lambda due=due: ledger.read().operations["acked"] >= due or finished(world, apis), 120)  # type: ignore[misc]
            disaster()
            if done % max(1, events // 20) == 0:
                text = f"{done} of {events} disasters, the last to {disaster.__name__}"
                report(f"{time.monotonic() - begin:6.1f} s, {text}: {dict(ledger.operations)}")
        world.heal()
        for producer in world.producers:
            assert producer.wait(120) == 0, (folder / "processes.log").read_text()
        report(f"{time.monotonic() - begin:6.1f} s, all messages are pushed")
        end(tidier, folder)
        undo_all(world.url, world.app.url)
        until(lambda: finished(world, apis), 120)
        end(popper, folder)  # what it popped last may not be in its book yet
        report(f"{time.monotonic() - begin:6.1f} s, all messages are acked")
        ended = [process.args for process in world.clients() if process.poll()]
        assert not ended, (ended, (folder / "processes.log").read_text())
        log = BROKEN_STREAM.sub("", world.app.log.read_text())
        assert not re.search("Traceback|SIGBUS|SIGSEGV", log), log
        figures = ledger.read().figures()
        for api in apis:
            figures.dead += api.call_until_answered("count")[1]["dead"]
            queue = ReliableQueue(connect(world.url), api.queue)
            figures.expired += int(queue.client.hget(queue.key_prefix + "counters", "expired") or 0)
    figures.seconds = time.monotonic() - begin
    return figures


def end(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Stop a process after its current operation."""
    process.terminate()
    assert process.wait(120) == 0, (folder / "processes.log").read_text()


def finished(world: World, apis: list[Api]) -> bool:
    """Return whether nothing is left to do. Lost messages are never acked, so waiting for acks alone would not end."""
    unexpected = [line for line in world.ledger.lines if line[0] == "unexpected"]
    assert not unexpected, unexpected[:5]
    return all(producer.poll() == 0 for producer in world.producers) and all(map(drained, apis))


def drained(api: Api) -> bool:
    status, answer = api.call("count")
    return status == 200 and answer["count"] == answer["reserved"] == answer["delayed"] == 0

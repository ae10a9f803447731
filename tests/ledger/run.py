"""One run: messages go through a queue while disasters happen; the books are balanced at the end."""

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.ledger.api import Api
from tests.ledger.books import Figures, Ledger
from tests.ledger.worlds import World, disasters, world_in
from tests.servers import until


def run(
    folder: Path, messages: int, events: int, consumers: int = 3, report: Callable[[str], object] = print
) -> Figures:
    """Push and consume `messages` messages through `events` disasters; drain the queue, and return the figures."""
    begin, dice, ledger = time.monotonic(), random.Random(1), Ledger(folder)
    with world_in(folder, dice) as world:
        for _ in range(consumers):
            world.add_consumer("consume")
        world.add_consumer("python")
        halves = messages // 2, messages - messages // 2
        world.producers = [world.start("produce", f"p{n}", str(half)) for n, half in enumerate(halves)]
        api = Api(world.app.url)
        for done, disaster in enumerate(disasters(world, events), 1):
            due = messages * 0.95 * done / events  # disasters are spread over the messages, not over time
            until(lambda due=due: ledger.read().operations["acked"] >= due or finished(world, api), 120)  # type: ignore[misc]
            disaster()
            if done % max(1, events // 20) == 0:
                report(f"{time.monotonic() - begin:6.1f} s, {done} of {events} disasters: {dict(ledger.operations)}")
        world.proxy.heal()
        for producer in world.producers:
            assert producer.wait(120) == 0, (folder / "processes.log").read_text()
        report(f"{time.monotonic() - begin:6.1f} s, all messages are pushed")
        until(lambda: drained(api), 120)
        report(f"{time.monotonic() - begin:6.1f} s, all messages are acked")
        ended = [process.args for _, process in world.consumers if process.poll() is not None]
        assert not ended, (ended, (folder / "processes.log").read_text())
        figures = ledger.read().figures()
        figures.dead = api.call_until_answered("count")[1]["dead"]
    figures.seconds = time.monotonic() - begin
    return figures


def finished(world: World, api: Api) -> bool:
    """Return whether nothing is left to do. Lost messages are never acked, so waiting for acks alone would not end."""
    return all(producer.poll() == 0 for producer in world.producers) and drained(api)


def drained(api: Api) -> bool:
    status, answer = api.call("count")
    return status == 200 and answer["count"] == answer["reserved"] == answer["delayed"] == 0

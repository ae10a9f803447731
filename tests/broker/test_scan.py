"""`iter_messages` while other clients push and pop: no message that stays is skipped or yielded twice."""

import random
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from broker import scan
from broker.queue import ReliableQueue
from broker.scan import iter_messages
from RedisQueue import RedisQueue
from tests.broker.helpers import numbered
from tests.servers import FakeRedis, Store


@pytest.fixture
def queue(name: str) -> ReliableQueue:
    """An empty queue on fakeredis, where so many steps are fast."""
    return ReliableQueue(FakeRedis(), name)


class Disturbed:
    """A client that lets other clients act before each of its commands."""

    def __init__(self, client: Any, disturb: Callable[[], None]) -> None:
        self.client, self.disturb = client, disturb

    def __getattr__(self, name: str) -> Any:
        self.disturb()
        return getattr(self.client, name)


def flat(chunks: Iterable[list[bytes]]) -> list[bytes]:
    return [message for chunk in chunks for message in chunk]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 144, 145, 3000])
@pytest.mark.parametrize(("offset", "limit"), [(0, None), (0, 20), (5, None), (5, 7), (10**6, None), (3, 10**6)])
def test_iter_messages_yields_the_queue(queue: ReliableQueue, count: int, offset: int, limit: int | None) -> None:
    queue.push(*numbered(count))
    expected = numbered(count)[offset : None if limit is None else offset + limit]
    assert flat(iter_messages(queue, offset, limit)) == expected


def test_equal_messages_are_all_yielded(queue: ReliableQueue) -> None:
    queue.push(*[b"same"] * 2500)
    assert flat(iter_messages(queue)) == [b"same"] * 2500


@pytest.mark.parametrize(
    "disturb",
    [
        lambda raw, number: raw.pop(10),
        lambda raw, number: raw.pop(200),
        lambda raw, number: raw.pop(10_000) and raw.push(*numbered(10, 10_000 * number)),
        lambda raw, number: raw.push(*numbered(300, 10_000 * number)),
        lambda raw, number: raw.push(*numbered(1, 10_000 * number), front=True),
        lambda raw, number: raw.push(*numbered(500, 10_000 * number), front=True),
        lambda raw, number: raw.push(*numbered(5000, 10_000 * number), front=True),
        lambda raw, number: raw.client.lset(raw.key, -15, "marked") and raw.client.lrem(raw.key, -1, "marked"),
        lambda raw, number: raw.client.lset(raw.key, -16, "marked") and raw.client.lrem(raw.key, -1, "marked"),
        lambda raw, number: raw.push(*raw.pop(100)[50:], front=True),
    ],
    ids=["pops", "many pops", "all popped", "pushes", "one put back", "put back", "many put back", "removed",
         "last removed", "popped and put back"],
)  # fmt: skip
@pytest.mark.parametrize("before", range(1, 5))
def test_one_change_by_another_client_neither_skips_nor_doubles_a_message(
    queue: ReliableQueue, disturb: Callable[[RedisQueue, int], Any], before: int
) -> None:
    """The change comes before the command with the number `before`."""
    raw, number = RedisQueue(queue.client, queue.name), 0

    def change() -> None:
        nonlocal number
        number += 1
        if number == before:
            disturb(raw, number)

    raw.push(*numbered(1000))
    check_iter_messages(raw, change)


def check_iter_messages(raw: RedisQueue, disturb: Callable[[], None]) -> None:
    """Iterate over a queue of unique messages: each that waits throughout must be yielded once, in order."""
    stayed = set(raw.all())

    def watched() -> None:
        disturb()
        stayed.intersection_update(raw.all())

    seen = flat(iter_messages(RedisQueue(Disturbed(raw.client, watched), raw.name)))
    assert [message for message in seen if message in stayed] == [m for m in raw.all() if m in stayed]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_any_changes_by_other_clients_neither_skip_nor_double_a_message(queue: ReliableQueue, seed: int) -> None:
    dice, raw, numbers = random.Random(seed), RedisQueue(queue.client, queue.name), iter(range(10_000, 10**9))

    def new_messages() -> list[bytes]:
        return [b"m%d" % next(numbers) for _ in range(dice.choice([1, 3, 40, 300, 1500]))]

    def disturb() -> None:
        for _ in range(dice.randrange(3)):
            choice = dice.randrange(5)
            if choice < 2:
                raw.pop(dice.choice([1, 5, 50, 400]))
            elif choice == 2:
                raw.push(*new_messages())
            elif choice == 3:
                raw.push(*new_messages(), front=True)
            elif length := raw.count():
                raw.client.lset(raw.key, dice.randrange(length), "marked")
                raw.client.lrem(raw.key, 1, "marked")

    raw.push(*numbered(dice.choice([50, 1000, 4000])))
    check_iter_messages(raw, disturb)


@pytest.mark.slow
def test_beside_busy_clients_each_message_that_stays_is_yielded_once(valkey: Store, name: str) -> None:
    raw = RedisQueue(valkey.client(), name)
    raw.push(*numbered(5000))  # these are popped meanwhile
    stay = [b"stay%d" % number for number in range(20_000)]
    for start in range(0, 20_000, 1000):
        raw.push(*stay[start : start + 1000])
    done = threading.Event()

    def consumer() -> None:
        mine = RedisQueue(valkey.client(), name)
        for _ in range(4900):
            if done.is_set():
                return
            found = mine.pop()
            if found and found[0].startswith(b"stay"):
                mine.push(*found, front=True)
                return

    def producer() -> None:
        mine = RedisQueue(valkey.client(), name)
        for number in range(5000):
            if done.is_set():
                return
            mine.push(b"new%d" % number)

    threads = [threading.Thread(target=target) for target in (consumer, producer)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            seen = flat(iter_messages(RedisQueue(valkey.client(), name)))
            assert [message for message in seen if message.startswith(b"stay")] == stay
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("small", [0, 2000])
def test_large_messages_are_read_a_few_at_once(valkey: Store, name: str, small: int) -> None:
    queue = RedisQueue(valkey.client(), name)
    if small:
        queue.push(*numbered(small))
    for number in range(20):
        queue.push(b"%d" % number * (1 << 19))
    chunks = list(iter_messages(queue))
    assert max(map(len, chunks)) <= scan.MAX_CHUNK
    sizes = [sum(map(len, chunk)) for chunk in chunks]
    assert sum(sizes) > 14 << 20
    if not small:
        assert max(sizes) <= 2 << 20
    queue.pop(small + 20)

"""Finding messages that contain a text, and moving them, while other clients push and pop."""

import itertools
import random
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from broker import scan
from broker.queue import ReliableQueue
from tests.broker.helpers import found, numbered, reserve


def find_all(queue: ReliableQueue, text: str, offset: int = 0) -> list[tuple[int, bytes]]:
    return [(one.position, one.head) for one in found(queue, text, offset)]


def move_all(queue: ReliableQueue, to: ReliableQueue, text: str, max: int | None = None) -> int:
    return sum(queue.find_and_move(to.name, text, max))


def test_letters_match_in_either_case_and_everything_else_as_it_is(queue: ReliableQueue) -> None:
    texts = [b"Order 17", b"order 18", b"\xff ORDER \x00", b"100%", b"a.c", b"abc", "Ž".encode(), "ž".encode(), b"[x]"]
    queue.push(*texts)
    assert find_all(queue, "oRDer") == [(0, texts[0]), (1, texts[1]), (2, texts[2])]
    assert find_all(queue, "a.c") == [(4, b"a.c")]
    assert find_all(queue, "0%") == [(3, b"100%")]
    assert find_all(queue, "ž") == [(7, "ž".encode())]
    assert find_all(queue, "[x") == [(8, b"[x]")]
    assert find_all(queue, "order", offset=1) == [(1, texts[1]), (2, texts[2])]
    assert find_all(queue, "nothing") == []
    assert queue.all() == texts


def test_a_chunk_has_the_first_bytes_and_the_size_of_each_message_found(queue: ReliableQueue) -> None:
    queue.push(*[b"needle %d " % number + b"x" * 1000 for number in range(50)])
    all_found = [*itertools.chain(*queue.find("needle", 8))]
    assert [(one.position, one.head, one.size) for one in all_found[:2]] == [
        (0, b"needle 0", 1009),
        (1, b"needle 1", 1009),
    ]
    assert len(all_found) == 50


def test_a_text_is_found_anywhere_in_a_large_message(queue: ReliableQueue) -> None:
    """Also across two of the parts in which it is searched."""
    part, size = scan.SEARCHED_BYTES, 1 << 20
    places = [0, part - 6, part - 3, part, 5 * part - 1, size - 6]
    for place in places:
        queue.push(b"x" * place + b"Needle" + b"x" * (size - 6 - place))
    queue.push(b"y" * size, b"needle")
    assert [position for position, _ in find_all(queue, "needle")] == [0, 1, 2, 3, 4, 5, 7]
    to = ReliableQueue(queue.client, f"{queue.name}.to")
    assert (move_all(queue, to, "needle"), queue.count(), to.count()) == (7, 1, 7)


@pytest.mark.parametrize("small", [0, 500])
def test_no_command_of_a_search_reads_more_than_one_new_large_message(queue: ReliableQueue, small: int) -> None:
    """Small messages do not hide that large ones follow. The last message is read again, to know where it is by now."""
    size = 1 << 20
    queue.push(*numbered(small))
    for number in range(6):
        queue.push(b"%d" % number + b"x" * size)
    client = Counting(queue.client)
    with queue.client.monitor() as monitor:
        assert found(ReliableQueue(client, queue.name), "none") == []
        queue.client.echo("end")
        while not (command := monitor.next_command())["command"].startswith("ECHO"):
            if command["client_type"] == "lua" and command["command"].startswith("LRANGE"):
                _, _, start, stop = command["command"].split()
                assert start == stop
    assert size < client.largest < 2.5 * size


def test_a_move_reads_no_message_again(queue: ReliableQueue) -> None:
    """Except the last ones of each chunk, to know where they are by now."""
    for start in range(0, 20_000, 1000):
        queue.push(*[b"%06d%s" % (number, b" needle" * (start >= 10_000)) for number in range(start, start + 1000)])
    client = Counting(queue.client)
    assert sum(ReliableQueue(client, queue.name).find_and_move(queue.name + "x", "needle")) == 10_000
    assert client.total < 1.5 * (10_000 * 6 + 10_000 * 13)


class Counting:
    """A client that records the bytes of messages in the replies to its pipelines: of the largest, and of all."""

    def __init__(self, client: Any) -> None:
        self.client, self.largest, self.total = client, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def pipeline(self, **options: Any) -> Any:
        pipeline = self.client.pipeline(**options)
        execute = pipeline.execute

        def counted(**options: Any) -> Any:
            replies = execute(**options)
            sizes = [sum(map(len, each)) for each in replies if isinstance(each, list)]
            self.largest, self.total = max(self.largest, *sizes), self.total + sum(sizes)
            return replies

        pipeline.execute = counted
        return pipeline


@pytest.mark.parametrize("size", [0, 1 << 16, (1 << 16) + 1, 1_000_003])
def test_the_history_of_a_message_comes_with_it(queue: ReliableQueue, size: int) -> None:
    queue.push(b"a", b"needle" + secrets.token_bytes(size), b"b")
    reserved = reserve(queue, 3)
    queue.release(*(one.id for one in reserved), reason="why")
    [one] = found(queue, "needle", details=True)
    assert one.details and (one.details.deliveries, one.details.reason) == (1, "why")


@pytest.mark.parametrize("seed", range(2))
def test_a_message_that_waits_throughout_is_found_once(queue: ReliableQueue, seed: int) -> None:
    dice = random.Random(seed)
    queue.push(*[b"%d needle" % number if number % 50 == 0 else b"%d" % number for number in range(12_000)])
    heads, calls = [], 0
    for more in queue.find("needle", 50):
        heads += [one.head for one in more]
        calls += 1
        queue.pop(dice.randrange(300))
        queue.push(*numbered(dice.randrange(100), 1_000_000))
        if dice.random() < 0.5:
            queue.push(*numbered(dice.randrange(1, 50), 2_000_000), front=True)
    assert calls > 3
    assert max(Counter(heads).values()) == 1
    assert set(heads) >= {message for message in queue.all() if b"needle" in message}


def test_a_move_takes_what_was_found_in_order_and_nothing_else(queue: ReliableQueue) -> None:
    texts = [b"%d%s" % (number, b" needle" if number % 3 == 0 else b"") for number in range(100)]
    queue.push(*texts)
    to = ReliableQueue(queue.client, queue.name + "x")
    to.push(b"before")
    assert move_all(queue, to, "NEEDLE") == 34
    assert queue.all() == [text for text in texts if b"needle" not in text]
    assert to.all() == [b"before", *[text for text in texts if b"needle" in text]]


def test_a_move_of_equal_messages_takes_the_first(queue: ReliableQueue) -> None:
    queue.push(b"same", b"a", b"same", b"same")
    to = ReliableQueue(queue.client, queue.name + "x")
    assert move_all(queue, to, "same", 2) == 2
    assert (queue.all(), to.all()) == ([b"a", b"same"], [b"same", b"same"])


def test_a_move_forgets_only_the_deliveries_of_what_it_takes(queue: ReliableQueue) -> None:
    queue.push(b"a", b"needle", b"b")
    queue.release(*(one.id for one in reserve(queue, 3)))
    assert sum(queue.find_and_move(queue.name + "x", "needle")) == 1
    assert [(bytes(one), one.deliveries) for one in reserve(queue, 2)] == [(b"a", 2), (b"b", 2)]


@pytest.mark.parametrize("seed", range(2))
def test_a_move_loses_and_doubles_nothing_while_others_pop(queue: ReliableQueue, seed: int) -> None:
    dice = random.Random(seed)
    texts = [b"%d needle" % number if dice.random() < 0.1 else b"%d" % number for number in range(10_000)]
    queue.push(*texts)
    to = ReliableQueue(queue.client, queue.name + "x")
    popped: list[bytes] = []
    moved = 0
    for number in queue.find_and_move(to.name, "needle"):
        moved += number
        popped += queue.pop(dice.randrange(200))
    assert Counter(popped + queue.all() + to.all()) == Counter(texts)
    assert not [text for text in queue.all() if b"needle" in text]
    taken = to.all()
    assert (taken, len(taken)) == ([text for text in texts if text in set(taken)], moved)


class Disturbed:
    """A client that lets another one act before its first script."""

    def __init__(self, client: Any, disturb: Callable[[], object]) -> None:
        self.client, self.disturbs = client, [disturb]

    def __getattr__(self, name: str) -> Any:
        if name == "evalsha" and self.disturbs:
            self.disturbs.pop()()
        return getattr(self.client, name)


@pytest.mark.parametrize("change", ["pop", "push in front", "pop all in front", "pop and push"])
def test_what_was_found_is_moved_though_other_clients_pop_and_push_meanwhile(queue: ReliableQueue, change: str) -> None:
    """What they popped is not moved as well, and no other message is moved in its place."""
    texts = [b"%d%s" % (number, b" needle" if number % 3 == 0 else b"") for number in range(100)]
    queue.push(*texts)
    changes: dict[str, Callable[[], object]] = {
        "pop": lambda: queue.pop(10),
        "push in front": lambda: queue.push(*numbered(10, 1000), front=True),
        "pop all in front": lambda: queue.pop(99),
        "pop and push": lambda: (queue.pop(10), queue.push(*numbered(30, 1000), front=True)),
    }
    left = texts[{"push in front": 0, "pop all in front": 99}.get(change, 10) :]
    to = ReliableQueue(queue.client, queue.name + "x")
    moving = ReliableQueue(Disturbed(queue.client, changes[change]), queue.name)
    assert sum(moving.find_and_move(to.name, "needle")) == len(to.all())
    assert to.all() == [text for text in left if b"needle" in text]
    assert [text for text in queue.all() if text in texts] == [text for text in left if b"needle" not in text]
    assert queue.count() == len(left) - to.count() + (10 if change == "push in front" else 30 if "and" in change else 0)

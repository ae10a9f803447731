"""Finding messages that contain a text, and moving them, while other clients push and pop."""

import random
from collections import Counter

import pytest

from broker.models import Search
from broker.queue import ReliableQueue
from tests.broker.helpers import numbered, reserve


def find_all(queue: ReliableQueue, text: str, offset: int = 0) -> list[tuple[int, bytes]]:
    search, found = Search(offset), []
    while not search.is_over:
        more, search = queue.find(text, 100, 50, search)
        found += [(one.position, one.head) for one in more]
    return found


def move_all(queue: ReliableQueue, to: ReliableQueue, text: str, max: int = 1000) -> int:
    search, moved = Search(), 0
    while not search.is_over:
        number, search = queue.find_and_move(to.name, text, max, search)
        moved += number
    return moved


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


def test_only_first_bytes_leave_redis_and_no_more_messages_than_asked_for(queue: ReliableQueue) -> None:
    queue.push(*[b"needle %d " % number + b"x" * 1000 for number in range(50)])
    found, search = queue.find("needle", 7, 8, Search())
    assert [(one.position, one.head, one.size) for one in found[:2]] == [(0, b"needle 0", 1009), (1, b"needle 1", 1009)]
    assert (len(found), search.position, search.is_over) == (7, 7, False)
    assert queue.find("needle", 1, 8, search)[0][0].position == 7


def test_a_large_message_is_searched_in_parts(queue: ReliableQueue) -> None:
    """The text is found wherever it is, also across two parts, and nowhere twice."""
    part, size = 64 * 1024, 1 << 20
    places = [0, part - 6, part - 3, part, 5 * part - 1, size - 6]
    for place in places:
        queue.push(b"x" * place + b"Needle" + b"x" * (size - 6 - place))
    queue.push(b"y" * size, b"needle")
    search, found, calls = Search(), [], 0
    while not search.is_over:
        more, search = queue.find("needle", 100, 6, search)
        found += [one.position for one in more]
        calls += 1
    assert found == [0, 1, 2, 3, 4, 5, 7]
    assert calls >= sum(1 + place // part for place in places) + size // part  # no call searches more than one part
    to = ReliableQueue(queue.client, f"{queue.name}.to")
    assert (move_all(queue, to, "needle"), queue.count(), to.count()) == (7, 1, 7)


def test_what_was_seen_of_a_large_message_says_nothing_about_the_next(queue: ReliableQueue) -> None:
    queue.push(b"a" * (1 << 20), b"needle" + b"b" * (1 << 20), b"c")
    _, search = queue.find("needle", 1, 6, Search())
    assert search.part[0] > 0
    queue.pop()
    found, _ = queue.find("needle", 1, 6, search)
    assert [one.position for one in found] == [0]


def test_the_history_of_a_message_comes_with_it(queue: ReliableQueue) -> None:
    queue.push(b"a", b"needle", b"b")
    reserved = reserve(queue, 3)
    queue.release(*(one.id for one in reserved), reason="why")
    [found], _ = queue.find("needle", 9, 9, Search(), details=True)
    assert found.details and (found.details.deliveries, found.details.reason) == (1, "why")


@pytest.mark.parametrize("seed", range(2))
def test_a_message_that_waits_throughout_is_found_once(queue: ReliableQueue, seed: int) -> None:
    dice = random.Random(seed)
    queue.push(*[b"%d needle" % number if number % 50 == 0 else b"%d" % number for number in range(12_000)])
    search, found, calls, left = Search(), [], 0, 0
    while not search.is_over:
        more, search = queue.find("needle", 1000, 50, search)
        found += [one.head for one in more]
        calls += 1
        left += len(queue.pop(dice.randrange(300)))
        queue.push(*numbered(dice.randrange(100), 1_000_000))
        if dice.random() < 0.5:
            queue.push(*numbered(dice.randrange(1, 50), 2_000_000), front=True)
    assert calls > 5
    assert max(Counter(found).values()) == 1
    assert set(found) >= {message for message in queue.all() if b"needle" in message}


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
    assert queue.find_and_move(to.name, "same", 2, Search())[0] == 2
    assert (queue.all(), to.all()) == ([b"a", b"same"], [b"same", b"same"])


def test_a_move_forgets_only_the_deliveries_of_what_it_takes(queue: ReliableQueue) -> None:
    queue.push(b"a", b"needle", b"b")
    queue.release(*(one.id for one in reserve(queue, 3)))
    queue.find_and_move(queue.name + "x", "needle", 9, Search())
    assert [(bytes(one), one.deliveries) for one in reserve(queue, 2)] == [(b"a", 2), (b"b", 2)]


@pytest.mark.parametrize("seed", range(2))
def test_a_move_loses_and_doubles_nothing_while_others_pop(queue: ReliableQueue, seed: int) -> None:
    dice = random.Random(seed)
    texts = [b"%d needle" % number if dice.random() < 0.1 else b"%d" % number for number in range(10_000)]
    queue.push(*texts)
    to = ReliableQueue(queue.client, queue.name + "x")
    popped: list[bytes] = []
    search, moved = Search(), 0
    while not search.is_over:
        number, search = queue.find_and_move(to.name, "needle", 1000, search)
        moved += number
        popped += queue.pop(dice.randrange(200))
    assert Counter(popped + queue.all() + to.all()) == Counter(texts)
    assert not [text for text in queue.all() if b"needle" in text]
    taken = to.all()
    found = set(taken)
    assert (taken, len(taken)) == ([text for text in texts if text in found], moved)

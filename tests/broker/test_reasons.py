"""Why messages failed: reasons are grouped by what numbers and ids hide, counted, and searched for."""

import time
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.connections.connection import connect
from broker.models import Details
from broker.queue import ReliableQueue
from broker.queue import reasons as module
from broker.reasons import MAX_REASONS, Reason, Tally, mask
from tests.broker.helpers import dead_letters, numbered, reserve


def fail(queue: ReliableQueue, *reasons: str, dead: bool = True, delay: float = 0) -> list[bytes]:
    """Push a message for each reason, let it fail for that reason, and return the messages; the queue must be empty."""
    messages = [f"{queue.name} {reason}".encode() for reason in reasons]
    queue.push(*messages)
    for reservation, reason in zip(reserve(queue, len(reasons)), reasons, strict=True):
        queue.release(reservation.id, dead=dead, delay=delay, reason=reason)
    return messages


def counted(queue: ReliableQueue) -> dict[str, int]:
    """Return the number of messages that failed for each reason, most frequent first."""
    return {reason.reason: reason.count for reason in queue.reasons()[0]}


@pytest.mark.parametrize(
    ("reason", "masked"),
    [
        ("timeout after 30 s", "timeout after # s"),
        ("1,234.50 of 10.0.0.1:6379", "# of #:#"),
        ("HTTP 503 from host-7", "HTTP # from host-#"),
        ("no user 6f1c9a70-03d2-4c0e-9d0f-2b8e4f0a1b2c", "no user <id>"),
        ("<object at 0x7f83ab>", "<object at <id>>"),
        ("commit 1bdb789f failed", "commit <id> failed"),
        ("job 01ARZ3NDEKTSV4RRFFQ69G5FAV", "job <id>"),
        ("at 1795489534522", "at #"),
        ("KeyError: 'facade'", "KeyError: 'facade'"),
        ("NoSuchElementException: name", "NoSuchElementException: name"),
        ("utf8 in abc123de_", "utf# in <id>_"),
        ("žluť 9\nline 2", "žluť #\nline #"),
    ],
)
def test_numbers_and_ids_are_masked(reason: str, masked: str) -> None:
    assert mask(reason) == masked


@given(st.text(st.sampled_from("aAfFzZx01٣9-.,<>#' é"), max_size=60))
def test_a_masked_reason_is_not_longer_and_stays_as_it_is(reason: str) -> None:
    masked = mask(reason)
    assert len(masked) <= len(reason)
    assert mask(masked) == masked
    assert not set(masked) & set("0123456789")


def test_dead_letters_are_counted_by_masked_reason_most_frequent_first(queue: ReliableQueue) -> None:
    fail(queue, "timeout after 1 s", "no such user", "timeout after 2 s")
    fail(queue, "timeout after 3 s")
    found, complete = queue.reasons()
    assert [(one.reason, one.count, one.example) for one in found] == [
        ("timeout after # s", 3, "timeout after 3 s"),
        ("no such user", 1, "no such user"),
    ]
    assert complete
    assert time.time() - 50 < found[0].first <= found[0].last < time.time() + 50
    assert dead_letters(queue).reasons() == (found, True)


def test_what_waits_to_be_retried_is_counted_and_what_never_failed_is_not(queue: ReliableQueue) -> None:
    fail(queue, "late", dead=False, delay=100)
    fail(queue, "now 1", "now 2", dead=False)
    queue.push(b"front", front=True)
    queue.push_later(100, [b"new"])
    assert counted(queue) == {"now #": 2, "late": 1}
    assert counted(dead_letters(queue)) == {}


def test_dead_letters_that_were_moved_back_count_when_they_fail_again(queue: ReliableQueue) -> None:
    fail(queue, "why", "why")
    dead_letters(queue).move(queue.name, 2)
    assert counted(queue) == {}
    queue.release(reserve(queue)[0].id, reason="again")
    assert counted(queue) == {"again": 1}


def test_equal_dead_letters_are_counted_each(queue: ReliableQueue) -> None:
    fail(queue, "same")
    fail(queue, "same")
    assert counted(queue) == {"same": 2}


def test_a_failure_that_a_scan_repeats_is_counted_once(name: str) -> None:
    pages = iter([(7, {b"digest": b"1:5:9000:why"}), (0, {b"digest": b"1:5:9000:why", b"other": b"2:5:8000:why"})])
    client = SimpleNamespace(hscan=lambda *_, **__: next(pages))
    assert ReliableQueue(client, name + ".dead").reasons() == ([Reason("why", 3, 8, 9, "why")], True)


def test_counting_stops_at_a_limit_and_says_so(queue: ReliableQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(queue, *("abcdefgh"[n % 8] * 9 for n in range(8)))
    monkeypatch.setattr(module, "MAX_READ", 8)
    monkeypatch.setattr(module, "PAGE", 2)
    assert queue.reasons()[1] is True  # no more are left
    queue.push_later(100, numbered(1))
    assert queue.reasons()[1] is False
    delayed = ReliableQueue(queue.client, queue.name + ".delayed")
    delayed.push_later(100, numbered(9))
    assert delayed.reasons() == ([], False)
    tally = Tally()
    tally.add((1, 1.0, "".join("abcdefghij"[int(digit)] for digit in str(n))) for n in range(MAX_REASONS))
    assert tally.complete
    tally.add([(1, 2.0, "one more"), (1, 2.0, "a")])
    assert (tally.complete, len(tally.reasons())) == (False, MAX_REASONS)
    assert tally.reasons()[0].count == 2


def search(queue: ReliableQueue, reason: str, text: str = "") -> list[tuple[int, bytes]]:
    """Return the position and the text of each message that failed for a reason."""
    return [(one.position, one.head) for one in chain.from_iterable(queue.find(text, 99, reason=reason))]


def test_dead_letters_are_found_by_their_masked_reason_or_an_example(queue: ReliableQueue) -> None:
    messages = fail(queue, "timeout 1", "other", "timeout 2", "timeout 3")
    dead = dead_letters(queue)
    dead.push(b"never failed")
    expected = [(at, messages[at]) for at in (0, 2, 3)]
    assert search(dead, "timeout #") == search(dead, "timeout 77") == expected
    assert search(dead, "timeout #", "OUT 2") == [expected[1]]
    assert search(dead, "timeout") == search(queue, "timeout #") == []


def test_a_search_by_reason_finds_each_message_once_however_many_reasons_there_are(queue: ReliableQueue) -> None:
    reasons = [f"timeout {n}" if n % 3 else "x" * (1 + n) for n in range(900)]
    messages = fail(queue, *reasons)
    expected = [(at, message) for at, message in enumerate(messages) if at % 3]
    assert search(dead_letters(queue), "timeout 5") == expected


def test_a_retry_is_found_by_the_reason_of_its_last_failure(queue: ReliableQueue) -> None:
    fail(queue, "first 1")
    dead_letters(queue).move(queue.name, 1)
    assert len(search(queue, "first #")) == 1
    queue.release(reserve(queue)[0].id, reason="second 2")
    assert (search(queue, "first #"), len(search(queue, "second #"))) == ([], 1)


def test_a_retry_is_found_by_its_reason_though_messages_ahead_leave_meanwhile(
    queue: ReliableQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(queue, *(f"timeout {n}" for n in range(60)), dead=False)
    details_of = queue._details_of

    def late(found: list[tuple[int, bytes]]) -> list[Details]:
        queue.pop(5)
        return details_of(found)

    monkeypatch.setattr(queue, "_details_of", late)
    found = {message for _, message in search(queue, "timeout #")}
    assert set(queue.all()) <= found
    assert queue.count() > 20


def test_only_messages_that_failed_for_the_reason_are_moved_whatever_is_popped_meanwhile(queue: ReliableQueue) -> None:
    messages = fail(queue, *(f"timeout {n}" if n % 2 else f"other {'y' * n}" for n in range(600)))
    dead, moved = dead_letters(queue), 0
    popped: list[bytes] = []
    for number in dead.find_and_move(queue.name, "", reason="timeout #"):
        moved += number
        popped += dead.pop(2)
    gone = set(popped)
    wrong = [message for message in queue.all() if b"timeout" not in message]
    left = [message for message in dead.all() if b"timeout" in message]
    assert (wrong, left, moved) == ([], [], queue.count())
    assert queue.all() == [message for message in messages if b"timeout" in message and message not in gone]


@pytest.mark.parametrize("undone", [False, True])
def test_reasons_and_moves_back_work_on_every_engine(engine: Any, name: str, undone: bool) -> None:
    queue = ReliableQueue(connect(engine.url), name)
    fail(queue, "bad 1", "bad 2", "good")
    dead = dead_letters(queue)
    assert counted(queue) == {"bad #": 2, "good": 1}
    undo = dead.new_undo(queue.name)
    assert sum(dead.find_and_move(queue.name, "", 9, "bad #", undo)) == 2
    assert counted(queue) == {"good": 1}
    if undone:
        assert (dead.restore(undo), counted(queue)) == (2, {"bad #": 2, "good": 1})
    assert [one.deliveries for one in reserve(queue, 9)] == ([] if undone else [1, 1])


def test_messages_that_failed_for_the_reason_are_removed_and_restored(queue: ReliableQueue) -> None:
    messages = fail(queue, "timeout 1", "other", "timeout 2")
    dead = dead_letters(queue)
    undo, steps = dead.find_and_remove("", reason="timeout #")
    assert (sum(steps), dead.all(), counted(queue)) == (2, [messages[1]], {"other": 1})
    assert (dead.restore(undo), counted(queue)) == (2, {"timeout #": 2, "other": 1})


def test_a_page_of_reasons_is_bounded(queue: ReliableQueue) -> None:
    """Redis serves others between two pages."""
    for start in range(0, 900, 300):
        queue.push(*numbered(300, start))
        queue.release(*(one.id for one in reserve(queue, 300)), dead=True, reason="x" * 1000)
    assert counted(queue) == {"x" * 1000: 900}
    pages = [len(page) for page in queue._dead_letters("dead:")]
    assert sum(pages) == 900
    assert max(pages) <= 2 * module.PAGE
